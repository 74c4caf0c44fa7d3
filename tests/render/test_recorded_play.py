"""What a person who plays is promised of the recording: it is there without being asked for, and exact."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from playhead.engine.recording.finding import Summary
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.engine.recording.tree import Point
from playhead.world.world import World
from tests.render.desktop import ROOT, lacking, playing

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())
KEYS = ("w", "s", "a", "d", "Left", "Right", "space", "e")


@pytest.fixture
def start(tiny_world_folder: Path, tiny_scene: Path) -> list[str]:
    return ["--world", str(tiny_world_folder), "--scene", str(tiny_scene)]


def the_recording(home: Path) -> Path:
    (file,) = (home / "recordings").glob("*.playhead")
    return file


def ticks_in(home: Path) -> int:
    """The ticks that are on the disk so far."""
    files = list((home / "recordings").glob("*.playhead"))
    return Summary.read(files[0]).ticks if files else 0


def replayed(file: Path, world: str, *options: str) -> str:
    command = [sys.executable, "main.py", "replay", str(file), "--verify", "--world", world, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_played_with_jittery_keys_comes_back_in_another_process(screen, tmp_path, home, start):
    """Keys at odd moments, a pause, other steps, a restart, a new seed: every frame's hash is equal."""
    draw = random.Random(3)
    with playing(screen, tmp_path, *start, "--speed", "2") as player:
        assert player.window
        for number, key in enumerate(("", "p", "p", "r", "bracketleft", "n"), 1):
            if key:
                player.press(key)
            while key != "p" and ticks_in(home) < 8 * number:
                player.type(draw.choice(("keydown", "keyup", "key")), draw.choice(KEYS))
                time.sleep(draw.uniform(0, 0.06))
        player.press("Escape")
        assert player.end() == (0, "")
    file = the_recording(home)
    recording = Recording.read(file)
    assert recording.title == "A tiny scene"
    assert len(recording.tree.branches) == 3  # restarted, and then with another seed
    played = [tick for branch in recording.tree.branches.values() for tick in branch.ticks]
    assert {tick.source for tick in played} == {"keyboard"}
    assert any(tick.action.buttons for tick in played) and {tick.steps for tick in played} == {1, 2}
    for branch in recording.tree.branches:
        assert "every frame equal" in replayed(file, start[1], "--branch", str(branch))


def test_play_goes_on_with_a_recording_from_any_moment(screen, tmp_path, home, start, tiny_world_folder):
    with playing(screen, tmp_path, *start, "--ticks", "12", "--script", "w*4 right*8") as player:
        assert player.end() == (0, "")
    file = the_recording(home)
    go_on = ["--world", start[1], "--continue", f"{file}@5", "--ticks", "3", "--script", "a*3"]
    with playing(screen, tmp_path, *go_on) as player:
        assert player.end() == (0, "")
    recording = Recording.read(file)
    first, second = recording.tree.branches.values()
    assert (first.last, second.parent, second.last) == (12, Point(1, 5), 8)
    assert [tick.source for tick in second.ticks] == ["script"] * 3
    assert all(verify(recording, World.load(tiny_world_folder), n) is None for n in (1, 2))


def test_a_recording_is_watched_again_in_a_window(screen, tmp_path, home, start, tiny_world_folder):
    with playing(screen, tmp_path, *start, "--ticks", "12", "--script", "w*4 right*8") as player:
        assert player.end() == (0, "")
    file = the_recording(home)
    before = file.read_bytes()

    def watch(*options: str) -> tuple[int, str, str]:
        with playing(screen, tmp_path, str(file), "--world", start[1], *options, command="replay") as player:
            said, complained = player.process.communicate(timeout=60)
        return player.process.returncode, said, complained

    assert watch("--from", "3", "--to", "9") == (0, "watched to tick 9, every frame equal\n", "")
    status, said, complained = watch("--steps", "1")
    assert (status, said) == (2, "")
    assert "differs from tick 1 on: the denoise steps a tick (recorded 2, here 1)" in complained
    assert file.read_bytes() == before
    assert verify(Recording.read(file), World.load(tiny_world_folder)) is None


def test_what_is_not_to_be_recorded_is_not(screen, tmp_path, home, start):
    with playing(screen, tmp_path, *start, "--ticks", "2", "--no-record") as player:
        assert player.end() == (0, "")
    assert not (home / "recordings").exists()


def test_where_nothing_can_be_written_play_goes_on_and_says_so(screen, tmp_path, home, start):
    (home / "recordings").parent.mkdir()
    (home / "recordings").write_text("a file where the folder should be")
    with playing(screen, tmp_path, *start) as player:
        player.press("p")
        usual = player.screenshot(tick=0)
        player.press("Escape")
        status, said = player.end()
    assert status == 0 and "nothing is recorded" in said and "recordings" in said
    height, width, _ = usual.shape
    label = usual[: height // 4, 2 * width // 3 :].astype(int)
    assert (label[..., 0] - label[..., 2] > 80).any()  # the HUD's label in the colour of a warning


def test_on_a_full_disk_play_goes_on_and_what_was_written_is_kept(tmp_path, home, start, tiny_world_folder):
    """A limit on the size of files stands for the full disk: no write beyond it succeeds."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))

    env = {**os.environ, "SDL_VIDEODRIVER": "dummy", "PLAYHEAD_SEEK_DISK": "0"}
    command = [sys.executable, "main.py", "play", *start, "--ticks", "150", "--speed", "2"]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, preexec_fn=limit
    )
    assert done.returncode == 0, done.stderr
    assert "recording to" in done.stderr and "stopped" in done.stderr and "Traceback" not in done.stderr
    recording = Recording.read(the_recording(home))
    assert 10 < recording.tree.count < 150
    assert verify(recording, World.load(tiny_world_folder)) is None
