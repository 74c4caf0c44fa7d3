"""Two worlds of one line of training made one, by averaging their weights.

Runs that went on from the same weights end near enough to each other for what lies between them to work as
well, or better (model soups, Wortsman et al. 2022).
"""

import shutil
from pathlib import Path

from torch import Tensor

from playhead.world.checkpoint import random_seed, read_weights, save_weights
from playhead.world.config import WorldConfig, load_config
from playhead.world.errors import WorldError
from playhead.world.world_folders import find_world


def average_worlds(
    world: str | Path, other: str | Path, out: Path, share: float = 0.5, decoder: float = 0.0
) -> Path:
    """Writes to the folder `out` the `world` with a `share` of the `other`'s generator in its own.

    Worlds are given by name or folder. `decoder` is the share of the other's decoder. Raises WorldError for
    worlds that are not of one shape and one encoder.
    """
    folders = [find_world(name) for name in (world, other)]
    configs = [load_config(folder / "world.toml") for folder in folders]
    _check_alike(folders, configs)
    made = {}
    for mine, theirs in zip(*(config.weight_files for config in configs), strict=True):
        pair = read_weights(folders[0] / mine), read_weights(folders[1] / theirs)
        _check_shapes(folders[1] / theirs, *pair)
        made[mine] = _between(*pair, decoder if mine == configs[0].autoencoder_weights else share)
    out.mkdir(parents=True, exist_ok=True)
    for name, tensors in made.items():
        save_weights(out / name, tensors, next(iter(tensors.values())).dtype)
    for name in ("world.toml", configs[0].inverse_weights):
        if name and (folders[0] / name).is_file() and out.resolve() != folders[0].resolve():
            shutil.copyfile(folders[0] / name, out / name)
    return out


def _between(mine: dict[str, Tensor], theirs: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    return {k: ((1 - share) * x.float() + share * theirs[k].float()).to(x.dtype) for k, x in mine.items()}


def _check_alike(folders: list[Path], configs: list[WorldConfig]) -> None:
    a, b = configs
    for name in ("generator", "autoencoder", "latent"):
        if getattr(a, name) != getattr(b, name):
            raise WorldError(
                f"{folders[0]} and {folders[1]} differ in [{name}] of their world.toml; only worlds "
                "trained from the same weights can be averaged"
            )
    mine, theirs = a.weight_files, b.weight_files
    if len(mine) != len(theirs) or any(random_seed(file) is not None for file in mine + theirs):
        raise WorldError(
            f"{folders[0]} and {folders[1]} do not have the same files of weights; only worlds trained from "
            "the same weights can be averaged"
        )
    encoders = [
        {k: v for k, v in read_weights(f / c.autoencoder_weights).items() if k.startswith("encoder.")}
        for f, c in zip(folders, configs, strict=True)
    ]
    same = encoders[0].keys() == encoders[1].keys()
    if not same or any((v != encoders[1][k]).any() for k, v in encoders[0].items()):
        raise WorldError(
            f"{folders[0]} and {folders[1]} have different encoders, hence generators of different latents; "
            "only worlds of one encoder can be averaged"
        )


def _check_shapes(path: Path, mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for key in sorted(mine.keys() | theirs.keys()):
        if key not in mine or key not in theirs or mine[key].shape != theirs[key].shape:
            raise WorldError(f"{path}: tensor `{key}` is not as in the other world; fetch the file again")
