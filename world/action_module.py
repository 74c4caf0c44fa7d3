"""The action module of Matrix-Game 2: keyboard and mouse enter a block as attention over time.

Action injection inside a block, between cross-attention and feed-forward. Latent frame f sees the action rows
of the `window` latent frames before it, one row a picture: rows 4f-12 .. 4f-1 at a window of 3 and a time
factor of 4. The mouse attends over time at each spatial position, the keyboard with one key a latent frame
that all positions share. Architecture and state-dict keys are those of Skywork's Matrix-Game-2; as there, the
gains of its query and key norms are stored and never applied.

Shapes: B sessions, F latent frames, N tokens a frame, D model width, R rows, A actions a row (the keyboard's
buttons, then the mouse's axes).
"""

from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from playhead.world import rope
from playhead.world.attention import Attend
from playhead.world.kv_cache import KVCache
from playhead.world.norm import RMSNorm, rms_norm
from playhead.world.size import Size


class ActionModuleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`blocks` have an action module. `keyboard` and `mouse` are the lengths of their vectors, 0 for none.

    `rotary` channels of a head turn with the latent frame's index, the others do not.
    """

    blocks: tuple[Size, ...]
    keyboard: Size
    mouse: Size = 0
    heads: Size = 16
    keyboard_dim: Size = 1024
    mouse_dim: Size = 1024
    embedding: Size = 128
    window: Size = 3
    time_factor: Size = 4
    rotary: Size = 8
    theta: float = 256.0

    @property
    def inputs(self) -> int:
        """The length of an action row."""
        return self.keyboard + self.mouse

    def rows(self, latents: int) -> int:
        """How many rows a block of `latents` latent frames needs: its own, and those its first one sees."""
        return self.time_factor * (latents + self.window - 1) + 1

    def check(self, layers: int) -> None:
        """Raises ValueError for sizes that make no action module of a generator of `layers` blocks."""
        if not self.blocks or sorted(set(self.blocks)) != list(self.blocks) or self.blocks[-1] >= layers:
            raise ValueError(f"`action.blocks` {list(self.blocks)} do not rise to numbers below {layers}")
        if self.blocks[0] < 0 or self.keyboard < 0 or self.mouse < 0 or not self.inputs:
            raise ValueError("`action` needs a `keyboard` or `mouse` above 0, and no number below 0")
        used = [("keyboard_dim", self.keyboard_dim)] if self.keyboard else []
        used += [("mouse_dim", self.mouse_dim)] if self.mouse else []
        for name, dim in used:
            size, rest = divmod(dim, self.heads)
            if rest or size % 2 or not 0 <= self.rotary <= size or self.rotary % 2:
                raise ValueError(f"`action.{name}` {dim} does not split into {self.heads} heads of even size")
        if min(self.window, self.time_factor, self.embedding) < 1:
            raise ValueError("`action.window`, `time_factor` and `embedding` have to be at least 1")


class ActionInput(NamedTuple):
    """What a block's action module is given: rows `(B, R, A)`, the first of them `window` latents back.

    `cos_sin` `(2, F, head_dim)` are the rope tables of keyboard and mouse; the attends know their caches.
    """

    rows: Tensor
    keyboard_cos_sin: Tensor
    mouse_cos_sin: Tensor
    attend_keyboard: Attend
    attend_mouse: Attend


class ActionModule(nn.Module):
    """Adds what mouse and keyboard say to the hidden state, the mouse first."""

    def __init__(self, config: ActionModuleConfig, dim: int, eps: float) -> None:
        super().__init__()
        self.config, self.eps = config, eps
        seen = config.window * config.time_factor
        if config.keyboard:
            width, head = config.keyboard_dim, config.keyboard_dim // config.heads
            self.keyboard_embed = nn.Sequential(
                nn.Linear(config.keyboard, config.embedding),
                nn.SiLU(),
                nn.Linear(config.embedding, config.embedding),
            )
            self.mouse_attn_q = nn.Linear(dim, width, bias=False)
            self.keyboard_attn_kv = nn.Linear(seen * config.embedding, 2 * width, bias=False)
            self.key_attn_q_norm, self.key_attn_k_norm = RMSNorm(head, eps), RMSNorm(head, eps)
            self.proj_keyboard = nn.Linear(width, dim, bias=False)
        if config.mouse:
            width, head = config.mouse_dim, config.mouse_dim // config.heads
            self.mouse_mlp = nn.Sequential(
                nn.Linear(dim + seen * config.mouse, width),
                nn.GELU(approximate="tanh"),
                nn.Linear(width, width),
                nn.LayerNorm(width),
            )
            self.t_qkv = nn.Linear(width, 3 * width, bias=False)
            self.img_attn_q_norm, self.img_attn_k_norm = RMSNorm(head, eps), RMSNorm(head, eps)
            self.proj_mouse = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, layer: int, given: ActionInput) -> Tensor:
        """`x` `(B, F, N, D)`; `layer` counts the action modules."""
        keyboard, mouse = given.rows.to(x.dtype).split((self.config.keyboard, self.config.mouse), -1)
        if self.config.mouse:
            x = x + self._turn(x, layer, mouse, given)
        if self.config.keyboard:
            x = x + self._press(x, layer, keyboard, given)
        return x

    def _turn(self, x: Tensor, layer: int, rows: Tensor, given: ActionInput) -> Tensor:
        b, f, n, _ = x.shape
        seen = self._windows(rows)[:, :, None].expand(b, f, n, -1)
        qkv = self.t_qkv(self.mouse_mlp(torch.cat([x, seen], -1)))
        qkv = qkv.unflatten(-1, (3, self.config.heads, -1))  # (B, F, N, 3, heads, head_dim)
        qkv = qkv.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (3, B * N, heads, F, head_dim)
        q, k = rope.rotate(rms_norm(qkv[:2], self.eps), given.mouse_cos_sin).unbind()
        y = given.attend_mouse(layer, q, k, qkv[2])  # (B * N, heads, F, head_dim)
        return self.proj_mouse(y.unflatten(0, (b, n)).permute(0, 3, 1, 2, 4).flatten(3))

    def _press(self, x: Tensor, layer: int, rows: Tensor, given: ActionInput) -> Tensor:
        b, f, n, _ = x.shape
        heads, cos_sin = self.config.heads, given.keyboard_cos_sin
        kv = self.keyboard_attn_kv(self._windows(self.keyboard_embed(rows)))
        k, v = kv.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (B, heads, F, head_dim)
        q = self.mouse_attn_q(x).unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4)
        q = rope.rotate(rms_norm(q, self.eps), cos_sin[:, :, None])  # (B, heads, F, N, head_dim)
        k = rope.rotate(rms_norm(k, self.eps), cos_sin)
        y = given.attend_keyboard(layer, q.flatten(2, 3), k, v)  # (B, heads, F * N, head_dim)
        return self.proj_keyboard(y.transpose(1, 2).flatten(2).view(b, f, n, -1))

    def _windows(self, rows: Tensor) -> Tensor:
        """`(B, R, A)` to the rows that each latent frame sees, one behind the other: `(B, F, seen * A)`."""
        seen, step = self.config.window * self.config.time_factor, self.config.time_factor
        windows = rows.unfold(1, seen, step)  # (B, F, A, seen)
        return windows.transpose(2, 3).flatten(2)


class ActionMemory:
    """The rows and the caches of the action modules of B sessions; buffers are allocated once.

    The caches hold as many latent frames as the generator's own, always without a sink.
    """

    def __init__(
        self,
        config: ActionModuleConfig,
        *,
        batch: int,
        tokens: int,
        frames: int,
        latents: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.rows = torch.zeros((batch, config.rows(latents), config.inputs), device=device)

        def cache(batch: int, dim: int) -> KVCache:
            return KVCache(
                layers=len(config.blocks),
                batch=batch,
                heads=config.heads,
                frames=frames,
                sink=0,
                tokens=1,
                head_dim=dim // config.heads,
                device=device,
                dtype=dtype,
            )

        self.keyboard = cache(batch if config.keyboard else 0, config.keyboard_dim)
        self.mouse = cache(batch * tokens if config.mouse else 0, config.mouse_dim)
        tables = self._tables(range(latents))
        self.keyboard_cos_sin, self.mouse_cos_sin = (table.to(device) for table in tables)

    def restart(self) -> None:
        """Forgets everything; the buffers stay."""
        self.keyboard.restart()
        self.mouse.restart()

    def hold(self, actions: Tensor) -> None:
        """Takes in the actions `(B, F, A)` of the coming block, one a latent frame.

        A latent frame's rows all hold its action. Before the first block lie copies of its first action.
        """
        step = self.config.time_factor
        new = actions.repeat_interleave(step, 1)
        if self.keyboard.length:
            past = self.rows[:, new.shape[1] :].clone()
        else:
            past = actions[:, :1].expand(-1, self.rows.shape[1] - new.shape[1], -1)
        self.rows.copy_(torch.cat([past, new], 1))

    def begin(self, count: int) -> None:
        """Makes room for a block of `count` latent frames."""
        for cache in (self.keyboard, self.mouse):
            cache.begin(count)
        first = self.keyboard.length
        tables = self._tables(range(first, first + count))
        for held, table in zip((self.keyboard_cos_sin, self.mouse_cos_sin), tables, strict=True):
            held.copy_(table)

    def end(self) -> None:
        """Counts the block under way as committed."""
        self.keyboard.end()
        self.mouse.end()

    def given(self) -> ActionInput:
        """What the generator is given of all this."""
        tables = self.keyboard_cos_sin, self.mouse_cos_sin
        return ActionInput(self.rows, *tables, self.keyboard.attend, self.mouse.attend)

    def state(self) -> dict[str, object]:
        """A copy of everything that the next tick depends on."""
        return {
            "rows": self.rows.clone(),
            "keyboard": self.keyboard.state(),
            "mouse": self.mouse.state(),
        }

    def load_state(self, state: dict) -> None:
        """Takes over a copy made by `state`."""
        self.rows.copy_(state["rows"])
        self.keyboard.load_state(state["keyboard"])
        self.mouse.load_state(state["mouse"])

    def _tables(self, frames: range) -> tuple[Tensor, Tensor]:
        """The rope tables `(2, F, head_dim)` of keyboard and mouse at absolute latent frame indices."""
        config = self.config
        pairs = config.rotary // 2
        turning = rope.axis_angles(frames, pairs, config.theta)

        def table(dim: int) -> Tensor:
            count = max(0, dim // config.heads // 2 - pairs)  # a dim that is not in use may have none
            still = torch.zeros(len(frames), count, dtype=torch.float64)
            return rope.table(torch.cat([turning, still], -1))

        return table(config.keyboard_dim), table(config.mouse_dim)
