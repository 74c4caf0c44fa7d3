"""The causal Wan generator written down once more, as plainly as it can be, in float64: a second opinion.

It is a transcription of the references' description and shares no code with `world/`: no cache (every key
that was ever computed is kept, and each pass picks those of its window), no joined products, no kernels. It
agrees with every folder in `tests/golden`, so the folders that it makes, of sizes that those do not have, are
as good as theirs (`make_folder`, for the tests of `tests.tools.parity`).
"""

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tools.golden_format import ActionConfig, RolloutMeta, Shape, Tensors, WanConfig, weight

Keys = dict[str, list[tuple[Tensor, Tensor]]]
"""By layer and kind: the keys and values `(heads, tokens, channels)` of every latent frame so far."""


def listing(c: WanConfig) -> dict[str, Shape]:
    """Every key and shape of a generator of this configuration."""
    d, found = c.dim, {}

    def linear(name: str, n_in: int, n_out: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = (n_out, n_in)
        if bias:
            found[f"{name}.bias"] = (n_out,)

    found |= {"patch_embedding.weight": (d, c.in_dim, *c.patch_size), "patch_embedding.bias": (d,)}
    if c.model_type == "t2v":
        linear("text_embedding.0", c.text_dim, d)
        linear("text_embedding.2", d, d)
    else:
        found |= {f"img_emb.proj.0.{part}": (c.clip_dim,) for part in ("weight", "bias")}
        linear("img_emb.proj.1", c.clip_dim, c.clip_dim)
        linear("img_emb.proj.3", c.clip_dim, d)
        found |= {f"img_emb.proj.4.{part}": (d,) for part in ("weight", "bias")}
    linear("time_embedding.0", c.freq_dim, d)
    linear("time_embedding.2", d, d)
    linear("time_projection.1", d, 6 * d)
    for i in range(c.num_layers):
        at = f"blocks.{i}"
        found |= {f"{at}.modulation": (1, 6, d), f"{at}.norm3.weight": (d,), f"{at}.norm3.bias": (d,)}
        for kind in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"{at}.{kind}.{part}", d, d)
            found |= {f"{at}.{kind}.norm_{part}.weight": (d,) for part in "qk"}
        linear(f"{at}.ffn.0", d, c.ffn_dim)
        linear(f"{at}.ffn.2", c.ffn_dim, d)
        a = c.action_config
        if a is None or i not in a.blocks:
            continue
        at, seen = f"{at}.action_model", a.windows_size * a.vae_time_compression_ratio
        if a.enable_keyboard:
            linear(f"{at}.keyboard_embed.0", a.keyboard_dim_in, a.hidden_size)
            linear(f"{at}.keyboard_embed.2", a.hidden_size, a.hidden_size)
            linear(f"{at}.mouse_attn_q", d, a.keyboard_hidden_dim, False)
            linear(f"{at}.keyboard_attn_kv", seen * a.hidden_size, 2 * a.keyboard_hidden_dim, False)
            linear(f"{at}.proj_keyboard", a.keyboard_hidden_dim, d, False)
            size = a.keyboard_hidden_dim // a.heads_num
            found |= {f"{at}.key_attn_{part}_norm.weight": (size,) for part in "qk"}
        if a.enable_mouse:
            linear(f"{at}.mouse_mlp.0", d + seen * a.mouse_dim_in, a.mouse_hidden_dim)
            linear(f"{at}.mouse_mlp.2", a.mouse_hidden_dim, a.mouse_hidden_dim)
            found |= {f"{at}.mouse_mlp.3.{part}": (a.mouse_hidden_dim,) for part in ("weight", "bias")}
            linear(f"{at}.t_qkv", a.mouse_hidden_dim, 3 * a.mouse_hidden_dim, False)
            linear(f"{at}.proj_mouse", a.mouse_hidden_dim, d, False)
            size = a.mouse_hidden_dim // a.heads_num
            found |= {f"{at}.img_attn_{part}_norm.weight": (size,) for part in "qk"}
    found |= {"head.modulation": (1, 2, d)}
    linear("head.head", d, c.out_dim * c.patch_size[1] * c.patch_size[2])
    return found


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Interleaved pairs of `x` `(…, tokens, channels)` turned by `angles` `(tokens, pairs)`."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


class PlainWan:
    """A generator that is played: `(F, C, h, w)` latents, everything of a single session in float64."""

    def __init__(self, c: WanConfig, seed: int, io: Tensors, window: int) -> None:
        self.c, self.window = c, window
        self.w = {key: weight(key, shape, seed).double() for key, shape in listing(c).items()}
        self.keys: Keys = {}
        self.actions = {n: io[f"{n}_cond"][0].double() for n in ("keyboard", "mouse") if f"{n}_cond" in io}
        if c.model_type == "t2v":
            rows = io["prompt_embeds"][0].double()
            rows = torch.cat([rows, rows.new_zeros(c.text_len - len(rows), c.text_dim)])
            context = self.linear("text_embedding.2", gelu(self.linear("text_embedding.0", rows)))
        else:
            x = self.norm("img_emb.proj.0", io["visual_context"][0].double(), 1e-5)
            x = self.linear("img_emb.proj.1", x)
            x = self.linear("img_emb.proj.3", 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
            context = self.norm("img_emb.proj.4", x, 1e-5)
        self.context = context

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        return layer_norm(x, eps) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def split(self, x: Tensor, heads: int) -> Tensor:
        """`(tokens, channels)` to `(heads, tokens, channels / heads)`."""
        return x.unflatten(-1, (heads, -1)).transpose(0, 1)

    def remember(self, name: str, first: int, k: Tensor, v: Tensor, frames: int, sink: int) -> list[Tensor]:
        """Keeps a block's keys and values, `(…, tokens, channels)`; returns all those of its window."""
        held = self.keys.setdefault(name, [])
        del held[first:]
        held += zip(k.chunk(frames, -2), v.chunk(frames, -2), strict=True)
        oldest = max(sink, len(held) - (self.window - sink))
        seen = [*held[: min(sink, len(held))], *held[oldest:]]
        return [torch.cat(part, -2) for part in zip(*seen, strict=True)]

    def angles(self, first: int, frames: int, rows: int, columns: int) -> Tensor:
        pairs = self.c.dim // self.c.num_heads // 2
        sizes = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
        places = torch.cartesian_prod(
            torch.arange(first, first + frames), torch.arange(rows), torch.arange(columns)
        ).double()
        parts = [
            places[:, axis : axis + 1] * 10000.0 ** (-torch.arange(size, dtype=torch.float64) / size)
            for axis, size in enumerate(sizes)
        ]
        return torch.cat(parts, -1)

    def predict(self, x: Tensor, timestep: float, first: int) -> Tensor:
        """The flow `(F, out, h, w)` of a block that begins at frame `first`; `x` with its condition."""
        c, (frames, channels, height, width) = self.c, x.shape
        p = c.patch_size[1]
        rows, columns = height // p, width // p
        n, d = rows * columns, c.dim
        angles = timestep * 10000.0 ** (
            -torch.arange(c.freq_dim // 2, dtype=torch.float64) / (c.freq_dim // 2)
        )
        e = self.linear("time_embedding.0", torch.cat([angles.cos(), angles.sin()]))
        e = self.linear("time_embedding.2", silu(e))
        six = self.linear("time_projection.1", silu(e)).view(6, d)
        # (F, C, rows, p, columns, p) to (F, rows, columns, C, p, p)
        patches = (
            x.view(frames, channels, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(frames * n, -1)
        )
        h = patches @ self.w["patch_embedding.weight"].flatten(1).T + self.w["patch_embedding.bias"]
        places = self.angles(first, frames, rows, columns)
        for i in range(c.num_layers):
            at = f"blocks.{i}"
            m = self.w[f"{at}.modulation"][0] + six
            y = layer_norm(h) * (1 + m[1]) + m[0]
            q, k = (
                turn(self.split(self.normed(f"{at}.self_attn", part, y), c.num_heads), places)
                for part in "qk"
            )
            v = self.split(self.linear(f"{at}.self_attn.v", y), c.num_heads)
            seen = self.remember(f"{i}", first, k, v, frames, c.sink_size)
            y = attend(q, *seen).transpose(0, 1).flatten(1)
            h = h + m[2] * self.linear(f"{at}.self_attn.o", y)
            q = self.split(self.normed(f"{at}.cross_attn", "q", self.norm(f"{at}.norm3", h)), c.num_heads)
            k = self.split(self.normed(f"{at}.cross_attn", "k", self.context), c.num_heads)
            v = self.split(self.linear(f"{at}.cross_attn.v", self.context), c.num_heads)
            h = h + self.linear(f"{at}.cross_attn.o", attend(q, k, v).transpose(0, 1).flatten(1))
            if c.action_config is not None and i in c.action_config.blocks:
                h = self.act(f"{at}.action_model", h.view(frames, n, d), first).flatten(0, 1)
            y = gelu(self.linear(f"{at}.ffn.0", layer_norm(h) * (1 + m[4]) + m[3]))
            h = h + m[5] * self.linear(f"{at}.ffn.2", y)
        m = self.w["head.modulation"][0] + e
        y = self.linear("head.head", layer_norm(h) * (1 + m[1]) + m[0])
        y = y.view(frames, rows, columns, p, p, -1).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(frames, -1, height, width)

    def normed(self, name: str, part: str, x: Tensor) -> Tensor:
        return rms(self.linear(f"{name}.{part}", x)) * self.w[f"{name}.norm_{part}.weight"]

    def windows(self, rows: Tensor, first: int, frames: int) -> Tensor:
        """The rows that each latent frame sees, one behind the other: rows 4f - 12 to 4f - 1."""
        a = self.c.action_config
        assert a is not None
        step, seen = a.vae_time_compression_ratio, a.windows_size * a.vae_time_compression_ratio
        numbers = [[max(0, step * f - seen + i) for i in range(seen)] for f in range(first, first + frames)]
        return rows[torch.tensor(numbers)].flatten(1)

    def act(self, at: str, h: Tensor, first: int) -> Tensor:
        """The action module on `(F, N, D)`, the mouse first."""
        a, (frames, n, _) = self.c.action_config, h.shape
        assert a is not None
        if a.enable_mouse:
            seen = self.windows(self.actions["mouse"], first, frames)[:, None].expand(frames, n, -1)
            y = gelu(self.linear(f"{at}.mouse_mlp.0", torch.cat([h, seen], -1)))
            y = self.norm(f"{at}.mouse_mlp.3", self.linear(f"{at}.mouse_mlp.2", y), 1e-5)
            qkv = self.linear(f"{at}.t_qkv", y).view(frames, n, 3, a.heads_num, -1)
            q, k, v = qkv.permute(2, 1, 3, 0, 4)  # (N, heads, F, channels) each
            angles = self.action_angles(a, first, frames, q.shape[-1])
            q, k = (turn(rms(part), angles) for part in (q, k))
            y = attend(q, *self.remember(f"{at} mouse", first, k, v, frames, 0))
            h = h + self.linear(f"{at}.proj_mouse", y.permute(2, 0, 1, 3).flatten(2))
        if a.enable_keyboard:
            y = self.linear(f"{at}.keyboard_embed.0", self.actions["keyboard"])
            y = self.linear(f"{at}.keyboard_embed.2", silu(y))
            kv = self.linear(f"{at}.keyboard_attn_kv", self.windows(y, first, frames))
            k, v = kv.view(frames, 2, a.heads_num, -1).permute(1, 2, 0, 3)  # (heads, F, channels) each
            q = self.linear(f"{at}.mouse_attn_q", h).view(frames, n, a.heads_num, -1).permute(1, 2, 0, 3)
            angles = self.action_angles(a, first, frames, q.shape[-1])
            k, v = self.remember(f"{at} keyboard", first, turn(rms(k), angles), v, frames, 0)
            y = attend(turn(rms(q), angles), k, v)  # (N, heads, F, channels)
            h = h + self.linear(f"{at}.proj_keyboard", y.permute(2, 0, 1, 3).flatten(2))
        return h

    def action_angles(self, a: ActionConfig, first: int, frames: int, channels: int) -> Tensor:
        """Only the first pairs of a head turn, with the latent frame's number."""
        turning = a.rope_dim_list[0] // 2
        speeds = torch.zeros(channels // 2, dtype=torch.float64)
        speeds[:turning] = a.rope_theta ** (-torch.arange(turning, dtype=torch.float64) / turning)
        return torch.arange(first, first + frames, dtype=torch.float64)[:, None] * speeds


def play(meta: RolloutMeta, io: Tensors) -> Tensor:
    """The output latents `(F, C, h, w)` of a rollout, float32, given frames first."""
    c, p, s = meta.config, meta.pipeline, meta.schedule
    swap = meta.family == "matrix-game-2"
    noise, n = io["noise"][0].transpose(0, 1) if swap else io["noise"][0], p.num_frame_per_block
    window = c.local_attn_size if c.local_attn_size > 0 else p.kv_cache_frames
    model = PlainWan(c, meta.SEED, io, window)
    level = torch.linspace(1, 0, 1001)[:-1]
    sigmas = s.timestep_shift * level / (1 + (s.timestep_shift - 1) * level)
    steps = [
        (float(sigmas[i]), float(1000 * sigmas[i])) for i in (1000 - int(t) for t in s.denoising_step_list)
    ]
    condition = io["cond_concat"][0].transpose(0, 1).double() if "cond_concat" in io else None

    def predict(x: Tensor, timestep: float, first: int) -> Tensor:
        if condition is not None:
            x = torch.cat([x, condition[first : first + len(x)]], 1)
        return model.predict(x, timestep, first)

    output, given = [], p.num_initial_latent_frames
    if given:
        initial = io["initial_latent"][0].double()
        output += list(initial)
        sizes = [1] * p.independent_first_frame
        sizes += [n] * ((given - len(sizes)) // n)
        for size in sizes:
            first = len(model.keys.get("0", []))
            predict(initial[first : first + size], 0.0, first)
    for number in range(p.num_latent_frames // n):
        first = given + number * n
        x = noise[number * n : (number + 1) * n].double()
        for i, (sigma, timestep) in enumerate(steps):
            clean = x - sigma * predict(x, timestep, first)
            if i + 1 < len(steps):
                after = steps[i + 1][0]
                x = (1 - after) * clean + after * io["renoise"][number, i].double()
        predict(clean, s.context_noise, first)
        output += list(clean)
    return torch.stack(output).float()


def make_folder(folder: Path, meta: dict, seed: int) -> Path:
    """Writes a golden folder of the rollout that `meta` describes, its inputs drawn at random."""
    described = msgspec.convert(
        {
            "SEED": seed, "keys": {}, "weight_checks": {}, "kind": "rollout", "outputs": ["output_latents"],
            "tolerances": {"suggested_atol_float32": 1e-5, "suggested_rel_l2_float32": 2e-5}, **meta,
        },
        RolloutMeta,
    )  # fmt: skip
    described.keys = listing(described.config)
    c, p = described.config, described.pipeline
    swap = described.family == "matrix-game-2"
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(draw.standard_normal(shape, dtype=np.float32))

    size, frames, n = (p.latent_height, p.latent_width), p.num_latent_frames, p.num_frame_per_block
    later = len(described.schedule.denoising_step_list) - 1
    io = {"noise": normal(1, c.out_dim, frames, *size) if swap else normal(1, frames, c.out_dim, *size)}
    if later:
        io["renoise"] = normal(frames // n, later, n, c.out_dim, *size)
    if p.num_initial_latent_frames:
        io["initial_latent"] = normal(1, p.num_initial_latent_frames, c.out_dim, *size)
    if c.model_type == "t2v":
        io["prompt_embeds"] = normal(1, max(1, c.text_len // 2), c.text_dim)
    else:
        io["visual_context"] = normal(1, 10, c.clip_dim)
        io["cond_concat"] = normal(1, c.in_dim - c.out_dim, frames, *size)
    a = c.action_config
    if a is not None:
        rows = 1 + a.vae_time_compression_ratio * (frames - 1)
        io |= {"keyboard_cond": normal(1, rows, a.keyboard_dim_in)} if a.enable_keyboard else {}
        io |= {"mouse_cond": normal(1, rows, a.mouse_dim_in)} if a.enable_mouse else {}
    latents = play(described, io)[None]
    io["output_latents"] = latents.transpose(1, 2) if swap else latents
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in io.items()}, folder / "io.safetensors")
    (folder / "meta.json").write_text(json.dumps(msgspec.to_builtins(described)), "utf-8")
    return folder
