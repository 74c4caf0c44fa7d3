"""Signals that end a program, taken as Ctrl-C is: what was begun is put away, what was finished is kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_last = int(signal.SIGINT)


def ending() -> list[int]:
    """The signals that ask a program to end; not a hang-up that it was started to survive (`nohup`)."""
    found = [int(signal.SIGINT), int(signal.SIGTERM)]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        found.append(int(hang_up))
    return found


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Has whatever asks this program to end raise KeyboardInterrupt, as Ctrl-C does."""
    note(signal.SIGINT)
    others = [number for number in ending() if number != signal.SIGINT]
    if threading.current_thread() is not threading.main_thread():  # which alone may have handlers
        others = []
    before = {number: signal.signal(number, _interrupt) for number in others}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def note(number: int) -> None:
    """Remembers by which signal the program is ended."""
    global _last
    _last = int(number)


def status() -> int:
    """The exit status of a program that was interrupted: 128 and the signal's number, 130 after Ctrl-C."""
    return 128 + _last


def _interrupt(number: int, frame: FrameType | None) -> None:
    note(number)
    for other in ending():
        if other != signal.SIGINT:  # what a second one asks for is under way
            signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt
