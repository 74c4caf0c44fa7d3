"""An action module with its small operations fused: shapes as in `world.action_module`, rows by (b, f, n)."""

from collections.abc import Iterable
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from playhead.world import rope
from playhead.world.action_module import ActionMemory, ActionModule
from playhead.world.fused.ops import Norm, Turn, add, bias_gelu, few_keys, norm, turn
from playhead.world.norm import rms_norm


class FusedActions:
    """`module`, whose weights no longer change."""

    def __init__(self, module: ActionModule) -> None:
        self._module, self._config = module, module.config
        if module.config.mouse:
            parts = cast("Iterable[Any]", module.mouse_mlp)
            widen, _, self._mix, widest = parts
            self._norm = Norm(widest.weight[None], widest.bias[None], widest.eps)
            dim = module.proj_mouse.out_features
            # What is told is the same for all of a frame's tokens: its share of the product is a bias.
            self._of_hidden = widen.weight[:, :dim].contiguous()
            self._of_told, self._bias = widen.weight[:, dim:].contiguous(), widen.bias

    def __call__(self, x: Tensor, layer: int, batch: int, memory: ActionMemory) -> tuple[Tensor, Tensor]:
        """`x` `(R, D)`, and what has to be added to it still; `layer` counts the action modules."""
        config = self._config
        keyboard, mouse = memory.rows.to(x.dtype).split((config.keyboard, config.mouse), -1)
        if not config.keyboard:
            return x, self._turn(x, layer, batch, mouse, memory)
        if config.mouse:
            x = add(x, self._turn(x, layer, batch, mouse, memory))
        return x, self._press(x, layer, batch, keyboard, memory)

    def _turn(self, x: Tensor, layer: int, batch: int, told: Tensor, memory: ActionMemory) -> Tensor:
        module, cache, table = self._module, memory.mouse, memory.mouse_cos_sin
        frames = table.shape[1]
        length = len(x) // batch
        n = length // frames
        each = F.linear(module._windows(told).flatten(0, 1), self._of_told, self._bias)
        y = self._mix(bias_gelu(F.linear(x, self._of_hidden), each))
        qkv = module.t_qkv(norm(y, self._norm))
        heads, eps = self._config.heads, module.eps
        q, k, v = qkv.chunk(3, 1)
        turned = Turn(heads, eps, None, table, per_head=True, repeat=n)
        q = turn(q, turned, batch).transpose(1, 2).flatten(0, 1)
        own = cache.own(layer)
        if own is None:  # the slots are apart: (B, heads, L, head_dim) to (B * N, heads, F, head_dim)
            apart = (turn(k, turned, batch), turn(v, Turn(heads), batch))
            kv = [t.unflatten(2, (frames, n)).permute(0, 3, 1, 2, 4).flatten(0, 1) for t in apart]
            cache.put(layer, kv[0], kv[1])
        else:
            for part, how, slots in zip((k, v), (turned, Turn(heads)), own, strict=True):
                turn(part, how, batch, slots.unflatten(0, (batch, n)))
        found: Tensor = module.proj_mouse(few_keys(q, *cache.held(layer), length, n))
        return found

    def _press(self, x: Tensor, layer: int, batch: int, told: Tensor, memory: ActionMemory) -> Tensor:
        module, cache, table = self._module, memory.keyboard, memory.keyboard_cos_sin
        heads, eps = self._config.heads, module.eps
        kv = module.keyboard_attn_kv(module._windows(module.keyboard_embed(told)))
        k, v = kv.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (B, heads, F, head_dim)
        cache.put(layer, rope.rotate(rms_norm(k, eps), table), v)
        length = len(x) // batch
        how = Turn(heads, eps, None, table, per_head=True, repeat=length // table.shape[1])
        q = turn(module.mouse_attn_q(x), how, batch).transpose(1, 2).flatten(0, 1)
        found: Tensor = module.proj_keyboard(few_keys(q, *cache.held(layer), length))
        return found
