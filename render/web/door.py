"""The door for browsers: a page, and a WebSocket a player, on a thread of its own."""

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from ssl import SSLError

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire.protocol import MAX_REQUEST, BridgeError
from playhead.engine.recording.thumbnails import Thumbnails
from playhead.render.web.access import Guard, Openings, WebAddress
from playhead.render.web.browser_keys import browser_keys
from playhead.render.web.downloads import Downloads
from playhead.render.web.http_connection import HTTPConnection
from playhead.render.web.page_connection import PageConnection
from playhead.world.errors import PlayheadError

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PING = 10.0
"""Seconds after which a page is asked whether it is there still, and within which it has to answer."""
UNSENT = 256 * 1024
"""Bytes that the system may keep for a page that does not read."""
HANGS = 20_000
"""Milliseconds after which the system gives up a connection at whose other end nobody takes anything."""
PICTURE = 320
"""Pixels of a scene's picture, at the most, from left to right."""


class WebDoor:
    """Serves the page, and lets its players in to a server's sessions, from `start` to `stop`.

    `link` is what to open in a browser, the token in it where one is needed.
    """

    def __init__(
        self,
        server: Server,
        registry: Registry,
        address: WebAddress,
        limits: Limits | None = None,
        beside: Sequence[BaseRoute] = (),
        openings: Openings | None = None,
    ) -> None:
        """Binds at once. `beside`: what else is served, behind the same guard, and what that lets through.

        Raises PlayheadError for an address that cannot be had, or not like that.
        """
        address.check()
        self._beside, self._openings = beside, openings or Openings()
        self._server, self._registry, self._limits = server, registry, limits or Limits()
        self._socket = bind(address)
        self.address = replace(address, port=self._socket.getsockname()[1])
        self._files = {
            path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix in KINDS
        }
        self._downloads, self._pictures = Downloads(server), Thumbnails()
        self._drawn: dict[tuple[str, str], bytes] = {}
        self._uvicorn = self._configure()
        self._thread = threading.Thread(target=self._run, name="web door", daemon=True)

    @property
    def link(self) -> str:
        return self.link_to("/")

    def link_to(self, path: str) -> str:
        """As `link`, to another of the paths that take a token."""
        scheme = "https" if self.address.secure else "http"
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        token = f"?token={self.address.token}" if self.address.token else ""
        return f"{scheme}://{host}:{self.address.port}{path}{token}"

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Ends it: pages are told that the server went away. Waits at most so long."""
        self._uvicorn.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._socket.close()

    def _configure(self) -> uvicorn.Server:
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/page/{name}", self._file),
                Route("/keys/{world}", self._keys),
                Route("/picture/{world}/{scene}", self._picture),
                Route("/download/{ticket}", self._download),
                WebSocketRoute("/play", self._play),
                *self._beside,
            ]
        )
        address = self.address
        try:
            config = uvicorn.Config(
                Guard(app, address, self._openings),
                http=HTTPConnection,
                ws="websockets-sansio",
                ws_max_size=MAX_REQUEST,
                ws_ping_interval=PING,
                ws_ping_timeout=PING,
                ws_per_message_deflate=False,  # frames are small already, and it would take a core
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                ssl_certfile=address.certificate,
                ssl_keyfile=address.key,
                h11_max_incomplete_event_size=16 * 1024,
            )
            config.load()
        except (OSError, SSLError) as error:
            self._socket.close()
            raise PlayheadError(
                f"{address.certificate} and {address.key} are no TLS files ({error})"
            ) from None
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # faults of ours the guard tells of
        return uvicorn.Server(config)

    def _run(self) -> None:
        asyncio.run(self._uvicorn.serve([self._socket]))

    async def _play(self, page: WebSocket) -> None:
        await page.accept()
        rate, port = self._limits.rate, self.address.port
        await PageConnection(self._server, self._downloads, page, rate, port).serve()

    async def _page(self, request: Request) -> Response:
        return self._answer("index.html")

    async def _file(self, request: Request) -> Response:
        return self._answer(request.path_params["name"])

    def _answer(self, name: str) -> Response:
        data = self._files.get(name)
        if data is None:
            return Response("there is no such page\n", 404, media_type="text/plain")
        return Response(data, media_type=KINDS[Path(name).suffix])

    async def _keys(self, request: Request) -> Response:
        def keys() -> bytes:
            world = self._registry.world(request.path_params["world"])
            return msgspec.json.encode(browser_keys(world.config, self._registry.scenes(world)))

        return _found(lambda: Response(keys(), media_type="application/json"))

    async def _picture(self, request: Request) -> Response:
        names = request.path_params["world"], request.path_params["scene"]
        return _found(lambda: Response(self._draw(*names), media_type="image/jpeg"))

    async def _download(self, request: Request) -> Response:
        if request.method != "GET":  # HEAD would use up the ticket
            return Response(status_code=405)
        return self._downloads.fetch(request.path_params["ticket"])

    def _draw(self, world: str, scene: str) -> bytes:
        """Where a scene begins, as a JPEG; grey where it has no frames."""
        if (world, scene) not in self._drawn:
            found = self._registry.world(world)
            start = self._registry.scene(found, scene)
            frames = start.context.frames
            frame = frames[-1] if len(frames) else np.full((90, 160, 3), 64, np.uint8)
            by = -(-frame.shape[1] // PICTURE)
            self._drawn[world, scene] = self._pictures.encode(np.ascontiguousarray(frame[::by, ::by]))
        return self._drawn[world, scene]


def _found(answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except BridgeError as error:
        return Response(f"{error}\n", 404, media_type="text/plain")


def bind(address: WebAddress) -> socket.socket:
    """A socket that listens, with what its connections are to be like."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT)
        # A frame goes out at once. asyncio sees to that where a socket names TCP, which a listener's do not,
        # and a small frame then waits for the receipt of the last one, which comes up to 40 ms late.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, HANGS)
        made.bind((address.host, address.port))
        made.listen(128)
    except OSError as error:
        made.close()
        where = f"{address.host}:{address.port}"
        raise PlayheadError(f"{where} cannot be bound to ({error.strerror}); choose another") from None
    return made
