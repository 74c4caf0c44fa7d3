"""What the command line says to bad input: one sentence, and nothing is written."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from playhead.main import main
from playhead.scenes.scene import scene_names
from playhead.world.checkpoint import read_weights, save_weights
from tests.command_line import MAIN, Start, only_sentence, refusal, run
from tests.conftest import make_tiny_context


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


def test_an_error_is_said_when_quiet_and_told_whole_when_verbose(tmp_path: Path) -> None:
    wrong = ("rollout", "--scene", "nowhere", "--actions", "w", "--out", "a.npz")
    assert "no scene `nowhere`" in refusal("--quiet", *wrong, folder=tmp_path)
    told = run("--verbose", *wrong, folder=tmp_path).stderr
    assert "Traceback" in told and told.splitlines()[-1].startswith("playhead: there is no scene")
    assert "contradict" in refusal("--verbose", "--quiet", "worlds")


def test_a_folder_for_thumbnails_that_cannot_be_made_is_named(
    tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    (tmp_path / "file").touch()
    assert "file cannot be written" in refusal_here("scenes", "--thumbnails", "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["worlds", "scenes", "recordings list .", "doctor", "--help"])
def test_an_output_that_cannot_be_written_is_one_sentence(command: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*MAIN, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("playhead: the output cannot be written (No space left on device); ")


def test_what_is_unknown_or_impossible_ends_in_one_sentence(
    start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    out = tmp_path / "out.npz"
    assert "not 0; try --steps 2" in refusal_here(*start.rollout("w", out, "--steps", 0))
    said = refusal_here(*Start(Path("atlantis"), start.context).rollout("w", out))
    assert "no world `atlantis`; shipped are freedoom" in said
    said = refusal_here("rollout", "--scene", "atlantis", "--actions", "w", "--out", out)
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
        ({"--precision": "fp4"}, ["no precision `fp4`", "fp8, int8 and nvfp4"]),
        ({"--decoder": "wan"}, ["has no decoder `wan`; it has lighttae"]),
        ({"--ram": "8GB", "--precision": "nvfp4"}, ["--ram do not go with --precision nvfp4"]),
        ({"--ram": "8GB", "--decoder": "lighttae"}, ["--ram do not go with --decoder"]),
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


def test_truncated_weights_are_named(
    copy: Path, start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    file = copy / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = refusal_here(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "generator.safetensors is damaged" in said
    assert not (tmp_path / "out.npz").exists()


def test_weights_with_a_nan_are_named_with_the_tensor(
    copy: Path, start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    file = copy / "autoencoder.safetensors"
    weights = {key: tensor.clone() for key, tensor in read_weights(file).items()}
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = torch.nan
    save_weights(file, weights)
    said = refusal_here(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "autoencoder.safetensors" in said
    assert f"`{name}` holds a NaN" in said


def test_missing_weights_are_named(
    copy: Path, start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    (copy / "generator.safetensors").unlink()
    said = refusal_here(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "generator.safetensors is missing" in said


def test_a_missing_field_of_a_world_is_named(
    copy: Path, start: Start, tmp_path: Path, refusal_here: Callable[..., str]
) -> None:
    lines = (copy / "world.toml").read_text("utf-8").splitlines()
    (copy / "world.toml").write_text("\n".join(x for x in lines if not x.startswith("shift")), "utf-8")
    said = refusal_here(*Start(copy, start.context).rollout("w", tmp_path / "out.npz"))
    assert "world.toml" in said
    assert "`shift`" in said


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


HOSTILE = "x\x1b[31m\n[b]:\u202ey"
"""A name that would colour a terminal, forge a line of its own and turn the rest around."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("rollout", "--scene", HOSTILE, "--actions", "w", "--out", "x.npz"),
        ("rollout", "--scene", "red-circle", "--actions", "w", "--out", "x.npz", "--device", HOSTILE),
        ("rollout", "--scene", "red-circle", "--actions", "w", "--out", "x.npz", "--attention", HOSTILE),
        ("rollout", "--scene", "red-circle", "--actions", HOSTILE, "--out", "x.npz"),
        ("serve", "--devices", f"cpu,{HOSTILE}"),
        ("serve", HOSTILE),
        ("replay", HOSTILE),
        (HOSTILE,),
    ],
)
def test_no_error_shows_what_a_terminal_would_obey(
    refusal_here: Callable[..., str], arguments: tuple[str, ...]
) -> None:
    said = refusal_here(*arguments)
    assert "[31m" in said and not any(ord(c) < 32 or c == "\u202e" for c in said.rstrip("\n"))


def test_a_python_without_the_packages_is_told_which_one_has_them() -> None:
    """`-S` leaves out what was installed, as in a fresh checkout whose .venv was not made or not named."""
    command = [MAIN[0], "-S", *MAIN[1:], "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"playhead: \S+ lacks the package typer; `make play` sets up .*\n", done.stderr)
