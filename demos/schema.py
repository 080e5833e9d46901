"""What lies where in a demo store: arrays, columns, chunks, codecs and root attributes."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from demos.durable import StoreError
from demos.episode import ENDINGS
from robots.model_place import at_place, model_place
from robots.spec import NOT_IDENTITY, RobotSpec, RobotSpecError, spec_from_dict

SCHEMA = "gcl.demos"
SCHEMA_VERSION = "1.0"  # a greater major number is unreadable, a greater minor one only adds arrays
STEP_CHUNK = 16384  # rows; 1000 load 7.6 times slower, 65536 write 2-3 times slower
EPISODE_CHUNK = 4096  # rows
_COMMIT_KEYS = {
    "n_episodes": int,
    "n_steps": int,
    "chain_sha256": str,
    "spec_sha256": str,
    "store_id": str,
    "operators": list,
    "tasks": list,
}


@dataclass(frozen=True)
class ArrayLayout:
    """One array of the store. Its first axis counts steps (`data/`) or episodes (`meta/`)."""

    path: str
    dtype: str
    width: int | None  # length of the second axis, None for a vector
    attributes: dict[str, Any]  # unit, names, codes: what a reader without this toolkit needs

    @property
    def counts_steps(self) -> bool:
        """Whether a row is a step."""
        return self.path.startswith("data/")


def layouts(spec: RobotSpec) -> tuple[ArrayLayout, ...]:
    """All arrays of a store.

    Args:
        spec: The robot, which gives the widths.

    Returns:
        Their layouts, in the order in which they are written.
    """
    names = list(spec.observation_names)
    actions = {"unit": "1", "names": list(spec.action_names), "meaning": "NaN throughout an episode = unknown"}
    return (
        ArrayLayout("data/observation", "float32", spec.obs_dim, {"names": names}),
        ArrayLayout("data/action", "float32", spec.act_dim, actions),
        # Not `units`, whose texts xarray takes for calendar instructions
        ArrayLayout("data/timestamp", "float64", None, {"unit": "s", "since": "start of the episode"}),
        ArrayLayout("data/reward", "float32", None, {"meaning": "true task reward, NaN = unknown"}),
        ArrayLayout("meta/episode_ends", "int64", None, {"meaning": "step after the episode's last"}),
        ArrayLayout("meta/ended_by", "int8", None, {"codes": list(ENDINGS)}),
        ArrayLayout("meta/success", "int8", None, {"codes": {"-1": "unknown", "0": "failure", "1": "success"}}),
        ArrayLayout("meta/excluded", "int8", None, {"meaning": "1 = not to be learned from"}),
        ArrayLayout("meta/operator", "int16", None, {"meaning": "position in the root attribute `operators`"}),
        ArrayLayout("meta/task", "int16", None, {"meaning": "position in the root attribute `tasks`"}),
        ArrayLayout("meta/seed", "int64", None, {"meaning": "of the reset, -1 = unknown"}),
        ArrayLayout("meta/start_time_ns", "int64", None, {"unit": "ns", "since": "1970-01-01 UTC"}),
        ArrayLayout("meta/final_observation", "float32", spec.obs_dim, {"names": names}),
        ArrayLayout("meta/final_timestamp", "float64", None, {"unit": "s", "since": "start of the episode"}),
        ArrayLayout("meta/sha256", "uint8", 32, {"meaning": "demos.episode.Episode.sha256"}),
    )


def create_arrays(root: zarr.Group, spec: RobotSpec) -> None:
    """Makes the empty arrays.

    Args:
        root: An empty group.
        spec: The robot.
    """
    for folder in ("data", "meta"):
        root.create_group(folder)
    for layout in layouts(spec):
        dtype = np.dtype(layout.dtype)
        tail = () if layout.width is None else (layout.width,)
        codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=dtype.itemsize)
        dimensions = ["step" if layout.counts_steps else "episode"]
        root.create_array(
            layout.path,
            shape=(0, *tail),
            dtype=dtype,
            chunks=(STEP_CHUNK if layout.counts_steps else EPISODE_CHUNK, *tail),
            # Blosc alone lets a flipped bit through as a wrong number
            compressors=[codec, Crc32cCodec()],
            # A lost chunk reads as this, so it must not look like something measured
            fill_value=float("nan") if dtype.kind == "f" else 0 if dtype.kind == "u" else -1,
            attributes=layout.attributes,
            dimension_names=dimensions + [f"{layout.path.split('/')[1]}_element"] * len(tail),
        )


def root_attributes(spec: RobotSpec, source: str, path: Path) -> dict[str, Any]:
    """Attributes of an empty store's root.

    Args:
        spec: The robot.
        source: How the demonstrations come about: "sim", "robot", "import:<format>".
        path: Where the store will be.

    Returns:
        JSON-ready attributes.
    """
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "store_id": uuid.uuid4().hex,
        "n_episodes": 0,
        "n_steps": 0,
        "chain_sha256": spec.sha256,
        "spec_sha256": spec.sha256,
        "spec": {
            "robot": spec.to_dict(),
            "control_hz": 1.0 / spec.control_dt,
            "observation": [
                {"name": name, "unit": unit}
                for name, unit in zip(
                    spec.observation_names, (t.unit for t in spec.observation for _ in t.channels), strict=True
                )
            ],
            "action": [
                {"name": t.actuator, "kind": t.kind, "unit": t.unit, "scale": t.scale, "offset": t.offset}
                for t in spec.action
            ],
        },
        "model_place": model_place(spec, path),
        "operators": [],
        "tasks": [],
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "toolkit_version": importlib.metadata.version("gcl-toolkit"),
        "packages": {name: importlib.metadata.version(name) for name in ("numpy", "zarr")},
        "source": source,
    }


def read_attributes(path: Path) -> dict[str, Any]:
    """Reads the root attributes of a store, and with them whether it is one.

    Args:
        path: The store.

    Returns:
        The attributes.

    Raises:
        StoreError: Not a store, damaged, or of a newer format.
    """
    file = path / "zarr.json"
    try:
        attributes = json.loads(file.read_bytes())["attributes"]
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.exists():
            raise StoreError(f"{path}: no demo store there; `gcl record --out {path}` makes one") from error
        raise StoreError(f"{path}: not a demo store: there is no {file.name} in it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}: not readable: {' '.join(str(error).split())}") from error
    check_attributes(path, attributes)
    return attributes


def check_attributes(path: Path, attributes: object) -> None:
    """Refuses root attributes that are not those of a store this version reads.

    Args:
        path: The store, for messages.
        attributes: What was read.

    Raises:
        StoreError: Of something else, damaged, or of a newer format.
    """
    if not isinstance(attributes, dict) or attributes.get("schema") != SCHEMA:
        raise StoreError(f"{path}: a Zarr directory, but not a demo store: its root lacks schema {SCHEMA!r}")
    version = str(attributes.get("schema_version"))
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) > int(SCHEMA_VERSION.partition(".")[0]):
        raise StoreError(
            f"{path}: store format {version}; this version of gcl reads up to {SCHEMA_VERSION}: upgrade gcl"
        )
    for key, kind in _COMMIT_KEYS.items():
        if not isinstance(attributes.get(key), kind):
            raise StoreError(
                f"{path}: damaged: root attribute {key} is {attributes.get(key)!r}; expected {kind.__name__}"
            )


def stored_robot(path: Path, attributes: dict[str, Any]) -> RobotSpec:
    """Rebuilds the robot a store belongs to.

    Args:
        path: The store, for messages.
        attributes: Of its root.

    Returns:
        The robot, with the directory of its model file where that is still in its place.

    Raises:
        StoreError: It cannot be rebuilt, or is not the one the store was made for.
    """
    try:
        spec = spec_from_dict(attributes["spec"]["robot"])
    except (RobotSpecError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the robot in it cannot be read: {error}") from error
    if spec.sha256 != attributes["spec_sha256"]:
        raise StoreError(f"{path}: damaged: the robot in it is not the one it was made for (its SHA-256 differs)")
    return at_place(spec, attributes.get("model_place"), path)


def check_same_robot(path: Path, stored: RobotSpec, wanted: RobotSpec) -> None:
    """Refuses demos of another robot.

    Args:
        path: Where the demos are, for the message.
        stored: Whose they are.
        wanted: Whose they should be.

    Raises:
        StoreError: Another robot's.
    """
    if stored.sha256 != wanted.sha256:
        raise StoreError(
            f"{path}: demos of robot {stored.name!r} ({stored.sha256[:8]}), not of {wanted.name!r} "
            f"({wanted.sha256[:8]}); they differ in {robot_differences(stored, wanted)}"
        )


def with_model_of(path: Path, stored: RobotSpec, robot: RobotSpec) -> RobotSpec:
    """The robot of demos that do not know where its model lies, as somebody says who has it.

    Args:
        path: Where the demos are, for the message.
        stored: Whose they are.
        robot: The same robot, from its robot.yaml.

    Returns:
        `stored`, with the directory of its model, and the joints that its actuators move.

    Raises:
        StoreError: Another robot.
    """
    check_same_robot(path, stored, robot)
    return dataclasses.replace(stored, directory=robot.directory, action=robot.action)


def robot_differences(stored: RobotSpec, wanted: RobotSpec) -> str:
    """Says in a few words how two robots differ.

    Args:
        stored: The store's robot.
        wanted: The other one.

    Returns:
        "control_dt (0.01, not 0.02), observation"; empty for the same robot.
    """
    ours, theirs = stored.to_dict(), wanted.to_dict()
    words = []
    for key in ours:
        if key in NOT_IDENTITY or ours[key] == theirs[key]:
            continue
        plain = all(isinstance(value, (str, int, float)) for value in (ours[key], theirs[key]))
        words.append(f"{key} ({ours[key]!r}, not {theirs[key]!r})" if plain else key)
    return ", ".join(words)
