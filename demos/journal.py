"""The journal of the episode being recorded: fixed-size records, one `write` a step, readable however it was cut off.

A file is a header (what episode this is, and of what robot) and then records. Record 0 is the first observation;
record k the k-th step, with the observation it led to; a last one says how the episode ended. Each carries a checksum,
so a torn or rotten tail is seen and left out.
"""

from __future__ import annotations

import json
import math
import os
import struct
import uuid
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from demos.durable import StoreError
from demos.episode import ENDINGS, Episode, EpisodeError

_MAGIC = b"GCLWAL01"
_PREFIX = struct.Struct("<8sII")  # magic, length of the JSON, its CRC-32
_LONGEST_HEADER = 1 << 20  # [bytes] more than that is no header of ours
_RUNNING = -1


@dataclass(frozen=True)
class JournalHeader:
    """What is known before the first step."""

    store_id: str  # of the store the episode is meant for
    spec_sha256: str  # hex
    obs_dim: int
    act_dim: int
    seed: int  # of the reset, -1 = unknown
    operator: str
    task: str
    start_time_ns: int  # [ns] since the Unix epoch

    def is_of(self, episode: Episode) -> bool:
        """Whether this is the journal of that episode."""
        return (self.start_time_ns, self.seed) == (episode.start_time_ns, episode.seed)


def _record_type(header: JournalHeader) -> np.dtype:
    return np.dtype(
        [
            ("crc", "<u4"),
            ("number", "<u4"),
            ("ended_by", "<i4"),  # position in ENDINGS in the last record, else _RUNNING
            ("success", "<i4"),  # -1 unknown, 0, 1
            ("timestamp", "<f8"),  # [s]
            ("reward", "<f4"),
            ("observation", "<f4", (header.obs_dim,)),
            ("action", "<f4", (header.act_dim,)),
        ]
    )


class Journal:
    """Writes one episode as it happens. What is written survives the death of the process at any instant."""

    def __init__(self, folder: Path, header: JournalHeader) -> None:
        """Makes the file and writes its header.

        Args:
            folder: Where journals lie.
            header: What episode this is.

        Raises:
            StoreError: The disk would not take it.
        """
        self.header = header
        self.path = folder / f"{uuid.uuid4().hex}.bin"
        self._record = np.zeros((), _record_type(header))
        self._bytes = self._record.reshape(1).view(np.uint8).data
        payload = json.dumps(asdict(header)).encode()
        self._descriptor = -1
        try:
            self._descriptor = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise StoreError(f"{self.path}: no journal can be started: {error.strerror}") from error
        self._write(_PREFIX.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload)

    def start(self, observation: np.ndarray, timestamp: float) -> None:
        """Writes the first observation.

        Args:
            observation: (obs_dim,).
            timestamp: [s] since the episode began.

        Raises:
            StoreError: The disk would not take it.
        """
        self._record["ended_by"], self._record["success"] = _RUNNING, -1
        self._put(0, observation, timestamp)

    def step(self, action: np.ndarray, reward: float, observation: np.ndarray, timestamp: float) -> None:
        """Writes one step.

        Args:
            action: (act_dim,) that was sent.
            reward: True reward, NaN if unknown.
            observation: (obs_dim,) after it.
            timestamp: [s] since the episode began, of the observation.

        Raises:
            StoreError: The disk would not take it.
        """
        self._record["action"], self._record["reward"] = action, reward
        self._put(int(self._record["number"]) + 1, observation, timestamp)

    def finish(self, ended_by: str, success: bool | None = None) -> None:
        """Writes how the episode ended and puts all of it on the disk.

        Args:
            ended_by: One of ENDINGS.
            success: Verdict, None if unknown.

        Raises:
            StoreError: The disk would not take it.
        """
        self._record["ended_by"] = ENDINGS.index(ended_by)
        self._record["success"] = -1 if success is None else int(success)
        self._put(int(self._record["number"]) + 1, self._record["observation"], float(self._record["timestamp"]))
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Stops writing and leaves the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Removes the file: its episode is in the store, or not wanted."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _put(self, number: int, observation: np.ndarray, timestamp: float) -> None:
        self._record["number"], self._record["timestamp"] = number, timestamp
        self._record["observation"] = observation
        self._record["crc"] = zlib.crc32(self._bytes[4:])
        self._write(self._bytes)

    def _write(self, data: bytes | memoryview) -> None:
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; what was written up to here is kept") from error
        if written != len(data):
            raise StoreError(f"{self.path}: the disk is full; what was written up to here is kept")


def read_header(path: Path) -> JournalHeader | None:
    """Reads what episode a journal is of.

    Args:
        path: The file.

    Returns:
        Its header, or None if it was cut off within it or is no journal.
    """
    with path.open("rb") as file:
        found = _read_header(file.read(_PREFIX.size + _LONGEST_HEADER))
    return None if found is None else found[0]


def read_episode(path: Path) -> Episode | None:
    """Rebuilds what a journal holds.

    Args:
        path: The file, possibly cut off anywhere.

    Returns:
        The episode, `interrupted` unless its ending had been written; None if not even one step is whole.
    """
    data = path.read_bytes()
    found = _read_header(data)
    if found is None:
        return None
    header, offset = found
    dtype = _record_type(header)
    records = np.frombuffer(data, dtype, count=(len(data) - offset) // dtype.itemsize, offset=offset)
    whole = _count_whole(records, memoryview(data)[offset:])
    ended_by, success = "interrupted", -1
    if whole and records["ended_by"][whole - 1] != _RUNNING:
        whole -= 1
        ended_by, success = ENDINGS[records["ended_by"][whole]], int(records["success"][whole])
    if whole < 2:
        return None
    rewards = records["reward"][1:whole].astype(np.float32)
    try:
        return Episode(
            observations=records["observation"][:whole].astype(np.float32),
            actions=records["action"][1:whole].astype(np.float32),
            timestamps=records["timestamp"][:whole].astype(np.float64),
            rewards=None if np.isnan(rewards).all() else rewards,
            ended_by=ended_by,
            operator=header.operator,
            task=header.task,
            seed=header.seed,
            start_time_ns=header.start_time_ns,
            success=None if success < 0 else bool(success),
        )
    except EpisodeError as error:
        raise EpisodeError(f"{path}: {error}") from error


def _read_header(data: bytes) -> tuple[JournalHeader, int] | None:
    """The header and where the records begin."""
    if len(data) < _PREFIX.size:
        return None
    magic, length, crc = _PREFIX.unpack_from(data)
    payload = data[_PREFIX.size : _PREFIX.size + length]
    if magic != _MAGIC or length > _LONGEST_HEADER or len(payload) < length or zlib.crc32(payload) != crc:
        return None
    return JournalHeader(**json.loads(payload)), _PREFIX.size + length


def _count_whole(records: np.ndarray, data: memoryview) -> int:
    """How many leading records are whole, in order, and before the end of the episode."""
    size = records.dtype.itemsize
    for i, record in enumerate(records):
        crc_fits = zlib.crc32(data[i * size + 4 : (i + 1) * size]) == record["crc"]
        if not crc_fits or record["number"] != i or not math.isfinite(record["timestamp"]):
            return i
        if record["ended_by"] != _RUNNING:
            return i + 1
    return len(records)
