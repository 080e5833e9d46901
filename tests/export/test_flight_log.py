"""The flight recorder keeps the newest ticks in order, and writes them whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from controller_process import write_row

from export.black_box import BlackBox
from export.flight_log import ROW_FIELDS, FlightLog, FlightLogError, save_flight
from export.safety import Fault
from robots.backend import SensorReading
from robots.spec import RobotSpec, spec_from_dict


def filled(arm: RobotSpec, ticks: int) -> FlightLog:
    """A log of 20 rows after some ticks, each tick's number in everything."""
    log = FlightLog(arm, seconds=0.1)
    for k in range(ticks):
        reading = SensorReading(np.full(len(arm.channels), k), 1000 * k, k)
        log.record(reading, np.full(arm.obs_dim, k), np.full(arm.act_dim, k), np.full(arm.act_dim, -k), float(k))
    return log


@pytest.mark.parametrize(("ticks", "first"), [(0, 0), (7, 0), (20, 0), (33, 13)])
def test_the_newest_ticks_in_order(arm: RobotSpec, tmp_path: Path, ticks: int, first: int) -> None:
    """Fewer ticks than rows are all kept; of more, the newest, oldest first, in every column."""
    path = filled(arm, ticks).save(tmp_path / "runs" / "flight.npz", Fault("stale_reading", "40 ms"))
    with np.load(path, allow_pickle=False) as log:
        assert log["sequence"].tolist() == list(range(first, ticks))
        assert log["command"].shape == (ticks - first, arm.act_dim)
        np.testing.assert_array_equal(log["values"][:, 0], log["sequence"])
        np.testing.assert_array_equal(log["command"][:, 0], -log["sequence"])
        assert str(log["reason"]) == "stale_reading: 40 ms" and str(log["spec_sha256"]) == arm.sha256
        assert log["channels"].tolist() == list(arm.channels)


def test_a_reading_of_a_wrong_shape_does_not_stop_the_recorder(arm: RobotSpec, tmp_path: Path) -> None:
    """The very reading that caused a fault is kept, as NaN."""
    log = filled(arm, 1)
    log.record(SensorReading(np.zeros(1), 0, 9), np.zeros(arm.obs_dim), np.zeros(3), np.zeros(3), 0.0)
    with np.load(log.save(tmp_path / "x.npz")) as saved:
        assert np.isnan(saved["values"][1]).all() and saved["sequence"][1] == 9


def test_where_it_cannot_be_written_it_says_so(arm: RobotSpec, tmp_path: Path) -> None:
    """A path below a file is refused in one line, and nothing is left."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(FlightLogError, match="cannot be written"):
        filled(arm, 3).save(tmp_path / "file" / "flight.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FlightLogError):
        filled(arm, 3).save(tmp_path / "folder.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_a_snapshot_is_saved_with_all_that_is_known(arm: RobotSpec, tmp_path: Path) -> None:
    """Rows, robot, facts, fault and clock of a black box are in the file, readable without pickle."""
    box = BlackBox.create(arm, seconds=0.1, about={"bundle": "arm.bundle"})
    for k in range(33):
        write_row(box, k)
    box.latch_fault("limit_violation", "elbow", 77)
    snapshot = box.snapshot()
    box.close()
    with np.load(save_flight(tmp_path / "runs" / "x.npz", snapshot, "asked for"), allow_pickle=False) as log:
        for name in ROW_FIELDS:
            np.testing.assert_array_equal(log[name], getattr(snapshot, name))
        assert log["sequence"].tolist() == list(range(14, 33)) and log["first"] == 14
        assert (str(log["fault_reason"]), str(log["fault_detail"]), int(log["fault_ns"])) == (
            "limit_violation",
            "elbow",
            77,
        )
        assert spec_from_dict(json.loads(str(log["spec"]))) == arm and str(log["reason"]) == "asked for"
        assert json.loads(str(log["about"])) == {"bundle": "arm.bundle"} and log["control_dt"] == arm.control_dt
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x.npz"]
