"""A world on several GPUs: its processes are started, or found where torchrun started them."""

import atexit
import multiprocessing
import os
import pickle
import secrets
import tempfile
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from playhead.engine.parallel.follower import follow, follow_by
from playhead.engine.parallel.leader import Leader, lead
from playhead.world import acceleration, interrupts
from playhead.world.errors import WorldError
from playhead.world.parallel.ranks import Ranks
from playhead.world.world import World
from playhead.world.world_folders import find_world

MOST = 64
"""Ranks of a session."""
_latest: tuple[object, World] | None = None
"""The world that this process plays with other ranks, and how it was loaded."""


def load_world(name: str | Path, gpus: int | None = None, device: str = "auto", **settings: Any) -> World:  # noqa: ANN401 - those of World.load
    """Loads a world as `World.load` does, on `gpus` GPUs of this machine, from the first one on.

    With `device="cpu"` so many processes of the CPU take their place. Where torchrun started this process and
    it is not the first, it plays along with the first until that ends, and this never returns. Torch has
    this process's share of the cores from then on (`World.share_cores`): ranks that all take all of them keep
    each other waiting. Raises as `World.load`, and WorldError for GPUs that are not there and for what does
    not go with several. A process has one such world: to load it once more returns it, and another one is
    refused.
    """
    global _latest
    if gpus is None or gpus == 1:
        return World.load(name, device, **settings)
    _check(gpus, device, settings)
    asked = str(name), gpus, device, settings
    if _latest is not None:
        if _latest[0] != asked:
            raise WorldError("this process plays a world on several GPUs already; load the other in its own")
        return _latest[1]
    kind = acceleration.pick_device(device).type
    if (kind == "cuda" and torch.cuda.device_count() < gpus) or kind not in ("cuda", "cpu"):
        raise WorldError(_too_few(gpus, kind))
    if kind == "cpu" and device == "auto":
        raise WorldError(_too_few(gpus, kind))
    _set_libraries("TORCHELASTIC_RUN_ID" not in os.environ)
    leader = _find(gpus, kind) if "TORCHELASTIC_RUN_ID" in os.environ else _start(gpus, kind)
    try:
        world = World.load(name, str(leader.ranks.device), **settings, ranks=leader.ranks)
        # Numbers hang on what was found right and fast here, so all ranks take that.
        told = {**settings, "decoder_device": None, "fused": world.fused.fused if kind == "cuda" else None}
        if kind == "cuda" and settings.get("cache") is None and world.split is not None:
            told["attention"] = world.attention if world.split.by_heads else None
        leader.load(str(find_world(name)), told)
        leader.loaded()
    except BaseException:
        leader.close()
        raise
    lead(world, leader)
    world.share_cores()  # the others have theirs
    _latest = asked, world
    atexit.register(leader.close)
    if kind == "cuda":
        interrupts.end_at_once(leader.close)  # NCCL would wait for graphs that hold on to it
    return world


def _check(gpus: int, device: str, settings: dict[str, Any]) -> None:
    if not 1 <= gpus <= MOST:
        raise WorldError(f"--gpus is a number from 1 to {MOST}, not {gpus}")
    if settings.get("budget") is not None:
        raise WorldError("--vram and --ram do not go with --gpus; leave one of them out")
    if ":" in device:
        raise WorldError(f"--gpus takes GPUs from the first one on, so leave out --device {device}")


def _too_few(gpus: int, kind: str) -> str:
    there = torch.cuda.device_count() if kind == "cuda" else 0
    return (
        f"--gpus {gpus} needs {gpus} NVIDIA GPUs, and there {'is' if there == 1 else 'are'} "
        f"{there or 'none'} here; take fewer, or --device cpu, where it means processes"
    )


def _device(kind: str, number: int) -> torch.device:
    return torch.device(kind, number) if kind == "cuda" else torch.device(kind)


def _start(gpus: int, kind: str) -> Leader:
    """Starts a process for each rank but the first, which is this one."""
    folder = Path(tempfile.mkdtemp(prefix="playhead-ranks-"))
    store = str(folder / "store")
    spawn = multiprocessing.get_context("spawn")
    ranks = Ranks(0, gpus, _device(kind, 0))
    leader = Leader(ranks, folder)
    try:
        for rank in range(1, gpus):
            here, there = spawn.Pipe()
            given = rank, gpus, str(_device(kind, rank)), store, there
            process = spawn.Process(target=follow, args=given, name=f"rank {rank}", daemon=True)
            process.start()
            there.close()
            leader.add(here, process)
        leader.ready()
        ranks.join(FileStore(store, gpus))
    except BaseException:
        leader.close()
        raise
    return leader


def _find(gpus: int, kind: str) -> Leader:
    """The followers that torchrun started; if this is one of them, it follows."""
    size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if size != gpus or int(os.environ.get("LOCAL_WORLD_SIZE", size)) != size:
        raise WorldError(f"--gpus {gpus} needs as many processes of one machine; torchrun started {size}")
    ranks = Ranks(rank, size, _device(kind, rank))
    ranks.join()
    store = dist.distributed_c10d._get_default_store()
    if rank:
        address, key = pickle.loads(bytes.fromhex(store.get("playhead").decode()))
        follow_by(ranks, Client(address, authkey=key))
    key = secrets.token_bytes(32)
    leader = Leader(ranks)
    with Listener(("127.0.0.1", 0), authkey=key) as listener:
        store.set("playhead", pickle.dumps((listener.address, key)).hex())
        for _ in range(1, size):
            leader.add(listener.accept())
    leader.ready()
    return leader


def _set_libraries(here: bool) -> None:
    """Tells NCCL and gloo what they are needed for, unless somebody wants it otherwise.

    A rank's end is noticed by the leader, which has a sentence for it; torch's own watch would abort the
    program. Multicast serves sums over many GPUs, of which there are none. `here`: ranks are started on this
    machine, so they need no other network than that within it.
    """
    wanted = {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
        "TORCH_NCCL_ENABLE_MONITORING": "0",
        "NCCL_NVLS_ENABLE": "0",
        "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    }
    if here and os.path.exists("/sys/class/net/lo"):
        wanted |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
