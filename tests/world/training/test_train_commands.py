"""Promises of the `train` commands: worlds that play, runs that go on, and one sentence for what is wrong."""

import signal
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from torch import Tensor

from playhead.engine.session import Session
from playhead.main import main
from playhead.world.action import Action
from playhead.world.checkpoint import read_weights, save_weights
from playhead.world.config import load_config
from playhead.world.context import Context
from playhead.world.training import pipeline
from playhead.world.training.distill import distill
from playhead.world.training.pipeline import write_config
from playhead.world.training.run import Run
from playhead.world.training.train_generator import train_generator
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world
from tests.world.game import film, write_footage
from tests.world.training.runs import CONFIG, metrics, same


class Commands:
    """`train` on a tiny recipe and footage, in this process; all paths are its attributes."""

    def __init__(self, folder: Path) -> None:
        self.footage = write_footage(folder / "footage", 3, 12)
        self.recipe = folder / "recipe.toml"
        write_config(self.recipe, CONFIG)
        config = tomllib.loads(self.recipe.read_text("utf-8"))
        del config["latent"]["mean"], config["latent"]["std"]  # a recipe cannot know them yet
        self.recipe.write_text(tomli_w.dumps(config), "utf-8")
        self.autoencoder = folder / "autoencoder.safetensors"
        save_weights(self.autoencoder, make_tiny_world().autoencoder.state_dict())

    def arguments(self, stage: str, out: Path, **options: object) -> list[str]:
        """What is given after `train`; an option of None is left out."""
        given: dict[str, object] = {"footage": self.footage, "out": out, "steps": 4, "device": "cpu"}
        if stage != "inverse":
            given |= {"clips": 2}
        if stage in ("autoencoder", "generator"):
            given |= {"recipe": self.recipe}
        if stage == "generator":
            given |= {"autoencoder": self.autoencoder, "length": 6}
        given |= options
        return [stage, *(str(x) for k, v in given.items() if v is not None for x in (f"--{k}", v))]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(tmp_path_factory.mktemp("commands"))


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs `main.py train …` in this process. Returns its status and what it said on stdout and stderr."""

    def run(arguments: Iterable[str]) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["main.py", "train", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capfd.readouterr()

    return run


def test_the_stages_leave_a_world_that_loads_and_plays(
    commands: Commands, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[Tensor] = []
    for stage in (train_generator, distill):

        def watched(run: Run, latents: Tensor, *rest: Any, stage: Callable[..., Any] = stage) -> object:
            trained_on.append(latents.float())
            return stage(run, latents, *rest)

        monkeypatch.setattr(pipeline, stage.__name__, watched)

    status, _, err = train(commands.arguments("autoencoder", tmp_path / "a"))
    assert status == 0, err
    made = tmp_path / "a" / "autoencoder.safetensors"
    status, out, err = train(commands.arguments("generator", tmp_path / "g", autoencoder=made))
    assert status == 0, err
    folder = tmp_path / "g" / "world"
    assert f"the world is in {folder}" in out.replace("\n", " ")
    assert made.read_bytes() == (folder / "autoencoder.safetensors").read_bytes()

    world = World.load(folder, "cpu")
    frames, actions = film(4, 7)
    session = Session(world, Context(frames, actions), 0)
    played = session.step(Action(frozenset({"forward"})))
    assert played.shape == (1, 64, 64, 3)
    # The generator was trained on what the world encodes, to mean 0 and deviation 1.
    latents = world.encode(np.concatenate([film(12, seed)[0] for seed in range(3)]))
    assert torch.allclose(latents, trained_on[0], atol=0.1)
    assert (latents - trained_on[0]).abs().mean() < 0.01
    assert latents.mean((0, 2, 3)).abs().max() < 0.1
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.1
    assert load_config(folder / "world.toml").generator == CONFIG.generator

    # And what it learns from its own dreams is the same world with another generator.
    arguments = commands.arguments("distill", tmp_path / "d", world=folder, length=10)
    status, out, err = train(arguments)
    assert status == 0, err
    distilled = tmp_path / "d" / "world"
    assert f"the world is in {distilled}" in out.replace("\n", " ")
    for file in ("world.toml", "autoencoder.safetensors"):
        assert (distilled / file).read_bytes() == (folder / file).read_bytes()
    assert torch.equal(*trained_on)
    assert not same(*(read_weights(f / "generator.safetensors") for f in (distilled, folder)))
    Session(World.load(distilled, "cpu"), Context(frames, actions), 0).step(Action())


def test_training_that_goes_on_from_weights_keeps_the_statistics_they_were_trained_with(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    assert train(commands.arguments("generator", tmp_path / "first"))[0] == 0
    made = tmp_path / "first" / "world"
    other = write_footage(tmp_path / "other", 2, 12, seed=77)
    again = {"recipe": made / "world.toml", "footage": other}
    status, _, err = train(
        commands.arguments("generator", tmp_path / "on", start=made / "generator.safetensors", **again)
    )
    assert status == 0, err
    assert (tmp_path / "on" / "world" / "world.toml").read_bytes() == (made / "world.toml").read_bytes()
    assert train(commands.arguments("generator", tmp_path / "anew", **again))[0] == 0
    assert (
        load_config(tmp_path / "anew" / "world" / "world.toml").latent
        != load_config(made / "world.toml").latent
    )


def test_the_inverse_dynamics_model_is_trained_from_the_command_line(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    status, _, err = train(commands.arguments("inverse", tmp_path, steps=1))
    assert status == 0, err
    assert read_weights(tmp_path / "inverse.safetensors")["head.weight"].shape[0] == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_in_its_status_and_the_same_command_goes_on(
    number: int,
    commands: Commands,
    train: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Run.log

    def tire(run: Run, **losses: Tensor) -> None:
        log(run, **losses)
        if run.step == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", tire)
        status, _, err = train(commands.arguments("generator", tmp_path))
    assert status == 128 + number
    assert "interrupted; what was finished is kept" in err
    assert "Traceback" not in err
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    status, _, err = train(commands.arguments("generator", tmp_path))
    assert status == 0, err
    assert [row["step"] for row in metrics(tmp_path)] == [3, 4]
    World.load(tmp_path / "world", "cpu")


def refusal(said: tuple[object, str, str]) -> str:
    """The one sentence on stderr of a refused command."""
    status, _, err = said
    assert status == 2, err
    assert err.startswith("playhead: ")
    assert len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("stage", ["autoencoder", "generator", "inverse"])
def test_a_run_without_an_end_is_refused(
    stage: str, commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    said = refusal(train(commands.arguments(stage, tmp_path / "out", steps=None)))
    assert "--steps or --minutes" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["autoencoder", "generator", "inverse"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "of another kind"])
def test_a_checkpoint_that_cannot_be_resumed_is_named_and_left_alone(
    stage: str, damage: str, commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    if damage == "of another kind":
        torch.save({"step": 1, "seconds": 1.0, "model": {"weight": torch.zeros(3)}}, checkpoint)
    else:
        torch.save({"step": 1, "seconds": 1.0, "model": {"weight": torch.zeros(1000)}}, checkpoint)
        whole = checkpoint.read_bytes()
        checkpoint.write_bytes({"truncated": whole[:-500], "text": b"hello", "empty": b""}[damage])
    before = checkpoint.read_bytes()
    said = refusal(train(commands.arguments(stage, tmp_path)))
    assert f"{checkpoint} cannot be resumed" in said
    assert "delete it or use another --out" in said
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    assert train(commands.arguments("generator", tmp_path, steps=1))[0] == 0
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    for optimizer in ("adamw", "normuon"):
        by_another = commands.arguments("generator", tmp_path, optimizer=optimizer)
        assert f"{tmp_path / 'checkpoint.pt'} cannot be resumed" in refusal(train(by_another))
    assert (tmp_path / "checkpoint.pt").read_bytes() == checkpoint
    other_stage = commands.arguments("autoencoder", tmp_path)
    assert f"{tmp_path / 'checkpoint.pt'} cannot be resumed" in refusal(train(other_stage))


def resized(source: Path, folder: Path, size: int = 64, buttons: int = 8) -> Path:
    """The footage with frames of another size or with fewer buttons."""
    folder.mkdir()
    for path in source.glob("*.npz"):
        with np.load(path) as data:
            arrays = dict(data)
        arrays["frames"] = arrays["frames"][:, :size, :size]
        arrays["actions"] = arrays["actions"][:, :buttons]
        np.savez(folder / path.name, **arrays)
    return folder


@pytest.mark.parametrize("stage", ["autoencoder", "generator"])
def test_footage_that_is_not_the_recipes_is_refused(
    stage: str, commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    small = resized(commands.footage, tmp_path / "small", size=32)
    said = refusal(train(commands.arguments(stage, tmp_path / "out", footage=small)))
    assert "32 x 32" in said and "64 x 64" in said
    fewer = resized(commands.footage, tmp_path / "fewer", buttons=5)
    said = refusal(train(commands.arguments(stage, tmp_path / "out", footage=fewer)))
    assert "5 buttons" in said and "8" in said
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        ("generator", {"autoencoder": "missing.safetensors"}, ["missing.safetensors is missing"]),
        ("generator", {"start": "missing.safetensors"}, ["missing.safetensors is missing"]),
        ("autoencoder", {"start": "missing.safetensors"}, ["missing.safetensors is missing"]),
        ("autoencoder", {"recipe": "missing.toml"}, ["missing.toml is missing"]),
        ("autoencoder", {"footage": "nowhere"}, ["nowhere holds no .npz episodes", "train collect"]),
        ("generator", {"length": 13}, ["no episode is 13 frames long"]),
        ("generator", {"optimizer": "sgd"}, ["no optimizer `sgd`", "choose among muon"]),
        ("inverse", {"device": "abacus"}, ["no usable device `abacus`"]),
        ("distill", {"world": "nowhere", "length": 10}, ["there is no world `nowhere`"]),
        ("distill", {"world": "w", "origin": 9}, ["an origin of 9 latents does not fit", "--origin 0 to 8"]),
        ("scorer", {"world": "w", "origin": 9}, ["an origin of 9 latents does not fit", "--origin 0 to 8"]),
    ],
)
def test_what_is_missing_or_too_short_is_named(
    stage: str,
    options: dict[str, object],
    words: list[str],
    commands: Commands,
    train: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal(train(commands.arguments(stage, tmp_path / "out", **options)))
    assert all(word in said for word in words), said


def test_an_out_that_is_a_file_is_named(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said = refusal(train(commands.arguments("inverse", tmp_path / "file")))
    assert f"{tmp_path / 'file'} cannot be made" in said


@pytest.mark.parametrize(
    ("line", "other", "words"),
    [
        ("heads = 2", "heads = 3", "3 heads"),
        ("frame_height = 64", "frame_height = 48", "`frame_height`"),
        ("window = 6", "window = 6\nsink = 2", "no sink"),
        ("latents_per_tick = 1", "latents_per_tick = 3", "one latent a tick"),
        ('commit = "last"', 'commit = "pass"', '`sampling.commit` has to be "last"'),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(
    line: str, other: str, words: str, commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    text = commands.recipe.read_text("utf-8")
    assert line in text
    (tmp_path / "recipe.toml").write_text(text.replace(line, other), "utf-8")
    said = refusal(train(commands.arguments("generator", tmp_path / "out", recipe=tmp_path / "recipe.toml")))
    assert "recipe.toml" in said and words in said


def test_a_world_that_commits_by_a_pass_is_played_and_not_distilled(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    folder = save_world(make_tiny_world(), tmp_path / "plain")
    said = refusal(train(commands.arguments("distill", tmp_path / "out", world=folder, length=10)))
    assert str(folder) in said and '`sampling.commit` has to be "last"' in said
    assert not (tmp_path / "out" / "world").exists()


def test_held_out_footage_is_not_trained_on(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    held_out = write_footage(tmp_path / "held_out", 1, 12, seed=899_999)
    assert train(commands.arguments("inverse", tmp_path / "out", footage=held_out, steps=1))[0] == 0
    write_footage(held_out, 1, 12, seed=900_000)
    said = refusal(train(commands.arguments("inverse", tmp_path / "other", footage=held_out)))
    assert "900000" in said and "held out" in said


# ------------------------------------------------------------------------------ several processes
