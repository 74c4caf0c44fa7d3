"""Who may connect: anybody on loopback; elsewhere those whose public CURVE key the server has a file of."""

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from playhead.world.errors import PlayheadError
from playhead.world.terminal import printable


@dataclass(frozen=True)
class ServerKeys:
    """The server's key pair, and the folder of the public keys of its clients: the allow-list.

    The folder is read whenever somebody connects, so a key that is removed lets nobody in any more.
    """

    public: bytes
    secret: bytes
    clients: Path

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client with this public key (Z85) may connect."""
        for path in self.clients.glob("*.key"):
            try:
                if zmq.auth.load_certificate(path)[0] == key:
                    return True
            except (OSError, ValueError):
                continue
        return False

    def listed(self) -> list[bytes]:
        """The public keys (Z85) of all who may connect now."""
        found = []
        for path in self.clients.glob("*.key"):
            with contextlib.suppress(OSError, ValueError):
                found.append(zmq.auth.load_certificate(path)[0])
        return found


@dataclass
class ListedKeys:
    """A server's key pair, and the public keys of its clients, which may be exchanged while it serves."""

    public: bytes
    secret: bytes
    allowed: frozenset[bytes] = frozenset()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client with this public key (Z85) may connect."""
        return key in self.allowed


@dataclass(frozen=True)
class ClientKeys:
    """A client's key pair and the public key of the server that it trusts."""

    public: bytes
    secret: bytes
    server: bytes

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.curve_serverkey = self.server


def new_keys(name: str, folder: Path) -> tuple[Path, Path]:
    """Makes a key pair: `folder`/NAME.key to be given away, NAME.key_secret to be kept. Returns both paths.

    Raises PlayheadError rather than replace a key.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise PlayheadError(f"`{name}` is no name of a key; use letters, digits, hyphens and underscores")
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists():
            raise PlayheadError(f"{path} is there already; choose another name or --out")
    old = os.umask(0o077)  # nobody else may read the secret, not even for a moment
    try:
        folder.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(folder, name)
        public.chmod(0o644)
    except OSError as error:
        raise PlayheadError(f"{folder} cannot be written ({error.strerror}); choose another --out") from None
    finally:
        os.umask(old)
    return public, secret


def load_server_keys(key: Path | None, clients: Path | None) -> ServerKeys | None:
    """The keys of `serve --key --clients`; None without either. Raises PlayheadError for one of the two."""
    if key is None and clients is None:
        return None
    if key is None or clients is None:
        raise PlayheadError("--key and --clients belong together: the server's key and who may connect")
    if not clients.is_dir():
        raise PlayheadError(f"{clients} is no folder; --clients is the folder of the clients' public keys")
    return ServerKeys(*_load_pair(key, "--key"), clients)


def load_client_keys(key: Path | None, server: Path | None) -> ClientKeys | None:
    """The keys of `play --connect --key --server-key`; None without either."""
    if key is None and server is None:
        return None
    if key is None or server is None:
        raise PlayheadError("--key and --server-key belong together: your secret key, its public one")
    return ClientKeys(*_load_pair(key, "--key"), _load(server, "--server-key")[0])


def check_address(address: str, keys: ServerKeys | ListedKeys | None) -> None:
    """Raises PlayheadError for an address that cannot be bound to, or not without keys."""
    parts = _parts(address)
    if parts is None:
        raise PlayheadError(f"`{printable(address)}` is no address; it has the form tcp://127.0.0.1:7770")
    if keys is None and not is_loopback(parts[0]):
        raise PlayheadError(
            f"{address} can be reached from other machines, which needs keys: make them by `main.py keys new "
            "server` and `main.py keys new NAME`, then give --key server.key_secret and --clients FOLDER"
        )


def check_target(address: str) -> None:
    """Raises PlayheadError for an address that cannot be connected to."""
    parts = _parts(address)
    if parts is None or parts[1] in ("*", "0"):
        raise PlayheadError(
            f"`{printable(address)}` is no address to connect to; it has the form tcp://host:7770"
        )


def _parts(address: str) -> tuple[str, str] | None:
    """Host and port (`*`: any that is free) of an address; None where it is none."""
    match = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:/\[\]]+):([0-9]{1,5}|\*)", address)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        return None
    return match[1], match[2]


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address with or without brackets, is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _load_pair(path: Path, option: str) -> tuple[bytes, bytes]:
    public, secret = _load(path, option)
    if secret is None:
        raise PlayheadError(f"{path} holds no secret key; {option} wants the file that ends in .key_secret")
    return public, secret


def _load(path: Path, option: str) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError):
        raise PlayheadError(f"{path} is no key file; {option} wants one that `keys new` made") from None
