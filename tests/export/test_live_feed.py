"""The feed tells pages how things stand, and hides no spike however many rows it makes one of."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_process import write_row

from export.black_box import BlackBox, State
from export.flight_writer import FlightWriter
from export.live_feed import HISTORY, LiveFeed, traces
from robots import load_robot
from robots.spec import RobotSpec


@pytest.fixture
def box(arm: RobotSpec) -> Iterator[BlackBox]:
    """A box of 400 rows."""
    made = BlackBox.create(arm, seconds=2.0, about={"reward_threshold": 0.5})
    yield made
    made.close()


@pytest.fixture
def feed(box: BlackBox, tmp_path: Path) -> LiveFeed:
    """A feed of it."""
    return LiveFeed(box, FlightWriter(tmp_path / "flight.npz"))


def polled(box: BlackBox, feed: LiveFeed, now_ns: int = 10**9) -> dict:
    feed.poll(box.status(), None, [], now_ns)
    return json.loads(feed.after(0, 0.0)[-1][1])


def test_a_spike_of_one_row_is_seen(box: BlackBox, feed: LiveFeed) -> None:
    """Of a hundred rows come two points, and the extreme of each column is in one of them."""
    for k in range(100):
        write_row(box, 5000 if k == 37 else 1, now_ns=k)
    rows = polled(box, feed)["rows"]
    assert len(rows["t"]) == 2
    assert rows["high"][0] == [5000.0] * len(rows["high"][0]) and rows["low"][0] == [1.0] * len(rows["low"][0])
    assert rows["high"][1] == [1.0] * len(rows["high"][1])


def test_no_row_is_told_twice(box: BlackBox, feed: LiveFeed) -> None:
    """Each event holds the rows since the last one, and none if there are none."""
    write_row(box, 1)
    write_row(box, 2)
    assert [low[0] for low in polled(box, feed)["rows"]["low"]] == [1.0, 2.0]
    assert polled(box, feed)["rows"] == {"t": [], "low": [], "high": []}
    write_row(box, 3)
    assert [low[0] for low in polled(box, feed)["rows"]["low"]] == [3.0]


def test_an_event_is_json_whatever_was_measured(box: BlackBox, feed: LiveFeed, arm: RobotSpec) -> None:
    """NaN and infinity, which JSON lacks, become null; before the first tick there is an event, too."""
    first = polled(box, feed)
    assert first["status"]["heartbeat_age"] is None and first["status"]["rate_hz"] is None
    write_row(box, 1)
    box._ring[0, :2] = math.nan, math.inf
    event = polled(box, feed)
    measured = event["rows"]["low"][0][2 * arm.act_dim :]
    assert measured[:3] == [None, None, 1.0]
    assert "NaN" not in feed.after(0, 0.0)[-1][1] and "Infinity" not in feed.after(0, 0.0)[-1][1]


def test_how_things_stand(box: BlackBox, feed: LiveFeed, arm: RobotSpec) -> None:
    """State, fault, rate and counters are those of the box; the latency counts add up to all ticks."""
    box.set_state(State.RUNNING)
    for k in range(50):
        write_row(box, k, now_ns=10**9 + k * 5_000_000)
        box.histogram("tick").add(1000 * k)
    box.latch_fault("limit_violation", "elbow", 1_200_000_000)
    event = polled(box, feed, now_ns=1_300_000_000)
    status = event["status"]
    assert status["fault"] == {"reason": "limit_violation", "detail": "elbow", "seconds_ago": 0.1}
    assert (status["state"], status["ticks"], status["rate_hz"], status["reward"]) == ("running", 49, 200.0, 49.0)
    assert status["heartbeat_age"] == pytest.approx(0.055)
    assert sum(event["latency"]["tick"]["counts"]) == 50 and event["latency"]["tick"]["quantiles"][3] == 49.0


def test_only_so_much_is_kept(box: BlackBox, feed: LiveFeed) -> None:
    """A page that comes late gets the newest half minute; waiting for what does not come ends."""
    for _ in range(HISTORY + 20):
        feed.poll(box.status(), None, [], 1)
    events = feed.after(0, 0.0)
    assert [number for number, _ in events] == list(range(21, HISTORY + 21))
    assert feed.after(HISTORY + 20, 0.01) == []


@pytest.mark.parametrize("robot", ["jaco", "humanoid", "quadruped", "cartpole"])
def test_every_command_and_channel_is_drawn(robot: str) -> None:
    """Each column of the rows is in exactly one picture, a drive's measured joint in that of its drive."""
    spec = load_robot(robot)
    pictures = traces(spec)
    columns = [column for picture in pictures for _, column in picture["lines"]]
    assert sorted(columns) == list(range(2 * spec.act_dim + len(spec.channels)))
    if robot == "jaco":
        assert [what for what, _ in pictures[0]["lines"]] == ["wanted", "commanded", "measured"]
        column = pictures[0]["lines"][2][1] - 2 * spec.act_dim
        assert spec.channels[column] == f"joint_vel/{spec.action[0].actuator}"
