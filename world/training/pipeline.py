"""The stages of making a world, each from its folders: what `train …` runs.

Footage to autoencoder; footage and autoencoder to generator and a complete world folder; footage to
inverse-dynamics model.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import tomli_w
import torch
from torch import Tensor

from playhead.world import acceleration, checkpoint
from playhead.world.config import WorldConfig, load_config, read_config
from playhead.world.errors import PlayheadError, WorldError
from playhead.world.inverse import AFTER, BEFORE
from playhead.world.lighttae import LightTAE
from playhead.world.training import distributed
from playhead.world.training.autoencoder import (
    AutoencoderTraining,
    encode_frames,
    latent_statistics,
    train_autoencoder,
)
from playhead.world.training.distill import distill
from playhead.world.training.dreams import Dreams
from playhead.world.training.encoded import keep_encoded, keep_film, key_of, read_encoded, read_films
from playhead.world.training.filming import Filming
from playhead.world.training.footage import Episode, Footage, episode_files
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.run import Run
from playhead.world.training.scorer import ScorerTraining, train_scorer
from playhead.world.training.sharpen import SharpenTraining, train_sharpness
from playhead.world.training.train_generator import GeneratorTraining, train_generator
from playhead.world.training.train_inverse import InverseTraining, train_inverse
from playhead.world.world_folders import find_world

FRAMES = 2_000_000
"""Frames of footage of a process up to which more are filmed (40 GB of latents of the shipped recipe)."""
VALIDATED = 16
"""Episodes that are held back for validation, at most."""


def _device(name: str) -> torch.device:
    """The process's own GPU under torchrun, else the device asked for."""
    distributed.start()
    device = acceleration.pick_device(name)
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device


def _footage(folder: Path, run: Run, device: torch.device, config: WorldConfig | None = None) -> Footage:
    """Footage on the GPU where it takes at most half of it, else in main memory."""
    size = sum(p.stat().st_size for p in folder.glob("*.npz")) / run.world_size
    fits = device.type == "cuda" and size < 0.5 * torch.cuda.get_device_properties(device).total_memory
    labelled = config.places if config is not None else ()
    target = device if fits else torch.device("cpu")
    return Footage.load(folder, target, run.rank, run.world_size, labelled)


def make_autoencoder(
    recipe: Path,
    footage: Path,
    run: Run,
    settings: AutoencoderTraining,
    start: Path | None = None,
    device: str = "auto",
) -> None:
    """Trains the autoencoder of the world that `recipe` (a world.toml) describes."""
    config = read_recipe(recipe)
    target = _device(device)
    frames = _footage(footage, run, target, config)
    _check_size(config, frames)
    frames.check_length(settings.length)
    train_autoencoder(run, frames, config.autoencoder, settings, target, start)


def make_generator(
    recipe: Path,
    footage: Path,
    autoencoder: Path,
    run: Run,
    settings: GeneratorTraining,
    start: Path | None = None,
    device: str = "auto",
    film: int = 0,
) -> Path:
    """Trains the generator on the latents of `autoencoder` (weights); returns the finished world's folder.

    The latents' statistics are measured on the footage, unless training goes on from weights, `start`, and
    the recipe has them already. `film`: games on which footage is filmed meanwhile (`Filming`).
    """
    config = read_recipe(recipe)
    _check_commit(config, recipe)
    target = _device(device)
    frames, latents = _encoded(config, autoencoder, footage, run, target, settings.length)
    known = read_config(recipe).latent
    if start is not None and known.mean and known.std:  # those that the weights were trained with
        mean, std = (torch.tensor(v, device=target) for v in (known.mean, known.std))
    else:
        mean, std = latent_statistics(latents)
        distributed.average([mean, std])
    if not (std > 0).all():
        raise WorldError(f"{autoencoder} encodes footage with a channel that never changes; train it longer")
    latents.sub_(mean[:, None, None]).div_(std[:, None, None])
    config = msgspec.structs.replace(
        config,
        latent=msgspec.structs.replace(config.latent, mean=tuple(mean.tolist()), std=tuple(std.tolist())),
    )
    folder = run.folder / "world"
    if run.rank == 0:
        folder.mkdir(exist_ok=True)
        write_config(folder / "world.toml", config)
        shutil.copyfile(autoencoder, folder / config.autoencoder_weights)
    given = config.generator, settings, config.sampling, target, folder / config.generator_weights, start
    if not film:
        train_generator(run, latents, frames, *given)
        return folder
    weights = checkpoint.read_float(autoencoder)
    encoder, key = _load_autoencoder(config, weights, autoencoder, target), key_of((), weights)

    def encode(film: Episode) -> Tensor:
        z = encode_frames(encoder, torch.from_numpy(film.frames), target)
        keep_film(footage, key, Footage.of(film), z)
        return ((z - mean[:, None, None]) / std[:, None, None]).to(latents.dtype)

    with Filming(encode, film, most=max(0, FRAMES - len(frames.actions))) as filming:
        train_generator(run, latents, frames, *given, filming)
    return folder


def make_scorer(
    world: str | Path, footage: Path, run: Run, settings: ScorerTraining, device: str = "auto"
) -> Path:
    """Trains the scorer that distillation asks, from a world's generator on; returns its weights' file."""
    ready = _ready_world(world, footage, run, settings.length, device)
    out = run.folder / "scorer.safetensors"
    start = ready.folder / ready.config.generator_weights
    train_scorer(
        run, ready.latents, ready.footage, ready.config.generator, settings, ready.device, out, start
    )
    return out


def make_distilled(
    world: str | Path,
    footage: Path,
    run: Run,
    settings: DistillTraining,
    scorer: Path | None = None,
    device: str = "auto",
) -> Path:
    """Distils the generator of a world (name or folder) on rollouts of its own; returns the new folder.

    Without weights of a `scorer`, one is trained first, in `OUT/scorer`, for a third of the run's length.
    """
    _check_commit(load_config(find_world(world) / "world.toml"), find_world(world) / "world.toml")
    ready = _ready_world(world, footage, run, settings.length, device)
    config = ready.config
    start = ready.folder / config.generator_weights
    if scorer is None and settings.objective != "rest":
        before = Run(
            run.folder / "scorer",
            steps=max(1, run.steps // 3) if run.steps else None,
            minutes=run.minutes / 3 if run.minutes else None,
        )
        scorer = before.folder / "scorer.safetensors"
        scoring = ScorerTraining(
            clips=settings.clips,
            length=settings.length,
            past=settings.past,
            origin=settings.origin,
            compile=settings.compile,
        )
        train_scorer(
            before, ready.latents, ready.footage, config.generator, scoring, ready.device, scorer, start
        )
    steps = len(config.sampling.steps)
    files = tuple(f"expert-{i + 1}.safetensors" for i in range(steps - 1)) if settings.experts else ()
    config = msgspec.structs.replace(config, expert_weights=files)
    folder = _copy_world(run, ready.folder, config, config.autoencoder_weights, config.inverse_weights)
    distill(
        run,
        ready.latents,
        ready.footage,
        config.generator,
        settings,
        config.sampling,
        ready.device,
        start,
        scorer,
        folder / config.generator_weights,
        [folder / file for file in files],
    )
    return folder


@dataclass(frozen=True)
class _Ready:
    """A trained world's folder and configuration, and footage in its normalised latents."""

    folder: Path
    config: WorldConfig
    device: torch.device
    footage: Footage
    latents: Tensor


def _ready_world(world: str | Path, footage: Path, run: Run, length: int, device: str) -> _Ready:
    folder = find_world(world)
    config = load_config(folder / "world.toml")
    read_recipe(folder / "world.toml")
    target = _device(device)
    weights = folder / config.autoencoder_weights
    frames, latents = _encoded(config, weights, footage, run, target, length)
    mean, std = (
        torch.tensor(v, device=target)[:, None, None] for v in (config.latent.mean, config.latent.std)
    )
    return _Ready(folder, config, target, frames, latents.sub_(mean).div_(std))


def make_sharper(
    world: str | Path, footage: Path, run: Run, settings: SharpenTraining, device: str = "auto"
) -> Path:
    """Sharpens the decoder of a world (name or folder) against footage; returns the new folder."""
    folder = find_world(world)
    config = load_config(folder / "world.toml")
    read_recipe(folder / "world.toml")
    target = _device(device)
    frames = _footage(footage, run, target, config)
    _check_size(config, frames)
    dreams = None
    if settings.dreamed:
        _check_commit(config, folder / "world.toml")
        dreams = Dreams(config, folder / config.generator_weights, target)
    frames.check_length(settings.length + (dreams.past if dreams is not None else 0))
    out = _copy_world(run, folder, config, *config.generator_files, config.inverse_weights)
    start = folder / config.autoencoder_weights
    weights = out / config.autoencoder_weights
    train_sharpness(run, frames, config.autoencoder, settings, target, start, weights, dreams)
    return out


def _copy_world(run: Run, folder: Path, config: WorldConfig, *parts: str) -> Path:
    """The folder `world` of a run, with the configuration and `parts` of the world in `folder`."""
    out = run.folder / "world"
    if run.rank == 0:
        out.mkdir(exist_ok=True)
        write_config(out / "world.toml", config)
        for name in parts:
            if name and (folder / name).is_file():
                shutil.copyfile(folder / name, out / name)
    return out


def make_inverse(footage: Path, run: Run, settings: InverseTraining, device: str = "auto") -> None:
    """Trains the inverse-dynamics model on `footage`."""
    target = _device(device)
    frames = _footage(footage, run, target)
    frames.check_length(BEFORE + 1 + AFTER)
    train_inverse(run, frames, settings, target)


def _encoded(
    config: WorldConfig, weights: Path, folder: Path, run: Run, device: torch.device, length: int
) -> tuple[Footage, Tensor]:
    """Footage of `length` frames at least, and its raw latents `(N, C, h, w)`; its frames are let go.

    They are encoded by the autoencoder's `weights`, unless an earlier run left them in the folder. What runs
    before filmed meanwhile is behind it; some of the episodes are held back for validation.
    """
    encoder = checkpoint.read_float(weights)
    part = slice(run.rank, None, run.world_size)
    key = key_of(episode_files(folder)[part], encoder)
    kept = read_encoded(folder, key, device, config.places)
    footage = kept[0] if kept is not None else _footage(folder, run, device, config)
    _check_size(config, footage)
    footage.check_length(length)
    if kept is not None:
        latents = kept[1]
    else:
        model = _load_autoencoder(config, encoder, weights, device)
        latents = encode_frames(model, footage.frames, device)
        keep_encoded(folder, key, footage, latents)
        footage.frames = footage.frames[:0].clone()
        torch.cuda.empty_cache()
    footage.hold_back(VALIDATED)
    films = read_films(folder, key_of((), encoder), device, part)
    if films:
        footage.join([film for film, _ in films])
        latents = torch.cat([latents, *(z for _, z in films)])
    return footage, latents


def _load_autoencoder(
    config: WorldConfig, weights: dict[str, Tensor], path: Path, device: torch.device
) -> LightTAE:
    model = LightTAE(config.autoencoder)
    checkpoint.fill(model, weights, path)
    return model.to(device).eval()


def read_recipe(path: Path) -> WorldConfig:
    """Reads the world.toml of a world to be trained; `latent.mean` and `latent.std` need not be there yet.

    Raises WorldError for what contradicts itself or cannot be trained here.
    """
    config = read_config(path)
    channels, sampling = config.latent.channels, config.sampling
    latent = msgspec.structs.replace(config.latent, mean=(0.0,) * channels, std=(1.0,) * channels)
    config = msgspec.structs.replace(config, latent=latent)
    try:
        config.check()
    except ValueError as error:
        raise WorldError(f"{path} contradicts itself: {error}; correct it there") from None
    if (sampling.latents_per_tick, sampling.sink, config.autoencoder.time_factor) != (1, 0, 1):
        raise WorldError(
            f"{path} cannot be trained: training makes worlds of one latent a tick, without a sink, with a "
            "frame a latent; correct it there"
        )
    return config


def _check_commit(config: WorldConfig, path: Path) -> None:
    """Raises WorldError for a world that commits by a pass of its own: those are played, not trained."""
    if config.sampling.commit != "last":
        raise WorldError(
            f'{path} cannot be trained: its `sampling.commit` has to be "last"; use another recipe or world'
        )


def write_config(path: Path, config: WorldConfig) -> None:
    """Writes a world.toml."""
    path.write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")


def _check_size(config: WorldConfig, footage: Footage) -> None:
    size, wanted = tuple(footage.frames.shape[1:3]), (config.frame_height, config.frame_width)
    if size != wanted:
        raise PlayheadError(
            f"the footage is {size[0]} x {size[1]}, the recipe wants {wanted[0]} x {wanted[1]}"
        )
    buttons = footage.actions.shape[1]
    if buttons != len(config.action.buttons):
        raise PlayheadError(
            f"the footage has {buttons} buttons, the recipe {len(config.action.buttons)}: use its own recipe"
        )
