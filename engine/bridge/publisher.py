"""The stream for watchers: ticks are encoded on a thread of their own, newest wins, and published."""

import threading
from collections import Counter
from collections.abc import Callable

import msgspec
import zmq

from engine.bridge.hosted import Hosted
from engine.bridge.protocol import CODECS, FrameHeader, encode, topic
from engine.bridge.video import Encoder, make_encoder
from engine.loop import Tick

QUEUED = 3
"""Ticks that wait for a slow watcher before newer ones are dropped."""
WATCHERS = 1000
"""Subscriptions at the most."""


class Publisher:
    """Publishes the ticks of sessions that somebody watches, on an XPUB socket of the server's thread.

    A watcher subscribes to exactly one session's frames in one encoding (`protocol.topic`): whoever does not
    know a session's id sees nothing of it.
    """

    def __init__(self, socket: zmq.Socket, post: Callable[[Callable[[], None]], None]) -> None:
        self._socket, self._post = socket, post
        socket.sndhwm = QUEUED
        socket.sndbuf = 256 * 1024
        socket.xpub_verboser = True
        self._watchers: Counter[bytes] = Counter()
        self._keys_wanted: set[bytes] = set()
        self._encoders: dict[bytes, tuple[tuple[int, int], Encoder]] = {}
        self._numbers: Counter[bytes] = Counter()
        self._newest: dict[str, tuple[Hosted, Tick]] = {}
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def subscriptions(self) -> None:
        """On the server's thread: takes note of who began or ceased to watch."""
        while self._socket.poll(0):
            event = self._socket.recv()
            name = event[1:]
            if event[:1] == b"\1":
                if len(self._watchers) >= WATCHERS and name not in self._watchers:
                    continue
                self._watchers[name] += 1
                self._keys_wanted.add(name)
            elif event[:1] == b"\0" and name in self._watchers:
                self._watchers[name] -= 1
                if not self._watchers[name]:
                    del self._watchers[name]
                    self._keys_wanted.discard(name)

    def watched(self, session: str) -> bool:
        return any(topic(session, codec) in self._watchers for codec in CODECS)

    def take(self, hosted: Hosted, tick: Tick) -> None:
        """On a loop's thread: leaves a tick to be encoded, in place of one that still waits."""
        if self.watched(hosted.id):
            with self._condition:
                self._newest[hosted.id] = hosted, tick
                self._condition.notify()

    def forget(self, session: str) -> None:
        for codec in CODECS:
            self._encoders.pop(topic(session, codec), None)

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._newest or self._closing)
                if self._closing:
                    return
                _, (hosted, tick) = self._newest.popitem()
            for codec in CODECS:
                name = topic(hosted.id, codec)
                if name in self._watchers:
                    parts = self._encode(name, codec, hosted, tick)
                    self._post(lambda parts=parts: self._send(parts))

    def _encode(self, name: bytes, codec: str, hosted: Hosted, tick: Tick) -> list[bytes]:
        height, width = tick.frames.shape[1:3]
        size, encoder = self._encoders.get(name, ((0, 0), None))
        if encoder is None or size != (height, width):
            encoder = make_encoder(codec, height, width)
            self._encoders[name] = (height, width), encoder
        wanted = name in self._keys_wanted
        self._keys_wanted.discard(name)
        packets = [encoder.encode(f, wanted and not n) for n, f in enumerate(tick.frames)]
        self._numbers[name] += 1
        stats = hosted.loop.stats
        header = FrameHeader(
            session=hosted.id, number=self._numbers[name], tick=tick.number, seed=tick.seed,
            begins=tick.action is None, action=tick.action, codec=codec, key=packets[0][1], height=height,
            width=width, period=tick.timing.period, ready=tick.timing.ready,
            stats=None if stats is None else msgspec.to_builtins(stats),
        )  # fmt: skip
        return [name, encode(header), *(packet for packet, _ in packets)]

    def _send(self, parts: list[bytes]) -> None:
        """On the server's thread; never waits: a watcher whose queue is full misses this tick."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)
