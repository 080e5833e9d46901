"""A user's mistake is one clear line and exit code 2, and it writes and loses nothing."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zarr
from click.testing import CliRunner

from demos.episode import Episode
from demos.store import DemoStore
from export.to_onnx import write_bundle
from robots.robot_yaml import load_robot
from toolkit.checkpoint import FILE_NAME
from toolkit.cli import main
from toolkit.config import TrainConfig, with_settings
from toolkit.export_parts import load_for_export
from toolkit.run import Run
from toolkit.trainer import Trainer

ROBOT_YAML = Path(__file__).parents[1] / "robots" / "cartpole" / "robot.yaml"
SMALL = [
    "threads=1", "ppo.num_envs=8", "ppo.horizon=16", "policy.hidden=[8]", "reward.hidden=[8]", "reward.segment=8",
    "reward.batch_steps=128", "policy.warm_start=0", "total_steps=128",
]  # fmt: skip


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a robot, a demo store, a run and a bundle, all good."""
    folder = tmp_path_factory.mktemp("good")
    spec, rng = load_robot("cartpole"), np.random.default_rng(0)
    episodes = [
        Episode(
            observations=rng.normal(size=(101, spec.obs_dim)).astype(np.float32),
            actions=rng.uniform(-1, 1, (100, spec.act_dim)).astype(np.float32),
            timestamps=np.arange(101) * spec.control_dt,
            ended_by="truncation",
        )
        for _ in range(2)
    ]
    with DemoStore.create(folder / "demos.zarr", spec) as store:
        for episode in episodes:
            store.append(episode)
    (folder / "run").mkdir()
    Run(folder / "run", Trainer(spec, with_settings(TrainConfig(), SMALL), episodes), {}, episodes).save()
    write_bundle(folder / "cartpole.bundle", load_for_export(folder / "run"))
    shutil.copy(ROBOT_YAML, folder / "robot.yaml")
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "work")
    return tmp_path / "work"


def edit_yaml(path: Path, change: Callable[[dict], None]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def unknown_key(folder: Path) -> list[str]:
    edit_yaml(folder / "robot.yaml", lambda data: data.update(controldt=0.1))
    return ["robots", "check", "robot.yaml"]


def name_not_in_the_model(folder: Path) -> list[str]:
    edit_yaml(folder / "robot.yaml", lambda data: data["action"][0].update(actuator="slidr"))
    return ["robots", "check", "robot.yaml"]


def wrong_observation_size(folder: Path) -> list[str]:
    return ["record", "--robot", "reacher", "--operator", "policy", "--policy", "run", "--out", "new.zarr"]


def nan_in_a_demo(folder: Path) -> list[str]:
    observation = zarr.open_group(folder / "demos.zarr", mode="r+")["data/observation"]
    assert isinstance(observation, zarr.Array)
    observation[17, 2] = np.nan
    return ["train", "--demos", "demos.zarr", "--out", "new"]


def nan_in_an_imported_demo(folder: Path) -> list[str]:
    assert CliRunner().invoke(main, ["demos", "export", "demos.zarr", "demos.npz"]).exit_code == 0
    with np.load("demos.npz") as archive:
        arrays = dict(archive)
    name = next(name for name, value in arrays.items() if "observation" in name and value.ndim == 2 and len(value) > 50)
    arrays[name][17, 2] = np.nan
    np.savez("demos.npz", **arrays)  # type: ignore[arg-type]
    return ["demos", "import", "demos.npz", "new.zarr"]


def demos_of_another_robot(folder: Path) -> list[str]:
    return ["train", "--demos", "demos.zarr", "--robot", "reacher", "--out", "new"]


def demos_of_a_changed_robot(folder: Path) -> list[str]:
    edit_yaml(folder / "robot.yaml", lambda data: data.update(control_dt=0.02))
    return ["train", "--demos", "demos.zarr", "--robot", "robot.yaml", "--out", "new"]


def recording_into_another_robots_store(folder: Path) -> list[str]:
    return ["record", "--robot", "reacher", "--operator", "random", "--out", "demos.zarr"]


def truncated_bundle(folder: Path) -> list[str]:
    policy = folder / "cartpole.bundle" / "policy.onnx"
    policy.write_bytes(policy.read_bytes()[:-100])
    return ["deploy", "cartpole.bundle", "--backend", "mock", "--seconds", "0.1"]


def tampered_bundle(folder: Path) -> list[str]:
    reward = folder / "cartpole.bundle" / "reward.onnx"
    content = bytearray(reward.read_bytes())
    content[len(content) // 2] ^= 1
    reward.write_bytes(content)
    return ["deploy", "cartpole.bundle", "--backend", "mock", "--seconds", "0.1"]


def newer_checkpoint(folder: Path) -> list[str]:
    path = folder / "run" / FILE_NAME
    data = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    torch.save({**data, "format_version": 99}, path)
    return ["export", "--checkpoint", "run", "--out", "new.bundle"]


def not_a_store(folder: Path) -> list[str]:
    (folder / "holiday.zarr").mkdir()
    (folder / "holiday.zarr" / "photo.jpg").write_bytes(b"\xff\xd8")
    return ["train", "--demos", "holiday.zarr", "--out", "new"]


def a_run_that_exists(folder: Path) -> list[str]:
    return ["train", "--demos", "demos.zarr", "--out", "run"]


def nothing_to_resume(folder: Path) -> list[str]:
    return ["train", "--demos", "demos.zarr", "--out", "new", "--resume"]


def no_such_setting(folder: Path) -> list[str]:
    return ["train", "--demos", "demos.zarr", "--out", "new", "--set", "reward.alhpa=1"]


def no_such_device(folder: Path) -> list[str]:
    return ["train", "--demos", "demos.zarr", "--out", "new", "--device", "gpu"]


def every_file(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        # A lock file beside a store is not data
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (unknown_key, "did you mean 'control_dt'"),
        (name_not_in_the_model, "did you mean 'slide"),
        (wrong_observation_size, "cartpole"),
        (nan_in_a_demo, "episode 0"),
        (nan_in_an_imported_demo, "demos.npz"),
        (demos_of_another_robot, "cartpole"),
        (demos_of_a_changed_robot, "control_dt"),
        (recording_into_another_robots_store, "cartpole"),
        (truncated_bundle, "policy.onnx"),
        (tampered_bundle, "reward.onnx"),
        (newer_checkpoint, "upgrade gcl"),
        (not_a_store, "holiday.zarr"),
        (a_run_that_exists, "--resume"),
        (nothing_to_resume, "no checkpoint there"),
        (no_such_setting, "did you mean 'alpha'"),
        (no_such_device, "legal are"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_one_line_exit_2_and_nothing_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Path], list[str]], message: str
):
    """One line that names the trouble, no traceback, the exit code of a user's mistake, every file as it was."""
    monkeypatch.chdir(folder)
    arguments = mistake(folder)
    before = every_file(folder)
    result = CliRunner().invoke(main, arguments)
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, result.stderr
    assert message.lower() in lines[0].lower()
    assert every_file(folder) == before


def test_a_real_process_shows_no_traceback(folder: Path):
    """The same through a process of its own: what a person sees in the terminal."""
    arguments = demos_of_another_robot(folder)
    done = subprocess.run(
        [sys.executable, "-c", "from toolkit.cli import main; main()", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
