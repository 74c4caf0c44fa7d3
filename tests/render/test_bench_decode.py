"""What `bench decode` finds of a world's decoders: time, memory, and how near each is to the full one."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
import torch

from playhead.render.bench.decode import DecodeFigures
from playhead.render.bench.figures import PlayFigures
from playhead.scenes.build import save_scene
from playhead.scenes.scene import SceneFields
from playhead.world import checkpoint
from playhead.world.adding_decoders import add_decoder
from playhead.world.config import DecoderConfig
from playhead.world.home import scenes_folder
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.wan_vae import WanVAE
from playhead.world.world_folders import find_world
from tests.command_line import MAIN, ONE_THREAD

CONFIG = random_world("causal-forcing", small=True)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))


def bench(*options: object, command: str = "decode") -> str:
    command = [*MAIN, "bench", command, "--world", CONFIG.name, "--device", "cpu", *map(str, options)]
    env = {**ONE_THREAD, "PLAYHEAD_HOME": os.environ["PLAYHEAD_HOME"], "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def save_start() -> None:
    """Writes a scene of the world, `a-start`."""
    fields = SceneFields("a-start", "Noise", "Random features.", CONFIG.name, 0, "context.npz", ("a", "b"))
    save_scene(fields, random_context(CONFIG), scenes_folder(), force=True)


def test_decoders_of_random_weights_are_measured_and_not_judged() -> None:
    save_world_config(CONFIG)
    found = msgspec.json.decode(bench("--ticks", 4, "--json"), type=DecodeFigures)
    assert (found.source, found.full, found.latents, found.frames) == ("random latents", "wan", 1, 4)
    tiny, light, full = found.decoders
    assert [tiny.name, light.name, full.name] == ["lighttae", "lightvae", "wan"]
    for one in found.decoders:
        assert 0 < one.tick.p50 <= one.tick.p95 <= one.tick.p99
        assert one.psnr is None and one.device_memory is None
    assert full.parameters > 10 * light.parameters
    assert full.carried == pytest.approx(4 * light.carried, rel=0.2)


def test_decoders_with_weights_are_compared_with_the_full_one_on_what_is_dreamed(tmp_path: Path) -> None:
    """Nearly the same weights are near it, others far; it equals itself, and random ones are left out."""
    save_world_config(msgspec.structs.replace(CONFIG, decoders={"drawn": DecoderConfig("random:1", 2)}))
    save_start()
    with checkpoint.without_memory():
        vae = WanVAE(8)
    checkpoint.fill_randomly(vae, 4, torch.device("cpu"), torch.float32)
    draw = torch.Generator().manual_seed(0)
    for name, change in (("wan", 0.0), ("near", 0.02), ("far", 1.0)):
        tensors = {
            k: t * (1 + change * torch.randn(t.shape, generator=draw)) for k, t in vae.state_dict().items()
        }
        torch.save(tensors, tmp_path / "vae.pth")
        add_decoder(find_world(CONFIG.name), tmp_path / "vae.pth", name)
    found = msgspec.json.decode(bench("--ticks", 4, "--scene", "a-start", "--json"), type=DecodeFigures)
    assert (found.source, found.full) == ("the scene a-start", "wan")
    psnr = {one.name: one.psnr for one in found.decoders}
    assert (psnr["lighttae"], psnr["drawn"], psnr["wan"]) == (None, None, (60.0, 60.0))
    assert psnr["near"] is not None and psnr["far"] is not None
    assert psnr["far"][0] < 15 < 20 < psnr["near"][0] < 60
    assert all(one[1] <= one[0] for one in psnr.values() if one is not None)
    printed = bench("--ticks", 2, "--scene", "a-start")
    assert "PSNR against wan" in printed and printed.count(" dB, of the worst frame") == 3
    assert all(line[13] == " " and line[14] != " " for line in printed.splitlines())


def test_play_is_measured_with_the_decoder_that_it_is_given() -> None:
    save_world_config(CONFIG)
    save_start()
    found = msgspec.json.decode(
        bench("--ticks", 50, "--decoder", "lightvae", "--json", command="play"), type=PlayFigures
    )
    assert found.decoder == "lightvae" and "decoder       lightvae" in [*found.lines()]
