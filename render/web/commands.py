"""The `web` command of the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.world.options import Cache, Decoder, Device, Precision, Ram, Vram

if TYPE_CHECKING:
    from playhead.render.web.access import WebAddress

PAGE_ADDRESS = "127.0.0.1:7780"
"""Where the page is served unless it is told otherwise."""


def web(
    world: Annotated[list[str] | None, typer.Option(help="Worlds to offer; default: freedoom.")] = None,
    scene: Annotated[list[Path] | None, typer.Option(help="Folders of further scenes.")] = None,
    bind: Annotated[str, typer.Option(help="HOST:PORT of the page; port * takes a free one.")] = PAGE_ADDRESS,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="The page's certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="A proxy sees to TLS.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Where the page's token is kept, else a new one each time.")
    ] = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    sessions: Annotated[int, typer.Option(help="Sessions at the most.", min=1)] = 16,
    memory: Annotated[int, typer.Option(help="MB of caches and snapshots at the most.", min=1)] = 4096,
    rate: Annotated[int, typer.Option(help="Requests a second of one page at the most.", min=1)] = 5000,
    recordings: Annotated[
        Path | None, typer.Option(help="Folder for recordings, else the usual one.")
    ] = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="Record nothing; no way back then.")] = False,
    idle: Annotated[float, typer.Option(help="Seconds until an unused session ends.", min=1)] = 600,
) -> None:
    """Play a world in a browser."""
    from playhead.engine.bridge.process import ready_to_serve, serve_until_ended, share_heaps

    share_heaps()  # before torch begins threads
    from playhead.engine.bridge.server.limits import Limits
    from playhead.engine.bridge.server.registry import Registry
    from playhead.engine.bridge.server.server import Server
    from playhead.render.web.access import web_address
    from playhead.render.web.door import WebDoor
    from playhead.world.errors import PlayheadError
    from playhead.world.offload.memory_budget import MemoryBudget

    if recordings is not None and no_record:
        raise PlayheadError("--recordings and --no-record contradict each other; leave one out")
    address = web_address(bind, tls_cert, tls_key, behind_proxy, token_file)
    folder = None if no_record else recordings or usual_folder()
    budget = MemoryBudget.parse(vram, ram, memory * 2**20)
    registry = Registry.load(world or ["freedoom"], scene or [], device, precision, decoder, budget, cache)
    limits = Limits(sessions=sessions, memory=memory, rate=rate, idle=idle)
    server = Server(registry, None, limits=limits, recordings=folder)
    door = WebDoor(server, registry, address, limits)
    ready_to_serve(server)
    door.start()
    typer.echo(f"serving {', '.join(registry.worlds)} at {door.link}")
    sys.stdout.flush()
    if not no_open:
        open_in_browser(address, door.link)
    try:
        serve_until_ended(server)
    finally:
        door.stop()


def open_in_browser(address: "WebAddress", link: str) -> None:
    """Opens a page of this machine's own, where somebody sits before it."""
    import webbrowser

    from playhead.engine.display import lacks_display

    if address.local and not lacks_display():  # else a browser for terminals might take this one
        webbrowser.open(link)


def usual_folder() -> Path | None:
    """Where plays are recorded; nowhere, and a warning, for a user without a home."""
    import logging

    from playhead.world.home import NoHome, recordings_folder

    try:
        return recordings_folder()
    except NoHome as error:
        logging.getLogger("playhead").warning("nothing is recorded, so there is no way back: %s", error)
        return None
