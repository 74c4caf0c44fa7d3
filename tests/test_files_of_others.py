"""What lies in a user's folders is others' work too: a bad file there stops no command that needs none of it,
and what one asks for that no machine has is refused before it is taken. Each command in a process of its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.tree import Bookmark, Point
from playhead.scenes.scene import Scene
from playhead.world.context import Context
from playhead.world.world import World
from tests.conftest import BUTTONS, save_scene
from tests.engine.bridge.conftest import serve_process

ROOT = Path(__file__).parents[1]
MOST = 2**30
"""Bytes of memory that a command takes which refuses a file: torch is a third of it."""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="asks for the memory of a process")


@pytest.fixture
def home(tmp_path: Path, tiny_world_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with one scene that can be used, and scenes, worlds and a recording that cannot."""
    home = tmp_path / "home"
    for name, value in {
        "PLAYHEAD_HOME": str(home),
        "SDL_VIDEODRIVER": "dummy",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PLAYHEAD_RECORDINGS", raising=False)
    for kind in ("scenes", "recordings"):
        (home / kind).mkdir(parents=True)
    for name in ("cut", "newer", "no-toml"):
        save_scene(home / "scenes" / name)
        shutil.copytree(tiny_world_folder, home / "worlds" / name)
    save_scene(home / "scenes" / "whole")
    for file in home.glob("*/cut/[cg]*.[ns]*"):  # context.npz, generator.safetensors
        file.write_bytes(file.read_bytes()[:200])
    for file in home.glob("*/newer/*.toml"):
        file.write_text("colour = 3\n" + file.read_text("utf-8"), "utf-8")
    for file in home.glob("*/no-toml/*.toml"):
        file.write_text("= [\n", "utf-8")
    (home / "recordings" / "none.playhead").write_bytes(b"no recording")
    return home


MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:], stdout=1, stderr=2)
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as told:
    told.write(str(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)))
os._exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and tells its peak of memory. A process begins with the peak of who started it, which of
pytest may be anything: so a small one stands between."""


def run(*words: object) -> tuple[int, str, str, int]:
    """Runs a command. Returns its status, what it said, and the most memory that it had, in bytes."""
    with tempfile.NamedTemporaryFile("r") as peak:
        command = [sys.executable, "-c", MEASURE, peak.name, sys.executable, "main.py", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        memory = int(peak.read())
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr, memory


def test_the_memory_of_a_command_is_its_own_and_not_that_of_who_asks() -> None:
    """Large ones are seen, and what this process has had is not."""
    held = np.ones(3 * MOST // 16)  # 1.5 times as much
    assert run("--version")[3] < MOST // 2
    del held
    code = f"b'1' * {MOST + 1}"
    with tempfile.NamedTemporaryFile("r") as peak:
        subprocess.run([sys.executable, "-c", MEASURE, peak.name, sys.executable, "-c", code], check=True)
        assert int(peak.read()) > MOST


def refusal(*words: object) -> str:
    """The one sentence that a command ends in, having taken no more memory than commands take."""
    status, out, err, memory = run(*words)
    assert (status, out) == (2, ""), err
    (line,) = err.splitlines()
    assert line.startswith("playhead: ")
    assert memory < MOST
    return line


@pytest.mark.parametrize(
    ("command", "bad", "words"),
    [
        ("scenes", ["cut", "newer", "no-toml"], "cannot be used: "),
        ("worlds", ["newer", "no-toml"], "cannot be used: "),
        ("recordings", ["none"], "damaged: see `recordings info`"),
    ],
)
def test_a_list_names_what_cannot_be_used(command: str, bad: list[str], words: str, home: Path) -> None:
    status, out, err, _ = run(command)
    assert (status, err) == (0, "")
    rows = [line for line in out.splitlines() if words in line]
    assert len(rows) == len(bad)
    assert all(any(name in row for row in rows) for name in bad)


def left_out(home: Path) -> list[str]:
    files = ["cut/context.npz", "newer/scene.toml", "no-toml/scene.toml"]
    return [f"a scene is left out: {home / 'scenes' / file} " for file in files]


def test_play_goes_on_without_scenes_that_cannot_be_used(home: Path, tiny_world_folder: Path) -> None:
    status, _, err, _ = run(
        "play", "--world", tiny_world_folder, "--ticks", 2, "--no-record", "--device", "cpu"
    )
    assert status == 0, err
    assert [any(said in line for line in err.splitlines()) for said in left_out(home)] == [True] * 3
    said = refusal("play", "--world", tiny_world_folder, "--scene", "no-toml", "--no-record")
    assert "no-toml/scene.toml is not a usable scene: " in said


def test_serve_goes_on_without_scenes_that_cannot_be_used(
    home: Path, tiny_world_folder: Path, tiny_scene: Path
) -> None:
    with serve_process(tiny_world_folder, tiny_scene) as (process, _):
        process.terminate()
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 0
    assert [any(part in line for line in said.splitlines()) for part in left_out(home)] == [True] * 3


@pytest.mark.parametrize(
    ("was", "wanted", "words"),
    [
        ("ticks_per_second = 17.5", "ticks_per_second = nan", "`ticks_per_second` is nan"),
        ("layers = 2", "layers = 100000000", "$.generator.layers"),
        ("window = 6", "window = 2000000000", "$.sampling.window"),
    ],
)
def test_a_world_of_numbers_without_end_is_refused(
    was: str, wanted: str, words: str, home: Path, tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    world = Path(shutil.copytree(tiny_world_folder, tmp_path / "endless"))
    told = (world / "world.toml").read_text("utf-8")
    assert told.count(was) == 1
    (world / "world.toml").write_text(told.replace(was, wanted), "utf-8")
    start = ["--world", world, "--scene", tiny_scene, "--actions", "w", "--out", tmp_path / "out.npz"]
    assert words in refusal("rollout", *start)
    assert not (tmp_path / "out.npz").exists()


def test_a_small_recording_of_large_scenes_is_refused(large: Path) -> None:
    """Six of 200 MB each, none of which is too large by itself."""
    assert large.stat().st_size < 4 * 2**20
    words = "its scenes unpack to more than 256 MB"
    assert words in refusal("replay", large, "--verify")
    status, out, err, memory = run("recordings", "info", large)  # which tells what is wrong with a file
    assert status == 0, err
    assert words in " ".join(out.split()) and memory < MOST


@pytest.fixture(scope="module")
def large(tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    context = Context(np.zeros((1024, 256, 256, 3), np.uint8), np.zeros((1024, len(BUTTONS)), np.uint8))
    recorder = Recorder(tmp_path_factory.mktemp("large") / "large.playhead", tiny_world)
    for number in range(1, 7):
        recorder.add_scene(number, Scene("large", "Large", "", "tiny", 0, context))
    recorder.add_bookmark(Bookmark(1, "here", Point(1, 0), 0.0))  # a file in which nothing is goes again
    recorder.close()
    assert not recorder.failure
    return recorder.path
