"""Triton kernels of a tiny autoencoder's decoder: its convolutions with all that lies between them.

They are compiled once for pictures of every size and number. Pictures lie with their channels innermost,
`(images, H, W, C)`, and weights as `(groups, K, N)`. Sums are float32 and rounded once. Importing this raises
ImportError where there is no Triton.
"""
# ruff: noqa: ANN001  # Triton knows no annotation but that of a constant
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]


@triton.jit(do_not_specialize=["positions", "height", "width", "steps"])  # type: ignore[untyped-decorator, unused-ignore]
def convolve(
    x,
    before,
    weight,
    bias,
    rest,
    products,
    out,
    positions,
    height,
    width,
    steps,
    C: tl.constexpr,
    N: tl.constexpr,
    SIDE: tl.constexpr,
    TIMES: tl.constexpr,
    GROWS: tl.constexpr,
    PAST: tl.constexpr,
    ADDS: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    PLANES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
) -> None:
    """A convolution of pictures `x` `(positions, C)` of `height` x `width`, a tile of ROWS x COLUMNS of it.

    `PAST`: the channels of the step before follow those of a picture; that of a session's first of `steps` is
    in `before`. `ADDS`: `rest` is added to what comes of it. `GROWS`: to twice the size, by SIDE = 2 taps a
    side that differ with the place of a pixel among four; else SIDE = 3. `TIMES`: pictures that one becomes.
    Groups of weights are by time, then by place. `out` is `(images * TIMES, H, W, N)`; `PLANES`: as many
    products of it with `products` `(N, 32)` instead, `(PLANES, images * TIMES, places, height, width)`.
    """
    tile, group = tl.program_id(0) // (N // COLUMNS), tl.program_id(1)
    first = tl.program_id(0) % (N // COLUMNS) * COLUMNS
    row = tile * ROWS + tl.arange(0, ROWS)
    here = row < positions
    across, line = row % width, row // width % height
    area = height * width
    image = row // area
    places: tl.constexpr = 4 if GROWS else 1
    down, right = group % places // 2, group % 2 * (places // 4)
    top, left = line - 1 + (down if GROWS else 0), across - 1 + (right if GROWS else 0)
    inner, column = tl.arange(0, INNER), first + tl.arange(0, COLUMNS)
    earlier = x + (row - area).to(tl.int64) * C
    if PAST:
        of_session = (image // steps * area + row % area).to(tl.int64) * C
        earlier = tl.where(image % steps == 0, before + of_session, earlier)
    own = x + row.to(tl.int64) * C
    parts: tl.constexpr = C // INNER
    taps: tl.constexpr = SIDE * SIDE * parts
    depth: tl.constexpr = taps * (2 if PAST else 1)
    weights = weight + group.to(tl.int64) * (depth * INNER * N) + inner[:, None] * N + column[None, :]
    found = tl.zeros((ROWS, COLUMNS), tl.float32)
    for at in range(depth):
        tap = at % taps // parts
        dy, dx = tap // SIDE, tap % SIDE
        y, z = top + dy, left + dx
        inside = here & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        source = tl.where(at < taps, own, earlier) if PAST else own
        offset = ((y - line) * width + z - across) * C + at % parts * INNER
        values = tl.load((source + offset)[:, None] + inner[None, :], mask=inside[:, None], other=0.0)
        found = tl.dot(values, tl.load(weights + at * (INNER * N)), found, input_precision="ieee")
    if BIAS:
        found += tl.load(bias + column).to(tl.float32)[None, :]
    if ADDS:
        of_row = row.to(tl.int64)[:, None] * N + column[None, :]
        found += tl.load(rest + of_row, mask=here[:, None], other=0.0).to(tl.float32)
    if RELU:
        found = tl.maximum(found, 0.0)
    grown = image * TIMES + group // places
    if PLANES:
        plane = tl.arange(0, 32)
        by = tl.load(products + column[:, None] * 32 + plane[None, :])
        found = tl.dot(found.to(by.dtype), by, input_precision="ieee")
        to = (grown * places + group % places) * area + row % area
        to = to[:, None] + plane.to(tl.int64)[None, :] * (positions * (TIMES * places))
        inside = here[:, None] & (plane < PLANES)[None, :]
        tl.store(out + to, found.to(out.dtype.element_ty), mask=inside)
    else:
        scale: tl.constexpr = 2 if GROWS else 1
        to = (grown * (height * scale) + line * scale + down).to(tl.int64) * (width * scale)
        to = (to + across * scale + right) * N
        tl.store(out + to[:, None] + column[None, :], found.to(out.dtype.element_ty), mask=here[:, None])


@triton.jit(do_not_specialize=["images", "height", "width"])  # type: ignore[untyped-decorator, unused-ignore]
def colour(products, bias, out, images, height, width, GROWS: tl.constexpr, PIXELS: tl.constexpr) -> None:
    """Pixels uint8 `(images, H, W, 3)`: sums of nine neighbours' `products`, as `convolve` leaves them.

    `height` and `width` are those of a place; H and W are twice that where it `GROWS`.
    """
    scale: tl.constexpr = 2 if GROWS else 1
    places: tl.constexpr = scale * scale
    area = height * width
    at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    across, line = at % (width * scale), at // (width * scale)
    here = line < height * scale
    image = tl.program_id(1)
    plane = tl.cast(area, tl.int64) * (images * places)
    for which in tl.static_range(3):
        value = tl.zeros((PIXELS,), tl.float32) + tl.load(bias + which).to(tl.float32)
        for tap in tl.static_range(9):
            y, x = line + tap // 3 - 1, across + tap % 3 - 1
            inside = here & (y >= 0) & (y < height * scale) & (x >= 0) & (x < width * scale)
            place = (y % scale) * scale + x % scale
            from_ = (image * places + place) * area + (y // scale) * width + x // scale
            value += tl.load(products + plane * (tap * 3 + which) + from_, inside, 0.0).to(tl.float32)
        value = tl.minimum(tl.maximum(value, 0.0), 1.0) * 255.0
        value = (value + 12582912.0) - 12582912.0  # to the nearest, the even one of two
        to = (image.to(tl.int64) * (area * places) + at) * 3 + which
        tl.store(out + to, value.to(tl.uint8), here)
