"""What of Gradio can be reached: its page, its queue and its looks. Files go by tickets, never by a path.

Gradio by itself fetches whatever address a request names as a file, hands on requests to elsewhere, and says
where in its folder an upload lies. None of that is let through: an upload is taken in here and known by a
ticket from then on, and what a request says of a file is that ticket and nothing else.
"""

import asyncio
import json
import re
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from playhead.render.demo.gradio_app import AT, FILES
from playhead.render.demo.kept_files import KeptFiles

LARGEST_UPLOAD = 16 * 2**20
"""Bytes of a file."""
LARGEST = 256 * 1024
"""Bytes of any other request, as on the bridge."""
UPLOADS, SLOWEST = 4, 60.0
"""Uploads that are read at a time, and seconds that each may take."""
FILE = r"(assets|static)/(?!/|.*(\.\.|//))[\w./-]+"
READ = re.compile(rf"{AT}/(config|theme\.css|{FILE}|gradio_api/(info|queue/data))")
WRITTEN = re.compile(rf"{AT}/gradio_api/(queue/join|cancel)")
UPLOAD = f"{AT}/gradio_api/upload"
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self' blob: data:; img-src 'self' blob: data:; media-src 'self' blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; frame-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors {}"
)
"""Gradio's page needs scripts within it; what it may load, and where it may send to, is this server alone."""
NAMED = re.compile(rb'<meta\s+(property|name)="(og|twitter):[^>]*>')
"""What the page says to other sites, about Gradio's."""
ICON = b'<link rel="manifest" href="/manifest.json" />', b'<link rel="icon" href="/page/icon.svg" />'
KINDS = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
"""What an upload is shown as, by its beginning; nothing else is shown."""


class GradioGuard:
    """An ASGI application: Gradio's, as far as it is let through, and uploads and films by their tickets."""

    def __init__(self, app: FastAPI, files: KeptFiles, secure: bool, framed_by: str = "'none'") -> None:
        """`secure`: browsers come by TLS. `framed_by`: whose pages may show this one, as a policy says it."""
        self._app, self._files, self._secure = app, files, secure
        self._policy = POLICY.format(framed_by)
        self._uploading = asyncio.Semaphore(UPLOADS)
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        answer: Response | None = None
        try:
            if method == "POST" and path == UPLOAD:
                answer = await self._upload(Request(scope, _limited(receive, LARGEST_UPLOAD)))
            elif method == "POST" and WRITTEN.fullmatch(path):
                await self._hand_on(scope, _again(_without_files(await _read(receive, LARGEST))), send)
            elif method == "GET" and path == f"{UPLOAD}_progress":  # the page waits for it to say so
                answer = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
            elif method == "GET" and path.startswith(FILES):
                answer = self._fetch(path.removeprefix(FILES))
            elif method == "GET" and path == f"{AT}/":
                await self._hand_on(scope, receive, _without_names(send))
            elif method == "GET" and READ.fullmatch(path):
                await self._hand_on(scope, receive, send)
            else:
                answer = PlainTextResponse("there is no such page\n", 404)
        except HTTPException as error:
            answer = PlainTextResponse(f"{error.detail}\n", error.status_code)
        if answer is not None:
            await answer(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._begun:
            self._begun = True
            await self._begin()
        headers = MutableHeaders(raw=list(scope["headers"]))
        for name in ("x-forwarded-host", "x-forwarded-proto", "accept-encoding"):
            del headers[name]  # Gradio would believe anybody; what is compressed here takes a core
        scope = {**scope, "headers": headers.raw, "scheme": "https" if self._secure else "http"}

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(raw=message.setdefault("headers", []))
                found["content-security-policy"] = self._policy
            await send(message)

        await self._app(scope, receive, say)

    async def _begin(self) -> None:
        """Starts Gradio's queue, on the loop that serves it."""
        (mounted,) = (route for route in self._app.routes if getattr(route, "path", "") == AT)
        blocks = mounted.app.get_blocks()  # type: ignore[attr-defined]
        blocks.run_startup_events()
        await blocks.run_extra_startup_events()

    async def _upload(self, request: Request) -> Response:
        """Takes in a file, whatever it is called. Answers with what it is known by from now on."""
        if self._uploading.locked():
            raise HTTPException(503, "others are uploading; try again in a moment")
        try:
            async with self._uploading, asyncio.timeout(SLOWEST):
                data = await _only_file(request)
        except TimeoutError:
            raise HTTPException(408, "that takes too long; send a smaller file") from None
        kind = next(
            (kind for start, kind in KINDS.items() if data.startswith(start)), "application/octet-stream"
        )
        return JSONResponse([await asyncio.to_thread(self._files.take, data, kind)])

    def _fetch(self, ticket: str) -> Response:
        found = self._files.find(ticket)
        if found is None or not found.path.is_file():
            raise HTTPException(404, "that is not here any more")
        return FileResponse(found.path, media_type=found.kind, headers={"cache-control": "private"})


async def _only_file(request: Request) -> bytes:
    """The file of a form. Raises HTTPException where there is not just one."""
    async with request.form(max_files=1, max_fields=1) as form:
        found = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if len(found) != 1:
            raise HTTPException(400, "an upload is one file")
        return await found[0].read()


def _without_names(send: Send) -> Send:
    """Sends a page without what it says to other sites; all at once, since it is small."""
    head: Message = {}
    body = bytearray()

    async def say(message: Message) -> None:
        nonlocal head
        if message["type"] == "http.response.start":
            head = message
            return
        body.extend(message.get("body", b""))
        if not message.get("more_body", False):
            page = NAMED.sub(b"", bytes(body)).replace(*ICON)
            MutableHeaders(raw=head["headers"])["content-length"] = str(len(page))
            await send(head)
            await send({"type": "http.response.body", "body": page})

    return say


def _limited(receive: Receive, most: int) -> Receive:
    """A body of so many bytes at the most. Raises HTTPException for a longer one."""
    left = most

    async def take() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(
                413, f"that is more than {most / 2**20:g} MB, which is all that may be sent here"
            )
        return message

    return take


async def _read(receive: Receive, most: int) -> bytes:
    take = _limited(receive, most)
    body = bytearray()
    while True:
        message = await take()
        if message["type"] != "http.request":
            raise HTTPException(400, "the line was cut")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes) -> Receive:
    """A body that was read, once more."""
    said = False

    async def receive() -> Message:
        nonlocal said
        if said:
            return {"type": "http.disconnect"}
        said = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _without_files(body: bytes) -> bytes:
    """A request in which what is said of files is their tickets: by its `meta` Gradio knows what to fetch.

    Raises HTTPException for what is no JSON.
    """

    def bare(found: Any) -> Any:  # noqa: ANN401 (JSON)
        if isinstance(found, dict):
            if "meta" in found or "_type" in found:
                return {"ticket": str(found.get("path", ""))}
            return {name: bare(value) for name, value in found.items()}
        return [bare(value) for value in found] if isinstance(found, list) else found

    try:
        said: str = json.dumps(bare(json.loads(body)))
    except (ValueError, RecursionError):
        raise HTTPException(400, "a request is a text of JSON") from None
    return said.encode()
