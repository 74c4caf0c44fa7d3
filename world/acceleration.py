"""What a device can do for speed: number type, cores, and CUDA graphs of the tick path."""

import logging
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from playhead.world.errors import WorldError

if TYPE_CHECKING:
    from playhead.world.generator import Generator

Network = TypeVar("Network", bound=nn.Module)
HOST_THREADS = 4
"""Threads of torch's beside a GPU, to which little is left: rope tables, copies."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first CUDA device, or else the CPU. Raises WorldError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise WorldError(f"there is no usable device `{name}` here; try --device cpu") from None
    return device


def pick_devices(names: str | None, one: str = "auto") -> list[str]:
    """The devices of `--devices`: names by commas, or `all` GPUs; none where it is not given.

    Raises WorldError for a device that is not there, and beside a `--device` (`one`) that is not `auto`.
    """
    if names is None:
        return []
    if one != "auto":
        raise WorldError("--device and --devices contradict each other; leave one out")
    if names == "all":
        if not torch.cuda.device_count():
            raise WorldError("--devices all needs an NVIDIA GPU, and there is none here; leave it out")
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    found = [name.strip() for name in names.split(",")]
    if not all(found):
        raise WorldError(f"--devices {names} is no list of devices, such as cuda:0,cuda:1")
    for name in found:
        pick_device(name)
    return found


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32 (emulated bfloat16 is slower than float32).

    A processor counts for what torch may use of it: `ATEN_CPU_CAPABILITY=avx2` makes it an older one.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    whole = torch.backends.cpu.get_cpu_capability() not in ("AVX2", "DEFAULT", "NO AVX")
    native = (
        device.type == "cpu"
        and whole
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )
    return torch.bfloat16 if native else torch.float32


def tick_threads(halves: bool, dtype: torch.dtype, ranks: int = 1) -> int:
    """How many threads of torch's make a tick fastest: as many as cores, or half that, if it has `halves`.

    A commit pass and a decode do not depend on each other and run side by side, each on half of the cores. A
    processor that multiplies tiles of `dtype` is done with a layer before a second core has joined in: one
    core of it is nearly as fast as two, and no other program can hold it up. Each of `ranks`, which are
    processes of one machine, has its share.
    """
    if halves:
        return max(1, cores() // 2)
    count = 1 if dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported() else cores()
    return max(1, count // ranks)


def host_threads(decodes: bool, ranks: int = 1) -> int:
    """The same where another device dreams: a few, or a rank's share of the cores if the processor `decodes`.

    Two processes that each have a thread a core wait for each other, on an H200's host for 0.25 s a tick.
    """
    share = max(1, cores() // ranks)
    return share if decodes else min(HOST_THREADS, share)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch has so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pack(layers: Sequence[nn.Linear], rows: int, each_time: bool = False) -> None:
    """Has layers multiply from weights laid out as the CPU's kernels want them, for inputs of about `rows`.

    Torch lays them out anew in every call otherwise, which takes a quarter of the time in bfloat16 and more
    than half in float32. The parameters stay as they are; the copy costs their memory once more. Nothing is
    done where torch was built without these kernels, or the processor cannot run them in the layers' type.

    `each_time`: they are laid out in every call after all, by the same kernels and so to the same numbers,
    and nothing is kept: for weights that come and go.
    """
    kernels = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(kernels, "_reorder_linear_weight")):
        return
    for layer in layers:
        try:
            weight = kernels._reorder_linear_weight(layer.weight.detach(), rows)
        except RuntimeError:  # bfloat16 on a processor without instructions for it
            return
        if each_time:
            layer.forward = partial(_lay_out_and_multiply, layer, rows)  # type: ignore[method-assign]
            continue
        layer.forward = partial(  # type: ignore[method-assign]  # of this layer alone
            kernels._linear_pointwise, W=weight, B=layer.bias, attr="none", scalars=[], algorithm=""
        )


def _lay_out_and_multiply(layer: nn.Linear, rows: int, x: Tensor) -> Tensor:
    kernels = torch.ops.mkldnn
    weight = kernels._reorder_linear_weight(layer.weight.detach(), rows)
    found: Tensor = kernels._linear_pointwise(x, weight, layer.bias, "none", [], "")
    return found


def channels_innermost(model: Network, device: torch.device, dtype: torch.dtype | None = None) -> Network:
    """Moves a network, its convolutions' weights with their channels innermost, which is a quarter faster."""
    model.to(device, dtype)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in model.parameters():
        if weight.ndim in formats:
            weight.data = weight.data.to(memory_format=formats[weight.ndim])
    return model


def compile_blocks(*models: "Generator") -> None:
    """Has the blocks of generators compiled, each when it first runs.

    One function serves them all, and is compiled anew for every shape, number type and kind of gradient that
    comes by; torch gives up after eight of those, which a distillation has by its third pass.
    """
    torch._dynamo.config.recompile_limit = 64
    for model in models:
        for block in model.blocks:
            block.compile(dynamic=False)


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def recording(
    graph: "torch.cuda.CUDAGraph",
    device: torch.device,
    pool: Any = None,  # noqa: ANN401 - torch has a type of its own for it
) -> Iterator[None]:
    """Records what is done meanwhile on a GPU, whichever one is this thread's own."""
    with torch.cuda.device(device):
        stream = _stream(torch.cuda.current_device())
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            yield


@lru_cache
def _stream(index: int) -> "torch.cuda.Stream":
    """The one that graphs of a GPU are recorded on: torch's own is that of the first GPU that needs one."""
    return torch.cuda.Stream(index)


class Graphs:
    """CUDA graphs by key: the first run of a key is eager, the second records, later ones replay.

    A key has to name everything that changes which memory a run touches (cache slots, sizes). On other
    devices every run is eager, and so it is from then on where a kernel turns out not to be recordable.
    """

    def __init__(self, device: torch.device, wanted: bool = True) -> None:
        self.enabled = wanted and device.type == "cuda"
        self.device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self.failure = ""  # why nothing is recorded any more
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None

    def run(self, key: Hashable, work: Callable[[], object]) -> None:
        if not self.enabled:
            work()
            return
        graph = self._graphs.get(key)
        if graph is not None:
            graph.replay()
        elif key not in self._graphs:
            self._graphs[key] = None
            work()
        else:
            graph = torch.cuda.CUDAGraph()
            try:  # other threads, which wait for frames of their own, are nobody's business here
                with recording(graph, self.device, self._pool):
                    work()
            except RuntimeError as error:
                self.enabled, self.failure = False, str(error)
                said = f"ticks are not recorded as CUDA graphs, and slower for it: {error}"
                logging.getLogger("playhead").warning(said)
                self._graphs.clear()
                work()
                return
            self._graphs[key] = graph
            graph.replay()

    @property
    def recorded(self) -> int:
        """How many graphs there are."""
        return sum(graph is not None for graph in self._graphs.values())
