"""Triton kernels of the small operations between a generator's products: each reads and writes a token once.

All arithmetic is float32, rounded once, where the plain operations round between them. `world.fused.ops`
calls these and has the same in plain torch. Rows are tokens, R of them; D is the model width. Importing this
raises ImportError where there is no Triton.
"""
# ruff: noqa: ANN001  # Triton knows no annotation but that of a constant
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def scaled(value, scale, WHOLE: tl.constexpr):  # noqa: ANN201
    """Numbers as multiples of a scale."""
    value *= 1.0 / scale
    if WHOLE:  # to the nearest, the even one of two: what adding a number as large as that leaves
        value = (value + 12582912.0) - 12582912.0
    return value


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def round_row(value, top, least, WHOLE: tl.constexpr):  # noqa: ANN201
    """A row as multiples of its scale, `top` at most, and that scale: `world.rounding.quantise`."""
    scale = tl.maximum(tl.max(tl.abs(value), 0), least) / top
    scale += tl.sum(value - value, 0)  # which a maximum would lose: one of a row is no number, so none is
    return scaled(value, scale, WHOLE), scale


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def add_norm(
    x,
    y,
    gate,
    scale,
    shift,
    summed,
    normed,
    scales,
    d,
    rows,
    gate_stride,
    norm_stride,
    eps,
    top,
    least,
    ADDS: tl.constexpr,
    GATED: tl.constexpr,
    NORMS: tl.constexpr,
    ONE: tl.constexpr,
    ROUNDS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """`summed = x + y * gate`, and `normed` its layer norm times `scale` (plus `ONE`), plus `shift`.

    Frame `row // rows` has the gate, scale and shift at so many strides. `ROUNDS`: `normed` is in 8 bits, and
    `scales` are its rows', as by `round_row`.
    """
    row = tl.program_id(0)
    frame = row // rows
    column = tl.arange(0, BLOCK)
    here = column < d
    at = row.to(tl.int64) * d + column
    value = tl.load(x + at, here, 0.0).to(tl.float32)
    if ADDS:
        more = tl.load(y + at, here, 0.0).to(tl.float32)
        if GATED:
            more *= tl.load(gate + frame * gate_stride + column, here, 0.0).to(tl.float32)
        value += more
        rounded = value.to(summed.dtype.element_ty)
        tl.store(summed + at, rounded, here)
        value = rounded.to(tl.float32)
    if NORMS:
        mean = tl.sum(value, 0) / d
        away = tl.where(here, value - mean, 0.0)
        away *= 1.0 / tl.sqrt(tl.sum(away * away, 0) / d + eps)
        by = tl.load(scale + frame * norm_stride + column, here, 0.0).to(tl.float32)
        plus = tl.load(shift + frame * norm_stride + column, here, 0.0).to(tl.float32)
        found = away * (by + ONE) + plus
        if ROUNDS:
            found = tl.where(here, found.to(x.dtype.element_ty).to(tl.float32), 0.0)
            found, of_row = round_row(found, top, least, WHOLE)
            tl.store(scales + row, of_row)
        tl.store(normed + at, found.to(normed.dtype.element_ty), here)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def gelu_of(x, at, here):  # noqa: ANN201
    """GELU by tanh of numbers of a row, rounded as the row is, float32."""
    value = tl.load(x + at, here, 0.0).to(tl.float32)
    # tanh(u) is 2 / (1 + exp(-2 u)) - 1, and so GELU x / (1 + exp(-2 u))
    twice = 1.5957691216057308 * (value + 0.044715 * value * value * value)
    value = value / (1.0 + tl.exp(-twice))
    return value.to(x.dtype.element_ty).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def gelu_round(
    x, found, scales, d, top, least, WHOLE: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr
) -> None:
    """GELU by tanh of rows `(R, d)`, in 8 bits, and the `scales` of the rows, as `quantise` has them.

    A row is BLOCK numbers and up to REST more, since what fills it up to a power of two would take as long.
    """
    row = tl.program_id(0)
    at = row.to(tl.int64) * d + tl.arange(0, BLOCK)
    rest = BLOCK + tl.arange(0, REST)
    here = rest < d
    rest += row.to(tl.int64) * d
    value, more = gelu_of(x, at, tl.arange(0, BLOCK) < d), gelu_of(x, rest, here)
    largest = tl.maximum(tl.max(tl.abs(value), 0), tl.max(tl.abs(more), 0))
    scale = tl.maximum(largest, least) / top
    # What a maximum would lose: one of a row is no number, so none is.
    scale += tl.sum(value - value, 0) + tl.sum(more - more, 0)
    tl.store(scales + row, scale)
    value, more = scaled(value, scale, WHOLE), scaled(more, scale, WHOLE)
    tl.store(found + at, value.to(found.dtype.element_ty), tl.arange(0, BLOCK) < d)
    tl.store(found + rest, more.to(found.dtype.element_ty), here)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def norm_turn(
    x,
    gain,
    cos_sin,
    out,
    d,
    size,
    length,
    x_stride,
    turn_batch,
    sin_at,
    rows,
    out_batch,
    out_head,
    out_frame,
    out_token,
    entry_rows,
    eps,
    NORMS: tl.constexpr,
    PER_HEAD: tl.constexpr,
    GAINS: tl.constexpr,
    TURNS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Rows `(B * length, d)` to heads of `size`, at `out`'s strides: normed, turned.

    `BLOCK` columns of `HEADS` heads: the norm is over all of a row or, `PER_HEAD`, over each head. Of
    `length` tokens, `rows` are a frame's; `entry_rows` of them, one after the other, share an entry of the
    rope table.
    """
    row = tl.program_id(0)
    batch, token = row // length, row % length
    head = tl.arange(0, HEADS)[:, None]
    inner = tl.arange(0, BLOCK)[None, :]
    here = (head * size < d) & (inner < size)
    column = head * size + inner
    at = row.to(tl.int64) * x_stride + column
    value = tl.load(x + at, here, 0.0).to(tl.float32)
    if NORMS:
        if PER_HEAD:
            by = (1.0 / tl.sqrt(tl.sum(value * value, 1) / size + eps))[:, None]
        else:
            by = 1.0 / tl.sqrt(tl.sum(tl.sum(value * value, 1), 0) / d + eps)
        value *= by
        if GAINS:
            value *= tl.load(gain + column, here, 0.0).to(tl.float32)
        if TURNS:
            entry = batch * turn_batch + (token // entry_rows) * size + inner
            cos = tl.load(cos_sin + entry, inner < size, 0.0)
            sin = tl.load(cos_sin + sin_at + entry, inner < size, 0.0)
            even, odd = tl.split(tl.reshape(value, (HEADS, BLOCK // 2, 2)))
            value = value * cos + tl.reshape(tl.join(odd, even), (HEADS, BLOCK)) * sin
    to = batch.to(tl.int64) * out_batch + head.to(tl.int64) * out_head + inner
    to += token // rows * out_frame + (token % rows).to(tl.int64) * out_token
    tl.store(out + to, value.to(out.dtype.element_ty), here)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def merge_parts(
    found,
    sums,
    out,
    heads,
    queries,
    found_part,
    found_head,
    found_query,
    PARTS: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """What parts of the keys gave `(PARTS, heads, queries, SIZE)`, weighted by their sums, token by token.

    `sums` `(PARTS, heads, queries)` are logarithms of sums of weights; `out` is `(queries, heads, SIZE)`.
    """
    query = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1)
    column = tl.arange(0, SIZE)[None, :]
    here = query < queries
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    for part in tl.static_range(PARTS):
        most = tl.maximum(most, tl.load(sums + (part * heads + head) * queries + query, here, 0.0))
    total = tl.zeros((ROWS,), tl.float32)
    value = tl.zeros((ROWS, SIZE), tl.float32)
    for part in tl.static_range(PARTS):
        weight = tl.exp(tl.load(sums + (part * heads + head) * queries + query, here, 0.0) - most)
        at = part * found_part + head * found_head + query.to(tl.int64) * found_query
        value += weight[:, None] * tl.load(found + at[:, None] + column, here[:, None], 0.0).to(tl.float32)
        total += weight
    value /= total[:, None]
    to = (query.to(tl.int64) * heads + head) * SIZE
    tl.store(out + to[:, None] + column, value.to(out.dtype.element_ty), here[:, None])


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def few_keys(
    q,
    k,
    v,
    out,
    heads,
    keys,
    length,
    rows,
    size_root,
    k_batch,
    k_head,
    k_key,
    SIZE: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """Attention of rows `q` `(R, heads, SIZE)` to a few keys each.

    Of `length` rows, those that are equal modulo `rows` share a batch of the keys.

    A handful of keys makes no tile of a tensor core: the products are sums of a row at a time.
    """
    row, head = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, SIZE)[None, :]
    key = tl.arange(0, KEYS)
    here = key < keys
    at = (row.to(tl.int64) * heads + head) * SIZE
    base = (row // length * rows + row % rows).to(tl.int64) * k_batch + head * k_head
    to = base + key[:, None] * k_key + column
    asked = tl.load(q + at + column).to(tl.float32)
    score = tl.sum(asked * tl.load(k + to, here[:, None], 0.0).to(tl.float32), 1) * size_root
    score = tl.where(here, score, float("-inf"))
    weight = tl.exp(score - tl.max(score, 0))
    weight /= tl.sum(weight, 0)
    value = tl.sum(weight[:, None] * tl.load(v + to, here[:, None], 0.0).to(tl.float32), 0)
    tl.store(out + at + tl.arange(0, SIZE), value.to(out.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def bias_gelu(x, bias, out, d, rows, BLOCK: tl.constexpr) -> None:
    """GELU, by the tanh formula, of rows plus the bias `(frames, d)` of each one's frame."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    here = column < d
    at = row.to(tl.int64) * d + column
    value = tl.load(x + at, here, 0.0).to(tl.float32)
    value += tl.load(bias + (row // rows) * d + column, here, 0.0).to(tl.float32)
    inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
    half = 1.0 / (1.0 + tl.exp(-2.0 * inner))  # (1 + tanh) / 2
    tl.store(out + at, (value * half).to(out.dtype.element_ty), here)
