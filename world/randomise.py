"""Random worlds: any catalogue world, and larger ones, with random weights, for benchmarks and tests.

Its folder holds a `world.toml` alone: the weights are drawn when it is loaded, on its device, from the seed.
"""

import msgspec
import numpy as np
import tomli_w

from playhead.world.config import DecoderConfig, WorldConfig
from playhead.world.context import Context
from playhead.world.errors import WorldError
from playhead.world.home import own_folder, worlds_folder
from playhead.world.public import PUBLIC, SINGLE, WAN, tiny
from playhead.world.wan_vae import WIDTH

TINY_WIDTH = 8
"""Of a small world's full Wan VAE."""

LARGER = {
    "wan-14b": msgspec.structs.replace(
        PUBLIC["causal-forcing"].config,
        name="wan-14b",
        title="A generator of Wan 2.1's larger size, a latent at a time",
        generator=msgspec.structs.replace(WAN, dim=5120, heads=40, layers=40, ffn_dim=13824),
        sampling=msgspec.structs.replace(SINGLE, window=9),
    )
}
"""Sizes for which the catalogue has no file: 14.3 G parameters, and a cache of 11.5 GB in bfloat16."""


def random_world(name: str, seed: int = 0, small: bool = False) -> WorldConfig:
    """The configuration of a catalogue world, or of a `LARGER` one, with random weights.

    Raises WorldError for an unknown name.
    """
    known = {**{key: entry.config for key, entry in PUBLIC.items()}, **LARGER}
    if name not in known:
        raise WorldError(f"the catalogue has no world `{name}`; it has {', '.join(known)}")
    config = known[name]
    if small:
        config = tiny(config)
    full = TINY_WIDTH if small else WIDTH
    config = msgspec.structs.replace(
        config,
        name=f"{name}-{'tiny' if small else 'random'}",
        title=f"{config.title}, with random weights",
        licence="none: random weights",
        generator_weights=f"random:{seed}",
        autoencoder_weights=f"random:{seed + 1}",
        commit_weights=f"random:{seed + 2}" if config.commit_weights else "",
        decoders={
            "lightvae": DecoderConfig(f"random:{seed + 3}", full // 4),
            "wan": DecoderConfig(f"random:{seed + 4}", full),
        },
    )
    config.check()
    return config


def random_context(config: WorldConfig, seed: int = 0) -> Context:
    """What a scene of that world would hold, drawn at random: two prompts, or an image's features."""
    draw = np.random.default_rng(seed)
    g = config.generator
    rows = min(64, g.text_length)

    def normal(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape, dtype=np.float32)

    return Context(
        frames=np.zeros((0, config.frame_height, config.frame_width, 3), np.uint8),
        actions=np.zeros((0, len(config.action.buttons)), np.uint8),
        prompts=tuple(normal(rows, g.text_dim) for _ in range(2)) if g.text_dim else (),
        features=normal(257, g.image_dim) if g.image_dim else None,
        condition=normal(30, *config.latent_shape) if config.looks_at_picture else None,
    )


def save_world_config(config: WorldConfig) -> None:
    """Writes the folder of a random world among the user's worlds. Raises WorldError where that fails."""
    folder = worlds_folder() / config.name
    try:
        own_folder(folder)
        (folder / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
    except OSError as error:
        raise WorldError(f"{folder} cannot be written ({error.strerror}); set PLAYHEAD_HOME") from None
