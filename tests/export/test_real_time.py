"""Being left alone: the collector off, wishes reported, everything put back; signals become a flag."""

import ctypes
import dataclasses
import gc
import os
import platform
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import export.real_time
from export.real_time import RealTimeOptions, _SchedAttr, left_alone, polled_ns, privileged, stop_signals


def test_collector_is_off_inside_and_back_afterwards() -> None:
    """Inside, garbage is not collected and nothing old is walked; after an exception too, it is as before."""
    assert gc.isenabled()
    with pytest.raises(RuntimeError), left_alone(RealTimeOptions()):
        assert not gc.isenabled() and gc.get_freeze_count() > 0
        raise RuntimeError
    assert gc.isenabled() and gc.get_freeze_count() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has them")
def test_a_loop_is_woken_soon_inside_and_is_as_before_afterwards() -> None:
    """Timers have no slack and the time slice is short, which needs no privilege; both are put back, nice stays."""

    def look() -> tuple[tuple[dict[str, int], int], ...]:
        os.nice(1)  # of this thread
        before = scheduling(), timer_slack()
        with left_alone(RealTimeOptions()):
            inside = scheduling(), timer_slack()
        return before, inside, (scheduling(), timer_slack())

    with ThreadPoolExecutor(1) as pool:  # whose scheduling is its own
        before, inside, after = pool.submit(look).result()
    assert inside[1] == 1 < before[1]
    if before[0]["runtime"]:  # kernels before 6.12 have one slice for all, and say 0
        assert inside[0] == before[0] | {"runtime": 100_000}
        assert before[0]["runtime"] > 100_000
    assert after == before and before[0]["nice"] == os.getpriority(os.PRIO_PROCESS, 0) + 1


def scheduling() -> dict[str, int]:
    """What sched_getattr(2) says of this thread."""
    attributes = _SchedAttr()
    number = {"x86_64": 315, "aarch64": 275, "riscv64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attributes), ctypes.sizeof(attributes), 0) == 0
    return {name: getattr(attributes, name) for name in ("policy", "nice", "runtime")}


def timer_slack() -> int:
    """[ns] of this thread."""
    return ctypes.CDLL(None).prctl(30, 0, 0, 0, 0)


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


def test_one_core_is_kept_awake_for_as_long_as_anybody_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No latency at all is asked of that core alone; the last who wanted it lets it sleep again, and holds no file."""

    def held() -> list[str]:
        return [path for path in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if path == str(bound)]

    core = min(os.sched_getaffinity(0))
    bound, other = tmp_path / f"cpu{core}", tmp_path / "cpu9"
    monkeypatch.setattr(export.real_time, "_RESUME_LATENCY", str(tmp_path / "cpu{}"))
    wish = RealTimeOptions(cpu=core, stay_awake=True)
    with left_alone(wish) as granted:
        assert granted["core awake"] == "refused: No such file or directory"
    bound.write_text("0\n")
    other.write_text("0\n")
    with left_alone(wish) as granted:
        assert granted["core awake"] == "granted" and bound.read_text() == "n/a\n"
        with left_alone(wish):
            pass
        assert bound.read_text() == "n/a\n" and other.read_text() == "0\n"
    assert bound.read_text().startswith("0\n") and held() == []
    bound.write_text("n/a\n")  # by one that was killed
    with left_alone(wish):
        pass
    assert bound.read_text().startswith("0\n")


def test_who_keeps_to_no_core_keeps_none_awake() -> None:
    """All of them awake are a machine's whole time, of which its host may take some back just then."""
    with left_alone(RealTimeOptions(stay_awake=True)) as granted:
        assert granted == {"core awake": "refused: only for one core, and none was named"}


def test_all_that_there_is_means_the_last_core_unless_another_is_named() -> None:
    """Every wish is made, for the last core that this process may run on."""
    assert privileged() == RealTimeOptions(
        fifo_priority=50, lock_memory=True, cpu=max(os.sched_getaffinity(0)), stay_awake=True
    )
    assert privileged(3) == dataclasses.replace(privileged(), cpu=3)


@pytest.mark.parametrize(("period", "polled"), [(20_000_000, 250_000), (2_000_000, 250_000), (1_000_000, 125_000)])
def test_what_is_polled_leaves_others_most_of_a_period(period: int, polled: int) -> None:
    """An eighth at quick rates."""
    assert polled_ns(period) == polled


def test_a_core_that_does_not_exist_is_refused_not_fatal() -> None:
    """An impossible wish is reported, and the loop goes on without it."""
    with left_alone(RealTimeOptions(cpu=100_000)) as granted:
        assert granted["core 100000"].startswith("refused: ")


def test_a_core_is_left_to_who_keeps_to_it() -> None:
    """All others may be run on; the only one is not left, and afterwards all is as before."""
    before = os.sched_getaffinity(0)
    core = max(before)
    try:
        with left_alone(RealTimeOptions(leave_cpu=core)) as granted:
            there_are_others = granted[f"off core {core}"] == "granted"
            assert there_are_others == (len(before) > 1)
            assert os.sched_getaffinity(0) == (before - {core} if there_are_others else before)
        assert os.sched_getaffinity(0) == before
        os.sched_setaffinity(0, {core})
        with left_alone(RealTimeOptions(leave_cpu=core)) as granted:
            assert granted == {f"off core {core}": "refused: there is no other"}
            assert os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)


def test_one_thing_that_cannot_be_put_back_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is refused its cores is told so, and has its collector and its timers again."""
    before, slack = os.sched_getaffinity(0), timer_slack()

    def refuse(*_: object) -> None:
        raise PermissionError("a cpuset took it away")

    try:
        with pytest.raises(PermissionError, match="cpuset"), left_alone(RealTimeOptions(cpu=min(before))):
            assert not gc.isenabled() and timer_slack() == 1
            monkeypatch.setattr(os, "sched_setaffinity", refuse)
    finally:
        monkeypatch.undo()
        os.sched_setaffinity(0, before)
    assert gc.isenabled() and gc.get_freeze_count() == 0 and timer_slack() == slack > 1


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_sets_the_flag_and_none_ends_anything(first: signal.Signals) -> None:
    """Each asks for a soft stop, once or often, together or not; handlers are put back."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stop_signals() as flag:
        assert flag.reason is None and not flag.insisted
        for number in (first, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert flag.reason == first.name
        assert not flag.insisted
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_who_presses_again_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C counts half a second after the first one; nothing else does, however late."""
    at = [10**12]
    monkeypatch.setattr(export.real_time.time, "monotonic_ns", lambda: at[0])
    with stop_signals() as flag:
        flag.reason = "operator"  # the page was quicker
        said = []
        for number, later in (
            (signal.SIGTERM, 0), (signal.SIGTERM, 10**9), (signal.SIGHUP, 10**9), (signal.SIGINT, 10**9),
            (signal.SIGTERM, 10**9), (signal.SIGHUP, 10**9), (signal.SIGINT, 0),
        ):  # fmt: skip
            at[0] += later
            os.kill(os.getpid(), number)
            said.append(flag.insisted)
    assert said == [False] * 6 + [True] and flag.reason == "operator"
    with stop_signals() as flag:
        for number, later, insisted in (
            (signal.SIGINT, 0, False), (signal.SIGINT, 499_000_000, False), (signal.SIGINT, 1_000_000, True),
        ):  # fmt: skip
            at[0] += later
            os.kill(os.getpid(), number)
            assert flag.insisted == insisted


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
