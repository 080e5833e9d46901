"""ReplayBuffer: keeps the newest steps in order, draws none that broke and no segment with a break in it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.episode import Episode
from toolkit.replay import ReplayBuffer, ReplayError, demo_transitions
from toolkit.rollout import Rollout


def rollout(first: int, steps: int, num_envs: int, rng: np.random.Generator, rate: float = 0.0) -> Rollout:
    """Steps whose observation is (time, environment), so that each can be recognised; flags at random."""
    time = torch.arange(first, first + steps, dtype=torch.float32)[:, None].expand(steps, num_envs)
    env = torch.arange(num_envs, dtype=torch.float32).expand(steps, num_envs)
    observation = torch.stack([time, env], -1)
    flags = [torch.from_numpy(rng.random((steps, num_envs)) < rate) for _ in range(3)]
    return Rollout(observation, observation + 0.5, time[..., None] / 1e4, torch.zeros(steps, num_envs), *flags)


def filled(rows: int, num_envs: int, lengths: list[int], rate: float, seed: int) -> tuple[ReplayBuffer, Rollout]:
    """A buffer after rollouts of these lengths, and all of them end to end."""
    rng = np.random.default_rng(seed)
    buffer, parts, first = ReplayBuffer(rows, num_envs, 2, 1), [], 0
    for steps in lengths:
        parts.append(rollout(first, steps, num_envs, rng, rate))
        buffer.add(parts[-1])
        first += steps
    names = [f.name for f in dataclasses.fields(Rollout) if f.name != "mean"]  # a replay keeps none
    return buffer, Rollout(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


CASES = {
    "rows": st.integers(1, 12), "num_envs": st.integers(1, 3), "lengths": st.lists(st.integers(1, 15), min_size=1),
    "rate": st.sampled_from([0.0, 0.1, 0.5]), "seed": st.integers(0, 99),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 6), newest=st.one_of(st.none(), st.integers(1, 12)), **CASES)
def test_segments_are_exactly_the_whole_ones(rows, num_envs, lengths, rate, seed, length, newest):  # noqa: ANN001
    """Every place where a segment may begin is found, and no other, by comparison with a plain loop over time."""
    buffer, everything = filled(rows, num_envs, lengths, rate, seed)
    steps = len(everything.termination)
    oldest = steps - min(steps, rows, newest or rows)
    expected = {
        (t, b)
        for t in range(oldest, steps - length + 1)
        for b in range(num_envs)
        if not everything.ended[t : t + length - 1, b].any() and not everything.quarantined[t : t + length, b].any()
    }
    if not expected:
        assert buffer.sample_segments(length, 4, torch.Generator(), newest).observation.shape == (length, 0, 2)
        return
    drawn = buffer.sample_segments(length, 60 * len(expected), torch.Generator().manual_seed(seed), newest)
    time = drawn.observation[..., 0]
    assert torch.equal(time, time[0] + torch.arange(length)[:, None])
    assert (drawn.observation[..., 1] == drawn.observation[0, :, 1]).all()
    assert {(int(t), int(b)) for t, b in drawn.observation[0]} == expected


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 6), **CASES)
def test_segments_past_the_end_of_a_task(rows, num_envs, lengths, rate, seed, length):  # noqa: ANN001
    """From every place where L steps or the task's end follow, rows staying at the last step; and no other."""
    buffer, everything = filled(rows, num_envs, lengths, rate, seed)
    steps = len(everything.termination)
    expected = {}
    for t in range(steps - min(steps, rows), steps):
        for b in range(num_envs):
            ends = (everything.ended[t:, b].nonzero().flatten().tolist() or [steps])[0] + 1
            taken = min(ends, length)
            if t + taken > steps or everything.quarantined[t : t + taken, b].any():
                continue
            if taken == length or everything.termination[t + taken - 1, b]:
                expected[t, b] = taken
    drawn = buffer.sample_segments(length, 60 * len(expected), torch.Generator().manual_seed(seed), past_end=True)
    time, env = drawn.observation.long().unbind(-1)
    assert {(int(t), int(b)) for t, b in zip(time[0], env[0], strict=True)} == set(expected)
    for n in range(time.shape[1]):
        taken = expected[int(time[0, n]), int(env[0, n])]
        assert (time[:, n] - time[0, n]).tolist() == [min(k, taken - 1) for k in range(length)]


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_steps_are_the_newest_unbroken_ones(rows, num_envs, lengths, rate, seed):  # noqa: ANN001
    """Each of them is drawn, with its own fields; one that broke or was overwritten is not."""
    buffer, everything = filled(rows, num_envs, lengths, rate, seed)
    steps = len(everything.termination)
    expected = {
        (t, b) for t in range(max(0, steps - rows), steps) for b in range(num_envs) if not everything.quarantined[t, b]
    }
    if not expected:
        with pytest.raises(ReplayError, match="no usable step"):
            buffer.sample_steps(4, torch.Generator())
        return
    drawn = buffer.sample_steps(60 * len(expected), torch.Generator().manual_seed(seed))
    t, b = drawn.observation.long().unbind(-1)
    assert set(zip(t.tolist(), b.tolist(), strict=True)) == expected
    for name in ("next_observation", "action", "termination", "truncation"):
        assert torch.equal(getattr(drawn, name), getattr(everything, name)[t, b])


def test_restored_buffer_is_the_same_buffer():
    """State after the ring has gone round: equal draws, and equal after more was added."""
    generator = torch.Generator()
    buffer, _ = filled(7, 2, [5, 5], 0.2, 1)
    twin = ReplayBuffer(7, 2, 2, 1)
    twin.load_state_dict(buffer.state_dict())
    more = rollout(10, 3, 2, np.random.default_rng(2), 0.2)
    for _ in range(2):
        pairs = [
            (x.sample_steps(50, generator.manual_seed(3)), x.sample_segments(2, 50, generator)) for x in (buffer, twin)
        ]
        for ours, theirs in zip(*pairs, strict=True):
            for name in ours.__dataclass_fields__:
                assert torch.equal(getattr(ours, name), getattr(theirs, name))
        buffer.add(more)
        twin.add(more)


def test_saved_state_does_not_change_with_the_buffer():
    """A checkpoint under way holds the moment it was taken."""
    buffer, _ = filled(4, 1, [4], 0.0, 0)
    state = buffer.state_dict()
    before = state["action"].clone()
    buffer.add(rollout(4, 3, 1, np.random.default_rng(0)))
    assert torch.equal(state["action"], before)


def test_what_does_not_fit_is_refused():
    """Sizes are named."""
    buffer, _ = filled(4, 2, [3], 0.0, 0)
    with pytest.raises(ReplayError, match="3 environments; this replay keeps 2"):
        buffer.add(rollout(0, 2, 3, np.random.default_rng(0)))
    with pytest.raises(ReplayError, match="room for 2 rows"):
        ReplayBuffer(2, 2, 2, 1).load_state_dict(buffer.state_dict())
    with pytest.raises(ReplayError, match="at least 1"):
        ReplayBuffer(0, 2, 2, 1)


def test_demo_transitions_tell_endings_apart():
    """s' of the last step is the episode's last observation; only a true ending is a termination."""
    made = [
        Episode(
            observations=np.arange(first, first + 4, dtype=np.float32)[:, None],
            actions=np.full((3, 1), 0.5, np.float32),
            timestamps=np.arange(4.0),
            ended_by=ended_by,
        )
        for first, ended_by in ((0, "termination"), (10, "truncation"))
    ]
    steps = demo_transitions(made)
    assert steps.observation[:, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert steps.next_observation[:, 0].tolist() == [1, 2, 3, 11, 12, 13]
    assert steps.termination.tolist() == [False, False, True, False, False, False]
    assert steps.truncation.tolist() == [False, False, False, False, False, True]
