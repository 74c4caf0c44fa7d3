"""The same actions by keyboard, script, environment, remote environment and replay: the same frame hashes.

And as many ways again by which a session on another machine is played in a window.
"""

from pathlib import Path

import numpy as np
import pytest

from playhead.controls.keymap import find_keymap
from playhead.controls.script import parse_script
from playhead.engine.agents import RemoteWorldEnv, WorldEnv
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import replay
from playhead.world.action import Action
from playhead.world.world import World
from tests.command_line import run
from tests.conftest import SEED
from tests.engine.bridge.conftest import serve_process
from tests.frame_hashes import frame_hashes, recorded_hashes
from tests.render.desktop import ROOT, Player, lacking, middle, playing

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())
SCRIPT = "w*2 w+right*2 d . space*2 left e"
KEYS = {"right": "Right", "left": "Left"}
"""Where X has another name for a key."""


@pytest.fixture(scope="module")
def world(tiny_world_folder: Path) -> World:
    return World.load(tiny_world_folder)


@pytest.fixture(scope="module")
def actions(world: World) -> list[Action]:
    return parse_script(SCRIPT, world.config.action, find_keymap("freedoom").aliases)


def chords() -> list[set[str]]:
    """The keys that are held during each tick, by the names that X has for them."""
    held = []
    for chord in SCRIPT.split():
        names, _, count = chord.partition("*")
        keys = {KEYS.get(key, key) for key in names.split("+")} - {"."}
        held += [keys] * int(count or 1)
    return held


def by_keyboard(player: Player) -> list[np.ndarray]:
    """Plays in a pause, key by key and tick by tick. Returns the start and every tick as they were seen."""
    seen, held = [middle(player.screenshot(tick=0), scale=7)], set[str]()
    for tick, chord in enumerate(chords(), 1):
        for key in held - chord:
            player.type("keyup", key)
        for key in chord - held:
            player.type("keydown", key)
        held = chord
        seen.append(middle(player.step(tick), scale=7))
    for key in held:  # the display outlives the window, and so does a key that is down
        player.type("keyup", key)
    player.press("Escape")
    assert player.end() == (0, "")
    return [frame[None] for frame in seen]


def by_env(env: WorldEnv | RemoteWorldEnv, world: World, actions: list[Action]) -> list[np.ndarray]:
    _, info = env.reset(seed=SEED)
    films = [info["frames"]]
    for action in actions:
        row = np.array(world.config.action.encode(action), np.int8)
        films.append(env.step(row)[4]["frames"])
    env.close()
    return films


def test_five_ways_to_play_the_same(
    screen, tmp_path, monkeypatch, tiny_world_folder, tiny_scene, world, actions
):
    start = ["--world", str(tiny_world_folder), "--scene", str(tiny_scene)]
    monkeypatch.chdir(ROOT)
    ways: dict[str, list[str]] = {}

    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PLAYHEAD_RECORDINGS")
    with playing(screen, tmp_path, *start, "--no-hud") as player:
        player.press("p")
        ways["seen in the window"] = frame_hashes(by_keyboard(player))
    (by_keys,) = (tmp_path / "home" / "recordings").glob("*.playhead")
    ways["keyboard"] = recorded_hashes(by_keys)
    played = [tick.action for tick in Recording.read(by_keys).tree.path(1)]
    assert played == actions

    file = tmp_path / "script.playhead"
    done = run("rollout", *start, "--actions", SCRIPT, "--record", file, "--out", tmp_path / "script.npz")
    assert done.returncode == 0, done.stderr
    ways["script"] = recorded_hashes(file)

    ways["environment"] = frame_hashes(by_env(WorldEnv(world, scene=tiny_scene), world, actions))
    ways["replay"] = frame_hashes(moment.frames for moment in replay(Recording.read(by_keys), world))

    with serve_process(tiny_world_folder, tiny_scene) as (_, address):
        ways["remote environment"] = frame_hashes(by_env(RemoteWorldEnv(address), world, actions))
        far = ["--connect", address, "--codec", "raw", "--no-hud"]
        with playing(screen, tmp_path, *far) as player:
            player.press("p", "r")
            ways["seen from another machine"] = frame_hashes(by_keyboard(player))

    assert all(len(found) == len(actions) + 1 for found in ways.values())
    assert len({tuple(found) for found in ways.values()}) == 1, ways
    assert len(set(ways["script"])) == len(actions) + 1
