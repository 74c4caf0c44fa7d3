"""The ranks of a session: processes, each with a device, that compute its passes together.

Between GPUs what they hand each other is written into each other's memory (`world.parallel.peer_memory`) or
carried by NCCL, whichever is faster there; gloo carries it between processes of a CPU.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

from playhead.world.acceleration import recording
from playhead.world.parallel.peer_memory import PeerMemory, SymmetricMemory, allocate
from playhead.world.timing import COUNT

NEVER = timedelta(days=365)
"""A session may stand still for as long as its player likes; a rank that dies is noticed otherwise."""
TRIED = 2**21
"""Bytes of what is handed around to see which way is faster: about what a layer's attention needs."""
TIMES = 10
"""How often it is then, in a row."""


class Ranks:
    """This process among `size` of them: `rank` counts from 0, which is the one that a session is played in.

    `recordable`: whether what is handed over may be a part of a CUDA graph, once `join` has tried that.
    `finding`: which way it goes then, in words.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.recordable = False
        self._peers: PeerMemory | None = None
        self.finding = ""

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size} ({self.device})"

    def join(self, store: Store | None = None) -> None:
        """Waits for all ranks, who meet in `store` (None: where torchrun says), and tries the way to them.

        Raises RuntimeError where they cannot hand each other anything.
        """
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            timeout=NEVER,
            store=store,
            rank=-1 if store is None else self.rank,
            world_size=-1 if store is None else self.size,
            device_id=self.device if cuda else None,
        )
        self._try()

    def swap(self, x: Tensor, slot: str) -> Tensor:
        """Hands out `x`, contiguous, whose first dimension has an equal part for every rank.

        Returns what each has for this one, in the order of the ranks. `slot`: where it lies until the next
        exchange there, and when it is to be read (`PeerMemory`).
        """
        if self._peers is not None and (there := self._peers.swap(x, slot)) is not None:
            return there
        found = torch.empty_like(x)
        dist.all_to_all_single(_bytes(found), _bytes(x))
        return found

    def gather(self, x: Tensor, slot: str) -> Tensor:
        """What all ranks have of `x`, contiguous and of one shape: `(ranks, …)`; `slot` as of `swap`."""
        if self._peers is not None and (there := self._peers.gather(x, slot)) is not None:
            return there
        found = x.new_empty((self.size, *x.shape))
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its older name
        gather(_bytes(found.flatten(0, 1)), _bytes(x))
        return found

    def collect(self, x: Tensor) -> list[Tensor] | None:
        """The same at the first rank alone; None at the others."""
        parts = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(_bytes(x), None if parts is None else [_bytes(part) for part in parts])
        return parts

    def deal(self, parts: list[Tensor] | None, into: Tensor) -> None:
        """Has each rank take its part, of those that the first one has, `into` a tensor of that shape."""
        dist.scatter(_bytes(into), None if parts is None else [_bytes(part) for part in parts])

    def share(self, x: Tensor) -> None:
        """Overwrites `x` by what the first rank has of it."""
        dist.broadcast(_bytes(x), 0)

    def agree(self, mine: bool) -> bool:
        """Whether all ranks say so."""
        said = torch.tensor([int(mine)], device=self.device)
        dist.all_reduce(said, dist.ReduceOp.MIN)
        return bool(said.item())

    def abort(self) -> None:
        """Ends kernels of NCCL that wait for a rank that is gone, in a thread; their result is worth nothing.

        A barrier between the GPUs' memories ends with the program alone.
        """
        if self.device.type == "cuda":
            threading.Thread(target=self._abort, daemon=True).start()

    def _abort(self) -> None:
        try:
            group = dist.group.WORLD
            assert group is not None
            group._get_backend(self.device).abort()
        except Exception as error:  # the program ends all the same
            logging.getLogger("playhead").debug("ranks cannot be aborted: %s", error)

    def _try(self) -> None:
        """Hands numbers around as play will, also recorded; first contact is never made in a graph."""
        if not self._right():
            raise RuntimeError("what ranks hand each other arrives wrong")
        if self.device.type == "cuda":
            self._choose()
            self.recordable = self._try_recorded()
            log = logging.getLogger("playhead")
            log.debug("ranks hand over by %s", self.finding)
            if not self.recordable:
                log.warning("passes of several GPUs are not recorded as CUDA graphs, and slower for it")

    def _right(self) -> bool:
        """Whether what is handed around arrives."""
        mine, wanted = self._numbers()
        handed = self.swap(mine, "tried").tolist() == wanted
        return self.gather(mine, "all tried")[-1, 0].item() == 100 * (self.size - 1) and handed

    def _numbers(self) -> tuple[Tensor, list[int]]:
        """Some of this rank's, and what it has once they are swapped."""
        mine = torch.arange(2 * self.size, device=self.device, dtype=torch.float32) + 100 * self.rank
        return mine, [2 * self.rank + i + 100 * other for other in range(self.size) for i in range(2)]

    def _choose(self) -> None:
        """Goes by the GPUs' memory where that is right and faster, as the first rank finds it."""
        why = self._unreachable()
        if not self.agree(not why):
            self.finding = f"NCCL: GPUs do not reach each other's memory{why and f' ({why})'}"
            return
        x = torch.zeros((self.size, TRIED // self.size), dtype=torch.uint8, device=self.device)
        usual = self._seconds(x)
        self._peers = PeerMemory(self.rank, self.size, lambda count: SymmetricMemory(count, self.device))
        try:
            mine = self._right()
        except Exception as error:
            logging.getLogger("playhead").debug("ranks share no memory: %s", error)
            mine = False
        right = self.agree(mine)
        found = self._seconds(x) if right else float("inf")
        faster = torch.tensor([int(found < usual)], device=self.device)
        self.share(faster)
        if not faster.item():
            self._peers = None
        way = "NCCL" if self._peers is None else "each other's memory"
        times = f"{1e6 * found:.0f} us for {TRIED >> 20} MB, {1e6 * usual:.0f} by NCCL"
        self.finding = f"{way}: {times if right else 'what is written into others arrives wrong'}"

    def _unreachable(self) -> str:
        """Why this rank cannot write into the memory of others, in words; empty where it can."""
        others = [n for n in range(min(self.size, torch.cuda.device_count())) if n != self.device.index]
        if len(others) < self.size - 1:
            return "this process sees its own alone"
        if not all(torch.cuda.can_device_access_peer(self.device, n) for n in others):
            return "the driver says so"
        try:
            allocate(1, self.device)
        except Exception as error:  # torch's way to it is young
            return next(iter(str(error).splitlines()), type(error).__name__)
        return ""

    def _seconds(self, x: Tensor) -> float:
        """What an exchange of `x` takes as a part of a CUDA graph; infinite where it cannot be one."""
        graph = self._record(lambda: [self.swap(x, "timed") for _ in range(TIMES)])
        if not self.agree(graph is not None):
            return float("inf")
        assert graph is not None
        times = []
        for _ in range(1 + COUNT):
            torch.cuda.synchronize(self.device)
            began = time.perf_counter()
            graph.replay()
            torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - began)
        return min(times[1:]) / TIMES

    def _try_recorded(self) -> bool:
        """Whether what is handed around in a CUDA graph arrives."""
        mine, wanted = self._numbers()
        found: list[Tensor] = []
        graph = self._record(lambda: found.append(self.swap(mine, "recorded")))
        if not self.agree(graph is not None):
            return False
        assert graph is not None
        for _ in range(2):
            graph.replay()
        torch.cuda.synchronize(self.device)
        return self.agree(found[-1].tolist() == wanted)

    def _record(self, work: Callable[[], object]) -> "torch.cuda.CUDAGraph | None":
        """A CUDA graph of some work, which has run once before; None where it cannot be one."""
        work()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        try:
            with recording(graph, self.device):
                work()
        except RuntimeError as error:
            logging.getLogger("playhead").debug("an exchange cannot be recorded: %s", error)
            return None
        return graph


def _bytes(x: Tensor) -> Tensor:
    """A contiguous tensor as what it is to whoever carries it, of whatever number type."""
    return x.view(torch.uint8)
