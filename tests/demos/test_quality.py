"""The report on demos: each fact on a constructed demo that has it, and advice that names it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from demos.episode import Episode, EpisodeError
from demos.quality import judge_demos

MakeEpisode = Callable[..., Episode]


def test_facts_of_one_demo(make_episode: MakeEpisode) -> None:
    """Shares are counted over all elements; a limit is saturated, beyond it is outside as well."""
    actions = np.zeros((4, 6), np.float32)
    actions[0] = [1.0, -1.0, 1.5, 0.99, 0.0, 0.0]
    (row,) = judge_demos([make_episode(4, actions=actions)], [7]).episodes
    assert (row.index, row.length, row.operator, row.weight, row.away) == (7, 4, "test", 1.0, 0.0)
    assert row.saturated == pytest.approx(3 / 24) and row.outside == pytest.approx(1 / 24)
    assert row.duplicate_of is None and row.idle == ()


def test_clean_demos_need_no_advice(make_episode: MakeEpisode) -> None:
    """Nothing odd, nothing said."""
    report = judge_demos([make_episode(100, seed=i) for i in range(4)])
    assert report.advice() == [] and report.distance.shape == (4, 4)
    assert report.operators() == {"test": (4, 1.0)}


def test_advice_names_what_is_odd(make_episode: MakeEpisode) -> None:
    """A copy, actions beyond the limits, saturation, idleness and a short one are each named with their episode."""
    demos = [make_episode(200, seed=i) for i in range(5)]
    demos.append(dataclasses.replace(demos[1], operator="again"))
    demos[2] = dataclasses.replace(demos[2], actions=2.0 * demos[2].actions)
    demos[3] = dataclasses.replace(demos[3], actions=np.sign(demos[3].actions))
    demos[4] = demos[4].cut(0, 50)
    rested = demos[0].observations.copy()
    rested[:100] = rested[0]
    actions = demos[0].actions.copy()
    actions[:100] = 0.0
    demos[0] = dataclasses.replace(demos[0], observations=rested, actions=actions)
    report = judge_demos(demos, [10, 11, 12, 13, 14, 15])
    text = "\n".join(report.advice())
    for words in (
        "episode 15 repeats episode 11",
        f"12 ({report.episodes[2].outside:.0%}): has actions outside",
        "13 (100%): is at its limits",
        "10 (50%): is idle", "14 (50): is less than half as long",
    ):  # fmt: skip
        assert words in text, words
    assert report.episodes[0].idle == ((0, 99),) and report.episodes[5].duplicate_of == 11


def test_a_style_is_reported_and_not_dropped(make_episode: MakeEpisode) -> None:
    """Of two operators who differ, the fewer weigh less, are named with their weight, and keep some."""
    ours = [make_episode(200, seed=i, operator="ann") for i in range(3)]
    theirs = [make_episode(200, seed=9 + i, operator="bob", observations=5 + ours[i].observations) for i in range(2)]
    report = judge_demos([*ours, *theirs])
    assert report.operators()["ann"] == (3, 1.0)
    count, weight = report.operators()["bob"]
    assert count == 2 and 0.0 < weight < 0.5
    text = "\n".join(report.advice())
    assert "episode 3, 4: unlike" in text and "operator 'bob': all in all 2 demos of weight" in text


def test_true_rewards_change_nothing(make_episode: MakeEpisode) -> None:
    """The report is the same whatever the true rewards say."""
    demos = [make_episode(50, seed=i) for i in range(3)]
    rich = [dataclasses.replace(e, rewards=None if i else np.full(50, 9, np.float32)) for i, e in enumerate(demos)]
    assert judge_demos(rich).episodes == judge_demos(demos).episodes


def test_demos_without_actions(make_episode: MakeEpisode) -> None:
    """What depends on actions is unknown then, and no advice is given on it."""
    report = judge_demos([make_episode(50, seed=i, actions=np.full((50, 6), np.nan, np.float32)) for i in range(2)])
    assert np.isnan([row.saturated for row in report.episodes]).all() and report.advice() == []
    with pytest.raises(EpisodeError, match="no demos"):
        judge_demos([])
