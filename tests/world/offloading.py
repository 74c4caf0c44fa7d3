"""Worlds with enough blocks to offload some, in files, and the budgets that make so many leave."""

from pathlib import Path

import msgspec
import numpy as np
import torch

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.checkpoint import load_weights, save_weights, without_memory
from playhead.world.config import WorldConfig
from playhead.world.generator import Generator
from playhead.world.lighttae import LightTAE
from playhead.world.offload.memory_budget import MemoryBudget
from playhead.world.offload.needs import Needs, count_needs
from playhead.world.offload.plan import OffloadPlan
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.training.pipeline import write_config
from playhead.world.world import World
from playhead.world.world_folders import find_world

CPU = torch.device("cpu")
LAYERS = 7


def make_world(name: str, layers: int = LAYERS) -> tuple[Path, WorldConfig]:
    """A tiny catalogue world of so many blocks, its random weights in files; returns its folder too."""
    config = random_world(name, small=True)
    config = msgspec.structs.replace(
        config, generator=msgspec.structs.replace(config.generator, layers=layers)
    )
    save_world_config(config)
    folder = find_world(config.name)
    drawn = World.load(folder, "cpu", torch.float32)
    files = {"generator_weights": drawn.generator, "autoencoder_weights": drawn.autoencoder}
    if config.commit_weights:
        files["commit_weights"] = drawn.generators["commit"]
    for field, module in files.items():
        save_weights(folder / f"{field}.safetensors", module.state_dict())
    kept = {field: f"{field}.safetensors" for field in files}
    config = msgspec.structs.replace(config, **kept)
    write_config(folder / "world.toml", config)
    return folder, config


def needs_of(config: WorldConfig, dtype: torch.dtype = torch.float32, precision: str | None = None) -> Needs:
    with without_memory():
        generators = [Generator(config.generator) for _ in config.generator_files]
        autoencoder = LightTAE(config.autoencoder)
    return count_needs(config, generators, autoencoder, CPU, dtype, precision)


def budget_of(config: WorldConfig, offloaded: int, dtype: torch.dtype = torch.float32) -> MemoryBudget:
    """The main memory with which just so many blocks of a world leave it."""
    return MemoryBudget(ram=needs_of(config, dtype).on_device(offloaded))


def build(folder: Path, config: WorldConfig, plan: OffloadPlan | None, precision: str | None = None) -> World:
    """A world of that folder on a CPU, its blocks where a plan has them, whatever a budget would say."""
    with without_memory():
        models = [Generator(config.generator) for _ in config.generator_files]
        autoencoder = LightTAE(config.autoencoder)
    for model, file in zip([*models, autoencoder], config.weight_files, strict=True):
        load_weights(model, folder, file, CPU, torch.float32)
    commit = models[1] if config.commit_weights else None
    return World(config, models[0], autoencoder, commit_generator=commit, precision=precision, plan=plan)


def dream(world: World, ticks: int = 4) -> list[np.ndarray]:
    """Frames and latents of a few ticks under what can be held, a switch of the prompt among them."""
    session = Session(world, random_context(world.config), 3)
    space, found = world.config.action, []
    for tick in range(ticks):
        names = {"prompt_2"} & set(space.buttons) if tick == 2 else set(space.seen[:1])
        found += [session.step(Action(frozenset(names))), session.latents]
    session.finish()
    return found


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
