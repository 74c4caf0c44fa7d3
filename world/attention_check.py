"""Which attention backend a world uses: measured when it loads, on this device, at the world's own shapes.

Each backend that works here is compared with float32 by relative L1 error; the wrong ones are refused by
name, and the fastest right one is taken and remembered in the user's folder. A sparse one, which is never
taken by itself, is compared with float32 under its own mask, and how far it is from dense is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world import remembered
from playhead.world.attention import BACKENDS, FLEX, attention
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.installed_attention import LOW_BIT
from playhead.world.sparse_attention import SPARSE, choose_tiles, mask, sparse_attention
from playhead.world.sparse_rules import HeldSlots, Tiles
from playhead.world.split_attention import FLASH_PARTS, PARTS, likely_parts
from playhead.world.timing import seconds

LIMIT = 0.01
"""Relative L1 error up to which a backend is right: exact kernels have 0.002 to 0.004 in bfloat16."""
LOW_BIT_LIMIT = 0.1
"""The same for one that rounds to 8 or 4 bits, where it is asked for by name: its error is said with it."""
QUERIES = 2048
"""The float32 reference is computed for the first so many queries; keys are all there."""


@dataclass(frozen=True)
class BackendReport:
    """A backend: its relative L1 error against float32 and its time in seconds, or why it cannot be used.

    Of a sparse one the error is that of what it reads; `share` of the keys it reads, and `lost` is its
    relative L1 distance from dense attention.
    """

    backend: str
    error: float = float("inf")
    seconds: float = float("inf")
    reason: str = ""

    limit: float = LIMIT
    share: float = 1.0
    lost: float | None = None

    @property
    def right(self) -> bool:
        return self.error <= self.limit

    def __str__(self) -> str:
        if self.reason:
            return f"{self.backend}: {self.reason}"
        error = f"{self.backend}: relative L1 error {self.error:.4f}"
        if self.lost is not None:
            error += f" of the {self.share:.0%} of keys that it reads ({self.lost:.2f} from dense)"
        return f"{error}, " + (
            f"{self.seconds * 1000:.2f} ms" if self.right else f"refused above {self.limit:g}"
        )


def measure(
    q: Tensor, k: Tensor, v: Tensor, backend: str, limit: float = LIMIT, timed: bool = True
) -> BackendReport:
    """Compares a backend with float32 and, if it is right and to be `timed`, times it. Raises nothing.

    Once with the keys of a single block, as in a session's first tick, and once with all: what a kernel reads
    beyond the last key weighs most where there are few.
    """
    before = k.clone()
    error = 0.0
    for end in sorted({min(q.shape[2], k.shape[2]), k.shape[2]}):
        keys, values = k[:, :, :end], v[:, :, :end]
        try:
            found = attention(q, keys, values, backend=backend)[:, :, :QUERIES].float()
        except Exception as problem:  # of a library's own kinds, where it cannot compile a kernel
            return BackendReport(backend, reason=_first_line(problem))
        if not torch.equal(k, before):
            return BackendReport(backend, reason="it writes to the keys it is given")
        wanted = F.scaled_dot_product_attention(q[:, :, :QUERIES].float(), keys.float(), values.float())
        part = float((found - wanted).abs().sum() / wanted.abs().sum())
        error = max(error, part) if part == part else float("inf")
    taken = float("inf")
    if timed and error <= limit:
        taken = seconds(lambda: attention(q, k, v, backend=backend), q.device)
    return BackendReport(backend, error, taken, limit=limit)


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)


def measure_sparse(
    q: Tensor, k: Tensor, v: Tensor, backend: str, tokens: int, limit: float = LIMIT
) -> BackendReport:
    """The same of a sparse backend, in frames of `tokens`; of a full ring the newest frame is in the middle.

    What is lost against dense attention is that of these inputs: random ones say little of trained layers.
    """
    before = k.clone()
    error, share, lost = 0.0, 1.0, 0.0
    own, slots = q.shape[2] // tokens, k.shape[2] // tokens
    newest = max(own, slots // 2) - 1
    full = HeldSlots(
        tokens,
        tuple((slot - newest - 1) % slots for slot in range(slots)),
        tuple(range(newest - own + 1, newest + 1)),
        slots,
    )
    for held in (HeldSlots(tokens, tuple(range(own)), tuple(range(own)), slots), full):
        end = len(held.places) * tokens
        keys, values = k[:, :, :end], v[:, :, :end]
        try:
            found = sparse_attention(q, keys, values, backend, held)[:, :, :QUERIES].float()
        except Exception as problem:
            return BackendReport(backend, reason=_first_line(problem))
        if not torch.equal(k, before):
            return BackendReport(backend, reason="it writes to the keys it is given")
        part, share, lost = _sparse_errors(found, q, keys, values, backend, held)
        error = max(error, part) if part == part else float("inf")
    right = error <= limit
    taken = float("inf")
    if right:
        taken = seconds(lambda: sparse_attention(q, k, v, backend, full), q.device)
    return BackendReport(backend, error, taken, limit=limit, share=share, lost=lost)


def _sparse_errors(
    found: Tensor, q: Tensor, k: Tensor, v: Tensor, backend: str, held: HeldSlots
) -> tuple[float, float, float]:
    """Its error under its mask, the share of keys it reads and its distance from dense, head by head."""
    tiles = choose_tiles(q, k, backend, held)
    sums = torch.zeros(5, device=q.device)
    for head in range(q.shape[1]):
        own = Tiles(*(x[:, min(head, x.shape[1] - 1), None] for x in tiles))
        read = mask(own, held, found.shape[2])
        given = (q[:, head, None, :QUERIES].float(), k[:, head, None].float(), v[:, head, None].float())
        here = found[:, head, None]
        wanted, dense = (F.scaled_dot_product_attention(*given, attn_mask=m) for m in (read, None))
        parts = (here - wanted, wanted, here - dense, dense, read.float())
        sums += torch.stack([part.abs().mean() for part in parts])
    error, size, lost, dense_size, share = sums.tolist()
    return error / size, share / q.shape[1], lost / dense_size


def shapes(config: WorldConfig, tokens: int, shares: int = 1) -> tuple[int, int, int, int]:
    """Heads, queries, keys and head size of a pass with a full window, of one of so many shares of heads."""
    g, sampling = config.generator, config.sampling
    return g.heads // shares, sampling.latents_per_tick * tokens, sampling.window * tokens, g.head_dim


def draw_inputs(
    config: WorldConfig, tokens: int, device: torch.device, dtype: torch.dtype, shares: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of that shape. Keys have a mean and are views of a cache, as in play."""
    heads, queries, keys, size = shapes(config, tokens, shares)
    draw = torch.Generator(device).manual_seed(0)
    q = torch.randn((1, heads, queries, size), generator=draw, device=device).to(dtype)
    kv = torch.randn((2, 1, heads, keys + 64, size), generator=draw, device=device).add_(0.5).to(dtype)
    k, v = kv[..., :keys, :].unbind()
    return q, k, v


@dataclass(frozen=True)
class BackendChoice:
    """The backend that a world uses, None for the device's usual way, and what was found of each.

    `findings`: a sentence a backend, in the words of `BackendReport`; the wrong ones are refused in it.
    """

    backend: str | None
    findings: tuple[str, ...] = ()


def examine(
    config: WorldConfig,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    backends: Sequence[str] = BACKENDS,
    shares: int = 1,
) -> list[BackendReport]:
    """What is found of backends at a world's shapes on a device: the right ones first, by speed."""
    given = draw_inputs(config, tokens, device, dtype, shares)
    findings = [
        measure_sparse(*given, backend, tokens) if backend in SPARSE else measure(*given, backend)
        for backend in backends
    ]
    del given
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the plain kernel needs more memory than play ever will
    return sorted(findings, key=lambda finding: (not finding.right, finding.seconds))


def worth_trying(config: WorldConfig, tokens: int, device: torch.device, shares: int = 1) -> tuple[str, ...]:
    """The backends that a world on a GPU chooses from: each takes a good part of a second to try.

    Of keys in parts those that are likely to be the fastest.
    """
    heads, queries, _, _ = shapes(config, tokens, shares)
    count = torch.cuda.get_device_properties(device).multi_processor_count
    likely = likely_parts(queries, heads, count)
    unlikely = {name for name, parts in {**PARTS, **FLASH_PARTS}.items() if parts not in likely}
    return tuple(backend for backend in BACKENDS if backend not in unlikely)


def choose_backend(
    config: WorldConfig,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    wanted: str | None = None,
    shares: int = 1,
) -> BackendChoice:
    """The backend for a world on a device: `wanted` if that is right, else the fastest right one.

    `shares`: on how many devices its heads are, a part on each.

    What was found is remembered; later only the one that was taken is compared again. Outside CUDA there is
    nothing to choose. Raises WorldError for a backend that is wrong or cannot be used here.
    """
    if wanted is not None:
        named = (*BACKENDS, FLEX, *SPARSE)
        if wanted not in named:
            raise WorldError(f"there is no attention `{wanted}`; there are {', '.join(named)}")
        given = draw_inputs(config, tokens, device, dtype, shares)
        if wanted in SPARSE:
            finding = measure_sparse(*given, wanted, tokens)
        else:
            finding = measure(*given, wanted, LOW_BIT_LIMIT if wanted in LOW_BIT else LIMIT)
        if not finding.right:
            raise WorldError(f"--attention {wanted} is refused here: {finding}; leave it out")
        return BackendChoice(wanted, (str(finding),))
    if device.type != "cuda":
        return BackendChoice(None)
    memory = remembered.note("attention.json")
    key = _key(config, tokens, device, dtype, shares)
    known = _known(memory)
    before = known.get(key)
    if before is not None and before.backend is not None:
        finding = measure(*draw_inputs(config, tokens, device, dtype, shares), before.backend, timed=False)
        if finding.right:
            return before
    findings = examine(config, tokens, device, dtype, worth_trying(config, tokens, device, shares), shares)
    best = findings[0].backend if findings[0].right else "math"
    choice = BackendChoice(best, tuple(map(str, findings)))
    remembered.write(memory, {**known, key: choice})
    return choice


def _key(config: WorldConfig, tokens: int, device: torch.device, dtype: torch.dtype, shares: int) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    sizes = "x".join(map(str, shapes(config, tokens, shares)))
    return f"{name}, torch {torch.__version__}, {dtype}, {sizes}, of {' '.join(BACKENDS)}"


def _known(path: Path | None) -> dict[str, BackendChoice]:
    """The choices that were kept, of backends that there still are."""
    found = remembered.read(path, BackendChoice)
    return {key: choice for key, choice in found.items() if choice.backend in BACKENDS}
