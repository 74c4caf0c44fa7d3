"""The `serve` and `keys` commands of the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.engine.session_options import FurtherScenes, IdleSeconds, MostMemory, MostSessions, Worlds
from playhead.render.web.page_options import BehindProxy, TlsCert, TlsKey, TokenFile
from playhead.world.options import Cache, Decoder, Device, Devices, Precision, Ram, Vram

if TYPE_CHECKING:  # who serves no page needs neither Starlette nor uvicorn
    from playhead.render.web.access import WebAddress
    from playhead.render.web.door import WebDoor

ADDRESS = "tcp://127.0.0.1:7770"
"""Where a bridge listens unless it is told otherwise."""

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
    world: Worlds = None,
    scene: FurtherScenes = None,
    key: Annotated[Path | None, typer.Option(help="The server's .key_secret.")] = None,
    clients: Annotated[Path | None, typer.Option(help="Folder of the clients' public keys.")] = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    devices: Devices = None,
    sessions: MostSessions = 16,
    memory: MostMemory = 4096,
    rate: Annotated[int, typer.Option(help="Requests a second of one client at the most.", min=1)] = 5000,
    recordings: Annotated[Path | None, typer.Option(help="Folder that clients may save to.")] = None,
    idle: IdleSeconds = 600,
    web: Annotated[str | None, typer.Option(help="Also let browsers play: HOST:PORT of the page.")] = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: BehindProxy = False,
    token_file: TokenFile = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Play on session hosts of the Ray at this address; local: of one begun here."),
    ] = None,
    hosts: Annotated[int | None, typer.Option(help="Of --ray; default: one a GPU of it.", min=1)] = None,
    keep: Annotated[
        float | None, typer.Option(help="Seconds from a snapshot that --ray keeps to the next (5).", min=0.1)
    ] = None,
) -> None:
    """Let other programs play: sessions without a window, over ZeroMQ."""
    from playhead.engine.bridge.process import ready_to_serve, serve_until_ended, share_heaps

    share_heaps()  # before torch begins threads
    from playhead.engine.bridge.server.limits import Limits
    from playhead.engine.bridge.server.registry import Registry
    from playhead.engine.bridge.server.server import Server
    from playhead.engine.bridge.wire.auth import check_address, load_server_keys
    from playhead.world.acceleration import pick_devices
    from playhead.world.errors import PlayheadError
    from playhead.world.offload.memory_budget import MemoryBudget

    trusted = load_server_keys(key, clients)
    check_address(bind, trusted)
    if web is None and (tls_cert or tls_key or token_file or behind_proxy):
        raise PlayheadError("--tls-cert, --tls-key, --behind-proxy and --token-file are for --web; add it")
    page: WebAddress | None = None
    if web is not None:
        from playhead.render.web import access

        page = access.web_address(web, tls_cert, tls_key, behind_proxy, token_file)
    limits = Limits(sessions=sessions, memory=memory, rate=rate, idle=idle)
    if ray is not None:
        if web is not None or recordings is not None or devices is not None:
            raise PlayheadError(
                "--web, --recordings and --devices are for one server; leave them out, or --ray"
            )
        from playhead.engine.fleet.fleet_door import serve_fleet
        from playhead.engine.fleet.session_host import HostOptions

        options = HostOptions(
            tuple(world or ["freedoom"]), tuple(path.resolve() for path in scene or []), device, precision,
            decoder, cache, vram, ram, limits, secured=trusted is not None, keep=keep or 5.0,
        )  # fmt: skip
        serve_fleet(ray, options, hosts, bind, trusted, frames_port)
        return
    if hosts is not None or keep is not None:
        raise PlayheadError("--hosts and --keep are for --ray; add it")
    budget = MemoryBudget.parse(vram, ram, memory * 2**20)
    several = pick_devices(devices, device)
    registry = Registry.load(
        world or ["freedoom"], scene or [], device, precision, decoder, budget, cache, several, sessions
    )
    server = Server(registry, bind, trusted, limits, frames_port, recordings)
    door: WebDoor | None = None
    if page is not None:
        from playhead.render.web import door as doors

        door = doors.WebDoor(server, registry, page, limits)
    ready_to_serve(server)
    typer.echo(f"serving {', '.join(registry.worlds)} at {server.address}")
    if registry.devices:
        typer.echo(f"on {', '.join(registry.devices)}")
    for line in registry.findings:
        typer.echo(line)
    if door is not None:
        door.start()
        typer.echo(f"play in a browser: {door.link}")
    sys.stdout.flush()
    try:
        serve_until_ended(server)
    finally:
        if door is not None:
            door.stop()
