"""A server of the tiny world, in this process or in one of its own, and clients of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import zmq

from playhead.engine import work
from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.auth import ServerKeys, new_keys
from playhead.engine.recording import edit
from playhead.engine.recording.rows import Rows
from playhead.scenes.scene import load_scene

ROOT = Path(__file__).parents[3]
Pushed = TypeVar("Pushed", bound=p.Message)


@contextmanager
def serving(
    world, scene, limits: Limits | None = None, trusted: ServerKeys | None = None, bind="tcp://127.0.0.1:*"
) -> Iterator[Server]:
    server = Server(Registry([world], [load_scene(scene)]), bind, trusted, limits)
    thread = serve_in_background(server)
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def server(tiny_world, tiny_scene) -> Iterator[Server]:
    with serving(tiny_world, tiny_scene) as made:
        yield made


@pytest.fixture
def connect(server) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def connect(name: str = "test", patience: float = 20) -> Client:
        made.append(Client(server.address, name, patience=patience))
        return made[-1]

    yield connect
    for client in made:
        client.close()


def wait_for(look: Callable[[], object]) -> None:
    for _ in range(3000):
        if look():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


class SlowDisk:
    """Has every row of a copy take its time, and counts them; each is a piece of its own."""

    def __init__(self, monkeypatch, seconds: float) -> None:
        self.rows = 0

        class SlowRows(Rows):
            def add_tick(rows, *row):
                self.rows += 1
                time.sleep(seconds)
                super().add_tick(*row)

        monkeypatch.setattr(edit, "Rows", SlowRows)
        monkeypatch.setattr(work, "PIECE", 1)


def wants(session: str, want: str) -> p.ControlRequest:
    return p.ControlRequest(session=session, want=want)


def until(client: Client, kind: type[Pushed], id: int = 0, **fields: object) -> Pushed:
    """The next push of a kind, an id and such fields, as soon as it is there; others are forgotten."""
    while client.pushes or client.wait(20):
        while client.pushes:
            push = client.pushes.popleft()
            known = isinstance(push, kind) and push.id == id
            if known and all(getattr(push, name) == value for name, value in fields.items()):
                return push
    raise AssertionError(f"no {kind.__name__} came with {fields}")


def frames_of(watcher: zmq.Socket) -> Iterator[tuple[p.FrameHeader, np.ndarray]]:
    """The headers and raw frames that a watcher receives."""
    while watcher.poll(20_000):
        _, header, *frames = watcher.recv_multipart()
        header = p.decode_header(header)
        yield (
            header,
            np.stack([np.frombuffer(f, np.uint8).reshape(header.height, header.width, 3) for f in frames]),
        )
    raise AssertionError("nothing is published")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder of keys: of a server, of a laptop that is `allowed`, and of a stranger."""
    return make_keys(tmp_path)


def make_keys(folder: Path) -> Path:
    for name in ("server", "laptop", "stranger"):
        new_keys(name, folder)
    (folder / "allowed").mkdir()
    shutil.copy(folder / "laptop.key", folder / "allowed")
    return folder


@contextmanager
def serve_process(
    world: Path,
    scene: Path,
    *options: str,
    bind: str = "tcp://127.0.0.1:*",
    program: Sequence[str] = ("main.py",),
):
    """`main.py serve` in a process of its own, or another program. Yields it and its address."""
    command = [sys.executable, *program, "serve", "--bind", bind, "--world", str(world),
               "--scene", str(scene), *options]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert " at " in line, process.stderr.read() if process.poll() is not None else line
        yield process, line.split(" at ")[1].strip()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
