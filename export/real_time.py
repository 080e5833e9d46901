"""What a process can do to be left alone while it controls a robot: tried, reported, and put back afterwards."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

_MCL_CURRENT_AND_FUTURE = 3  # mlockall(2): pages in memory now, and all later ones
_POLLED_NS = 250_000  # [ns]
_SLACK_NS = 1  # [ns] that a timer may be late for the sake of others; by default 50,000
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30  # prctl(2)
# [us] of waking that a core may take, "n/a" for none at all: then it does not sleep; "0": any
_RESUME_LATENCY = "/sys/devices/system/cpu/cpu{}/power/pm_qos_resume_latency_us"
_INSISTING_NS = 500_000_000  # [ns] a key that is held down, or pressed twice by mistake, is quicker
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}  # syscall(2) numbers: libc has no such function


@dataclass(frozen=True)
class RealTimeOptions:
    """What to ask the system for. All of it may be refused to an ordinary user, which is reported and no error."""

    fifo_priority: int | None = None  # 1..99 for SCHED_FIFO, None = leave the scheduler alone
    lock_memory: bool = False  # no page of this process is swapped out
    cpu: int | None = None  # run on this core only
    leave_cpu: int | None = None  # run anywhere but here, if there is another core: somebody else keeps to this one
    stay_awake: bool = False  # that core does not sleep when it has nothing to do: waking it takes long
    slice_ns: int = 100_000  # [ns] time slice among equals, the shortest that Linux takes; whose is shorter interrupts


def polled_ns(period_ns: int) -> int:
    """What --realtime polls before each deadline: being woken is then over by it, and caches and clock are warm again.

    Args:
        period_ns: [ns] one control period.

    Returns:
        [ns] 250 us, at most an eighth of the period: whoever else runs on that core waits for it.
    """
    return min(_POLLED_NS, period_ns // 8)


def privileged(cpu: int | None = None) -> RealTimeOptions:
    """What --realtime asks for where a loop is run.

    Args:
        cpu: The core to keep to; None for the last that this process may run on, since the first serve most interrupts.

    Returns:
        Everything there is.
    """
    if cpu is None and hasattr(os, "sched_getaffinity"):
        cpu = max(os.sched_getaffinity(0))
    return RealTimeOptions(fifo_priority=50, lock_memory=True, cpu=cpu, stay_awake=True)


class StopFlag:
    """Whether someone asked the loop to stop."""

    reason: str | None = None  # "SIGINT" | "SIGTERM" | "SIGHUP", or who else asked
    insisted = False  # Ctrl-C was pressed again: no more gentleness


@contextmanager
def left_alone(options: RealTimeOptions) -> Iterator[dict[str, str]]:
    """Keeps the garbage collector out of the loop and asks for the scheduling wanted.

    What any process may have is not a wish: timers without slack, and a short time slice, since the scheduler of
    Linux 6.12 and later lets who wakes up with a shorter one interrupt who runs with a longer one. Without it a loop
    that may not ask for SCHED_FIFO is woken late by up to 3 ms, whenever anything at all has just begun to run.

    Args:
        options: What to ask for.

    Yields:
        What was asked for -> "granted" or why not.
    """
    collecting = gc.isenabled()
    # Freezing what is imported by now leaves the collector nothing to walk, should someone call it after all.
    gc.collect()
    gc.freeze()
    gc.disable()
    granted: dict[str, str] = {}
    with ExitStack() as undo:  # the rest is put back although one thing will not be
        undo.callback(_let_collect, collecting)
        _wake_soon(options.slice_ns, undo)
        _ask(options, granted, undo)
        yield granted


def _let_collect(collecting: bool) -> None:
    gc.unfreeze()
    if collecting:
        gc.enable()


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag, so that the robot is brought to rest; none of them ends anything.

    SIGHUP is what a lost ssh session sends, more than once at times: whoever watched does so no more. A second SIGINT,
    half a second or more after the first, is told apart: somebody wants it to end more quickly. SIGTERM and SIGHUP come
    from programs, and say no more the second time.

    Yields:
        The flag. Outside the main thread no handler can be installed, and it stays unset.
    """
    flag, first_ns = StopFlag(), None
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal first_ns
        if flag.reason is None:
            flag.reason = signal.Signals(number).name
        if number == signal.SIGINT:
            now = time.monotonic_ns()
            first_ns = now if first_ns is None else first_ns
            flag.insisted = flag.insisted or now - first_ns >= _INSISTING_NS

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _SchedAttr(ctypes.Structure):
    """struct sched_attr of sched_setattr(2), in its first version."""

    _fields_ = [
        ("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64), ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32), ("runtime", ctypes.c_uint64), ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]  # fmt: skip


def _wake_soon(slice_ns: int, undo: ExitStack) -> None:
    """Timers without slack and a short slice; an older or another system is left as it is."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    slack = libc.prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    if slack > 0 and libc.prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0) == 0:
        undo.callback(lambda: libc.prctl(_PR_SET_TIMERSLACK, slack, 0, 0, 0))
    if os.sched_getscheduler(0) == os.SCHED_OTHER and _set_slice(slice_ns):
        undo.callback(lambda: _set_slice(0))  # 0: the system's own


def _set_slice(nanoseconds: int) -> bool:
    """Whether this thread's time slice could be set, by sched_setattr(2); its nice value stays."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wish = _SchedAttr(ctypes.sizeof(_SchedAttr), os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
    return ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wish), 0) == 0


def _ask(options: RealTimeOptions, granted: dict[str, str], undo: ExitStack) -> None:
    if options.cpu is not None:
        _try(f"core {options.cpu}", lambda: _pin(options.cpu, undo), granted)
    if options.leave_cpu is not None:
        _try(f"off core {options.leave_cpu}", lambda: _leave(options.leave_cpu, undo), granted)
    if options.lock_memory:
        _try("memory lock", lambda: _lock_memory(undo), granted)
    if options.stay_awake:
        _try("core awake", lambda: _stay_awake(options.cpu, undo), granted)
    if options.fifo_priority is not None:
        _try(f"SCHED_FIFO {options.fifo_priority}", lambda: _fifo(options.fifo_priority, undo), granted)


def _try(what: str, action: Callable[[], None], granted: dict[str, str]) -> None:
    try:
        action()
        granted[what] = "granted"
    except (OSError, AttributeError, ValueError) as error:  # AttributeError: the system has no such call
        granted[what] = f"refused: {getattr(error, 'strerror', None) or error}"


def _pin(cpu: int | None, undo: ExitStack) -> None:
    _run_on({cpu or 0}, undo)


def _leave(cpu: int | None, undo: ExitStack) -> None:
    others = os.sched_getaffinity(0) - {cpu}
    if not others:
        raise ValueError("there is no other")
    _run_on(others, undo)


def _run_on(cpus: set[int], undo: ExitStack) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    undo.callback(lambda: os.sched_setaffinity(0, before))


def _fifo(priority: int | None, undo: ExitStack) -> None:
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority or 1))
    undo.callback(lambda: os.sched_setscheduler(0, policy, param))


def _lock_memory(undo: ExitStack) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT_AND_FUTURE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    undo.callback(libc.munlockall)


def _stay_awake(cpu: int | None, undo: ExitStack) -> None:
    """By the kernel's PM quality of service, for one core: others that wait awake heat it, or spend its time.

    A virtual machine is paused by its host once all its processors together have used up what it may have.
    """
    if cpu is None:
        raise ValueError("only for one core, and none was named")
    bound = os.open(_RESUME_LATENCY.format(cpu), os.O_WRONLY)
    undo.callback(lambda: _let_sleep(bound))
    fcntl.flock(bound, fcntl.LOCK_SH)
    os.pwrite(bound, b"n/a\n", 0)


def _let_sleep(bound: int) -> None:
    """Unless another process still keeps the core awake; what one that was killed has left behind goes, too."""
    try:
        fcntl.flock(bound, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(bound, b"0\n", 0)
    except BlockingIOError:
        return  # whoever is last does it
    finally:
        os.close(bound)
