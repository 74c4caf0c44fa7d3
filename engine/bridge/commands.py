"""The `serve` and `keys` commands of the command line."""

import contextlib
import ctypes
import sys
from pathlib import Path
from typing import Annotated

import typer

from playhead.world.options import Cache, Decoder, Device, Precision, Ram, Vram

ADDRESS = "tcp://127.0.0.1:7770"
"""Where a bridge listens unless it is told otherwise."""
M_ARENA_MAX, HEAPS = -8, 2
"""A parameter of glibc's `mallopt`, and the heaps that the threads of a server share."""

app = typer.Typer(no_args_is_help=True, help="Keys, by which machines trust each other.")


@app.callback()
def keys() -> None:
    """Keys, by which machines trust each other."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Whose keys: server, laptop, …")],
    out: Annotated[Path, typer.Option(help="Folder for both files.")] = Path(),
) -> None:
    """Make a key pair: NAME.key to give away, NAME.key_secret to keep."""
    from playhead.engine.bridge.wire.auth import new_keys

    public, secret = new_keys(name, out)
    typer.echo(f"public key (give it away)  {public}")
    typer.echo(f"secret key (keep it)       {secret}")


def serve(
    bind: Annotated[str, typer.Option(help="Where to listen; port * takes a free one.")] = ADDRESS,
    frames_port: Annotated[int | None, typer.Option(help="Port of the frames, else the next.", min=1)] = None,
    world: Annotated[list[str] | None, typer.Option(help="Worlds to offer; default: freedoom.")] = None,
    scene: Annotated[list[Path] | None, typer.Option(help="Folders of further scenes.")] = None,
    key: Annotated[Path | None, typer.Option(help="The server's .key_secret.")] = None,
    clients: Annotated[Path | None, typer.Option(help="Folder of the clients' public keys.")] = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    sessions: Annotated[int, typer.Option(help="Sessions at the most.", min=1)] = 16,
    memory: Annotated[int, typer.Option(help="MB of caches and snapshots at the most.", min=1)] = 4096,
    rate: Annotated[int, typer.Option(help="Requests a second of one client at the most.", min=1)] = 5000,
    recordings: Annotated[Path | None, typer.Option(help="Folder that clients may save to.")] = None,
    idle: Annotated[float, typer.Option(help="Seconds until an unused session ends.", min=1)] = 600,
) -> None:
    """Let other programs play: sessions without a window, over ZeroMQ."""
    import gc
    import signal

    _share_heaps()  # before torch begins threads
    from playhead.engine.bridge.server.limits import Limits
    from playhead.engine.bridge.server.registry import Registry
    from playhead.engine.bridge.server.server import MOMENT, Server
    from playhead.engine.bridge.wire.auth import check_address, load_server_keys
    from playhead.world import interrupts
    from playhead.world.offload.memory_budget import MemoryBudget

    trusted = load_server_keys(key, clients)
    check_address(bind, trusted)
    budget = MemoryBudget.parse(vram, ram, memory * 2**20)
    registry = Registry.load(world or ["freedoom"], scene or [], device, precision, decoder, budget, cache)
    limits = Limits(sessions=sessions, memory=memory, rate=rate, idle=idle)
    server = Server(registry, bind, trusted, limits, frames_port, recordings)
    for number in interrupts.ending():
        signal.signal(number, lambda *_: server.stop())
    gc.collect()
    gc.freeze()  # to go through what was loaded takes the collector 0.1 s, in which nobody has a tick
    server.rescue()
    typer.echo(f"serving {', '.join(registry.worlds)} at {server.address}")
    sys.stdout.flush()
    sys.setswitchinterval(MOMENT)  # else one who computes may keep the one who answers waiting for 5 ms
    try:
        server.run()
    finally:
        interrupts.end_at_once()  # a tick that is under way yet would be torn down with the interpreter


def _share_heaps() -> None:
    """Has the threads that are begun from now on share a few heaps, where there is glibc.

    It gives each thread a heap of its own else, and sessions come and go with their threads: what one leaves
    in its heap is of no use to the next.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library has no such parameter
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)
