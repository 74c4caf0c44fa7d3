"""Whatever a server says, a client goes on, or ends with a sentence."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import pytest
import zmq

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.world.errors import PlayheadError
from tests.engine.bridge.conftest import ROOT
from tests.render.desktop import display

Answer = Callable[[dict], list[bytes]]


@contextmanager
def pretending(answer: Answer) -> Iterator[str]:
    """The address of a server that answers every request (as a map) with the parts of a message."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                if router.poll(20):
                    route, request = router.recv_multipart()
                    router.send_multipart([route, *answer(msgpack.unpackb(request))])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            ending.set()
            thread.join()


def welcome(request: dict, **changes: object) -> list[bytes]:
    said = {"type": "welcome", "id": request["id"], "protocol": 1, "server": "Playhead", "token": "a"}
    return [msgpack.packb({**said, "frames_port": 7771, "sessions": [], **changes})]


def then(*parts: object) -> Answer:
    """Welcomes, and answers what comes then with these parts; maps get the id of the request."""

    def answer(request: dict) -> list[bytes]:
        if request["type"] == "hello":
            return welcome(request)
        first, *rest = parts
        if isinstance(first, dict):
            first = msgpack.packb({**first, "id": request["id"]})
        return [first, *rest]

    return answer


OBSERVED = {"type": "observed", "session": "s", "tick": 1, "seed": 0, "shape": [1, 2, 2, 3]}
NONSENSE: dict[str, Answer] = {
    "no MessagePack": then(b"\xc1\xff garbage"),
    "an empty message": then(b""),
    "nesting without an end": then(b"\x91" * 5000),
    "no text": then(b"\x81\xa4type\xa4\xff\xfe\xfd\xfc"),
    "another kind of answer": then({"type": "pong"}),
    "frames that are missing": then(OBSERVED),
    "frames of another length": then(OBSERVED, bytes(11)),
    "more frames than one part": then(OBSERVED, bytes(12), bytes(12)),
    "a shape of less than nothing": then({**OBSERVED, "shape": [-1, -2, 2, 3]}, bytes(12)),
    "a shape that nobody has memory for": then({**OBSERVED, "shape": [2**60, 2**60, 2**60, 3]}, bytes(12)),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_an_answer_that_is_none_ends_what_was_asked_with_a_sentence(answer: Answer) -> None:
    with pretending(answer) as address:
        client = Client(address, "test", patience=20)
        with pytest.raises(PlayheadError, match="is no server of this protocol") as error:
            client.ask(p.ObserveRequest(session="s"), p.ObserveReply)
        client.close()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{"frames_port": 10**9}, {"sessions": 5}, {"server": "\x1b[2J"}, {"token": None}, {"more": 1}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_welcome_that_is_none_is_refused(changes: dict) -> None:
    def answer(request: dict) -> list[bytes]:
        return welcome(request, **changes)

    with pretending(answer) as address, pytest.raises(PlayheadError, match="is no server of this protocol"):
        Client(address, "test", patience=20)


def test_a_refusal_that_would_write_on_the_terminal_is_not_shown() -> None:
    refusal = {"type": "error", "code": "refused", "message": "\x1b]0;owned\x07 \x1b[31m"}
    with pretending(then(refusal)) as address:
        client = Client(address, "test", patience=20)
        with pytest.raises(PlayheadError) as error:
            client.ask(p.PingRequest(), p.PongReply)
        client.close()
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    "answer",
    [lambda request: [b"garbage"], then(b"\xc1"), then(OBSERVED, bytes(11))],
    ids=["for a welcome", "for what it has", "frames of another length"],
)
def test_a_window_that_is_connected_to_nonsense_says_so_and_ends(answer: Answer) -> None:
    with pretending(answer) as address, display() as screen:
        done = subprocess.run(
            [sys.executable, "main.py", "play", "--connect", address],
            cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, "DISPLAY": screen},
        )  # fmt: skip
    assert done.returncode != 0
    assert "is no server of this protocol" in done.stderr and "Traceback" not in done.stderr
