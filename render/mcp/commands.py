"""The `mcp` command of the command line."""

from pathlib import Path
from typing import Annotated

import typer


def mcp(
    http: Annotated[str | None, typer.Option(help="HOST:PORT of this machine, in place of stdio.")] = None,
    world: Annotated[list[str] | None, typer.Option(help="Worlds to offer; default: freedoom.")] = None,
    scene: Annotated[list[Path] | None, typer.Option(help="Folders of further scenes.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp8, int8 or nvfp4 for large layers; default: full.")
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Which of the world's decoders; default: its own.")
    ] = None,
    sessions: Annotated[int, typer.Option(help="Sessions at the most.", min=1)] = 4,
    memory: Annotated[int, typer.Option(help="MB of caches at the most.", min=1)] = 4096,
    idle: Annotated[float, typer.Option(help="Seconds until an unused session ends.", min=1)] = 3600,
    recordings: Annotated[
        Path | None, typer.Option(help="Folder for recordings, else the usual one.")
    ] = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="Record nothing.")] = False,
) -> None:
    """Let a language model play, by the Model Context Protocol (stdio, or HTTP with --http)."""
    from playhead.engine.bridge.server.limits import Limits
    from playhead.engine.bridge.server.registry import Registry
    from playhead.world import interrupts
    from playhead.world.errors import PlayheadError
    from playhead.world.extras import install
    from playhead.world.home import recordings_folder

    if recordings is not None and no_record:
        raise PlayheadError("--recordings and --no-record contradict each other; leave one out")
    try:
        from playhead.render.mcp.model_sessions import ModelSessions
        from playhead.render.mcp.tool_server import make_tool_server
        from playhead.render.mcp.transports import loopback, serve_http
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "pydantic"):
            raise
        raise PlayheadError(f"playing by MCP needs the mcp SDK: {install('mcp')}") from None
    listening = loopback(http) if http is not None else None
    folder = None if no_record else recordings or recordings_folder()
    registry = Registry.load(world or ["freedoom"], scene or [], device, precision, decoder)
    limits = Limits(sessions=sessions, memory=memory, idle=idle)
    bound = ModelSessions(registry, limits, folder, alone=http is None)
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
