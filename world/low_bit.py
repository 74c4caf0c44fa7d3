"""Low bit: a generator's large linear layers in 8 bits, which take half the memory and, on a GPU, less time.

Weights are rounded once, when a world loads, with one scale a row (an output channel); what they multiply in
every call, with one scale a token, its largest number over the largest there is. Products are summed in
float32 (`int8`: exactly), scaled, the bias added, and rounded to the world's number type. A GPU that has
kernels for it uses them, once they were seen to agree with the twin; everywhere else the twin computes the
same numbers the long way, which is slower than full precision.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world.checkpoint import tensor_digest
from playhead.world.errors import WorldError
from playhead.world.generator import Block, Generator, linear_layers

PRECISIONS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
"""Number types of 8 bits, by what `--precision` calls them."""
TOPS = {"fp8": 448.0, "int8": 127.0}
"""The largest number of each that is used."""
LEAST = 1e-12
"""A row whose numbers are all below this counts as that large: rows of zeros have a scale too."""
LIMIT = 0.02
"""Relative L1 error against the twin up to which a kernel is right: those of fp8 sum in about 14 bits."""
FEWEST_ROWS = 32
"""torch's product of int8 refuses fewer than 17 rows on a GPU."""

Kinds = dict[str, tuple[tuple[int, int], ...]]
"""Shapes `(out, in)` of the large layers of a block, by kind."""
Layers = dict[tuple[int, str], nn.Linear]
"""The layers of a generator that are low bit, by block and kind."""
Placed = Callable[[int, Block, dict[str, nn.Linear]], None]
"""What is done with a block that was moved: its number, itself, and the layers that are called, by kind."""
_full: "WeakKeyDictionary[nn.Module, str]" = WeakKeyDictionary()
"""Digests of the weights that low-bit layers had in full, by which a world is known."""
_layers: "WeakKeyDictionary[Generator, Layers]" = WeakKeyDictionary()


def check_precision(precision: str | None, device: torch.device) -> None:
    """Raises WorldError for a precision that there is not, or that cannot be had on a device; None can."""
    if precision is None:
        return
    if precision not in PRECISIONS:
        known = " and ".join(PRECISIONS)
        raise WorldError(f"there is no precision `{precision}`; there are {known}, or leave --precision out")
    if device.type not in ("cpu", "cuda"):
        raise WorldError(
            f"--precision {precision} needs an NVIDIA GPU or the CPU, not {device}; leave it out"
        )


def number_types(dtype: torch.dtype, precision: str | None, cache: str | None = None) -> str:
    """A world's, in words: `bfloat16`, or `bfloat16, fp8, fp8 cache` where layers and cache are low bit."""
    held = f"{cache} cache" if cache is not None else None
    return ", ".join(filter(None, (str(dtype).removeprefix("torch."), precision, held)))


def quantised(layer: nn.Linear) -> bool:
    """Whether a layer is low bit, so that its weight means nothing without its scale; call the layer then."""
    return layer.weight.dtype in PRECISIONS.values()


def parts(block: Block) -> dict[str, tuple[nn.Linear, ...]]:
    """The layers of a block that may be low bit, by kind; those that serve as one product side by side."""
    own = block.self_attn
    found: dict[str, tuple[nn.Linear, ...]] = {"qkv": (own.q, own.k, own.v), "o": (own.o,)}
    if hasattr(block, "cross_attn"):  # whose keys and values are computed once a prompt
        found |= {"cross q": (block.cross_attn.q,), "cross o": (block.cross_attn.o,)}
    widen, narrow = linear_layers(block.ffn)
    return found | {"ffn in": (widen,), "ffn out": (narrow,)}


def context_parts(block: Block) -> dict[str, tuple[nn.Linear, ...]]:
    """The large layers of a block that only a context's keys and values need; they are never low bit."""
    if not hasattr(block, "cross_attn"):
        return {}
    return {"cross k": (block.cross_attn.k,), "cross v": (block.cross_attn.v,)}


def shapes(block: Block, of_context: bool = False) -> Kinds:
    """Those of `parts`, or of `context_parts`."""
    found = context_parts(block) if of_context else parts(block)
    return {
        kind: tuple((layer.out_features, layer.in_features) for layer in many) for kind, many in found.items()
    }


def saved_bytes(generator: Generator, itemsize: int) -> int:
    """What low bit saves of a generator's bytes, in numbers of `itemsize` bytes otherwise; scales counted."""
    weights = [layer.weight for block in generator.blocks for many in parts(block).values() for layer in many]
    return sum(weight.numel() * (itemsize - 1) - len(weight) * 4 for weight in weights)


def place(
    generator: Generator,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    placed: Placed | None = None,
) -> list[nn.Linear]:
    """Moves a generator to a device in `dtype`, joined; returns what `Generator.join` does, if it is in full.

    Low bit, or where each block is to be `placed` before the next one, it is moved block by block, so that
    the device never holds all of it in full. The state dict of a low-bit one is as published low-bit
    checkpoints have it: `X.weight` in 8 bits, `X.weight_scale` beside. For weights that no longer change.
    Raises WorldError as `check_precision` does.
    """
    if precision is None and placed is None:
        return generator.to(device, dtype).join()
    check_precision(precision, device)
    for name, child in generator.named_children():
        if name != "blocks":
            child.to(device, dtype)
    found = _layers[generator] = {}
    full: list[nn.Linear] = []
    reasons = set()
    with ThreadPoolExecutor(8) as pool:
        for number, block in enumerate(generator.blocks):
            block.to(device, dtype)
            called = {
                kind: block.self_attn.join() if kind == "qkv" else layers[0]
                for kind, layers in parts(block).items()
            }
            if precision is None:
                full += [called[kind] for kind in ("qkv", "o", "ffn in", "ffn out")]
            else:
                for kind, layers in parts(block).items():
                    digests = pool.map(lambda part: tensor_digest(part.weight), layers)
                    _full.update(zip(layers, digests, strict=True))
                    reasons.add(_replace(called[kind], layers, precision))
                    found[number, kind] = called[kind]
            if placed is not None:
                placed(number, block, called)
    if why := "; ".join(sorted(filter(None, reasons))):
        said = f"{precision} is computed the long way, which is slower than full precision: {why}"
        logging.getLogger("playhead").warning(said)
    return full


def low_bit_layers(generator: Generator) -> Layers:
    """The layers of a generator that are low bit, those that are called; none where it is in full."""
    return _layers.get(generator, {})


def full_digests(module: nn.Module) -> dict[str, str]:
    """Digests of the weights that low-bit layers of a module had in full, by their keys in its state dict."""
    return {f"{name}.weight": _full[part] for name, part in module.named_modules() if part in _full}


def _replace(layer: nn.Linear, layers: tuple[nn.Linear, ...], precision: str) -> str:
    """Makes a layer low bit, which `layers` lie side by side in. Returns why no kernel serves it, or ""."""
    full = layer.weight
    weight, scale = quantise(full, precision)
    reason = unusable(precision, full.device, full.dtype, *full.shape)
    layer.weight = nn.Parameter(weight, False)
    layer.forward = LowBitProduct(weight, scale, layer.bias, precision, not reason)  # type: ignore[method-assign, assignment]
    sizes = [part.out_features for part in layers]
    for part, w, s in zip(layers, weight.split(sizes), scale.split(sizes), strict=True):
        part.weight = nn.Parameter(w, False)
        part.register_buffer("weight_scale", s)
    return reason


def quantise(x: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Rows `(M, K)` in 8 bits, and each one's scale, float32 `(M, 1)`, by which they are to be multiplied."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp_min(LEAST) / TOPS[precision]
    scaled = wide * (1 / scale)
    return (scaled.round() if precision == "int8" else scaled).to(PRECISIONS[precision]), scale


class LowBitProduct:
    """What a low-bit layer computes, `(…, in)` to `(…, out)`, both in one number type.

    `weight` `(out, in)` in 8 bits, `scale` float32 `(out, 1)`. `fast`: by kernels, else by the twin.
    """

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, precision: str, fast: bool = False
    ) -> None:
        self._given = weight, scale, bias
        self._precision = precision
        kernels = {"fp8": _fp8_product, "int8": _int8_product}
        self._product = kernels[precision] if fast else None

    def of(self, weight: Tensor) -> "LowBitProduct":
        """The same of a weight that lies elsewhere."""
        return LowBitProduct(weight, *self._given[1:], self._precision, self._product is not None)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self._product is None:
            found = twin(rows, *self._given, self._precision)
        else:
            found = self._product(rows, *self._given)
        return found.view(*x.shape[:-1], -1)


def twin(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, precision: str) -> Tensor:
    """The product of rows `(M, K)`, as any device computes it: what kernels are compared with."""
    rows, by_row = quantise(x, precision)
    # float32 holds the sums of up to 1,040 such whole numbers exactly, float64 all that there can be.
    wide = torch.float64 if precision == "int8" else torch.float32
    return _rescaled((rows.to(wide) @ weight.to(wide).t()).float(), by_row, scale, bias, x.dtype)


def _rescaled(
    found: Tensor, by_row: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    found = found.float() * by_row * scale.t()
    return (found if bias is None else found + bias.float()).to(dtype)


def _fp8_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    rows, by_row = quantise_fast(x, "fp8")
    if _scales_rows(x.device):
        return _scaled(rows, weight, by_row, scale.t(), bias)
    one = by_row.new_ones(())
    return _rescaled_fast(_scaled(rows, weight, one, one, None), by_row, scale, bias, x.dtype)


def _scaled(rows: Tensor, weight: Tensor, by_row: Tensor, by_column: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch._scaled_mm(
        rows, weight.t(), by_row, by_column, bias, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return found


@cache
def _scales_rows(device: torch.device) -> bool:
    """Whether an fp8 product can scale its rows and columns itself: not with every cuBLAS."""
    rows = torch.zeros((48, 64), dtype=PRECISIONS["fp8"], device=device)
    scale = torch.ones((48, 1), device=device)
    try:
        _scaled(rows, rows, scale, scale.t(), torch.zeros(48, dtype=torch.bfloat16, device=device))
    except (RuntimeError, ValueError):
        return False
    return True


def _int8_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    rows, by_row = quantise_fast(x, "int8")
    count = len(rows)
    if count < FEWEST_ROWS:
        rows = F.pad(rows, (0, 0, 0, FEWEST_ROWS - count))
    return _rescaled_fast(torch._int_mm(rows, weight.t())[:count], by_row, scale, bias, x.dtype)


def _rescaled_fast(
    found: Tensor, by_row: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`_rescaled`, in one pass where there is Triton."""
    if not _fused(found):
        return _rescaled(found, by_row, scale, bias, dtype)
    from playhead.world.low_bit_kernels import rescale

    return rescale(found, by_row, scale, bias, dtype)


def quantise_fast(x: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """`quantise`, in one pass over the rows where there is Triton: it takes as long as the product else."""
    if not _fused(x):
        return quantise(x, precision)
    from playhead.world.low_bit_kernels import quantise_rows

    return quantise_rows(x.contiguous(), PRECISIONS[precision], TOPS[precision], LEAST)


def _fused(x: Tensor) -> bool:
    return x.device.type == "cuda" and _has_triton()


@cache
def _has_triton() -> bool:
    try:
        import playhead.world.low_bit_kernels  # noqa: F401  (whether it can be loaded)
    except (ImportError, RuntimeError):
        return False
    return True


@cache
def unusable(precision: str, device: torch.device, dtype: torch.dtype, out: int, inside: int) -> str:
    """Why kernels cannot serve a layer `(out, in)` on a device in a number type; "" where they can.

    They are compared with the twin on random numbers.
    """
    if device.type != "cuda":
        return f"there are kernels for NVIDIA GPUs alone, and this is {device.type}"
    if precision == "fp8" and torch.cuda.get_device_capability(device) < (8, 9):
        return f"{torch.cuda.get_device_name(device)} does not multiply fp8"
    if precision == "fp8" and dtype != torch.bfloat16:
        return f"its kernels give bfloat16, and the world is in {str(dtype).removeprefix('torch.')}"
    if out % 16 or inside % 16:
        return f"its kernels want sizes of a multiple of 16, not {inside} to {out}"
    draw = torch.Generator(device).manual_seed(0)
    x, full = (torch.randn(n, inside, generator=draw, device=device).to(dtype) for n in (48, out))
    weight, scale = quantise(full, precision)
    wanted = twin(x, weight, scale, full[:, 0], precision).float()
    try:
        found = LowBitProduct(weight, scale, full[:, 0].contiguous(), precision, True)(x).float()
    except Exception as problem:  # Triton and its compiler raise whatever they like
        return f"its kernel fails ({next(iter(str(problem).splitlines()), type(problem).__name__)})"
    error = float((found - wanted).abs().sum() / wanted.abs().sum())
    return (
        "" if error <= LIMIT else f"its kernel is wrong: relative L1 error {error:.4f} from {inside} to {out}"
    )
