"""The machine that is measured, and how times are told. Needs no window."""

import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from playhead.engine.stats import percentile


def device_memory(device: torch.device) -> float | None:
    """The most memory that torch has had on a CUDA device since play began, in MB; None elsewhere."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def hardware(device: torch.device) -> str:
    """The machine in a line."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return f"{len(names)} x {names[0]}"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def resident_memory() -> float | None:
    """The most memory that this process has had in main memory, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The most operations a second that this device was seen to do: products of large square matrices."""
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _shortest(lambda: torch.mm(a, b), device)


def attention_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The same of attention: many queries of 12 heads of 128 that read many keys, by torch's own choice."""
    queries, keys = (8192, 16384) if device.type == "cuda" else (256, 1024)
    q, k, v = (torch.randn(1, 12, n, 128, device=device, dtype=dtype) for n in (queries, keys, keys))
    work = partial(torch.nn.functional.scaled_dot_product_attention, q, k, v)
    return 4 * 12 * queries * keys * 128 / _shortest(work, device)


def _shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one of ten in a row, the shortest of four times."""
    best = float("inf")
    for _ in range(4):  # the first finds everything cold
        began = time.perf_counter()
        for _ in range(10):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - began) / 10)
    return best


def spread(times: Sequence[float], digits: int = 1) -> str:
    """p50 / p95 / p99 in milliseconds."""
    found = (percentile(times, p) for p in (50, 95, 99))
    return " / ".join("-" if t is None else f"{1000 * t:.{digits}f}" for t in found)
