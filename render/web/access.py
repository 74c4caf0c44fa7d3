"""Who may come in by a browser: anybody on this machine; from elsewhere whoever has the token, by TLS alone.

A page of somebody else's may have a browser send requests here, and a name of its own may lead here. So
what is asked has to be asked of a host that this server answers to, and a WebSocket is opened only for a page
that came from here (its Origin).
"""

import ipaddress
import logging
import os
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from playhead.world.errors import PlayheadError
from playhead.world.terminal import printable

YEAR = 365 * 24 * 3600
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors {}",
    "cache-control": "no-cache",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""What every answer says to the browser: no script but the page's own, and none of it for other pages.

Whose pages may show it in a frame is put in.
"""


@dataclass(frozen=True)
class Openings:
    """What is let through beyond the page that is read.

    `entries`: paths that take a token. `written`: what the paths begin with that take a POST from this
    server's own pages. `framed_by`: whose pages may show these in a frame, as a policy says it.
    """

    entries: tuple[str, ...] = ("/",)
    written: str | None = None
    framed_by: str = "'none'"


@dataclass(frozen=True)
class WebAddress:
    """Where the page is served, and by what right.

    `certificate` and `key` are TLS files. `behind_proxy`: TLS is a proxy's business, which hands on the Host
    that it was asked for. `token`: what whoever comes has to have; empty on this machine alone.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    token: str = ""

    @property
    def local(self) -> bool:
        """Whether it is for this machine alone."""
        return is_loopback(self.host) and not self.behind_proxy

    @property
    def secure(self) -> bool:
        """Whether browsers come by TLS."""
        return self.certificate is not None or self.behind_proxy

    def check(self) -> None:
        """Raises PlayheadError where it may not be served like that."""
        if (self.certificate is None) != (self.key is None):
            raise PlayheadError("--tls-cert and --tls-key belong together: give both files or neither")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise PlayheadError(f"{path} is no file; --tls-cert and --tls-key are PEM files")
        if self.certificate is not None and self.behind_proxy:
            raise PlayheadError("--behind-proxy leaves TLS to the proxy; leave out --tls-cert and --tls-key")
        if not is_loopback(self.host) and not self.secure:
            raise PlayheadError(
                f"{self.host} can be reached from other machines, which needs TLS: give --tls-cert and "
                "--tls-key, or --behind-proxy where a proxy sees to that"
            )


def parse_web_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, port 0 for a free one. Raises PlayheadError for another text."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5}|\*)", text)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise PlayheadError(f"`{printable(text)}` is no address of a page; it has the form 127.0.0.1:7780")
    return match[1].strip("[]"), 0 if match[2] == "*" else int(match[2])


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def web_address(
    bind: str, certificate: Path | None, key: Path | None, behind_proxy: bool, token_file: Path | None
) -> WebAddress:
    """Where the page is to be served, by the options of a command. Raises PlayheadError for what may not be.

    This machine's own page needs no token, but may have one.
    """
    host, port = parse_web_address(bind)
    address = WebAddress(host, port, certificate, key, behind_proxy)
    address.check()
    token = "" if address.local and token_file is None else read_token(token_file)
    return replace(address, token=token)


def without_token(address: WebAddress, token_file: Path | None) -> WebAddress:
    """An address for whoever comes through its proxy, which is where to say who may.

    Raises PlayheadError where there is none, or where a token is named all the same.
    """
    if not address.behind_proxy:
        raise PlayheadError("--public is for a page --behind-proxy, where the proxy lets in whom it will")
    if token_file is not None:
        raise PlayheadError("--public and --token-file contradict each other; leave one out")
    return replace(address, token="")


def framing(origin: str | None) -> str:
    """Whose pages may show these in a frame; empty: nobody's. Raises PlayheadError for what is no origin."""
    if origin is not None and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", origin):
        raise PlayheadError(f"`{printable(origin)}` is no site; --framed-by has the form https://example.org")
    return origin or ""


def read_token(file: Path | None) -> str:
    """The token in a file, which is made where there is none; without a file, a new one.

    Raises PlayheadError for a file that cannot be used.
    """
    if file is None:
        return secrets.token_urlsafe(32)
    try:
        if not file.exists():
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(secrets.token_urlsafe(32) + "\n")
        token = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise PlayheadError(f"{file} cannot be read as a token ({error}); choose another file") from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{32,128}", token):
        raise PlayheadError(
            f"{file} holds no token (32 to 128 letters, digits, `-` or `_`); remove it, and a new one is made"
        )
    return token


Message = MutableMapping[str, Any]


class Guard:
    """Lets in who may come in, before anything else is looked at, and has every answer say its headers."""

    def __init__(self, app: ASGIApp, address: WebAddress, openings: Openings) -> None:
        self._app, self._address, self._openings = app, address, openings
        self._cookie = f"playhead-{address.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        try:
            if scope["type"] == "http":
                answer: Callable[..., Awaitable[None]] = self._app if refused is None else refused
                await answer(scope, receive, _with_headers(send, self._openings.framed_by))
            elif refused is None:
                await self._app(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
        except (ClientDisconnect, WebSocketDisconnect):
            pass
        except Exception:  # a fault of ours, and no reason to leave all others without a server
            logging.getLogger("playhead").exception("a page's request met with a fault")

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """What is answered in place of what was asked for; None where that may be had."""
        writes = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
        if writes and not self._takes(scope["method"], scope["path"]):
            return PlainTextResponse("pages are read here, and nothing else\n", 405)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._answers_to(host):
            return PlainTextResponse("this server does not answer to that name\n", 421)
        if (writes or scope["type"] == "websocket") and not self._is_ours(headers.getlist("origin"), host):
            return PlainTextResponse("that page is not this server's\n", 403)
        token = self._address.token
        if not token or self._has(token, headers):
            return None
        given = QueryParams(scope["query_string"]).getlist("token")
        entered = scope["type"] == "http" and scope["path"] in self._openings.entries
        if entered and not writes and len(given) == 1 and _equal(given[0], token):
            answer = RedirectResponse(
                scope["path"], 303
            )  # so that the token does not stay in the address line
            answer.set_cookie(
                self._cookie, token, YEAR, secure=self._address.secure, httponly=True, samesite="lax"
            )
            return answer
        return PlainTextResponse("come by the link that the server printed when it began\n", 401)

    def _takes(self, method: str, path: str) -> bool:
        written = self._openings.written
        return written is not None and method == "POST" and path.startswith(written)

    def _answers_to(self, host: str) -> bool:
        """Whether a Host is one of this server's. On this machine, names that lead here from elsewhere are
        not: that is how a page of somebody else's would read what is only for this machine.
        """
        try:
            parts = urlsplit(f"//{host}")
            return bool(parts.hostname) and (not self._address.local or is_loopback(parts.hostname or ""))
        except ValueError:
            return False

    def _is_ours(self, origins: list[str], host: str) -> bool:
        """Whether a page came from this server; browsers always say where from."""
        try:
            (origin,) = origins
            parts = urlsplit(origin)
        except ValueError:
            return False
        scheme = "https" if self._address.secure else "http"
        return parts.scheme == scheme and parts.netloc.lower() == host.lower()

    def _has(self, token: str, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and _equal(cookie.value, token)


def _equal(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _with_headers(send: Send, framed_by: str) -> Send:
    async def say(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in HEADERS.items():
                headers.setdefault(name, value.format(framed_by))
        await send(message)

    return say
