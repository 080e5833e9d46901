"""Pictures of demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demos.store import DemoStore
from toolkit.picture import save_picture


def plot_demos(store: DemoStore, path: Path) -> Path:
    """Draws every action element over time, all episodes on top of each other, excluded ones in grey.

    Args:
        store: What to draw.
        path: The picture to write; its suffix decides the format.

    Returns:
        `path`.

    Raises:
        ToolkitError: The picture cannot be written there.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    episodes, rows = store.episodes(include_excluded=True), store.table()
    names = store.spec.action_names
    figure, axes = plt.subplots(len(names), 1, figsize=(9, 1.4 * len(names) + 1), sharex=True, squeeze=False)
    for i, name in enumerate(names):
        axis = axes[i, 0]
        for episode, row in zip(episodes, rows, strict=True):
            time = np.asarray(episode.timestamps[:-1])
            axis.plot(time, episode.actions[:, i], linewidth=0.7, color="lightgray" if row.excluded else None)
        axis.set_ylim(-1.05, 1.05)
        axis.set_ylabel(name, rotation=0, ha="right")
    axes[-1, 0].set_xlabel("time [s]")
    figure.suptitle(f"{store.path.name}: actions of {store.n_episodes} episodes")
    return save_picture(figure, path)
