"""Signals are a flag while they are watched, and afterwards what they were before."""

import signal
import threading

from toolkit.stop_signals import stop_on_signals


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    """Also those that never came; and a second one is for whoever handled them before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        stop = threading.Event()
        with stop_on_signals(stop):
            assert signal.getsignal(signal.SIGINT) is not before[signal.SIGINT] and not stop.is_set()
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set() and heard == []
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
