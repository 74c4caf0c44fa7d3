"""The catalogue: what is known of each shipped world without loading it."""

from dataclasses import dataclass

import torch

from world.config import WorldConfig, read_config
from world.generator import Generator
from world.lighttae import LightTAE
from world.world import SHIPPED, shipped_worlds


@dataclass(frozen=True)
class Entry:
    """A shipped world: its configuration, its parameters (generator and autoencoder), its weights in bytes.

    `weights` is 0 where they are not there.
    """

    name: str
    config: WorldConfig
    parameters: int
    weights: int


def list_worlds() -> list[Entry]:
    """Every shipped world, by name. Raises WorldError for a world.toml that cannot be read."""
    return [_entry(name) for name in shipped_worlds()]


def _entry(name: str) -> Entry:
    folder = SHIPPED / name
    config = read_config(folder / "world.toml")
    with torch.device("meta"):  # shapes without memory
        modules = Generator(config.generator), LightTAE(config.autoencoder)
    files = [folder / config.generator_weights, folder / config.autoencoder_weights]
    return Entry(
        name,
        config,
        sum(p.numel() for module in modules for p in module.parameters()),
        sum(f.stat().st_size for f in files) if all(f.is_file() for f in files) else 0,
    )
