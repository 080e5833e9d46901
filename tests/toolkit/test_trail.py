"""Segments longer than a rollout are the steps of one environment, one after the other, from one episode."""

import torch

from toolkit.expert_segments import Segments
from toolkit.rollout import Rollout
from toolkit.trail import Trail

ENVS, STEPS = 3, 4


def stretch(
    first: int,
    ended: tuple[tuple[int, int], ...] = (),
    quarantined: tuple[tuple[int, int], ...] = (),
    terminated: tuple[tuple[int, int], ...] = (),
):
    """Steps first .. first + 3 of three environments; a state is (step, environment), log q is the step."""
    step = (first + torch.arange(STEPS, dtype=torch.float32))[:, None].expand(STEPS, ENVS)
    state = torch.stack([step, torch.arange(ENVS).expand(STEPS, ENVS).float()], -1)
    flags = torch.zeros(3, STEPS, ENVS, dtype=torch.bool)
    for t, env in ended:
        flags[0, t - first, env] = True
    for t, env in quarantined:
        flags[1, t - first, env] = True
    for t, env in terminated:
        flags[2, t - first, env] = True
    action = state[..., :1]
    rollout = Rollout(state, state, action, step, flags[2], flags[0], flags[1])
    return rollout, Segments(state, state, action, flags[2], step)


def contents(trail: Trail) -> set[tuple[int, int]]:
    """(first step, environment) of each segment kept, after checking that its steps follow one another."""
    found = set()
    for n in range(len(trail)):
        segment = trail._pool[0][:, n]
        assert torch.equal(segment[:, 0], segment[0, 0] + torch.arange(trail.length))
        assert bool((segment[:, 1] == segment[0, 1]).all())
        found.add((int(segment[0, 0]), int(segment[0, 1])))
    return found


def run(trail: Trail, until: int, **flags: tuple[tuple[int, int], ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    for first in range(0, until, STEPS):
        here = {name: tuple(f for f in marks if first <= f[0] < first + STEPS) for name, marks in flags.items()}
        trail.add(*stretch(first, **here), generator)


def test_whole_episodes_are_found_where_they_end():
    """Episodes of 10 steps in each environment, ending at different times: just these, and nothing that crosses."""
    trail = Trail(10, keep=6)
    run(trail, 24, ended=((9, 0), (2, 1), (12, 1), (19, 0), (22, 1), (5, 2), (14, 2)))
    # Environment 2's first episode has 6 steps and its second 9: neither is whole.
    assert contents(trail) == {(0, 0), (10, 0), (3, 1), (13, 1)}


def test_broken_steps_are_in_no_segment():
    """A quarantined step resets the count: the next segment begins after it."""
    trail = Trail(8, keep=64)
    run(trail, 16, quarantined=((3, 0),))
    assert {start for start, env in contents(trail) if env == 0} == set(range(4, 9))
    assert {start for start, env in contents(trail) if env == 1} == set(range(9))


def test_newest_segments_are_kept():
    """A full pool gives up its oldest."""
    trail = Trail(8, keep=4)
    run(trail, 40, ended=tuple((t, e) for e in range(ENVS) for t in (7, 15, 23, 31, 39)))
    assert {start for start, _ in contents(trail)} <= {24, 32}
    assert len(trail) == 4


def test_draws_what_was_scored_by_the_acting_policy():
    """log q stays what it was when the step was taken."""
    trail = Trail(8, keep=64)
    run(trail, 16)
    segments = trail.draw(20, torch.Generator().manual_seed(0))
    assert torch.equal(segments.log_q, segments.state[..., 0])
    assert segments.log_density().dtype == torch.float64


def test_resumed_trail_is_the_same_trail():
    """State out, state in, and the same rollouts after it."""
    one, two = Trail(10, keep=8), Trail(10, keep=8)
    run(one, 12)
    two.load_state_dict(one.state_dict())
    for trail in (one, two):
        trail.add(*stretch(12), torch.Generator().manual_seed(3))
    assert one.added == two.added
    assert all(torch.equal(a, b) for a, b in zip(one._pool, two._pool, strict=True))


def test_a_task_that_ends_early_makes_a_segment_too():
    """The episode with its last step for what is missing; of a longer one L / 2 steps; none when not wanted."""
    ends = {"ended": ((9, 2),), "terminated": ((5, 0), (18, 1))}
    trail = Trail(10, keep=64, past_end=True)
    run(trail, 20, **ends)
    rows = {(int(s[0, 0]), int(s[0, 1])): s[:, 0].tolist() for s in trail._pool[0][:, : len(trail)].unbind(1)}
    assert rows.pop((0, 0)) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert rows.pop((14, 1)) == [14.0, 15.0, 16.0, 17.0, 18.0, 18.0, 18.0, 18.0, 18.0, 18.0]
    assert all(steps == [start + k for k in range(10)] for (start, _), steps in rows.items())
    assert set(rows) == {(t, 1) for t in range(9)} | {(t, 0) for t in range(6, 11)} | {(0, 2), (10, 2)}
    segments = trail.draw(50, torch.Generator().manual_seed(0))
    early = segments.state[0, :, 1] == 0
    assert bool((segments.log_density()[early & (segments.state[0, :, 0] == 0)] == 15.0).all())
    plain = Trail(10, keep=64)
    run(plain, 20, **ends)
    assert contents(plain) == set(rows) | {(9, 1)}


def test_a_step_that_broke_as_the_task_ended_is_no_end():
    """What broke is in no segment, whatever else it was."""
    trail = Trail(10, keep=64, past_end=True)
    run(trail, 8, terminated=((5, 0),), quarantined=((5, 0),))
    assert len(trail) == 0
