"""Running what a golden folder describes, by the very classes that play uses, in float32.

Each run returns its results by the names under which the folder stores them, and what contradicts the
folder's listing of keys.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from playhead.world.action_module import ActionMemory
from playhead.world.fused.fused_generator import FusedGenerator
from playhead.world.generator import Generator
from playhead.world.kv_cache import KVCache
from playhead.world.lighttae import LightTAE
from playhead.world.sampler import Schedule, denoise
from playhead.world.wan_vae import CHANNELS, WAN_MEAN, WAN_STD, WanDecoder, WanEncoder, WanVAE
from tests.tools.golden_format import (
    GoldenError,
    PassesMeta,
    RolloutMeta,
    TaeMeta,
    Tensors,
    VaeMeta,
    WanConfig,
    fill_by_recipe,
    need,
)


class How(NamedTuple):
    """On which device, and whether passes are fused, of which a CPU has the twins."""

    device: torch.device = torch.device("cpu")
    fused: bool = False


class Given(NamedTuple):
    """What stands beside the noise of a whole rollout: `context` `(1, rows, width)`, perhaps more.

    `condition` `(1, F, C, h, w)` of its F latent frames; `actions` `(1, R, A)`, a row a picture.
    """

    context: Tensor
    condition: Tensor | None = None
    actions: Tensor | None = None


class Player:
    """A generator, its caches and what it is given: blocks `(1, F, C, h, w)` go through in order."""

    def __init__(
        self,
        generator: Generator,
        given: Given,
        frames: int,
        sink: int,
        height: int,
        width: int,
        latents: int,
        how: How,
    ) -> None:
        config = generator.config
        self.generator, self.height, self.width = generator, height, width
        self.device = how.device
        self.context = generator.embed_context(given.context)
        self.given = given
        tokens = generator.tokens(height, width)
        self.cache = KVCache(
            layers=config.layers,
            batch=1,
            heads=config.heads,
            frames=frames,
            sink=sink,
            tokens=tokens,
            head_dim=config.head_dim,
            device=how.device,
        )
        self.memory = None
        if config.action:
            self.memory = ActionMemory(
                config.action, batch=1, tokens=tokens, frames=frames, latents=latents, device=how.device
            )
        self.fused = FusedGenerator(generator) if how.fused else None
        self.flows: list[Tensor] = []  # what each pass since `begin` returned

    def begin(self, count: int) -> None:
        """Starts a block of `count` frames."""
        first = self.cache.length
        self.frames = slice(first, first + count)
        table = self.generator.rope_table(range(first, first + count), self.height, self.width)
        self.cos_sin = table.to(self.device)
        self.cache.begin(count)
        if self.memory is not None:
            self.memory.begin(count)
            self._fill_rows(first)
        self.flows = []

    def _fill_rows(self, first: int) -> None:
        assert self.memory is not None and self.given.actions is not None
        config, rows = self.memory.config, self.memory.rows
        earliest = (first - config.window) * config.time_factor
        numbers = torch.arange(earliest, earliest + rows.shape[1]).clamp(min=0)
        rows.copy_(self.given.actions[:, numbers])

    def predict(self, x: Tensor, timestep: float) -> Tensor:
        """One pass over the block under way."""
        timesteps = torch.full(x.shape[:2], timestep, device=self.device)
        if self.given.condition is not None:
            x = torch.cat([x, self.given.condition[:, self.frames]], 2)
        if self.fused is not None:
            flow = self.fused(x, timesteps, self.cos_sin, self.cache, None, self.context, self.memory)
        else:
            control = self.memory.given() if self.memory is not None else None
            flow = self.generator(
                x, timesteps, self.cos_sin, self.cache.attend, context=self.context, control=control
            )
        self.flows.append(flow)
        return flow

    def commit(self, clean: Tensor, timestep: float) -> None:
        """Writes a clean block to the cache."""
        self.predict(clean, timestep)
        self.end()

    def end(self) -> None:
        """Counts the block under way as committed."""
        self.cache.end()
        if self.memory is not None:
            self.memory.end()

    def keys_values(self, names: Iterable[str]) -> Tensors:
        """The traces among `names` that show a cache: `(1, tokens, heads, head_dim)`, oldest first.

        The keyboard's cache has one token a latent frame; so has the mouse's, at each position.
        """
        caches = {"": (self.cache, range(self.generator.config.layers))}
        if self.memory is not None:
            blocks = self.memory.config.blocks
            caches |= {"keyboard_": (self.memory.keyboard, blocks), "mouse_": (self.memory.mouse, blocks)}
        found = {}
        for name in names:
            match = re.fullmatch(r"(?:trace\.)?kv_(keyboard_|mouse_|)layer(\d+)_([kv])(?:_final)?", name)
            if match and match[1] in caches and int(match[2]) in caches[match[1]][1]:
                cache, blocks = caches[match[1]]
                held = cache.ordered(blocks.index(int(match[2])))
                found[name] = held["kv".index(match[3])].transpose(1, 2)
        return found


def watch(generator: Generator, names: Iterable[str]) -> Tensors:
    """A dict that from now on holds what the modules that traces are named after last put out."""
    seen: Tensors = {}
    modules = dict(generator.named_modules())
    for name in {
        name.partition(".")[2] for name in names if name.startswith(("trace_first.", "trace_last."))
    }:
        if name == "patch_embedding":  # whose result is what the first block takes in
            modules["blocks.0"].register_forward_pre_hook(
                lambda _module, inputs: seen.update(patch_embedding=inputs[0])
            )
        elif name.removesuffix(".out") in modules:
            modules[name.removesuffix(".out")].register_forward_hook(
                lambda _module, _inputs, output, name=name: seen.update({name: output})
            )
    return seen


def build_generator(
    meta: RolloutMeta | PassesMeta, height: int, width: int, device: torch.device
) -> tuple[Generator, list[str]]:
    """The generator that a folder describes, filled, and what contradicts the folder's listing."""
    config = meta.config.generator()
    if config.text_dim and config.condition_channels:
        raise GoldenError("`config.in_dim` and `config.out_dim` of a text-to-video model have to be equal")
    if height % config.patch or width % config.patch:
        raise GoldenError(f"a latent of {height} x {width} does not split into patches of {config.patch}")
    try:
        with torch.device("meta"):
            generator = Generator(config)
    except ValueError as error:
        raise GoldenError(f"`config` describes no generator: {error}") from None
    wrong = fill_by_recipe(generator, meta)
    return generator.to(device), wrong


def need_given(io: Tensors, config: WanConfig, latents: int, height: int, width: int) -> Given:
    """What stands beside the noise in io.safetensors: at most `text_len` text rows, or image and actions."""
    sizes = config.generator()
    if sizes.text_dim:
        context = need(io, "prompt_embeds", 1, None, config.text_dim)
        if context.shape[1] > config.text_len:
            raise GoldenError(
                f"`prompt_embeds` has {context.shape[1]} rows, more than `text_len` {config.text_len}"
            )
        return Given(context)
    context = need(io, "visual_context", 1, None, sizes.image_dim)
    condition = need(io, "cond_concat", 1, sizes.condition_channels, latents, height, width).transpose(1, 2)
    if sizes.action is None:
        return Given(context, condition)
    rows, parts = 1 + sizes.action.time_factor * (latents - 1), []
    for name in ("keyboard", "mouse"):
        count = getattr(sizes.action, name)
        parts += [need(io, f"{name}_cond", 1, rows, count)] if count else []
    return Given(context, condition, torch.cat(parts, -1))


def split_blocks(frames: int, size: int, first_alone: bool = False) -> list[slice]:
    """Consecutive blocks of `size` out of `frames` frames, the first perhaps of a single frame."""
    starts = [*([0] if first_alone else []), *range(int(first_alone), frames, size)]
    blocks = [slice(a, b) for a, b in zip(starts, [*starts[1:], frames], strict=True)]
    if any(block.stop - block.start != size for block in blocks[int(first_alone) :]):
        raise GoldenError(f"{frames} latent frames do not split into blocks of {size}")
    return blocks


def check_rollout(meta: RolloutMeta, window: int) -> None:
    """Raises GoldenError for settings that cannot be run."""
    p, steps, n = meta.pipeline, meta.schedule, meta.pipeline.num_frame_per_block
    if n < 1 or not steps.denoising_step_list:
        raise GoldenError("`num_frame_per_block` has to be at least 1, `denoising_step_list` needs a step")
    if not 0 <= meta.config.sink_size <= window - n:
        raise GoldenError(f"a cache of {window} frames has no room for `sink_size` and a block of {n}")
    if not steps.warp_denoising_step or steps.num_train_timesteps != 1000:
        raise GoldenError("`schedule` is not the warped one of 1000 timesteps: not supported yet")
    if p.independent_first_frame and not p.num_initial_latent_frames:
        raise GoldenError("`pipeline.independent_first_frame` without given frames is not supported yet")
    if p.num_initial_latent_frames and meta.config.action_config:
        raise GoldenError("`pipeline.num_initial_latent_frames` with actions is not supported")


def run_rollout(meta: RolloutMeta, io: Tensors, how: How) -> tuple[Tensors, list[str]]:
    """Given frames, then generated blocks: results by name, and what contradicts the listing."""
    p, steps, n = meta.pipeline, meta.schedule, meta.pipeline.num_frame_per_block
    c, h, w = meta.config.out_dim, p.latent_height, p.latent_width
    window = meta.config.local_attn_size if meta.config.local_attn_size > 0 else p.kv_cache_frames
    check_rollout(meta, window)
    schedule = Schedule.from_steps(steps.denoising_step_list, steps.timestep_shift)
    blocks = split_blocks(p.num_latent_frames, n)
    # Matrix-Game 2 stores channels before frames; here it is frames first.
    swap = meta.family == "matrix-game-2"
    noise = need(io, "noise", 1, *((c, p.num_latent_frames) if swap else (p.num_latent_frames, c)), h, w)
    noise = noise.transpose(1, 2) if swap else noise
    if len(schedule) > 1:
        renoise = need(io, "renoise", len(blocks), len(schedule) - 1, n, c, h, w)
    else:
        renoise = noise.new_empty(len(blocks), 0, n, c, h, w)
    given = need_given(io, meta.config, p.num_latent_frames, h, w)

    generator, wrong = build_generator(meta, h, w, how.device)
    seen, firsts = watch(generator, io), {}
    player = Player(generator, given, window, meta.config.sink_size, h, w, n, how)
    output, flows = [], []

    if p.num_initial_latent_frames:
        initial = need(io, "initial_latent", 1, p.num_initial_latent_frames, c, h, w)
        for block in split_blocks(p.num_initial_latent_frames, n, p.independent_first_frame):
            player.begin(block.stop - block.start)
            player.commit(initial[:, block], 0.0)
        output.append(initial)

    lasts: Tensors = {}

    def predict(x: Tensor, timestep: float) -> Tensor:
        flow = player.predict(x, timestep)
        if len(player.flows) == 1:
            lasts.update(seen)
        return flow

    for block, fresh in zip(blocks, renoise, strict=True):
        player.begin(n)
        clean = denoise(predict, [noise[:, block], *fresh.unsqueeze(1)], schedule)
        firsts = firsts or dict(lasts)
        player.commit(clean, steps.context_noise)
        output.append(clean)
        flows.append(torch.cat(player.flows))
    table = torch.tensor(Schedule.from_steps(range(1000, 0, -1), steps.timestep_shift).sigmas)
    latents, flow = torch.cat(output, 1), torch.stack(flows)
    found = {
        "output_latents": latents.transpose(1, 2) if swap else latents,
        "schedule.sigmas": table,
        "schedule.timesteps": 1000 * table,
        "trace.flow_pred": flow.transpose(2, 3) if swap else flow,
        **player.keys_values(io),
        **{f"trace_first.{name}": tensor for name, tensor in firsts.items()},
        **{f"trace_last.{name}": tensor for name, tensor in lasts.items()},
    }
    for name in found.keys() & {"trace_first.img_emb", "trace_last.img_emb"}:
        found[name] = found[name][:, : io[name].shape[1]]  # only the first rows are stored
    return found, wrong


def run_passes(meta: PassesMeta, io: Tensors, how: How) -> tuple[Tensors, list[str]]:
    """Single passes through one cache, each a one-step denoising whose result is not committed anew."""
    assert meta.config is not None
    c, h, w = meta.config.out_dim, meta.latent_height, meta.latent_width
    swap = meta.family == "matrix-game-2"
    inputs = [
        need(io, f"pass{i}.x", 1, *((c, p.num_frames) if swap else (p.num_frames, c)), h, w)
        for i, p in enumerate(meta.passes)
    ]
    total = sum(p.num_frames for p in meta.passes)
    if meta.config.action_config and len({p.num_frames for p in meta.passes}) > 1:
        raise GoldenError("`passes` of different lengths with actions are not supported")
    given = need_given(io, meta.config, total, h, w)
    generator, wrong = build_generator(meta, h, w, how.device)
    player = Player(generator, given, total, 0, h, w, meta.passes[0].num_frames, how)
    found: Tensors = {}
    for i, (p, x) in enumerate(zip(meta.passes, inputs, strict=True)):
        player.begin(p.num_frames)
        x = x.transpose(1, 2) if swap else x
        clean = denoise(player.predict, [x], Schedule((p.timestep / 1000,)))
        flow = player.flows[0]
        found[f"pass{i}.pred_x0"] = clean.transpose(1, 2) if swap else clean
        found[f"pass{i}.flow_pred"] = flow.transpose(1, 2) if swap else flow
        player.end()
    return found | player.keys_values(io), wrong


def _no_fused_passes(how: How) -> None:
    if how.fused:
        raise GoldenError("an autoencoder has no fused passes; leave --fused out")


def run_autoencoder(meta: TaeMeta, io: Tensors, how: How) -> tuple[Tensors, list[str]]:
    """Decodes a clip at once, untrimmed and latent by latent; encodes one; undoes LightX2V's scaling."""
    _no_fused_passes(how)
    config = meta.config.lighttae()
    latents = need(io, "decode.latents", 1, None, config.latent_channels, None, None)
    with torch.device("meta"):
        model = LightTAE(config)
    wrong = fill_by_recipe(model, meta)
    model.to(how.device)
    parts, memory = [], None
    for latent in latents.split(1, 1):
        frames, memory = model.decoder(latent, memory)
        parts.append(frames)
    assert memory is not None
    empty = [torch.zeros_like(past) for past in memory]  # a stream that is under way is not trimmed
    found = {
        "decode.raw": model.decoder(latents, empty)[0],
        "decode.video": model.decoder(latents)[0].clamp(0, 1),
        "decode.video_streaming": torch.cat(parts, 1).clamp(0, 1),
    }
    if "encode.video" in io:
        video = need(io, "encode.video", 1, None, 3, None, None)
        found["encode.latents"] = model.encoder(video)[0]
    if "latents_mean" in io and "latents_std" in io:
        mean, std = (need(io, f"latents_{s}", config.latent_channels)[:, None, None] for s in ("mean", "std"))
        scaled = model.decoder(latents * std + mean)[0].clamp(0, 1) * 2 - 1
        found["lightx2v.decode_need_scaled"] = scaled.transpose(1, 2)
    return found, wrong


def run_wan_vae(meta: VaeMeta, io: Tensors, how: How) -> tuple[Tensors, list[str]]:
    """Decodes a clip latent by latent, as it is and as a generator gives it; encodes one, likewise."""
    _no_fused_passes(how)
    latents = need(io, "decode.latents", 1, None, CHANNELS, None, None)
    with torch.device("meta"):
        vae = WanVAE(meta.config.width)
    wrong = fill_by_recipe(vae, meta)
    decoder = WanDecoder(vae.to(how.device))
    mean, std = (torch.tensor(values, device=how.device)[:, None, None] for values in (WAN_MEAN, WAN_STD))

    def decoded(clip: Tensor) -> Tensor:
        parts, memory = [], None
        for latent in clip.split(1, 1):
            frames, memory = decoder(latent, memory)
            parts.append(frames)
        return torch.cat(parts, 1).mul(2).sub(1).clamp(-1, 1)

    raw = WanEncoder(vae)(need(io, "encode.video", 1, None, 3, None, None))
    return {
        "decode.video": decoded(latents),
        "decode.video_of_normalised": decoded(latents * std + mean),
        "encode.latents": raw,
        "encode.normalised": (raw - mean) / std,
    }, wrong
