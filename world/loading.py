"""The models of a world, loaded from its folder for a device, and where a budget has them."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from playhead.world import checkpoint, packed
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.generator import Generator
from playhead.world.lighttae import LightTAE
from playhead.world.low_bit import number_types
from playhead.world.offload.device_pages import share_pages
from playhead.world.offload.memory_budget import MemoryBudget
from playhead.world.offload.needs import count_needs
from playhead.world.offload.plan import OffloadPlan, make_plan
from playhead.world.packed_generator import fits
from playhead.world.size import check_size, memory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Models:
    """A world's models with their weights, and which of the generators' blocks are to be offloaded."""

    generator: Generator
    commit: Generator | None
    experts: tuple[Generator, ...]
    autoencoder: LightTAE
    plan: OffloadPlan | None


def load_models(
    config: WorldConfig,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    budget: MemoryBudget | None = None,
    cache: str | None = None,
    shares: int = 1,
    fused: bool | None = None,
) -> Models:
    """Loads them; what lies in a file stays mapped to main memory until it is moved.

    `shares`: on how many devices a session's cache is, a part on each; `fused`: as of `World.load`.

    Raises WorldError for weights that are missing, damaged or another model's, and for too little memory.
    """
    with checkpoint.without_memory():
        generator = Generator(config.generator)
        second = Generator(config.generator) if config.commit_weights else None
        experts = tuple(Generator(config.generator) for _ in config.expert_weights)
        autoencoder = LightTAE(config.autoencoder)
    generators = [model for model in (generator, second, *experts) if model is not None]
    plan = None
    if budget is not None and precision == "nvfp4":
        raise WorldError(
            "--vram and --ram do not go with --precision nvfp4; leave one of them out, or take fp8"
        )
    if budget is not None:
        plan = _plan(config, generators, autoencoder, device, dtype, precision, budget, cache, fused)
        if device.type == "cuda":
            share_pages()
    if plan is None:
        models = [*generators, autoencoder]
        low_bit_cache = cache is not None
        check_size(
            config, models, device, dtype, precision=precision, low_bit_cache=low_bit_cache, shares=shares
        )
    # Where blocks leave the device, not all that is drawn has room there.
    kept = CPU if plan is not None else None
    for model, file in zip((*generators, autoencoder), config.weight_files, strict=True):
        checkpoint.load_weights(model, folder, file, device, dtype, kept)
    kind = number_types(dtype, precision, cache)
    where = f", offloaded: {plan}" if plan is not None else ""
    said = f"loaded the world {config.name} from {folder}: {device}, {kind}{where}"
    logging.getLogger("playhead").info(said)
    return Models(generator, second, experts, autoencoder, plan)


def _plan(
    config: WorldConfig,
    generators: list[Generator],
    autoencoder: LightTAE,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None,
    budget: MemoryBudget,
    cache: str | None,
    fused: bool | None,
) -> OffloadPlan | None:
    low_bit_cache = cache is not None
    return make_plan(
        config.name,
        count_needs(
            config, generators, autoencoder, device, dtype, precision, budget.sessions, low_bit_cache, fused
        ),
        budget,
        device.type,
        file=precision is None and not _drawn(config),
        whole=precision is None and _whole(config, generators[0], dtype),
        device_memory=memory(device),
        main_memory=memory(CPU),
    )


def _drawn(config: WorldConfig) -> bool:
    """Whether weights are random ones, which lie in no file."""
    return any(checkpoint.random_seed(file) is not None for file in config.generator_files)


def _whole(config: WorldConfig, generator: Generator, dtype: torch.dtype) -> bool:
    """Whether a CPU has all of a generator laid out, see `World`."""
    return config.sampling.commit == "last" and packed.available(dtype) and fits(generator)


def least_memory(config: WorldConfig, device: torch.device, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of a device that a world takes without a budget, and the least that a budget may be."""
    with checkpoint.without_memory():
        generators = [Generator(config.generator) for _ in config.generator_files]
        autoencoder = LightTAE(config.autoencoder)
    needs = count_needs(config, generators, autoencoder, device, dtype)
    if device.type == "cpu" and _whole(config, generators[0], dtype):
        return needs.as_ever(), needs.as_ever()
    return needs.as_ever(), needs.least(device.type == "cuda" or not _drawn(config))
