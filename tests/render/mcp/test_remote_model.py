"""A model plays the sessions of a running server, under its leases and limits, beside everybody else."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from mcp.client import Client as ModelClient

from playhead.controls.script import ScriptSource
from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.server.shared import SharedPlay
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.loop import Loop
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.main import main
from playhead.render.mcp.remote_line import RemoteLine
from playhead.render.mcp.remote_sessions import RemoteSessions
from playhead.render.mcp.remote_tools import add_remote_tools
from playhead.render.mcp.tool_server import make_tool_server
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.world import World
from tests.command_line import only_sentence
from tests.engine.bridge.conftest import serve_process, wait_for
from tests.frame_hashes import frame_hashes, recorded_hashes
from tests.render.mcp.conftest import ROOT, Model, stdio_model

pytestmark = pytest.mark.anyio
MOVES = [{"buttons": ["forward"], "ticks": 5}, {"buttons": ["w", "turn_right"], "ticks": 3}, {"ticks": 2}]
SAME = [{"forward"}] * 5 + [{"forward", "turn_right"}] * 3 + [set()] * 2


def films(world, scene_folder: Path, held=SAME) -> list[np.ndarray]:
    """The frames of the start and of each tick when a session plays these."""
    scene = load_scene(scene_folder)
    session = Session(world, scene.context, scene.seed, scene)
    return [session.frames, *(session.step(Action(frozenset(one))) for one in held)]


@contextmanager
def serving(world, scene: Path, folder: Path | None, bind="tcp://127.0.0.1:*", **limits) -> Iterator[Server]:
    registry = Registry([world], [load_scene(scene)])
    server = Server(registry, bind, limits=Limits(**limits), recordings=folder)
    thread = serve_in_background(server)
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@asynccontextmanager
async def modelling(address: str, alone: bool = True) -> AsyncIterator[Model]:
    """What a model has at hand, over a server's address."""
    sessions = await asyncio.to_thread(lambda: RemoteSessions(RemoteLine(address, None), alone))
    tools = make_tool_server(sessions)
    add_remote_tools(tools, sessions)
    try:
        async with ModelClient(tools) as client:
            yield Model(client)
    finally:
        sessions.close()


@pytest.fixture
def server(tiny_world, tiny_scene, tmp_path) -> Iterator[Server]:
    with serving(tiny_world, tiny_scene, tmp_path / "kept") as made:
        yield made


@pytest.fixture
def person(server) -> Iterator[Client]:
    """Somebody else who plays there."""
    made = Client(server.address, "a person", patience=20)
    yield made
    made.close()


async def test_over_real_pipes_it_plays_what_a_script_does_in_the_servers_session(
    tiny_world_folder, tiny_scene, tmp_path
):
    kept = tmp_path / "kept"
    with serve_process(tiny_world_folder, tiny_scene, "--recordings", str(kept)) as (_, address):
        command = [str(ROOT / "main.py"), "mcp", "--connect", address]
        async with stdio_model(command, tmp_path) as model:
            opened = await model.call("open")
            assert opened.said["buttons"][0] == "forward" and opened.said["recorded"] is True
            acted = await model.call("act", moves=MOVES, pictures=3)
            assert (acted.said["branch"], acted.said["tick"]) == (1, 10)
            assert len(acted.said["pictures_of_ticks"]) == 3
            await model.call("save", name="corridor")
    hashes = recorded_hashes(kept / "corridor.playhead")
    assert hashes == frame_hashes(films(World.load(str(tiny_world_folder), "cpu"), tiny_scene))


async def test_it_looks_and_goes_back_as_in_a_play_of_its_own(server, tiny_world, tiny_scene, tmp_path):
    first, turned = (
        films(tiny_world, tiny_scene),
        films(tiny_world, tiny_scene, SAME[:6] + [{"turn_left"}] * 4),
    )
    async with modelling(server.address) as model:
        opened = await model.call("open")
        assert np.array_equal(opened.pictures[0], first[0][-1])
        acted = await model.call("act", moves=MOVES, pictures=4)
        for tick, picture in zip(acted.said["pictures_of_ticks"], acted.pictures, strict=True):
            assert np.array_equal(picture, first[tick][-1])
        assert (await model.call("act", moves=[{}], pictures=0)).pictures == []
        back = await model.call("rewind", ticks=5)
        assert back.said["tick"] == 6 and np.array_equal(back.pictures[0], first[6][-1])
        assert (await model.call("bookmark", name="the fork")).said["at"] == "1:6"
        acted = await model.call("act", moves=[{"buttons": ["turn_left"], "ticks": 4}])
        assert (acted.said["branch"], acted.said["tick"]) == (2, 10)
        assert np.array_equal(acted.pictures[0], turned[10][-1])
        for moment, tick in (("1:10", 10), ("the fork", 6), ("1:", 11), ("2:8", 8), ("10", 10), ("", 10)):
            assert (await model.call("branch", moment=moment)).said["tick"] == tick
        assert "no moment" in await model.refusal("branch", moment="never")
        await model.refusal("branch", moment="9:")
        listed = (await model.call("list")).said
        assert [(b["branch"], b["from"], b["last_tick"]) for b in listed["branches"]] == [
            (1, "the start", 11), (2, "1:6", 10)
        ]  # fmt: skip
        assert listed["bookmarks"] == [{"name": "the fork", "at": "1:6"}]
        uri = listed["worlds"][0]["keys"]
        assert "| `forward` | w, up |" in (await model.client.read_resource(uri)).contents[0].text
        await model.call("save", name="both")
        assert Recording.read(tmp_path / "kept" / "both.playhead").tree.branch(2).parent == Point(1, 6)
        await model.call("close")
        assert "no session open" in await model.refusal("look")
    assert not len(server.sessions)


async def test_what_cannot_be_is_refused_before_anything_is_played(server):
    async with modelling(server.address) as model:
        assert "no world `other`" in await model.refusal("open", world="other")
        assert "no scene `nowhere`" in await model.refusal("open", scene="nowhere")
        await model.call("open")
        moves = [{"buttons": ["forward"], "ticks": 3}, {"buttons": ["jump"]}]
        assert "`jump`" in await model.refusal("act", moves=moves, pictures=4)
        assert "no name for a recording" in await model.refusal("save", name="../out")
        assert (await model.call("look")).said["tick"] == 0


async def test_the_servers_limits_are_a_models_too(tiny_world, tiny_scene):
    with serving(tiny_world, tiny_scene, None, sessions=1) as server:
        async with modelling(server.address) as model:
            assert (await model.call("open")).said["recorded"] is False
            assert "close one" in await model.refusal("open")
            await model.call("act", moves=[{}])
            assert "not kept" in await model.refusal("rewind", ticks=1)
            assert "--recordings" in await model.refusal("save", name="x")


async def test_it_plays_in_a_persons_session_once_that_is_handed_over(server, person):
    opened, _ = person.ask(p.OpenRequest(clock="live", seekable=True), p.OpenReply)
    session = opened.session
    async with modelling(server.address) as model:
        joined = await model.call("join", session=session)
        assert joined.said["session"] == session and joined.pictures[0].shape == (64, 64, 3)
        assert "control" in await model.refusal("act", moves=[{}])
        grant = p.ControlRequest(session=session, want="grant")
        assert not person.ask(grant, p.ControlReply)[0].in_control
        acted = await model.call("act", moves=MOVES)
        assert acted.said["played"] == 10
        assert (await model.call("look")).said["tick"] == acted.said["tick"]  # it stands still meanwhile
        assert "another one controls" in refused(person, p.ActRequest(session=session, action=Action()))
        assert person.ask(p.ControlRequest(session=session, want="take"), p.ControlReply)[0].in_control
        assert "control" in await model.refusal("act", moves=[{}])  # the owner may always have it back
        person.ask(p.TuneRequest(session=session, clock="live"), p.DoneReply)
        person.ask(p.ActRequest(session=session, action=Action()), p.ActReply)
        asked = (await model.call("control", want="take")).said
        assert (asked["in_control"], asked["holder"]) == (False, "a person")
        await model.call("close")  # which only leaves it
        assert person.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].session == session


async def test_it_hands_its_own_session_to_who_asks_running(server, person):
    async with modelling(server.address) as model:
        session = (await model.call("open")).said["session"]
        assert "nobody asks" in await model.refusal("control", want="grant")
        await model.call("act", moves=[{}])  # which went on in lockstep
        taken, _ = person.ask(p.ControlRequest(session=session, want="take"), p.ControlReply)
        assert not taken.in_control
        assert (await model.call("control", want="grant")).said["holder"] == "a person"
        attached, _ = person.ask(p.AttachRequest(session=session), p.OpenReply)
        assert attached.clock == "live" and attached.in_control
        assert (await model.call("control", want="take")).said["in_control"]  # it is the owner
        here = (await model.call("act", moves=[{}])).said["tick"]
        assert (await model.call("look")).said["tick"] == here


async def test_the_session_of_a_window_is_joined_and_goes_back_to_the_person_there(tiny_world, tiny_scene):
    scene = load_scene(tiny_scene)
    shared = SharedPlay("tcp://127.0.0.1:*")
    loop = Loop(
        lambda: Session(tiny_world, scene.context, scene.seed, scene), shared.source(ScriptSource([]))
    )
    shared.serve(loop, lambda: scene)
    loop.start()
    try:
        async with modelling(shared.address) as model:
            opened = (await model.call("open")).said  # there is nothing else to open
            assert (opened["scene"], opened["recorded"]) == ("tiny-scene", False)
            asked = (await model.call("control", want="take")).said
            assert (asked["in_control"], asked["holder"]) == (False, "window")
            assert "control" in await model.refusal("act", moves=[{}])
            shared.hand_over()
            wait_for(lambda: shared.control.holder.startswith("a model"))
            here = (await model.call("act", moves=MOVES)).said["tick"]
            assert (await model.call("look")).said["tick"] == here and shared.control.lockstep
            await model.call("close")
            wait_for(lambda: not shared.control.holder and not shared.control.lockstep)
        assert loop.alive
    finally:
        loop.stop()
        loop.join()
        shared.close()


def refused(client: Client, request: p.Message) -> str:
    with pytest.raises(p.BridgeError) as raised:
        client.ask(request, p.DoneReply)
    return str(raised.value)


async def test_after_the_server_was_started_anew_it_opens_another_session(tiny_world, tiny_scene):
    with serving(tiny_world, tiny_scene, None) as server:
        address = server.address
        holding = modelling(address)
        model = await holding.__aenter__()
        await model.call("open")
    try:
        assert "lost" in (said := await model.refusal("look")) or "answer" in said
        with serving(tiny_world, tiny_scene, None, bind=address):
            assert "expired" in await model.refusal("look")
            assert (await model.call("open")).said["tick"] == 0
    finally:
        await holding.__aexit__(None, None, None)


async def test_of_several_connections_each_names_its_session(server):
    async with modelling(server.address, alone=False) as model:
        name = (await model.call("open")).said["session"]
        assert "which session" in await model.refusal("look")
        assert (await model.call("look", session=name)).said["tick"] == 0
        assert "which session" in await model.refusal("join")
        assert "expired" in await model.refusal("join", session="nothing")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--connect", "tcp://127.0.0.1:1", "--world", "x"], "--world is the server's"),
        (["--connect", "tcp://127.0.0.1:1", "--sessions", "2"], "--sessions is the server's"),
        (["--connect", "tcp://127.0.0.1:1", "--no-record"], "--no-record is the server's"),
        (["--connect", "nonsense"], "address"),
        (["--key", "x"], "--connect"),
        (["--connect", "tcp://127.0.0.1:1"], "nothing listens there"),
    ],
)
def test_options_that_are_the_servers_are_refused_and_so_is_an_address_of_none(
    options, said, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["playhead", "mcp", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert said in only_sentence(ended.value.code, *capsys.readouterr())
