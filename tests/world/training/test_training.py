"""Training really learns, goes on exactly where it was interrupted, and leaves a world that can be played."""

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from torch import Tensor, nn

from engine.session import Session
from main import main
from tests.conftest import make_tiny_world
from tests.world.game import film, write_footage
from world.action import Action
from world.checkpoint import read_weights, save_weights
from world.config import load_config
from world.context import Context
from world.lighttae import LightTAE
from world.sampler import Schedule
from world.training import distributed, pipeline
from world.training.autoencoder import (
    AutoencoderTraining,
    encode_footage,
    latent_statistics,
    train_autoencoder,
)
from world.training.distill import DistillTraining, distill
from world.training.footage import Footage
from world.training.generator import GeneratorTraining, Trainer, train_generator
from world.training.inverse import InverseTraining, train_inverse
from world.training.pipeline import write_config
from world.training.run import Run, trapezoid
from world.world import World

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
CONFIG = make_tiny_world().config
STEPS, STOP = 14, 6


class Watched(Run):
    """A run that remembers its losses, and may be interrupted from the keyboard after `stop` steps."""

    def __init__(self, folder: Path, steps: int, stop: int | None = None) -> None:
        super().__init__(folder, steps=steps)
        self.stop = stop
        self.losses: dict[str, list[float]] = {}
        self.seen: set[int] = set()

    def log(self, **losses: Tensor) -> None:
        super().log(**losses)
        self.seen.add(self.step)
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(float(value.detach()))
        if self.step + 1 == self.stop:
            signal.raise_signal(signal.SIGINT)

    def fall(self, name: str) -> float:
        """The mean loss of the last tenth of the steps, as a part of that of the first tenth."""
        values = self.losses[name]
        count = len(values) // 10
        return sum(values[-count:]) / sum(values[:count])


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return Footage.load(write_footage(tmp_path_factory.mktemp("footage"), 6, 24), CPU)


@pytest.fixture(scope="module")
def latents(footage: Footage) -> Tensor:
    """The footage in the latents of a fresh autoencoder, normalised."""
    torch.manual_seed(0)
    found = encode_footage(LightTAE(CONFIG.autoencoder), footage, CPU)
    mean, std = latent_statistics(found)
    return (found - mean[:, None, None]) / std[:, None, None]


def autoencoder(run: Run, footage: Footage) -> LightTAE:
    settings = AutoencoderTraining(clips=4, length=3, learning_rate=3e-3)
    return train_autoencoder(run, footage, CONFIG.autoencoder, settings, CPU)


def generator(run: Run, footage: Footage, latents: Tensor, muon: bool = True) -> nn.Module:
    settings = GeneratorTraining(clips=6, length=8, learning_rate=3e-3, muon=muon)
    schedule = Schedule.from_steps(CONFIG.sampling.steps, CONFIG.sampling.shift)
    out = run.folder / "generator.safetensors"
    return train_generator(run, latents, footage, CONFIG.generator, settings, schedule, 6, CPU, out)


def inverse(run: Run, footage: Footage) -> nn.Module:
    return train_inverse(run, footage, InverseTraining(clips=8), CPU)


def distilled(run: Run, footage: Footage, latents: Tensor) -> None:
    start = run.folder / "start" / "generator.safetensors"
    start.parent.mkdir(exist_ok=True)
    save_weights(start, make_tiny_world().generator.state_dict())
    settings = DistillTraining(clips=2, length=6, past=3, critic_steps=2)
    out = run.folder / "generator.safetensors"
    distill(run, latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, start, out)


Stage = Callable[[Run, Footage, Tensor], object]
STAGES: dict[str, Stage] = {
    "autoencoder": lambda run, footage, latents: autoencoder(run, footage),
    "generator": generator,
    "generator without Muon": lambda run, footage, latents: generator(run, footage, latents, muon=False),
    "distill": distilled,
    "inverse": lambda run, footage, latents: inverse(run, footage),
}
every_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


def same(a: object, b: object) -> bool:
    """Whether two checkpoints or state dicts hold the same, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a == b


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What a run resumes from, but for the time it took."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["seconds"]
    return state


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------- it learns


def test_the_autoencoder_learns_to_rebuild_footage(footage: Footage, tmp_path: Path) -> None:
    run = Watched(tmp_path, steps=80)
    autoencoder(run, footage)
    assert run.fall("l2") < 0.5


@pytest.mark.parametrize("muon", [True, False], ids=["Muon", "AdamW"])
def test_the_generator_learns_to_denoise(
    muon: bool, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, steps=60)
    generator(run, footage, latents, muon)
    assert run.losses["loss"][0] == pytest.approx(2, abs=0.1)  # it begins by predicting 0: noise and latents
    assert run.fall("loss") < 0.75


def test_the_generator_learns_what_the_buttons_do(footage: Footage, tmp_path: Path) -> None:
    """A frame is predicted best with what was held on the frame before it: neither later nor sooner."""
    lit = footage.actions[:-1, [0, 2, 6]].float()  # latents that show the three lamps and nothing else
    lamps = torch.cat([torch.zeros(1, 3), lit]).repeat(1, 3)[:, :8, None, None].expand(-1, -1, 4, 4)
    settings = GeneratorTraining(clips=6, length=8, learning_rate=1e-2, muon=False, pure_noise=1)
    schedule = Schedule.from_steps(CONFIG.sampling.steps, CONFIG.sampling.shift)
    run = Watched(tmp_path, steps=100)
    out = tmp_path / "generator.safetensors"
    trained = train_generator(run, lamps, footage, CONFIG.generator, settings, schedule, 6, CPU, out)

    trainer = Trainer(CONFIG.generator, settings, schedule, 6, (4, 4), CPU)
    trainer.model.load_state_dict(trained.state_dict())
    clips = footage.clip_index(48, 9, torch.Generator().manual_seed(5))[:, 1:]

    @torch.no_grad()
    def loss(actions: Tensor) -> float:
        draw = torch.Generator().manual_seed(0)
        return float(trainer.loss(lamps[clips], actions.float(), False, draw))

    led = footage.actions[clips - 1]
    assert loss(footage.actions[clips]) > 1.3 * loss(led)
    assert loss(torch.cat([led[:, :1], led[:, :-1]], 1)) > 1.3 * loss(led)
    assert loss(torch.zeros_like(led)) > 1.3 * loss(led)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [trapezoid(i / 1000) for i in range(1001)]
    assert 0 < factors[0] < 0.01
    assert factors[10:600] == [1.0] * 590
    assert factors[:11] == sorted(factors[:11])
    assert factors[600:] == sorted(factors[600:], reverse=True)
    assert factors[-1] == 0


# ------------------------------------------------------------------------ interrupting, going on


@every_stage
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    stage: Stage, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    """Interrupted and resumed, or in one go: the same weights and optimizers, bit for bit."""
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    stage(Watched(straight, STEPS), footage, latents)
    with pytest.raises(KeyboardInterrupt):
        stage(Watched(halves, STEPS, stop=STOP), footage, latents)
    assert read_checkpoint(halves)["step"] == STOP
    again = Watched(halves, STEPS)
    stage(again, footage, latents)
    assert again.seen == set(range(STOP, STEPS))
    assert same(read_checkpoint(straight), read_checkpoint(halves))
    (one,), (other,) = (folder.glob("*.safetensors") for folder in (straight, halves))
    assert one.read_bytes() == other.read_bytes()


@every_stage
def test_an_interrupted_run_leaves_the_weights_and_metrics_up_to_there(
    stage: Stage, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, STEPS, stop=STOP)
    with pytest.raises(KeyboardInterrupt):
        stage(run, footage, latents)
    (weights,) = tmp_path.glob("*.safetensors")
    assert read_weights(weights)
    (row,) = metrics(tmp_path)
    assert row["step"] == STOP
    for name, values in run.losses.items():
        assert row[name] == pytest.approx(sum(values) / len(values), rel=1e-3, abs=1e-6)
    files = {path.suffix for path in tmp_path.iterdir() if path.is_file()}
    assert files == {".safetensors", ".pt", ".jsonl"}  # and nothing half written


def test_signals_are_the_callers_again_after_a_run(footage: Footage, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    autoencoder(Watched(tmp_path, 2), footage)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(Watched(tmp_path, 4, stop=3), footage)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_finished_run_stays_as_it_is(footage: Footage, tmp_path: Path) -> None:
    first = autoencoder(Watched(tmp_path, 3), footage)
    again = Watched(tmp_path, 3)
    assert same(first.state_dict(), autoencoder(again, footage).state_dict())
    assert not again.seen
    assert len(metrics(tmp_path)) == 1


def test_a_finished_run_can_be_lengthened(footage: Footage, tmp_path: Path) -> None:
    autoencoder(Watched(tmp_path, 3), footage)
    longer = Watched(tmp_path, 8)
    autoencoder(longer, footage)
    assert longer.seen == {3, 4, 5, 6, 7}
    assert [row["step"] for row in metrics(tmp_path)] == [3, 8]
    assert all(np.isfinite(list(row.values())).all() for row in metrics(tmp_path))


def test_minutes_bound_a_run_over_all_its_resumptions(footage: Footage, tmp_path: Path) -> None:
    run = Run(tmp_path, minutes=1e-4)
    autoencoder(run, footage)
    assert run.progress == 1
    assert run.step >= 1
    again = Run(tmp_path, minutes=1e-4)
    autoencoder(again, footage)
    assert again.step == run.step


def test_a_run_begins_from_given_weights(footage: Footage, tmp_path: Path) -> None:
    run = Watched(tmp_path / "first", 40)
    autoencoder(run, footage)
    settings = AutoencoderTraining(clips=4, length=3)
    second = Watched(tmp_path / "second", 4)
    start = tmp_path / "first" / "autoencoder.safetensors"
    train_autoencoder(second, footage, CONFIG.autoencoder, settings, CPU, start)
    assert second.losses["l2"][0] < 0.7 * run.losses["l2"][0]


def test_no_action_leads_over_the_border_of_an_episode(tmp_path: Path) -> None:
    """What was held at the end of one episode has no part in the next, whose first frame nothing led to."""
    trained = []
    for held in (0, 1):
        frames = torch.zeros(16, 64, 64, 3, dtype=torch.uint8)
        actions = torch.zeros(16, 8, dtype=torch.uint8)
        actions[7] = actions[15] = held  # the last frames of two episodes
        latents = torch.randn(16, 8, 4, 4, generator=torch.Generator().manual_seed(0))
        two = Footage(frames, actions, [0, 8], ["", ""])
        trained.append(generator(Watched(tmp_path / str(held), 4), two, latents).state_dict())
    assert same(*trained)


# ----------------------------------------------------------------------------- the command line


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


def test_the_inverse_dynamics_model_is_trained_from_the_command_line(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    status, _, err = train(commands.arguments("inverse", tmp_path, steps=1))
    assert status == 0, err
    assert read_weights(tmp_path / "inverse.safetensors")["head.weight"].shape[0] == 8


def test_ctrl_c_ends_in_status_130_and_the_same_command_goes_on(
    commands: Commands, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Run.log

    def tire(run: Run, **losses: Tensor) -> None:
        log(run, **losses)
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", tire)
        status, _, err = train(commands.arguments("generator", tmp_path))
    assert status == 130
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
    without_muon = [*commands.arguments("generator", tmp_path), "--no-muon"]
    assert f"{tmp_path / 'checkpoint.pt'} cannot be resumed" in refusal(train(without_muon))
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
        ("inverse", {"device": "abacus"}, ["no usable device `abacus`"]),
        ("distill", {"world": "nowhere", "length": 10}, ["there is no world `nowhere`"]),
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
        ("sink = 0", "sink = 2", "without a sink"),
        ("latents_per_tick = 1", "latents_per_tick = 3", "one latent a tick"),
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


def test_held_out_footage_is_not_trained_on(
    commands: Commands, train: Callable[..., Any], tmp_path: Path
) -> None:
    held_out = write_footage(tmp_path / "held_out", 1, 12, seed=899_999)
    assert train(commands.arguments("inverse", tmp_path / "out", footage=held_out, steps=1))[0] == 0
    write_footage(held_out, 1, 12, seed=900_000)
    said = refusal(train(commands.arguments("inverse", tmp_path / "other", footage=held_out)))
    assert "900000" in said and "held out" in said


# ------------------------------------------------------------------------------ several processes


def train_in_a_group(source: Path, folder: Path) -> None:
    """What each of two processes does: train, be interrupted (one of them), go on; and keep what it has."""
    rank, count = distributed.start()
    footage = Footage.load(source, CPU, rank, count)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(Watched(folder / "autoencoder", 14, stop=3 if rank == 1 else None), footage)
    torch.distributed.barrier()  # the first has written its checkpoint
    interrupted_at = torch.load(folder / "autoencoder" / "checkpoint.pt", weights_only=True)["step"]
    model = autoencoder(Watched(folder / "autoencoder", 14), footage)
    latents = encode_footage(model, footage, CPU).float()
    dreamer = generator(Watched(folder / "generator", 6), footage, latents)
    kept = {"frames": len(footage.frames), "interrupted_at": interrupted_at}
    kept |= {"autoencoder": model.state_dict(), "generator": dreamer.state_dict()}
    torch.save(kept, folder / f"{rank}.pt")


def test_two_processes_share_the_work_and_keep_the_same_weights(tmp_path: Path) -> None:
    source = write_footage(tmp_path / "footage", 3, 24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "from tests.world.training.test_training import train_in_a_group\n"
        f"train_in_a_group(Path({str(source)!r}), Path({str(tmp_path)!r}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), str(program)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["frames"], second["frames"]) == (48, 24)  # episodes 0 and 2, and episode 1
    for stage, steps in (("autoencoder", 14), ("generator", 6)):
        assert same(first[stage], second[stage])
        assert metrics(tmp_path / stage)[-1]["step"] == steps
    # One of them was interrupted at step 3; both stopped, at the same later step.
    assert first["interrupted_at"] == second["interrupted_at"] == 10

    alone = autoencoder(Watched(tmp_path / "alone", 14), Footage.load(source, CPU))
    assert not same(alone.state_dict(), first["autoencoder"])  # the other's footage had a part in it
