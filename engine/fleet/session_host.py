"""A session host: a server of the bridge in a process that Ray placed, and restarts where it dies."""

import logging
import os
import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import zmq

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.opener import OpenedSession
from playhead.engine.bridge.server.placement import session_bytes
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire.auth import ListedKeys
from playhead.engine.fleet.kept_session import LARGEST, KeptSession
from playhead.engine.session import Session, Snapshot
from playhead.engine.work import Work
from playhead.world.errors import PlayheadError
from playhead.world.offload.memory_budget import MemoryBudget

ANSWER = 60.0
"""Seconds that a session or the keeper is waited for."""


@dataclass(frozen=True)
class HostOptions:
    """What every host of a fleet serves, as `serve` has it.

    `secured`: with keys, at its machine's address in the network; else on loopback. `keep`: seconds from one
    snapshot of a session that is kept to the next.
    """

    worlds: tuple[str, ...]
    scenes: tuple[Path, ...]
    device: str
    precision: str | None
    decoder: str | None
    cache: str | None
    vram: str | None
    ram: str | None
    limits: Limits
    secured: bool
    keep: float


@dataclass(frozen=True)
class HostPlace:
    """Where a host is reached, its public key (empty: none is needed), and what it has room for.

    `free`: bytes of its device. `room`: sessions more that it takes.
    """

    address: str
    key: str
    free: int
    room: int


class SnapshotKeeper(Protocol):
    """Who keeps snapshots (`Keeper`), wherever that is."""

    def keep(self, host: str, session: str, token: str, data: bytes) -> None: ...

    def report(self, host: str, sessions: list[str]) -> None: ...


class SessionHost:
    """A server whose sessions are kept, and which goes on with those of others. For any thread."""

    def __init__(self, options: HostOptions, keeper: SnapshotKeeper, address: str) -> None:
        """`address`: of this machine in the network. Raises PlayheadError for worlds that cannot be had."""
        self.id = secrets.token_urlsafe(8)  # another one after a restart
        self._options, self._keeper = options, keeper
        self._keys: ListedKeys | None = None
        if options.secured:
            self._keys = ListedKeys(*zmq.curve_keypair())
        limits = options.limits
        budget = MemoryBudget.parse(options.vram, options.ram, limits.memory * 2**20)
        given = options.device, options.precision, options.decoder, budget, options.cache
        self._registry = Registry.load(options.worlds, options.scenes, *given, sessions=limits.sessions)
        host = address if options.secured else "127.0.0.1"
        self._server = Server(self._registry, f"tcp://{host}:*", self._keys, limits)
        self._serving = serve_in_background(self._server, _die)
        self._stopping = threading.Event()
        self._keeping = threading.Thread(target=self._keep_all, name="keeping", daemon=True)
        self._keeping.start()

    def place(self, allowed: list[bytes]) -> HostPlace:
        """Where it is. `allowed`: the public keys of the clients who may connect from now on."""
        if self._keys is not None:
            self._keys.allowed = frozenset(allowed)
        sessions, key = self._server.sessions, self._keys.public.decode() if self._keys is not None else ""
        world = next(iter(self._registry.worlds.values()))
        room = self._options.limits.sessions - len(sessions) - self._server.opener.opening
        return HostPlace(self._server.address, key, self._registry.placement.left(world), room)

    def plays(self, session: str) -> bool:
        """Whether it plays a session."""
        return session in self._server.sessions

    def adopt(self, data: bytes) -> str:
        """Goes on with a session that another host played. Returns this host's id. Raises PlayheadError."""
        kept, done = KeptSession.unpack(data), Future[None]()

        def begin() -> None:
            try:
                self._adopt(kept, done)
            except BaseException as error:
                done.set_exception(error)

        self._server.post(begin)
        done.result(ANSWER)
        return self.id

    def stop(self) -> None:
        """Ends it, and its sessions here; what is kept of them stays."""
        self._stopping.set()
        self._keeping.join(ANSWER)
        self._server.stop()
        self._serving.join(ANSWER)

    def _adopt(self, kept: KeptSession, done: "Future[None]") -> None:
        """On the server's thread: as if its owner had opened it here, but that nobody controls it yet."""
        server, registry = self._server, self._registry
        if kept.id in server.sessions:
            done.set_result(None)
            return
        world = registry.world(kept.world)
        scene = registry.scene(world, kept.scene)
        clients = server.connections.clients
        clients.setdefault(kept.token, KnownClient(kept.token, kept.name))

        def make() -> Work[OpenedSession]:
            session = Session.unstarted(world, scene.context, scene)
            yield
            session.restore(kept.snapshot_on(world.device))
            return OpenedSession(session)

        def opened(future: "Future[HostedSession]") -> None:
            error = future.exception()
            if error is not None:
                done.set_exception(error)
                return
            hosted = future.result()
            hosted.lease.holder = ""  # until its owner is here; a live session stands still so long
            hosted.set_clock(kept.clock)
            done.set_result(None)

        server.opener.open(kept.token, world, scene, "lockstep", make, opened, id=kept.id)

    def _keep_all(self) -> None:
        """On a thread of its own: has the keeper keep every session that has gone on, again and again."""
        kept: dict[str, object] = {}
        while not self._stopping.wait(self._options.keep):
            try:
                sessions = {hosted.id: hosted for hosted in self._server.sessions}
                for hosted in sessions.values():
                    self._keep(hosted, kept)
                kept = {id: state for id, state in kept.items() if id in sessions}
                self._keeper.report(self.id, [*sessions])
            except Exception as error:  # the keeper is restarted, too: everything is kept anew then
                logging.getLogger("playhead").warning("sessions are not kept just now: %s", error)
                kept.clear()

    def _keep(self, hosted: HostedSession, kept: dict[str, object]) -> None:
        """Has a session kept, if it has gone on since that was done last."""
        stats, owner = hosted.loop.stats, hosted.lease.owner
        if stats is None or hosted.loop.world is None or session_bytes(hosted.world) > LARGEST:
            return
        now = stats.tick, stats.seed, stats.steps, hosted.clock, hosted.scene.name
        if kept.get(hosted.id) == now:
            return
        asked: Future[Snapshot] = hosted.loop.ask(lambda session: session.snapshot())
        try:
            snapshot = asked.result(ANSWER)
        except PlayheadError:  # it has ended meanwhile
            return
        data = KeptSession.of(hosted, self._server.connections.name(owner), snapshot).pack()
        self._keeper.keep(self.id, hosted.id, owner, data)
        kept[hosted.id] = now


def _die(error: PlayheadError) -> None:
    """A host whose server cannot go on ends its process, so that Ray begins another."""
    logging.getLogger("playhead").error("a session host ends: %s", error)
    os._exit(1)
