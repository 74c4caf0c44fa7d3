"""Recordings and films that pages fetch: each is made for whoever plays the session, and handed out once."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from playhead.engine.bridge.server.connection import Connection
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.refusal import refusal
from playhead.engine.bridge.server.registry import session_bytes
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.timeline.timeline import Timeline
from playhead.engine.work import Work
from playhead.render.web.dreamed_film import filming
from playhead.render.web.page_messages import DownloadReply, DownloadRequest, FilmPush

KEPT, PATIENCE = 8, 120.0
"""Files that wait to be fetched, at the most, and seconds for which each does."""
PIECE = 256 * 1024
TELL = 0.25
"""Seconds between two times that a page is told how far its film is."""


@dataclass(frozen=True)
class Copy:
    """A file that is to be fetched: how many ticks are in it, and whether they are what was played."""

    path: Path
    ticks: int
    exact: bool = True
    since: float = field(default_factory=time.monotonic)


class Downloads:
    """Copies by their tickets. `ask` is called on the server's thread, `fetch` on the door's."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: dict[str, Copy] = {}
        self._filming = False

    def ask(self, connection: Connection, request: DownloadRequest) -> None:
        """Has a file made, slice by slice, and answers with its ticket. Raises BridgeError."""
        client, server = connection.client, self._server
        if client is None:
            raise BridgeError("hello_first", "the first request of a connection is hello")
        hosted, recordings = server.sessions.controlled(client, request.session), server.recordings
        timeline = hosted.loop.timeline
        recordings.check(timeline)
        assert timeline is not None and timeline.recorder is not None  # else it was refused
        self._forget_old()
        if len(self._waiting) >= KEPT:
            raise BridgeError("busy", f"{KEPT} files wait to be fetched; try again in a moment")
        recorder = timeline.recorder

        def begin(asked: "Future[None]") -> None:
            try:
                asked.result()
                film = request.film
                work = self._film(connection, hosted, timeline) if film else self._copy(timeline)
            except Exception as error:
                server.connections.answer(connection, refusal(request.id, error))
                return
            making = server.saver.submit(client.token, work)
            making.add_done_callback(lambda made: server.post(lambda: answer(made)))

        def answer(made: "Future[Copy]") -> None:
            if request.film:
                self._filming = False
                server.sessions.reserved -= session_bytes(hosted.world)
            try:
                copy = made.result()
            except Exception as error:
                server.connections.answer(connection, refusal(request.id, error))
                return
            ticket = secrets.token_urlsafe(16)
            self._waiting[ticket] = copy
            server.connections.answer(connection, DownloadReply(
                id=request.id, session=hosted.id, ticket=ticket, ticks=copy.ticks, exact=copy.exact,
            ))  # fmt: skip

        asked = hosted.loop.ask(lambda _: recorder.flush())
        asked.add_done_callback(lambda done: server.post(lambda: begin(done)))

    def _copy(self, timeline: Timeline) -> Work[Copy]:
        path, ticks = yield from self._server.recordings.copying(timeline)
        return Copy(path, ticks)

    def _film(self, connection: Connection, hosted: HostedSession, timeline: Timeline) -> Work[Copy]:
        """Takes the memory of a session, and the only place for a film. Raises BridgeError."""
        server, world, end = self._server, hosted.world, timeline.head
        if self._filming:
            raise BridgeError("busy", "another film is being made; try again when it is done")
        if end is None or not end.tick:
            raise BridgeError("refused", "nothing was played yet that a film could be of")
        server.sessions.check_memory(session_bytes(world))
        server.sessions.reserved += session_bytes(world)
        self._filming = True

        def tell(done: int) -> None:
            push = FilmPush(session=hosted.id, done=done, ticks=end.tick)
            server.post(lambda: server.connections.answer(connection, push))

        def make() -> Work[Copy]:
            recording, _ = yield from server.recordings.copying(timeline)
            out = recording.with_suffix(f".mp4{recording.suffix}")
            try:
                exact = yield from filming(recording, world, end, out, _now_and_then(tell))
            except BaseException:
                out.unlink(missing_ok=True)
                raise
            finally:
                recording.unlink(missing_ok=True)
            return Copy(out, end.tick, exact)

        return make()

    def fetch(self, ticket: str) -> Response:
        """The file of a ticket, which is taken away once it is on its way."""
        self._forget_old()
        copy = self._waiting.pop(ticket, None)
        if copy is None:
            return Response("that was fetched already, or waited too long\n", 404, media_type="text/plain")
        film = ".mp4" in copy.path.suffixes
        name = f"playhead-{time.strftime('%Y%m%d-%H%M%S')}{'.mp4' if film else '.playhead'}"
        return StreamingResponse(
            _read(copy.path),
            media_type="video/mp4" if film else "application/octet-stream",
            headers={
                "content-disposition": f'attachment; filename="{name}"',
                "content-length": str(copy.path.stat().st_size),
            },
        )

    def _forget_old(self) -> None:
        for ticket, copy in list(self._waiting.items()):
            if time.monotonic() > copy.since + PATIENCE and self._waiting.pop(ticket, None) is not None:
                copy.path.unlink(missing_ok=True)


def _now_and_then(tell: Callable[[int], None]) -> Callable[[int], None]:
    last = 0.0

    def told(done: int) -> None:
        nonlocal last
        if (now := time.monotonic()) > last + TELL:
            last = now
            tell(done)

    return told


async def _read(path: Path) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    finally:
        path.unlink(missing_ok=True)
