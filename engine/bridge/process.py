"""A process that is a server: what it shares among its threads, and how it ends."""

import contextlib
import ctypes
import gc
import signal
import sys
from typing import TYPE_CHECKING

from playhead.world import interrupts

if TYPE_CHECKING:  # it imports torch, whose threads are to find the heaps as they are to be
    from playhead.engine.bridge.server.server import Server

M_ARENA_MAX, HEAPS = -8, 2
"""A parameter of glibc's `mallopt`, and the heaps that the threads of a server share."""
YOUNG = 10_000
"""Objects more than before at which Python looks for those that nobody needs: a server's ticks make some
thousands a second that nobody needs, and that are gone by themselves."""
MOMENT = 0.0005
"""Seconds after which a thread that computes lets another one have its turn."""


def share_heaps() -> None:
    """Has the threads that are begun from now on share a few heaps, where there is glibc.

    It gives each thread a heap of its own else, and sessions come and go with their threads: what one leaves
    in its heap is of no use to the next.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library has no such parameter
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


def ready_to_serve(server: "Server") -> None:
    """Prepares this process, in which all is loaded: a signal that ends it ends the server."""
    for number in interrupts.ending():
        signal.signal(number, lambda *_: server.stop())
    gc.collect()
    gc.freeze()  # to go through what was loaded takes the collector 0.1 s, in which nobody has a tick
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    server.rescue()
    sys.setswitchinterval(MOMENT)  # else one who computes may keep the one who answers waiting for 5 ms


def serve_until_ended(server: "Server") -> None:
    """Serves until a signal comes. Raises PlayheadError where it cannot go on."""
    try:
        server.run()
    finally:
        interrupts.end_at_once()  # a tick that is under way yet would be torn down with the interpreter
