"""How many processors there are for this process, which may be fewer than the machine has."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
