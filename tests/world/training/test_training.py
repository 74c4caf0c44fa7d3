"""Training really learns, from any weights that it begins with."""

from pathlib import Path
from typing import Literal

import msgspec
import pytest
import torch
from torch import Tensor

from playhead.world.checkpoint import read_weights, save_weights
from playhead.world.errors import PlayheadError
from playhead.world.training.autoencoder import AutoencoderTraining, train_autoencoder
from playhead.world.training.distill import distill
from playhead.world.training.footage import Footage
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.run import trapezoid
from playhead.world.training.sharpen import PatchCritic, SharpenTraining, train_sharpness
from playhead.world.training.steady import FREE
from playhead.world.training.train_generator import (
    OPTIMIZERS,
    GeneratorTraining,
    Optimizer,
    Trainer,
    train_generator,
)
from tests.conftest import make_tiny_world
from tests.world.training.runs import CONFIG, CPU, metrics
from tests.world.training.stages import Watched, autoencoder, generator, resting, scorer


@pytest.mark.parametrize("wrong", [{"steady": 0.0}, {"rest": 0.0}, {}], ids=str)
def test_rest_is_not_taught_where_there_is_nothing_to_teach(
    footage: Footage, latents: Tensor, tmp_path: Path, wrong: dict[str, float]
) -> None:
    settings = DistillTraining(objective="rest", clips=2, length=6, past=3, **wrong)
    start = tmp_path / "generator.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict(), torch.float32)
    run, sampling = Watched(tmp_path / "run", steps=2), CONFIG.sampling
    filmed = resting(footage) if wrong else footage
    with pytest.raises(PlayheadError, match="the objective rest has nothing to teach"):
        distill(
            run, latents, filmed, CONFIG.generator, settings, sampling, CPU, start, None, run.folder / "out"
        )
    assert not (run.folder / "out").exists()


def test_steady_sessions_hold_what_footage_holds_for_long(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    actions = torch.zeros_like(footage.actions)
    actions[len(actions) // 2 :, 2] = 1
    steady = Footage(footage.frames, actions, footage.starts, footage.places)
    settings = DistillTraining(clips=6, length=6, past=3, horizon=9, steady=0.7)
    start = tmp_path / "generator.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict())
    run = Watched(tmp_path / "run", steps=4)
    generator, sampling = CONFIG.generator, CONFIG.sampling
    distill(run, latents, steady, generator, settings, sampling, CPU, start, start, run.folder / "out")
    held = set()
    for chain in torch.load(run.folder / "checkpoint.pt", weights_only=True)["chains"]:
        if chain["latents"].any():
            for chord, buttons in zip(chain["chords"].tolist(), chain["held"].tolist(), strict=True):
                held.add((chord, *(i for i, down in enumerate(buttons[0]) if down)))
    assert held == {(FREE,), (0,), (1, 2)}


def test_the_autoencoder_learns_to_rebuild_footage(footage: Footage, tmp_path: Path) -> None:
    run = Watched(tmp_path, steps=80)
    autoencoder(run, footage)
    assert run.fall("l2") < 0.5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_generator_learns_to_denoise(
    optimizer: Optimizer, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, steps=60)
    generator(run, footage, latents, optimizer)
    assert run.losses["loss"][0] == pytest.approx(1, abs=0.1)  # it begins by finding 0, of unit latents
    assert run.fall("loss") < 0.75


@pytest.mark.parametrize("predicts", ["flow", "change"])
def test_whatever_it_predicts_the_generator_learns(
    predicts: Literal["flow", "change"], footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG.generator, predicts=predicts)
    settings = GeneratorTraining(clips=6, length=8, learning_rate=3e-3, optimizer="adamw", own_from=1.0)
    run = Watched(tmp_path, steps=60)
    train_generator(run, latents, footage, config, settings, CONFIG.sampling, CPU, tmp_path / "out")
    assert run.fall("loss") < 0.9


def test_the_scorer_learns_to_denoise_whole_windows(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, steps=60)
    scorer(run, footage, latents)
    assert run.fall("loss") < 0.75


def test_sharpening_makes_pictures_sharper_and_leaves_latents_as_they_are(
    footage: Footage, tmp_path: Path
) -> None:
    smooth = tmp_path / "smooth"
    autoencoder(Watched(smooth, 60), footage)
    run = Watched(tmp_path / "sharp", 120)
    settings = SharpenTraining(clips=4, length=3, learning_rate=2e-3, detail=0.1)
    start, out = smooth / "autoencoder.safetensors", tmp_path / "sharp" / "autoencoder.safetensors"
    train_sharpness(run, footage, CONFIG.autoencoder, settings, CPU, start, out)
    before, after = (
        sum(values) / 20 for values in (run.losses["sharpness"][:20], run.losses["sharpness"][-20:])
    )
    assert abs(after - 1) < 0.5 * abs(before - 1)
    was, became = read_weights(start), read_weights(out)
    assert all(torch.equal(value, became[name]) for name, value in was.items() if name.startswith("encoder."))
    assert not any(
        torch.equal(value, became[name]) for name, value in was.items() if name.startswith("decoder.")
    )


def test_the_critic_judges_patches_of_eight_pixels_by_two_frames() -> None:
    pairs = torch.rand(2, 6, 64, 96, generator=torch.Generator().manual_seed(0))
    critic = PatchCritic()
    found, swapped = critic(pairs), critic(torch.cat([pairs[:, 3:], pairs[:, :3]], 1))
    assert found.shape == (2, 1, 8, 12)
    assert not torch.equal(found, swapped)  # the one before is not the one after


def test_the_generator_learns_what_the_buttons_do(footage: Footage, tmp_path: Path) -> None:
    """A frame is predicted best with what was held on the frame before it: neither later nor sooner."""
    lit = footage.actions[:-1, [0, 2, 6]].float()  # latents that show the three lamps and nothing else
    lamps = torch.cat([torch.zeros(1, 3), lit]).repeat(1, 3)[:, :8, None, None].expand(-1, -1, 4, 4)
    settings = GeneratorTraining(clips=6, length=8, learning_rate=1e-2, optimizer="adamw")
    run = Watched(tmp_path, steps=100)
    out = tmp_path / "generator.safetensors"
    trained = train_generator(run, lamps, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, out)

    pure = GeneratorTraining(one_step=1.0, committed=1.0, anywhere=0.0)
    trainer = Trainer(CONFIG.generator, CONFIG.sampling, pure, (4, 4), CPU, model=trained)
    clips = footage.clip_index(48, 9, torch.Generator().manual_seed(5))[:, 1:]

    @torch.no_grad()
    def loss(actions: Tensor) -> float:
        draw = torch.Generator().manual_seed(0)
        return float(trainer.loss(lamps[clips], actions.float(), draw)[0])

    led = footage.actions[clips - 1]
    assert loss(footage.actions[clips]) > 1.3 * loss(led)
    assert loss(torch.cat([led[:, :1], led[:, :-1]], 1)) > 1.3 * loss(led)
    assert loss(torch.zeros_like(led)) > 1.3 * loss(led)


def test_a_generators_run_is_measured_on_fixed_contexts(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    generator(Watched(tmp_path, 3), footage, latents)
    (row,) = metrics(tmp_path)
    assert row["valid_1"] > 0 and row["valid_8"] > 0
    assert row["valid_detail"] == 0  # untrained, it predicts the same everywhere


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [trapezoid(i / 1000) for i in range(1001)]
    assert 0 < factors[0] < 0.01
    assert factors[10:600] == [1.0] * 590
    assert factors[:11] == sorted(factors[:11])
    assert factors[600:] == sorted(factors[600:], reverse=True)
    assert factors[-1] == 0


def test_a_run_begins_from_given_weights(footage: Footage, tmp_path: Path) -> None:
    run = Watched(tmp_path / "first", 40)
    autoencoder(run, footage)
    settings = AutoencoderTraining(clips=4, length=3)
    second = Watched(tmp_path / "second", 4)
    start = tmp_path / "first" / "autoencoder.safetensors"
    train_autoencoder(second, footage, CONFIG.autoencoder, settings, CPU, start)
    assert second.losses["l2"][0] < 0.7 * run.losses["l2"][0]


@pytest.mark.parametrize("wider", [False, True], ids=["the same decoder", "another decoder"])
def test_a_decoder_can_be_taught_alone(wider: bool, footage: Footage, tmp_path: Path) -> None:
    """The encoder, and with it the latents, stay what they were, whatever the decoder was before."""
    start = tmp_path / "start.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).autoencoder.state_dict())
    config = CONFIG.autoencoder
    if wider:
        config = msgspec.structs.replace(config, decoder_widths=(16, 8, 8, 8))
    run = Watched(tmp_path / "run", 30)
    settings = AutoencoderTraining(clips=4, length=3, learning_rate=3e-3, decoder_only=True)
    train_autoencoder(run, footage, config, settings, CPU, start)
    was, became = read_weights(start), read_weights(tmp_path / "run" / "autoencoder.safetensors")
    encoder = [name for name in became if name.startswith("encoder.")]
    assert encoder and all(torch.equal(was[name], became[name]) for name in encoder)
    assert became["decoder.1.weight"].shape[0] == config.decoder_widths[0]
    assert run.fall("l2") < 0.9


def test_a_decoder_alone_needs_an_encoder_to_begin_with(footage: Footage, tmp_path: Path) -> None:
    settings = AutoencoderTraining(decoder_only=True)
    with pytest.raises(PlayheadError, match="give them by --start"):
        train_autoencoder(Watched(tmp_path, 2), footage, CONFIG.autoencoder, settings, CPU)
