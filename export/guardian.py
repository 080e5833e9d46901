"""The guardian: a process that owns the robot, obeys the controller while it speaks in time, else stops the robot.

    python -m export.guardian --robot robot.json --backend sim

It is small and does nothing else, in a process of its own: a controller that is killed leaves the robot with somebody
who holds or damps it. It prints one JSON line when it is ready. When its standard input closes, its terminal hangs up
or a signal asks for it, it brings the robot to rest, closes it, and ends; so it never outlives its purpose. A terminal
cannot stop it for a while, as by Ctrl-Z: nobody would hold the robot.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import queue
import selectors
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from export.guarded_robot import GuardedRobot
from export.real_time import RealTimeOptions, left_alone
from export.safety import Fault
from export.safety_limits import SafetyLimits
from robots.address import is_loopback
from robots.backend import BackendError
from robots.datagram import LARGEST
from robots.dry_run import DryRun
from robots.hardware_yaml import read_hardware
from robots.open_backend import BACKENDS, SIMULATED, open_backend
from robots.processors import available_cpus
from robots.robot_yaml import read_spec
from robots.seal import length_fault
from robots.spec import ToolkitError

# [ns] longer than the controller's, who may have to go on without an answer; shorter than everybody else's
_SLICE_NS = 300_000
_AWAKE_NS = 200_000  # [ns] by which the controller speaks sooner or later, as a rule
_LAST_WORDS = 64  # datagrams heard, at most, once the controller has ended
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last is what a lost ssh session leaves behind
_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # by which a terminal stops a process until further notice


def serve(
    robot: GuardedRobot,
    sock: socket.socket,
    lifeline: int,
    tell: Callable[[Fault], None],
    wake: int | None = None,
    awake_ns: int = 0,
) -> None:
    """Answers and watches until the lifeline closes or a signal comes; a robot in motion is then held for a while.

    Args:
        robot: What answers.
        sock: A bound UDP socket.
        lifeline: File descriptor, such as standard input, whose end is ours.
        tell: Takes each thing that made the robot's side act; must not block.
        wake: File descriptor that can be read once a signal came; its word is our end, too.
        awake_ns: [ns] before and after the moment at which the controller should speak next, in which it is waited for
            awake. Otherwise it is the controller who wakes our processor, and on a virtual machine that takes long.

    Raises:
        BackendError: The lifeline is a file, whose end nobody could tell.
    """
    with selectors.SelectSelector() as selector:  # others round up to whole milliseconds
        selector.register(sock, selectors.EVENT_READ)
        if not _ends(lifeline):
            raise BackendError("standard input must be a pipe or terminal: its end is how the guardian ends")
        selector.register(lifeline, selectors.EVENT_READ)
        if wake is not None:
            selector.register(wake, selectors.EVENT_READ)
        ear, leaving = _Ear(robot, sock, awake_ns), False
        while robot.running or not leaving:
            until = ear.rest_until_ns
            ready = selector.select(None if until is None else max(until - time.monotonic_ns(), 0) * 1e-9)
            if not ready:
                ear.listen()
            for key, _ in ready:
                if key.fileobj is sock:
                    ear.answer()
                elif key.fd == wake or _has_ended(lifeline):
                    selector.unregister(key.fileobj)
                    # Who says goodbye and ends at once is told of together, the last commands before it
                    for _ in range(_LAST_WORDS):
                        if not ear.answer():
                            break
                    robot.trip("controller_lost", "it ended without saying goodbye")
                    robot.leave()
                    leaving = True
            robot.watch()
            while robot.events:
                tell(robot.events.pop(0))


def _ends(lifeline: int) -> bool:
    """Whether it is something whose end is told of."""
    try:
        mode = os.fstat(lifeline).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(lifeline)


def _has_ended(lifeline: int) -> bool:
    """Whether what can be read there is the end; a terminal that hung up says it by an error."""
    try:
        return not os.read(lifeline, 4096)
    except BlockingIOError:
        return False  # another reader of the same pipe was quicker
    except OSError:
        return True


def _check_foreground(lifeline: int) -> None:
    """Refuses a terminal that reads for somebody else: its keys are not for us, nor would its end be told to us."""
    try:
        background = os.tcgetpgrp(lifeline) != os.getpgrp()
    except OSError:
        return  # no terminal of ours, so nobody's background
    if background:
        raise BackendError(
            "started in the background of a terminal, whose keys and whose end reach only what runs in its foreground; "
            "start it without & in a terminal of its own (ssh, tmux), or give it a pipe whose end is its end: "
            "sleep infinity | python -m export.guardian ... &"
        )


class _Ear:
    """Hears the controller and answers; it knows when that should speak next."""

    def __init__(self, robot: GuardedRobot, sock: socket.socket, awake_ns: int) -> None:
        self._robot, self._sock, self._awake_ns = robot, sock, awake_ns
        self._next_ns = 0  # [ns] a control period after it spoke last

    @property
    def rest_until_ns(self) -> int | None:
        """[ns] until when there is nothing to do but to be woken; None without end."""
        due = self._robot.due_ns
        if due is None or not self._awake_ns or time.monotonic_ns() >= self._next_ns + self._awake_ns:
            return due
        return min(due, self._next_ns - self._awake_ns)

    def listen(self) -> None:
        """Waits awake for what is expected about now."""
        while abs(time.monotonic_ns() - self._next_ns) < self._awake_ns and not self.answer():
            pass

    def answer(self) -> bool:
        """Acts on the next datagram; False if none has come."""
        try:
            datagram, peer = self._sock.recvfrom(LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            self._network(error)
            return True
        self._next_ns = time.monotonic_ns() + self._robot.period_ns
        answer = self._robot.answer(datagram, peer)  # what a driver lets through of its own troubles ends us: see main
        try:
            if answer is not None:
                self._sock.sendto(answer, peer)
        except OSError as error:
            self._network(error)
        return True

    def _network(self, error: OSError) -> None:
        """The cable is out or its buffer full: the controller will not hear; the watchdog is there for just that."""
        self._robot.events.append(Fault("network", str(error), time.monotonic_ns()))


class _EventWriter:
    """Writes events as JSON lines from a thread: a slow or full disk must not stop who holds the robot."""

    def __init__(self, path: Path | None) -> None:
        self.failed: OSError | None = None  # why the record is not whole
        self._path = path
        self._queue: queue.SimpleQueue[Fault | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def tell(self, event: Fault) -> None:
        self._queue.put(event)

    def finish(self) -> None:
        """Waits for the disk, but not for ever."""
        self._queue.put(None)
        self._thread.join(2.0)

    def _write(self) -> None:
        while (event := self._queue.get()) is not None:
            line = json.dumps({"utc": time.time(), **dataclasses.asdict(event)})
            _say(f"guardian: {event.reason}: {event.detail}")
            try:
                if self._path is not None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    with open(self._path, "a", encoding="utf-8") as file:
                        file.write(line + "\n")
            except OSError as error:
                self.failed = error


def _say(text: str) -> None:
    """To whoever started us, if he is still there: a terminal that hung up is no reason for anything."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _key(options: argparse.Namespace) -> bytes:
    if options.key is not None:
        raw = options.key.read_bytes()
    elif options.key_on_stdin:
        raw = bytes.fromhex(sys.stdin.readline().strip())
    else:
        return b""
    if (fault := length_fault(raw)) is not None:
        raise BackendError(fault)
    return raw


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.guardian", description="Owns a robot and guards it.")
    parser.add_argument("--robot", required=True, help="name, robot.yaml, or .json with a bundle's spec")
    parser.add_argument("--directory", type=Path, help="for a .json: where its model file lies")
    parser.add_argument(
        "--backend", choices=BACKENDS, help="what drives the robot; default: --hardware's driver, or sim"
    )
    parser.add_argument("--hardware", type=Path, help="how this very robot is wired")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one, which the line printed tells")
    parser.add_argument("--seed", type=int, default=0, help="how a simulated robot's episodes begin")
    parser.add_argument("--events", type=Path, help="file that gets a JSON line whenever the guardian acts")
    parser.add_argument("--allow-remote", action="store_true", help="listen to other machines; needs a key")
    parser.add_argument("--key", type=Path, help="file with 16 to 64 bytes that the controller knows, too")
    parser.add_argument("--key-on-stdin", action="store_true", help="the key comes as a line of hex on standard input")
    parser.add_argument(
        "--read-only", action="store_true",
        help="measure and pass no command on; drives that nothing measures are then no reason to refuse",
    )  # fmt: skip
    parser.add_argument(
        "--realtime", action="store_true", help="ask for SCHED_FIFO and locked memory, wait awake for the next command"
    )
    parser.add_argument(
        "--leave-cpu", type=int, help="core that the controller keeps to: who waits for it must not keep it waiting"
    )
    return parser


def main() -> None:
    """Command line."""
    options = _parser().parse_args()
    try:
        _check_foreground(sys.stdin.fileno())
        key = _key(options)
        if not is_loopback(options.host) and not (options.allow_remote and key):
            raise BackendError(f"{options.host} can be reached from other machines; give --allow-remote and --key")
        spec = read_spec(options.robot, options.directory)
        driver = options.backend or (
            "sim" if options.hardware is None else read_hardware(options.hardware, spec).driver
        )
        if driver not in SIMULATED and not options.read_only:
            SafetyLimits.from_spec(spec).check_measured()
        with (
            open_backend(driver, spec, seed=options.seed, hardware=options.hardware) as backend,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            try:
                sock.bind((options.host, options.port))
            except (OSError, OverflowError) as error:
                raise BackendError(f"cannot listen on {options.host}:{options.port}: {error}") from error
            _guard(GuardedRobot(DryRun(backend) if options.read_only else backend, key), sock, options)
    except (ToolkitError, OSError, ValueError) as error:
        _say(f"export.guardian: {' '.join(str(error).split())}")
        sys.exit(2)


def _guard(robot: GuardedRobot, sock: socket.socket, options: argparse.Namespace) -> None:
    spec, port = robot.backend.spec, sock.getsockname()[1]
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it for the hang-up
            signal.signal(number, lambda *_: None)  # the wake-up alone ends the loop, in order
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    writer = _EventWriter(options.events)
    wishes, awake_ns = RealTimeOptions(leave_cpu=options.leave_cpu, slice_ns=_SLICE_NS), 0
    if options.realtime:
        awake_ns = min(_AWAKE_NS, robot.period_ns // 8) if available_cpus() > 1 else 0
        wishes = dataclasses.replace(wishes, fifo_priority=60, lock_memory=True)
    with woken, wake, left_alone(wishes) as granted:
        ready = {"robot": spec.name, "spec_sha256": spec.sha256, "host": options.host, "port": port, "pid": os.getpid()}
        print(json.dumps(ready | {"granted": granted}), flush=True)
        try:
            serve(robot, sock, sys.stdin.fileno(), writer.tell, woken.fileno(), awake_ns)
        except ToolkitError:  # a refusal of our own
            raise
        except Exception as error:  # of a driver, which is closed next
            writer.tell(Fault("driver_failed", f"{type(error).__name__}: {error}", time.monotonic_ns()))
            raise
        finally:
            writer.finish()
    if writer.failed is not None:
        _say(f"export.guardian: {options.events}: {writer.failed.strerror}")
    if robot.safety.fault is not None and robot.safety.fault.reason != "not_armed":
        sys.exit(3)


if __name__ == "__main__":
    main()
