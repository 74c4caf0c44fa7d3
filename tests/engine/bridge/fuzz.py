"""Hostile messages by the thousand: a seeded source of them, and a run of it against a real server."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import msgpack
import psutil
import zmq

from playhead.engine.bridge.wire import moment_messages as m
from playhead.engine.bridge.wire import protocol as p
from playhead.world.action import Action
from tests.engine.bridge.conftest import ROOT, serve_process
from tests.engine.bridge.raw import Raw

BURST = 200
"""Messages that are sent before answers are read."""
LINES = 4
"""Connections that the hostile client has at a time."""
REQUESTS = [request.__struct_config__.tag for request in get_args(p.Request)]
FIELDS = sorted({name for request in get_args(p.Request) for name in request.__struct_fields__})


class Hostile:
    """Makes messages, each a list of parts; equal seeds make equal ones. `known` are ids of real sessions."""

    def __init__(self, seed: int, known: list[str]) -> None:
        self._random, self._known = random.Random(seed), known
        self._kinds: list[Callable[[], list[bytes]]] = [
            self._noise, self._truncated, self._damaged, self._nonsense, self._wrong_values, self._wild,
            self._nested, self._parts, self._long, self._hello,
        ]  # fmt: skip

    def message(self) -> list[bytes]:
        return self._random.choice(self._kinds)()

    def too_long(self) -> bytes:
        return b"\x91" * (p.MAX_REQUEST + self._random.randrange(1, 1000))

    def _noise(self) -> list[bytes]:
        return [self._random.randbytes(self._random.randrange(200))]

    def _truncated(self) -> list[bytes]:
        data = self._valid()
        return [data[: self._random.randrange(len(data))]]

    def _damaged(self) -> list[bytes]:
        data = bytearray(self._valid())
        for _ in range(self._random.randrange(1, 4)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        return [bytes(data)]

    def _nonsense(self) -> list[bytes]:
        return [msgpack.packb(self._value())]

    def _wrong_values(self) -> list[bytes]:
        """A request whose fields hold anything."""
        fields = self._random.sample(FIELDS, self._random.randrange(6))
        return [msgpack.packb({"type": self._random.choice(REQUESTS), **{f: self._value() for f in fields}})]

    def _wild(self) -> list[bytes]:
        return [self._valid()]

    def _nested(self) -> list[bytes]:
        return [self._random.choice((b"\x91", b"\x81\xa1a", b"\x81")) * self._random.randrange(1, 5000)]

    def _parts(self) -> list[bytes]:
        return [self._valid() for _ in range(self._random.randrange(2, 5))]

    def _long(self) -> list[bytes]:
        text = "x" * self._random.choice((101, 5000, 60000))
        return [msgpack.packb({"type": "observe", "id": 1, "session": text})]

    def _hello(self) -> list[bytes]:
        versions = [self._random.choice((1, 1, 1, 0, 2, -1, 2**40))]
        return [self._pack(p.HelloRequest, protocol=versions, client=self._text(), resume=self._text())]

    def _valid(self) -> bytes:
        """A request as it should be, of things that are there or not, in no order."""
        draw, session = self._random, self._session()
        actions = [Action(frozenset(draw.sample(("forward", "back", "jump"), draw.randrange(3))))]
        return draw.choice([
            lambda: self._pack(p.PingRequest),
            lambda: self._pack(p.WorldsRequest),
            lambda: self._pack(p.OpenRequest, scene=draw.choice(("", "", "../..", "tiny-scene"))),
            lambda: self._pack(p.AttachRequest, session=session),
            lambda: self._pack(p.CloseRequest, session=session),
            lambda: self._pack(p.ResetRequest, session=session, seed=draw.choice((None, 0, -1, 2**63))),
            lambda: self._pack(p.StepRequest, session=session, actions=actions * draw.randrange(1, 4)),
            lambda: self._pack(p.ActRequest, session=session, action=actions[0], hold=draw.choice((0.1, 60))),
            lambda: self._pack(p.ObserveRequest, session=session),
            lambda: self._pack(p.SnapshotRequest, session=session),
            lambda: self._pack(p.RestoreRequest, session=session, snapshot=self._text()),
            lambda: self._pack(p.ForkRequest, session=session),
            lambda: self._pack(p.BranchRequest, session=session, tick=draw.choice((0, 1, 2**60))),
            lambda: self._pack(p.StatsRequest, session=session),
            lambda: self._pack(m.TimelineRequest, session=session),
            lambda: self._pack(m.BookmarkRequest, session=session, name=self._text()),
            lambda: self._pack(m.SeekRequest, session=session, branch=1, tick=draw.choice((0, 1, 2**60))),
            lambda: self._pack(m.PictureRequest, session=session, branch=draw.choice((1, 2**60)), tick=0,
                                           small=draw.choice((True, False))),
            lambda: self._pack(p.ControlRequest, session=session,
                                           want=draw.choice(("take", "release", "grant"))),
            lambda: self._pack(p.TuneRequest, session=session, clock=draw.choice((None, "live", "lockstep"))),
            lambda: self._pack(p.HelloRequest, protocol=[1], client="hostile"),
        ])()  # fmt: skip

    def _pack(self, request: type[p.Message], **fields: Any) -> bytes:
        return p.encode(request(id=self._random.randrange(2**40), **fields))

    def _session(self) -> str:
        return self._random.choice([*self._known, self._text()])

    def _text(self) -> str:
        return self._random.choice(("", "a", "../../etc/passwd", "\x00", "é" * 40, "x" * 100))

    def _value(self, depth: int = 0) -> Any:
        draw = self._random
        plain = [None, True, -1, 0, 2**63, 1.5, float("nan"), float("inf"), "", "take", "\ud7ff", b"\xff", 7]
        if depth < 3 and draw.random() < 0.4:
            if draw.random() < 0.5:
                return [self._value(depth + 1) for _ in range(draw.randrange(4))]
            return {self._text(): self._value(depth + 1) for _ in range(draw.randrange(4))}
        return draw.choice(plain)


@dataclass
class Outcome:
    """What became of a run: answers by their kind, the neighbour's figures, the server's memory in MB.

    `ending`: seconds from SIGTERM to the server's end.
    """

    answers: Counter[str] = field(default_factory=Counter)
    neighbour: dict[str, float] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    said: str = ""
    ending: float = 0.0


@contextmanager
def neighbour(address: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A well-behaved client in a process of its own, and the id of its session."""
    command = [sys.executable, "-m", "tests.engine.bridge.neighbour", address]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        session = process.stdout.readline().strip()
        assert session, process.communicate()[1]
        yield process, session
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def attack(
    world: Path,
    scene: Path,
    count: int,
    seed: int,
    raw: int,
    tell: Callable[[int], None] = lambda n: None,
    elsewhere: bool = False,
) -> Outcome:
    """Sends so many hostile messages to a server of its own, beside a neighbour who plays all the while.

    And `raw` connections of those who do not speak ZeroMQ, to either port. `elsewhere`: as from a machine of
    its own, whose work takes nothing from the server's cores: it runs where they are idle, for good.
    """
    outcome = Outcome()
    limits = ["--rate", "1000000", "--memory", "64"]  # the rate is no help to the server here
    with serve_process(world, scene, *limits) as (server, address), neighbour(address) as (beside, known):
        memory = psutil.Process(server.pid).memory_info
        if elsewhere:  # Linux knows the priority of each thread; those that are made from here on inherit it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        hostile, draw, strangers = Hostile(seed, [known]), random.Random(seed), Raw(seed)
        ports = [address, next_port(address)]
        with zmq.Context() as context:
            lines = [_line(context, address, i > 0) for i in range(LINES)]
            for sent in range(0, count, BURST):
                assert server.poll() is None and beside.poll() is None, (server.poll(), beside.poll())
                for _ in range(min(BURST, count - sent)):
                    draw.choice(lines).send_multipart(hostile.message() or [b""])
                for _ in range(raw * min(sent + BURST, count) // count - raw * sent // count):
                    strangers.send(draw.choice(ports))
                for i, line in enumerate(lines):
                    _hear(line, outcome.answers)
                    if draw.random() < 0.02:  # gone in the middle of it, or cut for a message too long
                        if draw.random() < 0.5:
                            line.send(hostile.too_long())
                        line.close(0)
                        lines[i] = _line(context, address, draw.random() < 0.7)
                if sent % max(BURST, count // 20 // BURST * BURST) == 0:
                    outcome.memory.append(memory().rss / 2**20)
                    tell(sent)
            for line in lines:
                line.close(0)
        outcome.memory.append(memory().rss / 2**20)
        figures, said = beside.communicate(input="", timeout=60)
        assert beside.returncode == 0, said
        outcome.neighbour = json.loads(figures)
        began = time.perf_counter()
        server.terminate()
        outcome.said = server.communicate(timeout=60)[1]
        outcome.ending = time.perf_counter() - began
    return outcome


def next_port(address: str) -> str:
    """Where a server at `address` publishes frames, if the port was free."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + 1}"


def _line(context: zmq.Context, address: str, welcome: bool) -> zmq.Socket:
    made = context.socket(zmq.DEALER)
    made.linger = 0
    made.connect(address)
    if welcome:
        made.send(p.encode(p.HelloRequest(protocol=[p.VERSION], client="hostile")))
    return made


def _hear(line: zmq.Socket, answers: Counter[str]) -> None:
    """Reads what the server answers; it has to be of the protocol, all of it."""
    while line.poll(2):
        head, *_ = line.recv_multipart()
        reply = p.decode_reply(head)
        answers[reply.code if isinstance(reply, p.ErrorReply) else type(reply).__struct_config__.tag] += 1
