"""`serve --ray`: the door of a fleet, which plays nothing itself and says who does."""

import sys
from pathlib import Path

import typer

from playhead.engine.bridge.process import ready_to_serve
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire.auth import ServerKeys
from playhead.engine.fleet.fleet import Fleet
from playhead.engine.fleet.session_host import HostOptions
from playhead.world import interrupts
from playhead.world.terminal import plural

COMING_UP = 600.0
"""Seconds that the first host may take: to be placed, and to load its worlds."""


def serve_fleet(
    address: str,
    options: HostOptions,
    count: int | None,
    bind: str,
    trusted: ServerKeys | None,
    frames_port: int | None,
) -> None:
    """Starts session hosts by the Ray at `address` and serves clients until a signal comes.

    Raises PlayheadError where no host comes up, and where it cannot go on.
    """
    fleet = Fleet(address, options, count, trusted)
    try:
        fleet.wait(COMING_UP)
        server = Server(Registry([], []), bind, trusted, options.limits, frames_port, find_host=fleet.find)
        ready_to_serve(server)
        said = plural(fleet.count, "session host")
        names = ", ".join(Path(name).name for name in options.worlds)
        typer.echo(f"serving {names} by {said} at {server.address}")
        sys.stdout.flush()
        server.run()
    finally:
        fleet.close()
    interrupts.end_at_once()
