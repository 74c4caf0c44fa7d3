"""The catalogue: what is known of each world that is here without loading it."""

from dataclasses import dataclass

from world.checkpoint import without_memory
from world.config import WorldConfig, read_config
from world.found import added_worlds, find_world, shipped_worlds
from world.generator import Generator
from world.lighttae import LightTAE


@dataclass(frozen=True)
class Entry:
    """A world: its configuration, its parameters (generator and autoencoder), its weights in bytes.

    `weights` is 0 where they are not there.
    """

    name: str
    config: WorldConfig
    parameters: int
    weights: int


def list_worlds() -> list[Entry]:
    """Every shipped world, then every added one. Raises WorldError for a world.toml that cannot be read."""
    return [_entry(name) for name in dict.fromkeys([*shipped_worlds(), *added_worlds()])]


def _entry(name: str) -> Entry:
    folder = find_world(name)
    config = read_config(folder / "world.toml")
    with without_memory():
        modules = Generator(config.generator), LightTAE(config.autoencoder)
    files = [folder / config.generator_weights, folder / config.autoencoder_weights]
    return Entry(
        name,
        config,
        sum(p.numel() for module in modules for p in module.parameters()),
        sum(f.stat().st_size for f in files) if all(f.is_file() for f in files) else 0,
    )
