"""Signals that end a program, taken as Ctrl-C is: what was begun is put away, what was finished is kept.

An exception that a signal raises between two steps of a lock's own code leaves the lock taken for ever, and
the thread that waits for it never ends: so one that comes there is taken a moment later (`outside_locks`).
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from _thread import start_new_thread  # a Thread would take locks of its own, in the midst of a signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

Handler = Callable[[int, FrameType | None], None]

MOMENT = 0.001
"""Seconds after which a signal that came in the midst of a lock is looked at again."""
MOMENTS = 1000
"""How often it is put off at most."""
STILL = 5
"""Moments after which what has not moved is a wait, which may be broken off: to take a lock takes less."""

_LIBRARY = Path(threading.__file__).parent
_LOCKING = {
    "<frozen importlib._bootstrap>",  # each module has a lock while it is loaded
    *(
        str(_LIBRARY / name)
        for name in (
            "threading.py",
            "queue.py",
            "contextlib.py",
            "logging/__init__.py",
            "concurrent/futures/_base.py",
            "concurrent/futures/thread.py",
            "concurrent/futures/process.py",
            "multiprocessing/connection.py",
            "multiprocessing/queues.py",
            "multiprocessing/synchronize.py",
        )
    ),
}
"""Code of Python's own that takes locks and gives them back in several steps."""

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
    numbers = ending()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # somebody wants it otherwise
        numbers.remove(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():  # which alone may have handlers
        numbers = []
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outside_locks(handler: Handler) -> Handler:
    """A handler that raises, put off while the main thread is in the midst of taking or giving a lock."""
    place, still, tries = (0, 0), 0, 0

    @wraps(handler)
    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal place, still, tries
        if frame is not None and frame.f_code.co_filename in _LOCKING:
            here = id(frame), frame.f_lasti
            still = still + 1 if here == place else 0
            place, tries = here, tries + 1
            if still < STILL and tries < MOMENTS:
                with contextlib.suppress(RuntimeError):  # no thread can be started: then at once
                    start_new_thread(_again, (number,))
                    return
        place, still, tries = (0, 0), 0, 0
        handler(number, frame)

    return handle


@contextmanager
def under_way() -> Iterator[None]:
    """What signals other than Ctrl-C ask for is being done: another one of them changes nothing."""
    before = _ignore_others()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_others() -> dict[int, Any]:
    """Ignores signals that end a program, but for Ctrl-C. Returns the handlers before."""
    if threading.current_thread() is not threading.main_thread():  # which alone may have handlers
        return {}
    return {number: signal.signal(number, signal.SIG_IGN) for number in ending() if number != signal.SIGINT}


def _again(number: int) -> None:
    time.sleep(MOMENT)
    if hasattr(signal, "pthread_kill"):  # the main thread, lest it go on waiting where it does
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


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


@outside_locks
def _interrupt(number: int, frame: FrameType | None) -> None:
    note(number)
    _ignore_others()  # what a second one asks for is under way
    raise KeyboardInterrupt
