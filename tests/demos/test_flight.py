"""A flight log becomes the episode that was flown, and nothing that is not one becomes an episode."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demos.convert import export_npz
from demos.flight import Flight, FlightError, flight_episode, is_flight, read_flight
from demos.store import DemoStore, StoreError
from export.black_box import BlackBox
from export.flight_log import save_flight
from robots import RobotSpec, load_robot
from robots.backend import SensorReading
from robots.command import CommandMap
from robots.observation import ObservationMap
from toolkit.cli import main

ROOT = Path(__file__).parents[2]
ROWS = 50
DT_NS = 10_000_000


@pytest.fixture
def flight(spec: RobotSpec) -> Flight:
    """Fifty ticks on time, in which nothing went wrong."""
    rng = np.random.default_rng(4)
    return Flight(
        spec=spec, reason="ended", fault="", about={"bundle": "first.bundle"}, first=0,
        unix_minus_monotonic_ns=1_800_000_000_000_000_000, values=rng.normal(size=(ROWS, len(spec.channels))),
        command=CommandMap(spec).command(rng.uniform(-1, 1, (ROWS, spec.act_dim))), sequence=np.arange(ROWS),
        timestamp_ns=5_000_000_000 + DT_NS * np.arange(ROWS) + rng.integers(0, 400_000, ROWS),
    )  # fmt: skip


@pytest.fixture
def log(spec: RobotSpec, flight: Flight, tmp_path: Path) -> Callable[..., Path]:
    """Writes the flight through a real black box, as a controller and its observer do."""

    def write(fault: bool = False, rows: int = ROWS, spec: RobotSpec = spec) -> Path:
        box = BlackBox.create(spec, seconds=(ROWS + 10) * spec.control_dt, about=flight.about)
        for i in range(rows):
            reading = SensorReading(flight.values[i], int(flight.timestamp_ns[i]), int(flight.sequence[i]))
            box.beat(i, i, 0, 0, 0, 1.0)
            box.record(reading, np.zeros(spec.obs_dim), flight.command[i] * 2, flight.command[i], 0.5, 1, 1, 0)
        if fault:
            box.latch_fault("stale_reading", "newest is 300 ms old", 9)
        path = save_flight(tmp_path / "flight.npz", box.snapshot(), "stale_reading: newest" if fault else "ended")
        box.close()
        return path

    return write


def test_what_was_flown_comes_back(log: Callable[..., Path], flight: Flight, spec: RobotSpec) -> None:
    """Observations are of what was measured, actions give the commands that were sent, times are the readings'."""
    found = flight_episode(read_flight(log()), "flight.npz")
    episode = found.episode
    assert (episode.length, episode.ended_by, episode.operator, found.remarks) == (ROWS - 1, "truncation", "policy", ())
    np.testing.assert_array_equal(episode.observations, ObservationMap(spec)(flight.values).astype(np.float32))
    sent = CommandMap(spec).command(episode.actions.astype(float))
    np.testing.assert_allclose(sent, flight.command[:-1], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.diff(episode.timestamps), np.diff(flight.timestamp_ns) * 1e-9, atol=1e-12)
    assert episode.rewards is None and episode.task == (spec.task or "")
    assert abs(episode.start_time_ns - (time.time_ns() - time.monotonic_ns() + int(flight.timestamp_ns[0]))) < 60e9
    assert found.note["bundle"] == "first.bundle" and found.note["rows"] == [0, ROWS]


@pytest.mark.parametrize(("fault", "reason"), [("stale_reading: 300 ms", "x"), ("", "controller_lost: it went away")])
def test_a_fault_interrupts(flight: Flight, fault: str, reason: str) -> None:
    """An episode that a fault or a kill ended was interrupted; one that was cut before that was not."""
    broken = dataclasses.replace(flight, fault=fault, reason=reason)
    assert flight_episode(broken).episode.ended_by == "interrupted"
    values = flight.values.copy()
    values[45] = np.nan
    found = flight_episode(dataclasses.replace(broken, values=values))
    assert found.rows == (0, 45) and found.episode.ended_by == "truncation"
    assert ("the fault is in none of the rows kept" in found.remarks) == bool(fault)


@pytest.mark.parametrize("kind", ["repeated", "same number", "late", "nan", "backwards"])
def test_the_longest_stretch_without_a_gap(flight: Flight, kind: str) -> None:
    """At each kind of gap the flight is cut, the longer part is kept, and both are said."""
    changed = {name: getattr(flight, name).copy() for name in ("values", "command", "sequence", "timestamp_ns")}
    first = 21 if kind in ("nan", "repeated") else 20
    if kind == "repeated":
        changed["sequence"][20] = changed["sequence"][19]
        changed["timestamp_ns"][20] = changed["timestamp_ns"][19]
    elif kind == "same number":
        changed["sequence"][20] = changed["sequence"][19]
    elif kind == "late":
        changed["timestamp_ns"][20:] += DT_NS
    elif kind == "nan":
        changed["values"][20, 3] = np.inf
    else:
        changed["timestamp_ns"][20:] -= 3 * DT_NS
    found = flight_episode(dataclasses.replace(flight, **changed))
    assert found.rows == (first, ROWS) and found.episode.length == ROWS - first - 1
    # Between the readings on both sides of a repeated one another one is missing
    assert sum(found.note["gaps"].values()) == (2 if kind == "repeated" else 1)
    assert f"kept rows {first} to 49 of 50" in found.remarks[0] and next(iter(found.note["gaps"])) in found.remarks[0]


def test_what_was_overwritten_is_said(flight: Flight) -> None:
    """A log that begins in the midst of a run says so, and rows are counted from the run's begin."""
    found = flight_episode(dataclasses.replace(flight, first=700))
    assert found.note["rows"] == [700, 700 + ROWS] and "had been overwritten" in found.remarks[0]


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_flown_is_no_episode(flight: Flight, rows: int) -> None:
    """Without two rows in succession there is no step."""
    cut = {name: getattr(flight, name)[:rows] for name in ("values", "command", "sequence", "timestamp_ns")}
    with pytest.raises(FlightError, match="no two rows"):
        flight_episode(dataclasses.replace(flight, **cut))


def test_all_rows_bad_is_no_episode(flight: Flight) -> None:
    """A robot that never measured anything whole leaves nothing to learn from, and hears what it measured instead."""
    with pytest.raises(FlightError, match="'values that are no numbers': 50"):
        flight_episode(dataclasses.replace(flight, values=np.full_like(flight.values, np.nan)))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "format 2"),
    ({"spec_sha256": "0" * 64}, "SHA-256"),
    ({"values": np.zeros((ROWS, 2))}, "values is"),
    ({"sequence": np.zeros(ROWS)}, "float64"),
    ({"spec": "{"}, "not a whole"),
    ({"about": "[]"}, "damaged"),
    ({"command": np.array([object()])}, "not a whole"),
    ({"first": np.zeros(3)}, "not a whole"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_tampered_log_is_refused(log: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    """Another version, another robot, other shapes or types, pickled objects: refused with what is wrong."""
    path = log()
    with np.load(path) as file:
        entries = {name: file[name] for name in file.files}
    np.savez(path, **(entries | changes))  # pyright: ignore[reportArgumentType]
    with pytest.raises(FlightError, match=message):
        read_flight(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_any_damage_is_one_error(log: Callable[..., Path], data: st.DataObject) -> None:
    """Bytes flipped or cut off anywhere give a flight error, or leave a flight that is one."""
    path = log(rows=6)
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        flight_episode(read_flight(path))
    except FlightError:
        pass


def test_other_files_are_no_flights(tmp_path: Path, log: Callable[..., Path]) -> None:
    """Text, arrays, folders and nothing at all are not taken for flight logs."""
    (tmp_path / "text").write_text("hello")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text", "array.npy", "nowhere", "."):
        assert not is_flight(tmp_path / name)
    assert is_flight(log())


def gcl(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_flights_fill_a_store(log: Callable[..., Path], tmp_path: Path) -> None:
    """The verb makes the store, adds to it, excludes what a fault ended; the store is sound and knows its sources."""
    out = tmp_path / "flights.zarr"
    first = gcl("demos", "import", log(), "--out", out, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["excluded_this"] is False
    second = gcl("demos", "import", log(fault=True, rows=30), out)
    assert "episode 1: 29 steps, fault stale_reading: newest is 300 ms old, excluded" in second.stdout
    with DemoStore.open(out) as store:
        assert store.verify() == [] and [episode.length for episode in store.episodes(include_excluded=True)] == [
            49,
            29,
        ]
        assert store.identity()["excluded"] == [1] and store.attributes["source"] == "import:flight"
    notes = json.loads(gcl("demos", "show", out, "--json").stdout)["notes"]
    assert notes["0"]["bundle"] == "first.bundle" and notes["1"]["fault"].startswith("stale_reading")
    assert gcl("demos", "check", out).exit_code == 0


def test_a_flight_imported_twice_is_there_once(log: Callable[..., Path], tmp_path: Path) -> None:
    """The second time nothing is added, which is told; whether to learn from it may still be said then."""
    out, file = tmp_path / "flights.zarr", log(fault=True)
    assert gcl("demos", "import", file, out).exit_code == 0
    again = gcl("demos", "import", file, out)
    assert again.exit_code == 0 and "has this flight already, as episode 0: nothing was added" in again.stderr
    assert "1 episodes; episode 0: 49 steps" in again.stdout and "excluded; --include" in again.stdout
    included = json.loads(gcl("demos", "import", file, out, "--include", "--json").stdout)
    assert (included["n_episodes"], included["index"], included["excluded_this"]) == (1, 0, False)
    with DemoStore.open(out) as store:
        assert len(store) == 1 and store.verify() == []


def test_a_flight_of_another_robot(log: Callable[..., Path], tmp_path: Path) -> None:
    """A store takes flights of its own robot only."""
    out = tmp_path / "walker.zarr"
    DemoStore.create(out, load_robot("walker")).close()
    result = gcl("demos", "import", log(), out)
    assert result.exit_code == 2 and "not of 'cheetah'" in result.stderr


@pytest.mark.parametrize("exported", [False, True])
def test_flights_of_a_robot_of_ones_own(
    exported: bool, flight: Flight, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Who says which robot was flown gets a store that finds its model; another robot is refused and nothing made."""
    folder, out = tmp_path / "mine", tmp_path / "flights.zarr"
    folder.mkdir()
    (folder / "mine.xml").write_text("<mujoco/>")
    shipped = (ROOT / "robots" / "cheetah" / "robot.yaml").read_text().splitlines()
    changed = {"mjcf": "mjcf: mine.xml", "task": ""}
    (folder / "robot.yaml").write_text("\n".join(changed.get(line.split(":")[0], line) for line in shipped))
    own = load_robot(folder)
    stored = dataclasses.replace(own, directory=None)
    if exported:
        file = tmp_path / "export.npz"
        with DemoStore.create(tmp_path / "elsewhere.zarr", stored) as store:
            store.append(flight_episode(dataclasses.replace(flight, spec=stored)).episode)
            export_npz(store, file)
    else:
        file = request.getfixturevalue("log")(spec=stored)
    result = gcl("demos", "import", file, out, "--robot", "walker")
    assert result.exit_code == 2 and "not of 'walker'" in result.stderr and not out.exists()
    for robot, directory in (([], None), (["--robot", folder], own.directory)):
        assert gcl("demos", "import", file, out, *robot).exit_code == 0
        with DemoStore.open(out) as store:
            assert (store.spec.sha256, store.spec.directory, store.n_episodes) == (own.sha256, directory, 1)
        if not exported:
            again = gcl("demos", "import", file, out, "--robot", folder)
            assert ("goes on without a way to the model" in again.stderr) == (directory is None)
        shutil.rmtree(out)


def test_a_store_is_named_once(log: Callable[..., Path], tmp_path: Path) -> None:
    """Neither or both of the two ways to name the store is a mistake."""
    assert gcl("demos", "import", log()).exit_code == 2
    assert gcl("demos", "import", log(), tmp_path / "a.zarr", "--out", tmp_path / "b.zarr").exit_code == 2
    assert not (tmp_path / "a.zarr").exists()


def test_notes_survive_reopening_and_a_failed_append(flight: Flight, tmp_path: Path) -> None:
    """A note is committed with its episode, and an episode that is refused leaves none."""
    episode = flight_episode(flight).episode
    with DemoStore.create(tmp_path / "a.zarr", flight.spec) as store:
        store.append(episode, note={"x": 1})
        with pytest.raises(Exception, match="observations of 3"):
            store.append(dataclasses.replace(episode, observations=episode.observations[:, :3]), note={"x": 2})
        store.append(episode)
    with pytest.raises(StoreError):
        DemoStore.open(tmp_path / "a.zarr").append(episode, note={"x": 3})
    assert DemoStore.open(tmp_path / "a.zarr").attributes["notes"] == {"0": {"x": 1}}
