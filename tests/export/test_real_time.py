"""Being left alone: the collector off, wishes reported, everything put back; signals become a flag."""

import gc
import os
import signal
import threading

import pytest

from export.real_time import RealTimeOptions, left_alone, stop_signals


def test_collector_is_off_inside_and_back_afterwards() -> None:
    """Inside, garbage is not collected and nothing old is walked; after an exception too, it is as before."""
    assert gc.isenabled()
    with pytest.raises(RuntimeError), left_alone(RealTimeOptions()):
        assert not gc.isenabled() and gc.get_freeze_count() > 0
        raise RuntimeError
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_wishes_are_granted_or_explained_and_undone() -> None:
    """Every wish gets an answer, and scheduler and cores are afterwards what they were."""
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    core = min(before[0])
    with left_alone(RealTimeOptions(fifo_priority=1, cpu=core)) as granted:
        assert set(granted) == {f"core {core}", "SCHED_FIFO 1"}
        assert all(answer == "granted" or answer.startswith("refused: ") for answer in granted.values())
        if granted[f"core {core}"] == "granted":
            assert os.sched_getaffinity(0) == {core}
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before


def test_a_core_that_does_not_exist_is_refused_not_fatal() -> None:
    """An impossible wish is reported, and the loop goes on without it."""
    with left_alone(RealTimeOptions(cpu=100_000)) as granted:
        assert granted["core 100000"].startswith("refused: ")


def test_first_signal_sets_the_flag_second_ends() -> None:
    """One Ctrl-C asks for a soft stop, a second one ends at once; handlers are put back."""
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as flag:
        assert flag.reason is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_it_stays_out_of_the_way() -> None:
    """In a thread no handler can be installed, and nothing fails."""
    seen: list[object] = []

    def work() -> None:
        with stop_signals() as flag:
            seen.append(flag.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
