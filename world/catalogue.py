"""The catalogue: what is known of each world that is here without loading it."""

from dataclasses import dataclass

from playhead.world.checkpoint import without_memory
from playhead.world.config import WorldConfig, load_config
from playhead.world.generator import Generator
from playhead.world.lighttae import LightTAE
from playhead.world.world_folders import added_worlds, find_world, shipped_worlds


@dataclass(frozen=True)
class WorldEntry:
    """A world: its configuration, its parameters (all generators and the autoencoder), its weights in bytes.

    `weights` is 0 where they are not there.
    """

    name: str
    config: WorldConfig
    parameters: int
    weights: int


def scan_worlds() -> tuple[list[WorldEntry], dict[str, str]]:
    """Every shipped world, then every added one; and of those whose world.toml cannot be used, why."""
    found, broken = [], {}
    for name in dict.fromkeys([*shipped_worlds(), *added_worlds()]):
        try:
            found.append(_entry(name))
        except Exception as error:  # torch raises whatever impossible sizes lead it to
            broken[name] = next(iter(str(error).splitlines()), "") or type(error).__name__
    return found, broken


def _entry(name: str) -> WorldEntry:
    folder = find_world(name)
    config = load_config(folder / "world.toml")
    with without_memory():
        sizes = [
            sum(p.numel() for p in module.parameters())
            for module in (Generator(config.generator), LightTAE(config.autoencoder))
        ]
    files = [folder / file for file in config.weight_files]
    return WorldEntry(
        name,
        config,
        sizes[0] * len(config.generator_files) + sizes[1],
        sum(f.stat().st_size for f in files) if all(f.is_file() for f in files) else 0,
    )
