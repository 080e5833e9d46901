"""Opens a robot by the name of its driver: each is imported only when it is wanted, for each needs something else."""

from __future__ import annotations

from pathlib import Path

from robots.backend import Backend, BackendError
from robots.spec import RobotSpec

BACKENDS = ("sim", "mock")


def open_backend(kind: str, spec: RobotSpec, *, seed: int = 0, hardware: Path | None = None) -> Backend:
    """Opens a robot, or what stands in for it.

    Args:
        kind: One of BACKENDS.
        spec: The robot.
        seed: How a simulated robot's or the mock's episodes begin.
        hardware: The file that says how this very robot is wired; not for sim and mock.

    Returns:
        The open backend, not yet reset.

    Raises:
        ToolkitError: No such driver, something it needs is not installed, or the robot cannot be reached.
    """
    if kind not in BACKENDS:
        raise BackendError(f"no driver {kind!r}; legal are {', '.join(BACKENDS)}")
    if kind == "mock":
        from robots.mock import MockBackend

        return MockBackend(spec, seed)
    try:
        from robots.sim import MujocoBackend
    except ModuleNotFoundError as error:
        raise BackendError(f"{error.name} is not installed: pip install 'gcl-toolkit[train]'") from error
    return MujocoBackend(spec, seed)
