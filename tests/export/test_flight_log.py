"""The flight recorder keeps the newest ticks in order, and writes them whole or not at all."""

import json
from pathlib import Path

import numpy as np
from controller_process import write_row

from export.black_box import BlackBox
from export.flight_log import ROW_FIELDS, save_flight
from robots.spec import RobotSpec, spec_from_dict


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
