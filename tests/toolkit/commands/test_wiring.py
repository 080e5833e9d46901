"""The wiring check shows what is measured, sends nothing, and ends in a status that a script can use."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from robots import Backend, BackendError, SensorReading
from robots.hardware_yaml import parse_hardware
from robots.mock import MockBackend
from robots.robot_yaml import parse_robot
from toolkit.commands.wiring import show_wiring

SPEC = parse_robot({
    "name": "arm", "mjcf": "arm.xml", "control_dt": 0.002, "episode_seconds": 5,
    "observation": [
        {"name": "position", "joint_pos": ["elbow", "wrist"], "unit": "rad"},
        {"name": "velocity", "joint_vel": ["wrist"], "unit": "rad/s"},
    ],
    "action": [{"actuator": name, "kind": "position", "unit": "rad", "scale": 1.0} for name in ("elbow", "wrist")],
})  # fmt: skip
HARDWARE = parse_hardware(
    {"robot": "arm", "driver": "serial", "serial": {}, "joints": {"elbow": {"source": "1"}, "wrist": {"source": "7"}}},
    SPEC,
)


class HandMoved(Backend):
    """A robot whose joints a hand moves; commanding it is an error."""

    def __init__(self, values: Callable[[int], list[float] | None]) -> None:
        self.spec, self._values, self.count = SPEC, values, 0

    def measure(self) -> SensorReading:
        self.count += 1
        values = self._values(self.count - 1)
        if values is None:
            raise BackendError("servo 7: no answer")
        return SensorReading(np.array(values), self.count, self.count)

    def reset(self) -> SensorReading:
        raise AssertionError("a wiring check resets nothing")

    def step(self, command: np.ndarray) -> SensorReading:
        raise AssertionError("a wiring check commands nothing")

    def close(self) -> None:
        raise AssertionError("whoever opened it closes it")


def swinging(n: int) -> list[float]:
    return [0.5 * math.sin(n / 5), 0.4 * math.cos(n / 5), -40 * math.sin(n / 5)]


def test_a_sound_robot(capsys: pytest.CaptureFixture[str]) -> None:
    """Every channel is shown with its source, the ways it moved and OK; the status is 0."""
    assert show_wiring(HandMoved(swinging), SPEC, HARDWARE, 0.3, as_json=False) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if "joint_" in line}
    assert set(rows) == set(SPEC.channels)
    assert "position of 1" in rows["joint_pos/elbow"] and "velocity of 7" in rows["joint_vel/wrist"]
    assert "moved, first up" in rows["joint_pos/elbow"] and "moved, first down" in rows["joint_pos/wrist"]
    assert all("OK" in row for row in rows.values())
    assert "o" in rows["joint_pos/wrist"].split("│")[7] and "---" in rows["joint_pos/wrist"].split("│")[7]
    assert "every joint moved" in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The summary is one JSON object, and nothing else is printed."""
    assert show_wiring(HandMoved(swinging), SPEC, HARDWARE, 0.3, as_json=True) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["ok"] is True and summary["problems"] == []
    assert (summary["robot"], summary["spec_sha256"]) == ("arm", SPEC.sha256)
    first = summary["channels"][0]
    assert (first["channel"], first["source"], first["first_direction"]) == ("joint_pos/elbow", "position of 1", "+")
    assert first["least"] < -0.4 and first["most"] > 0.4


def test_a_joint_that_nobody_moved(capsys: pytest.CaptureFixture[str]) -> None:
    """Without movement a joint has proved nothing: status 1, and which joint."""
    assert show_wiring(HandMoved(lambda n: [0.0, *swinging(n)[1:]]), SPEC, None, 0.3, as_json=False) == 1
    assert "joint_pos/elbow has not moved" in capsys.readouterr().err


def test_nan_is_shown_and_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN is a state in the summary and never a number in the JSON."""
    assert show_wiring(HandMoved(lambda n: [math.nan, *swinging(n)[1:]]), SPEC, HARDWARE, 0.1, as_json=True) == 1
    summary = json.loads(capsys.readouterr().out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert summary["channels"][0]["state"] == "NaN" and summary["channels"][0]["value"] is None


def test_a_servo_that_drops_out(capsys: pytest.CaptureFixture[str]) -> None:
    """What the backend cannot measure is said, the watching goes on, and it is not forgotten at the end."""
    backend = HandMoved(lambda n: None if n == 10 else swinging(n))
    assert show_wiring(backend, SPEC, HARDWARE, 0.3, as_json=False) == 1
    assert "lost: servo 7: no answer" in capsys.readouterr().err
    assert backend.count > 12


def test_a_robot_that_is_not_there() -> None:
    """If nothing can be measured there is nothing to show."""
    with pytest.raises(BackendError, match="no answer"):
        show_wiring(HandMoved(lambda n: None), SPEC, HARDWARE, 0.1, as_json=False)


def test_ctrl_c_ends_with_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """The person ends the watching; what was seen till then is told."""

    def interrupted(n: int) -> list[float]:
        if n == 40:
            raise KeyboardInterrupt
        return swinging(n)

    assert show_wiring(HandMoved(interrupted), SPEC, HARDWARE, None, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["readings"] == 40


def test_any_backend_that_measures(capsys: pytest.CaptureFixture[str]) -> None:
    """A robot without a wiring file can be looked at too; the mock does not move, which is said."""
    with MockBackend(SPEC) as backend:
        assert show_wiring(backend, SPEC, None, 0.05, as_json=True) == 1
    summary = json.loads(capsys.readouterr().out)
    assert [channel["source"] for channel in summary["channels"]] == ["-", "-", "-"]


def test_rich_markup_in_names_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A channel such as tip[0] is a name and no markup."""
    spec = parse_robot({
        "name": "tip", "mjcf": "tip.xml", "control_dt": 0.002, "episode_seconds": 5,
        "observation": [{"name": "tip", "sensor": ["tip[0:2]"], "unit": "m"}],
        "action": [{"actuator": "elbow", "kind": "effort", "unit": "N m", "scale": 1.0}],
    })  # fmt: skip
    with MockBackend(spec) as backend:
        show_wiring(backend, spec, None, 0.02, as_json=False)
    assert "sensor/tip[1]" in capsys.readouterr().out
