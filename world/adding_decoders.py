"""Adding a decoder to a public world that is here: a Wan VAE of any width, recognised by its keys and
shapes."""

from pathlib import Path

import msgspec
import tomli_w
from torch import Tensor

from playhead.world.checkpoint import fill, save_weights, without_memory
from playhead.world.config import DecoderConfig, load_config
from playhead.world.importing import ImportProblem, Progress, compare, listing, read_checkpoint
from playhead.world.wan_vae import MULTIPLIERS, WanEncoder, WanVAE


def recognise_vae(path: Path) -> tuple[dict[str, Tensor], int]:
    """The weights of a Wan VAE under their own keys, and its width.

    Raises ImportProblem for another model, and for one whose keys are those of diffusers.
    """
    tensors = read_checkpoint(path)
    if any(key.startswith("decoder.up_blocks.") for key in tensors):
        raise ImportProblem(
            f"{path} has the names that diffusers gives a Wan VAE; give the original, such as Wan2.1_VAE.pth"
        )
    first = tensors.get("decoder.conv1.weight")
    if first is None or first.ndim != 5 or len(first) % MULTIPLIERS[-1]:
        raise ImportProblem(
            f"{path} is no Wan VAE: it has no `decoder.conv1.weight` of {MULTIPLIERS[-1]} times its width; "
            "give Wan2.1_VAE.pth or lightvaew2_1.pth"
        )
    width = len(first) // MULTIPLIERS[-1]
    with without_memory():
        wanted = listing(WanVAE(width))
    compare(path, {key: tuple(t.shape) for key, t in tensors.items()}, wanted, f"a Wan VAE of width {width}")
    return tensors, width


def read_encoder(path: Path) -> WanEncoder:
    """The encoder of a Wan VAE's file, in float32 on the CPU. Raises ImportProblem as `recognise_vae`
    does."""
    tensors, width = recognise_vae(path)
    with without_memory():
        vae = WanVAE(width)
    fill(vae, {key: tensor.float() for key, tensor in tensors.items()}, path)
    return WanEncoder(vae).eval().requires_grad_(False)


def add_decoder(
    folder: Path,
    path: Path,
    name: str,
    force: bool = False,
    progress: Progress = lambda stage, part: None,
) -> DecoderConfig:
    """Adds the Wan VAE of a file to the world in `folder`, under `name`; what it had stays as it is.

    Raises ImportProblem, before anything is written, for a world of other latents, a name that is taken or is
    none, and another model; and where the folder cannot be written.
    """
    config = load_config(folder / "world.toml")
    if name in config.decoders and not force:
        raise ImportProblem(
            f"the world `{config.name}` has a decoder `{name}` already; choose another --name, or add --force"
        )
    progress("reading", 0.0)
    file = f"decoder-{name}.safetensors"
    config = msgspec.structs.replace(config, decoders={**config.decoders, name: DecoderConfig(file)})
    try:
        config.check()  # before a large file is read
    except ValueError as error:
        raise ImportProblem(f"the world `{config.name}` takes no such decoder: {error}") from None
    tensors, width = recognise_vae(path)
    added = DecoderConfig(file, width)
    config = msgspec.structs.replace(config, decoders={**config.decoders, name: added})
    draft = folder / "world.toml.tmp"
    try:
        save_weights(folder / file, tensors, progress=lambda part: progress(f"converting {path.name}", part))
        draft.write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
        draft.replace(folder / "world.toml")
    except OSError as error:
        raise ImportProblem(f"{folder} cannot be written ({error.strerror}); free some room") from None
    finally:
        draft.unlink(missing_ok=True)
    progress("done", 1.0)
    return added
