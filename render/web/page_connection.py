"""A player's WebSocket, as a connection of the server's.

Two threads meet here. The door's reads requests, one after another, and writes what is there to be written;
the server's carries them out, as those of any other connection, and never waits for a page.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from playhead.engine.bridge.server.connection import Connection
from playhead.engine.bridge.server.limits import RateLimit
from playhead.engine.bridge.server.refusal import refusal
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire.protocol import BridgeError, DoneReply, FrameHeader, Message
from playhead.render.web.downloads import Downloads
from playhead.render.web.frame_flow import FrameFlow
from playhead.render.web.page_messages import (
    DownloadRequest,
    SeenRequest,
    WatchRequest,
    decode_page_request,
    encode_for_page,
    encode_tick,
    page_request_id,
)

WAITING = 256
"""Messages that wait for a page to read before it is cut off."""


class PageConnection(Connection):
    """One page's. `serve` is run on the door's thread; the server's calls the rest."""

    def __init__(
        self, server: Server, downloads: Downloads, page: WebSocket, rate: int, frames_port: int
    ) -> None:
        """`rate`: requests a second at the most."""
        super().__init__(RateLimit(rate), frames_port)
        self._server, self._downloads, self._page, self._rate = server, downloads, page, rate
        self._loop = asyncio.get_running_loop()
        self._wake, self._ended = asyncio.Event(), asyncio.Event()
        self._waiting: deque[str | bytes] = deque()
        self._flow: FrameFlow | None = None
        self._leave: Callable[[], None] = lambda: None  # the stream that is watched; on the server's thread

    # On the server's thread

    @property
    def unread(self) -> int:
        return sum(len(data) for data in tuple(self._waiting) if isinstance(data, bytes))

    def write(self, message: Message, frames: np.ndarray | None = None) -> bool:
        if len(self._waiting) >= WAITING:
            return False
        self._waiting.append(encode_for_page(message, frames))
        self._post(self._wake.set)
        return True

    def cut(self) -> None:
        self._post(self._ended.set)

    def _obey(self, request: Message) -> None:
        try:
            if isinstance(request, WatchRequest):
                self._watch(request)
            elif isinstance(request, DownloadRequest):
                self._downloads.ask(self, request)
            else:
                self._server.obey(self, request)
        except BridgeError as error:
            self.write(refusal(request.id, error))

    def _watch(self, request: WatchRequest) -> None:
        """Goes on with the frames of another session, or in another encoding."""
        if self.client is None:
            raise BridgeError("hello_first", "the first request of a connection is hello")
        session, codec = self._server.sessions.find(request.session).id, request.codec
        publisher = self._server.publisher
        self._leave()
        flow = FrameFlow(codec, lambda: publisher.begin(session, codec))

        def receive(header: FrameHeader, packets: list[bytes]) -> None:
            self._post(lambda: self._take(flow, header, packets))

        publisher.watch(session, codec, receive)
        self._leave = lambda: publisher.leave(session, codec, receive)
        self._post(lambda: self._follow(flow))
        self.write(DoneReply(id=request.id))

    def _part(self) -> None:
        self._leave()
        self._server.connections.part(self)

    # On the door's

    async def serve(self) -> None:
        """Talks with the page until either ends it."""
        self._server.post(lambda: self._server.connections.join(self))
        tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._ended.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._server.post(self._part)
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                    await task

    async def _read(self) -> None:
        """One request after the other: the next is read when the last was carried out, or is under way."""
        while True:
            found = await self._page.receive()
            if found["type"] == "websocket.disconnect":
                return
            text = found.get("text")
            try:
                if not self.allowance.take():
                    raise BridgeError("rate", f"more than {self._rate} requests a second; slow down")
                if text is None:
                    raise BridgeError("malformed", "a request is a text of JSON")
                request = decode_page_request(text)
            except BridgeError as error:
                self.write(refusal(page_request_id(text or ""), error))
                if len(self._waiting) >= WAITING:
                    return
                continue
            if isinstance(request, SeenRequest):
                if self._flow is not None:
                    self._flow.seen(request.number)
                    self._wake.set()
                continue
            await self._hand_over(request)

    async def _hand_over(self, request: Message) -> None:
        done = asyncio.Event()

        def obey() -> None:
            try:
                self._obey(request)
            finally:
                self._post(done.set)

        self._server.post(obey)
        await done.wait()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (data := self._next()) is not None:
                if isinstance(data, str):
                    await self._page.send_text(data)
                else:
                    await self._page.send_bytes(data)

    def _next(self) -> str | bytes | None:
        """What is to be written now: replies first, they are few."""
        if self._waiting:
            return self._waiting.popleft()
        tick = self._flow.take() if self._flow is not None else None
        return None if tick is None else encode_tick(*tick)

    def _follow(self, flow: FrameFlow) -> None:
        self._flow = flow

    def _take(self, flow: FrameFlow, header: FrameHeader, packets: list[bytes]) -> None:
        if flow is self._flow:
            flow.put(header, packets)
            self._wake.set()

    def _post(self, work: Callable[[], object]) -> None:
        """Has something called on the door's thread; nothing once that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)
