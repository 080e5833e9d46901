"""The section `serial` says which port and which servos, and nothing in it is guessed."""

import pytest

from robots import RobotSpecError
from robots.serial_options import SerialOptions, parse_serial

LEAST = {"port": "/dev/ttyACM0", "protocol": "dynamixel"}


def test_defaults() -> None:
    """Two keys are enough; torque stays on by default."""
    options = parse_serial(LEAST)
    assert options == SerialOptions("/dev/ttyACM0", "dynamixel")
    assert (options.baudrate, options.on_close, options.watchdog_seconds) == (1_000_000, "hold", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prot": 1}, "unknown key 'prot'"),
        ({"protocol": "dynamixle"}, "did you mean 'dynamixel'"),
        ({"on_close": "drop"}, "hold, release"),
        ({"baudrate": 0}, "at least 1"),
        ({"baudrate": 9600.5}, "whole number"),
        ({"repeats": -1}, "at least 0"),
        ({"answer_seconds": 0}, "above 0"),
        ({"watchdog_seconds": 3}, "0.02 to 2.54"),
        ({"watchdog_seconds": 0.2, "protocol": "feetech"}, "have no watchdog"),
        ({"effort_per_unit": "much"}, "finite number"),
        ({"port": 3}, "expected text"),
    ],
)
def test_what_is_not_legal(change: dict, words: str) -> None:
    """Each mistake is refused with what is legal."""
    with pytest.raises(RobotSpecError, match=words):
        parse_serial(LEAST | change)


@pytest.mark.parametrize("key", LEAST)
def test_what_is_missing(key: str) -> None:
    """Port and protocol have no default: a guess could drive another arm."""
    with pytest.raises(RobotSpecError, match=f"missing {key}"):
        parse_serial({name: value for name, value in LEAST.items() if name != key})
