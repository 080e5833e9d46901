"""Replays a recorded episode: do the same actions from the same seed lead where they led before?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demos.episode import Episode, EpisodeError
from demos.stage import TaskEnvironment, stage_for
from robots.backend import Backend
from robots.spec import RobotSpec


@dataclass(frozen=True, eq=False)
class Replay:
    """How a replay compares with the recording, as far as both go."""

    deviation: np.ndarray  # (T+1,) greatest absolute difference of an observation element; row 0 is the reset
    worst_element: int  # where the greatest of all is
    return_: float  # sum of the replay's true rewards, NaN = unknown
    recorded_return: float  # of the same steps

    def first_beyond(self, tolerance: float) -> int | None:
        """First step whose deviation is above `tolerance`, 0 being the reset; None if there is none."""
        beyond = np.flatnonzero(~(self.deviation <= tolerance))
        return int(beyond[0]) if len(beyond) else None


def replay(backend: Backend | TaskEnvironment, episode: Episode, spec: RobotSpec) -> Replay:
    """Resets once, then takes the recorded actions.

    A simulator repeats itself bit for bit on the same machine. On another one, or after a change of version, the last
    bit differs, and contacts make that grow exponentially: a deviation that starts tiny and grows is chaos, one that
    starts large is another robot, another seed or another simulator.

    Args:
        backend: Freshly made with the episode's seed.
        episode: The recording.
        spec: The robot.

    Returns:
        The comparison, up to where the replay ended.

    Raises:
        BackendError: The simulation failed.
        EpisodeError: The demo has no actions to take.
    """
    if not episode.actions_known:
        raise EpisodeError("the demo has observations only: there are no actions to take again")
    stage = stage_for(backend, spec)
    moment = stage.reset()
    observations, rewards = [moment.observation], []
    for action in episode.actions:
        moment = stage.step(action)
        observations.append(moment.observation)
        rewards.append(moment.reward)
        if moment.ended_by is not None:
            break
    difference = np.abs(np.stack(observations).astype(np.float64) - episode.observations[: len(observations)])
    recorded = np.full(1, np.nan) if episode.rewards is None else episode.rewards[: len(rewards)]
    return Replay(
        deviation=difference.max(axis=1),
        worst_element=int(np.argmax(difference.max(axis=0))),
        return_=float(np.sum(rewards)),
        recorded_return=float(recorded.sum(dtype=np.float64)),
    )
