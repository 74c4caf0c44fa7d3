"""What many tests share: a world small enough to be built from random weights in a moment."""

import os
from pathlib import Path

# Threads that wait by spinning take the core from each other on a busy machine; see main.py. Read with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tests run side by side, each on a core: they, and what they start, have one thread unless they ask for more.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests that are about recordings name a folder of their own.
os.environ["PLAYHEAD_RECORDINGS"] = "off"

import msgspec
import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import settings

from playhead.scenes.scene import SceneFields
from playhead.world.action import ActionSpace
from playhead.world.checkpoint import save_weights
from playhead.world.config import LatentConfig, SamplingConfig, WorldConfig
from playhead.world.context import Context
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.kv_cache import FarMemory
from playhead.world.lighttae import LightTAE, LightTAEConfig
from playhead.world.world import World

settings.register_profile("playhead", deadline=None)  # no test asserts wall time
settings.load_profile("playhead")

SEED = 11
"""The tiny scene's."""
THOROUGH = int(os.environ.get("PLAYHEAD_THOROUGH", "1"))
"""How many times as many examples hypothesis tries."""
BUTTONS = ("forward", "back", "turn_left", "turn_right", "strafe_left", "strafe_right", "attack", "use")


def make_tiny_world(
    seed: int = 0,
    time_factor: int = 1,
    places: tuple[str, ...] = (),
    rest_after: int = 0,
    one_pass: bool = False,
    steps: tuple[float, ...] = (1000.0, 500.0),
    lay_out: bool = True,
) -> World:
    """A world of 64 x 64 pixels, 4 tokens a frame and random weights, shaped like `freedoom`.

    `time_factor` 1 or 2: frames a tick. `places`: those that it knows by name. `one_pass`: its last denoise
    pass commits a tick, it is given the latents before, and its second layer has a far memory. `lay_out`: as
    `World` has it.
    """
    grows = (False, False, time_factor == 2)
    config = WorldConfig(
        name="tiny",
        title="A tiny world of random weights",
        licence="none",
        frame_height=64,
        frame_width=64,
        ticks_per_second=17.5,
        latent=LatentConfig(8, 4, 4, (0.0,) * 8, (1.0,) * 8),
        generator=GeneratorConfig(
            dim=32,
            heads=2,
            layers=2,
            ffn_dim=64,
            in_channels=16 if one_pass else 8,
            out_channels=8,
            buttons=len(BUTTONS),
            labels=len(places),
            predicts="clean" if one_pass else "flow",
        ),
        autoencoder=LightTAEConfig(
            latent_channels=8,
            patch=4,
            encoder_widths=(8, 8, 8, 8),
            decoder_widths=(8, 8, 8, 8),
            encoder_space=(False, True, True),
            decoder_space=(True, True, False),
            encoder_time=grows,
            decoder_time=grows,
        ),
        sampling=SamplingConfig(
            latents_per_tick=1,
            steps=steps,
            shift=3.0,
            window=6,
            commit="last" if one_pass else "pass",
            previous=one_pass,
            far=FarMemory(frames=3, every=4, layers=(1,)) if one_pass else None,
        ),
        action=ActionSpace(BUTTONS),
        places=places,
        rest_after=rest_after,
    )
    config.check()
    random_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    generator, autoencoder = Generator(config.generator), LightTAE(config.autoencoder)
    # Fresh weights predict zeros and decode to grey, whatever is held: make what is held visible.
    with torch.no_grad():
        for parameter in generator.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5)
        for parameter in autoencoder.decoder.parameters():
            parameter.mul_(2)
    torch.random.set_rng_state(random_state)
    return World(config, generator, autoencoder, lay_out=lay_out)


def save_world(world: World, folder: Path) -> Path:
    """Writes a world's folder, as `World.load` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(world.config)), "utf-8")
    save_weights(folder / world.config.generator_weights, world.generator.state_dict())
    save_weights(folder / world.config.autoencoder_weights, world.autoencoder.state_dict())
    return folder


def save_scene(folder: Path) -> Path:
    """Writes a scene of the tiny world, whose context is the tiny one."""
    folder.mkdir()
    fields = SceneFields("tiny-scene", "A tiny scene", "random", "tiny", SEED, "context.npz")
    (folder / "scene.toml").write_text(tomli_w.dumps(msgspec.to_builtins(fields)), "utf-8")
    context = make_tiny_context()
    np.savez(folder / "context.npz", frames=context.frames, actions=context.actions)
    return folder


def make_tiny_context(length: int = 4, seed: int = 0) -> Context:
    """Random frames `(length, 64, 64, 3)` and actions `(length, 8)` for a tiny world."""
    draws = np.random.default_rng(seed)
    frames = draws.integers(0, 256, (length, 64, 64, 3), dtype=np.uint8)
    return Context(frames, draws.integers(0, 2, (length, len(BUTTONS)), dtype=np.uint8))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Every test begins with one thread of torch's, whatever was played before it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_world() -> World:
    """Shared by every test: play it through a Session of your own, change nothing in it."""
    return make_tiny_world()


@pytest.fixture(
    scope="session", params=[None, (1000.0,), (1000.0, 500.0)], ids=["pass", "one step", "two steps"]
)
def any_world(request: pytest.FixtureRequest, tiny_world: World) -> World:
    """The tiny world, which commits by a pass of its own, and one-pass ones of one and of two steps."""
    return tiny_world if request.param is None else make_tiny_world(one_pass=True, steps=request.param)


@pytest.fixture(scope="session")
def tiny_world_folder(tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world on disk (weights rounded to bfloat16 by the saving)."""
    return save_world(tiny_world, tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture
def tiny_context() -> Context:
    return make_tiny_context()


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scene of the tiny world, whose context is the tiny one."""
    return save_scene(tmp_path_factory.mktemp("scenes") / "tiny-scene")
