"""Trail: segments longer than a rollout, put together from the rollouts they stretch over.

The policy learns every few dozen steps; an episode takes a thousand. Each step keeps log q of the policy that took it,
so the sum over a segment is the log density of the policies that really acted, one after the other. Where a task ends
for good, a segment may go on in the absorbing state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolkit.expert_segments import Segments
from toolkit.rollout import Rollout
from toolkit.whole_segments import steps_of


class Trail:
    """The latest N finished segments of L steps, from B environments."""

    def __init__(self, length: int, keep: int, past_end: bool = False) -> None:
        """Starts empty.

        Args:
            length: L, steps in a segment.
            keep: N, segments kept; newer ones take the place of older ones.
            past_end: Whether segments may reach past the end of a task.
        """
        self.length, self.keep, self.past_end = length, keep, past_end
        self.added = 0  # segments finished so far
        self._cursor = 0  # row of the ring that the next step goes to
        self._since = torch.zeros(0, dtype=torch.int64)  # [B] unbroken steps since the episode began
        self._ring: tuple[Tensor, ...] = ()  # fields of Segments, [capacity, B, .]
        self._pool: tuple[Tensor, ...] = ()  # fields of Segments, [L, N, .]

    def __len__(self) -> int:
        """Segments there are, at most N."""
        return min(self.added, self.keep)

    def add(self, rollout: Rollout, experience: Segments, generator: torch.Generator) -> None:
        """Takes in a rollout, and with it the segments that end in it.

        Args:
            rollout: [T, B] experience; its flags say which steps belong together.
            experience: The same steps as the reward sees them, [T, B, .].
            generator: Picks, where more segments end than are kept.
        """
        steps, num_envs = rollout.log_prob.shape
        fields = tuple(vars(experience).values())
        if not self._ring:
            capacity = self.length + steps
            self._ring = tuple(x.new_zeros(capacity, *x.shape[1:]) for x in fields)
            self._pool = tuple(x.new_zeros(self.length, self.keep, *x.shape[2:]) for x in fields)
            self._since = torch.zeros(num_envs, dtype=torch.int64, device=rollout.log_prob.device)
        capacity = len(self._ring[0])
        rows = (self._cursor + torch.arange(steps, device=self._since.device)) % capacity
        for ring, x in zip(self._ring, fields, strict=True):
            ring[rows] = x
        taken = torch.zeros_like(rollout.truncation, dtype=torch.int64)  # steps of the segment that ends here, 0: none
        for t in range(steps):
            self._since += 1
            self._since[rollout.quarantined[t]] = 0
            taken[t][self._since >= self.length] = self.length
            if self.past_end:  # half of a segment, where the episode is longer than one
                reached = torch.where(self._since < self.length, self._since, max(1, self.length // 2))
                taken[t] = torch.where(rollout.termination[t], reached, taken[t])  # 0 where the step broke
            self._since[rollout.ended[t]] = 0
        last, environment = taken.nonzero().unbind(1)
        steps_taken = taken[last, environment]
        self._keep(torch.stack([last - steps_taken + 1, environment, steps_taken], 1), generator)
        self._cursor = (self._cursor + steps) % capacity

    def _keep(self, finished: Tensor, generator: torch.Generator) -> None:
        """Copies segments: (K, 3) places as of `whole_segments`; a first step before this rollout is below 0."""
        if len(finished) > self.keep:
            finished = finished[torch.randperm(len(finished), generator=generator, device=finished.device)[: self.keep]]
        if len(finished) == 0:
            return
        step, environment = steps_of(finished, self.length)  # [L, K], (K,)
        rows = (self._cursor + step) % len(self._ring[0])
        places = (self.added + torch.arange(len(finished), device=finished.device)) % self.keep
        for pool, ring in zip(self._pool, self._ring, strict=True):
            pool[:, places] = ring[rows, environment]
        self.added += len(finished)

    def draw(self, count: int, generator: torch.Generator) -> Segments:
        """Draws segments, with replacement.

        Args:
            count: How many.
            generator: Source of randomness.

        Returns:
            [L, count, .] segments.
        """
        pick = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        return Segments(*(x[:, pick] for x in self._pool))

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {
            "added": self.added, "cursor": self._cursor, "since": self._since,
            "ring": list(self._ring), "pool": list(self._pool),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the trail back where `state_dict` found it."""
        self.added, self._cursor, self._since = state["added"], state["cursor"], state["since"].clone()
        self._ring, self._pool = (tuple(x.clone() for x in state[name]) for name in ("ring", "pool"))
