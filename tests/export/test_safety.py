"""The safety layer: whatever comes in, what goes out is finite and within limits, and a fault stays."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.safety import SafetyLayer
from export.safety_limits import SafetyError
from robots.backend import SensorReading
from robots.safety_spec import SafetySpec, Tilt, Watch
from robots.spec import JointLimit, RobotSpec

TICK = 5_000_000  # [ns]
ANYTHING = st.floats(allow_nan=True, allow_infinity=True, width=64)
Read = Callable[..., SensorReading]


@pytest.fixture
def read(arm: RobotSpec) -> Read:
    """Makes a reading: all zeros but for channels named."""

    def make(tick: int, **values: float) -> SensorReading:
        array = np.zeros(len(arm.channels))
        for name, value in values.items():
            array[arm.channels.index(name.replace("__", "/"))] = value
        return SensorReading(array, tick * TICK, tick)

    return make


@pytest.fixture
def layer(arm: RobotSpec, read: Read) -> SafetyLayer:
    """An armed layer without soft start."""
    made = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0))
    assert made.arm(read(0), 0)
    return made


def assert_within(arm: RobotSpec, before: np.ndarray, command: np.ndarray) -> None:
    """Finite, within the actuators' limits, and within one slew step of what was sent before."""
    assert np.isfinite(command).all()
    for i, term in enumerate(arm.action):
        assert term.lower <= command[i] <= term.upper
        if term.slew is not None:
            assert abs(command[i] - before[i]) <= term.slew * arm.control_dt * (1 + 1e-12)


def test_whatever_comes_in_the_command_is_legal_and_faults_stay(arm: RobotSpec) -> None:
    """Hostile readings, clocks, commands and trips: always finite, limited, slewed; a fault never changes or heals."""
    channels, acts = len(arm.channels), arm.act_dim
    tick = st.tuples(
        st.lists(ANYTHING | st.floats(-3, 3), min_size=channels, max_size=channels),
        st.lists(ANYTHING | st.floats(-3, 3), min_size=acts, max_size=acts),
        st.integers(-2, 3),
        st.integers(-(10**9), 10**9),
        st.sampled_from([None, None, None, "trip", "stop", "arm"]),
    )

    @given(st.lists(tick, max_size=12), st.sampled_from(["hold", "damp"]), st.sampled_from([0.0, 0.02]))
    def check(ticks: list, on_fault: str, seconds: float) -> None:
        layer = SafetyLayer(arm, SafetySpec(on_fault=on_fault, soft_start_seconds=seconds, soft_stop_seconds=seconds))
        layer.arm(SensorReading(np.zeros(channels), 0, 0), 0)
        before, sequence, now = layer.limit(np.zeros(acts)).copy(), 0, 0
        for values, command, step, delay, event in ticks:
            sequence, now = sequence + step, now + TICK
            fault = layer.fault
            reading = SensorReading(np.array(values), now + delay, sequence)
            if event == "trip":
                layer.trip("operator_stop", "someone pressed it")
            elif event == "stop":
                layer.soft_stop()
            elif event == "arm":
                fault = None if layer.arm(reading, now) else layer.fault
                before = layer._sent.copy()  # where it is measured, also if it cannot be armed there
            usable = layer.check_reading(reading, now)
            assert usable == (layer.fault is None)
            after = layer.limit(np.array(command)).copy()
            assert_within(arm, before, after)
            if fault is not None:
                assert layer.fault == fault
            before = after

    check()


def test_after_a_fault_the_policy_has_no_say(arm: RobotSpec, layer: SafetyLayer, read: Read) -> None:
    """Once tripped, two different policies give the same output, which comes to rest and stays, until armed again."""
    layer.check_reading(read(1), TICK)
    layer.limit(np.array([0.05, 3.0, 0.3]))
    layer.trip("operator_stop", "pressed")
    held = layer.limit(np.array([9.0, 9.0, 9.0])).copy()
    np.testing.assert_array_equal(held, [0.05, 0.0, 0.0])
    for tick in range(2, 50):
        assert not layer.check_reading(read(tick), tick * TICK)
        np.testing.assert_array_equal(layer.limit(np.full(3, (-1.0) ** tick)), held)
    assert layer.fault is not None and layer.fault.reason == "operator_stop"
    assert layer.arm(read(50), 50 * TICK)
    assert layer.fault is None and layer.limit(np.array([0.0, 2.0, 0.0]))[1] == 2.0


def test_the_first_reason_is_kept(layer: SafetyLayer) -> None:
    """Later faults are consequences and do not overwrite the cause."""
    layer.trip("first", "cause")
    layer.trip("second", "consequence")
    assert layer.fault is not None and layer.fault.reason == "first"


def test_not_armed_puts_out_the_command_at_rest(arm: RobotSpec) -> None:
    """Before anyone arms it, a policy moves nothing."""
    layer = SafetyLayer(arm)
    np.testing.assert_array_equal(layer.limit(np.array([0.8, 5.0, 0.6])), [0.1, 0.0, 0.0])
    assert layer.fault is not None and layer.fault.reason == "not_armed"


@pytest.mark.parametrize(
    ("channels", "reason", "word"),
    [
        ({"joint_vel__wheel": np.nan}, "nonfinite_reading", "joint_vel/wheel"),
        ({"joint_pos__elbow": -np.inf}, "nonfinite_reading", "joint_pos/elbow"),
        ({"joint_pos__shoulder": 2.01}, "limit_violation", r"joint_pos/shoulder measured 2.01, legal is \[-2, 2\]"),
        ({"joint_pos__shoulder": -2.01}, "limit_violation", "joint_pos/shoulder"),
        ({"joint_vel__shoulder": -10.5}, "limit_violation", r"joint_vel/shoulder measured -10.5, legal is \[-10, 10\]"),
    ],
)
def test_bad_readings_trip(layer: SafetyLayer, read: Read, channels: dict, reason: str, word: str) -> None:
    """Each thing that must not steer a robot trips with a reason and names the channel."""
    import re

    assert not layer.check_reading(read(1, **channels), TICK)
    assert layer.fault is not None and layer.fault.reason == reason and re.search(word, layer.fault.detail)


def test_limits_themselves_are_legal(layer: SafetyLayer, read: Read) -> None:
    """A joint exactly at its limit has not passed it."""
    assert layer.check_reading(read(1, joint_pos__shoulder=2.0, joint_vel__shoulder=-10.0), TICK)


def test_wrong_shapes(layer: SafetyLayer, arm: RobotSpec) -> None:
    """A reading of another length trips; a command of another length is a mistake in the program."""
    assert not layer.check_reading(SensorReading(np.zeros(2), TICK, 1), TICK)
    assert layer.fault is not None and layer.fault.reason == "bad_reading"
    with pytest.raises(SafetyError, match="shape"):
        layer.limit(np.zeros(1))


def test_repeated_readings_time_out(layer: SafetyLayer, read: Read, arm: RobotSpec) -> None:
    """A frozen sequence number is borne for the time allowed, counted, and then trips, whatever its time stamp says."""
    allowed = round(0.25e9) // TICK
    for tick in range(1, allowed + 1):
        frozen = dataclasses.replace(read(0), timestamp_ns=tick * TICK)
        assert layer.check_reading(frozen, tick * TICK)
    assert layer.stale_readings == allowed - 1  # the one it was armed with counts as new once
    assert layer.fault is None
    for tick in range(allowed + 1, allowed + 3):
        layer.check_reading(frozen, tick * TICK)
    assert layer.fault is not None and layer.fault.reason == "stale_reading"


def test_old_and_future_readings_trip(arm: RobotSpec, read: Read) -> None:
    """New numbers with stamps from long ago, or from a clock that is not ours, are stale."""
    for offset in (-300_000_000, 300_000_000):
        layer = SafetyLayer(arm)
        layer.arm(read(0), 0)
        assert not layer.check_reading(dataclasses.replace(read(1), timestamp_ns=TICK + offset), TICK)
        assert layer.fault is not None and layer.fault.reason == "stale_reading"


def test_non_finite_command_trips_and_is_not_sent(layer: SafetyLayer) -> None:
    """NaN from a policy becomes the hold command, not a clipped number."""
    out = layer.limit(np.array([0.0, np.nan, 0.5]))
    assert np.isfinite(out).all() and out[1] == out[2] == 0.0
    assert layer.fault is not None and layer.fault.reason == "nonfinite_command"


def test_soft_start_begins_at_the_measured_pose(arm: RobotSpec, read: Read) -> None:
    """The first command of a position drive is where the joint is; the policy's share grows evenly to all of it."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.05))
    layer.arm(read(0, joint_pos__shoulder=0.6), 0)
    sent = [layer.limit(np.array([0.6, 4.0, 0.0])).copy() for _ in range(12)]
    np.testing.assert_allclose([command[1] for command in sent], [0.4 * min(k, 10) for k in range(1, 13)])
    np.testing.assert_allclose([command[0] for command in sent], 0.6)


@pytest.mark.parametrize(
    ("channels", "reason", "held"),
    [
        ({"joint_pos__shoulder": 0.6, "joint_vel__wheel": np.nan}, "nonfinite_reading", 0.6),
        ({"joint_pos__shoulder": 0.6, "joint_vel__shoulder": 11.0}, "limit_violation", 0.6),
        ({"joint_pos__shoulder": np.nan}, "nonfinite_reading", 0.1),  # nobody knows: the command at rest
        ({"joint_pos__shoulder": 2.5}, "limit_violation", 0.8),
    ],
)
def test_what_cannot_be_armed_is_held_where_it_is(
    arm: RobotSpec, read: Read, channels: dict, reason: str, held: float
) -> None:
    """A first reading that trips makes no command of one at rest or of an earlier session, which would be a jump."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0))
    assert not layer.arm(read(0, **channels), 0)
    assert layer.fault is not None and layer.fault.reason == reason
    np.testing.assert_allclose(layer.limit(np.array([-0.5, 4.0, 0.3])), [held, 0.0, 0.0])


def test_what_cannot_be_armed_again_is_held_where_it_is(arm: RobotSpec, read: Read) -> None:
    """Efforts that were sent before go to rest as by any other fault."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0))
    assert layer.arm(read(0, joint_pos__shoulder=-0.5), 0)
    layer.limit(np.array([-0.5, 4.0, 0.3]))
    assert not layer.arm(SensorReading(np.zeros(2), TICK, 1), TICK)
    np.testing.assert_allclose(layer.limit(np.array([0.7, 4.0, 0.3])), [-0.5, 0.0, 0.0])
    assert not layer.arm(read(2, joint_pos__shoulder=0.6, joint_vel__wheel=np.inf), 2 * TICK)
    np.testing.assert_allclose(layer.limit(np.array([-0.5, 4.0, 0.3])), [0.6, 0.0, 0.0])


@pytest.mark.parametrize("slew", [20.0, None])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_drive_that_stands_outside_its_commands_is_not_armed(
    arm: RobotSpec, read: Read, slew: float | None, side: float
) -> None:
    """Its first command would be a jump; a hundredth of the range and one slew step are borne."""
    shoulder = dataclasses.replace(arm.action[0], slew=slew)  # it may be sent from -0.6 to 0.8
    layer = SafetyLayer(dataclasses.replace(arm, action=(shoulder, *arm.action[1:])), SafetySpec())
    edge = 0.1 + 0.7 * side
    borne = 0.014 + (0.1 if slew else 0.0)
    assert layer.arm(read(0, joint_pos__shoulder=edge + 0.99 * borne * side), 0)
    np.testing.assert_allclose(layer.limit(np.array([edge, 0.0, 0.0]))[0], edge)
    assert not layer.arm(read(1, joint_pos__shoulder=edge + 1.01 * borne * side), TICK)
    assert layer.fault is not None and layer.fault.reason == "outside_commands"
    stands = f"{edge + 1.01 * borne * side:g}"
    assert layer.fault.detail.startswith(f"shoulder stands at {stands}, and may be sent to [-0.6, 0.8]")
    assert layer.fault.timestamp_ns == TICK


def test_slew_limits_the_first_step_too(arm: RobotSpec, read: Read) -> None:
    """From the measured pose the drive moves at most slew * control_dt a tick, whatever the policy wants."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0))
    layer.arm(read(0, joint_pos__shoulder=-0.5), 0)
    shoulder = [layer.limit(np.array([0.8, 0.0, 0.0]))[0] for _ in range(3)]
    np.testing.assert_allclose(shoulder, [-0.4, -0.3, -0.2])


def test_soft_stop_fades_out_where_it_is(arm: RobotSpec, read: Read) -> None:
    """A stop fades efforts to zero and leaves positions where they were sent last, then says so."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0, soft_stop_seconds=0.02))
    layer.arm(read(0), 0)
    layer.limit(np.array([0.1, 4.0, 0.2]))
    layer.soft_stop()
    sent = [layer.limit(np.array([-0.6, 4.0, 0.2])).copy() for _ in range(4)]
    np.testing.assert_allclose([command[1] for command in sent], [3.0, 2.0, 1.0, 0.0])
    assert not layer.stopped  # the shoulder followed the policy for a while and slews back
    back = layer.limit(np.array([-0.6, 4.0, 0.2]))
    assert back[0] == 0.1 and back[1] == back[2] == 0.0
    assert layer.stopped and layer.fault is None


@pytest.mark.parametrize("slew", [None, 60.0])
@pytest.mark.parametrize("ticks", [1, 50, 99, 150])
def test_a_stop_makes_no_larger_steps_than_the_start(
    arm: RobotSpec, read: Read, ticks: int, slew: float | None
) -> None:
    """A stop during the soft start fades out what was sent last, and not the policy's whole command."""
    shoulder = dataclasses.replace(arm.action[0], slew=slew)
    layer = SafetyLayer(
        dataclasses.replace(arm, action=(shoulder, *arm.action[1:])),
        SafetySpec(soft_start_seconds=0.5, soft_stop_seconds=0.1),
    )
    assert layer.arm(read(0, joint_pos__shoulder=-0.5), 0)
    wanted = ([0.7 + 0.05 * np.sin(0.1 * k), 4.0, 0.5] for k in range(1000))
    sent = [layer._sent.copy(), *(layer.limit(np.array(next(wanted))).copy() for _ in range(ticks))]
    largest = np.abs(np.diff(sent, axis=0)).max(axis=0)
    layer.soft_stop()
    stopped = [sent[-1]]
    while not layer.stopped:
        stopped.append(layer.limit(np.array(next(wanted))).copy())
    steps = np.abs(np.diff(stopped, axis=0))
    assert len(steps) == 20 and (steps[:, 0] <= largest[0] + 1e-12).all()
    np.testing.assert_allclose(stopped[-1], [stopped[0][0], 0.0, 0.0])
    # What has to go to rest does so evenly
    np.testing.assert_allclose(steps[:, 1:], np.tile(np.abs(stopped[0][1:]) / 20, (20, 1)), atol=1e-12)


def test_a_stop_before_the_first_command_is_over_at_once(arm: RobotSpec, read: Read) -> None:
    """Nothing was blended in, so there is nothing to blend out."""
    layer = SafetyLayer(arm)
    assert layer.arm(read(0, joint_pos__shoulder=0.3), 0)
    layer.soft_stop()
    assert layer.stopped
    np.testing.assert_allclose(layer.limit(np.array([0.8, 4.0, 0.5])), [0.3, 0.0, 0.0])


def test_slew_may_be_of_more_or_less_than_a_period(arm: RobotSpec, layer: SafetyLayer) -> None:
    """Who knows when the command before was sent says for how long the drive may go; the one after is not changed."""
    wanted = np.array([0.8, 4.0, 0.5])
    for periods, at in ((0.5, 0.05), (2.0, 0.25), (0.0, 0.25), (1.0, 0.35)):
        np.testing.assert_allclose(layer.limit(wanted, periods), [at, 4.0, 0.5])
        assert layer.periods_used == pytest.approx(periods)


def test_what_is_not_at_rest_is_told(arm: RobotSpec, layer: SafetyLayer) -> None:
    """A position is rest, wherever it is; an effort or a speed is none."""
    assert layer.moving() == ""
    layer.limit(np.array([0.1, 4.0, -0.25]))
    assert layer.moving() == "elbow was last sent 4, wheel was last sent -0.25"
    layer.limit(np.array([0.2, 0.0, 0.0]))
    assert layer.moving() == ""


def test_damping_can_be_ended_until_it_is_armed_again(arm: RobotSpec, read: Read) -> None:
    """What a drive is told last it keeps, so that must be rest; the next fault damps again."""
    layer = SafetyLayer(arm, SafetySpec(on_fault="damp"))
    for tick in (0, 2):
        layer.arm(read(tick), tick * TICK)
        layer.trip("operator_stop", "pressed")
        layer.check_reading(read(tick + 1, joint_vel__elbow=3.0), (tick + 1) * TICK)
        assert layer.limit(np.zeros(3))[1] == -1.5
        layer.stop_damping()
        layer.check_reading(read(tick + 1, joint_vel__elbow=3.0), (tick + 1) * TICK)
        assert layer.limit(np.zeros(3))[1] == 0.0


def test_how_long_the_slowest_drive_takes_to_rest(arm: RobotSpec) -> None:
    """Of those that do not rest wherever they are."""
    assert SafetyLayer(arm).limits.rest_periods == 0
    elbow, wheel = (
        dataclasses.replace(term, slew=slew) for term, slew in zip(arm.action[1:], (100.0, 20.0), strict=True)
    )
    slewed = dataclasses.replace(arm, action=(arm.action[0], elbow, wheel))
    assert SafetyLayer(slewed).limits.rest_periods == 10  # from 5 N m, at 0.5 N m a period


def test_damping_brakes_and_never_pushes(arm: RobotSpec, read: Read) -> None:
    """A damped effort opposes the measured velocity, and is zero when the velocity is no longer known."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0, on_fault="damp"))
    layer.arm(read(0), 0)
    layer.trip("operator_stop", "pressed")
    layer.check_reading(read(1, joint_vel__elbow=3.0), TICK)
    np.testing.assert_allclose(layer.limit(np.zeros(3)), [0.0, -1.5, 0.0])
    layer.check_reading(read(2, joint_vel__elbow=np.nan), 2 * TICK)
    assert layer.limit(np.zeros(3))[1] == 0.0
    layer.check_reading(read(3, joint_vel__elbow=-100.0), 3 * TICK)
    assert layer.limit(np.zeros(3))[1] == 5.0
    layer.check_reading(read(3, joint_vel__elbow=-100.0), 1000 * TICK)
    assert layer.limit(np.zeros(3))[1] == 0.0


def test_a_limit_nothing_measures_is_told(arm: RobotSpec) -> None:
    """A joint limit without a channel cannot be watched, and is listed instead of being forgotten."""
    assert SafetyLayer(arm).limits.unwatched == ("joint_pos/wrist",)


def called_otherwise(arm: RobotSpec) -> RobotSpec:
    """The same arm, with actuators that are not called like the joints they move."""
    action = [dataclasses.replace(t, actuator=f"{t.actuator}_servo", joint=t.actuator) for t in arm.action]
    return dataclasses.replace(arm, action=tuple(action))


@pytest.mark.parametrize("kind", ["hold", "damp"])
def test_a_drive_called_otherwise_is_where_its_joint_is(arm: RobotSpec, read: Read, kind: str) -> None:
    """Soft start, tracking and damping look at the joint that an actuator moves, whatever it is called."""
    config = SafetySpec(on_fault=kind, tracking=0.1, tracking_seconds=0.01, soft_start_seconds=1.0)
    layers = [SafetyLayer(spec, config) for spec in (arm, called_otherwise(arm))]
    for layer in layers:
        assert layer.arm(read(0, joint_pos__shoulder=0.4), 0)
    said = [[layer.limit(np.ones(3)).copy() for layer in layers]]
    assert said[0][0][0] == pytest.approx(0.4, abs=0.05)
    for tick in (1, 2):
        for layer in layers:
            layer.check_reading(read(tick, joint_pos__shoulder=-0.9, joint_vel__elbow=3.0), tick * TICK)
        said.append([layer.limit(np.ones(3)).copy() for layer in layers])
    for plain, other in said:
        np.testing.assert_array_equal(plain, other)
    assert [layer.fault.reason if layer.fault else None for layer in layers] == ["tracking_error"] * 2
    assert all(layer.limits.unmeasured == () for layer in layers)


def test_a_position_drive_that_nothing_measures_is_told(arm: RobotSpec) -> None:
    """It would begin at its offset, wherever it is: somebody has to say that this is known."""
    action = tuple(dataclasses.replace(term, actuator=f"{term.actuator}_servo") for term in arm.action)
    lost = dataclasses.replace(arm, action=action)
    assert SafetyLayer(lost).limits.unmeasured == ("shoulder_servo",)
    assert SafetyLayer(lost, SafetySpec(unmeasured=("shoulder_servo",))).limits.unmeasured == ()


@pytest.mark.parametrize(
    "config", [{"on_fault": "pray"}, {"stale_seconds": -1.0}, {"soft_start_seconds": float("nan")}]
)
def test_a_config_that_switches_checks_off_is_refused(arm: RobotSpec, config: dict) -> None:
    """Values that make no sense are refused when the layer is set up."""
    with pytest.raises(SafetyError, match="legal are"):
        SafetyLayer(arm, SafetySpec(**config))


def test_a_reading_is_refused_exactly_if_it_should_be(arm: RobotSpec) -> None:
    """The one pass that looks at every value agrees with looking at each: not a number, infinite, or beyond a limit."""
    zero_limits = (JointLimit("shoulder", 0.0, 2.0, 10.0), JointLimit("elbow", -1.0, 0.0))
    special = st.sampled_from([0.0, -0.0, 2.0, 10.0, -10.0, -1.0, np.inf, -np.inf, np.nan, 1.7976931348623157e308])

    @given(st.lists(special | ANYTHING | st.floats(-3, 3), min_size=5, max_size=5), st.sampled_from([(), zero_limits]))
    def check(values: list, limits: tuple) -> None:
        spec = dataclasses.replace(arm, joint_limits=limits or arm.joint_limits)
        layer = SafetyLayer(spec, SafetySpec(soft_start_seconds=0.0))
        assert layer.arm(SensorReading(np.zeros(5), 0, 0), 0)
        named = dict(zip(spec.channels, values, strict=True))
        legal = all(np.isfinite(value) for value in values)
        for limit in spec.joint_limits:
            legal &= limit.lower <= named.get(f"joint_pos/{limit.joint}", limit.lower) <= limit.upper
            if limit.velocity is not None:
                legal &= abs(named.get(f"joint_vel/{limit.joint}", 0.0)) <= limit.velocity
        assert layer.check_reading(SensorReading(np.array(values), TICK, 1), TICK) == legal
        assert (layer.fault is None) == legal

    check()


def test_what_else_is_watched(arm: RobotSpec, read: Read) -> None:
    """Any channel can be bounded, and the fault bears the name the owner gave it."""
    watch = (Watch("joint_vel/wheel", upper=3.0, reason="overspeed"), Watch("joint_pos/elbow", lower=-0.5))
    for values, reason in (
        ({"joint_vel__wheel": 3.0, "joint_pos__elbow": -0.5}, None),
        ({"joint_vel__wheel": 3.001}, "overspeed"),
        ({"joint_pos__elbow": -0.51}, "limit_violation"),
    ):
        layer = SafetyLayer(arm, SafetySpec(watch=watch))
        assert layer.arm(read(0), 0)
        layer.check_reading(read(1, **values), TICK)
        assert (layer.fault and layer.fault.reason) == reason


@pytest.mark.parametrize(
    ("quaternion", "falls"),
    [
        ((1.0, 0.0, 0.0, 0.0), False),
        ((np.cos(0.2), np.sin(0.2), 0.0, 0.0), False),  # 0.4 rad about x
        ((np.cos(0.3), 0.0, np.sin(0.3), 0.0), True),  # 0.6 rad about y
        ((np.cos(1.0), 0.0, 0.0, np.sin(1.0)), False),  # turning about z is no leaning
        ((-2 * np.cos(0.2), -2 * np.sin(0.2), 0.0, 0.0), True),  # of length 2: no orientation
        ((0.0, 0.0, 0.0, 0.0), True),
        ((0.0, 1.0, 0.0, 0.0), True),  # upside down
    ],
)
def test_tilt(arm: RobotSpec, quaternion: tuple[float, ...], falls: bool) -> None:
    """A body that leans by more than 0.5 rad, or whose orientation is none, trips."""
    tilt = Tilt(arm.channels[:4], 0.5)
    shoulder = dataclasses.replace(arm.action[0], upper=1.0)  # its position stands for a part of the orientation
    body = dataclasses.replace(arm, joint_limits=(), action=(shoulder, *arm.action[1:]))
    layer = SafetyLayer(body, SafetySpec(tilt=tilt))
    assert layer.arm(SensorReading(np.array([1.0, 0.0, 0.0, 0.0, 0.0]), 0, 0), 0)
    layer.check_reading(SensorReading(np.array([*quaternion, 0.0]), TICK, 1), TICK)
    assert (layer.fault is not None and layer.fault.reason == "tilt") == falls


def test_a_drive_that_does_not_follow(arm: RobotSpec, read: Read) -> None:
    """A position drive far from where it was sent is a fault after the time allowed, and not for a moment."""
    layer = SafetyLayer(arm, SafetySpec(soft_start_seconds=0.0, tracking=0.2, tracking_seconds=0.05))
    assert layer.arm(read(0), 0)
    for tick in range(1, 40):
        layer.limit(np.array([0.0, 1.0, 0.0]))
        layer.check_reading(read(tick, joint_pos__shoulder=0.5 if tick % 10 else 0.0), tick * TICK)
    assert layer.fault is None  # nine ticks at a time, ten are allowed
    for tick in range(40, 60):
        layer.check_reading(read(tick, joint_pos__shoulder=0.5), tick * TICK)
    assert layer.fault is not None and layer.fault.reason == "tracking_error"
    assert "joint_pos/shoulder is 0.5" in layer.fault.detail
