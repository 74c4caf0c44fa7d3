"""`play --connect`: a real window here, a real server process, and what becomes of both."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from playhead.engine.session import Session
from playhead.render.window.text import WARNING
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import make_keys, serve_process
from tests.render.desktop import ROOT, display, lacking, middle, playing, wait_for

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())
RIGHT, LEFT = Action(frozenset({"turn_right"})), Action(frozenset({"turn_left"}))


def test_keys_here_are_played_there_and_its_frames_are_seen_here(
    screen, tmp_path, tiny_world_folder, tiny_scene
):
    """Single ticks in a pause: the very frames of a session with the same actions, lossless on the wire."""
    with (
        serve_process(tiny_world_folder, tiny_scene) as (_, address),
        playing(screen, tmp_path, "--connect", address, "--codec", "raw", "--no-hud") as player,
    ):
        player.press("p", "r")
        player.screenshot(tick=0)
        player.type("keydown", "Right")
        seen = [middle(player.step(tick), scale=7) for tick in range(1, 4)]
        player.type("keyup", "Right")
        player.press("Left")  # down and up again between two ticks
        seen += [middle(player.step(tick), scale=7) for tick in (4, 5)]
        player.press("Escape")
        assert player.end() == (0, "")
    session = Session(World.load(tiny_world_folder), make_tiny_context(), SEED)
    assert np.array_equal(seen, [session.step(a)[0] for a in (RIGHT, RIGHT, RIGHT, LEFT, Action())])


def test_with_keys_a_server_of_any_address_is_played_on_and_without_them_it_is_not(
    screen, tmp_path, tiny_world_folder, tiny_scene
):
    keys = make_keys(tmp_path)
    guard = ["--key", str(keys / "server.key_secret"), "--clients", str(keys / "allowed")]
    mine = ["--key", str(keys / "laptop.key_secret"), "--server-key", str(keys / "server.key")]
    bind = "tcp://0.0.0.0:*"
    with serve_process(tiny_world_folder, tiny_scene, *guard, bind=bind) as (_, address):
        there = ["--connect", address.replace("0.0.0.0", "127.0.0.1"), "--ticks", "5"]
        for codec in ("h264", "jpeg"):
            with playing(screen, tmp_path, *there, *mine, "--codec", codec, "--script", "w*3") as player:
                assert player.end() == (0, "")
        with playing(screen, tmp_path, *there) as player:
            status, said = player.end()
        assert status == 2 and "it wants keys; give yours by --key" in said and said.count("\n") == 1


def test_a_window_joins_the_session_of_another_and_plays_it_when_it_is_let(
    screen, tmp_path, tiny_world_folder, tiny_scene
):
    """Two windows at one session: the guest watches, is let play by a key, and gives way by another."""
    host, guest = tmp_path / "host", tmp_path / "guest"
    host.mkdir(), guest.mkdir()
    start = ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--no-record", "--no-hud"]
    bridge = ["--bridge", "--bind", "tcp://127.0.0.1:*"]
    with display() as other, playing(other, host, *start, *bridge) as owner:
        address = owner.process.stdout.readline().split()[-1]
        owner.press("p", "r")
        owner.screenshot(tick=0)
        with playing(screen, guest, "--connect", address, "--codec", "raw", "--no-hud") as player:
            watching = said(player)
            player.press("period")  # which is for who controls it
            seen = [owner.step(1)]
            assert np.array_equal(lower(player.screenshot(tick=1)), lower(seen[0]))
            owner.press("g")  # lets it play
            wait_for(lambda: None if np.array_equal(said(player), watching) else True, "the control")
            player.type("keydown", "Right")
            frames = [player.step(tick) for tick in (2, 3)]
            player.type("keyup", "Right")
            player.press("Escape")
            assert player.end() == (0, "")
        after = owner.screenshot(tick=3)
        seen.append(owner.step(4))  # the control is back
        owner.press("Escape")
        assert owner.end() == (0, "")
    session = Session(World.load(tiny_world_folder), make_tiny_context(), SEED)
    wanted = [session.step(a)[0][16:] for a in (Action(), RIGHT, RIGHT, Action())]
    assert np.array_equal([lower(p) for p in (seen[0], *frames, seen[1])], wanted)
    assert np.array_equal(lower(after), wanted[2])


def lower(pixels: np.ndarray) -> np.ndarray:
    """The frame in the middle of the window, below what is said of the control."""
    return middle(pixels, scale=7)[16:]


def said(player) -> np.ndarray:
    """What is drawn at the top right of the window."""
    pixels = player.screenshot_after(0)
    return pixels[: len(pixels) // 10, pixels.shape[1] // 2 :].max(-1) > 200


def warned(player) -> bool:
    """Whether there is a warning at the top right, beside the picture."""
    pixels = player.screenshot_after(0)
    return (pixels[: len(pixels) // 10, -100:] == WARNING).all(-1).any()


def test_a_window_that_waits_for_a_server_is_there_and_can_be_closed():
    """What listens there never answers; closing ends the wait at once, and not with its sentence."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        code = f"""
import threading, time, pygame
from playhead.engine.bridge.client import remote_session
from playhead.render.window.play import play
from playhead.render.window.settings import PlaySettings, ServerSettings

remote_session.FIRST = 600

def close():
    while not pygame.display.get_init():
        time.sleep(0.01)
    pygame.event.post(pygame.Event(pygame.QUIT))

threading.Thread(target=close).start()
play(PlaySettings(server=ServerSettings({address!r})))
"""
        env = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_server_that_goes_and_comes_back_is_seen_in_the_window(
    screen, tmp_path, tiny_world_folder, tiny_scene
):
    with (
        serve_process(tiny_world_folder, tiny_scene) as (process, address),
        playing(screen, tmp_path, "--connect", address, "--hold", "--no-hud") as player,
    ):
        assert not warned(player)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: warned(player) or None, "the state")
        with serve_process(tiny_world_folder, tiny_scene, bind=address):
            wait_for(lambda: not warned(player) or None, "the way back")
            player.press("Escape")
            assert player.end() == (0, "")


def test_a_server_killed_under_play_and_started_again_is_gone_on_with_in_a_new_session(
    screen, tmp_path, tiny_world_folder, tiny_scene
):
    """Twice: what is played then is a session of the new server from its start on, and keys count in it."""
    with ExitStack() as servers:
        process, address = servers.enter_context(serve_process(tiny_world_folder, tiny_scene))
        playing_there = playing(screen, tmp_path, "--connect", address, "--codec", "raw", "--no-hud")
        player = servers.enter_context(playing_there)
        for _ in range(2):
            player.screenshot_after(20)
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_for(lambda: warned(player) or None, "the state")
            stood = player.screenshot_after(20)
            assert np.array_equal(lower(stood), lower(player.screenshot_after(20)))  # and is there to be seen
            again = serve_process(tiny_world_folder, tiny_scene, bind=address)
            process, _ = servers.enter_context(again)
            wait_for(lambda: not warned(player) or None, "the way back")
            player.screenshot_after(1)
        player.press("p", "r")
        player.screenshot(tick=0)
        player.type("keydown", "Right")
        seen = [middle(player.step(tick), scale=7) for tick in range(1, 4)]
        player.type("keyup", "Right")
        player.press("Escape")
        assert player.end() == (0, "")
    session = Session(World.load(tiny_world_folder), make_tiny_context(), SEED)
    assert np.array_equal(seen, [session.step(RIGHT)[0] for _ in range(3)])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--connect", "tcp://127.0.0.1:9"], "does not answer: nothing listens there"),
        (["--connect", "somewhere"], "`somewhere` is no address to connect to"),
        (["--connect", "{address}", "--scene", "nowhere"], "there is no scene `nowhere`"),
        (["--connect", "{address}", "--codec", "gif"], "--codec is one of raw, jpeg, h264"),
        (["--connect", "{address}", "--device", "cuda"], "--device is the server's to choose"),
        (["--connect", "{address}", "--precision", "fp8"], "--precision is the server's to choose"),
        (["--connect", "{address}", "--decoder", "wan"], "--decoder is the server's to choose"),
        (["--connect", "{address}", "--script", "jump"], "`jump`"),
        (["--connect", "{address}", "--record", "here"], "recordings are of sessions that are played here"),
        (["--connect", "{address}", "--continue", "x"], "recordings are of sessions that are played here"),
        (["--connect", "{address}", "--key", "x"], "--key and --server-key belong together"),
        (["--connect", "{address}", "--steps", "30"], "denoise steps, not 30"),
    ],
)
def test_what_cannot_be_connected_ends_in_one_sentence(screen, tmp_path, served, options, sentence):
    with playing(screen, tmp_path, *[o.format(address=served) for o in options]) as player:
        status, said = player.end()
    assert status == 2
    assert sentence in said and said.count("\n") == 1


@pytest.fixture(scope="module")
def served(tiny_world_folder: Path, tiny_scene: Path) -> Iterator[str]:
    with serve_process(tiny_world_folder, tiny_scene) as (_, address):
        yield address
