"""What the command line promises, by running it: results that repeat, and one sentence for bad input."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from playhead import __version__
from playhead.main import main
from playhead.scenes.scene import scene_names
from playhead.world.checkpoint import read_weights, save_weights
from playhead.world.world_folders import SHIPPED
from tests.conftest import make_tiny_context, save_scene

ROOT = Path(__file__).parents[1]
MAIN = [sys.executable, str(ROOT / "main.py")]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # two small processes then do not wait for each other
WALK = "w*40 d*1 w*9"
WALK_CHANGED = "w*40 a*1 w*9"


def run(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*MAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=ONE_THREAD)


def only_sentence(status: object, out: str, err: str) -> str:
    """What a refused command said: one line, with status 2 and no traceback."""
    assert status == 2, err
    assert out == ""
    assert err.startswith("playhead: "), err
    assert len(err.splitlines()) == 1, err
    return err


def refusal(*arguments: object, folder: Path | None = None) -> str:
    """The sentence that a command ends in."""
    done = run(*arguments, folder=folder)
    return only_sentence(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def refusal_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """As `refusal`, in this process and from the folder `tmp_path`: a tenth of the time."""

    def refuse(*arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return only_sentence(end.value.code, *capfd.readouterr())

    return refuse


@dataclass(frozen=True)
class Start:
    """A world and what to start it from, as arguments of `rollout`."""

    world: Path
    context: Path

    def rollout(self, actions: object, out: Path, *more: object) -> tuple[object, ...]:
        start = ("rollout", "--world", self.world, "--context", self.context)
        return (*start, "--actions", actions, "--out", out, "--device", "cpu", *more)


@pytest.fixture(scope="module")
def start(tiny_world_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    file = tmp_path_factory.mktemp("start") / "context.npz"
    context = make_tiny_context(8)
    np.savez(file, frames=context.frames, actions=context.actions)
    return Start(tiny_world_folder, file)


@pytest.fixture
def copy(tiny_world_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny world to be damaged."""
    return Path(shutil.copytree(tiny_world_folder, tmp_path / "copy"))


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


def test_an_error_is_said_when_quiet_and_told_whole_when_verbose(tmp_path: Path) -> None:
    wrong = ("rollout", "--scene", "nowhere", "--actions", "w", "--out", "a.npz")
    assert "no scene `nowhere`" in refusal("--quiet", *wrong, folder=tmp_path)
    told = run("--verbose", *wrong, folder=tmp_path).stderr
    assert "Traceback" in told and told.splitlines()[-1].startswith("playhead: there is no scene")
    assert "contradict" in refusal("--verbose", "--quiet", "worlds")


def test_scenes_are_listed_and_pictured(tmp_path: Path) -> None:
    done = run("scenes", "--thumbnails", tmp_path / "thumbnails")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in scene_names())
    assert {file.stem for file in (tmp_path / "thumbnails").iterdir()} == set(scene_names())


def test_a_folder_for_thumbnails_that_cannot_be_made_is_named(
    tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    (tmp_path / "file").touch()
    assert "file cannot be written" in refusal_here("scenes", "--thumbnails", "file")


def test_worlds_are_listed() -> None:
    done = run("worlds")
    assert done.returncode == 0, done.stderr
    for words in ("freedoom", "256 x 160", "17.5 ticks/s", "M parameters", "Apache-2.0"):
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


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "cp1252", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(
    encoding: str, start: Start, tiny_scene: Path, tmp_path: Path
) -> None:
    scene = shutil.copytree(tiny_scene, tmp_path / "home" / "scenes" / "far")
    text = (scene / "scene.toml").read_text("utf-8")
    (scene / "scene.toml").write_text(text.replace("A tiny scene", "\u9060\u304f \u00e9"), "utf-8")
    env = {**ONE_THREAD, "PYTHONIOENCODING": encoding, "PLAYHEAD_HOME": str(tmp_path / "home")}
    out = tmp_path / "\u9060.npz"
    for words in (["worlds"], ["scenes"], [*start.rollout("w", out)]):
        done = subprocess.run([*MAIN, *map(str, words)], capture_output=True, timeout=120, env=env)
        assert done.returncode == 0, (words, done.stderr)
        assert b"Traceback" not in done.stderr
        if words == ["scenes"]:
            shown = {"utf-8": "\u9060\u304f \u00e9", "ascii": "?? ?"}.get(encoding, "?? \u00e9")
            assert shown in done.stdout.decode(encoding)
    assert out.is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["worlds", "scenes", "recordings list .", "doctor", "--help"])
def test_an_output_that_cannot_be_written_is_one_sentence(command: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*MAIN, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("playhead: the output cannot be written (No space left on device); ")


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
    for part in ("display", "rollout", "PyAV", "ViZDoom", "Minari", "hub", "encoders", "freedoom"):
        assert part in done.stdout
    assert f"{__version__} in {ROOT} " in done.stdout


def test_a_scene_is_cut_from_an_episode_and_played(start: Start, tmp_path: Path) -> None:
    cut = ("scenes", "new", "--from", start.context, "--frame", 7, "--name", "cellar", "--title", "Cellar")
    assert run(*cut, "--world", start.world, folder=tmp_path).returncode == 0
    out = ("--actions", "w*3", "--out", "out.png", "--device", "cpu")
    assert run("rollout", "--scene", "cellar", *out, folder=tmp_path).returncode == 0
    assert "cellar" in refusal(*cut, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cellar", "out.png"]


def test_what_is_unknown_or_impossible_ends_in_one_sentence(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert "not 0; try --steps 2" in refusal(*start.rollout("w", out, "--steps", 0))
    said = refusal(*Start(Path("atlantis"), start.context).rollout("w", out))
    assert "no world `atlantis`; shipped are freedoom" in said
    said = refusal("rollout", "--scene", "atlantis", "--actions", "w", "--out", out)
    assert all(name in said for name in ["`atlantis`", *scene_names()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--world": None}, ["--world"]),
        ({"--actions": "w jump*2"}, ["`jump`", "forward", "space"]),
        ({"--actions": ""}, ["--actions"]),
        ({"--actions": "keys.npy"}, ["keys.npy is missing"]),
        ({"--seed": "-1"}, ["--seed -1", "0 to 2^64 - 1"]),
        ({"--device": "abacus"}, ["no usable device `abacus`"]),
        ({"--out": "out.avi"}, ["out.avi", ".npz, .mp4, .gif, .png"]),
        ({"--out": "-"}, ["--out - is no file"]),
        ({"--out": "missing/out.npz"}, ["folder missing is missing"]),
        ({"--scene": "red-circle"}, ["either --scene or --context"]),
        ({"--context": None}, ["either --scene or --context"]),
        ({"--context": None, "--scene": scene_names()[0]}, [scene_names()[0], "(8, 160, 256, 3)", "64, 64"]),
        ({"--context": "missing.npz"}, ["missing.npz is missing"]),
        ({"--world": ""}, ["needs a --world"]),
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(
    change: dict[str, str | None],
    words: list[str],
    start: Start,
    tmp_path: Path,
    refusal_here: Callable[..., str],
) -> None:
    whole = {"--world": start.world, "--context": start.context, "--actions": "w*3", "--out": "out.npz"}
    given = {key: value for key, value in {**whole, "--device": "cpu", **change}.items() if value is not None}
    said = refusal_here("rollout", *(part for pair in given.items() for part in pair))
    assert all(word in said for word in words), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(4, 32, 64, 3), (4, 64, 64), (4, 64, 64, 4)])
def test_a_context_of_another_shape_is_told_the_right_one(
    shape: tuple[int, ...], start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    np.savez(tmp_path / "wrong.npz", frames=np.zeros(shape, np.uint8))
    said = refusal_here(*Start(start.world, tmp_path / "wrong.npz").rollout("w", tmp_path / "out.png"))
    assert "wrong.npz" in said
    assert str(shape) in said
    assert not (tmp_path / "out.png").exists()


def test_truncated_weights_are_named(copy: Path, start: Start, tmp_path: Path) -> None:
    file = copy / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = refusal(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "generator.safetensors is damaged" in said
    assert not (tmp_path / "out.npz").exists()


def test_weights_with_a_nan_are_named_with_the_tensor(copy: Path, start: Start, tmp_path: Path) -> None:
    file = copy / "autoencoder.safetensors"
    weights = {key: tensor.clone() for key, tensor in read_weights(file).items()}
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = torch.nan
    save_weights(file, weights)
    said = refusal(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "autoencoder.safetensors" in said
    assert f"`{name}` holds a NaN" in said


def test_missing_weights_are_named(
    copy: Path, start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    (copy / "generator.safetensors").unlink()
    said = refusal_here(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "generator.safetensors is missing" in said


def test_a_missing_field_of_a_world_is_named(copy: Path, start: Start, tmp_path: Path) -> None:
    lines = (copy / "world.toml").read_text("utf-8").splitlines()
    (copy / "world.toml").write_text("\n".join(x for x in lines if not x.startswith("shift")), "utf-8")
    said = refusal(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "world.toml" in said
    assert "`shift`" in said


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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rollout --actions w", "--out"),
        ("play --ticks abc", "--ticks"),
        ("play --bogus", "--bogus"),
        ("dance", "dance"),
    ],
)
def test_a_wrong_flag_is_one_sentence(
    line: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from playhead import main as command_line

    monkeypatch.setattr("sys.argv", ["main.py", *line.split()])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("playhead: ") and said.count("\n") == 1 and words in said and "--help" in said
