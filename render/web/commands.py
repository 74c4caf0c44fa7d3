"""The `web` command of the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from playhead.engine.session_options import (
    FurtherScenes,
    IdleSeconds,
    MostMemory,
    MostSessions,
    RecordingsFolder,
    Worlds,
)
from playhead.render.web.page_options import (
    BehindProxy,
    NoOpen,
    NoWayBack,
    PageBind,
    PageRate,
    TlsCert,
    TlsKey,
    TokenFile,
)
from playhead.world.options import Cache, Decoder, Device, Precision, Ram, Vram

if TYPE_CHECKING:
    from playhead.render.web.access import WebAddress

PAGE_ADDRESS = "127.0.0.1:7780"
"""Where the page is served unless it is told otherwise."""


def web(
    world: Worlds = None,
    scene: FurtherScenes = None,
    bind: PageBind = PAGE_ADDRESS,
    no_open: NoOpen = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: BehindProxy = False,
    token_file: TokenFile = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    sessions: MostSessions = 16,
    memory: MostMemory = 4096,
    rate: PageRate = 5000,
    recordings: RecordingsFolder = None,
    no_record: NoWayBack = False,
    idle: IdleSeconds = 600,
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
