"""Watching a session on another machine: its frames are received, decoded and handed on evenly."""

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np
import zmq

from playhead.engine.bridge.client.smoother import Smoother
from playhead.engine.bridge.wire.frame_codecs import make_decoder
from playhead.engine.bridge.wire.protocol import FrameHeader, decode_header

NAP = 0.05
"""Seconds after which the thread looks whether it is to end."""
TIMED = 120
"""Decodes that the figures look back."""

Seen = Callable[[FrameHeader, np.ndarray], None]
"""Takes the header and the frames uint8 `(n, H, W, 3)` of a tick."""


class Watcher:
    """Hands on every tick that comes, on a thread of its own, as evenly as they were dreamed.

    `decode_times` are the seconds that the last ticks took to decode, `delay` the seconds by which smoothing
    holds ticks back. `error` is what put an end to it, if anything did.
    """

    def __init__(self, open_socket: Callable[[], zmq.Socket[bytes]], seen: Seen) -> None:
        self._open_socket, self._seen = open_socket, seen
        self._smoother: Smoother[tuple[FrameHeader, np.ndarray]] = Smoother()
        self._decoder: tuple[tuple[str, int, int], Callable[[bytes], np.ndarray | None]] | None = None
        self._number: int | None = None
        self.decode_times: deque[float] = deque(maxlen=TIMED)
        self.error: Exception | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    @property
    def delay(self) -> float:
        return self._smoother.delay

    def close(self) -> None:
        self._closing = True
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._open_socket() as socket:
                while not self._closing:
                    self._watch(socket)
        except Exception as error:
            self.error = error

    def _watch(self, socket: zmq.Socket[bytes]) -> None:
        """Waits for a tick to come or to be due."""
        wait = self._smoother.wait(time.perf_counter())
        nap = NAP if wait is None else min(NAP, wait)
        if socket.poll(int(nap * 1000)):  # in whole milliseconds: what is due sooner is due now
            self._take(socket, socket.recv_multipart())
        for header, frames in self._smoother.take(time.perf_counter()):
            self._seen(header, frames)

    def _take(self, socket: zmq.Socket[bytes], parts: list[bytes]) -> None:
        """Decodes a tick, unless it cannot be: then another beginning is asked for."""
        now = time.perf_counter()
        try:
            header = decode_header(parts[1])
        except (msgspec.MsgspecError, IndexError):
            return  # a server that says what it may not say is not believed
        gap = self._number is None or header.number != self._number + 1
        if gap and not header.key:
            self._ask_for_a_beginning(socket, parts[0])
            return
        frames = [self._decode(header, packet) for packet in parts[2:]]
        whole = [f for f in frames if f is not None and f.shape == (header.height, header.width, 3)]
        if not whole or len(whole) < len(frames):
            self._ask_for_a_beginning(socket, parts[0])
            return
        self._number = header.number
        self.decode_times.append(time.perf_counter() - now)
        self._smoother.put((header, np.stack(whole)), header.ready, now)

    def _decode(self, header: FrameHeader, packet: bytes) -> np.ndarray | None:
        kind = (header.codec, header.height, header.width)
        if self._decoder is None or self._decoder[0] != kind:
            self._decoder = kind, make_decoder(*kind)
        try:
            return self._decoder[1](packet)
        except ValueError:
            return None

    def _ask_for_a_beginning(self, socket: zmq.Socket[bytes], topic: bytes) -> None:
        """Subscribes anew, which has the next tick sent as one that decoding may begin with."""
        if self._number is not None:  # once: until then, what comes cannot be decoded
            self._number, self._decoder = None, None
            socket.unsubscribe(topic)
            socket.subscribe(topic)
