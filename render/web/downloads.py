"""Recordings that pages fetch: each is copied for whoever plays the session, and handed out once."""

import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from playhead.engine.bridge.server.connection import Connection
from playhead.engine.bridge.server.refusal import refusal
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.render.web.page_messages import DownloadReply, DownloadRequest

KEPT, PATIENCE = 8, 120.0
"""Copies that wait to be fetched, at the most, and seconds for which each does."""
PIECE = 256 * 1024


class Downloads:
    """Copies by their tickets. `ask` is called on the server's thread, `fetch` on the door's."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: dict[str, tuple[Path, float]] = {}

    def ask(self, connection: Connection, request: DownloadRequest) -> None:
        """Has a copy made, slice by slice, and answers with its ticket. Raises BridgeError."""
        client, server = connection.client, self._server
        if client is None:
            raise BridgeError("hello_first", "the first request of a connection is hello")
        hosted, recordings = server.sessions.controlled(client, request.session), server.recordings
        timeline = hosted.loop.timeline
        recordings.check(timeline)
        assert timeline is not None and timeline.recorder is not None  # else it was refused
        self._forget_old()
        if len(self._waiting) >= KEPT:
            raise BridgeError("busy", f"{KEPT} recordings wait to be fetched; try again in a moment")
        recorder = timeline.recorder

        def copied(made: "Future[tuple[Path, int]]") -> None:
            try:
                path, ticks = made.result()
            except Exception as error:
                server.connections.answer(connection, refusal(request.id, error))
                return
            ticket = secrets.token_urlsafe(16)
            self._waiting[ticket] = path, time.monotonic()
            reply = DownloadReply(id=request.id, session=hosted.id, ticket=ticket, ticks=ticks)
            server.connections.answer(connection, reply)

        def flushed(asked: "Future[None]") -> None:
            if (error := asked.exception()) is not None:
                server.connections.answer(connection, refusal(request.id, error))
                return
            making = server.saver.submit(client.token, recordings.copying(timeline))
            making.add_done_callback(lambda made: server.post(lambda: copied(made)))

        asked = hosted.loop.ask(lambda _: recorder.flush())
        asked.add_done_callback(lambda done: server.post(lambda: flushed(done)))

    def fetch(self, ticket: str) -> Response:
        """The copy of a ticket, which is taken away once it is on its way."""
        path, _ = self._waiting.pop(ticket, (None, 0.0))
        if path is None:
            return Response("that was fetched already, or waited too long\n", 404, media_type="text/plain")
        name = f"playhead-{time.strftime('%Y%m%d-%H%M%S')}.playhead"
        return StreamingResponse(
            _read(path),
            media_type="application/octet-stream",
            headers={
                "content-disposition": f'attachment; filename="{name}"',
                "content-length": str(path.stat().st_size),
            },
        )

    def _forget_old(self) -> None:
        for ticket, (path, since) in list(self._waiting.items()):
            if time.monotonic() > since + PATIENCE and self._waiting.pop(ticket, None) is not None:
                path.unlink(missing_ok=True)


async def _read(path: Path) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    finally:
        path.unlink(missing_ok=True)
