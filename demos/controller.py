"""A controller of one's own as the expert: a Python file whose `make_act(spec)` gives what acts."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from demos.operators import OperatorError
from robots.spec import RobotSpec

MAKER = "make_act"


class Controller:
    """What the file's `make_act` gave; its mistakes are told by the line of the file they happened in."""

    def __init__(self, path: str | Path, spec: RobotSpec) -> None:
        """Runs the file, and its `make_act(spec)`.

        Args:
            path: A Python file. It is run with all rights of whoever records: read one from a stranger first.
            spec: The robot; handed to `make_act`.

        Raises:
            OperatorError: No such file, no `make_act` in it, an exception in it, or what it gave cannot be called.
        """
        self._path = Path(path)
        module_spec = importlib.util.spec_from_file_location(f"{__name__}_{self._path.stem}", self._path)
        if not self._path.is_file() or module_spec is None or module_spec.loader is None:
            raise OperatorError(f"{path}: a controller is a Python file, NAME.py, with {MAKER}(spec)")
        module = importlib.util.module_from_spec(module_spec)
        self._file = module.__file__  # absolute, as tracebacks have it
        sys.modules[module.__name__] = module  # where what a module defines is looked up, a dataclass for one
        self._call(module_spec.loader.exec_module, module)
        make_act = getattr(module, MAKER, None)
        if not callable(make_act):
            raise OperatorError(f"{path}: no {MAKER}(spec) in it, which gives the function observation -> action")
        self._act: Callable[[np.ndarray], np.ndarray] = self._call(make_act, spec)
        if not callable(self._act):
            raise OperatorError(f"{path}: {MAKER}(spec) gave {self._act!r}; expected a function observation -> action")

    def reset(self) -> None:
        """A controller that remembers has a `reset`, called before each episode."""
        forget = getattr(self._act, "reset", None)
        if forget is not None:
            self._call(forget)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Action (act_dim,), dimensionless, for an observation (obs_dim,) float32.

        Raises:
            OperatorError: An exception in the controller.
        """
        return self._call(self._act, observation)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == self._file]
            if isinstance(error, SyntaxError) and error.filename == self._file:
                lines.append(error.lineno)
            line = lines[-1] if lines else None
            where = self._path if line is None else f"{self._path}:{line}"
            raise OperatorError(f"{where}: {type(error).__name__}: {' '.join(str(error).split())}") from error
