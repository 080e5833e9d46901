import dataclasses
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from guardian_process import GuardianProcess

from demos.store import DemoStore
from robots import RobotSpec, load_robot
from robots.mock import MockBackend
from toolkit import checkpoint as checkpoints
from toolkit.cli import main
from toolkit.config import TrainConfig, with_settings
from toolkit.networks import GaussianPolicy

ROOT = Path(__file__).resolve().parents[3]
UDP = ("--out", "a.zarr", "--robot", "cheetah", "--backend", "udp", "--address")


def gcl(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def record(out: Path, *arguments: object) -> Result:
    """A tenth of a second on the mock cheetah, unless told otherwise."""
    return gcl("record", "--robot", "cheetah", "--backend", "mock", "--seconds", 0.1, "--out", out, *arguments)


def check_error(result: Result, *words: str) -> None:
    """A user's mistake: exit code 2 and words, never a traceback."""
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    for word in words:
        assert word in result.output


def test_each_episode_is_acknowledged_and_there(tmp_path: Path) -> None:
    """One line an episode, and each of them in the store with the seeds in order."""
    result = record(tmp_path / "a.zarr", "-n", 3, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [f"episode {i}: 10 steps, seed {5 + i}, truncation" for i in range(3)]
    store = DemoStore.open(tmp_path / "a.zarr")
    assert [info.seed for info in store.table()] == [5, 6, 7] and store.verify() == []


def test_adds_to_a_store_with_fresh_seeds(tmp_path: Path) -> None:
    """A second recording goes on in the same store, needs no --robot, and repeats no seed; --json says the same."""
    record(tmp_path / "a.zarr", "-n", 2)
    result = gcl("record", "--backend", "mock", "--seconds", 0.1, "--out", tmp_path / "a.zarr", "-n", 2, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["episode"], row["seed"], row["length"], row["return"]) for row in rows] == [
        (2, 2, 10, None),
        (3, 3, 10, None),
    ]
    store = DemoStore.open(tmp_path / "a.zarr")
    assert [episode.sha256.hex() for episode in store.episodes()][2:] == [row["sha256"] for row in rows]


def test_another_robots_store_is_refused(tmp_path: Path) -> None:
    """Recording one robot into the store of another writes nothing."""
    record(tmp_path / "a.zarr")
    result = gcl("record", "--robot", "walker", "--backend", "mock", "--out", tmp_path / "a.zarr")
    check_error(result, "demos of robot 'cheetah'", "not of 'walker'")
    assert len(DemoStore.open(tmp_path / "a.zarr")) == 1


def test_the_true_reward_is_kept_where_there_is_a_task(tmp_path: Path) -> None:
    """By default a robot with a task is recorded in the task's own environment, with its rewards."""
    result = gcl("record", "--robot", "cheetah", "--seconds", 0.3, "--out", tmp_path / "a.zarr")
    assert result.exit_code == 0, result.output
    store = DemoStore.open(tmp_path / "a.zarr")
    rewards = store.episodes()[0].rewards
    assert rewards is not None and len(rewards) == 30 and np.isfinite(rewards).all()
    assert store.attributes["source"] == "sim:dm_control.suite:cheetah/run"


def test_scripts_and_their_operator_names(tmp_path: Path) -> None:
    """A script from a file is played, and the store says which."""
    (tmp_path / "kick.yaml").write_text("[{time: 0, action: {bfoot: 1}}]")
    assert record(tmp_path / "a.zarr", "--operator", "script", "--script", tmp_path / "kick.yaml").exit_code == 0
    assert record(tmp_path / "a.zarr", "--operator", "script").exit_code == 0
    first, second = DemoStore.open(tmp_path / "a.zarr").episodes()
    assert (first.operator, second.operator) == ("script:kick.yaml", "script:wave")
    assert (first.actions == [0, 0, 1, 0, 0, 0]).all() and np.abs(second.actions).max() > 0.1


def test_a_controller_of_ones_own(tmp_path: Path) -> None:
    """A Python file acts, with noise if wanted, and the store says which; its mistakes are told in a line."""
    mine = tmp_path / "mine.py"
    mine.write_text("make_act = lambda spec: lambda observation: observation[:6] * 0 + 0.25")
    using = ("--operator", "controller", "--controller", mine)
    assert record(tmp_path / "a.zarr", *using).exit_code == 0
    assert record(tmp_path / "a.zarr", *using, "--noise", 0.1).exit_code == 0
    first, second = DemoStore.open(tmp_path / "a.zarr").episodes()
    assert (first.operator, second.operator) == ("controller:mine.py", "controller:mine.py noise 0.1")
    assert (first.actions == 0.25).all() and 0.0 < second.actions.std() < 0.2
    mine.write_text("def act(observation):\n    return observation.no_such_thing\nmake_act = lambda spec: act")
    check_error(record(tmp_path / "b.zarr", *using), "mine.py:2: AttributeError", "no_such_thing")


def own_robot(folder: Path, terminate: str) -> Path:
    """A robot of one's own by the dimensions of the cheetah, whose model lies beside it; returns its robot.yaml."""
    shipped = (ROOT / "robots" / "cheetah" / "robot.yaml").read_text().splitlines()
    changed = {"mjcf": "mjcf: mine.xml", "task": ""}
    folder.mkdir(exist_ok=True)
    (folder / "mine.xml").write_text("<mujoco/>")
    lines = [changed.get(line.split(":")[0], line) for line in shipped]
    (folder / "robot.yaml").write_text("\n".join([*lines, f"terminate: {terminate}"]))
    return folder / "robot.yaml"


def policy_of(robot: RobotSpec, folder: Path) -> Path:
    """A run of a policy that nobody trained."""
    policy = GaussianPolicy(robot.obs_dim, robot.act_dim, (8,), (-1.2, -3.0, 0.0))
    none = torch.zeros(0, robot.obs_dim), torch.zeros(0, robot.act_dim)
    state = {"trainer": {"policy": policy.state_dict()}, "seconds": 0.0}
    config = with_settings(TrainConfig(), ["policy.hidden=[8]"])
    folder.mkdir()
    checkpoints.save(folder / checkpoints.FILE_NAME, checkpoints.Checkpoint(robot, config, {}, *none, state))
    return folder


def test_a_policy_is_recorded_on_the_robot_that_was_named(tmp_path: Path) -> None:
    """Where --robot, or else the store, ends an episode, it ends, though the policy's robot knew no such place."""
    run = policy_of(load_robot(own_robot(tmp_path / "mine", "{}")), tmp_path / "run")
    strict = own_robot(tmp_path / "strict", "{velocity: {lower: -1000, upper: 1000}, position/bthigh: {upper: -9}}")
    by_policy = ("record", "--backend", "mock", "--seconds", 0.1, "--operator", "policy", "--policy", run)
    check_error(gcl(*by_policy, "--robot", strict, "--out", tmp_path / "a.zarr"), "over as it begins: position/bthigh")
    check_error(gcl(*by_policy, "--out", tmp_path / "a.zarr"), "over as it begins: position/bthigh")  # the store's
    assert gcl(*by_policy, "--out", tmp_path / "b.zarr").exit_code == 0
    assert DemoStore.open(tmp_path / "a.zarr").spec.directory == strict.parent


def test_a_store_that_lost_its_model_takes_the_policys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store made where nobody knew the model is simulated with the one the policy knows."""
    own = load_robot(own_robot(tmp_path / "mine", "{}"))
    run = policy_of(own, tmp_path / "run")
    DemoStore.create(tmp_path / "a.zarr", dataclasses.replace(own, directory=None)).close()
    seen: list[RobotSpec] = []

    def simulator(spec: RobotSpec, seed: int) -> MockBackend:
        seen.append(spec)
        return MockBackend(spec, seed)

    monkeypatch.setattr("robots.sim.MujocoBackend", simulator)
    result = gcl("record", "--operator", "policy", "--policy", run, "--seconds", 0.1, "--out", tmp_path / "a.zarr")
    assert result.exit_code == 0 and [spec.directory for spec in seen] == [own.directory], result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "a.zarr"], ["--robot is needed"]),
        (["--out", "a.zarr", "--robot", "chetah"], ["did you mean 'cheetah'"]),
        (["--out", "a", "--robot", "cheetah", "--backend", "mock"], ["ends in .zarr"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--operator", "expert"], ["expert needs --policy"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--policy", "x"], ["random takes no --policy"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--operator", "policy", "--policy", "x"], ["x: "]),
        (["--out", "a.zarr", "--robot", "cheetah", "--script", "x.npy"], ["random takes no --script"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--noise", "0.1"], ["random takes no --noise"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--operator", "controller"], ["controller needs --controller"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--controller", "x.py"], ["random takes no --controller"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--smoothness", "2"], ["smoothness 2"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--smoothness", "-0.1"], ["smoothness -0.1"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--smoothness", "nan"], ["smoothness nan"]),
        (
            ["--out", "a.zarr", "--robot", "cheetah", "--operator", "script", "--smoothness", "0.9"],
            ["script takes no --smoothness"],
        ),
        (["--out", "a.zarr", "--robot", "cheetah", "--seconds", "inf"], ["--seconds inf; legal is more than 0"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--seconds", "nan"], ["--seconds nan; legal is more than 0"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--seconds", "0"], ["--seconds 0; legal is more than 0"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--seconds", "1e300"], ["--seconds 1e+300", "at most 86400"]),
        (
            ["--out", "a.zarr", "--robot", "cheetah", "--seconds", "10.1"],
            ["cheetah/run ends after 10 s", "--backend sim"],
        ),
        (["--out", "a.zarr", "--robot", "cheetah", "--seed", str(2**64)], ["--seed"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--backend", "udp"], ["needs --address"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--allow-remote"], ["task takes no --allow-remote"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--backend", "sim", "--key", "k"], ["sim takes no --key"]),
        ([*UDP, "10.1.2.3:9870"], ["10.1.2.3:9870 is not on this machine", "--allow-remote and --key FILE"]),
        ([*UDP, "10.1.2.3"], ["expected HOST:PORT"]),
        ([*UDP, "10.1.2.3:9870", "--allow-remote"], ["--allow-remote needs --key FILE"]),
        ([*UDP, "127.0.0.1:9870", "--key", "k"], ["k: cannot be read: No such file"]),
        ([*UDP, "127.0.0.1:9870", "--key", "/dev/null"], ["a key of 0 bytes; legal are 16 to 64"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--backend", "mock", "--address", "x:1"], ["takes no --address"]),
        (["--out", "nowhere/a.zarr/b", "--robot", "cheetah"], ["ends in .zarr"]),
        (["--out", "a.zarr", "--robot", "cheetah", "--operator", "script", "--script", "x.npy"], ["No such file"]),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]) -> None:
    """Each mistake is told, and no store is made."""
    monkeypatch.chdir(tmp_path)
    check_error(gcl("record", *arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_stays_as_it_was(tmp_path: Path) -> None:
    """A folder of something else is not recorded into."""
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "photo").write_text("mine")
    check_error(record(tmp_path / "a.zarr"), "not a demo store")
    assert [file.name for file in tmp_path.rglob("*")] == ["a.zarr", "photo"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_everything(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped in the middle of an episode, the recorder saves it as interrupted, excludes it, and says so with 130."""
    out = tmp_path / "a.zarr"
    command = [sys.executable, "-c", "from toolkit.cli import main; main()", "record", "--robot", "cheetah"]
    options = ["--backend", "mock", "--real-time", "--seconds", "60", "--json", "--out", str(out)]
    process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    journals = out.with_suffix(".wal")
    while process.poll() is None and not any(file.stat().st_size > 2000 for file in journals.glob("*.bin")):
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    row = json.loads(output)
    assert process.returncode == 130 and row["ended_by"] == "interrupted" and row["excluded"]
    store = DemoStore.open(out)
    assert store.verify() == [] and store.episodes() == []
    assert [episode.length for episode in store.episodes(include_excluded=True)] == [row["length"]]


def test_a_robot_that_fails_costs_only_what_came_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor that goes bad ends the recording in one line, and the steps before it are in the store, excluded."""
    monkeypatch.setattr("robots.mock.MockBackend", functools.partial(MockBackend, poison=[6]))
    result = record(tmp_path / "a.zarr", "-n", 3)
    check_error(result, "measured nan for position_z/rootz at step 6", "what was recorded of it is episode 0")
    info = DemoStore.open(tmp_path / "a.zarr").table()[0]
    assert (info.length, info.ended_by, info.excluded) == (5, "interrupted", True)


def test_a_reward_that_no_demo_may_hold_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode that comes to nothing is set aside, which is told at once, and the next recording goes on."""
    from robots.task import TaskEnv

    step = TaskEnv.step

    def infinite(env: TaskEnv, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        return step(env, action)[0], float("inf"), False, False

    monkeypatch.setattr(TaskEnv, "step", infinite)
    words = ("record", "--robot", "cheetah", "--seconds", 0.1, "--out", tmp_path / "a.zarr")
    check_error(gcl(*words), "rewards: infinite", "set aside as", ".unfit")
    monkeypatch.undo()
    result = gcl(*words)
    assert result.exit_code == 0 and "episode 0: 10 steps" in result.output, result.output


def test_records_a_robot_over_the_wire(tmp_path: Path) -> None:
    """A robot at the end of a cable is recorded in real time, each episode from its seed."""
    with GuardianProcess(load_robot("cheetah"), tmp_path) as guardian:
        result = gcl(
            "record", "--robot", "cheetah", "--backend", "udp", "--address", guardian.address,
            "--seconds", 0.2, "-n", 2, "--out", tmp_path / "a.zarr",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    store = DemoStore.open(tmp_path / "a.zarr")
    first, second = store.episodes()
    assert first.length == second.length == 20 and not np.array_equal(first.observations, second.observations)
    assert store.attributes["source"] == "robot" and first.timestamps[-1] > 0.15


def test_records_a_robot_with_a_key_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its key and leave to go out a robot elsewhere is recorded; without, or where no robot is, told."""
    (key := tmp_path / "robot.key").write_bytes(bytes(range(32)))
    for module in ("robots.address", "robots.udp"):
        monkeypatch.setattr(f"{module}.is_loopback", lambda host: False)
    words = ("record", "--robot", "cheetah", "--backend", "udp", "--seconds", 0.1, "--out")
    with GuardianProcess(load_robot("cheetah"), tmp_path, "--key", str(key)) as guardian:
        far = ("--address", guardian.address)
        check_error(gcl(*words, tmp_path / "a.zarr", *far, "--key", key), "not on this machine")
        nowhere = ("--address", "no.such.host.invalid:9870", "--allow-remote", "--key", key)
        check_error(gcl(*words, tmp_path / "a.zarr", *nowhere), "cannot use no.such.host.invalid:9870")
        assert not (tmp_path / "a.zarr").exists()
        result = gcl(*words, tmp_path / "a.zarr", *far, "--allow-remote", "--key", key)
    assert result.exit_code == 0, result.output
    assert DemoStore.open(tmp_path / "a.zarr").episodes()[0].length == 10
