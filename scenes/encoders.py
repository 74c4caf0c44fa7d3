"""The encoders of public worlds: a prompt's text rows, an image's features and its latents (extra `scenes`).

They are needed to make a scene and never to play one. Text is read by UMT5-XXL's encoder, images by CLIP's
ViT-H/14, both as Wan 2.1 uses them; latents come from the world's own tiny encoder, or from a full Wan VAE.
"""

import html
import importlib
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from playhead.scenes.picture import read_picture
from playhead.scenes.scene import SceneError
from playhead.world.context import Context, check_context
from playhead.world.extras import install

if TYPE_CHECKING:
    from torch import Tensor

    from playhead.world.config import WorldConfig
    from playhead.world.wan_vae import WanEncoder

TEXT = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
"""Where UMT5-XXL's encoder (22.7 GB) and tokenizer are, and a full Wan VAE."""
IMAGE = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
"""Where CLIP's vision tower is."""
CONDITION_LATENTS = 30
"""From latent 29 on the condition of [image, grey, grey, …] stays the same."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class SupportsScenes(Protocol):
    """What is needed of a world to make a scene of it: a `World` does, and so does a `FrameEncoder`."""

    config: "WorldConfig"

    def encode_clip(self, clip: np.ndarray) -> "Tensor": ...


class Encoders:
    """The encoders, each loaded when it is first needed and kept for the next scene.

    `text`, `image`, `vae`: a repository on the hub, or a folder of the same layout (`tokenizer` and
    `text_encoder`, `image_encoder`, `vae`), or for `vae` the file of a Wan VAE under its original names, of
    any width. Without a `vae` latents come from the world's own encoder. Everything raises SceneError for
    what cannot be had.
    """

    def __init__(self, text: str = TEXT, image: str = IMAGE, vae: str | None = None) -> None:
        self._repositories = {"text": text, "image": image}
        self._vae_repository = vae

    def prompts(self, prompts: tuple[str, ...], rows: int) -> tuple[np.ndarray, ...]:
        """The text rows `(n, 4096)` of each prompt, at most `rows`; a world fills them up with zeros."""
        import torch

        tokenizer, encoder = self._text
        found = []
        for prompt in prompts:
            cleaned = " ".join(html.unescape(html.unescape(prompt)).split())  # as Wan has it
            given = tokenizer(cleaned, return_tensors="pt", truncation=True, max_length=rows)
            with torch.inference_mode():
                seen = encoder(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
            found.append(seen.last_hidden_state[0].float().numpy())
        return tuple(found)

    def features(self, picture: np.ndarray) -> np.ndarray:
        """The penultimate features `(257, 1280)` of a picture uint8 `(H, W, 3)`, squeezed to a square."""
        import torch
        import torch.nn.functional as F

        side = self._image.config.image_size
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        pixels = F.interpolate(pixels, (side, side), mode="bicubic", align_corners=False)
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        with torch.inference_mode():
            seen = self._image(pixel_values=(pixels - mean) / std, output_hidden_states=True)
        features: np.ndarray = seen.hidden_states[-2][0].numpy()
        return features

    def latents(self, world: SupportsScenes, clip: np.ndarray) -> np.ndarray:
        """Normalised latents `(L, C, h, w)` of a clip float32 `(T, H, W, 3)` in [0, 1]."""
        if self._vae_repository is None:
            return world.encode_clip(clip).cpu().numpy()
        import torch

        from playhead.world.wan_vae import WAN_MEAN, WAN_STD

        with torch.inference_mode():
            z = self._encode(torch.from_numpy(clip).permute(0, 3, 1, 2))
        if z.shape[1:] != world.config.latent_shape:
            raise SceneError(
                f"the VAE of {self._vae_repository} makes latents of {tuple(z.shape[1:])}, and the world "
                f"`{world.config.name}` takes {world.config.latent_shape}; it has to be Wan 2.1's"
            )
        mean, std = (torch.tensor(values)[:, None, None] for values in (WAN_MEAN, WAN_STD))
        normalised: np.ndarray = ((z - mean) / std).numpy()
        return normalised

    def _encode(self, clip: "Tensor") -> "Tensor":
        """Latents `(L, C, h, w)`, as the VAE that was given has them, of a clip `(T, 3, H, W)` in [0, 1]."""
        z: Tensor
        if self._vae_file is not None:
            z = self._vae_file(clip[None])[0]
        else:
            z = self._vae.encode(clip.transpose(0, 1)[None] * 2 - 1).latent_dist.mode()[0].transpose(0, 1)
        return z

    @cached_property
    def _vae_file(self) -> "WanEncoder | None":
        from playhead.world.adding_decoders import read_encoder

        path = Path(self._vae_repository or "")
        return read_encoder(path) if path.is_file() else None

    @cached_property
    def _text(self) -> tuple[Any, Any]:
        transformers = _need("transformers")
        import torch

        repository = self._repositories["text"]
        tokenizer = _load(transformers.AutoTokenizer.from_pretrained, repository, "tokenizer")
        load = transformers.UMT5EncoderModel.from_pretrained
        return tokenizer, _load(load, repository, "text_encoder", dtype=torch.bfloat16).eval()

    @cached_property
    def _image(self) -> Any:  # noqa: ANN401
        transformers = _need("transformers")
        import torch

        load = transformers.CLIPVisionModel.from_pretrained
        return _load(load, self._repositories["image"], "image_encoder", dtype=torch.float32).eval()

    @cached_property
    def _vae(self) -> Any:  # noqa: ANN401
        assert self._vae_repository is not None
        load = _need("diffusers").AutoencoderKLWan.from_pretrained
        return _load(load, self._vae_repository, "vae").eval()


def make_context(
    world: SupportsScenes, prompts: tuple[str, ...], picture: Path | None, encoders: Encoders
) -> Context:
    """The context that a public world needs of prompts and a picture.

    Raises SceneError for those that it cannot use, WorldError for encoders of other sizes than its own.
    """
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
    clip = frames.astype(np.float32) / 255
    found: dict[str, Any] = {}
    if prompts:
        found["prompts"] = encoders.prompts(prompts, g.text_length)
    if g.image_dim:
        found["features"] = encoders.features(shown)
    if config.looks_at_picture:
        grey = np.full((config.autoencoder.time_factor * (CONDITION_LATENTS - 1), *size, 3), 0.5, np.float32)
        found["condition"] = encoders.latents(world, np.concatenate([clip, grey]))
    elif picture is not None:
        found["latents"] = encoders.latents(world, clip)
    context = Context(frames, np.zeros((len(frames), len(config.action.buttons)), np.uint8), **found)
    check_context(config, context)
    return context


def _need(package: str) -> Any:  # noqa: ANN401
    try:
        return importlib.import_module(package)
    except ImportError:
        raise SceneError(f"making this scene needs {package}: {install('scenes')}") from None


def _load(load: Callable[..., Any], repository: str, part: str, **options: object) -> Any:  # noqa: ANN401
    """One part of a model on the hub or in a folder."""
    for package in ("huggingface_hub", "transformers", "diffusers"):
        if package in sys.modules:  # their retries and hints would be printed across the bar
            importlib.import_module(f"{package}.utils.logging").set_verbosity_error()
    try:
        return load(repository, subfolder=part, **options)
    except Exception as error:  # every kind of network and file trouble
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise SceneError(
            f"the encoder `{part}` of {repository} cannot be had ({reason}); download that repository "
            "elsewhere and name its folder by --encoders or --vae"
        ) from None
