"""HTTP connections of a door: so many at a time, and none that keeps its place and asks for nothing."""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 256
"""Connections at a time, of pages and for files; further ones are hung up on."""
FIRST, LONGEST = 10.0, 600.0
"""Seconds within which something has to be asked for, and for which a connection may be there that is no
WebSocket."""


class HTTPConnection(H11Protocol):
    """As uvicorn's, which leaves it to others to count WebSockets and to hang up on those who say nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        if len(self.connections) > CONNECTIONS:
            self.transport.abort()
            return
        self._ends = [
            self.loop.call_later(FIRST, self._hang_up_if_silent),
            self.loop.call_later(LONGEST, self._hang_up),
        ]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _hang_up_if_silent(self) -> None:
        if self.scope is None:  # no request has come, not a whole one
            self._hang_up()

    def _hang_up(self) -> None:
        if self.transport.get_protocol() is self:  # and no WebSocket has taken over
            self.transport.abort()
        self._forget()

    def _forget(self) -> None:
        for timer in getattr(self, "_ends", ()):
            timer.cancel()
