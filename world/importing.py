"""Adding a public checkpoint: recognised by its keys, checked key by key, then converted to safetensors.

Nothing is written before everything fits. The converted world appears whole or not at all; what was
converted before an interruption is kept beside it and used when the same command is given again.
"""

import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
import torch
from safetensors import safe_open
from torch import Tensor, nn

from playhead.world.action_module import ActionModuleConfig
from playhead.world.checkpoint import save_weights, without_memory
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.filekind import is_safetensors, misfit
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.home import own_folder, worlds_folder
from playhead.world.lighttae import LightTAE
from playhead.world.lora import merge_lora
from playhead.world.public import AUTOENCODERS, PUBLIC, PublicWorld, with_latents
from playhead.world.scaled import unscaled
from playhead.world.terminal import printable

CONTAINERS = ("generator_ema", "generator", "generator_lora", "state_dict", "model", "critic")
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
PREFIXES = ("base_model.", "model.", "diffusion_model.", "taehv.")
SHOWN = 6
"""How many keys of a kind a complaint lists."""

Shape = tuple[int, ...]
Progress = Callable[[str, float], None]


class ImportProblem(WorldError):
    """A checkpoint cannot be added."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by clean key; of one of torch only what weights-only loading allows.

    Raises ImportProblem for a file that is missing, damaged or no checkpoint.
    """
    try:
        if what := misfit(path):
            raise ImportProblem(f"{path} is no checkpoint; it is {what}")
        if is_safetensors(path):  # whatever it is called
            with safe_open(path, "pt") as file:
                found: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            found = _load_pickle(path)
    except FileNotFoundError:
        raise ImportProblem(f"{path} is missing; give a checkpoint, or use `worlds get`") from None
    except ImportProblem:
        raise
    except pickle.UnpicklingError as error:
        raise ImportProblem(_refusal(path, error)) from None
    except Exception as error:  # torch raises whatever a damaged archive leads it to
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ImportProblem(
            f"{path} is damaged, or no checkpoint that loads as weights only ({printable(reason)}); "
            "fetch it again"
        ) from None
    for container in CONTAINERS:
        if isinstance(found, Mapping) and isinstance(found.get(container), Mapping):
            found = found[container]
            break
    if not isinstance(found, Mapping):
        raise ImportProblem(f"{path} holds a {type(found).__name__}, not tensors by name")
    tensors = {clean_key(str(key)): t for key, t in found.items() if isinstance(t, Tensor)}
    if not tensors:
        raise ImportProblem(f"{path} holds no tensors; give the file that has the weights")
    return tensors


def _load_pickle(path: Path) -> Any:  # noqa: ANN401 (any object that weights-only loading allows)
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
        # What torch warns of is refused anyway. The older of torch's formats cannot be mapped, and one whose
        # name ends in .safetensors torch would read as that.
        mapped = zipfile.is_zipfile(path) and path.suffix != ".safetensors"
        return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """The sentence on a pickle that weights-only loading refuses, without torch's advice to load it all."""
    refused = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if refused is None:
        return f"{path} is damaged, or no checkpoint that loads as weights only; fetch it again"
    return (
        f"{path} cannot be loaded as weights only: it holds Python objects (`{printable(refused[1])}`), "
        "which may run anything; give a file of tensors alone, such as a .safetensors"
    )


def clean_key(key: str) -> str:
    """A key without the prefixes that wrappers and containers put on it."""
    for wrapper in WRAPPERS:
        key = key.replace(wrapper, "")
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def split_commit(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Own and commit weights: SGF+ stores the second set under the same keys, one part prefixed `memory_`."""
    own = {key: t for key, t in tensors.items() if not _MEMORY.search(key)}
    second = {_MEMORY.sub(r"\1", key, count=1): t for key, t in tensors.items() if _MEMORY.search(key)}
    return own, second


_MEMORY = re.compile(r"(^|\.)memory_")


def infer(shapes: Mapping[str, Shape]) -> GeneratorConfig:
    """The sizes of the generator whose keys these are. Raises ImportProblem where there is none."""
    if len(shapes.get("patch_embedding.weight", ())) != 5 or "head.head.weight" not in shapes:
        names = ", ".join(sorted(shapes)[:SHOWN])
        raise ImportProblem(f"these are no weights of a causal Wan generator; their keys begin with {names}")
    dim, in_channels, _, patch, _ = shapes["patch_embedding.weight"]
    layers = 1 + max((int(m[1]) for k in shapes if (m := re.match(r"blocks\.(\d+)\.", k))), default=-1)
    if layers < 1:
        raise ImportProblem("these weights have no blocks; the file is cut or another model's")
    text, image = shapes.get("text_embedding.0.weight"), shapes.get("img_emb.proj.1.weight")
    return GeneratorConfig(
        dim=dim,
        heads=max(1, dim // 128),
        layers=layers,
        ffn_dim=shapes.get("blocks.0.ffn.0.weight", (8960,))[0],
        in_channels=in_channels,
        out_channels=shapes["head.head.weight"][0] // patch**2,
        text_dim=text[1] if text and len(text) == 2 else 0,
        image_dim=image[1] if image and len(image) == 2 else 0,
        time_features=shapes.get("time_embedding.0.weight", (0, 256))[-1],
        patch=patch,
        action=_infer_action(shapes, dim),
    )


def _infer_action(shapes: Mapping[str, Shape], dim: int) -> ActionModuleConfig | None:
    found = {int(m[1]) for k in shapes if (m := re.match(r"blocks\.(\d+)\.action_model\.", k))}
    if not found:
        return None
    at = f"blocks.{min(found)}.action_model."
    plain = ActionModuleConfig(tuple(sorted(found)), 1)
    seen = plain.window * plain.time_factor
    embedding, keyboard = shapes.get(f"{at}keyboard_embed.0.weight", (plain.embedding, 0))
    mouse_dim, mouse = shapes.get(f"{at}mouse_mlp.0.weight", (plain.mouse_dim, dim))
    keyboard_dim = shapes.get(f"{at}mouse_attn_q.weight", (plain.keyboard_dim,))[0]
    head = shapes.get(f"{at}key_attn_q_norm.weight", shapes.get(f"{at}img_attn_q_norm.weight", (64,)))[0]
    return msgspec.structs.replace(
        plain,
        keyboard=keyboard,
        mouse=(mouse - dim) // seen,
        heads=max(1, keyboard_dim // head),
        keyboard_dim=keyboard_dim,
        mouse_dim=mouse_dim,
        embedding=embedding,
    )


def listing(module: nn.Module) -> dict[str, Shape]:
    """Every key and shape of a module."""
    return {key: tuple(t.shape) for key, t in module.state_dict().items()}


def generator_listing(config: GeneratorConfig) -> dict[str, Shape]:
    """Every key and shape of a generator, without its memory."""
    with without_memory():
        return listing(Generator(config))


def compare(path: Path, found: Mapping[str, Shape], wanted: Mapping[str, Shape], what: str) -> None:
    """Raises ImportProblem with a summary of what is missing, unexpected or misshapen."""
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "misshapen": [
            f"{key} {found[key]} instead of {wanted[key]}"
            for key in sorted(found.keys() & wanted.keys())
            if tuple(found[key]) != tuple(wanted[key])
        ],
    }
    parts = [
        f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', …' if len(keys) > SHOWN else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
    if parts:
        raise ImportProblem(
            f"{path} does not fit {what}: of {len(wanted)} tensors {'; '.join(parts)}; nothing was added"
        )


@dataclass(frozen=True)
class RecognisedCheckpoint:
    """A checkpoint that fits: its catalogue entry's settings, and its weights by file name."""

    config: WorldConfig
    weights: dict[str, dict[str, Tensor]]
    why: str


def recognise(path: Path, family: str = "auto", lora: Path | None = None) -> RecognisedCheckpoint:
    """Reads a checkpoint, finds out what it is and checks every key and shape.

    Raises ImportProblem saying what does not fit.
    """
    if family != "auto" and family not in PUBLIC:
        raise ImportProblem(f"there is no family `{family}`; there are auto, {', '.join(PUBLIC)}")
    tensors = read_checkpoint(path)
    if all(".lora_" in key for key in tensors):
        raise ImportProblem(f"{path} is a LoRA; give the checkpoint that it belongs to, and this by --lora")
    try:
        tensors = unscaled(path, tensors)
    except WorldError as error:
        raise ImportProblem(str(error)) from None
    own, second = split_commit(tensors)
    if lora is not None:
        unknown = merge_lora(own, read_checkpoint(lora))
        if unknown:
            raise ImportProblem(
                f"{lora} does not fit {path}: {len(unknown)} of its tensors ({', '.join(unknown[:SHOWN])})"
            )
    sizes = infer({key: tuple(t.shape) for key, t in own.items()})
    entry, why = _entry(path, sizes, bool(second), lora is not None, family)
    _leave_padding_out(own, entry)
    shapes = {key: tuple(t.shape) for key, t in own.items()}
    sizes = infer(shapes)
    wanted = generator_listing(entry.config.generator if family != "auto" else sizes)
    compare(path, shapes, wanted, f"`{entry.name}`")
    weights = {entry.config.generator_weights: own}
    if entry.config.commit_weights:
        compare(path, {key: tuple(t.shape) for key, t in second.items()}, wanted, "the commit's weights")
        weights[entry.config.commit_weights] = second
    elif second:
        raise ImportProblem(f"{path} has commit weights, which `{entry.name}` has not: --family sgf-plus")
    config = msgspec.structs.replace(entry.config, generator=sizes)
    return RecognisedCheckpoint(config, weights, why)


def _leave_padding_out(tensors: dict[str, Tensor], entry: PublicWorld) -> None:
    """Takes the inputs of keys that were never pressed from where the keyboard enters, if there are any."""
    keys = len(entry.config.action.seen)
    for key, tensor in tensors.items():
        padded = key.endswith("action_model.keyboard_embed.0.weight") and tensor.shape[-1] > keys
        if padded and tensor.shape[-1] == keys + entry.padding:
            tensors[key] = tensor[:, :keys].clone()


def _entry(
    path: Path, sizes: GeneratorConfig, second: bool, lora: bool, family: str
) -> tuple[PublicWorld, str]:
    """The catalogue entry whose settings a file gets, and why."""
    if family != "auto":
        return PUBLIC[family], "as --family says"
    name = path.name
    by_name = [e for e in PUBLIC.values() if Path(e.file.path).name == name and name != "model.pt"]
    if sizes.action:
        space = (sizes.action.keyboard, sizes.action.mouse)
        fitting = [
            entry
            for entry in PUBLIC.values()
            if (action := entry.config.generator.action)
            and (action.keyboard + entry.padding, action.mouse) == space
        ]
        for entry in fitting:
            if len(fitting) > 1 and path.parent.name == Path(entry.file.path).parent.name:
                return entry, f"by its action modules and its folder, {path.parent.name}"
        if fitting:
            others = f"; --family says otherwise: {', '.join(e.name for e in fitting)}" * (len(fitting) > 1)
            return fitting[-1], f"by its action modules: {space[0]} keys, {space[1]} mouse axes{others}"
        raise ImportProblem(f"{path} has action modules of {space[0]} keys and {space[1]} axes: not known")
    if sizes.image_dim or not sizes.text_dim:
        raise ImportProblem(f"{path} is an image-to-video generator without actions: there is none to play")
    if second:
        return PUBLIC["sgf-plus"], "by its second set of weights"
    if lora or "longlive" in name:
        return PUBLIC["longlive"], "by its LoRA" if lora else "by its name"
    if by_name:
        return by_name[0], "by its name"
    if "framewise" in str(path) or "frame-wise" in str(path):
        return PUBLIC["causal-forcing"], "by `framewise` in its path"
    return PUBLIC["self-forcing"], "as text-to-video checkpoints usually are; --family says otherwise"


def recognise_autoencoder(path: Path, latents: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The weights of a tiny autoencoder for Wan 2.1, and the latents it takes, `raw` or `normalised`.

    Raises ImportProblem for another model, or where neither `latents` nor the file's name says which.
    """
    tensors = read_checkpoint(path)
    with without_memory():
        wanted = listing(LightTAE(PUBLIC["self-forcing"].config.autoencoder))
    compare(path, {key: tuple(t.shape) for key, t in tensors.items()}, wanted, "Wan 2.1's tiny autoencoder")
    if latents is None:
        known = [kind for name, kind in AUTOENCODERS.items() if path.name.startswith(name)]
        if not known:
            raise ImportProblem(
                f"{path.name} does not tell its latents; add --latents raw (lighttaew2_1) or normalised"
            )
        latents = known[0]
    return tensors, latents


def check_free(name: str, force: bool = False) -> Path:
    """The folder that a world of this name gets. Raises ImportProblem where there is one, unless `force`."""
    folder = worlds_folder() / name
    if folder.exists() and not force:
        raise ImportProblem(f"{folder} is there already; choose another --name, or add --force")
    return folder


def add_world(
    path: Path,
    autoencoder: Path | Callable[[], Path],
    *,
    family: str = "auto",
    lora: Path | None = None,
    latents: str | None = None,
    name: str | None = None,
    force: bool = False,
    progress: Progress = lambda stage, part: None,
) -> tuple[Path, str]:
    """Adds a checkpoint to the user's worlds; returns the folder, and how it was recognised.

    An `autoencoder` that is still to be fetched is fetched once the checkpoint has turned out to fit.
    Raises ImportProblem before anything is written.
    """
    progress("reading", 0.0)
    found = recognise(path, family, lora)
    if not isinstance(autoencoder, Path):
        autoencoder = autoencoder()
    tiny, latents = recognise_autoencoder(autoencoder, latents)
    config = with_latents(found.config, latents)
    config = msgspec.structs.replace(config, name=name or config.name)
    if not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", config.name):
        raise ImportProblem(f"`{config.name}` is no world's name; use small letters, digits, hyphens, dots")
    folder = check_free(config.name, force)
    source = {str(p): [p.stat().st_size, p.stat().st_mtime_ns] for p in (path, autoencoder, lora) if p}
    weights = {**found.weights, config.autoencoder_weights: tiny}
    try:
        _convert(folder, config, weights, json.dumps(source, sort_keys=True), progress)
    except OSError as error:
        raise ImportProblem(f"{folder} cannot be written ({error.strerror}); free some room") from None
    return folder, found.why


def _convert(
    folder: Path, config: WorldConfig, weights: dict[str, dict[str, Tensor]], source: str, progress: Progress
) -> None:
    """Writes beside `folder`, then renames. A draft of the same sources is gone on with."""
    draft = folder.with_name(f".{folder.name}.draft")
    note = draft / "source.json"
    if draft.exists() and not (note.is_file() and note.read_text("utf-8") == source):
        shutil.rmtree(draft)
    own_folder(draft)
    for left in draft.iterdir():
        if left.name not in {note.name, *weights}:  # half of a file, of whoever was killed while writing it
            left.unlink()
    note.write_text(source, "utf-8")
    for number, (file, tensors) in enumerate(weights.items()):

        def tell(part: float, file: str = file, number: int = number) -> None:
            progress(f"converting {file}", (number + part) / len(weights))

        if not (draft / file).is_file():
            save_weights(draft / file, tensors, progress=tell)
    (draft / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
    note.unlink()
    if folder.exists():
        shutil.rmtree(folder)
    draft.rename(folder)
    progress("done", 1.0)
