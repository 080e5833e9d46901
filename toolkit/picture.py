"""Writing a picture where a person asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robots.spec import ToolkitError


def save_picture(figure: Any, path: Path) -> Path:
    """Writes a matplotlib figure and closes it.

    Args:
        figure: What to write.
        path: The picture; its suffix decides the format.

    Returns:
        `path`.

    Raises:
        ToolkitError: The picture cannot be written there.
    """
    import matplotlib.pyplot as plt

    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise ToolkitError(f"{path}: no picture written: {error}") from error
    finally:
        plt.close(figure)
    return path
