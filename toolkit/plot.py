"""Pictures of a run."""

from __future__ import annotations

from pathlib import Path

from toolkit.metrics import read_metrics
from toolkit.run import read_evaluations


def plot_run(folder: Path, expert: float | None = None, random: float | None = None) -> Path:
    """Draws the learning curve: return in dm_control over steps, and what the discriminator saw.

    Args:
        folder: A run folder with evaluations.csv and metrics.csv.
        expert: Mean return of the demos, drawn as a line if given.
        random: Mean return of random actions, drawn as a line if given.

    Returns:
        Path of the PNG, `curve.png` in the run folder.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    evaluations, metrics = read_evaluations(folder), read_metrics(folder / "metrics.csv")
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 7), sharex=True, height_ratios=[3, 2], constrained_layout=True
    )
    steps = [row["steps"] / 1e6 for row in evaluations]
    mean, std = [row["mean"] for row in evaluations], [row["std"] for row in evaluations]
    top.plot(steps, mean, marker="o", markersize=3, color="tab:blue", label="learned policy")
    top.fill_between(
        steps,
        [m - s for m, s in zip(mean, std, strict=True)],
        [m + s for m, s in zip(mean, std, strict=True)],
        alpha=0.2,
    )
    for value, label, colour in ((expert, "demonstrations", "tab:green"), (random, "random actions", "tab:gray")):
        if value is not None:
            top.axhline(value, linestyle="--", color=colour, label=f"{label} ({value:.0f})")
    top.set_ylabel("return in dm_control")
    top.set_ylim(bottom=0)
    top.legend(loc="lower right")
    top.set_title(folder.name)
    for name, label in (("reward/accuracy", "discriminator accuracy"), ("held_out/accuracy", "on held-out demos")):
        if metrics and name in metrics[0]:
            bottom.plot(
                [row["steps"] / 1e6 for row in metrics], [row[name] for row in metrics], linewidth=1, label=label
            )
    if bottom.lines:
        bottom.axhline(0.5, linestyle=":", color="tab:gray")
        bottom.legend(loc="lower right")
    bottom.set_ylim(0, 1.02)
    bottom.set_xlabel("control steps [million]")
    bottom.set_ylabel("share called right")
    path = folder / "curve.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
