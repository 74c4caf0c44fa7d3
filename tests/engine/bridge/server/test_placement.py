"""New sessions go where most memory is free, and are refused in a sentence where none has room."""

import subprocess
import sys

import pytest
import torch

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.placement import Placement, session_bytes
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from tests.conftest import make_tiny_world
from tests.engine.bridge.conftest import ROOT, serve_process

GB = 2**30


def copies(count: int) -> list:
    worlds = [make_tiny_world() for _ in range(count)]
    for number, world in enumerate(worlds):
        world.device = torch.device("meta", number)  # a name to tell them apart by
    return worlds


def test_the_most_free_memory_with_room_is_chosen_and_what_is_being_opened_counts() -> None:
    first, second, third = worlds = copies(3)
    free = {0: 2 * GB, 1: 5 * GB, 2: 3 * GB}
    placement = Placement(lambda device: free[device.index])
    assert placement.place(worlds, GB, {}) is second
    placement.begin(second, 3 * GB)  # it takes that in a moment
    assert placement.place(worlds, GB, {}) is third
    placement.opened(second, 3 * GB)
    assert placement.place(worlds, 4 * GB, {}) is second
    with pytest.raises(BridgeError, match=r"takes 6.0 GB, and meta:0 has 2.0 GB, meta:1 has 5.0 GB") as told:
        placement.place(worlds, 6 * GB, {})
    assert told.value.code == "limit"
    free[1] = free[2] = 2 * GB
    assert placement.place(worlds, GB, {first: 2, second: 1, third: 3}) is second


def test_rows_that_are_there_already_count_as_free() -> None:
    wide, plain = make_tiny_world(one_pass=True), make_tiny_world(one_pass=True)
    wide.widen(4)
    placement = Placement(lambda device: 0)
    needed = session_bytes(wide)
    assert placement.left(wide) == 4 * needed and placement.left(plain) == 0
    held = wide.new_state()
    assert placement.left(wide) == 3 * needed
    assert placement.place([plain, wide], needed, {}) is wide
    del held


def test_one_copy_is_never_asked() -> None:
    (world,) = copies(1)
    assert Placement(lambda device: 0).place([world], GB, {}) is world


def test_a_server_places_sessions_and_says_where_each_is(tiny_scene) -> None:
    one, other = make_tiny_world(), make_tiny_world()
    free = {"value": 10 * GB}
    registry = Registry([one, other], [load_scene(tiny_scene)], lambda device: free["value"])
    server = Server(registry, "tcp://127.0.0.1:*", limits=Limits(sessions=8))
    thread = serve_in_background(server)
    client = Client(server.address, patience=60)
    try:
        names = [client.ask(p.OpenRequest(), p.OpenReply)[0].session for _ in range(4)]
        assert [world for hosted in server.sessions if (world := hosted.loop.world)].count(one) == 2
        seen = [client.ask(p.StepRequest(session=n, actions=[Action()]), p.StepReply)[1] for n in names]
        assert all((frames == seen[0]).all() for frames in seen)  # the copies are of one world
        stats = client.ask(p.StatsRequest(session=names[0]), p.StatsReply)[0].stats
        assert stats["device"] == "cpu"
        twin = client.ask(p.ForkRequest(session=names[0]), p.OpenReply)[0].session
        worlds = {h.id: h.loop.world for h in server.sessions}
        assert worlds[twin] is worlds[names[0]]  # its past lies there
        free["value"] = 0
        with pytest.raises(BridgeError, match="a session more takes"):
            client.ask(p.OpenRequest(), p.OpenReply)
    finally:
        client.close()
        server.stop()
        thread.join(20)


def test_serve_says_on_which_devices_it_plays(tiny_world_folder, tiny_scene) -> None:
    with serve_process(tiny_world_folder, tiny_scene, "--devices", "cpu,cpu") as (process, address):
        line = process.stdout.readline()
        assert line.startswith("on cpu (") and line.count(" free)") == 2
        client = Client(address, patience=60)
        session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
        assert client.ask(p.StepRequest(session=session, actions=[Action()]), p.StepReply)[0].tick == 1
        client.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--devices", "cpu,cpu", "--device", "cpu"), "--device and --devices contradict each other"),
        (("--devices", "cpu,,cpu"), "--devices cpu,,cpu is no list of devices"),
        (("--devices", "cpu,nowhere"), "there is no usable device `nowhere`"),
    ],
)
def test_devices_that_cannot_be_had_are_refused(options, said) -> None:
    ran = subprocess.run(
        [sys.executable, "main.py", "serve", "--bind", "tcp://127.0.0.1:*", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 2 and said in ran.stderr and ran.stderr.count("\n") == 1
