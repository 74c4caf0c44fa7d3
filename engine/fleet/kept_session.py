"""A session as it is kept apart from its host, so that another one may go on with it."""

import hmac
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.wire.protocol import Clock
from playhead.engine.session import Snapshot

LARGEST = 64 * 2**20
"""Bytes of a session's cache up to which it is kept: what is larger begins anew where its host dies."""


@dataclass(frozen=True)
class KeptSession:
    """Where a session stands, its state in main memory, and whose it is: its owner's token and name."""

    id: str
    token: str
    name: str
    world: str
    scene: str
    clock: Clock
    snapshot: Snapshot

    @classmethod
    def of(cls, hosted: HostedSession, name: str, snapshot: Snapshot) -> "KeptSession":
        """What is to be kept of a session that is hosted."""
        here = replace(snapshot, state=_each(snapshot.state, Tensor.cpu))
        world = hosted.world.config.name
        return cls(hosted.id, hosted.lease.owner, name, world, hosted.scene.name, hosted.clock, here)

    def snapshot_on(self, device: torch.device) -> Snapshot:
        """Its snapshot with its state on a device."""
        return replace(self.snapshot, state=_each(self.snapshot.state, lambda tensor: tensor.to(device)))

    def pack(self) -> bytes:
        """For the way to another process of the same Ray: its processes trust each other."""
        return pickle.dumps(self, protocol=5)

    @staticmethod
    def unpack(data: bytes) -> "KeptSession":
        found = pickle.loads(data)
        assert isinstance(found, KeptSession)
        return found


def _each(state: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 - states are nested
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: _each(value, change) for key, value in state.items()}
    return [_each(value, change) for value in state] if isinstance(state, list) else state


@dataclass
class _Entry:
    host: str
    token: str
    data: bytes
    seen: float


class Keeper:
    """Keeps the last snapshot of every session of a fleet, in the memory of one process: an actor of Ray's.

    `idle`: seconds after which one is forgotten whose host says no more of it.
    """

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._kept: dict[str, _Entry] = {}

    def keep(self, host: str, session: str, token: str, data: bytes) -> None:
        """Keeps a session's state in place of the one before. `host` is who plays it."""
        self._kept[session] = _Entry(host, token, data, time.monotonic())

    def report(self, host: str, sessions: list[str]) -> None:
        """Takes note of the sessions that a host plays: of those that it ended nothing is kept."""
        now = time.monotonic()
        for session, entry in list(self._kept.items()):
            if session in sessions:
                entry.seen = now
            elif entry.host == host or now - entry.seen > self._idle:
                del self._kept[session]

    def find(self, session: str, token: str) -> bytes | None:
        """A session's last state, for its owner alone."""
        entry = self._kept.get(session)
        mine = entry is not None and hmac.compare_digest(entry.token.encode(), token.encode())
        return entry.data if entry is not None and mine else None

    def move(self, session: str, host: str) -> None:
        """Takes note that another host plays a session from now on."""
        if session in self._kept:
            self._kept[session].host = host
            self._kept[session].seen = time.monotonic()
