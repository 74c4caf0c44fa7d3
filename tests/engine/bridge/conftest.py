"""A server of the tiny world, in this process or in one of its own, and clients of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tomli_w

from engine.bridge.client import Client
from engine.bridge.hall import Hall
from engine.bridge.server import Limits, Server, serve_in_background
from scenes.scene import SceneFields, load_scene
from tests.conftest import make_tiny_context

ROOT = Path(__file__).parents[3]
SEED = 11


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "tiny-scene"
    folder.mkdir()
    fields = SceneFields("tiny-scene", "A tiny scene", "random", "tiny", SEED, "context.npz")
    (folder / "scene.toml").write_text(tomli_w.dumps(msgspec.to_builtins(fields)), "utf-8")
    context = make_tiny_context()
    np.savez(folder / "context.npz", frames=context.frames, actions=context.actions)
    return folder


@contextmanager
def serving(world, scene, limits: Limits | None = None) -> Iterator[Server]:
    server = Server(Hall([world], [load_scene(scene)]), "tcp://127.0.0.1:*", limits=limits)
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

    def connect(name: str = "test") -> Client:
        made.append(Client(server.address, name, patience=20))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@contextmanager
def serve_process(world: Path, scene: Path, *options: str, bind: str = "tcp://127.0.0.1:*"):
    """`main.py serve` in a process of its own. Yields it and its address."""
    command = [sys.executable, "main.py", "serve", "--bind", bind, "--world", str(world),
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
