"""Picture of how far demos lie apart, and what each therefore weighs."""

from __future__ import annotations

from pathlib import Path

from demos.quality import QualityReport
from toolkit.picture import save_picture


def plot_quality(report: QualityReport, path: Path) -> Path:
    """Draws the energy distance between demos as a map, and their weights as bars beside it.

    Args:
        report: What to draw.
        path: The picture to write; its suffix decides the format.

    Returns:
        `path`.

    Raises:
        ToolkitError: The picture cannot be written there.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [str(episode.index) for episode in report.episodes]
    places = range(len(names))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), width_ratios=[3, 2])
    image = left.imshow(report.distance, cmap="viridis")
    figure.colorbar(image, ax=left, label="energy distance H")
    left.set(xticks=places, yticks=places, xticklabels=names, yticklabels=names, xlabel="episode", ylabel="episode")
    right.barh(places, [episode.weight for episode in report.episodes])
    right.set(yticks=places, yticklabels=names, xlim=(0.0, 1.05), xlabel="weight in learning", ylabel="episode")
    right.invert_yaxis()
    return save_picture(figure, path)
