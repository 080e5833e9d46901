"""Memory: segments of all the policies a run has had, so that the reward still knows what it once turned down.

On-policy, the judge sees the present policy alone, and forgets why earlier ones were worse: its reward ends up flat
wherever the last policy does not go, and a new policy, trained on it from scratch, strays there. Each segment keeps
log q of the policy that acted. Under the uniform mixture q_K of the K policies so far, the density that fits such a
pool (Fu et al. 2018, "AIRL", arXiv 1710.11248, appendix D.3), a segment of policy k has

    E_k[log q_k] - log K <= E_k[log q_K] <= E_k[log q_k]        (q_K >= q_k / K; Gibbs' inequality)

so its own log q stands in for the mixture's with an error of at most kappa log K in the logit: 0.004 at the default
temper of alpha / L = 0.02 / 32 and K = 500.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolkit.expert_segments import Segments


class Memory:
    """N segments, at any time a uniform sample of all that were offered (Vitter 1985, algorithm R)."""

    def __init__(self, keep: int) -> None:
        """Starts empty.

        Args:
            keep: N, segments kept.
        """
        self.keep = keep
        self.offered = 0  # segments offered so far
        self._pool: tuple[Tensor, ...] = ()  # fields of Segments, [L, N, .]

    def __len__(self) -> int:
        """Segments there are, at most N."""
        return min(self.offered, self.keep)

    def offer(self, segments: Segments, generator: torch.Generator) -> None:
        """Takes in some of the segments: the i-th ever offered with probability N / i, in a random one's place.

        Args:
            segments: [L, M, .].
            generator: Decides.
        """
        fields = tuple(vars(segments).values())
        if not self._pool:
            self._pool = tuple(x.new_zeros(x.shape[0], self.keep, *x.shape[2:]) for x in fields)
        count = fields[0].shape[1]
        chance = torch.rand(count, generator=generator, device=generator.device).tolist()
        places: dict[int, int] = {}  # place -> segment; of two for one place the later stays
        for i in range(count):
            place = self.offered if self.offered < self.keep else int(chance[i] * (self.offered + 1))
            if place < self.keep:
                places[place] = i
            self.offered += 1
        to, of = (torch.tensor(x, dtype=torch.int64) for x in (list(places), list(places.values())))
        for pool, x in zip(self._pool, fields, strict=True):
            pool[:, to] = x[:, of]

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
        return {"offered": self.offered, "pool": list(self._pool)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the memory back where `state_dict` found it."""
        self.offered, self._pool = state["offered"], tuple(x.clone() for x in state["pool"])
