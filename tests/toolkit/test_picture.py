"""A picture is written and closed, or one line says why not."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pytest

from robots.spec import ToolkitError
from toolkit.picture import save_picture


def test_a_picture_is_written_and_its_figure_closed(tmp_path: Path):
    figure = plt.figure()
    assert save_picture(figure, tmp_path / "a.png").stat().st_size > 100
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize("name", ["nowhere/a.png", "a.unheard_of"])
def test_a_picture_that_cannot_be_written_is_said_in_one_line(tmp_path: Path, name: str):
    """A folder that is not there, and a format nobody knows; the figure is closed all the same."""
    figure = plt.figure()
    with pytest.raises(ToolkitError, match="no picture written"):
        save_picture(figure, tmp_path / name)
    assert not plt.fignum_exists(figure.number)
