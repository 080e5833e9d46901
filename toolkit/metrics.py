"""The numbers of a run, one row an iteration: a CSV a person can open and TensorBoard curves."""

from __future__ import annotations

import csv
from pathlib import Path

TIME_PREFIX = "time/"  # wall-clock columns: the only ones that differ between a run and its resumed twin


class MetricsLog:
    """Appends rows to `metrics.csv` and mirrors them to TensorBoard."""

    def __init__(self, folder: Path, after_iteration: int) -> None:
        """Opens the log of a run.

        Args:
            folder: The run folder.
            after_iteration: Rows up to this iteration are kept, later ones dropped: a run that was killed had logged
                iterations its last checkpoint does not hold, and will run them again.
        """
        from torch.utils.tensorboard.writer import SummaryWriter

        self.path = folder / "metrics.csv"
        rows = [row for row in read_metrics(self.path) if row["iteration"] <= after_iteration]
        self._columns = list(rows[0]) if rows else []
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            if rows:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
        partial.replace(self.path)
        self._file = self.path.open("a", newline="")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=int(rows[-1]["steps"]) if rows else 0)

    def add(self, iteration: int, steps: int, metrics: dict[str, float]) -> None:
        """Writes one iteration.

        Args:
            iteration: Iterations so far.
            steps: Control steps so far.
            metrics: Values by name; the same names every time.
        """
        row = {"iteration": iteration, "steps": steps, **metrics}
        if not self._columns:
            self._columns = list(row)
            csv.DictWriter(self._file, self._columns).writeheader()
        csv.DictWriter(self._file, self._columns).writerow({key: _text(value) for key, value in row.items()})
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, steps)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a `metrics.csv`; none if there is no file. A last line torn by a crash is dropped."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if None in row or None in row.values() or "" in row.values():
                break
            try:
                rows.append({key: float(value) for key, value in row.items()})
            except ValueError:  # torn inside its last number
                break
    return rows


def _text(value: float) -> str:
    # repr is the shortest text that reads back to the same float: nothing is rounded away.
    return repr(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
