"""The simulator process: who may drive it, what it ignores, and when it ends."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_process import SimulatorProcess

from robots import BackendError, RobotSpecError, load_robot
from robots.datagram import CLOSE, COMMAND, READING, REFUSAL, RESET, Message, decode, encode, spec_mark
from robots.robot_yaml import read_spec
from robots.server import RobotServer
from robots.sim import MujocoBackend
from robots.udp import UdpBackend

ROOT = Path(__file__).parents[2]
SPEC = load_robot("cartpole")
MARK = spec_mark(SPEC)
DRIVER, STRANGER = ("127.0.0.1", 1111), ("127.0.0.1", 2222)
SERVER = RobotServer(MujocoBackend(SPEC))


def ask(server: RobotServer, kind: int, request: int, payload=(), peer=DRIVER) -> Message | None:
    answer = server.answer(encode(Message(kind, request, np.array(payload, dtype=np.float64)), MARK), peer)
    return None if answer is None else decode(answer, MARK)


@pytest.fixture
def server() -> RobotServer:
    SERVER.driver = None
    reset = ask(SERVER, RESET, 1, [0.0])
    assert reset is not None and reset.kind == READING
    return SERVER


def now(server: RobotServer) -> float:
    return server.backend.data.time


@given(noise=st.binary(max_size=200), peer=st.sampled_from([DRIVER, STRANGER]))
def test_noise_never_reaches_the_robot(noise: bytes, peer: tuple[str, int]) -> None:
    """Random bytes get no answer and move nothing."""
    before = now(SERVER)
    assert SERVER.answer(noise, peer) is None
    assert now(SERVER) == before


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_command_never_reaches_the_robot(data: st.DataObject) -> None:
    """A command with bytes changed, from the driver itself, gets no answer and moves nothing."""
    SERVER.driver = None
    ask(SERVER, RESET, 1, [0.0])
    good = bytearray(encode(Message(COMMAND, 2, np.array([1.0])), MARK))
    for place in data.draw(st.sets(st.integers(0, len(good) - 1), min_size=1, max_size=5)):
        good[place] ^= data.draw(st.integers(1, 255))
    assert SERVER.answer(bytes(good), DRIVER) is None
    assert now(SERVER) == 0.0


@pytest.mark.parametrize("payload", [[], [0.0, 0.0], [np.nan], [np.inf]])
def test_undamaged_nonsense_is_refused(server: RobotServer, payload: list[float]) -> None:
    """A command of a wrong size or not finite is refused with the reason, and moves nothing."""
    answer = ask(server, COMMAND, 2, payload)
    assert answer is not None and answer.kind == REFUSAL and answer.payload.size > 10
    assert now(server) == 0.0


def test_a_request_that_comes_again_is_done_once(server: RobotServer) -> None:
    """The repeated command is answered with the same reading, and the robot moves once."""
    first, again = ask(server, COMMAND, 2, [1.0]), ask(server, COMMAND, 2, [1.0])
    assert first is not None and again is not None
    np.testing.assert_array_equal(first.payload, again.payload)
    assert now(server) == pytest.approx(SPEC.control_dt)


def test_one_driver(server: RobotServer) -> None:
    """A stranger is not heard while somebody drives, and may reset once the driver has said goodbye."""
    assert ask(server, COMMAND, 2, [1.0], STRANGER) is None
    assert ask(server, RESET, 1, [0.0], STRANGER) is None
    assert now(server) == 0.0
    assert ask(server, CLOSE, 3) is None
    assert ask(server, COMMAND, 4, [1.0], STRANGER) is None
    assert ask(server, RESET, 5, [0.0], STRANGER) is not None
    assert ask(server, COMMAND, 6, [1.0], DRIVER) is None


def test_answers_are_no_requests(server: RobotServer) -> None:
    """A reading sent to the robot is refused."""
    answer = ask(server, READING, 2, [0.0])
    assert answer is not None and answer.kind == REFUSAL


def test_ends_with_standard_input() -> None:
    """Closing its standard input ends the process with exit code 0."""
    with SimulatorProcess("cartpole") as simulator:
        assert simulator.ready["robot"] == "cartpole"
        assert simulator.process.poll() is None
    assert simulator.process.returncode == 0


def test_robot_of_another_description_is_not_driven() -> None:
    """A controller with another description of the robot gets no answer, so it cannot drive."""
    with SimulatorProcess("cartpole") as simulator:
        with UdpBackend(load_robot("reacher"), simulator.address, reset_timeout_seconds=0.3) as backend:
            with pytest.raises(BackendError, match="same robot"):
                backend.reset()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--robot", "cartpole", "--host", "0.0.0.0"], "--allow-remote"),
        (["--robot", "cartpoel"], "cartpole"),
        (["--robot", "nothing.json"], "nothing.json"),
        (["--robot", "cartpole", "--port", "999999"], "listen"),
        (["--robot", "cartpole"], "standard input"),
    ],
)
def test_refusals_are_one_line(options: list[str], word: str) -> None:
    """What it cannot do it says in one line with exit code 2."""
    process = subprocess.run(
        [sys.executable, "-m", "robots.simulator", *options],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert process.returncode == 2
    assert word in process.stderr and process.stderr.count("\n") == 1


def test_spec_from_a_bundle(tmp_path: Path) -> None:
    """The JSON that a bundle carries is the same robot; damaged JSON is refused."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC.to_dict()))
    assert read_spec(str(path), None).sha256 == SPEC.sha256
    path.write_text("{")
    with pytest.raises(RobotSpecError, match="JSON"):
        read_spec(str(path), None)
