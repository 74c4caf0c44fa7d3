"""Watching from afar: every tick in order, and after a loss from the next picture that stands for itself."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq

from playhead.engine.bridge.client.watcher import Watcher
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.frame_codecs import make_encoder
from playhead.engine.bridge.wire.protocol import FrameHeader

TOPIC = protocol.topic("s", "h264")
HEIGHT, WIDTH = 48, 64


class Studio:
    """A publisher that sends H.264, and can lose what it sends."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.xpub_verboser = True
        self.socket.linger = 0
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.encoder = make_encoder("h264", HEIGHT, WIDTH)
        self.number = 0

    def grey(self, number: int) -> int:
        return 16 * (number % 12) + 20

    def send(self, key: bool = False, lost: bool = False) -> None:
        """Encodes a tick of one grey and sends it, unless it is to be lost on the way."""
        self.number += 1
        frame = np.full((HEIGHT, WIDTH, 3), self.grey(self.number), np.uint8)
        packet, is_key = self.encoder.encode(frame, key)
        header = FrameHeader(
            session="s", number=self.number, tick=self.number, seed=0, begins=False, action=None,
            codec="h264", key=is_key, height=HEIGHT, width=WIDTH, period=0.05, ready=time.perf_counter(),
            stats=None,
        )  # fmt: skip
        if not lost:
            self.socket.send_multipart([TOPIC, protocol.encode(header), packet])

    def wait_for_watcher(self, event: bytes) -> None:
        assert self.socket.poll(10_000)
        assert self.socket.recv() == event + TOPIC


@pytest.fixture
def studio() -> Iterator[Studio]:
    made = Studio()
    yield made
    made.context.destroy(0)


@pytest.fixture
def watch(studio) -> Iterator[Callable[[], list[tuple[int, np.ndarray]]]]:
    made: list[Watcher] = []

    def watch() -> list[tuple[int, np.ndarray]]:
        def open_socket() -> zmq.Socket:
            socket = studio.context.socket(zmq.SUB)
            socket.linger = 0
            socket.connect(f"tcp://127.0.0.1:{studio.port}")
            socket.subscribe(TOPIC)
            return socket

        seen: list[tuple[int, np.ndarray]] = []
        made.append(Watcher(open_socket, lambda header, frames: seen.append((header.tick, frames))))
        return seen

    yield watch
    for watcher in made:
        watcher.close()


def wait(look: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not look():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_what_comes_is_decoded_in_order(studio, watch):
    seen = watch()
    studio.wait_for_watcher(b"\1")
    for number in range(6):
        studio.send(key=number == 0)
    wait(lambda: len(seen) == 6)
    assert [tick for tick, _ in seen] == [1, 2, 3, 4, 5, 6]
    for tick, frames in seen:
        assert frames.shape == (1, HEIGHT, WIDTH, 3)
        assert abs(float(frames.mean()) - studio.grey(tick)) < 4


def test_after_a_loss_nothing_broken_is_shown_and_a_beginning_is_asked_for(studio, watch):
    seen = watch()
    studio.wait_for_watcher(b"\1")
    studio.send(key=True)
    studio.send()
    studio.send(lost=True)
    studio.send()
    studio.wait_for_watcher(b"\0")
    studio.wait_for_watcher(b"\1")
    studio.send()
    studio.send(key=True)
    studio.send()
    wait(lambda: len(seen) == 4)
    assert [tick for tick, _ in seen] == [1, 2, 6, 7]
    assert abs(float(seen[-1][1].mean()) - studio.grey(7)) < 4


def test_what_is_no_tick_is_not_shown_and_harms_nothing(studio, watch):
    seen = watch()
    studio.wait_for_watcher(b"\1")
    for parts in ([], [b"x"], [b"\xc1" * 20, b"y"]):
        studio.socket.send_multipart([TOPIC, *parts])
    studio.send(key=True)
    wait(lambda: seen)
    assert [tick for tick, _ in seen] == [1]
