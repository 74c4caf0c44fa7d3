"""A fused decoder shows what a plain one does, and is taken where it is right and faster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from playhead.engine import fingerprint
from playhead.world.config import load_config
from playhead.world.errors import WorldError
from playhead.world.fused import choice, fused_decoder
from playhead.world.lighttae import Decoder, LightTAEConfig, Memory, in_grey_levels
from playhead.world.randomise import random_world
from playhead.world.world import World
from playhead.world.world_folders import find_world
from tests.command_line import ROOT
from tests.conftest import save_world


def test_its_kernels_show_what_a_plain_decoder_does() -> None:
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.world.fused_decoder_kernel"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"public", "clips of two sessions", "a stage of one size"}
    for name, case in found.items():
        assert case["varies"] > 4, f"{name}: frames of one colour show nothing"
        assert case["carried"] < 2e-6, name
        assert case["differ"] < 0.001 * case["of"], f"{name}: a few pixels may be rounded the other way"


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        (LightTAEConfig(), True),
        (load_config(find_world("freedoom") / "world.toml").autoencoder, False),  # patches of 4 x 4 pixels
        (LightTAEConfig(decoder_widths=(256, 120, 64, 64)), False),
        (LightTAEConfig(decoder_widths=(256, 128, 64, 48)), False),
        (LightTAEConfig(decoder_widths=(256, 144, 48, 32)), True),
    ],
)
def test_a_decoder_fits_whose_channels_are_whole_tiles(config: LightTAEConfig, fits: bool) -> None:
    with torch.device("meta"):
        decoder = Decoder(config)
    assert fused_decoder.fits(decoder) == fits
    if not fits:
        with pytest.raises(ValueError, match="channels that are whole tiles"):
            fused_decoder.FusedDecoder(decoder)


class Shifted:
    """A way to decode that is so many grey levels off, in place of kernels that want a GPU."""

    off = 0

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def compile(self, latents: torch.Tensor) -> None:
        """There is nothing to compile."""

    def __call__(self, latents: torch.Tensor, memory: Memory | None) -> tuple[torch.Tensor, Memory]:
        pixels, carried = self._decoder(latents, memory)
        return in_grey_levels((pixels + self.off / 255).clamp(0, 1)), carried


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A public world in small, on a device that has the kernels, in a home of its own."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    torch.manual_seed(0)
    config = random_world("causal-forcing", small=True)
    from playhead.world.generator import Generator
    from playhead.world.lighttae import LightTAE

    autoencoder = LightTAE(config.autoencoder)
    autoencoder.decoder[-1].bias.data.add_(0.5)
    world = World(config, Generator(config.generator), autoencoder)
    monkeypatch.setattr(choice.ops, "available", lambda device: True)
    monkeypatch.setattr(choice, "fits", lambda decoder: True)
    monkeypatch.setattr(choice, "FusedDecoder", Shifted)
    return world


def take(world: World, monkeypatch: pytest.MonkeyPatch, off: int, times: tuple[float, float]) -> bool:
    """Whether decodes are fused, of which the fused ones are so far off; `times`: seconds plain and fused."""
    left = list(times)
    monkeypatch.setattr(choice, "seconds", lambda work, device, recorded: left.pop(0))
    monkeypatch.setattr(Shifted, "off", off)
    return world.frame_decoder.fuse(None).fused


def test_the_faster_right_way_is_taken_and_kept(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = small_world.frame_decoder
    assert take(small_world, monkeypatch, 0, (3.0, 2.0)) and decoder.fused is not None
    assert take(small_world, monkeypatch, 1, (2.0, 3.0)), "what is remembered holds, whatever it takes now"
    assert not take(small_world, monkeypatch, 9, (3.0, 2.0)), "but not where it is wrong by now"
    assert decoder.fused is None and not take(small_world, monkeypatch, 0, (3.0, 2.0))


def test_what_is_found_within_a_budget_is_not_kept(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found with small pictures, of which other things decide."""
    monkeypatch.setattr(choice, "seconds", lambda work, device, recorded: left.pop(0))
    left = [2.0, 3.0]
    assert not small_world.frame_decoder.fuse(None, tight=True).fused
    left = [3.0, 2.0]
    assert small_world.frame_decoder.fuse(None).fused, "and what is found with those of play is"
    left = []
    assert (
        small_world.frame_decoder.fuse(None, tight=True).fused and small_world.frame_decoder.fuse(None).fused
    )


def test_one_that_is_slower_or_unwanted_is_left(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not take(small_world, monkeypatch, 0, (2.0, 3.0))
    assert not small_world.frame_decoder.fuse(False).fused
    monkeypatch.setattr(choice, "seconds", lambda work, device, recorded: 1.0)
    monkeypatch.setattr(Shifted, "off", 9)
    with pytest.raises(WorldError, match=r"--fused is refused here: 9\.\d+ of 255 .*; leave it out"):
        small_world.frame_decoder.fuse(True)


def test_play_shows_what_it_makes_and_a_recording_names_it(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(1, 1, *small_world.config.latent_shape)
    decoder = small_world.frame_decoder
    plain, memory = decoder.pictures(latents, None)
    assert "kernels" not in fingerprint.environment(small_world)
    monkeypatch.setattr(choice, "LIMIT_PICTURES", 40.0)
    take(small_world, monkeypatch, 30, (3.0, 2.0))
    small_world.fused_decoder = choice.FusedChoice(True)
    assert fingerprint.environment(small_world)["kernels"] == "fused decoder"
    shown, carried = decoder.pictures(latents, None)
    assert shown.shape == plain.shape and 20 < (shown.float() - plain.float()).mean() <= 30
    assert all(torch.equal(a, b) for a, b in zip(memory, carried, strict=True))
    with decoder.plain():
        assert torch.equal(decoder.pictures(latents, None)[0], plain)
    assert torch.equal(decoder.pictures(latents, None)[0], shown)


def test_without_a_gpu_decodes_are_plain(tiny_world: World, tmp_path: Path) -> None:
    save_world(tiny_world, tmp_path / "world")
    world = World.load(tmp_path / "world", "cpu", torch.float32)
    assert not world.fused_decoder.fused and world.frame_decoder.fused is None
