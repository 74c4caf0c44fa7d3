"""`play --bridge`: a real window and programs at its session, one of which plays at a time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.recording.reader import Recording
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import ROOT, until, wants
from tests.render.desktop import Player, lacking, middle, playing, wait_for

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())
RIGHT, LEFT = Action(frozenset({"turn_right"})), Action(frozenset({"turn_left"}))


@pytest.fixture
def options(tiny_world_folder, tiny_scene) -> list[str]:
    return ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--no-record", "--no-hud"]


@contextmanager
def sharing(screen, folder, *options: str) -> Iterator[tuple[Player, str]]:
    """A window whose session is shared, and the bridge's address."""
    with playing(screen, folder, *options, "--bridge", "--bind", "tcp://127.0.0.1:*") as player:
        line = player.process.stdout.readline()
        assert line.startswith("bridge at "), player.process.communicate()[1]
        assert player.window
        yield player, line.split()[-1]


@contextmanager
def program(address: str, name: str = "walker") -> Iterator[tuple[Client, str]]:
    """A program at a window's session, and the session's id."""
    client = Client(address, name, patience=30)
    try:
        (session,) = client.welcome.sessions
        yield client, session
    finally:
        client.close()


def corner(player: Player, tick: int) -> np.ndarray:
    """The top right of the window, beside the picture, where it says who plays: what is bright there."""
    pixels = player.screenshot(tick)
    return pixels[: len(pixels) // 8, -100:].max(-1) > 100


def test_a_person_lets_a_program_play_in_lockstep_and_takes_the_control_back(
    screen, tmp_path, options, tiny_world_folder
):
    """What the program is told is what the window shows, and both are what a session of its own dreams."""
    alone = Session(World.load(tiny_world_folder), make_tiny_context(), SEED)
    with sharing(screen, tmp_path, *options) as (player, address), program(address) as (client, session):
        player.press("p", "r")
        opened, frames = client.ask(p.AttachRequest(session=session), p.OpenReply)
        assert (opened.in_control, opened.clock, opened.scene.name) == (False, "live", "tiny-scene")
        nobody = corner(player, tick=0)
        with pytest.raises(BridgeError) as error:
            client.ask(p.ActRequest(session=session, action=RIGHT), p.ActReply)
        assert error.value.code == "not_in_control"

        asked = client.ask(wants(session, "take"), p.ControlReply)[0]
        assert (asked.in_control, asked.holder, asked.asking) == (False, "window", "walker")
        wait_for(lambda: (corner(player, 0) != nobody).any() or None, "the wish, in the HUD")
        player.press("g")
        assert until(client, p.ControlReply, in_control=True)
        client.ask(p.TuneRequest(session=session, clock="lockstep"), p.DoneReply)
        player.type("keydown", "Left")  # does not count now
        player.press("r", "period")  # neither do these
        _, frames = client.ask(p.StepRequest(session=session, actions=[RIGHT] * 4), p.StepReply)
        assert np.array_equal(frames, [alone.step(RIGHT)[0] for _ in range(4)])
        shown = middle(player.screenshot(tick=4), scale=7)
        assert np.array_equal(shown[16:], frames[-1][16:])  # above that it says who plays
        assert (corner(player, 4) != nobody).any()

        player.press("g")
        assert until(client, p.ControlReply, in_control=False, holder="window")
        with pytest.raises(BridgeError) as error:
            client.ask(p.StepRequest(session=session, actions=[RIGHT]), p.StepReply)
        assert error.value.code == "not_in_control"
        assert np.array_equal(middle(player.step(5), scale=7), alone.step(LEFT)[0])
        player.type("keyup", "Left")
        assert np.array_equal(corner(player, 5), nobody)
        player.press("Escape")
        assert player.end() == (0, "")
        assert until(client, p.EndedPush).reason == "its window was closed"


def test_a_program_saves_what_was_played_beside_the_recording_of_the_window(screen, tmp_path, options):
    options = [option for option in options if option != "--no-record"]
    folder = tmp_path / "recordings"
    with (
        sharing(screen, tmp_path, *options, "--record", str(folder)) as (player, address),
        program(address) as (client, session),
    ):
        player.press("p", "r")
        asked = client.ask(wants(session, "take"), p.ControlReply)[0]
        assert asked.asking == "walker"
        player.press("g")
        assert until(client, p.ControlReply, in_control=True)
        client.ask(p.TuneRequest(session=session, clock="lockstep"), p.DoneReply)
        client.ask(p.StepRequest(session=session, actions=[RIGHT] * 4), p.StepReply)
        assert client.ask(p.SaveRequest(session=session, name="walk"), p.SaveReply)[0].file == "walk.playhead"
        player.press("Escape")
        assert player.end() == (0, "")
    saved = Recording.read(folder / "walk.playhead")
    assert [t.action for b in saved.tree.branches.values() for t in b.ticks][-4:] == [RIGHT] * 4
    assert len(list(folder.glob("*.playhead"))) == 2


def test_a_program_that_dies_gives_the_control_back(screen, tmp_path, options, tiny_world_folder):
    """Killed while it is in control, in lockstep: the window goes on, under the person's keys."""
    with (
        sharing(screen, tmp_path, *options) as (player, address),
        program(address, "watcher") as (client, id),
    ):
        player.press("p", "r")
        code = f"""
import sys
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.client.client import Client
from playhead.world.action import Action
client = Client({address!r}, "doomed")
client.ask(p.ControlRequest(session={id!r}, want="take"), p.ControlReply)
while True:
    client.wait(60)
    if any(isinstance(push, p.ControlReply) and push.in_control for push in client.pushes):
        break
client.ask(p.TuneRequest(session={id!r}, clock="lockstep"), p.DoneReply)
client.ask(p.StepRequest(session={id!r}, actions=[Action(frozenset(["turn_right"]))] * 2), p.StepReply)
print("playing", flush=True)
client.send(p.StepRequest(session={id!r}, actions=[Action(frozenset(["turn_right"]))] * 256))
client.wait(60)
"""
        empty = corner(player, 0)
        doomed = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ}, text=True
        )
        try:
            wait_for(lambda: (corner(player, 0) != empty).any() or None, "somebody asks")
            player.press("g")
            assert doomed.stdout.readline() == "playing\n"
        finally:
            doomed.send_signal(signal.SIGKILL)
            doomed.communicate()
        last = 0
        while True:  # what was asked for last is played to its end, as of any client
            seen = client.ask(p.AttachRequest(session=id), p.OpenReply)[0]
            if seen.clock == "live" and seen.tick == last:
                break
            last = seen.tick
        player.press("period")
        wait_for(
            lambda: client.ask(p.ObserveRequest(session=id), p.ObserveReply)[0].tick == last + 1 or None,
            "a tick",
        )
        player.press("Escape")
        assert player.end() == (0, "")


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--bind", "tcp://0.0.0.0:7770"], "which needs keys"),
        (["--bind", "somewhere"], "`somewhere` is no address"),
        (["--clients", "{folder}"], "--key and --clients belong together"),
        (["--connect", "tcp://127.0.0.1:1"], "leave one out"),
    ],
)
def test_what_cannot_be_shared_ends_in_one_sentence(screen, tmp_path, options, extra, sentence):
    extra = [option.format(folder=tmp_path) for option in extra]
    with playing(screen, tmp_path, *options, "--bridge", *extra) as player:
        status, said = player.end()
    assert status == 2
    assert sentence in said and said.count("\n") == 1
