"""SerialBackend drives emulated servos of both makes, repeats a reading that came badly, and then says whose it was."""

import contextlib
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
from backend_contract import BackendContract
from servo_emulator import DYNAMIXEL, STRIDE, TABLES, WATCHDOG, ServoEmulator

from robots import Backend, BackendError, RobotSpecError, SensorReading
from robots.hardware_yaml import parse_hardware
from robots.robot_yaml import parse_robot
from robots.serial_bus import SerialBackend

TICK = 2.0 * math.pi / 4096
PROTOCOLS = ["feetech", "dynamixel"]
FAULTS = ["silence", "checksum", "wrong_id", "truncated", "garbage", "error", "refused", "long"]
START = {7: 2048, 3: 1500, 12: 2600}  # [ticks]; the wiring's order is another than the robot's and the ids'
ROBOT = {
    "name": "arm", "mjcf": "arm.xml", "control_dt": 0.02, "episode_seconds": 5,
    "observation": [
        {"name": "velocity", "joint_vel": ["shoulder", "elbow"], "unit": "rad/s"},
        {"name": "position", "joint_pos": ["elbow", "shoulder", "wrist"], "unit": "rad"},
    ],
    "action": [
        {"actuator": name, "kind": "position", "unit": "rad", "scale": 1.0, "offset": 0.1}
        for name in ("shoulder", "elbow")
    ],
}  # fmt: skip
SPEC = parse_robot(ROBOT)


def wiring(path: str, protocol: str, **options: object) -> dict:
    return {
        "robot": "arm",
        "driver": "serial",
        # Patient, for an emulator on a busy machine may take its time; what waits for silence says less.
        "serial": {"port": path, "protocol": protocol, "answer_seconds": 2.0, **options},
        "joints": {
            "wrist": {"source": "12"},  # measured, never driven
            "shoulder": {"source": "3", "sign": -1, "offset": 0.5},
            "elbow": {"source": "7"},
        },
    }


def connect(emulator: ServoEmulator, **options: object) -> SerialBackend:
    return SerialBackend(SPEC, parse_hardware(wiring(emulator.path, emulator.protocol, **options), SPEC))


def fresh(backend: Backend) -> SensorReading:
    """The next fresh reading; on a busy machine an emulated servo may miss its time once or twice."""
    before = last = backend.step(np.zeros(2))
    for _ in range(2):  # as often as every test here lets a reading repeat
        if last.sequence != before.sequence:
            break
        last = backend.step(np.zeros(2))
    return last


@pytest.fixture(params=PROTOCOLS)
def servos(request: pytest.FixtureRequest) -> Iterator[ServoEmulator]:
    with ServoEmulator(request.param, START) as emulator:
        yield emulator


class SerialContract(BackendContract):
    spec = SPEC
    protocol: str

    @pytest.fixture(autouse=True)
    def _emulators(self) -> Iterator[None]:
        with contextlib.ExitStack() as self.stack:
            yield

    def make(self, seed: int = 0) -> SerialBackend:
        # A robot each, standing where it always stands: a servo on the bench has no seed.
        return connect(self.stack.enter_context(ServoEmulator(self.protocol, START)))

    def test_same_seed_same_episodes(self) -> None:
        pytest.skip("an arm is taken over where it stands: there is no seed to begin from")


class TestFeetech(SerialContract):
    protocol = "feetech"


class TestDynamixel(SerialContract):
    protocol = "dynamixel"


def test_values_by_name_with_sign_and_offset(servos: ServoEmulator) -> None:
    """Each channel shows its own servo's ticks in rad, turned and moved as the wiring says."""
    servos.servos[3].set("velocity", -30)
    with connect(servos) as backend:
        values = dict(zip(SPEC.channels, backend.measure().values, strict=True))
    unit = TICK if servos.protocol == "feetech" else 0.229 * 2 * math.pi / 60
    assert values == pytest.approx({
        "joint_vel/shoulder": 30 * unit, "joint_vel/elbow": 0.0, "joint_pos/elbow": 0.0,
        "joint_pos/shoulder": -(1500 - 2048) * TICK + 0.5, "joint_pos/wrist": (2600 - 2048) * TICK,
    })  # fmt: skip


def test_coarse_speed_unit_is_asked_for() -> None:
    """A Feetech servo set to count speed in 50 ticks a second is read so."""
    with ServoEmulator("feetech", START) as servos:
        servos.servos[3].memory[18] = 0
        servos.servos[3].set("velocity", 2)
        with connect(servos) as backend:
            assert backend.measure().values[0] == pytest.approx(-2 * 50 * TICK)


def test_goals_arrive_at_their_servos(servos: ServoEmulator) -> None:
    """A command reaches the servo of its joint as the ticks that the wiring says, and the arm follows."""
    with connect(servos) as backend:
        backend.reset()
        command = np.array([1.0, -0.3])  # shoulder, elbow
        reading = backend.step(command)
        expected = {3: round(-(1.0 - 0.5) / TICK) + 2048, 7: round(-0.3 / TICK) + 2048}
        assert servos.told("goal")[-1] == expected
        for _ in range(5):
            reading = backend.step(command)
    elbow, shoulder = reading.values[2:4]
    assert (shoulder, elbow) == (pytest.approx(1.0, abs=TICK), pytest.approx(-0.3, abs=TICK))


def test_reset_takes_over_without_moving(servos: ServoEmulator) -> None:
    """Every driven servo hears its present position as goal before its torque comes on; the others hear nothing."""
    with connect(servos) as backend:
        backend.reset()
        addresses = [address for address, _ in servos.written]
        table = TABLES[servos.protocol]
        assert addresses.index(table["goal"]) < addresses.index(table["torque"])
        assert servos.told("goal") == [{3: 1500, 7: 2048}]
        assert servos.told("torque") == [{3: 1, 7: 1}]
        assert [servos.servos[servo].get("position") for servo in START] == list(START.values())
        assert servos.servos[12].get("torque") == 0


def test_measuring_tells_nothing(servos: ServoEmulator) -> None:
    """Looking at an arm writes to no servo, before a reset and after; the limp arm stays limp."""
    with connect(servos) as backend:
        backend.measure()
        backend.measure()
        assert servos.written == []
        backend.reset()
        before = len(servos.written)
        backend.measure()
        assert len(servos.written) == before


@pytest.mark.parametrize(("on_close", "torque"), [("hold", 1), ("release", 0)])
def test_closing_holds_unless_told(servos: ServoEmulator, on_close: str, torque: int) -> None:
    """Torque stays on when closing, so that the arm does not drop, unless the wiring says release."""
    with connect(servos, on_close=on_close) as backend:
        backend.reset()
    assert [servos.servos[servo].get("torque") for servo in (3, 7)] == [torque, torque]


def test_an_arm_only_looked_at_is_closed_as_it_was(servos: ServoEmulator) -> None:
    """Closing after nothing but measuring writes nothing, whatever on_close says."""
    with connect(servos, on_close="release") as backend:
        backend.measure()
    assert servos.written == []


def test_release_that_is_not_confirmed_is_told(servos: ServoEmulator) -> None:
    """A servo that does not confirm to have let go is named, and the port is free all the same."""
    backend = connect(servos, on_close="release", answer_seconds=0.2, repeats=1)
    backend.reset()
    servos.fault(7, "silence")
    with pytest.raises(BackendError, match="servo 7"):
        backend.close()
    backend.close()
    servos.fault(7, "silence", 0)
    with connect(servos) as again:
        again.measure()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_answer_repeats_the_reading(servos: ServoEmulator, kind: str) -> None:
    """One bad answer shows as the last reading again, number and time included; the next is fresh."""
    with connect(servos, answer_seconds=0.3) as backend:
        first = backend.reset()
        servos.fault(7, kind, 1)
        again = backend.step(np.array([0.5, 0.0]))
        assert (again.sequence, again.timestamp_ns) == (first.sequence, first.timestamp_ns)
        np.testing.assert_array_equal(again.values, first.values)
        after = fresh(backend)
        assert after.sequence > first.sequence
        assert after.timestamp_ns > first.timestamp_ns


@pytest.mark.parametrize("kind", FAULTS)
def test_a_servo_that_stays_bad_is_named(servos: ServoEmulator, kind: str) -> None:
    """After the bounded number of repetitions the servo is named and no command is taken until a reset."""
    with connect(servos, answer_seconds=0.15, repeats=2) as backend:
        backend.reset()
        servos.fault(7, kind)
        for _ in range(2):
            assert backend.step(np.array([0.5, 0.0])).sequence == 0
        with pytest.raises(BackendError, match=r"servo 7: .*3 rounds"):
            backend.step(np.array([0.5, 0.0]))
        with pytest.raises(BackendError, match="before reset"):
            backend.step(np.array([0.5, 0.0]))
        servos.fault(7, kind, 0)
        assert backend.reset().sequence == 0
        assert fresh(backend).sequence > 0


def test_an_arm_lost_while_looking_takes_no_command(servos: ServoEmulator) -> None:
    """A measurement that fails for good ends the run too: whoever drives must take the arm over again."""
    with connect(servos, repeats=0) as backend:
        backend.reset()
        servos.fault(7, "checksum", 1)
        with pytest.raises(BackendError, match="servo 7"):
            backend.measure()
        with pytest.raises(BackendError, match="before reset"):
            backend.step(np.zeros(2))


def test_what_an_alert_is_about() -> None:
    """A Dynamixel's alert is asked what it means; a Feetech's flags say it themselves."""
    with ServoEmulator("dynamixel", START) as servos, connect(servos, repeats=0) as backend:
        backend.reset()
        servos.servos[7].memory[70] = 0b100001
        servos.fault(7, "error", 1)
        with pytest.raises(BackendError, match="servo 7: it reports voltage, overload"):
            backend.step(np.zeros(2))
    with ServoEmulator("feetech", START) as servos, connect(servos, repeats=0) as backend:
        backend.reset()
        servos.fault(7, "error")
        with pytest.raises(BackendError, match="servo 7: it reports overload"):
            backend.step(np.zeros(2))


def test_a_silent_arm_is_not_taken_over(servos: ServoEmulator) -> None:
    """A servo that is not there at the start is an error with its name, and nothing was written."""
    servos.fault(3, "silence")
    with connect(servos, answer_seconds=0.1, repeats=1) as backend:
        for ask in (backend.measure, backend.reset):
            with pytest.raises(BackendError, match="servo 3: no answer"):
                ask()
    assert servos.written == []


def test_noise_before_an_answer_is_skipped(servos: ServoEmulator) -> None:
    """An adapter that echoes, or a spark on the line, costs nothing when whole answers follow."""
    with connect(servos) as backend:
        first = backend.reset()
        servos.noise = b"\x00\xff\x17" + bytes(range(20))
        assert backend.measure().sequence == first.sequence + 1


@pytest.mark.parametrize("register", ["goal", "torque"])
def test_a_servo_that_takes_nothing_is_not_trusted(servos: ServoEmulator, register: str) -> None:
    """A goal or torque that a servo does not show afterwards ends the reset, with the servo's name."""
    deaf = servos.servos[7]
    obey, address = deaf.obey, TABLES[servos.protocol][register]
    deaf.obey = lambda at, data: None if at == address else obey(at, data)  # type: ignore[method-assign]
    with connect(servos, repeats=1) as backend, pytest.raises(BackendError, match="servo 7 was told"):
        backend.reset()


def test_a_power_cut_is_noticed(servos: ServoEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A servo that lost its torque still answers well; it is asked about it now and then, and named."""
    monkeypatch.setattr("robots.serial_bus._CHECK_SECONDS", 0.0)
    with connect(servos) as backend:
        backend.reset()
        backend.step(np.zeros(2))
        servos.servos[7].memory[TABLES[servos.protocol]["torque"]] = 0
        with pytest.raises(BackendError, match="servo 7 has let go"):
            backend.step(np.zeros(2))
        with pytest.raises(BackendError, match="before reset"):
            backend.step(np.zeros(2))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode", 1, "servo 7 is in operating mode 1"),
        ("lower", 1800, "servo 7 takes goals from tick 1800"),
        ("upper", 2100, "servo 7 takes goals from tick 0 to 2100"),
        ("position", 4200, "servo 7 stands at tick 4200, outside its limits"),
    ],
)
def test_a_servo_set_up_otherwise_is_refused(servos: ServoEmulator, name: str, value: int, words: str) -> None:
    """Another mode, limits within the commands' range, or a place outside them: nothing is written."""
    if name == "mode":
        servos.servos[7].memory[servos.servos[7].at["mode"]] = value
    else:
        servos.servos[7].set(name, value)
    with connect(servos) as backend, pytest.raises(BackendError, match=words):
        backend.reset()
    assert servos.written == []


def test_watchdog_of_the_servos() -> None:
    """Each driven servo gets the watchdog; silence longer than it is told, not driven on; a reset clears it."""
    with ServoEmulator("dynamixel", START) as servos, connect(servos, watchdog_seconds=0.5) as backend:
        backend.reset()
        assert [servos.servos[servo].memory[WATCHDOG] for servo in START] == [25, 25, 0]
        backend.step(np.zeros(2))
        time.sleep(0.6)
        with pytest.raises(BackendError, match="watchdog"):
            backend.step(np.zeros(2))
        backend.measure()
        assert servos.servos[3].memory[WATCHDOG] == 0xFF  # the emulated servo did stop itself
        backend.reset()
        before = servos.servos[7].get("position")
        backend.step(np.array([0.5, 0.8]))
        assert servos.servos[7].get("position") == before + STRIDE
        backend.close()
        for _ in range(1000):  # nothing is asked after the last word, so it may still be on its way
            if servos.servos[3].memory[WATCHDOG] == 0:
                break
            time.sleep(0.01)
        assert servos.servos[3].memory[WATCHDOG] == 0


def test_effort_from_current() -> None:
    """A wired effort is the current register times what one unit means, with the joint's sign."""
    spec = parse_robot({
        **ROBOT, "observation": [*ROBOT["observation"], {"name": "torque", "sensor": ["torque"], "unit": "N m"}],
    })  # fmt: skip
    with ServoEmulator("dynamixel", START) as servos:
        servos.servos[3].memory[126:128] = (-100).to_bytes(2, "little", signed=True)
        data = wiring(servos.path, "dynamixel", effort_per_unit=0.002)
        data["sensors"] = {"sensor/torque": {"source": "effort/shoulder"}}
        with SerialBackend(spec, parse_hardware(data, spec)) as backend:
            assert backend.measure().values[-1] == pytest.approx(0.2)
        del data["serial"]["effort_per_unit"]
        with pytest.raises(RobotSpecError, match="effort_per_unit is missing"):
            SerialBackend(spec, parse_hardware(data, spec))


def test_stuffed_bytes() -> None:
    """Dynamixel data that looks like a packet's head arrives as it was sent."""
    with ServoEmulator("dynamixel", START) as servos, connect(servos) as backend:
        servos.servos[3].set("velocity", -3)
        servos.servos[3].memory[126:128] = b"\xff\xff"
        servos.servos[7].memory[DYNAMIXEL["velocity"] : DYNAMIXEL["velocity"] + 4] = b"\xff\xff\xfd\xff"
        shoulder, elbow = backend.measure().values[:2]
        unit = 0.229 * 2 * math.pi / 60
        assert (shoulder, elbow) == (pytest.approx(3 * unit), pytest.approx(-131073 * unit))


def test_a_port_that_goes_away(servos: ServoEmulator) -> None:
    """Pulling the plug is an error in words, not a crash, and closing still works."""
    backend = connect(servos, answer_seconds=0.1, repeats=0)
    backend.reset()
    servos.stop()
    with pytest.raises(BackendError):
        backend.step(np.zeros(2))
    backend.close()


def test_a_port_in_use_or_absent(servos: ServoEmulator) -> None:
    """Two drivers never share an arm, and a port that is not there is named."""
    with connect(servos), pytest.raises(BackendError, match="cannot use the serial port"):
        connect(servos)
    with pytest.raises(BackendError, match="/dev/no-such-port"):
        SerialBackend(SPEC, parse_hardware(wiring("/dev/no-such-port", "feetech"), SPEC))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joints": {"elbow": {"source": "seven"}}}, "'seven'; a servo's id is a number from 0 to 252"),
        ({"joints": {"elbow": {"source": "254"}}}, "'254'"),
        ({"joints": {"elbow": {"source": "003"}}}, "the same servo"),
        ({"joints": {"elbow": {"source": "7", "offset": 3.0}}}, "elbow may be told -0.9 rad, which is tick -494"),
    ],
)
def test_wiring_that_servos_cannot_serve(change: dict, words: str) -> None:
    """What is wrong in the file is said before a port is opened."""
    data = wiring("/dev/no-such-port", "feetech")
    data["joints"] |= change["joints"]
    with pytest.raises(RobotSpecError, match=words):
        SerialBackend(SPEC, parse_hardware(data, SPEC))


def test_only_positions_and_joints() -> None:
    """Efforts are no servo's command, and a servo bus gives no camera."""
    spec = parse_robot({**ROBOT, "action": [{**term, "kind": "effort", "unit": "N m"} for term in ROBOT["action"]]})
    with pytest.raises(RobotSpecError, match="positions in rad.*shoulder, elbow"):
        SerialBackend(spec, parse_hardware(wiring("/dev/no-such-port", "feetech"), spec))
    spec = parse_robot({
        **ROBOT, "observation": [*ROBOT["observation"], {"name": "tip", "sensor": ["tip"], "unit": "m"}],
    })  # fmt: skip
    data = wiring("/dev/no-such-port", "feetech") | {"sensors": {"sensor/tip": {"source": "camera"}}}
    with pytest.raises(RobotSpecError, match="joints only.*camera"):
        SerialBackend(spec, parse_hardware(data, spec))
