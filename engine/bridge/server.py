"""The server of the bridge: one thread that talks to clients, and a loop for every session.

Requests come in by a ROUTER socket, frames for watchers go out by an XPUB socket. This thread never computes
a tick and never waits for one: whatever needs a session is asked of its loop, and answered when that is done.
"""

import contextlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec
import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from engine.bridge import protocol
from engine.bridge.auth import ServerKeys, check_address
from engine.bridge.hall import Hall
from engine.bridge.hosted import Hosted
from engine.bridge.protocol import BridgeError
from engine.bridge.publisher import Publisher
from world.errors import PlayheadError

MONITORED = zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED
HEARTBEAT = 1000
"""Milliseconds between two heartbeats of ZeroMQ; a connection that misses three is cut."""


@dataclass(frozen=True)
class Limits:
    """At the most: sessions, megabytes of caches and snapshots, requests a second, idle seconds."""

    sessions: int = 16
    memory: int = 4096
    rate: int = 5000
    idle: float = 600.0
    snapshots: int = 64
    clients: int = 1000
    unsent: int = 64 * 2**20


@dataclass
class Client:
    """Somebody who said hello: where to reach it (None once its connection is gone)."""

    token: str
    name: str
    route: bytes | None
    fd: int
    last_used: float = field(default_factory=time.monotonic)
    unsent: list[tuple[zmq.MessageTracker, int]] = field(default_factory=list)


@dataclass
class Bucket:
    """A connection's allowance of requests."""

    left: float
    at: float


class Server:
    """Serves the worlds of a hall, or the one session of a window (`add`)."""

    def __init__(
        self, hall: Hall, address: str, keys: ServerKeys | None = None, limits: Limits | None = None
    ) -> None:
        """Binds at once. Raises PlayheadError for an address that cannot be had, or not without keys."""
        check_address(address, keys)
        self.hall, self.limits = hall, limits or Limits()
        self.hosted: dict[str, Hosted] = {}
        self.clients: dict[str, Client] = {}
        self._routes: dict[bytes, Client] = {}
        self._buckets: dict[bytes, Bucket] = {}
        self._opening = 0
        self._context = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        if keys is not None:
            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback("*", credentials_provider=keys)
        self._router = self._socket(zmq.ROUTER, address, keys)
        self._router.maxmsgsize = protocol.MAX_REQUEST
        self._router.rcvhwm, self._router.sndhwm = 64, 256
        self._router.router_mandatory = True
        self._monitor = self._router.get_monitor_socket(MONITORED)
        self._frames = self._socket(zmq.XPUB, address, keys)
        self._frames.maxmsgsize = 1024
        self.publisher = Publisher(self._frames, self.post)
        self.address = self._bind(self._router, address)
        self.frames_port = int(self._bind(self._frames, f"{address.rpartition(':')[0]}:*").rpartition(":")[2])
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._opener = ThreadPoolExecutor(1, "opener")
        self._stopping = False
        from engine.bridge.requests import Requests

        self._requests = Requests(self)

    def run(self) -> None:
        """Serves until `stop`."""
        poller = zmq.Poller()
        for source in (self._router, self._frames, self._monitor, self._woken):
            poller.register(source, zmq.POLLIN)
        next_sweep = time.monotonic() + 1
        try:
            while not self._stopping:
                poller.poll(500)
                self._do_work()
                self.publisher.subscriptions()
                self._watch_connections()
                self._receive()
                if time.monotonic() >= next_sweep:
                    self._sweep()
                    next_sweep = time.monotonic() + 1
        finally:
            self._close()

    def stop(self) -> None:
        """Ends `run`; may be called by any thread."""
        self._stopping = True
        self.post(lambda: None)

    def post(self, work: Callable[[], None]) -> None:
        """Has `work` called on the server's thread; may be called by any thread."""
        self._work.put(work)
        with contextlib.suppress(BlockingIOError, OSError):  # it is being woken already, or gone
            self._waker.send(b".")

    def add(self, hosted: Hosted) -> None:
        """Takes in a session whose loop runs, or will."""
        self.hosted[hosted.id] = hosted
        hosted.loop.subscribe(lambda tick: self.publisher.take(hosted, tick))
        hosted.loop.subscribe(hosted.remember)
        hosted.loop.subscribe(lambda tick: self._tell_applied(hosted, tick.number))

    def open_later(self, make: Callable[[], Hosted], then: Callable[["Future[Hosted]"], None]) -> None:
        """Makes a session on a thread of its own; `then` is called on the server's."""
        if self._opening >= 8:
            raise BridgeError("busy", "other sessions are being opened; try again in a moment")
        self._opening += 1

        def opened(future: "Future[Hosted]") -> None:
            self._opening -= 1
            then(future)

        self._opener.submit(make).add_done_callback(lambda f: self.post(lambda: opened(f)))

    def make_room(self) -> None:
        """Raises BridgeError where no further session fits; one whose client is gone may have to go."""
        if len(self.hosted) + self._opening < self.limits.sessions:
            return
        orphans = [
            h for h in self.hosted.values()
            if not h.public and h.lease.owner in self.clients and self.clients[h.lease.owner].route is None
        ]  # fmt: skip
        if not orphans:
            raise BridgeError("limit", f"{self.limits.sessions} sessions are open, which is all; close one")
        self.end(min(orphans, key=lambda h: h.last_used))

    def end(self, hosted: Hosted) -> None:
        """Ends a session; its loop stops after the tick under way."""
        self.hosted.pop(hosted.id, None)
        self.publisher.forget(hosted.id)
        hosted.loop.stop()

    def send(self, client: Client, reply: protocol.Message, frames: np.ndarray | None = None) -> None:
        """Sends a message, and frames as they lie in memory. A client that reads nothing is cut off."""
        if client.route is None:
            return
        parts: list = [client.route, protocol.encode(reply)]
        client.unsent = [(t, n) for t, n in client.unsent if not t.done]
        if sum(n for _, n in client.unsent) > self.limits.unsent:
            self._lose(client)
            return
        try:
            if frames is None:
                self._router.send_multipart(parts, zmq.NOBLOCK)
                return
            self._router.send_multipart(parts, zmq.NOBLOCK | zmq.SNDMORE)
            data = np.ascontiguousarray(frames).data
            tracker = self._router.send(data, zmq.NOBLOCK, copy=False, track=True)
            client.unsent.append((tracker, frames.nbytes))
        except zmq.ZMQError:  # its queue is full, or it is gone
            self._lose(client)

    def tell_control(self, hosted: Hosted) -> None:
        """Tells everybody concerned who controls a session."""
        hosted.acts.release()
        lease = hosted.lease
        for token in {lease.holder, lease.asking, lease.owner}:
            if token in self.clients:
                self.send(self.clients[token], self.controlled(hosted, token, 0))

    def controlled(self, hosted: Hosted, token: str, id: int) -> protocol.Controlled:
        lease = hosted.lease
        names = [self.clients[t].name if t in self.clients else t for t in (lease.holder, lease.asking)]
        return protocol.Controlled(
            id=id, session=hosted.id, in_control=lease.holder == token, holder=names[0], asking=names[1]
        )

    def welcome(self, hello: protocol.Hello, route: bytes, fd: int) -> Client:
        """The client that says hello: a new one, or one that comes back by another connection."""
        client = self.clients.get(hello.resume)
        if client is None:
            if len(self.clients) >= self.limits.clients:
                raise BridgeError("limit", "too many clients are connected; try again later")
            client = Client(secrets.token_urlsafe(16), hello.client, route, fd)
            self.clients[client.token] = client
        if client.route is not None:
            self._routes.pop(client.route, None)
        client.route, client.fd, client.name, client.unsent = route, fd, hello.client, []
        self._routes[route] = client
        return client

    def _socket(self, kind: int, address: str, keys: ServerKeys | None) -> zmq.Socket:
        made = self._context.socket(kind)
        made.linger = 0
        made.ipv6 = "[" in address
        made.heartbeat_ivl, made.heartbeat_timeout = HEARTBEAT, 3 * HEARTBEAT
        made.handshake_ivl = 5000
        if keys is not None:
            made.curve_server = True
            made.curve_publickey, made.curve_secretkey = keys.public, keys.secret
        return made

    def _bind(self, bound: zmq.Socket, address: str) -> str:
        try:
            bound.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise PlayheadError(f"{address} cannot be bound to ({error.strerror}); choose another") from None
        return bound.last_endpoint.decode().rstrip("\0")

    def _do_work(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while not self._work.empty():
            self._work.get()()

    def _watch_connections(self) -> None:
        """Revokes at once what a client held whose connection has ended."""
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            if event["event"] == zmq.EVENT_DISCONNECTED:
                for client in [c for c in self._routes.values() if c.fd == event["value"]]:
                    self._lose(client)

    def _receive(self) -> None:
        """Handles what has come in, at most so much that work and watchers are not kept waiting."""
        for _ in range(64):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            route = parts[0].bytes
            fd = parts[-1].get(zmq.SRCFD) if len(parts) > 1 else -1
            self._handle(route, fd, [part.bytes for part in parts[1:]])

    def _handle(self, route: bytes, fd: int, parts: list[bytes]) -> None:
        client = self._routes.get(route) or Client("", "", route, fd)
        request_id = 0
        try:
            self._allow(route)
            if len(parts) != 1:
                raise BridgeError("malformed", f"a request is one message part, not {len(parts)}")
            try:
                request = protocol.decode_request(parts[0])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BridgeError("malformed", f"no request of this protocol: {str(error)[:200]}") from None
            request_id = request.id
            if isinstance(request, protocol.Hello):
                self._requests.hello(request, route, fd)
                return
            if not client.token:
                raise BridgeError("hello_first", "the first request of a connection is hello")
            client.last_used = time.monotonic()
            self._requests.handle(client, request)
        except BridgeError as error:
            self.send(client, protocol.Error(id=request_id, code=error.code, message=error.message))

    def _allow(self, route: bytes) -> None:
        """Raises BridgeError for a connection that asks more often than it may."""
        now, rate = time.monotonic(), self.limits.rate
        bucket = self._buckets.setdefault(route, Bucket(rate, now))
        bucket.left = min(float(rate), bucket.left + (now - bucket.at) * rate) - 1
        bucket.at = now
        if bucket.left < 0:
            bucket.left = max(bucket.left, -1.0)
            raise BridgeError("rate", f"more than {rate} requests a second; slow down")

    def _lose(self, client: Client) -> None:
        """A client's connection is gone: so is its control. Its sessions wait for it to come back."""
        if client.route is not None:
            self._routes.pop(client.route, None)
            self._buckets.pop(client.route, None)
        client.route, client.unsent, client.last_used = None, [], time.monotonic()
        for hosted in self.hosted.values():
            if client.token and client.token in (hosted.lease.holder, hosted.lease.asking):
                hosted.lease.release(client.token)
                self.tell_control(hosted)

    def _tell_applied(self, hosted: Hosted, tick: int) -> None:
        """On the loop's thread: receipts for the acts that a tick was the first to obey."""
        for token, act in hosted.acts.applied():
            self.post(lambda token=token, act=act: self.tell(
                token, protocol.Applied(id=act.id, session=hosted.id, tick=tick)
            ))  # fmt: skip

    def tell(self, token: str, message: protocol.Message) -> None:
        if token in self.clients:
            self.send(self.clients[token], message)

    def _sweep(self) -> None:
        """Ends what nobody has used for long, and forgets who is gone."""
        now, idle = time.monotonic(), self.limits.idle
        for hosted in list(self.hosted.values()):
            if hosted.public:
                continue
            if self.publisher.watched(hosted.id):
                hosted.last_used = now
            if now - hosted.last_used > idle or not hosted.loop.alive:
                self.end(hosted)
        owners = {h.lease.owner for h in self.hosted.values()}
        for client in list(self.clients.values()):
            gone = client.route is None and now - client.last_used > idle
            if gone or (client.route is None and client.token not in owners and now - client.last_used > 5):
                del self.clients[client.token]
        for route in [r for r, b in self._buckets.items() if r not in self._routes and now - b.at > 5]:
            del self._buckets[route]

    def _close(self) -> None:
        for hosted in list(self.hosted.values()):
            if not hosted.public:
                self.end(hosted)
        self._opener.shutdown(cancel_futures=True)
        self.publisher.close()
        self._router.disable_monitor()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(0)
        self._waker.close()
        self._woken.close()


def serve_in_background(server: Server) -> threading.Thread:
    """Runs a server on a thread of its own until its `stop`."""
    thread = threading.Thread(target=server.run, name="bridge", daemon=True)
    thread.start()
    return thread
