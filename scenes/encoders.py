"""The encoders of public worlds: a prompt's text rows, an image's features and its latents (extra `scenes`).

They are needed to make a scene and never to play one. Text is read by UMT5-XXL's encoder, images by CLIP's
ViT-H/14 as Wan 2.1 uses them; latents come from the world's own tiny encoder, or from the full Wan VAE.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scenes.scene import SceneError
from world.context import Context

if TYPE_CHECKING:
    from world.world import World

TEXT = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
"""Where UMT5-XXL's encoder and tokenizer are, and the full Wan VAE; a folder of the same layout does too."""
IMAGE = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
"""Where CLIP's vision tower is."""
CONDITION_LATENTS = 30
"""From latent 29 on the condition of [image, grey, grey, …] stays the same."""


def encode_prompts(prompts: tuple[str, ...], model: str, rows: int) -> tuple[np.ndarray, ...]:
    """The text rows `(n, 4096)` of each prompt, at most `rows`; a world fills them up with zeros itself."""
    transformers = _need("transformers")
    import torch

    tokens = _load(transformers.AutoTokenizer.from_pretrained, model, "tokenizer")
    encoder = _load(
        transformers.UMT5EncoderModel.from_pretrained, model, "text_encoder", dtype=torch.bfloat16
    )
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            given = tokens(prompt, return_tensors="pt", truncation=True, max_length=rows)
            found.append(encoder(**given).last_hidden_state[0].float().numpy())
    return tuple(found)


def encode_features(picture: np.ndarray, model: str) -> np.ndarray:
    """The penultimate features `(257, 1280)` of a picture uint8 `(H, W, 3)`."""
    transformers = _need("transformers")
    import torch

    processor = _load(transformers.CLIPImageProcessor.from_pretrained, model, "image_processor")
    encoder = _load(transformers.CLIPVisionModel.from_pretrained, model, "image_encoder")
    size = processor.crop_size  # the whole picture, squeezed, as Wan has it
    processor.do_center_crop = False
    processor.size = {"height": size["height"], "width": size["width"]}
    with torch.inference_mode():
        given = processor(images=picture, return_tensors="pt")
        return encoder(**given, output_hidden_states=True).hidden_states[-2][0].float().numpy()


def encode_latents(world: "World", frames: np.ndarray, vae: str | None = None) -> np.ndarray:
    """Normalised latents of frames uint8 `(T, H, W, 3)`, by the world's own encoder or a full Wan VAE."""
    if vae is None:
        return world.encode(frames).cpu().numpy()
    diffusers = _need("diffusers")
    import torch

    from world.public import WAN_MEAN, WAN_STD

    model = _load(diffusers.AutoencoderKLWan.from_pretrained, vae, "vae")
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.inference_mode():
        z = model.encode(video).latent_dist.mode()[0].transpose(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (WAN_MEAN, WAN_STD))
    return ((z - mean) / std).numpy()


def make_context(
    world: "World",
    prompts: tuple[str, ...],
    picture: Path | None,
    *,
    text: str = TEXT,
    image: str = IMAGE,
    vae: str | None = None,
) -> Context:
    """The context that a public world needs of prompts and a picture. Raises SceneError for wrong ones."""
    config = world.config
    g = config.generator
    if bool(g.text_dim) != bool(prompts):
        raise SceneError(
            f"the world `{config.name}` is told what to dream by "
            f"{'at least one --prompt' if g.text_dim else 'a picture: --image, and no --prompt'}"
        )
    if g.image_dim and picture is None:
        raise SceneError(f"the world `{config.name}` starts from a picture: add --image FILE")
    if g.text_dim and picture is not None and config.sampling.latents_per_tick > 1:
        raise SceneError(
            f"the world `{config.name}` makes {config.sampling.latents_per_tick} latents a tick, so no "
            "single picture can start it; choose a frame-wise one, or leave out --image"
        )
    size = (config.frame_height, config.frame_width)
    shown = read_picture(picture, *size) if picture else np.zeros((*size, 3), np.uint8)
    frames = shown[None] if picture else np.zeros((0, *size, 3), np.uint8)
    found: dict[str, Any] = {}
    if prompts:
        found["prompts"] = encode_prompts(prompts, text, g.text_length)
    if g.image_dim:
        found["features"] = encode_features(shown, image)
    if g.condition_channels:
        grey = np.full((1, *size, 3), 128, np.uint8)
        count = world.config.autoencoder.time_factor * (CONDITION_LATENTS - 1)
        found["condition"] = encode_latents(world, np.concatenate([frames, grey.repeat(count, 0)]), vae)
    elif picture is not None:
        found["latents"] = encode_latents(world, frames, vae)
    return Context(frames, np.zeros((len(frames), len(config.action.buttons)), np.uint8), **found)


def read_picture(path: Path, height: int, width: int) -> np.ndarray:
    """A picture file as uint8 `(height, width, 3)`: scaled to cover, then cut about its middle.

    Raises SceneError for a file that is no picture.
    """
    import av

    try:
        with av.open(str(path)) as file:
            frame = next(file.decode(video=0))
    except (OSError, StopIteration, av.error.FFmpegError) as error:
        raise SceneError(f"{path} is no picture that can be read ({error}); give a .png or .jpg") from None
    scale = max(height / frame.height, width / frame.width)
    tall, wide = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    pixels = frame.reformat(wide, tall, "rgb24").to_ndarray()
    top, left = (tall - height) // 2, (wide - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _need(package: str) -> Any:  # noqa: ANN401
    try:
        return importlib.import_module(package)
    except ImportError:
        raise SceneError(f"making this scene needs {package}: pip install 'playhead[scenes]'") from None


def _load(load: Callable[..., Any], place: str, part: str, **options: object) -> Any:  # noqa: ANN401
    """One part of a model on the hub or in a folder."""
    try:
        return load(place, subfolder=part, **options)
    except Exception as error:  # every kind of network and file trouble
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SceneError(
            f"the encoder `{part}` of {place} cannot be had ({reason}); download that repository elsewhere "
            "and name its folder by --encoders or --vae"
        ) from None
