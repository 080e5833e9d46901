"""The processors this process may use are counted, not those of the machine."""

import os

import pytest

from robots.processors import available_cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_counts() -> None:
    """Kept to one processor, there is one."""
    before = os.sched_getaffinity(0)
    assert available_cpus() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
