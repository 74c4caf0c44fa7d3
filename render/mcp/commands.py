"""The `mcp` command of the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.engine.session_options import FurtherScenes, NoRecord, RecordingsFolder, ServerKey, Worlds
from playhead.world.options import Decoder, Device, Precision

if TYPE_CHECKING:
    from playhead.render.mcp.model_played import PlayedSessions


def mcp(
    http: Annotated[str | None, typer.Option(help="HOST:PORT of this machine, in place of stdio.")] = None,
    world: Worlds = None,
    scene: FurtherScenes = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    sessions: Annotated[int | None, typer.Option(help="Sessions at the most, else 4.", min=1)] = None,
    memory: Annotated[int | None, typer.Option(help="MB of caches at the most, else 4096.", min=1)] = None,
    idle: Annotated[
        float | None, typer.Option(help="Seconds until an unused session ends, else an hour.", min=1)
    ] = None,
    recordings: RecordingsFolder = None,
    no_record: NoRecord = False,
    connect: Annotated[str | None, typer.Option(help="Play on a running server: tcp://HOST:PORT.")] = None,
    key: Annotated[Path | None, typer.Option(help="Your .key_secret, for --connect.")] = None,
    server_key: ServerKey = None,
) -> None:
    """Let a language model play, by the Model Context Protocol (stdio, or HTTP with --http)."""
    from playhead.world import interrupts
    from playhead.world.errors import PlayheadError
    from playhead.world.extras import install

    if recordings is not None and no_record:
        raise PlayheadError("--recordings and --no-record contradict each other; leave one out")
    if connect is None and (key or server_key):
        raise PlayheadError("--key and --server-key are for a server; name it by --connect")
    for option, given in (
        ("--world", world), ("--scene", scene), ("--device", device != "auto"), ("--precision", precision),
        ("--decoder", decoder), ("--sessions", sessions), ("--memory", memory), ("--idle", idle),
        ("--recordings", recordings), ("--no-record", no_record),
    ):  # fmt: skip
        if connect is not None and given:
            raise PlayheadError(f"{option} is the server's to choose; leave it out with --connect")
    try:
        from playhead.render.mcp.tool_server import make_tool_server
        from playhead.render.mcp.transports import loopback, serve_http
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "pydantic"):
            raise
        raise PlayheadError(f"playing by MCP needs the mcp SDK: {install('mcp')}") from None
    listening = loopback(http) if http is not None else None
    alone = http is None
    bound: PlayedSessions
    if connect is not None:
        from playhead.engine.bridge.wire.auth import load_client_keys
        from playhead.render.mcp.remote_line import RemoteLine
        from playhead.render.mcp.remote_sessions import RemoteSessions
        from playhead.render.mcp.remote_tools import add_remote_tools

        bound = remote = RemoteSessions(RemoteLine(connect, load_client_keys(key, server_key)), alone)
        server = make_tool_server(bound)
        add_remote_tools(server, remote)
    else:
        from playhead.engine.bridge.server.limits import Limits
        from playhead.engine.bridge.server.registry import Registry
        from playhead.render.mcp.model_sessions import ModelSessions
        from playhead.world.home import recordings_folder

        folder = None if no_record else recordings or recordings_folder()
        registry = Registry.load(world or ["freedoom"], scene or [], device, precision, decoder)
        limits = Limits(sessions=sessions or 4, memory=memory or 4096, idle=idle or 3600)
        bound = ModelSessions(registry, limits, folder, alone)
        server = make_tool_server(bound)
    try:
        if listening is None:
            server.run("stdio")
        else:
            with listening:
                serve_http(server, listening, lambda url: typer.echo(f"a model can play at {url}"))
    finally:
        bound.close()
        interrupts.end_at_once()  # a thread may wait for the input, which nothing breaks off
