"""The small operations of a pass: by Triton kernels on a GPU, in plain torch elsewhere, in float32 both.

B sessions, F frames, N tokens a frame; rows are tokens, `(R, D)` with R = B * F * N, contiguous.
"""

from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.rounding import EIGHT_BIT, LEAST, TOPS, Rounded, quantise

try:
    from playhead.world.fused import kernels as _loaded

    _kernels: ModuleType | None = _loaded
except ImportError:  # torch for a CPU comes without Triton
    _kernels = None

INTERPRETED = False
"""Whether the kernels serve tensors of a CPU too: in a process with TRITON_INTERPRET=1, for their tests."""


def available(device: torch.device) -> bool:
    """Whether the kernels are there and run on a device."""
    return _kernels is not None and (device.type == "cuda" or INTERPRETED)


def _run(kernel: str, grid: tuple[int, ...], x: Tensor, *given: Tensor | float, **constants: float) -> None:
    """Runs a kernel on the device of `x`, its first argument, whichever is the current one."""
    assert _kernels is not None
    with torch.cuda.device_of(x):
        getattr(_kernels, kernel)[grid](x, *given, **constants)


@dataclass(frozen=True)
class Norm:
    """A layer norm, then `* scale + shift`; `one` is added to the scale.

    `scale` and `shift` `(frames, D)`, one for each frame's rows, or `(1, D)` for all. `precision`: what comes
    of it is rounded to that many bits, for a low-bit product.
    """

    scale: Tensor
    shift: Tensor
    eps: float
    one: bool = False
    precision: str | None = None


def norm(x: Tensor, by: Norm) -> Tensor | Rounded:
    """Rows `(R, D)`, normed."""
    found = _add_norm(x, None, None, by)[1]
    assert found is not None
    return found


def add(x: Tensor, y: Tensor, gate: Tensor | None = None) -> Tensor:
    """`x + y`, or `x + y * gate`, which is `(frames, D)`."""
    return _add_norm(x, y, gate, None)[0]


def add_norm(x: Tensor, y: Tensor, by: Norm, gate: Tensor | None = None) -> tuple[Tensor, Tensor | Rounded]:
    """`add`, and that normed."""
    summed, normed = _add_norm(x, y, gate, by)
    assert normed is not None
    return summed, normed


def _add_norm(
    x: Tensor, y: Tensor | None, gate: Tensor | None, by: Norm | None
) -> tuple[Tensor, Tensor | Rounded | None]:
    if not available(x.device):
        return _plain_add_norm(x, y, gate, by)
    r, d = x.shape
    frames = max(len(given) for given in (gate, by.scale if by else None, x[:1]) if given is not None)
    summed = x if y is None else torch.empty_like(x)
    precision = by.precision if by is not None else None
    normed = None if by is None else torch.empty_like(x, dtype=EIGHT_BIT[precision] if precision else None)
    scales = x.new_empty((r, 1), dtype=torch.float32) if precision else x
    _run(
        "add_norm",
        (r,),
        x,
        x if y is None else y,
        x if gate is None else gate,
        x if by is None else by.scale,
        x if by is None else by.shift,
        summed,
        x if normed is None else normed,
        scales,
        d,
        r // frames,
        0 if gate is None or len(gate) == 1 else gate.stride(0),
        0 if by is None or len(by.scale) == 1 else by.scale.stride(0),
        0.0 if by is None else by.eps,
        TOPS[precision] if precision else 1.0,
        LEAST,
        ADDS=y is not None,
        GATED=gate is not None,
        NORMS=by is not None,
        ONE=1.0 if by is not None and by.one else 0.0,
        ROUNDS=precision is not None,
        WHOLE=precision == "int8",
        BLOCK=_power(d),
        num_warps=4 if d > 512 else 1,
    )
    return summed, Rounded(normed, scales) if precision and normed is not None else normed


def gelu_round(x: Tensor, precision: str) -> Rounded:
    """GELU by tanh of rows `(R, D)`, rounded for a low-bit product."""
    if not available(x.device):
        return quantise(F.gelu(x, approximate="tanh"), precision)
    r, d = x.shape
    found = torch.empty_like(x, dtype=EIGHT_BIT[precision])
    scales = x.new_empty((r, 1), dtype=torch.float32)
    block = max(1, _power(d + 1) // 2)  # the power of two up to d
    _run(
        "gelu_round",
        (r,),
        x,
        found,
        scales,
        d,
        TOPS[precision],
        LEAST,
        WHOLE=precision == "int8",
        BLOCK=block,
        REST=_power(max(1, d - block)),
        num_warps=min(16, max(4, block // 1024)),
    )
    return Rounded(found, scales)


def _plain_add_norm(
    x: Tensor, y: Tensor | None, gate: Tensor | None, by: Norm | None
) -> tuple[Tensor, Tensor | Rounded | None]:
    summed = x
    if y is not None:
        more = y.float() if gate is None else y.float() * _each(gate, len(x))
        summed = (x.float() + more).to(x.dtype)
    if by is None:
        return summed, None
    normed = F.layer_norm(summed.float(), summed.shape[-1:], eps=by.eps)
    found = (normed * (_each(by.scale, len(x)) + by.one) + _each(by.shift, len(x))).to(x.dtype)
    return summed, quantise(found, by.precision) if by.precision else found


@dataclass(frozen=True)
class Turn:
    """How rows become heads: normed by their root mean square, if `eps` is given, then by `gain`, and turned.

    `per_head`: the mean is over a head, else over a row. `cos_sin` `(2, [B,] entries, head_dim)`, as of
    `world.rope`; `repeat` tokens, one after the other, share an entry.
    """

    heads: int
    eps: float | None = None
    gain: Tensor | None = None
    cos_sin: Tensor | None = None
    per_head: bool = False
    repeat: int = 1


def turn(x: Tensor, how: Turn, batch: int, out: Tensor | None = None) -> Tensor:
    """Rows `(R, D)` of a `batch` B, R = B * L, to `(B, heads, L, head_dim)`: into `out`, if given.

    `x` may be a part of wider rows; `out` may have any strides but for its last. An `out` with an axis more,
    `(B, N, heads, F, head_dim)`, has the tokens of every position behind each other; L = F * N.
    """
    r, d = x.shape
    size, length = d // how.heads, r // batch
    if out is None:  # a token's heads lie side by side, as a product wants them afterwards
        out = x.new_empty((batch, length, how.heads, size)).transpose(1, 2)
    if not available(x.device):
        found = _plain_turn(x, how, batch)
        out.copy_(found.unflatten(2, (-1, out.shape[1])).permute(0, 3, 1, 2, 4) if out.ndim == 5 else found)
        return out
    table = how.cos_sin
    # Strides of batch, head, frame and token of a frame.
    rows, strides = length, (*out.stride()[:2], 0, out.stride(2))
    if out.ndim == 5:
        rows, strides = out.shape[1], (out.stride(0), out.stride(2), out.stride(3), out.stride(1))
    _run(
        "norm_turn",
        (r,),
        x,
        x if how.gain is None else how.gain,
        x if table is None else table,
        out,
        d,
        size,
        length,
        x.stride(0),
        0 if table is None or table.ndim == 3 else table.stride(1),
        0 if table is None else table.stride(0),
        rows,
        *strides,
        how.repeat,
        0.0 if how.eps is None else how.eps,
        NORMS=how.eps is not None,
        PER_HEAD=how.per_head,
        GAINS=how.gain is not None,
        TURNS=table is not None,
        HEADS=_power(how.heads),
        BLOCK=_power(size),
        num_warps=4 if d > 512 else 1,
    )
    return out


def _plain_turn(x: Tensor, how: Turn, batch: int) -> Tensor:
    rows = x.float()
    if how.eps is not None:
        parts = rows.unflatten(-1, (how.heads, -1)) if how.per_head else rows
        rows = F.rms_norm(parts, parts.shape[-1:], eps=how.eps).view_as(rows)
        if how.gain is not None:
            rows = rows * how.gain.float()
    found = rows.view(batch, -1, how.heads, x.shape[1] // how.heads).transpose(1, 2)
    if how.eps is not None and how.cos_sin is not None:
        table = how.cos_sin.repeat_interleave(how.repeat, -2)
        cos, sin = table.unsqueeze(-3).unbind()
        found = found * cos + found.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) * sin
    return found


def merge_parts(found: Tensor, sums: Tensor) -> Tensor:
    """`(1, heads, queries, head_dim)` of parts of the keys `(P, …)`, by the logarithms of their sums.

    `sums` `(P, heads, queries)`, float32. A token's heads lie side by side in what is returned.
    """
    parts, heads, queries, size = found.shape
    if not available(found.device) or found.stride(3) != 1 or size & (size - 1):
        weights = torch.softmax(sums.reshape(parts, heads, queries, 1).float(), 0)
        return (found * weights).sum(0, keepdim=True).to(found.dtype)
    out = found.new_empty((1, queries, heads, size))
    rows = 8
    _run(
        "merge_parts",
        (-(-queries // rows), heads),
        found,
        sums.reshape(parts, heads, queries),
        out,
        heads,
        queries,
        *found.stride()[:3],
        PARTS=parts,
        SIZE=size,
        ROWS=rows,
        num_warps=4,
    )
    return out.transpose(1, 2)


def few_keys(q: Tensor, k: Tensor, v: Tensor, length: int, rows: int = 1) -> Tensor:
    """Attention of rows `q` `(R, heads, size)` to a few keys each; returns `(R, heads * size)`.

    `k`, `v` `(R / length * rows, heads, keys, size)`, of equal strides. Of `length` rows, a session's, those
    that are equal modulo `rows` share a batch of them.
    """
    r, heads, size = q.shape
    if not available(q.device) or size & (size - 1):
        row = torch.arange(r, device=q.device)
        batch = row // length * rows + row % rows
        found = F.scaled_dot_product_attention(q.unsqueeze(2), k[batch].to(q.dtype), v[batch].to(q.dtype))
        return found.reshape(r, -1)
    out = torch.empty_like(q)
    _run(
        "few_keys",
        (r, heads),
        q,
        k,
        v,
        out,
        heads,
        k.shape[2],
        length,
        rows,
        size**-0.5,
        *k.stride()[:3],
        SIZE=size,
        KEYS=_power(k.shape[2]),
        num_warps=1,
    )
    return out.flatten(1)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer and a GELU, by the tanh formula, which on a GPU is a part of the product."""
    if x.is_cuda:
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU, by the tanh formula, of rows plus the bias `(frames, D)` of each one's frame."""
    if not available(x.device):
        return F.gelu(x.float() + _each(bias, len(x)), approximate="tanh").to(x.dtype)
    r, d = x.shape
    out = torch.empty_like(x)
    _run("bias_gelu", (r,), x, bias, out, d, r // len(bias), BLOCK=_power(d), num_warps=4)
    return out


def _each(by: Tensor, rows: int) -> Tensor:
    """What frames have `(frames, D)`, for each of their rows, float32."""
    return by.float().repeat_interleave(rows // len(by), 0)


def _power(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()
