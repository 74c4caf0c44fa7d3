"""Several GPUs, one process each, started by `torchrun`; a single process needs none of this."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> tuple[int, int]:
    """Joins the group that torchrun started, if one did. Returns rank and world size."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def average(tensors: Iterable[Tensor]) -> None:
    """Averages tensors over all processes in place, in one transfer."""
    if not dist.is_initialized():
        return
    held = list(tensors)
    flat = torch.cat([t.flatten() for t in held])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(held, flat.split([t.numel() for t in held]), strict=True):
        tensor.copy_(part.view_as(tensor))


def average_gradients(module: nn.Module) -> None:
    """Averages the gradients of a module over all processes."""
    average(p.grad for p in module.parameters() if p.grad is not None)


def share(module: nn.Module) -> None:
    """Gives every process the first one's parameters."""
    if dist.is_initialized():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def highest(values: list[float], device: torch.device) -> list[float]:
    """The highest of each value over all processes."""
    if not dist.is_initialized():
        return values
    votes = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return votes.tolist()
