"""Says in one word whether a run has come out well, without any true reward, and why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demos.episode import Episode
from robots.spec import ToolkitError
from toolkit.evidence import EVERYTHING, Evidence, gather
from toolkit.networks import GaussianPolicy

if TYPE_CHECKING:
    from toolkit.trainer import Trainer

FILE_NAME = "verdict.json"

Word = Literal["converged", "not converged", "collapsed", "inconclusive"]


class VerdictError(ToolkitError):
    """A run that cannot be judged by its demos."""


@dataclass(frozen=True)
class Thresholds:
    """Where one word ends and the next begins, each with the reason for its value."""

    near_floor: float = 3.0
    """Times the distance of the most unusual demo: a few demos do not show all that the expert may do."""
    near_random: float = 0.03
    """Share of the distance of random actions: where the demos are all alike, the floor is next to nothing. A cheetah
    run with 1.05 of its demos' return is at 0.016, a cartpole run with 0.6 of it at 0.42."""
    far_floor: float = 0.5
    """If the demos are further from one another than this share of random's distance, no distance says much."""
    worse_than_start: float = 1.25
    """Times the distance of the start: a dozen episodes leave some doubt about a distance."""
    worse_margin: float = 0.1
    """Share of random's distance to be added to that, for starts that are next to the floor."""
    auc_saturated: float = 0.99
    """The discriminator tells demos it never saw from the policy without fail: nothing is left to learn from."""
    loss_saturated: float = 0.05
    """Of 2 log 2 = 1.39: its gradient has vanished."""
    variety: float = 0.1
    """Of the demos' own: the policy stands still, or does one and the same, while the demos move."""
    drift: float = 2.0
    """Standard deviations of the reward by which its level moved in the last quarter: it has not come to rest. Said,
    and not held against the run: a cheetah that outran its demos drifted by 0.93."""
    broken: float = 0.05
    """Share of steps: with more, the simulation and not the policy is being judged."""


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Verdict(Evidence):
    """The word, why, and every figure it rests on."""

    word: Word
    reasons: tuple[str, ...]  # the decisive one first

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready data, the word first."""
        data = dataclasses.asdict(self)
        return {"word": data.pop("word"), "reasons": list(data.pop("reasons"))} | data

    @property
    def sentence(self) -> str:
        """The word and the decisive reason."""
        return f"{self.word}: {self.reasons[0]}"


def judge(
    trainer: Trainer, episodes: Sequence[Episode], start: GaussianPolicy, metrics: Sequence[Mapping[str, float]] = ()
) -> Verdict:
    """Judges a run by fresh experience, collected on seeds that training never uses.

    A resumed run stays the same to the last bit whether it was judged in between or not.

    Args:
        trainer: A run with demos, as its last iteration left it.
        episodes: The demos, whole.
        start: The policy as it was before the first iteration: cloned, or random.
        metrics: Rows of `metrics.csv`, for what only a history shows; may be empty.

    Returns:
        The verdict.

    Raises:
        VerdictError: The run has no demos.
    """
    if trainer.demos is None or not episodes:
        raise VerdictError(
            f"objective {trainer.config.objective!r} learns from no demos, so there is nothing to compare with;"
            " measure it with gcl eval"
        )
    return decide(gather(trainer, episodes, start, metrics))


def decide(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> Verdict:
    """The word that the figures add up to.

    "Near" is a deployed policy about as far from the demos as they are from one another. The AUC alone decides nothing:
    it is 1/2 before the reward has learned anything, and was 0.85 for a cheetah that outran its demos, because a policy
    that explores is noisier than an expert.

    Args:
        evidence: The figures.
        thresholds: Where to draw the lines.

    Returns:
        The verdict.
    """
    e, limits = evidence, thresholds
    floor, random = e.energy_distance_of_demos_max, e.energy_distance_of_random
    near = max(limits.near_floor * floor, limits.near_random * random)
    lost = limits.worse_than_start * e.energy_distance_of_start + limits.worse_margin * random
    scale = f"{e.energy_distance:.3g} from the demos (they differ by {e.energy_distance_of_demos:.3g}"
    scale += f", the start by {e.energy_distance_of_start:.3g}, random actions by {random:.3g})"
    doubts = _doubts(e, limits)
    failures = _failures(e, limits)
    if e.broken > limits.broken:
        word, reason = "inconclusive", f"the simulation broke in {e.broken:.0%} of the steps"
    elif floor > limits.far_floor * random:
        word = "inconclusive"
        reason = f"the demos differ from one another by up to {floor:.3g}, random actions from them by {random:.3g}"
    elif e.energy_distance <= near:
        word, reason = "converged", f"it does what the demos show: {scale}"
    elif failures:
        word, reason = "collapsed", failures[0]
        doubts = [scale, *failures[1:], *doubts]
    elif e.energy_distance > lost:
        word, reason = "collapsed", f"further from the demos than its own start: {scale}"
        doubts = ["a run passes through this in its first third: if it was stopped there, train on", *doubts]
    else:
        word, reason = "not converged", f"still {scale}"
    return Verdict(**vars(evidence), word=word, reasons=(reason, *doubts))


def _failures(e: Evidence, limits: Thresholds) -> list[str]:
    """What a policy that is not near the demos will not recover from by itself."""
    failures = []
    # A policy that never moved has not lost anything yet
    if e.variety < limits.variety and e.variety < e.variety_of_start:
        failures.append(f"it hardly moves: its {e.compared} vary {e.variety:.2g} times as much as the demos'")
    saturated = e.discriminator_loss is not None and e.discriminator_loss < limits.loss_saturated
    if saturated and e.held_out_auc is not None and e.held_out_auc > limits.auc_saturated:
        failures.append(
            f"the discriminator is saturated: loss {e.discriminator_loss:.2g}, AUC {e.held_out_auc:.3f};"
            " try a lower temper or a higher gradient penalty"
        )
    return failures


def _doubts(e: Evidence, limits: Thresholds) -> list[str]:
    """What a reader should know about the figures, whatever the word."""
    doubts = []
    if e.demos == 1:
        doubts.append("one demo: by how much episodes of the expert differ is not known, only how its own parts do")
    if e.compared != EVERYTHING:
        doubts.append(f"compared in {e.compared}: the reward looks at nothing else")
    if not e.held_out and e.held_out_auc is not None:
        doubts.append("no demo was held out: the AUC is that of demos the discriminator knows")
    if e.log_z_drift is not None and e.log_z_drift > limits.drift:
        doubts.append(f"log Z has not come to rest: it moved by {e.log_z_drift:.2g} deviations of the reward lately")
    if e.held_out_auc is not None and e.held_out_auc > limits.auc_saturated:
        doubts.append(
            f"the discriminator always tells the policy, as it explores, from the demos: AUC {e.held_out_auc:.3f}"
        )
    return doubts


def learned_episodes(demos: Mapping[str, Any]) -> list[int]:
    """Which episodes of its store a run learned from, by the identity of the demos that it keeps."""
    return [i for i in range(demos["n_episodes"]) if i not in demos["excluded"]][: demos.get("used")]


def write_verdict(folder: Path, verdict: Verdict, judged_by: dict[str, Any]) -> Path:
    """Writes `verdict.json` into a run folder: the old one or the new one, never half.

    Args:
        folder: The run folder.
        verdict: What to write.
        judged_by: Identity of the demos that it rests on.

    Returns:
        The file.
    """
    path = folder / FILE_NAME
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(verdict.to_dict() | {"judged_by": judged_by}, indent=2) + "\n")
    partial.replace(path)
    return path
