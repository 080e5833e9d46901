"""The 3D view: `python -m toolkit.ghost --fd N`, a process that shows a black box as a robot and its ghost.

Solid is what the robot measures, translucent what it is told. It ends when its standard input closes, and prints one
JSON line when it is ready. Extra `web`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np
import viser
from mjviser import ViserMujocoScene
from mjviser.conversions import is_fixed_body, merge_geoms

from export.black_box import BlackBox
from export.black_box_layout import Word
from export.web_guard import parse_listen
from robots.model import compile_model
from robots.spec import RobotSpec, ToolkitError
from toolkit.ghost_pose import PoseMap

_PERIOD = 0.05  # [s]
_NICE = 10  # what is nice to look at comes after what has to be done
_COLOR = (255, 140, 40)
_OPACITY = 0.35
_SHOWN_GROUPS = 3  # MuJoCo shows geoms of the groups below, and so does mjviser


class GhostView:
    """A robot in a browser, and what it is told, translucent."""

    def __init__(self, server: viser.ViserServer, spec: RobotSpec) -> None:
        """Builds the scene.

        Args:
            server: Serves it.
            spec: The robot; its model files lie in its `directory`.

        Raises:
            RobotSpecError: The model cannot be found or compiled.
        """
        self._model = compile_model(spec)
        self._data = mujoco.MjData(self._model)
        self._map = PoseMap(spec, self._model)
        self._server = server
        self._scene = ViserMujocoScene(server, self._model, num_envs=1)
        self._scene.camera_tracking_enabled = False
        self.ghosts = self._ghosts() if self._map.has_ghost else {}
        self._notes(spec)
        self._scene.create_scene_gui()
        self.show(np.full(len(spec.channels), np.nan), np.full(spec.act_dim, np.nan))

    def show(self, values: np.ndarray, command: np.ndarray) -> None:
        """Moves robot and ghost.

        Args:
            values: (channels,) what was measured.
            command: (act_dim,) [unit] what was sent.
        """
        with self._server.atomic():
            if self.ghosts:
                self._pose(self._map.commanded(values, command))
                for body, handle in self.ghosts.items():
                    handle.position, handle.wxyz = self._data.xpos[body].copy(), self._data.xquat[body].copy()
            self._pose(self._map.measured(values))
            self._scene.update_from_mjdata(self._data)

    def _pose(self, qpos: np.ndarray) -> None:
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)

    def _ghosts(self) -> dict[int, viser.MeshHandle]:
        model, ghosts = self._model, {}
        for body in range(1, model.nbody):
            first, count = model.body_geomadr[body], model.body_geomnum[body]
            geoms = [
                geom for geom in range(first, first + count)
                if model.geom_group[geom] < _SHOWN_GROUPS and model.geom_rgba[geom, 3] > 0
            ]  # fmt: skip
            if not geoms or is_fixed_body(model, body):
                continue
            mesh = merge_geoms(model, geoms)
            ghosts[body] = self._server.scene.add_mesh_simple(
                f"/ghost/{body}", np.asarray(mesh.vertices), np.asarray(mesh.faces), color=_COLOR, opacity=_OPACITY,
                cast_shadow=False, receive_shadow=False,
            )  # fmt: skip
        return ghosts

    def _notes(self, spec: RobotSpec) -> None:
        gui = self._server.gui
        gui.configure_theme(dark_mode=True, show_logo=False)
        told = "translucent: what it is told" if self.ghosts else "no ghost: a force tells no pose"
        gui.add_markdown(f"**{spec.name}** · solid: what it measures · {told}. What it does not measure stays put.")
        if self.ghosts:
            box = gui.add_checkbox("Ghost", initial_value=True)

            @box.on_update
            def _(_: object) -> None:
                for handle in self.ghosts.values():
                    handle.visible = box.value


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Of the command line; None for this process's.

    Returns:
        0, or 2 if there was nothing to show.
    """
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with the controller, not before it
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    try:
        box = BlackBox.attach(options.fd)
        host, port = parse_listen(options.web, options.allow_remote)
        with contextlib.redirect_stdout(sys.stderr):  # viser greets, also when told to be quiet
            server = viser.ViserServer(host=host, port=port, label=f"gcl: {box.spec.name}", verbose=False)
        view = GhostView(server, dataclasses.replace(box.spec, directory=options.directory))
    except ToolkitError as error:
        print(f"ghost: {error}", file=sys.stderr)
        return 2
    box.words[Word.GHOST_PORT] = server.get_port()
    with contextlib.suppress(OSError):
        shown = f"http://{host}:{server.get_port()}/"
        print(json.dumps({"ready": True, "pid": os.getpid(), "web": shown}), flush=True)
    _follow(box, view)
    with contextlib.redirect_stdout(sys.stderr):
        server.stop()
    return 0


def _follow(box: BlackBox, view: GhostView) -> None:
    """Shows the newest row, until standard input closes."""
    last = -1
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(0, selectors.EVENT_READ)
        except OSError:  # a plain file, which has ended before it began
            return
        while not (selector.select(_PERIOD) and _ended()):
            box.words[Word.GHOST_HEARTBEAT_NS] = time.monotonic_ns()
            newest = box.snapshot(seconds=box.spec.control_dt)
            if len(newest) and newest.first != last:
                last = newest.first
                view.show(newest.values[-1], newest.command[-1])


def _ended() -> bool:
    try:
        return os.read(0, 4096) == b""
    except OSError:
        return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m toolkit.ghost", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited descriptor of the black box")
    parser.add_argument("--web", metavar="[HOST:]PORT", default="8081", help="where to serve it")
    parser.add_argument("--allow-remote", action="store_true", help="let --web listen beyond this machine")
    parser.add_argument("--directory", type=Path, help="where the robot's model files lie")
    return parser


if __name__ == "__main__":
    sys.exit(main())
