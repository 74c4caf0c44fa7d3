"""The server of the bridge: one thread that talks to clients, and a loop for every session.

Requests come in by a ROUTER socket, frames for watchers go out by an XPUB socket. This thread never computes
a tick and never waits for one: whatever needs a session is asked of its loop, and answered when that is done.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator

from playhead.engine.bridge.server.connection import Connection, KnownClient
from playhead.engine.bridge.server.connections import Connections
from playhead.engine.bridge.server.dispatcher import Dispatcher, FindHost
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.opener import Opener
from playhead.engine.bridge.server.publisher import Publisher
from playhead.engine.bridge.server.recordings import Recordings
from playhead.engine.bridge.server.refusal import refusal
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.server.slices import Slices
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.auth import ListedKeys, ServerKeys, check_address
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.bridge.work_queue import WorkQueue
from playhead.world.errors import PlayheadError

HEARTBEAT = 1000
"""Milliseconds between two heartbeats of ZeroMQ; a connection that misses three is cut."""

FAULTS = 20
"""Turns of the server that may fail one after the other, before it gives up."""
ENDING = 1.0
"""Seconds that a server which stops waits for what cannot be broken off, all together: 3 s are all it has, on
a busy machine too."""
MOMENT = 0.0005
"""Seconds for which requests are handled before it is looked what else there is to do."""


class Server:
    """Serves the worlds of a registry, or the one session of a window (`sessions.add`).

    `post` has something called on the server's thread.
    """

    def __init__(
        self,
        registry: Registry,
        address: str | None,
        keys: ServerKeys | ListedKeys | None = None,
        limits: Limits | None = None,
        frames_port: int | None = None,
        recordings: Path | None = None,
        find_host: FindHost | None = None,
    ) -> None:
        """Binds at once; without a `frames_port` to the address's next port or, if that is taken, to any.

        `address` None: nothing is bound, and connections come by other doors (`connections.join`).
        `recordings`: the folder that clients may save to. `find_host`: who finds servers that play sessions,
        where this one plays none. Raises PlayheadError for an address that cannot be
        had, or not without keys, and for a folder that cannot be written.
        """
        if address is not None:
            check_address(address, keys)
        self._limits, self.recordings = limits or Limits(), Recordings(recordings)
        self._context = zmq.Context()
        # Without keys too: ZeroMQ then speaks to nobody who does not shake hands as it has since version 3.
        # Without a handshake a web page's POST passes for a message of version 1.
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        if keys is not None:
            self._authenticator.configure_curve_callback("*", credentials_provider=keys)
        self._router = self._socket(zmq.ROUTER, address or "", keys)
        self._router.maxmsgsize = protocol.MAX_REQUEST
        self._router.rcvhwm, self._router.sndhwm = 64, 256
        self.connections = Connections(self._router, self._limits, self._lost)
        self._frames = self._socket(zmq.XPUB, address or "", keys)
        self._frames.maxmsgsize = 1024
        self._work = WorkQueue(_log_fault)
        self.post = self._work.post
        self.publisher = Publisher(self._frames, self.post, lambda session: session in self.sessions)
        self.address = "" if address is None else self._bind(self._router, address)
        self.frames_port = 0 if address is None else self._bind_frames(frames_port)
        self.connections.frames_port = self.frames_port
        self.sessions = Sessions(self._limits, self.recordings, self.connections, self.publisher, self.post)
        self.opener, self.saver = Opener(registry, self.sessions, self.post), Slices("saver")
        self._requests = Dispatcher(
            registry, self.connections, self.sessions, self.opener, self.saver, self.post, find_host
        )
        self._next_sweep = time.monotonic() + 1
        self._stopping = False

    def run(self, failed: Callable[[PlayheadError], None] = lambda error: None) -> None:
        """Serves until `stop`. Raises PlayheadError where it cannot go on.

        `failed` is told so before the sessions are ended: a window is to say why, not merely to close.
        """
        poller = zmq.Poller()
        monitors = self.connections.monitor, self.publisher.monitor
        for source in (self._router, self._frames, *monitors, self._work.woken):
            poller.register(source, zmq.POLLIN)
        faults = 0
        try:
            while not self._stopping:
                try:
                    self._turn(dict(poller.poll(500)))
                    faults = 0
                except Exception as error:  # a fault of ours, no reason to leave all without a server
                    faults += 1
                    logging.getLogger("playhead").exception("the bridge met with a fault and goes on")
                    if faults == FAULTS:
                        sentence = f"the bridge cannot go on ({error}); what is recorded is kept"
                        told = PlayheadError(sentence)
                        failed(told)
                        raise told from error
        finally:
            self._close()

    def _turn(self, ready: dict[object, int]) -> None:
        """Does what there is to do: work, and what has come in at the sockets that are `ready`."""
        self._work.do()
        if self._frames in ready or self.publisher.monitor in ready:
            self.publisher.subscriptions()
        if self.connections.monitor in ready:
            self.connections.watch()
        if self._router in ready:
            self._receive()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + 1
            self._sweep()

    def stop(self) -> None:
        """Ends `run`; may be called by any thread."""
        self._stopping = True
        self.post(lambda: None)

    def rescue(self) -> None:
        """Has what killed servers have left among the recordings saved, while clients are served."""
        log = logging.getLogger("playhead")

        def ended(future: "Future[None]") -> None:
            error = future.exception()
            if error is not None and not isinstance(error, BridgeError):
                log.error("what a server that was killed has left could not be saved", exc_info=error)

        self.saver.submit("", self.recordings.rescuing(log.warning)).add_done_callback(ended)

    def _socket(self, kind: int, address: str, keys: ServerKeys | ListedKeys | None) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        made.linger = 0
        made.ipv6 = "[" in address
        made.heartbeat_ivl, made.heartbeat_timeout = HEARTBEAT, 3 * HEARTBEAT
        made.handshake_ivl = 5000
        made.zap_domain = b"*"  # without one, the authenticator is not asked about those who have no keys
        if keys is not None:
            made.curve_server = True
            made.curve_publickey, made.curve_secretkey = keys.public, keys.secret
        return made

    def _bind(self, bound: zmq.Socket[bytes], address: str) -> str:
        try:
            bound.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise PlayheadError(f"{address} cannot be bound to ({error.strerror}); choose another") from None
        return bound.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _bind_frames(self, wanted: int | None) -> int:
        host, _, port = self.address.rpartition(":")
        if wanted is None:
            with contextlib.suppress(zmq.ZMQError):
                self._frames.bind(f"{host}:{int(port) + 1}")
                return int(port) + 1
        return int(self._bind(self._frames, f"{host}:{wanted or '*'}").rpartition(":")[2])

    def _receive(self) -> None:
        """Handles what has come in, but keeps work and watchers waiting for a moment only."""
        until = time.perf_counter() + MOMENT
        while time.perf_counter() < until:
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                fd = parts[-1].get(zmq.SRCFD) if len(parts) > 1 else -1
            except zmq.ZMQError:  # nobody's whom we know the connection of, so nobody's who is answered
                continue
            self._handle(self.connections.find(parts[0].bytes, fd), [part.bytes for part in parts[1:]])

    def _handle(self, connection: Connection, parts: list[bytes]) -> None:
        try:
            if len(parts) != 1:
                raise BridgeError("malformed", f"a request is one message part, not {len(parts)}")
            if not connection.allowance.take():
                raise BridgeError("rate", f"more than {self._limits.rate} requests a second; slow down")
            try:
                request = protocol.decode_request(parts[0])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BridgeError("malformed", f"no request of this protocol: {str(error)[:200]}") from None
        except Exception as error:
            id = protocol.request_id(parts[0]) if parts else 0
            self.connections.answer(connection, refusal(id, error))
        else:
            self.obey(connection, request)

    def obey(self, connection: Connection, request: protocol.Message) -> None:
        """On the server's thread: carries out a request, or answers why it is refused."""
        try:
            self._requests.handle(connection, request)
        except Exception as error:
            self.connections.answer(connection, refusal(request.id, error))

    def _lost(self, client: KnownClient) -> None:
        """A client's connection is gone: so is its control, and what it waited for."""
        self.opener.cancel(client.token)
        self.saver.cancel(client.token)
        self.sessions.leave(client)

    def _sweep(self) -> None:
        """Ends what nobody has used for long, and forgets who is gone."""
        self.sessions.sweep()
        self.connections.sweep(self.sessions.owners)

    def _close(self) -> None:
        self.sessions.close()
        for part in (self.opener, self.saver, self.publisher):
            part.close()
        until = time.monotonic() + ENDING
        # First those that would leave half a file: a tick that takes longer leaves nothing behind.
        for wait in (self.saver.wait, self.opener.wait, self.publisher.wait):
            wait(max(0.0, until - time.monotonic()))
        self.sessions.wait(lambda: until - time.monotonic())
        self.sessions.discard()
        self.recordings.close()
        self.connections.close()
        self._authenticator.stop()
        self._context.destroy(100)
        self._work.close()


def serve_in_background(
    server: Server, failed: Callable[[PlayheadError], None] = lambda error: None
) -> threading.Thread:
    """Runs a server on a thread of its own until its `stop`. `failed` is told, there, why it cannot go on."""

    def run() -> None:
        with contextlib.suppress(PlayheadError):  # it was told
            server.run(failed)

    thread = threading.Thread(target=run, name="bridge", daemon=True)
    thread.start()
    return thread


def _log_fault(error: Exception) -> None:
    """Of a piece of work: a fault of ours, and no reason to leave everybody else without a server."""
    logging.getLogger("playhead").error("the bridge could not finish a piece of work", exc_info=error)
