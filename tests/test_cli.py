"""What the command line promises, by running it: results that repeat."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from playhead import __version__
from playhead.main import main
from playhead.scenes.scene import scene_names
from playhead.world.world_folders import SHIPPED
from tests.command_line import MAIN, ONE_THREAD, ROOT, Start, refusal, run
from tests.conftest import make_tiny_context, save_scene

WALK = "w*40 d*1 w*9"
WALK_CHANGED = "w*40 a*1 w*9"


@pytest.fixture(scope="module")
def start(tiny_world_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    file = tmp_path_factory.mktemp("start") / "context.npz"
    context = make_tiny_context(8)
    np.savez(file, frames=context.frames, actions=context.actions)
    return Start(tiny_world_folder, file)


def same_twice_and_different_after_tick_40(arguments: tuple[object, ...], folder: Path) -> None:
    films = []
    for name, actions in (("first", WALK), ("again", WALK), ("other", WALK_CHANGED)):
        out = folder / f"{name}.npz"
        done = run(*arguments, "--device", "cpu", "--seed", 3, "--actions", actions, "--out", out)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        with np.load(out) as data:
            films.append(data["frames"])
    first, again, other = films
    assert len(first) == 50
    assert np.array_equal(first, again)
    assert np.array_equal(first[:40], other[:40])
    assert all(not np.array_equal(a, b) for a, b in zip(first[40:], other[40:], strict=True))


def test_rollouts_of_two_processes_are_bit_identical_up_to_a_changed_key(
    start: Start, tmp_path: Path
) -> None:
    arguments = ("rollout", "--world", start.world, "--context", start.context)
    same_twice_and_different_after_tick_40(arguments, tmp_path)


@pytest.mark.skipif(
    not (SHIPPED / "freedoom" / "generator.safetensors").is_file(), reason="freedoom's weights are not here"
)
def test_rollouts_of_the_shipped_world_are_bit_identical_up_to_a_changed_key(tmp_path: Path) -> None:
    scene = scene_names()[0]
    same_twice_and_different_after_tick_40(("rollout", "--world", "freedoom", "--scene", scene), tmp_path)


def test_an_array_plays_like_the_script_that_says_the_same(start: Start, tmp_path: Path) -> None:
    rows = np.zeros((6, 8), np.uint8)
    rows[:4, 0] = 1
    np.save(tmp_path / "keys.npy", rows)
    for name, actions in (("script", "forward*4 .*2"), ("array", tmp_path / "keys.npy")):
        assert run(*start.rollout(actions, tmp_path / f"{name}.npz")).returncode == 0
    assert (tmp_path / "script.npz").read_bytes() == (tmp_path / "array.npz").read_bytes()


def test_a_film_has_a_frame_for_every_tick(start: Start, tmp_path: Path) -> None:
    done = run(*start.rollout("w*25", tmp_path / "out.mp4"))
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 25


def test_pyav_is_needed_for_films_alone(start: Start, tmp_path: Path) -> None:
    program = "import sys; sys.modules['av'] = None; from playhead import main; main.main()"

    def play(out: str) -> subprocess.CompletedProcess[str]:
        words = map(str, start.rollout("w*2", tmp_path / out))
        command = [sys.executable, "-c", program, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ONE_THREAD, timeout=120)

    for out in ("out.npz", "out.png", "pictures"):
        done = play(out)
        assert done.returncode == 0 and (tmp_path / out).exists(), done.stderr
    done = play("out.mp4")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "a film needs PyAV, which is missing or broken: pip install av" in done.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_help_answers_without_loading_torch() -> None:
    program = "import sys, playhead.main; print({'torch', 'pygame', 'av', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"
    done = run("--help")
    assert done.returncode == 0
    for command in ("rollout", "scenes", "worlds", "doctor", "train"):
        assert command in done.stdout


def test_the_version_is_one_line_however_it_is_asked_for() -> None:
    for program in (MAIN, [sys.executable, "-m", "playhead"]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"playhead {__version__}\n", "")


def test_more_is_told_and_less_and_the_frames_are_the_same(start: Start, tmp_path: Path) -> None:
    told = {}
    for option in ("--verbose", "--quiet"):
        done = run(option, *start.rollout("w*2", tmp_path / f"{option}.npz"))
        assert done.returncode == 0, done.stderr
        told[option] = done.stderr
    assert "loaded the world tiny from" in told["--verbose"] and "dreaming" in told["--verbose"]
    assert told["--quiet"] == ""
    assert (tmp_path / "--verbose.npz").read_bytes() == (tmp_path / "--quiet.npz").read_bytes()


def test_scenes_are_listed_and_pictured(tmp_path: Path) -> None:
    done = run("scenes", "--thumbnails", tmp_path / "thumbnails")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in scene_names())
    assert {file.stem for file in (tmp_path / "thumbnails").iterdir()} == set(scene_names())


def test_worlds_are_listed() -> None:
    """Without torch's compiler, which takes longer to load than all else."""
    program = (
        "import atexit, sys, playhead.main as program\n"
        "atexit.register(lambda: print('compiler:', 'torch._dynamo' in sys.modules))\n"
        "program.main()"
    )
    command = [sys.executable, "-c", program, "worlds"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("compiler: False\n")
    for words in ("freedoom", "256 x 160", "17.5 ticks/s, 1 step a tick", "M parameters", "Apache-2.0"):
        assert words in done.stdout


@pytest.fixture
def odd_home(tiny_world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a world and a scene, whose titles and names look like markup."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PLAYHEAD_RECORDINGS", raising=False)
    world = shutil.copytree(tiny_world_folder, tmp_path / "home" / "worlds" / "[red]x")
    (tmp_path / "home" / "scenes").mkdir()
    save_scene(tmp_path / "home" / "scenes" / "[b]")
    for file in (world / "world.toml", tmp_path / "home" / "scenes" / "[b]" / "scene.toml"):
        text = file.read_text("utf-8")
        file.write_text(re.sub("title = .*", 'title = "A [/way] :cat: in"', text), "utf-8")
    (tmp_path / "home" / "recordings").mkdir()
    (tmp_path / "home" / "recordings" / "[red].playhead").touch()
    return tmp_path / "home"


@pytest.mark.parametrize("command", ["scenes", "worlds", "doctor", "recordings"])
def test_names_and_titles_are_no_markup(
    command: str, odd_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", command])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert not end.value.code, err
    words = {"doctor": "[red]x", "recordings": "[red]"}.get(command, "A [/way] :cat: in")
    assert words in out


def test_a_tilde_is_the_users_home_in_every_path(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path / "work")
    shutil.copy(start.context, tmp_path / "user" / "c.npz")
    words = ["rollout", f"--world={start.world}", "--context=~/c.npz", "--actions=w", "--device=cpu"]
    monkeypatch.setattr("sys.argv", ["main.py", *words, "--out", "~/a.npz", "--record=~/a.playhead"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, capfd.readouterr().err
    assert {path.name for path in (tmp_path / "user").iterdir()} == {"c.npz", "a.npz", "a.playhead"}
    assert list((tmp_path / "work").iterdir()) == []


IN_TURN = """
import json, sys
from playhead.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["main.py", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: {end.code}")
"""
"""Runs commands one after the other in one process, of which torch is loaded once."""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "cp1252", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(
    encoding: str, start: Start, tiny_scene: Path, tmp_path: Path
) -> None:
    scene = shutil.copytree(tiny_scene, tmp_path / "home" / "scenes" / "far")
    text = (scene / "scene.toml").read_text("utf-8")
    (scene / "scene.toml").write_text(text.replace("A tiny scene", "\u9060\u304f \u00e9"), "utf-8")
    env = {**ONE_THREAD, "PYTHONIOENCODING": encoding, "PLAYHEAD_HOME": str(tmp_path / "home")}
    out = tmp_path / "\u9060.npz"
    slow = json.dumps([["worlds"], [*map(str, start.rollout("w", out))]])
    for words in ([*MAIN, "scenes"], [sys.executable, "-c", IN_TURN, slow]):
        done = subprocess.run(words, capture_output=True, timeout=120, env=env, cwd=ROOT)
        assert done.returncode == 0, (words, done.stderr)
        assert b"Traceback" not in done.stderr
        if words[-1] == "scenes":
            shown = {"utf-8": "\u9060\u304f \u00e9", "ascii": "?? ?"}.get(encoding, "?? \u00e9")
            assert shown in done.stdout.decode(encoding)
    assert out.is_file()


def test_an_output_that_nobody_reads_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        done = subprocess.run([*MAIN, "worlds"], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_doctor_names_every_part_and_succeeds_without_a_screen() -> None:
    headless = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
    done = subprocess.run([*MAIN, "doctor"], capture_output=True, text=True, env=headless, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for part in ("Python", "torch", "CPU", "GPU", "attention", "sageattention", "triton", "pygame-ce"):
        assert part in done.stdout
    for part in ("display", "rollout", "PyAV", "ViZDoom", "Minari", "hub", "encoders", "MCP", "freedoom"):
        assert part in done.stdout
    assert f"{__version__} in {ROOT} " in done.stdout


def test_a_scene_is_cut_from_an_episode_and_played(start: Start, tmp_path: Path) -> None:
    cut = ("scenes", "new", "--from", start.context, "--frame", 7, "--name", "cellar", "--title", "Cellar")
    assert run(*cut, "--world", start.world, folder=tmp_path).returncode == 0
    out = ("--actions", "w*3", "--out", "out.png", "--device", "cpu")
    assert run("rollout", "--scene", "cellar", *out, folder=tmp_path).returncode == 0
    assert "cellar" in refusal(*cut, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cellar", "out.png"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_no_half_file(start: Start, tmp_path: Path) -> None:
    command = [*MAIN, *map(str, start.rollout("w*100000", tmp_path / "out.mp4"))]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "playhead: interrupted; what was finished is kept"
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
