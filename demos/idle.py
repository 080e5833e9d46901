"""Idle stretches: where nobody acted and nothing moved, as at the start and the end of what people record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from demos.episode import Episode

IDLE_SECONDS = 0.5  # [s] a pause shorter than this belongs to the task
_IDLE_SHARE = 0.05  # of the brisk motion of the same demos: noise of sensors and hands stays below it
_BRISK = 0.9  # quantile over steps


def find_idle(episodes: Sequence[Episode], seconds: float = IDLE_SECONDS) -> list[list[tuple[int, int]]]:
    """Stretches in which neither observation nor action changes to speak of.

    The motion of a step is the root mean square of its change in observation, each element in units of its spread over
    all demos; likewise of its change in action. A step is idle if both are below 5 % of the brisk motion in these
    demos, their 90th percentile. An element that shows nothing but noise is left out: its mean squared change is more
    than its variance (von Neumann 1941: twice that for white noise, near 0 for what moves smoothly). Standing still on
    purpose looks the same: whether it is the task, only a person can say.

    Args:
        episodes: Demos of one robot. Unknown actions are taken to be at rest.
        seconds: [s] Stretches shorter than this are passed over.

    Returns:
        For each demo its stretches [start, stop), in steps.
    """
    if not episodes:
        return []
    moved = _motions(episodes)
    # The first action has no predecessor: what it is has to be seen in what follows
    acts = [np.nan_to_num(e.actions).astype(np.float64) for e in episodes]
    acted = [_rms(np.diff(action, axis=0, prepend=action[:1])) for action in acts]
    still = [
        (motion <= _IDLE_SHARE * _brisk(moved)) & (action <= _IDLE_SHARE * _brisk(acted))
        for motion, action in zip(moved, acted, strict=True)
    ]
    return [_stretches(row, episode, seconds) for row, episode in zip(still, episodes, strict=True)]


def busy_parts(episodes: Sequence[Episode], seconds: float = IDLE_SECONDS) -> list[tuple[int, int]]:
    """What idle ends leave of demos; of one that is idle throughout, all.

    Args:
        episodes: Demos of one robot.
        seconds: [s] As of `find_idle`.

    Returns:
        For each demo the steps [start, stop) between its idle ends.
    """
    parts: list[tuple[int, int]] = []
    for episode, stretches in zip(episodes, find_idle(episodes, seconds), strict=True):
        start, stop = 0, episode.length
        if stretches and stretches[0] != (0, episode.length):
            start = stretches[0][1] if stretches[0][0] == 0 else 0
            stop = stretches[-1][0] if stretches[-1][1] == episode.length else episode.length
        parts.append((start, stop))
    return parts


def trimmed(episode: Episode, start: int, stop: int) -> Episode:
    """Steps [start, stop) as a demo of their own; what begins later is not what the seed begins with."""
    part = episode.cut(start, stop)
    if start == 0:
        return part
    later = round(float(episode.timestamps[start]) * 1e9)
    began = episode.start_time_ns + later if episode.start_time_ns else 0
    return dataclasses.replace(part, seed=-1, start_time_ns=began)


def _motions(episodes: Sequence[Episode]) -> list[np.ndarray]:
    """(T,) change of each demo's observations from step to step, dimensionless."""
    variance = np.concatenate([e.observations for e in episodes]).astype(np.float64).var(axis=0)
    changes = [np.diff(e.observations.astype(np.float64), axis=0) for e in episodes]
    mean_squared = np.square(np.concatenate(changes)).mean(axis=0)
    smooth = (variance > 0.0) & (mean_squared <= variance)
    used = smooth if smooth.any() else variance > 0.0
    if not used.any():
        return [np.zeros(len(change)) for change in changes]
    return [_rms(change[:, used] / np.sqrt(variance[used])) for change in changes]


def _rms(values: np.ndarray) -> np.ndarray:
    """(T,) root mean square of the rows of (T, elements)."""
    return np.sqrt((values * values).mean(axis=1))


def _brisk(motions: list[np.ndarray]) -> float:
    return float(np.quantile(np.concatenate(motions), _BRISK))


def _stretches(still: np.ndarray, episode: Episode, seconds: float) -> list[tuple[int, int]]:
    """Runs of True that last long enough, [start, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(np.int8)))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    time = episode.timestamps
    return [(start, stop) for start, stop in runs if time[stop] - time[start] >= seconds]
