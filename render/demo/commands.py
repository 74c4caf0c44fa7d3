"""The `demo` command of the command line."""

import sys
from typing import Annotated

import typer

from playhead.engine.session_options import (
    FurtherScenes,
    IdleSeconds,
    MostMemory,
    MostSessions,
    RecordingsFolder,
    Worlds,
)
from playhead.render.web.commands import PAGE_ADDRESS, open_in_browser, usual_folder
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


def demo(
    world: Worlds = None,
    scene: FurtherScenes = None,
    bind: PageBind = PAGE_ADDRESS,
    no_open: NoOpen = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: BehindProxy = False,
    token_file: TokenFile = None,
    public: Annotated[
        bool, typer.Option("--public", help="No token: whoever comes through the proxy may play.")
    ] = False,
    framed_by: Annotated[
        str | None, typer.Option(help="Whose pages may show it in a frame: https://HOST.")
    ] = None,
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
    """Play in a browser beside forms: films of scripts, and scenes from pictures (Gradio)."""
    from playhead.engine.bridge.process import ready_to_serve, serve_until_ended, share_heaps

    share_heaps()  # before torch begins threads
    from playhead.engine.bridge.server.limits import Limits
    from playhead.engine.bridge.server.registry import Registry
    from playhead.engine.bridge.server.server import Server
    from playhead.render.web.access import framing, web_address, without_token
    from playhead.world.errors import PlayheadError
    from playhead.world.extras import install
    from playhead.world.offload.memory_budget import MemoryBudget

    if recordings is not None and no_record:
        raise PlayheadError("--recordings and --no-record contradict each other; leave one out")
    address = web_address(bind, tls_cert, tls_key, behind_proxy, token_file)
    if public:
        address = without_token(address, token_file)
    frames = framing(framed_by)
    try:
        from playhead.render.demo.demo_door import DemoDoor
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("gradio", "fastapi", "PIL"):
            raise
        raise PlayheadError(f"the forms need Gradio: {install('demo')}") from None
    folder = None if no_record else recordings or usual_folder()
    budget = MemoryBudget.parse(vram, ram, memory * 2**20)
    registry = Registry.load(world or ["freedoom"], scene or [], device, precision, decoder, budget, cache)
    limits = Limits(sessions=sessions, memory=memory, rate=rate, idle=idle)
    server = Server(registry, None, limits=limits, recordings=folder)
    door = DemoDoor(server, registry, address, limits, frames)
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
