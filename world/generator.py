"""The generator: a causal diffusion transformer that predicts the flow of the next latent frames.

The architecture is Wan 2.1's text-to-video transformer made causal, as in Self-Forcing (module names and
state-dict keys are theirs, so public checkpoints load unchanged); the shipped world is a small
configuration of it without text, whose modulation depends on the held buttons as well as on the noise level.

Shapes: B sessions, F latent frames, N tokens a frame, D model width. Latents are `(B, F, C, h, w)`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeVar, cast

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world import rope
from playhead.world.action_module import ActionInput, ActionModule, ActionModuleConfig
from playhead.world.attention import Attend, attention
from playhead.world.bounds import Size
from playhead.world.embedding import ButtonEmbedding, ImageEmbedding, sinusoid
from playhead.world.norm import RMSNorm, rms_norm
from playhead.world.offload.buffers import Offloaded
from playhead.world.parallel.token_shares import TokenShares

LEAST_SIGMA = 1e-3
"""Below this noise level clean latents say nothing of the flow."""


MOST_LAYERS = 1024
Item = TypeVar("Item")


class GeneratorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Sizes of a generator. Actions enter by modulation (`buttons`) or by modules in its blocks (`action`).

    `buttons`: length of the multi-hot action that modulates it, 0 for none; `labels`: length of the one-hot
    label that stands after it and says which place is dreamed, if any. `text_dim` or `image_dim`: width
    of the cross-attention context, text rows or image features; both 0 for no cross-attention. What
    `in_channels` has beyond `out_channels` are condition channels, given beside the noisy latents.
    `predicts`: what its layers compute, the `flow`, the `clean` latents, or how these `change` from those
    given as condition; what it returns is the flow.
    """

    dim: Size
    heads: Size
    layers: Size
    ffn_dim: Size
    in_channels: Size
    out_channels: Size
    buttons: Size = 0
    labels: Size = 0
    text_dim: Size = 0
    text_length: Size = 512
    image_dim: Size = 0
    action: ActionModuleConfig | None = None
    time_features: Size = 256
    patch: Size = 2
    eps: float = 1e-6
    predicts: Literal["flow", "clean", "change"] = "flow"

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def condition_channels(self) -> int:
        return self.in_channels - self.out_channels

    @property
    def inputs(self) -> int:
        """How many numbers an action has."""
        return self.action.inputs if self.action else self.buttons

    @property
    def told(self) -> int:
        """How many numbers it is told a frame: those of the action, then those of the label."""
        return self.inputs + self.labels

    def check(self) -> None:
        """Raises ValueError for sizes that make no transformer."""
        for name in ("dim", "heads", "layers", "ffn_dim", "in_channels", "out_channels", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, it has to be at least 1")
        if self.layers > MOST_LAYERS:
            raise ValueError(f"`layers` is {self.layers}, more than {MOST_LAYERS}")
        if self.dim % self.heads or self.head_dim % 2:
            raise ValueError(f"`dim` {self.dim} does not split into {self.heads} heads of even size")
        if self.condition_channels < 0:
            raise ValueError(f"`in_channels` {self.in_channels} is below `out_channels` {self.out_channels}")
        if self.text_dim and self.image_dim:
            raise ValueError("a context is text (`text_dim`) or image features (`image_dim`), not both")
        if self.action and self.buttons:
            raise ValueError("actions enter either by `buttons` or by `action` modules, not by both")
        if self.labels and not self.buttons:
            raise ValueError("`labels` stand beside `buttons`, of which there are none")
        if self.action:
            self.action.check(self.layers)


class _Attention(nn.Module):
    """Projections shared by self- and cross-attention; q and k are normalised before the split into heads."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        d = config.dim
        self.heads, self.eps = config.heads, config.eps
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, config.eps), RMSNorm(d, config.eps)

    def split(self, x: Tensor) -> Tensor:
        """`(B, L, D)` to `(B, heads, L, head_dim)`."""
        found: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return found

    def merge(self, x: Tensor) -> Tensor:
        found: Tensor = self.o(x.transpose(1, 2).flatten(2))
        return found


class SelfAttention(_Attention):
    _joined: tuple[nn.Linear, Tensor] | None = None

    def join(self) -> nn.Linear:
        """Lays q, k and v side by side in memory, so that one product serves all three; returns that layer.

        The parameters become views of the joined tensors: nothing is stored twice. For weights that no
        longer change.
        """
        weight, bias, gain = self._side_by_side()
        d = weight.shape[1]
        layer = nn.Linear(d, 3 * d, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        for part, w, b in zip((self.q, self.k, self.v), weight.split(d), bias.split(d), strict=True):
            part.weight.data, part.bias.data = w, b
        self.norm_q.weight.data, self.norm_k.weight.data = gain.unbind()
        self._joined = layer, gain
        return layer

    def _side_by_side(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight `(3 D, D)` and bias `(3 D)` of q, k, v, and the gains `(2, D)` of the norms of q and k."""
        parts = (self.q, self.k, self.v)
        weight, bias = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
        return weight, bias, torch.stack([self.norm_q.weight, self.norm_k.weight])

    def forward(self, x: Tensor, layer: int, cos_sin: Tensor, attend: Attend) -> Tensor:
        """`x` `(B, L, D)`; `cos_sin` is the rope table `(2, L, head_dim)` of these tokens."""
        if self._joined is not None:
            project, gain = self._joined
            qkv = project(x)
        else:
            weight, bias, gain = self._side_by_side()
            qkv = F.linear(x, weight, bias)
        qkv = qkv.unflatten(-1, (3, -1))  # (B, L, 3, D)
        qk = rms_norm(qkv[:, :, :2], self.eps) * gain
        qk = qk.unflatten(-1, (self.heads, -1)).permute(2, 0, 3, 1, 4)  # (2, B, heads, L, head_dim)
        q, k = rope.rotate(qk, cos_sin).unbind()
        return self.merge(attend(layer, q, k, self.split(qkv[:, :, 2])))


class CrossAttention(_Attention):
    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a context `(B, text_length, D)`: the same in every pass, so computed once."""
        return self.split(self.norm_k(self.k(context))), self.split(self.v(context))

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor]) -> Tensor:
        return self.merge(attention(self.split(self.norm_q(self.q(x))), *keys_values))


class Block(nn.Module):
    """Self-attention, optional cross-attention, feed-forward; modulated per frame, residual."""

    def __init__(self, config: GeneratorConfig, has_actions: bool = False) -> None:
        super().__init__()
        d = config.dim
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 6, d).normal_(std=1 / math.sqrt(d)))
        self.self_attn = SelfAttention(config)
        if config.text_dim or config.image_dim:
            self.norm3 = nn.LayerNorm(d, config.eps)
            self.cross_attn = CrossAttention(config)
        if has_actions and config.action:
            self.action_model = ActionModule(config.action, d, config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(d, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, d)
        )

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        layer: int,
        cos_sin: Tensor,
        attend: Attend,
        context: tuple[Tensor, Tensor] | None,
        control: tuple[int, ActionInput] | None,
    ) -> Tensor:
        """`x` `(B, F, N, D)`; `modulation` `(B, F, 6, D)` is the projected embedding of level and action.

        `control`: what the block's action module is given, and which of the action modules it is.
        """
        # Six of (B, F, 1, D), in the number type of play: autocast, in training, would widen all to float32.
        m = (self.modulation + modulation).to(x.dtype).unsqueeze(3).unbind(2)
        y = modulate(x, m[0], m[1], self.eps)
        y = self.self_attn(y.flatten(1, 2), layer, cos_sin, attend).view_as(x)
        x = torch.addcmul(x, y, m[2])
        if context is not None:
            y = self.cross_attn(self.norm3(x).flatten(1, 2), context)
            x = x + y.view_as(x)
        if control is not None:
            x = self.action_model(x, *control)
        return torch.addcmul(x, self.ffn(modulate(x, m[3], m[4], self.eps)), m[5])


def linear_layers(layers: nn.Sequential) -> list[nn.Linear]:
    """The linear ones of several layers."""
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm without weights, then `* (1 + scale) + shift`."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


class Head(nn.Module):
    """The last modulated norm and the projection to `out_channels` times the patch area."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim).normal_(std=1 / math.sqrt(config.dim)))
        self.head = nn.Linear(config.dim, config.out_channels * config.patch**2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """`embedding` `(B, F, D)` is the one before its projection."""
        m = (self.modulation + embedding.unsqueeze(2)).unsqueeze(3).unbind(2)
        found: Tensor = self.head(modulate(x, m[0], m[1], self.eps))
        return found


class Generator(nn.Module):
    """Predicts the flow of a block of latent frames from the KV cache, the noise level and the action.

    `offloaded`: those of its blocks whose weights lie elsewhere (`world.offload`), None if all are here.
    `shares`: which tokens go through the blocks here and which on other devices, None if all do here.
    """

    offloaded: Offloaded | None = None
    shares: TokenShares | None = None

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        d, p = config.dim, config.patch
        self.patch_embedding = nn.Conv3d(config.in_channels, d, (1, p, p), stride=(1, p, p))
        if config.text_dim:
            self.text_embedding = nn.Sequential(
                nn.Linear(config.text_dim, d), nn.GELU(approximate="tanh"), nn.Linear(d, d)
            )
        if config.image_dim:
            self.img_emb = ImageEmbedding(config.image_dim, d)
        if config.buttons:
            self.action_embedding = ButtonEmbedding(config.told, d)
        self.time_embedding = nn.Sequential(nn.Linear(config.time_features, d), nn.SiLU(), nn.Linear(d, d))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        acting = config.action.blocks if config.action else ()
        self._action_layers = {block: layer for layer, block in enumerate(acting)}
        blocks = [Block(config, i in self._action_layers) for i in range(config.layers)]
        self.blocks = cast("Sequence[Block]", nn.ModuleList(blocks))  # whose own types know no kind of module
        self.head = Head(config)

    def patchify(self, x: Tensor) -> Tensor:
        """`(B, F, C, h, w)` to tokens `(B, F, N, D)`, rows first."""
        weight, bias = self.patch_embedding.weight.squeeze(2), self.patch_embedding.bias
        tokens = F.conv2d(x.flatten(0, 1), weight, bias, stride=self.config.patch)
        found: Tensor = tokens.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])
        return found

    def unpatchify(self, x: Tensor, height: int, width: int) -> Tensor:
        """`(B, F, N, p * p * C)`, features ordered (row in patch, column in patch, channel), to latents."""
        p = self.config.patch
        b, f = x.shape[:2]
        x = x.view(b, f, height // p, width // p, p, p, -1)
        return x.permute(0, 1, 6, 2, 4, 3, 5).reshape(b, f, -1, height, width)

    def embed_context(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cross-attention keys and values, a pair a layer, of text `(B, rows, text_dim)` or image features.

        Short texts are filled with zero rows to `text_length`; those are attended too, as in Wan.
        """
        if self.config.image_dim:
            context = self.img_emb(context)
        else:
            missing = self.config.text_length - context.shape[1]
            context = self.text_embedding(F.pad(context, (0, 0, 0, missing)))
        return [block.cross_attn.keys_values(context) for block in self.walk(self.blocks, of_context=True)]

    def walk(self, items: Iterable[Item], of_context: bool = False) -> Iterator[Item]:
        """Items, one a block, each while its block's weights are here; `of_context`: those for a context."""
        return iter(items) if self.offloaded is None else self.offloaded.walk(items, of_context)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        cos_sin: Tensor,
        attend: Attend,
        action: Tensor | None = None,
        context: Sequence[tuple[Tensor, Tensor]] | None = None,
        control: ActionInput | None = None,
    ) -> Tensor:
        """Predicts the flow, float32, of `x` `(B, F, in_channels, h, w)`: noisy latents, then conditions.

        `timesteps` `(B, F)` in 0..1000; `cos_sin` from `rope.table`; `action` `(B, F, told)`: multi-hot,
        and a label; it modulates; `context` from `embed_context`; `control`: what action modules are given.
        """
        h, embedding = self.hidden(x, timesteps, cos_sin, attend, action, context, control)
        found = self.head(h, embedding)
        if self.shares is not None:
            found = self.shares.whole(found)
        return self.flow(self.unpatchify(found, *x.shape[-2:]).float(), x, timesteps)

    def hidden(
        self,
        x: Tensor,
        timesteps: Tensor,
        cos_sin: Tensor,
        attend: Attend,
        action: Tensor | None = None,
        context: Sequence[tuple[Tensor, Tensor]] | None = None,
        control: ActionInput | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the blocks make of it, `(B, F, N, D)`, and the embedding of level and action `(B, F, D)`.

        With `shares` N are the tokens of this rank.
        """
        embedding, modulation = self.told(timesteps, action)
        h = self.patchify(x.to(embedding.dtype))
        if self.shares is not None:
            h = self.shares.own(h)
        for layer, block in enumerate(self.walk(self.blocks)):
            keys_values = context[layer] if context is not None else None
            acting = self._action_layers.get(layer) if control is not None else None
            given = (acting, control) if acting is not None else None
            h = block(h, modulation, layer, cos_sin, attend, keys_values, given)
        return h, embedding

    def told(self, timesteps: Tensor, action: Tensor | None) -> tuple[Tensor, Tensor]:
        """The embedding `(B, F, D)` of level and action, and its projection `(B, F, 6, D)`."""
        dtype = self.head.head.weight.dtype
        embedding = self.time_embedding(sinusoid(timesteps, self.config.time_features).to(dtype))
        if action is not None:
            embedding = embedding + self.action_embedding(action.to(dtype))
        return embedding, self.time_projection(embedding).unflatten(-1, (6, -1))

    def flow(self, found: Tensor, x: Tensor, timesteps: Tensor) -> Tensor:
        """What its layers found as a flow: that from the clean latents to the noise in `x`."""
        if self.config.predicts == "flow":
            return found
        noisy, given = x.split((self.config.out_channels, self.config.condition_channels), 2)
        clean = found + given if self.config.predicts == "change" else found
        sigma = (timesteps / 1000).clamp_min(LEAST_SIGMA)[:, :, None, None, None]
        flow: Tensor = (noisy - clean) / sigma
        return flow

    def join(self) -> list[nn.Linear]:
        """Prepares weights that no longer change for speed; the state dict stays as it is.

        Returns the layers through which every token goes.
        """
        layers: list[nn.Linear] = []
        for block in self.blocks:
            layers += [block.self_attn.join(), block.self_attn.o, *linear_layers(block.ffn)]
        return layers

    def tokens(self, height: int, width: int) -> int:
        """Tokens of one latent frame of `height` x `width`."""
        return (height // self.config.patch) * (width // self.config.patch)

    def rope_table(self, frames: Sequence[int], height: int, width: int) -> Tensor:
        """The rope table `(2, tokens, head_dim)` of latent frames at absolute indices `frames`."""
        p = self.config.patch
        return rope.table(rope.grid_angles(frames, height // p, width // p, self.config.head_dim))
