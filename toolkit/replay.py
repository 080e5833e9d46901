"""ReplayBuffer: the newest steps of B environments, in the order of time. Holds no reward: that is what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demos.episode import Episode
from robots.spec import ToolkitError
from toolkit.rollout import Rollout
from toolkit.whole_segments import steps_of, whole_places

_FIELDS = ("observation", "next_observation", "action", "termination", "truncation", "quarantined")


class ReplayError(ToolkitError):
    """A buffer asked for what it does not hold, or given what it has no room for."""


@dataclass(frozen=True)
class Transitions:
    """Steps without a reward and without a log q: both change while the steps are kept, and are computed afresh."""

    observation: Tensor  # (..., obs_dim) s_t
    next_observation: Tensor  # (..., obs_dim) s_{t+1} of the same episode
    action: Tensor  # (..., act_dim) in [-1, 1], dimensionless
    termination: Tensor  # (...) bool, the task ended with this step
    truncation: Tensor  # (...) bool, the time limit ended the episode with this step

    def __getitem__(self, index: Any) -> Transitions:
        """The steps at `index` of the leading axes."""
        return Transitions(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def demo_transitions(episodes: Sequence[Episode], device: torch.device | str = "cpu") -> Transitions:
    """All steps of demos, end to end: (N, .), N the sum of their lengths.

    Args:
        episodes: At least one.
        device: Where the tensors go.

    Returns:
        The steps; only the last one of an episode can be a termination or, if it is none, counts as a truncation.
    """
    last = np.concatenate([np.arange(episode.length) == episode.length - 1 for episode in episodes])
    terminated = np.concatenate([np.full(episode.length, episode.ended_by == "termination") for episode in episodes])
    arrays = (
        np.concatenate([episode.observations[:-1] for episode in episodes]),
        np.concatenate([episode.observations[1:] for episode in episodes]),
        np.concatenate([episode.actions for episode in episodes]).clip(-1.0, 1.0),
        last & terminated,
        last & ~terminated,
    )
    return Transitions(*(torch.from_numpy(x).to(device) for x in arrays))


class ReplayBuffer:
    """A ring of rows; a row is one step of every environment, and successive rows are successive steps."""

    def __init__(
        self, rows: int, num_envs: int, obs_dim: int, act_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        """Reserves the memory.

        Args:
            rows: Capacity in steps per environment.
            num_envs: B.
            obs_dim: Observation features.
            act_dim: Action elements.
            device: Where the steps are kept.

        Raises:
            ReplayError: No rows or no environments.
        """
        if rows < 1 or num_envs < 1:
            raise ReplayError(f"a replay of {rows} rows and {num_envs} environments; both must be at least 1")
        self.rows, self.num_envs = rows, num_envs
        self.position = 0  # row that is written next
        self.size = 0  # rows that hold something
        shape = (rows, num_envs)
        self._data = {
            "observation": torch.zeros(*shape, obs_dim, device=device),
            "next_observation": torch.zeros(*shape, obs_dim, device=device),
            "action": torch.zeros(*shape, act_dim, device=device),
            "termination": torch.zeros(shape, dtype=torch.bool, device=device),
            "truncation": torch.zeros(shape, dtype=torch.bool, device=device),
            "quarantined": torch.zeros(shape, dtype=torch.bool, device=device),
        }
        self._usable: Tensor | None = None  # (K,) flat indices of steps that did not break; None: count again

    def add(self, rollout: Rollout) -> None:
        """Appends experience, over the oldest where the ring is full.

        Args:
            rollout: [T, B]; must go on where the last one stopped. Of more than `rows` steps the last are kept.

        Raises:
            ReplayError: Another number of environments.
        """
        steps, num_envs = rollout.termination.shape
        if num_envs != self.num_envs:
            raise ReplayError(f"a rollout of {num_envs} environments; this replay keeps {self.num_envs}")
        kept = min(steps, self.rows)
        target = (self.position + torch.arange(steps - kept, steps, device=rollout.action.device)) % self.rows
        for name in _FIELDS:
            self._data[name][target] = getattr(rollout, name)[steps - kept :]
        self.position = (self.position + steps) % self.rows
        self.size = min(self.size + steps, self.rows)
        self._usable = None

    def sample_steps(self, count: int, generator: torch.Generator) -> Transitions:
        """Draws steps uniformly, with replacement; never one that broke.

        Args:
            count: N.
            generator: Draws.

        Returns:
            (N, .) steps.

        Raises:
            ReplayError: Nothing to draw from.
        """
        if self._usable is None:
            # Rows fill from the front, so the rows in use are the first `size` whatever the seam is.
            self._usable = (~self._data["quarantined"][: self.size]).flatten().nonzero().squeeze(-1)
        if len(self._usable) == 0:
            raise ReplayError(f"no usable step among the {self.size * self.num_envs} in the replay")
        pick = torch.randint(len(self._usable), (count,), generator=generator, device=generator.device)
        index = self._usable[pick]
        return self._take(index // self.num_envs, index % self.num_envs)

    def sample_segments(
        self, length: int, count: int, generator: torch.Generator, newest: int | None = None, past_end: bool = False
    ) -> Transitions:
        """Draws segments uniformly over every place where one fits, with replacement.

        A segment crosses no end of an episode, no broken step, and not the seam between the newest and the oldest row.

        Args:
            length: L, steps per segment.
            count: N.
            generator: Draws.
            newest: Draw from this many of the newest rows only; None for all.
            past_end: Whether segments may reach past the end of a task; their rows then stay at the last step.

        Returns:
            [L, N, .] steps, time first; [L, 0, .] while there is no whole segment, for long ones take a while.
        """
        pick, device = self._segment_places(length, newest, past_end), generator.device
        if len(pick):
            pick = pick[torch.randint(len(pick), (count,), generator=generator, device=device)]
        row, environment = steps_of(pick, length)  # [L, N], (N,)
        return self._take(row % self.rows, environment)

    def _segment_places(self, length: int, newest: int | None, past_end: bool) -> Tensor:
        """(K, 3): first row, environment and number of steps of every whole segment."""
        size = self.size if newest is None else min(self.size, newest)
        device = self._data["action"].device
        order = (self.position - size + torch.arange(size, device=device)) % self.rows  # oldest first
        broken = self._data["quarantined"][order]
        termination = self._data["termination"][order]
        ended = broken | termination | self._data["truncation"][order]
        place = whole_places(ended, broken, length, termination if past_end else None)
        return torch.stack([order[place[:, 0]], place[:, 1], place[:, 2]], -1)

    def _take(self, row: Tensor, env: Tensor) -> Transitions:
        return Transitions(*(self._data[name][row, env] for name in _FIELDS[:-1]))

    def state_dict(self) -> dict[str, Any]:
        """The rows in use and where the next one goes; `load_state_dict` gives back the same buffer bit for bit."""
        kept = {name: x[: self.size].clone() for name, x in self._data.items()}
        return {"position": self.position, "size": self.size, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the rows of a saved buffer.

        Raises:
            ReplayError: It does not fit into this one.
        """
        shape = tuple(state["action"].shape[1:])
        if state["size"] > self.rows or shape != tuple(self._data["action"].shape[1:]):
            raise ReplayError(
                f"a saved replay of {state['size']} rows of {shape} (environments, action elements); this one has room "
                f"for {self.rows} rows of {tuple(self._data['action'].shape[1:])}"
            )
        self.position, self.size = state["position"], state["size"]
        for name, x in self._data.items():
            x[: self.size] = state[name].to(x.device)
        self._usable = None
