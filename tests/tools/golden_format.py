"""The golden format: what a public reference implementation was given, and what it made of it.

A folder holds `meta.json`, which describes a model, a recipe for its weights and what was run with it, and
`io.safetensors` with the inputs, the recorded randomness and the results. Names and shapes are those of the
references; the structs hold the fields that are used here.
"""

import zlib
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from playhead.world.action_module import ActionModuleConfig
from playhead.world.errors import PlayheadError
from playhead.world.generator import GeneratorConfig
from playhead.world.lighttae import LightTAEConfig
from playhead.world.wan_vae import BLOCKS, CHANNELS, HALVES_TIME, MULTIPLIERS

Tensors = dict[str, Tensor]
Shape = tuple[int, ...]


class GoldenError(PlayheadError):
    """A folder that is not of the golden format, or of a part of it that is not supported yet."""


class WeightCheck(msgspec.Struct):
    first: tuple[float, ...]
    sum: float
    abs_sum: float


class Limits(msgspec.Struct):
    suggested_atol_float32: float
    suggested_rel_l2_float32: float


class Header(msgspec.Struct):
    family: str
    kind: str


class Meta(Header, kw_only=True):
    SEED: int
    keys: dict[str, Shape]
    weight_checks: dict[str, WeightCheck]
    tolerances: Limits
    outputs: tuple[str, ...]
    traces: tuple[str, ...] = ()


class ActionConfig(msgspec.Struct):
    blocks: tuple[int, ...]
    heads_num: int
    hidden_size: int
    windows_size: int
    vae_time_compression_ratio: int
    rope_theta: float
    rope_dim_list: tuple[int, int, int]
    img_hidden_size: int
    keyboard_dim_in: int = 0
    keyboard_hidden_dim: int = 0
    mouse_dim_in: int = 0
    mouse_hidden_dim: int = 0
    mouse_qk_dim_list: tuple[int, int, int] | None = None
    enable_keyboard: bool = True
    enable_mouse: bool = True
    qk_norm: bool = True
    qkv_bias: bool = False

    def modules(self, dim: int) -> ActionModuleConfig:
        """The same sizes in this project's words."""
        rope = self.rope_dim_list
        if not self.qk_norm or self.qkv_bias or self.img_hidden_size != dim:
            raise GoldenError("`config.action_config` describes another action module: not supported")
        if self.enable_mouse and (self.mouse_qk_dim_list or rope) != rope:
            raise GoldenError("`config.action_config` turns mouse and keyboard differently: not supported")
        defaults = ActionModuleConfig(self.blocks, 1)
        return ActionModuleConfig(
            blocks=self.blocks,
            keyboard=self.keyboard_dim_in if self.enable_keyboard else 0,
            mouse=self.mouse_dim_in if self.enable_mouse else 0,
            heads=self.heads_num,
            keyboard_dim=self.keyboard_hidden_dim if self.enable_keyboard else defaults.keyboard_dim,
            mouse_dim=self.mouse_hidden_dim if self.enable_mouse else defaults.mouse_dim,
            embedding=self.hidden_size,
            window=self.windows_size,
            time_factor=self.vae_time_compression_ratio,
            rotary=rope[0],
            theta=self.rope_theta,
        )


class WanConfig(msgspec.Struct):
    dim: int
    num_heads: int
    num_layers: int
    ffn_dim: int
    in_dim: int
    out_dim: int
    freq_dim: int
    eps: float
    local_attn_size: int
    sink_size: int
    text_dim: int = 0
    text_len: int = 512
    clip_dim: int = 1280
    action_config: ActionConfig | None = None
    patch_size: tuple[int, int, int] = (1, 2, 2)
    model_type: str = "t2v"
    qk_norm: bool = True
    cross_attn_norm: bool = True

    def generator(self) -> GeneratorConfig:
        """The same sizes in this project's words."""
        p = self.patch_size[1]
        if self.patch_size != (1, p, p):
            raise GoldenError(f"`config.patch_size` {self.patch_size} is not supported, only (1, n, n)")
        if self.model_type not in ("t2v", "i2v") or not (self.qk_norm and self.cross_attn_norm):
            raise GoldenError("`config` is no text or image to video with both of its norms: not supported")
        image = self.model_type == "i2v"
        return GeneratorConfig(
            dim=self.dim,
            heads=self.num_heads,
            layers=self.num_layers,
            ffn_dim=self.ffn_dim,
            in_channels=self.in_dim,
            out_channels=self.out_dim,
            text_dim=0 if image else self.text_dim,
            text_length=self.text_len,
            image_dim=self.clip_dim if image else 0,
            action=self.action_config.modules(self.dim) if self.action_config else None,
            time_features=self.freq_dim,
            patch=p,
            eps=self.eps,
        )


class Pipeline(msgspec.Struct):
    num_frame_per_block: int
    num_latent_frames: int
    latent_height: int
    latent_width: int
    kv_cache_frames: int
    num_initial_latent_frames: int = 0
    independent_first_frame: bool = False


class Steps(msgspec.Struct):
    denoising_step_list: tuple[float, ...]
    timestep_shift: float
    context_noise: float
    warp_denoising_step: bool = True
    num_train_timesteps: int = 1000


class RolloutMeta(Meta, kw_only=True):
    config: WanConfig
    pipeline: Pipeline
    schedule: Steps


class Pass(msgspec.Struct):
    num_frames: int
    timestep: float


class Variant(msgspec.Struct):
    config: WanConfig


class PassesMeta(Meta, kw_only=True):
    """Without a `config` of its own, that of the variant `mode` counts."""

    config: WanConfig | None = None
    mode: str = ""
    variants: dict[str, Variant] = {}
    passes: tuple[Pass, ...]
    latent_height: int
    latent_width: int

    def __post_init__(self) -> None:
        if self.config is None and self.mode in self.variants:
            self.config = self.variants[self.mode].config
        if self.config is None:
            raise ValueError("there is no `config`, nor one of the variant `mode`")


class TaeConfig(msgspec.Struct):
    latent_channels: int
    patch_size: int
    encoder_width: int
    decoder_widths: tuple[int, int, int, int]
    encoder_time_downscale: tuple[bool, bool, bool]
    decoder_time_upscale: tuple[bool, bool, bool]
    decoder_space_upscale: tuple[bool, bool, bool]
    image_channels: int = 3
    arch_variant: str | None = None
    activation: str = "ReLU"

    def lighttae(self) -> LightTAEConfig:
        """The same sizes in this project's words."""
        if (self.image_channels, self.arch_variant, self.activation) != (3, None, "ReLU"):
            raise GoldenError("`config` is a variant of the autoencoder that is not supported")
        w = self.encoder_width
        return LightTAEConfig(
            latent_channels=self.latent_channels,
            patch=self.patch_size,
            encoder_widths=(w, w, w, w),
            decoder_widths=self.decoder_widths,
            encoder_time=self.encoder_time_downscale,
            decoder_space=self.decoder_space_upscale,
            decoder_time=self.decoder_time_upscale,
        )


class TaeMeta(Meta, kw_only=True):
    config: TaeConfig


class VaeConfig(msgspec.Struct):
    base_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temperal_downsample: tuple[bool, ...]
    attn_scales: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """That of `WanVAE`, which has all else of Wan 2.1's."""
        built = (self.z_dim, self.dim_mult, self.num_res_blocks, self.temperal_downsample, self.attn_scales)
        if built != (CHANNELS, MULTIPLIERS, BLOCKS, HALVES_TIME, ()):
            raise GoldenError("`config` is no VAE of Wan 2.1 in another width: not supported")
        return self.base_dim


class VaeMeta(Meta, kw_only=True):
    config: VaeConfig


Described = TypeVar("Described", bound=Header)


def read_meta(path: Path, kind: type[Described]) -> Described:
    """Reads a `meta.json`. Raises GoldenError naming the field that does not fit."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise GoldenError(f"{path} cannot be read ({error.strerror}): give a golden folder") from None
    except msgspec.DecodeError as error:
        raise GoldenError(f"{path} is not of the golden format: {error}") from None


def read_tensors(path: Path) -> Tensors:
    """Reads an `io.safetensors`; everything in it is float32."""
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise GoldenError(f"{path} cannot be read: {error}") from None


def need(tensors: Tensors, name: str, *shape: int | None) -> Tensor:
    """The tensor `name`, of `shape` (None: any size). Raises GoldenError if it is not there."""
    if name not in tensors:
        raise GoldenError(f"io.safetensors has no tensor `{name}`")
    found = tuple(tensors[name].shape)
    fits = len(found) == len(shape) and all(w in (None, n) for w, n in zip(shape, found, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise GoldenError(f"`{name}` of io.safetensors has shape {found}, meta.json asks for ({wanted})")
    return tensors[name]


def weight(key: str, shape: Shape, seed: int) -> Tensor:
    """The recipe's weight of a state-dict key, float32."""
    state = np.random.RandomState((zlib.crc32(key.encode()) + 1000003 * seed) % 2**32)
    g = state.standard_normal(shape).astype(np.float32)
    if key.endswith("modulation"):
        g = 0.1 * g
    elif len(shape) >= 2:
        g = g / np.float32(np.sqrt(np.prod(shape[1:])))
    elif key.endswith(".weight"):
        g = 1 + 0.1 * g
    else:
        g = 0.02 * g
    return torch.from_numpy(g)


def fill_by_recipe(model: nn.Module, meta: Meta) -> list[str]:
    """Fills `model` (on the meta device) with the recipe's weights; returns what contradicts the folder."""
    ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    wrong = [
        f"key {key}: the model has {ours.get(key, 'none')}, the folder {meta.keys.get(key, 'none')}"
        for key in sorted(ours.keys() | meta.keys.keys())
        if ours.get(key) != meta.keys.get(key)
    ]
    model.load_state_dict({k: weight(k, s, meta.SEED) for k, s in ours.items()}, assign=True)
    filled = model.state_dict()
    for key, check in meta.weight_checks.items():
        if key not in filled:
            continue
        w = filled[key].double().flatten()
        expected = torch.tensor([*check.first, check.sum, check.abs_sum], dtype=torch.float64)
        found = torch.cat([w[: len(check.first)], w.sum()[None], w.abs().sum()[None]])
        if not torch.allclose(found, expected, rtol=1e-6, atol=1e-9 * check.abs_sum):
            wrong.append(f"weight {key}: first values and sums are {found.tolist()}, not {expected.tolist()}")
    return wrong
