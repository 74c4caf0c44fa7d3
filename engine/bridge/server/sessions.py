"""The sessions of a server: those that are open, who controls them, and the memory that they may take."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.connections import Connections
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.lease import ControlState, Lease
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.publisher import Publisher
from playhead.engine.bridge.server.recordings import Recordings
from playhead.engine.bridge.server.registry import session_bytes
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.protocol import LOCAL, BridgeError
from playhead.engine.loop import Loop
from playhead.engine.tick import Tick
from playhead.world.terminal import printable
from playhead.world.world import World


class Sessions:
    """Takes sessions in, finds and ends them, and hands their control on. Lives on the server's thread.

    `controls` is told who controls the session of a window, and how, whenever that has changed. `reserved`:
    bytes of sessions that are being opened.
    """

    def __init__(
        self,
        limits: Limits,
        recordings: Recordings,
        connections: Connections,
        publisher: Publisher,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        """`post` has something called on the server's thread."""
        self.limits, self.recordings, self.reserved = limits, recordings, 0
        self._connections, self._publisher, self._post = connections, publisher, post
        self._open: dict[str, HostedSession] = {}
        self._ending: list[Loop] = []
        self.controls: Callable[[ControlState], None] = lambda control: None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[HostedSession]:
        return iter(list(self._open.values()))

    def __contains__(self, id: str) -> bool:
        return id in self._open

    @property
    def owners(self) -> set[str]:
        """The tokens of the clients whose sessions these are."""
        return {hosted.lease.owner for hosted in self}

    @property
    def worlds(self) -> list[World | None]:
        """The worlds that they play: of several copies, each one's own."""
        return [hosted.loop.world for hosted in self]

    def add(self, hosted: HostedSession) -> None:
        """Takes in a session whose loop runs, or will."""
        self._open[hosted.id] = hosted
        hosted.loop.subscribe(lambda tick: self._publisher.take(hosted, tick))
        hosted.loop.subscribe(lambda tick: self._remember(hosted, tick))
        hosted.loop.subscribe(lambda tick: self._tell_applied(hosted, tick.number))

    def end(self, hosted: HostedSession, reason: str, but: str = "") -> None:
        """Ends a session, and tells those concerned but one; its loop stops after the tick under way."""
        self._open.pop(hosted.id, None)
        self._publisher.forget(hosted.id)
        hosted.loop.stop()
        if not hosted.public:  # else its window sees to it
            self._ending.append(hosted.loop)
        for token in hosted.concerned - {but}:
            self._connections.tell(token, protocol.EndedPush(session=hosted.id, reason=printable(reason)))

    def find(self, id: str) -> HostedSession:
        """A session that is used now. Raises BridgeError where there is none."""
        hosted = self._open.get(id)
        if hosted is None:
            raise BridgeError("unknown_session", "there is no such session; it was closed, or expired")
        hosted.last_used = time.monotonic()
        return hosted

    def controlled(self, client: KnownClient, id: str) -> HostedSession:
        """A session that a client controls. Raises BridgeError where it does not."""
        hosted = self.find(id)
        if not hosted.lease.holder and client.token == hosted.lease.owner:
            before = replace(hosted.lease)
            hosted.lease.holder = client.token  # its owner came back
            self.tell_control(hosted, before)
        if hosted.lease.holder != client.token:
            raise BridgeError("not_in_control", "another one controls this session; ask by control, take")
        return hosted

    def hand_over(self, hosted: HostedSession) -> None:
        """What the person at a window wants: the control back or, if it is there, to give it to who asks."""
        before, lease = replace(hosted.lease), hosted.lease
        if lease.holder != LOCAL:
            lease.take(LOCAL)
        else:
            lease.grant(LOCAL)
        if lease != before:
            self.tell_control(hosted, before)

    def tell_control(self, hosted: HostedSession, before: Lease) -> None:
        """Tells everybody concerned, now or `before`, who controls a session and who asks for it.

        Where the control has changed hands, all that is held is let go of, and a window's session goes on by
        the clock; where nobody has it, the session stands still.
        """
        lease = hosted.lease
        if lease.holder != before.holder:
            for token, act in hosted.acts.release():
                self._connections.tell(token, protocol.SupersededPush(id=act.id, session=hosted.id))
            if lease.holder == LOCAL:
                hosted.set_clock("live")
            hosted.follow_control()
        for token in hosted.concerned | before.concerned:
            self._connections.tell(token, self.control_of(hosted, token))
        self.show_control(hosted)

    def show_control(self, hosted: HostedSession) -> None:
        """Has the window show who controls its session, and how."""
        if hosted.public:
            holder, asking = (
                "" if token == LOCAL else self._connections.name(token)
                for token in (hosted.lease.holder, hosted.lease.asking)
            )
            self.controls(ControlState(holder, asking, hosted.clock == "lockstep"))

    def control_of(self, hosted: HostedSession, token: str, id: int = 0) -> protocol.ControlReply:
        """Who controls a session, as its client of that token is told."""
        lease, name = hosted.lease, self._connections.name
        return protocol.ControlReply(
            id=id, session=hosted.id, in_control=lease.holder == token, holder=name(lease.holder),
            asking=name(lease.asking),
        )  # fmt: skip

    def leave(self, client: KnownClient) -> None:
        """A client's connection is gone, and its control with it. Its sessions wait."""
        for hosted in self:
            hosted.attached.discard(client.token)
            before = replace(hosted.lease)
            if hosted.lease.release(client.token):
                self.tell_control(hosted, before)

    def check_room(self, opening: int) -> None:
        """Raises BridgeError where no session fits beside those that are open and `opening`.

        Those that wait for their clients stay.
        """
        most = self.limits.sessions
        if len(self) + opening >= most:
            raise BridgeError("limit", f"{most} sessions are open, which is all; close one")

    def check_memory(self, more: int) -> None:
        """Raises BridgeError where so many bytes more would be more than the server lends out.

        Snapshots that only make branches quick are let go first.
        """
        if self._fits(more):
            return
        for hosted in self:
            hosted.past.forget()
        if not self._fits(more):
            most = self.limits.memory
            raise BridgeError("limit", f"the {most} MB for sessions and snapshots are used up; close some")

    def _fits(self, more: int) -> bool:
        sizes = {world: session_bytes(world) for world in {h.loop.world for h in self} if world is not None}
        held = sum(
            sizes[world] * (1 + len(h.snapshots) + h.pending_snapshots + len(h.past)) + h.seek_memory
            for h in self if (world := h.loop.world) in sizes
        )  # fmt: skip
        return held + self.reserved + more <= self.limits.memory * 2**20

    def _remember(self, hosted: HostedSession, tick: Tick) -> None:
        """On the loop's thread: adds a tick to a session's past."""
        if hosted.remember(tick):
            self._post(lambda: self._keep_past(hosted))

    def _keep_past(self, hosted: HostedSession) -> None:
        """Has a snapshot of a session's present kept for branches, if there is room for it."""
        world = hosted.loop.world
        if world is not None and hosted.id in self and self._fits(session_bytes(world)):
            hosted.loop.ask(hosted.snapshot_past)

    def _tell_applied(self, hosted: HostedSession, tick: int) -> None:
        """On the loop's thread: receipts for the acts that a tick was the first to obey."""
        for token, act in hosted.acts.applied():
            receipt = protocol.AppliedPush(id=act.id, session=hosted.id, tick=tick)
            self._post(partial(self._connections.tell, token, receipt))

    def sweep(self) -> None:
        """Ends what nobody has used for long."""
        now, idle = time.monotonic(), self.limits.idle
        for hosted in self:
            if hosted.public:
                continue
            if self._publisher.watched(hosted.id):
                hosted.last_used = now
            if not hosted.loop.alive:
                self.end(hosted, "it could not go on")
            elif now - hosted.last_used > idle:
                self.end(hosted, f"nobody has used it for {idle:g} seconds")
        for loop in [loop for loop in self._ending if not loop.alive]:
            self._ending.remove(loop)
            self._discard(loop)

    def close(self) -> None:
        """Ends them all, each after its tick under way."""
        for hosted in self:
            self.end(hosted, "its window was closed" if hosted.public else "the server stops")

    def wait(self, left: Callable[[], float]) -> None:
        """Waits for every loop's end while seconds are `left`: a tick may not be torn down."""
        for loop in self._ending:
            loop.wait(max(0.0, left()))

    def discard(self) -> None:
        """Takes away what was recorded of all that have ended."""
        for loop in self._ending:
            self._discard(loop)

    def _discard(self, loop: Loop) -> None:
        if loop.timeline is not None:
            self.recordings.discard(loop.timeline)
