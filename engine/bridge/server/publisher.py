"""The stream for watchers: ticks are encoded on a thread of their own, newest wins, and published."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import zmq

from playhead.engine.bridge.server.connections import cut, ended
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.limits import RateLimit
from playhead.engine.bridge.wire.frame_codecs import VideoEncoder, make_encoder
from playhead.engine.bridge.wire.protocol import CODECS, Codec, FrameHeader, encode, topic
from playhead.engine.tick import Tick

QUEUED = 3
"""Ticks that wait for a slow watcher before newer ones are dropped."""
SUBSCRIPTIONS = 64
"""Topics that one connection may have asked for; and how many it may ask for in a second."""


FrameReceiver = Callable[[FrameHeader, list[bytes]], None]
"""Takes a tick of a stream, a packet a frame, on the encoder's thread; may not block."""


class Stream:
    """A session's frames in one encoding, while somebody watches them: `watchers` are connections to the
    socket, `receivers` those who are handed ticks in this process.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.watchers: set[int] = set()
        self.receivers: frozenset[FrameReceiver] = frozenset()
        self.key_wanted = False
        self._size = (0, 0)
        self._encoder: VideoEncoder | None = None
        self._number = 0

    def restart(self) -> None:
        """Begins anew with the next tick."""
        self._encoder, self.key_wanted = None, True

    def encode(self, hosted: HostedSession, tick: Tick) -> tuple[FrameHeader, list[bytes]]:
        """On the encoder's thread: the header and the packets of a tick."""
        height, width = tick.frames.shape[1:3]
        if self._encoder is None or self._size != (height, width):
            self._encoder, self._size = make_encoder(self.codec, height, width), (height, width)
        wanted, self.key_wanted = self.key_wanted, False
        packets = [self._encoder.encode(f, wanted and not n) for n, f in enumerate(tick.frames)]
        self._number += 1
        stats = hosted.loop.stats
        header = FrameHeader(
            session=hosted.id, number=self._number, tick=tick.number, seed=tick.seed,
            begins=tick.action is None, action=tick.action, codec=self.codec, key=packets[0][1],
            height=height, width=width, period=tick.timing.period, ready=tick.timing.ready,
            stats=None if stats is None else msgspec.to_builtins(stats),
        )  # fmt: skip
        return header, [packet for packet, _ in packets]


@dataclass
class Subscriber:
    """A connection to the stream: the topics it has asked for, and how often it may ask."""

    topics: set[bytes] = field(default_factory=set)
    allowance: RateLimit = field(default_factory=lambda: RateLimit(SUBSCRIPTIONS))


class Publisher:
    """Publishes the ticks of sessions that somebody watches, on an XPUB socket of the server's thread.

    ZeroMQ would let a watcher ask for everything that begins alike. Here a subscription counts only where it
    is the whole topic of a session (`protocol.topic`): who does not know a session's id sees nothing of it.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        post: Callable[[Callable[[], None]], None],
        exists: Callable[[str], bool],
    ) -> None:
        """`post` has something called on the server's thread; `exists`: whether a session does."""
        self._socket, self._post, self._exists = socket, post, exists
        socket.xpub_manual = True
        socket.sndhwm = QUEUED
        socket.sndbuf = 256 * 1024
        self.monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._subscribers: dict[int, Subscriber] = {}
        self._streams: dict[bytes, Stream] = {}
        self._newest: dict[str, tuple[HostedSession, Tick]] = {}
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def subscriptions(self) -> None:
        """On the server's thread: takes note of who began or ceased to watch.

        Whoever sends anything else, too much or too often is cut off. ZeroMQ then no longer says reliably
        whose the next subscriptions are, so these are not granted: their connections are cut too, and
        ZeroMQ's clients subscribe again by themselves.
        """
        doubtful: set[int] = set()
        self._forget_ended()
        while self._socket.poll(0):
            event = self._socket.recv(copy=False)
            try:
                fd = event.get(zmq.SRCFD)
            except zmq.ZMQError:  # the connection is gone, which the monitor tells too
                continue
            self._forget_ended()  # an older connection of the same number
            if doubtful or not self._take(event.bytes, fd):
                doubtful.add(fd)
        for fd in doubtful:
            cut(fd)

    def watch(self, session: str, codec: Codec, receive: FrameReceiver) -> None:
        """On the server's thread: has the ticks of a session that there is handed over, from the next on."""
        stream = self._streams.setdefault(topic(session, codec), Stream(codec))
        stream.receivers |= {receive}
        stream.key_wanted = True

    def leave(self, session: str, codec: Codec, receive: FrameReceiver) -> None:
        """On the server's thread: ends that."""
        name = topic(session, codec)
        if (stream := self._streams.get(name)) is not None:
            stream.receivers -= {receive}
            self._drop_unwatched(name, stream)

    def begin(self, session: str, codec: Codec) -> None:
        """On any thread: has the next tick of a stream sent as one that decoding may begin with."""
        if (stream := self._streams.get(topic(session, codec))) is not None:
            stream.key_wanted = True

    def watched(self, session: str) -> bool:
        return not self._streams.keys().isdisjoint(_topics(session))

    def take(self, hosted: HostedSession, tick: Tick) -> None:
        """On a loop's thread: leaves a tick to be encoded, in place of one that still waits."""
        if self.watched(hosted.id):
            with self._condition:
                self._newest[hosted.id] = hosted, tick
                self._condition.notify()

    def forget(self, session: str) -> None:
        """A session has ended, and its streams with it."""
        for codec in CODECS:
            self._streams.pop(topic(session, codec), None)

    def close(self) -> None:
        """Ends it after the frame under way."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    def wait(self, seconds: float) -> None:
        """Waits for the end, at most so long; by the server's thread."""
        self._thread.join(seconds)
        self._socket.disable_monitor()

    def _take(self, event: bytes, fd: int) -> bool:
        """One subscription, or its end. Returns whether it was in order."""
        kind, name = event[:1], event[1:]
        subscriber = self._subscribers.setdefault(fd, Subscriber())
        if kind == b"\0":
            subscriber.topics.discard(name)
            self._leave(name, fd)
            return True
        subscriber.topics.add(name)
        if kind != b"\1" or len(subscriber.topics) > SUBSCRIPTIONS or not subscriber.allowance.take():
            return False
        session, _, codec = name.decode("utf-8", "replace").rpartition("/")
        if codec in CODECS and self._exists(session):
            self._socket.setsockopt(zmq.SUBSCRIBE, name)
            stream = self._streams.setdefault(name, Stream(codec))
            stream.watchers.add(fd)
            stream.key_wanted = True
        return True

    def _forget_ended(self) -> None:
        for fd in ended(self.monitor):
            for name in self._subscribers.pop(fd, Subscriber()).topics:
                self._leave(name, fd)

    def _leave(self, name: bytes, fd: int) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            stream.watchers.discard(fd)
            self._drop_unwatched(name, stream)

    def _drop_unwatched(self, name: bytes, stream: Stream) -> None:
        if not stream.watchers and not stream.receivers:
            del self._streams[name]

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._newest or self._closing)
                if self._closing:
                    return
                hosted, tick = self._newest.pop(next(iter(self._newest)))
            for codec in CODECS:
                stream = self._streams.get(topic(hosted.id, codec))
                if stream is not None:
                    self._encode(stream, hosted, tick)

    def _encode(self, stream: Stream, hosted: HostedSession, tick: Tick) -> None:
        try:
            header, packets = stream.encode(hosted, tick)
        except Exception:  # of one stream, and no reason to leave all others without theirs
            logging.getLogger("playhead").exception("a tick could not be encoded")
            stream.restart()
            return
        for receive in stream.receivers:
            receive(header, packets)
        if stream.watchers:
            parts = [topic(hosted.id, stream.codec), encode(header), *packets]
            self._post(lambda: self._send(parts))

    def _send(self, parts: list[bytes]) -> None:
        """On the server's thread; never waits: a watcher whose queue is full misses this tick."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)


@lru_cache(1024)
def _topics(session: str) -> frozenset[bytes]:
    """Those of all encodings, which every tick asks for."""
    return frozenset(topic(session, codec) for codec in CODECS)
