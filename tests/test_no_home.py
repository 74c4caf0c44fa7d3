"""A user without a home folder, as in a container: the shipped worlds play, and nothing is recorded."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from playhead.engine.timeline.opening import new_timeline
from playhead.scenes.scene import load_scene, scene_names
from playhead.world.errors import PlayheadError
from playhead.world.home import if_any, recordings_folder, scenes_folder, seek_folder, worlds_folder
from playhead.world.importing import check_free
from playhead.world.world import World

ROOT = Path(__file__).parents[1]
PROGRAM = """
import pwd, sys
def unknown(*_):
    raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = unknown
from playhead import main
main.main()
"""
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the home folder is found by HOME and pwd")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command for a user whom the system does not know, with no variable but those given."""

    def start(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        named = ("HOME", "PLAYHEAD_HOME", "PLAYHEAD_RECORDINGS", "XDG_DATA_HOME", "XDG_CACHE_HOME")
        env = {key: value for key, value in os.environ.items() if key not in named} | variables
        env |= {"PYTHONPATH": str(ROOT), "SDL_VIDEODRIVER": "dummy", "COLUMNS": "200"}
        command = [sys.executable, "-c", PROGRAM, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)

    return start


@pytest.mark.parametrize("command", ["worlds", "scenes", "doctor"])
def test_what_is_shipped_is_listed(command: str, run: Run) -> None:
    done = run(command)
    assert done.returncode == 0 and "freedoom" in done.stdout, done.stderr
    assert "home folder" not in done.stdout + done.stderr


def test_rollouts_are_made(run: Run, tmp_path: Path) -> None:
    words = ("rollout", "--scene", scene_names()[0], "--actions", "w", "--device", "cpu")
    done = run(*words, "--out", "a.npz", "--record", "a.playhead")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a.playhead"}
    again = run("replay", "a.playhead", "--verify", "--device", "cpu")
    assert again.returncode == 0 and "every frame equal" in again.stdout, again.stderr


@pytest.mark.parametrize("unwished", [True, False])
def test_play_goes_on_unrecorded_and_says_so(unwished: bool, run: Run, tmp_path: Path) -> None:
    done = run("play", "--ticks", "2", "--device", "cpu", *([] if unwished else ["--no-record"]))
    assert done.returncode == 0, done.stderr
    said = "nothing is recorded: this user has no home folder; set PLAYHEAD_RECORDINGS to a folder"
    assert (said in done.stderr) == unwished and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_hud_is_told_why(tiny_world: World, tiny_scene: Path) -> None:
    for why, failure in (("because", "nothing is recorded: because"), ("", "")):
        timeline = new_timeline(tiny_world, load_scene(tiny_scene), None, why)
        assert timeline.failure == failure
        timeline.close()


def test_a_folder_for_recordings_is_enough(run: Run, tmp_path: Path) -> None:
    folder = {"PLAYHEAD_RECORDINGS": str(tmp_path / "films")}
    done = run("play", "--ticks", "2", "--device", "cpu", **folder)
    assert done.returncode == 0 and "recorded" not in done.stderr, done.stderr
    (film,) = (tmp_path / "films").glob("*.playhead")
    assert film.stem in run("recordings", **folder).stdout
    assert run("recordings", "info", film.stem, **folder).returncode == 0


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["recordings"], "PLAYHEAD_RECORDINGS"),
        (["worlds", "random", "self-forcing", "--tiny"], "PLAYHEAD_HOME"),
        (["worlds", "add", "hub:a/b/c.pt"], "PLAYHEAD_HOME"),
    ],
)
def test_what_needs_a_folder_of_the_users_says_which_variable_names_one(
    words: list[str], variable: str, run: Run
) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    said = f"playhead: this user has no home folder; set {variable} to a folder to be used in its place\n"
    assert done.stderr == said


def test_reading_finds_nothing_and_writing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "PLAYHEAD_HOME", "PLAYHEAD_RECORDINGS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert [if_any(f) for f in (worlds_folder, scenes_folder, recordings_folder)] == [()] * 3
    assert seek_folder() is None
    with pytest.raises(PlayheadError, match="set PLAYHEAD_HOME"):
        check_free("mine", False)
