"""HTTP for models on this machine: a socket on loopback, and the SDK's application on it."""

import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from playhead.engine.bridge.wire.auth import is_loopback
from playhead.world.errors import PlayheadError
from playhead.world.terminal import printable


def loopback(address: str) -> socket.socket:
    """A socket that listens at `HOST:PORT` of this machine; port 0 or `*` takes a free one.

    Raises PlayheadError for an address that is none, is taken, or can be reached from elsewhere.
    """
    host, colon, port = address.rpartition(":")
    port = "0" if port == "*" else port
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise PlayheadError(f"`{printable(address)}` is no address; --http has the form 127.0.0.1:7780")
    if not is_loopback(host):
        raise PlayheadError(
            f"{address} can be reached from other machines, and this asks nobody who they are; listen at "
            f"127.0.0.1:{port} and come in by a tunnel (ssh -L {port}:127.0.0.1:{port})"
        )
    bare = host.strip("[]")
    made = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((bare, int(port)))
        made.listen()
    except OSError as error:
        made.close()
        raise PlayheadError(f"{address} cannot be listened at ({error.strerror}); choose another") from None
    return made


def serve_http(server: MCPServer[Any], listening: socket.socket, tell: Callable[[str], None]) -> None:
    """Serves until a signal ends it. `tell` is told the address that a client is given.

    A foreign `Host` or `Origin` is refused, so that no web page plays by way of the browser.
    """
    host, port = listening.getsockname()[:2]
    named = f"[{host}]" if ":" in host else host
    hosts = [f"{one}:{port}" for one in dict.fromkeys((named, "localhost", "127.0.0.1", "[::1]"))]
    safe = TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=hosts,
        allowed_origins=[f"http://{one}" for one in hosts],
    )  # fmt: skip
    app = server.streamable_http_app(host=host, transport_security=safe)
    tell(f"http://{named}:{port}/mcp")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on")).run(sockets=[listening])
