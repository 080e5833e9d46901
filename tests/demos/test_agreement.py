"""Agreement: bad demos among good ones weigh little, clean ones keep their weight, and nobody's is lost."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demos.agreement import (
    LEAST_WEIGHT,
    away_from_majority,
    demo_weights,
    energy_distances,
    first_copies,
    weights_from_distances,
)
from demos.episode import Episode, EpisodeError
from demos.store import DemoStore

SHIPPED = Path(__file__).resolve().parents[2] / "demos" / "data"


def swing(seed: int, size: float = 1.0, gain: float = -1.0, steps: int = 300, operator: str = "") -> Episode:
    """An oscillation of amplitude `size` from a random phase, answered with `gain` times what is seen, and noise."""
    rng = np.random.default_rng(seed)
    phase = np.arange(steps + 1) * 0.2 + rng.uniform(0.0, 6.28)
    seen = size * np.stack([np.sin(phase), np.cos(phase)], axis=1) + 0.05 * rng.normal(size=(steps + 1, 2))
    acted = np.clip(0.5 * gain * seen[:-1, :1] + 0.05 * rng.normal(size=(steps, 1)), -1.0, 1.0)
    time = np.arange(steps + 1) * 0.01
    return Episode(seen.astype(np.float32), acted.astype(np.float32), time, "truncation", operator=operator)


def good(count: int) -> list[Episode]:
    return [swing(seed) for seed in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 50])
def test_clean_demos_weigh_one(count: int) -> None:
    """Demos of one expert are exactly equal, so that learning from them is what it was without weights."""
    assert (demo_weights(good(count)) == 1.0).all()


@pytest.mark.parametrize("bad", [{"size": 0.4}, {"gain": 1.0}, {"gain": 0.0}])
def test_two_bad_ones_that_agree_do_not_outvote_three_good_ones(bad: dict[str, Any]) -> None:
    """Three good demos keep all their weight; two bad ones, alike in where they go or in what they do, lose theirs."""
    demos = [swing(10, **bad), *good(3), swing(11, **bad)]
    weights = demo_weights(demos)
    assert (weights[1:4] == 1.0).all() and (weights[[0, 4]] < 0.2).all()


def test_each_bad_in_its_own_way() -> None:
    """Two of five that agree with nobody weigh little."""
    weights = demo_weights([*good(3), swing(10, size=0.4), swing(11, gain=1.0)])
    assert (weights[:3] == 1.0).all() and (weights[3:] < 0.2).all()


def test_hardly_different_is_not_different() -> None:
    """Where most demos are all but the same, one that differs by as little as experts do is no worse."""
    distance = 1e-6 * (1.0 - np.eye(5))
    distance[4, :4] = distance[:4, 4] = 0.002
    assert (weights_from_distances(distance) == 1.0).all()


def test_no_majority_no_verdict() -> None:
    """Of two styles as many times each, neither is taken for the bad one; of two demos, neither."""
    halves = [swing(i) for i in range(3)] + [swing(i, gain=1.0) for i in range(3, 6)]
    assert (demo_weights(halves) == 1.0).all()
    assert demo_weights([swing(0), swing(1, size=0.1)]).tolist() == [1.0, 1.0]


def test_operators_are_no_argument() -> None:
    """Who acted does not change a weight: a bad demo is bad in whoever's name."""
    named = [dataclasses.replace(e, operator=f"{i}") for i, e in enumerate([*good(3), swing(9, size=0.4)])]
    assert demo_weights(named).tolist() == demo_weights([*good(3), swing(9, size=0.4)]).tolist()


def test_copies_do_not_vote() -> None:
    """A bad demo recorded once and copied four times is one demo: it has no majority, and its copies share a weight."""
    bad = swing(9, size=0.4)
    demos = [*good(3), *[dataclasses.replace(bad, operator=f"{i}") for i in range(5)]]
    assert first_copies(demos) == [0, 1, 2, 3, 3, 3, 3, 3]
    weights = demo_weights(demos)
    assert (weights[:3] == 1.0).all() and weights[3:].sum() == pytest.approx(demo_weights(demos[:4])[3])
    assert demo_weights([demos[0]] * 4).tolist() == [0.25] * 4


def test_shipped_demos_all_count() -> None:
    """The demos that ship are clean, the goals of reacher differ, and every one of them weighs 1."""
    for name in ("cheetah", "cartpole", "reacher"):
        assert (demo_weights(DemoStore.open(SHIPPED / f"{name}.zarr").episodes()) == 1.0).all(), name


def test_shipped_mixture_is_seen_through() -> None:
    """Two demos of half the return among three good ones: the good ones keep their weight, the bad ones lose theirs."""
    weights = demo_weights(DemoStore.open(SHIPPED / "cheetah_mixed.zarr").episodes())
    assert (weights[:3] == 1.0).all() and (weights[3:] < 0.1).all()


def test_true_rewards_change_nothing() -> None:
    """Weights are the same whatever the rewards say."""
    demos = [*good(3), swing(9, size=0.4)]
    paid = [dataclasses.replace(e, rewards=np.full(e.length, i, np.float32)) for i, e in enumerate(demos)]
    assert demo_weights(paid).tolist() == demo_weights(demos).tolist()


def test_distance_by_hand() -> None:
    """Single points: H is 1 between different ones and 0 between equal ones. {0, 1} and {5, 6}: 2*5 - 1 - 1 of 10."""
    still = [
        Episode(np.full((2, 1), x, np.float32), np.zeros((1, 1), np.float32), np.arange(2.0), "truncation")
        for x in (0, 0, 1)
    ]
    assert energy_distances(still).tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    pairs = [
        Episode(np.array([[a], [b], [b]], np.float32), np.zeros((2, 1), np.float32), np.arange(3.0), "truncation")
        for a, b in ((0, 1), (5, 6))
    ]
    # E|x-y| of the pairs (0,5) (0,6) (1,5) (1,6) is 5; E|x-x'| = E|y-y'| = 1 over pairs of different steps
    assert energy_distances(pairs)[0, 1] == pytest.approx((10.0 - 2.0) / 10.0)


def test_weights_by_hand() -> None:
    """Three demos 0.1 apart and one at 1: the core is the three, the slack 2 + 4/3, the weight (10/3 * 0.1)^2."""
    distance = 0.1 * (1.0 - np.eye(4))
    distance[3, :3] = distance[:3, 3] = 1.0
    assert away_from_majority(distance) == pytest.approx([0.1, 0.1, 0.1, 1.0])
    assert weights_from_distances(distance) == pytest.approx([1.0, 1.0, 1.0, 1.0 / 9.0])
    with pytest.raises(ValueError, match="expected"):
        weights_from_distances(np.ones((2, 3)))


@settings(max_examples=40)
@given(st.integers(1, 9).flatmap(lambda n: arrays(np.float64, (n, n), elements=st.floats(0.0, 1.0))))
def test_weights_are_weights(distance: np.ndarray) -> None:
    """Whatever the distances: none is lost, none is above 1, and a majority keeps all its weight."""
    distance = (distance + distance.T) / 2.0 * (1.0 - np.eye(len(distance)))
    weights = weights_from_distances(distance)
    assert ((weights >= LEAST_WEIGHT) & (weights <= 1.0)).all()
    assert (weights == 1.0).sum() > len(weights) // 2


@settings(max_examples=40)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4), st.integers(1, 4))
def test_wild_numbers_do_no_harm(values: list[float], steps: int) -> None:
    """Readings of any size give finite weights."""
    wild = Episode(
        np.array(values[: steps + 1] + [0.0] * (steps + 1 - len(values)), np.float32)[:, None],
        np.array([values[-1]] * steps, np.float32)[:, None],
        np.arange(steps + 1.0),
        "truncation",
    )
    calm = [Episode(np.float32(i) + np.zeros_like(wild.observations), np.zeros_like(wild.actions), wild.timestamps,
                    "truncation") for i in range(3)]  # fmt: skip
    weights = demo_weights([wild, *calm])
    assert ((weights > 0.0) & (weights <= 1.0)).all()


def test_a_broken_sensor_hides_nothing() -> None:
    """One absurd reading of each sensor in one demo does not make all that it did look like the rest."""
    demos = [dataclasses.replace(e, actions=0.0 * e.actions) for e in (*good(3), swing(10, size=0.4))]
    broken = demos[3].observations.copy()
    broken[7] = 1e30
    weights = demo_weights([*demos[:3], dataclasses.replace(demos[3], observations=broken)])
    assert (weights[:3] == 1.0).all() and weights[3] < 0.2


def test_refusals() -> None:
    """No demos and mixed robots are refused in one line."""
    with pytest.raises(EpisodeError, match="no demos"):
        demo_weights([])
    other = Episode(np.zeros((2, 5), np.float32), np.zeros((1, 1), np.float32), np.arange(2.0), "truncation")
    with pytest.raises(EpisodeError, match="different"):
        demo_weights([swing(0), other])


def test_demos_of_observations_only() -> None:
    """Without actions the states decide."""
    demos = [*good(3), swing(10, size=0.4), swing(11, gain=1.0)]
    blind = [dataclasses.replace(e, actions=np.full_like(e.actions, np.nan)) for e in demos]
    weights = demo_weights(blind)
    assert (weights[[0, 1, 2, 4]] == 1.0).all() and weights[3] < 0.2
