"""A model's client plays over real pipes: what it does is what a script does, and nothing is lost."""

import os
import subprocess
import sys

import numpy as np
import pytest

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.replay import verify
from playhead.engine.recording.tree import Point
from playhead.engine.rollout import rolling
from playhead.engine.session import Session
from playhead.engine.timeline.timeline import Timeline
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.world import World
from tests.render.mcp.conftest import ROOT, stdio_model

MOVES = [{"buttons": ["forward"], "ticks": 5}, {"buttons": ["w", "turn_right"], "ticks": 3}, {"ticks": 2}]
SAME = (
    [Action(frozenset({"forward"}))] * 5 + [Action(frozenset({"forward", "turn_right"}))] * 3 + [Action()] * 2
)
"""What these moves are, tick by tick; `w` is a key."""

pytestmark = pytest.mark.anyio


def scripted(world_folder, scene_folder, path, actions=SAME) -> tuple[list[np.ndarray], list[bytes]]:
    """The frames of each tick and their recorded hashes when a script plays."""
    world, scene = World.load(str(world_folder), "cpu"), load_scene(scene_folder)
    session = Session(world, scene.context, scene.seed, scene)
    timeline = Timeline(Recorder(path, world, scene.title))
    timeline.begin(session)
    frames = [session.frames, *rolling(session, actions, timeline)]
    timeline.close()
    return frames, [tick.hash for tick in Recording.read(path).tree.path(1)]


async def test_a_model_sees_and_records_what_a_script_does(command, tiny_world_folder, tiny_scene, tmp_path):
    frames, hashes = scripted(tiny_world_folder, tiny_scene, tmp_path / "script.playhead")
    async with stdio_model(command, tmp_path) as model:
        opened = await model.call("open")
        assert opened.said["buttons"][0] == "forward" and opened.said["tick"] == 0
        assert np.array_equal(opened.pictures[0], frames[0][-1])
        acted = await model.call("act", moves=MOVES, pictures=3)
        assert acted.said["played"] == acted.said["tick"] == 10
        seen = acted.said["pictures_of_ticks"]
        assert len(seen) == 3 and seen[-1] == 10
        for tick, picture in zip(seen, acted.pictures, strict=True):
            assert np.array_equal(picture, frames[tick][-1])
        saved = await model.call("save", name="corridor")
        assert saved.said["file"] == "corridor.playhead" and saved.said["ticks"] == 10
    kept = Recording.read(tmp_path / "kept" / "corridor.playhead")
    assert [tick.hash for tick in kept.tree.path(1)] == hashes and all(hashes)
    assert {tick.source for tick in kept.tree.path(1)} == {"model"}
    ended = [path for path in (tmp_path / "kept").glob("*.playhead") if path.stem != "corridor"]
    assert len(ended) == 1 and Recording.read(ended[0]).sealed  # what `play --continue` finds


async def test_going_back_loses_nothing_and_goes_on_exactly(command, tiny_world_folder, tiny_scene, tmp_path):
    turn = [Action(frozenset({"turn_left"}))] * 4
    other, _ = scripted(tiny_world_folder, tiny_scene, tmp_path / "other.playhead", SAME[:6] + turn)
    async with stdio_model(command, tmp_path) as model:
        await model.call("open")
        first = await model.call("act", moves=MOVES)
        back = await model.call("rewind", ticks=4)
        assert back.said["tick"] == 6 and back.said["exact"]
        assert np.array_equal(back.pictures[0], other[6][-1])
        mark = await model.call("bookmark", name="the fork")
        assert mark.said["at"] == "1:6"
        acted = await model.call("act", moves=[{"buttons": ["turn_left"], "ticks": 4}])
        assert (acted.said["branch"], acted.said["tick"]) == (2, 10)
        assert np.array_equal(acted.pictures[0], other[10][-1])
        there = await model.call("branch", moment="1:")
        assert np.array_equal(there.pictures[0], first.pictures[0])
        again = await model.call("branch", moment="the fork")
        assert np.array_equal(again.pictures[0], back.pictures[0])
        listed = await model.call("list")
        assert [b["last_tick"] for b in listed.said["branches"]] == [10, 10]
        assert listed.said["bookmarks"] == [{"name": "the fork", "at": "1:6"}]
        assert listed.said["worlds"][0]["scenes"] == ["tiny-scene"]
        await model.call("save", name="both")
        assert "both" in [row["name"] for row in (await model.call("list")).said["recordings"]]
    kept = Recording.read(tmp_path / "kept" / "both.playhead")
    assert kept.tree.branch(2).parent == Point(1, 6)
    assert verify(kept, World.load(str(tiny_world_folder), "cpu")) is None


async def test_pictures_come_at_the_size_that_is_asked_for(command, tmp_path):
    async with stdio_model(command, tmp_path) as model:
        own = (await model.call("open")).pictures[0]
        large = (await model.call("look", width=192)).pictures[0]
        assert np.array_equal(large, own.repeat(3, 0).repeat(3, 1))
        assert (await model.call("look", width=40)).pictures[0].shape == (40, 40, 3)
        assert (await model.call("act", moves=[{}], width=100)).pictures[0].shape == (100, 100, 3)
        assert (await model.call("act", moves=[{}], pictures=0)).pictures == []
        assert "16 to 2048" in await model.refusal("look", width=4)


async def test_what_cannot_be_is_refused_in_a_sentence_and_the_session_stays(command, tmp_path):
    async with stdio_model(command, tmp_path) as model:
        assert "no session open" in await model.refusal("look")
        assert "no scene `nowhere`" in await model.refusal("open", scene="nowhere")
        assert "no world `other`" in await model.refusal("open", world="other")
        assert "whole number" in await model.refusal("open", seed=-1)
        await model.call("open")
        assert "`jump`" in await model.refusal("act", moves=[{"buttons": ["forward"]}, {"buttons": ["jump"]}])
        assert "at most 256" in await model.refusal("act", moves=[{"ticks": 200}, {"ticks": 200}])
        await model.refusal("act", moves=[])
        assert "no moment" in await model.refusal("branch", moment="never")
        assert "none numbered 99" in await model.refusal("branch", moment="99")
        for name in ("../out", "a/b", "", "x" * 65):
            await model.refusal("save", name=name)
        assert (await model.call("look")).said["tick"] == 0
        await model.call("save", name="once")
        assert "already" in await model.refusal("save", name="once")
        await model.call("close")
        assert "no session open" in await model.refusal("act", moves=[{}])
        for _ in range(4):
            last = await model.call("open")
        assert "close one" in await model.refusal("open")
        await model.call("close", session=last.said["session"])
        await model.call("open")


async def test_the_keys_of_a_world_are_explained(command, tmp_path):
    async with stdio_model(command, tmp_path) as model:
        uri = (await model.call("list")).said["worlds"][0]["keys"]
        assert uri in [str(resource.uri) for resource in (await model.client.list_resources()).resources]
        text = (await model.client.read_resource(uri)).contents[0].text
        assert "| `forward` | w, up |" in text and "`tiny-scene`" in text and "1/17.5 s" in text
        tools = {tool.name for tool in (await model.client.list_tools()).tools}
        assert tools == {"open", "look", "act", "rewind", "branch", "bookmark", "save", "close", "list"}


async def test_without_the_folder_nothing_is_recorded_and_save_says_so(command, tmp_path):
    plain = [*command[: command.index("--recordings")], "--no-record"]
    async with stdio_model(plain, tmp_path) as model:
        assert (await model.call("open")).said["recorded"] is False
        await model.call("act", moves=[{"ticks": 3}])
        assert (await model.call("rewind", ticks=2)).said["tick"] == 1  # the way back needs no file
        assert "--recordings" in await model.refusal("save", name="x")
    assert not (tmp_path / "kept").exists()


@pytest.fixture
def url(command, tmp_path):
    """The address of a server by HTTP."""
    process = subprocess.Popen(
        [sys.executable, *command, "--http", "127.0.0.1:*"], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PLAYHEAD_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.stderr.read()
        yield line.split()[-1]
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said, said


async def test_over_http_each_plays_in_a_session_of_its_own(url, tiny_world_folder, tiny_scene, tmp_path):
    from mcp.client import Client

    from tests.render.mcp.conftest import Model

    frames, _ = scripted(tiny_world_folder, tiny_scene, tmp_path / "script.playhead")
    async with Client(url) as one, Client(url) as two:
        models = Model(one), Model(two)
        names = [(await model.call("open")).said["session"] for model in models]
        assert len(set(names)) == 2
        assert "which session" in await models[1].refusal("look")
        await models[0].call("act", moves=MOVES, session=names[0])
        assert (await models[1].call("look", session=names[1])).said["tick"] == 0
        seen = await models[0].call("look", session=names[0])
        assert np.array_equal(seen.pictures[0], frames[10][-1])


def test_a_page_of_another_origin_plays_nothing(url):
    import urllib.error
    import urllib.request

    for header in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        request = urllib.request.Request(
            url, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
            {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **header},
        )  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code in (403, 421)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--http", "0.0.0.0:0"], "ssh -L"),
        (["--http", "nonsense"], "is no address"),
        (["--http", "non\nsense"], "`non sense` is no address"),
        (["--recordings", "x", "--no-record"], "contradict"),
    ],
)
def test_a_door_that_would_be_open_to_others_is_refused(options, said, tmp_path):
    from tests.command_line import refusal

    assert said in refusal("mcp", *options, folder=tmp_path)
