"""Signals that end a program, taken as Ctrl-C is: what was begun is put away, what was finished is kept."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_last = int(signal.SIGINT)
_at_once = False
_tidying: list[Callable[[], None]] = []


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
    global _at_once
    _at_once = False
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


def end_at_once(tidy: Callable[[], None] | None = None) -> None:
    """Has the program end without waiting for threads that compute still: all that is to be kept is kept.

    `tidy` is called before; what else was registered to be done at the end is not.

    To take the interpreter apart under torch takes half a second and, where a thread is in the midst of a
    product, aborts the program.
    """
    global _at_once
    _at_once = True
    if tidy is not None:
        _tidying.append(tidy)


def leave(status: int) -> NoReturn:
    """Ends the program; at once where `end_at_once` was called, and then too with all that was printed."""
    if _at_once:
        for tidy in _tidying:
            tidy()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or it is gone
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    note(number)
    for other in ending():
        if other != signal.SIGINT:  # what a second one asks for is under way
            signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt
