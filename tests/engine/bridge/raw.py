"""What comes to a port from those who speak no ZeroMQ, or badly: bytes before and after a handshake."""

import contextlib
import random
import socket
from collections.abc import Callable

SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
"""What ZMTP begins with since version 2; a major version follows."""
GREETING = SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def stray() -> bytes:
    """A greeting of ZMTP 1 of no identity, and a message of one byte."""
    return b"\x01\x00\x02\x00x"


def ready(kind: bytes) -> bytes:
    """A whole handshake of a socket of `kind`."""
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return GREETING + b"\x04" + bytes([len(body)]) + body


class Raw:
    """Makes what a connection begins with; equal seeds make equal bytes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: list[Callable[[], bytes]] = [
            stray, self._noise, self._version_1, self._http, self._tls, self._cut_greeting,
            self._other_version, self._other_mechanism, self._nonsense_after, self._subscriptions,
        ]  # fmt: skip

    def opening(self) -> bytes:
        return self._random.choice(self._kinds)()

    def send(self, address: str) -> None:
        """Connects to a port, sends an opening, and goes: at once or when something was answered."""
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as line:
            line.settimeout(0.02)
            line.sendall(self.opening())
            if self._random.random() < 0.2:
                line.recv(256)
                line.sendall(self._noise())

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 300))

    def _version_1(self) -> bytes:
        draw = self._random
        frames = [draw.randbytes(draw.randrange(20)) for _ in range(draw.randrange(1, 6))]
        return b"".join(bytes([len(frame) + 1, draw.randrange(2)]) + frame for frame in frames)

    def _http(self) -> bytes:
        method = self._random.choice(("GET", "POST", "PUT", "OPTIONS"))
        body = b"\x01\x00\x02\x00x" * self._random.randrange(40)
        head = f"{method} / HTTP/1.1\r\nHost: localhost:7770\r\nOrigin: http://evil.example\r\n"
        return f"{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def _tls(self) -> bytes:
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self._random.randbytes(200)

    def _cut_greeting(self) -> bytes:
        whole = ready(b"DEALER")
        return whole[: self._random.randrange(1, len(whole))]

    def _other_version(self) -> bytes:
        return SIGNATURE + bytes([self._random.choice((0, 1, 2, 4, 255))]) + self._noise()

    def _other_mechanism(self) -> bytes:
        name = self._random.choice((b"PLAIN", b"CURVE", b"GSSAPI", b"", b"\xff" * 20))
        return SIGNATURE + b"\x03\x00" + name.ljust(20, b"\0") + bytes(32) + self._noise()

    def _nonsense_after(self) -> bytes:
        kind = self._random.choice((b"DEALER", b"REQ", b"ROUTER", b"SUB", b"PUB", b"", b"\0" * 9))
        return ready(kind) + self._noise()

    def _subscriptions(self) -> bytes:
        frames = [self._random.choice((b"\1", b"\0", b"\2")) + self._noise() for _ in range(5)]
        return ready(b"SUB") + b"".join(b"\x02" + len(f).to_bytes(8, "big") + f for f in frames)
