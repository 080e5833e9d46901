"""The memory is at any time a fair sample of all it was offered, and each segment stays whole and as it was scored."""

import torch

from toolkit.expert_segments import Segments
from toolkit.memory import Memory

LENGTH = 3


def numbered(first: int, count: int) -> Segments:
    """Segments `first` .. `first + count - 1`; every step's state and log q is the segment's number."""
    number = torch.arange(first, first + count, dtype=torch.float32).expand(LENGTH, count)
    none = torch.zeros(LENGTH, count, dtype=torch.bool)
    return Segments(number[..., None], number[..., None], number[..., None], none, number)


def filled(keep: int, batches: int, size: int, seed: int) -> Memory:
    memory, generator = Memory(keep), torch.Generator().manual_seed(seed)
    for i in range(batches):
        memory.offer(numbered(i * size, size), generator)
    return memory


def test_keeps_all_while_there_is_room():
    """Nothing is lost before the memory is full, in batches that do not divide its size too."""
    memory = filled(keep=10, batches=2, size=4, seed=0)
    assert len(memory) == 8
    assert memory._pool[4][0, :8].tolist() == list(range(8))
    memory.offer(numbered(8, 4), torch.Generator().manual_seed(1))
    assert len(memory) == 10


def test_every_segment_offered_is_as_likely_to_be_kept():
    """20 of 100 kept, 400 times: each fifth of the offers has a fifth of the places, the first as well as the last."""
    kept = torch.cat([filled(20, 25, 4, seed)._pool[4][0] for seed in range(400)])
    share = torch.histc(kept, bins=5, min=0, max=100) / len(kept)
    assert bool((share - 0.2).abs().max() < 0.02), share


def test_draws_whole_segments_with_the_log_q_they_came_with():
    """Later offers take places of whole segments: no step of one stands beside a step of another."""
    memory = filled(keep=7, batches=50, size=8, seed=0)
    segments = memory.draw(100, torch.Generator().manual_seed(0))
    assert segments.log_q.shape == (LENGTH, 100)
    assert torch.equal(segments.log_q, segments.log_q[:1].expand(LENGTH, 100))
    assert torch.equal(segments.state[..., 0], segments.log_q)
    assert len(segments.log_q[0].unique()) > 1


def test_resumed_memory_is_the_same_memory():
    """State out, state in, and the same offers after it."""
    one, two = filled(5, 3, 4, 0), Memory(5)
    two.load_state_dict(one.state_dict())
    for memory in (one, two):
        memory.offer(numbered(12, 4), torch.Generator().manual_seed(3))
    assert one.offered == two.offered == 16
    assert all(torch.equal(a, b) for a, b in zip(one._pool, two._pool, strict=True))
