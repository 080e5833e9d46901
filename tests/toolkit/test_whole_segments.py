"""Whole segments are those that a look at every single place finds, and what is drawn is one of them."""

import torch

from toolkit.expert_segments import Segments
from toolkit.whole_segments import draw_segments, whole_places

STEPS, ENVS = 14, 3


def flags(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    broken = torch.rand(STEPS, ENVS, generator=generator) < 0.05
    return broken | (torch.rand(STEPS, ENVS, generator=generator) < 0.15), broken


def test_places_are_those_that_a_look_at_each_finds():
    """For every length from one step to more than there are, ends and breaks strewn at random."""
    found = 0
    for seed in range(5):
        ended, broken = flags(seed)
        for length in range(1, STEPS + 2):
            expected = [
                [t, env, length]
                for t in range(STEPS - length + 1)
                for env in range(ENVS)
                if not ended[t : t + length - 1, env].any() and not broken[t : t + length, env].any()
            ]
            assert whole_places(ended, broken, length).tolist() == expected
            found += len(expected)
    assert found > 100


def test_drawn_segments_lie_where_they_may():
    """Each is the steps of one environment, one after the other, from one of the places; all places come up."""
    step = torch.arange(STEPS, dtype=torch.float32)[:, None].expand(STEPS, ENVS)
    state = torch.stack([step, torch.arange(ENVS).expand(STEPS, ENVS).float()], -1)
    experience = Segments(state, state, state[..., :1], torch.zeros(STEPS, ENVS, dtype=torch.bool), step)
    places = torch.tensor([[0, 0, 5], [4, 2, 5], [9, 1, 5]])
    drawn = draw_segments(experience, places, 5, 60, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.log_q, drawn.state[0, :, 0] + torch.arange(5)[:, None])
    assert {(int(t), int(env)) for t, env in drawn.state[0]} == {(0, 0), (4, 2), (9, 1)}


def test_past_the_end_of_a_task_are_all_places_from_which_it_is_reached():
    """By a walk from each place: L steps, or fewer and then the end; a time limit or a break on the way: none."""
    short = 0
    for seed in range(8):
        ended, broken = flags(seed)
        termination = ended & ~broken & (torch.rand(STEPS, ENVS, generator=torch.Generator().manual_seed(seed)) < 0.7)
        for length in range(1, STEPS + 2):
            expected = []
            for t in range(STEPS):
                for env in range(ENVS):
                    taken = 0
                    while taken < length and t + taken < STEPS and not broken[t + taken, env]:
                        taken += 1
                        if ended[t + taken - 1, env]:
                            break
                    if taken == length or (taken > 0 and termination[t + taken - 1, env]):
                        expected.append([t, env, taken])
                        short += taken < length
            assert whole_places(ended, broken, length, termination).tolist() == expected
    assert short > 100


def test_rows_stay_at_the_last_step_taken():
    """Steps 9, 10, 10, 10: the task ended with the second."""
    step = torch.arange(STEPS, dtype=torch.float32)[:, None].expand(STEPS, ENVS)
    termination = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    termination[10, 1] = True
    experience = Segments(step[..., None], step[..., None], step[..., None], termination, step)
    drawn = draw_segments(experience, torch.tensor([[9, 1, 2]]), 4, 1, torch.Generator())
    assert drawn.state.flatten().tolist() == [9.0, 10.0, 10.0, 10.0]
    assert drawn.absorbed.flatten().tolist() == [False, False, True, True]
    assert drawn.log_density().tolist() == [19.0]
