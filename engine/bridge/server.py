"""The server of the bridge: one thread that talks to clients, and a loop for every session.

Requests come in by a ROUTER socket, frames for watchers go out by an XPUB socket. This thread never computes
a tick and never waits for one: whatever needs a session is asked of its loop, and answered when that is done.
"""

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from playhead.engine.bridge import protocol
from playhead.engine.bridge.auth import ServerKeys, check_address
from playhead.engine.bridge.connections import Client, Connection, Connections, Limits
from playhead.engine.bridge.hall import Hall
from playhead.engine.bridge.hosted import Hosted
from playhead.engine.bridge.keeping import Keeping
from playhead.engine.bridge.lease import LOCAL, Control, Lease
from playhead.engine.bridge.opener import Opener
from playhead.engine.bridge.protocol import BridgeError
from playhead.engine.bridge.publisher import Publisher
from playhead.engine.bridge.requests import Requests
from playhead.engine.bridge.slices import Slices
from playhead.engine.loop import Loop
from playhead.engine.tick import Tick
from playhead.world.errors import ActionError, PlayheadError
from playhead.world.terminal import printable

HEARTBEAT = 1000
"""Milliseconds between two heartbeats of ZeroMQ; a connection that misses three is cut."""

COPIED = 256 * 1024
"""Bytes of frames up to which they are copied as they are sent. Larger ones are sent from where they lie: a
thread of pyzmq's has to give these back, which costs milliseconds now and then."""
FAULTS = 20
"""Turns of the server that may fail one after the other, before it gives up."""
ENDING = 1.0
"""Seconds that a server which stops waits for what cannot be broken off, all together: 3 s are all it has, on
a busy machine too."""
MOMENT = 0.0005
"""Seconds for which requests are handled before it is looked what else there is to do."""


class Server:
    """Serves the worlds of a hall, or the one session of a window (`add`)."""

    def __init__(
        self,
        hall: Hall,
        address: str,
        keys: ServerKeys | None = None,
        limits: Limits | None = None,
        frames_port: int | None = None,
        recordings: Path | None = None,
    ) -> None:
        """Binds at once; without a `frames_port` to the address's next port or, if that is taken, to any.

        `recordings`: the folder that clients may save to. Raises PlayheadError for an address that cannot be
        had, or not without keys, and for a folder that cannot be written.
        """
        check_address(address, keys)
        self.hall, self.limits = hall, limits or Limits()
        self.keeping = Keeping(recordings)
        self.hosted: dict[str, Hosted] = {}
        self._context = zmq.Context()
        # Without keys too: ZeroMQ then speaks to nobody who does not shake hands as it has since version 3.
        # Without a handshake a web page's POST passes for a message of version 1.
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        if keys is not None:
            self._authenticator.configure_curve_callback("*", credentials_provider=keys)
        self._router = self._socket(zmq.ROUTER, address, keys)
        self._router.maxmsgsize = protocol.MAX_REQUEST
        self._router.rcvhwm, self._router.sndhwm = 64, 256
        self._router.router_mandatory = True
        self._router.copy_threshold = COPIED
        self.connections = Connections(self._router, self.limits, self._lost)
        self._frames = self._socket(zmq.XPUB, address, keys)
        self._frames.maxmsgsize = 1024
        self.publisher = Publisher(self._frames, self.post, lambda session: session in self.hosted)
        self.address = self._bind(self._router, address)
        self.frames_port = self._bind_frames(frames_port)
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self.opener, self.saver = Opener(self), Slices("saver")
        self._ending: list[Loop] = []
        self._next_sweep = time.monotonic() + 1
        self._stopping = False
        self.requests = Requests(self)
        self.controls: Callable[[Control], None] = lambda control: None

    def run(self, failed: Callable[[PlayheadError], None] = lambda error: None) -> None:
        """Serves until `stop`. Raises PlayheadError where it cannot go on.

        `failed` is told so before the sessions are ended: a window is to say why, not merely to close.
        """
        poller = zmq.Poller()
        monitors = self.connections.monitor, self.publisher.monitor
        for source in (self._router, self._frames, *monitors, self._woken):
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
        self._do_work()
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

    def post(self, work: Callable[[], None]) -> None:
        """Has `work` called on the server's thread; may be called by any thread."""
        self._work.put(work)
        with contextlib.suppress(BlockingIOError, OSError):  # it is being woken already, or gone
            self._waker.send(b".")

    def rescue(self) -> None:
        """Has what killed servers have left among the recordings saved, while clients are served."""
        log = logging.getLogger("playhead")

        def ended(future: "Future[None]") -> None:
            error = future.exception()
            if error is not None and not isinstance(error, BridgeError):
                log.error("what a server that was killed has left could not be saved", exc_info=error)

        self.saver.submit("", self.keeping.rescuing(log.warning)).add_done_callback(ended)

    def add(self, hosted: Hosted) -> None:
        """Takes in a session whose loop runs, or will."""
        self.hosted[hosted.id] = hosted
        hosted.loop.subscribe(lambda tick: self.publisher.take(hosted, tick))
        hosted.loop.subscribe(lambda tick: self._remember(hosted, tick))
        hosted.loop.subscribe(lambda tick: self._tell_applied(hosted, tick.number))

    def end(self, hosted: Hosted, reason: str, but: str = "") -> None:
        """Ends a session, and tells those concerned but one; its loop stops after the tick under way."""
        self.hosted.pop(hosted.id, None)
        self.publisher.forget(hosted.id)
        hosted.loop.stop()
        if not hosted.public:  # else its window sees to it
            self._ending.append(hosted.loop)
        for token in hosted.concerned - {but}:
            self.tell(token, protocol.Ended(session=hosted.id, reason=printable(reason)))

    def send(self, client: Client, reply: protocol.Message, frames: np.ndarray | None = None) -> None:
        """Sends a message and, behind it, frames. A client that reads nothing is cut off."""
        if client.connection is not None:
            self._send(client.connection, reply, frames)

    def tell(self, token: str, message: protocol.Message) -> None:
        """Sends a message to a client, if there still is one of that token."""
        if token in self.connections.clients:
            self.send(self.connections.clients[token], message)

    def tell_control(self, hosted: Hosted, before: Lease) -> None:
        """Tells everybody concerned, now or `before`, who controls a session and who asks for it.

        Where the control has changed hands, all that is held is let go of, and a window's session goes on by
        the clock; where nobody has it, the session stands still.
        """
        lease = hosted.lease
        if lease.holder != before.holder:
            for token, act in hosted.acts.release():
                self.tell(token, protocol.Superseded(id=act.id, session=hosted.id))
            if lease.holder == LOCAL:
                hosted.set_clock("live")
            hosted.follow_control()
        for token in hosted.concerned | before.concerned:
            self.tell(token, self.controlled(hosted, token, 0))
        self.show_control(hosted)

    def show_control(self, hosted: Hosted) -> None:
        """Has the window show who controls its session, and how."""
        if hosted.public:
            holder, asking = (
                "" if token == LOCAL else self.name(token)
                for token in (hosted.lease.holder, hosted.lease.asking)
            )
            self.controls(Control(holder, asking, hosted.clock == "lockstep"))

    def controlled(self, hosted: Hosted, token: str, id: int) -> protocol.Controlled:
        lease = hosted.lease
        return protocol.Controlled(
            id=id, session=hosted.id, in_control=lease.holder == token, holder=self.name(lease.holder),
            asking=self.name(lease.asking),
        )  # fmt: skip

    def name(self, token: str) -> str:
        """What a holder of the control is called."""
        clients = self.connections.clients
        return clients[token].name if token in clients else token and LOCAL

    def _send(
        self, connection: Connection, reply: protocol.Message, frames: np.ndarray | None = None
    ) -> None:
        parts = [connection.route, protocol.encode(reply)]
        try:
            if frames is None:
                self._router.send_multipart(parts, zmq.NOBLOCK)
                return
            self.connections.check_unread(connection)
            self._router.send_multipart(parts, zmq.NOBLOCK | zmq.SNDMORE)
            data = np.ascontiguousarray(frames).data
            connection.sent(self._router.send(data, zmq.NOBLOCK, copy=False, track=True), frames.nbytes)
        except zmq.ZMQError:  # its queue is full, or it is gone
            self.connections.cut(connection)

    def _socket(self, kind: int, address: str, keys: ServerKeys | None) -> zmq.Socket[bytes]:
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

    def _do_work(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while not self._work.empty():
            try:
                self._work.get()()
            except Exception:  # a fault of ours, and no reason to leave everybody else without a server
                logging.getLogger("playhead").exception("the bridge could not finish a piece of work")

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
                raise BridgeError("rate", f"more than {self.limits.rate} requests a second; slow down")
            try:
                request = protocol.decode_request(parts[0])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BridgeError("malformed", f"no request of this protocol: {str(error)[:200]}") from None
            self.requests.handle(connection, request)
        except Exception as error:
            id = protocol.request_id(parts[0]) if parts else 0
            self._send(connection, self.error(id, error))

    @staticmethod
    def error(id: int, error: BaseException) -> protocol.Error:
        """What a request is answered with that could not be carried out."""
        code: protocol.Code = "ended"
        if isinstance(error, BridgeError):
            code, said = error.code, error.message
        elif isinstance(error, ActionError):
            code, said = "bad_action", str(error)
        else:
            said = f"the session could not go on: {error}"
            if not isinstance(error, PlayheadError):
                logging.getLogger("playhead").error(
                    "the bridge could not carry out a request", exc_info=error
                )
        return protocol.Error(id=id, code=code, message=printable(said, 2000))

    def _lost(self, client: Client) -> None:
        """A client's connection is gone: so is its control, and what it waited for. Its sessions wait."""
        self.opener.cancel(client.token)
        self.saver.cancel(client.token)
        for hosted in self.hosted.values():
            hosted.attached.discard(client.token)
            before = replace(hosted.lease)
            if hosted.lease.release(client.token):
                self.tell_control(hosted, before)

    def _remember(self, hosted: Hosted, tick: Tick) -> None:
        """On the loop's thread: adds a tick to a session's past."""
        if hosted.remember(tick):
            self.post(lambda: self.opener.keep_past(hosted))

    def _tell_applied(self, hosted: Hosted, tick: int) -> None:
        """On the loop's thread: receipts for the acts that a tick was the first to obey."""
        for token, act in hosted.acts.applied():
            receipt = protocol.Applied(id=act.id, session=hosted.id, tick=tick)
            self.post(partial(self.tell, token, receipt))

    def _sweep(self) -> None:
        """Ends what nobody has used for long, and forgets who is gone."""
        now, idle = time.monotonic(), self.limits.idle
        for hosted in list(self.hosted.values()):
            if hosted.public:
                continue
            if self.publisher.watched(hosted.id):
                hosted.last_used = now
            if not hosted.loop.alive:
                self.end(hosted, "it could not go on")
            elif now - hosted.last_used > idle:
                self.end(hosted, f"nobody has used it for {idle:g} seconds")
        self.connections.sweep({h.lease.owner for h in self.hosted.values()})
        for loop in [loop for loop in self._ending if not loop.alive]:
            self._ending.remove(loop)
            if loop.timeline is not None:
                self.keeping.discard(loop.timeline)

    def _close(self) -> None:
        for hosted in list(self.hosted.values()):
            self.end(hosted, "its window was closed" if hosted.public else "the server stops")
        for part in (self.opener, self.saver, self.publisher):
            part.close()
        until = time.monotonic() + ENDING
        # First those that would leave half a file: a tick that takes longer leaves nothing behind.
        waits = self.saver.wait, self.opener.wait, self.publisher.wait, *(loop.wait for loop in self._ending)
        for wait in waits:
            wait(max(0.0, until - time.monotonic()))
        for loop in self._ending:
            if loop.timeline is not None:
                self.keeping.discard(loop.timeline)
        self.keeping.close()
        self.connections.close()
        self._authenticator.stop()
        self._context.destroy(100)
        self._waker.close()
        self._woken.close()


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
