"""`serve --ray` for real: a Ray of two CPU workers, of which one is killed under a playing client."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from playhead.engine.bridge.client.remote_session import RemoteSession, SessionOptions
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.auth import load_client_keys
from playhead.world.action import Action
from tests.conftest import BUTTONS
from tests.engine.bridge.conftest import ROOT

LONG = 400.0
"""Seconds that Ray, a host or a client's way back may take on two cores that do much else."""


@contextmanager
def ray_fleet(*options: str) -> Iterator[tuple[psutil.Process, str]]:
    """`serve --ray local` in a process of its own, and its address. Nothing that it began is left behind."""
    command = [sys.executable, "main.py", "serve", "--ray", "local", "--bind", "tcp://127.0.0.1:*", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    begun = psutil.Process(process.pid)
    late = threading.Timer(LONG, process.kill)
    late.start()
    try:
        line = process.stdout.readline()
        late.cancel()
        assert " at " in line, process.communicate(timeout=LONG)[1]
        yield begun, line.split(" at ")[1].strip()
    finally:
        late.cancel()
        family = begun.children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LONG)
        _, left = psutil.wait_procs(family, timeout=60)
        for other in left:
            other.kill()
    assert process.returncode == 0 and not left


def host_at(fleet: psutil.Process, address: str) -> psutil.Process:
    """The worker process that listens at an address."""
    port = int(address.rpartition(":")[2])
    for worker in fleet.children(recursive=True):
        try:
            ports = {line.laddr.port for line in worker.net_connections("tcp") if line.status == "LISTEN"}
        except psutil.Error:
            continue
        if port in ports:
            return worker
    raise AssertionError(f"nobody listens at {address}")


def actions(count: int) -> list[Action]:
    draws = np.random.default_rng(0)
    return [Action(frozenset(b for b in BUTTONS if draws.random() < 0.4)) for _ in range(count)]


def step(remote: RemoteSession, held: list[Action]) -> np.ndarray:
    stepped = p.StepRequest(session=remote.opened.session, actions=held)
    return remote.client.ask(stepped, p.StepReply)[1]


def come_back(remote: RemoteSession) -> None:
    """Until a host plays the session again."""
    until = time.monotonic() + LONG
    remote.come_back(lambda: time.monotonic() > until, lambda sentence: None)
    assert not remote.client.lost


def test_a_client_plays_on_where_its_host_is_killed_and_ray_begins_another(
    tiny_world_folder, tiny_scene, keys
) -> None:
    keyed = "--key", str(keys / "server.key_secret"), "--clients", str(keys / "allowed")
    served = "--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--device", "cpu"
    with ray_fleet("--hosts", "2", "--keep", "0.2", *served, *keyed) as (fleet, address):
        mine = load_client_keys(keys / "laptop.key_secret", keys / "server.key")
        remote = RemoteSession(address, mine, SessionOptions(seed=3))
        session, held = remote.opened.session, actions(12)
        seen = [*step(remote, held[:6])]
        first = remote.client.address
        for end in (9, 12):  # the second time it is the host that Ray began again, or the other one
            time.sleep(2)  # for a snapshot; where none was taken yet it goes on from an earlier one
            killed = host_at(fleet, remote.client.address)
            killed.send_signal(signal.SIGKILL)
            killed.wait(60)
            come_back(remote)
            assert remote.same and remote.opened.session == session
            assert remote.client.address != first and 0 <= remote.opened.tick <= end - 3
            assert "another one goes on from tick" in remote.remark
            first = remote.client.address
            seen = [*seen[: remote.opened.tick], *step(remote, held[remote.opened.tick : end])]
        remote.close()
        again = RemoteSession(address, mine, SessionOptions(seed=3))
        assert np.array_equal(step(again, held), seen)  # nobody was killed under this one
        again.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ray", "local", "--web", "127.0.0.1:0"), "--web, --recordings and --devices are for one server"),
        (("--hosts", "2"), "--hosts and --keep are for --ray; add it"),
        (("--ray", "127.0.0.1:1"), "there is no Ray at 127.0.0.1:1"),
        (("--ray", "ray://there"), "--ray ray://there is no address of a Ray"),
    ],
)
def test_what_does_not_go_with_a_fleet_is_refused_in_a_sentence(options, said, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "main.py", "serve", "--bind", "tcp://127.0.0.1:*", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip
    assert ran.returncode == 2 and f"playhead: {said}" in ran.stderr and "Traceback" not in ran.stderr
