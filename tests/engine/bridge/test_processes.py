"""Clients that die, hang or come and go by the hundred: real processes, and what a server makes of them."""

import gc
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.commands import serve
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire import protocol as p
from playhead.world import interrupts
from playhead.world.action import Action
from tests.engine.bridge.conftest import ROOT, serve_process, until, wait_for, wants
from tests.engine.bridge.soak import soak

FORWARD = Action(frozenset({"forward"}))
DOOMED = """
import sys
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.client.client import Client
from playhead.world.action import Action

client = Client(sys.argv[1], "doomed")
session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
client.ask(p.StepRequest(session=session, actions=[Action(frozenset(["forward"]))]), p.StepReply)
client.send(p.StepRequest(session=session, actions=[Action(frozenset(["forward"]))] * 200))
client.ask(p.PingRequest(), p.PongReply)  # by now the step is under way
print(session, client.welcome.token, flush=True)
client.wait(600)
"""


@pytest.fixture(scope="module")
def served(tiny_world_folder, tiny_scene) -> Iterator[tuple[psutil.Process, str]]:
    with serve_process(tiny_world_folder, tiny_scene) as (process, address):
        yield psutil.Process(process.pid), address
        assert process.poll() is None


@contextmanager
def doomed(address: str) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """A client in the midst of a long step: its process, its session and its token."""
    command = [sys.executable, "-c", DOOMED, address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        session, token = process.stdout.readline().split()
        yield process, session, token
    finally:
        process.kill()
        process.communicate()


def test_a_client_killed_mid_step_leaves_a_session_that_its_successor_goes_on_with(served):
    _, address = served
    with doomed(address) as (process, session, token):
        process.send_signal(signal.SIGKILL)
        process.wait()
        other = Client(address, "other", patience=30)
        other.ask(p.AttachRequest(session=session), p.OpenReply)
        while not other.ask(wants(session, "take"), p.ControlReply)[0].in_control:
            until(other, p.ControlReply, in_control=True)
        reached = other.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick
        assert reached == 201  # what was asked for was played to its end
        assert other.ask(p.StepRequest(session=session, actions=[FORWARD]), p.StepReply)[0].tick == 202
        heir = Client(address, "doomed", patience=30, resume=token)
        assert heir.ask(wants(session, "take"), p.ControlReply)[0].in_control
        heir.ask(p.CloseRequest(session=session), p.DoneReply)
        assert until(other, p.EndedPush).reason == "doomed closed it"
        heir.close()
        other.close()


def test_a_half_open_connection_is_noticed_and_the_control_given_on(served):
    """The client's process is stopped: its system keeps the connection up, and nothing is answered on it."""
    _, address = served
    with doomed(address) as (process, session, _):
        other = Client(address, "other", patience=30)
        assert not other.ask(wants(session, "take"), p.ControlReply)[0].in_control
        process.send_signal(signal.SIGSTOP)
        assert until(other, p.ControlReply, in_control=True).holder == "other"
        other.ask(p.CloseRequest(session=session), p.DoneReply)
        other.close()


def test_five_hundred_connects_and_disconnects_leave_nothing_behind(served):
    """By halves with a hello and a session, by halves with neither, some of them at the same time."""
    server, address = served
    beside = Client(address, "beside", patience=30)
    session = beside.ask(p.OpenRequest(), p.OpenReply)[0].session
    host, port = address.removeprefix("tcp://").split(":")

    def come_and_go(count: int) -> None:
        for _ in range(count // 10):
            clients = [Client(address, "guest", patience=30) for _ in range(5)]
            bare = [socket.create_connection((host, int(port))) for _ in range(5)]
            clients[0].watch(session)
            beside.ask(p.StepRequest(session=session, actions=[FORWARD]), p.StepReply)
            for line in (*clients, *bare):
                line.close()

    come_and_go(50)
    wait_for(lambda: len(server.net_connections("tcp")) <= 6)
    files, memory = server.num_fds(), server.memory_info().rss
    come_and_go(500)
    wait_for(lambda: server.num_fds() <= files)
    assert server.memory_info().rss - memory < 20 * 2**20
    assert beside.ask(p.StepRequest(session=session, actions=[FORWARD]), p.StepReply)[0].tick == 56
    beside.close()


def test_requests_of_every_kind_in_no_order_leave_nothing_behind(tiny_world_folder, tiny_scene, tmp_path):
    """The short form of `python -m tests.tools.long bridge-soak`: nothing fails, and the folder is empty."""
    soak(tiny_world_folder, tiny_scene, tmp_path / "kept", count=80, every=250)
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_a_server_has_loaded_is_not_gone_through_again_while_it_serves(
    tiny_world_folder, tiny_scene, monkeypatch
):
    """By Python's collector, which holds up everybody's ticks meanwhile."""
    seen: list[int] = []

    def run(server: Server) -> None:
        seen.append(len(gc.get_objects()))
        server.stop()
        serving(server)

    serving = Server.run
    monkeypatch.setattr(Server, "run", run)
    handlers = {number: signal.getsignal(number) for number in interrupts.ending()}
    moment, often = sys.getswitchinterval(), gc.get_threshold()
    try:
        serve(bind="tcp://127.0.0.1:*", world=[str(tiny_world_folder)], scene=[tiny_scene], device="cpu")
    finally:
        gc.unfreeze()
        gc.set_threshold(*often)
        sys.setswitchinterval(moment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert seen[0] < len(gc.get_objects()) / 20


def test_a_server_told_to_stop_says_so_to_its_clients_and_ends_well(tiny_world_folder, tiny_scene):
    """In the midst of ticks: of a live session, and of a long step."""
    with serve_process(tiny_world_folder, tiny_scene) as (process, address):
        live, stepping = Client(address, "live", patience=30), Client(address, "stepping", patience=30)
        sessions = {live: live.ask(p.OpenRequest(clock="live"), p.OpenReply)[0].session}
        sessions[stepping] = stepping.ask(p.OpenRequest(), p.OpenReply)[0].session
        stepping.send(p.StepRequest(session=sessions[stepping], actions=[FORWARD] * 30, frames="none"))
        stepping.ask(p.PingRequest(), p.PongReply)
        process.send_signal(signal.SIGTERM)
        for client, session in sessions.items():
            assert until(client, p.EndedPush, session=session).reason == "the server stops"
            client.close()
        assert process.wait(30) == 0 and process.stderr.read() == ""


LONG_TICKS = """
import torch
from playhead.engine import batcher
from playhead.main import main

def dream(sessions, actions, meanwhile):
    print("it dreams", flush=True)
    for _ in range(1_000_000):
        torch.ones(300, 300) @ torch.ones(300, 300)

batcher.step_together = dream
main()
"""


def test_a_server_told_to_stop_ends_well_in_the_midst_of_a_tick_that_takes_minutes(
    tiny_world_folder, tiny_scene, tmp_path
):
    """It neither waits for it nor is aborted by it, and what was saved is kept."""
    options = tiny_world_folder, tiny_scene, "--recordings", str(tmp_path / "kept")
    with serve_process(*options, program=("-c", LONG_TICKS)) as (process, address):
        client = Client(address, "test", patience=30)
        saved = client.ask(p.OpenRequest(), p.OpenReply)[0].session
        client.ask(p.SaveRequest(session=saved, name="kept"), p.SaveReply)
        client.send(p.OpenRequest(clock="live"))  # whose answer may have to wait for the tick
        assert process.stdout.readline() == "it dreams\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and process.stderr.read() == ""
        client.close()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["kept.playhead"]
