"""The ranks of a session: processes, each with a device, that compute its passes together.

NCCL carries what they hand each other between GPUs, gloo between processes of a CPU.
"""

import logging
import threading
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

from playhead.world.acceleration import recording

NEVER = timedelta(days=365)
"""A session may stand still for as long as its player likes; a rank that dies is noticed otherwise."""


class Ranks:
    """This process among `size` of them: `rank` counts from 0, which is the one that a session is played in.

    `recordable`: whether what is handed over may be a part of a CUDA graph, once `join` has tried that.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.recordable = False

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

    def swap(self, x: Tensor) -> Tensor:
        """Hands out `x`, contiguous, whose first dimension has an equal part for every rank.

        Returns what each has for this one, in the order of the ranks.
        """
        found = torch.empty_like(x)
        dist.all_to_all_single(_bytes(found), _bytes(x))
        return found

    def gather(self, x: Tensor) -> Tensor:
        """What all ranks have of `x`, contiguous and of one shape: `(ranks, …)`."""
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
        """Ends kernels that wait for a rank that is gone, in a thread: what they leave is worth nothing."""
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
        mine = torch.arange(2 * self.size, device=self.device, dtype=torch.float32) + 100 * self.rank
        wanted = [2 * self.rank + i + 100 * other for other in range(self.size) for i in range(2)]
        if self.swap(mine).tolist() != wanted or self.gather(mine)[-1, 0].item() != 100 * (self.size - 1):
            raise RuntimeError("what ranks hand each other arrives wrong")
        if self.device.type == "cuda":
            self.recordable = self._try_recorded(mine, wanted)

    def _try_recorded(self, mine: Tensor, wanted: list[int]) -> bool:
        """Whether what is handed around in a CUDA graph arrives; no rank replays one that another has not."""
        graph, found, problem = torch.cuda.CUDAGraph(), mine, ""
        torch.cuda.synchronize(self.device)
        try:
            with recording(graph, self.device):
                found = self.swap(mine)
        except RuntimeError as error:
            problem = str(error)
        right = self.agree(not problem)
        if right:
            for _ in range(2):
                graph.replay()
            torch.cuda.synchronize(self.device)
            right = self.agree(found.tolist() == wanted)
        if not right:
            said = "passes of several GPUs are not recorded as CUDA graphs, and slower for it"
            logging.getLogger("playhead").warning(f"{said}: {problem or 'another rank cannot'}")
        return right


def _bytes(x: Tensor) -> Tensor:
    """A contiguous tensor as what it is to whoever carries it, of whatever number type."""
    return x.view(torch.uint8)
