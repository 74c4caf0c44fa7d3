"""A connection that requests come by, whatever carries it, and the client who speaks by it."""

import time
from dataclasses import dataclass, field

import numpy as np

from playhead.engine.bridge.server.limits import RateLimit
from playhead.engine.bridge.wire.protocol import Message


@dataclass
class KnownClient:
    """Somebody who said hello, and the connection by which to reach it; None once that is gone."""

    token: str
    name: str
    connection: "Connection | None" = None
    last_used: float = field(default_factory=time.monotonic)


class Connection:
    """What a server knows of a connection; how it is written to is for each kind to say.

    `frames_port`: where the frames of sessions are published for whoever speaks by it.
    """

    def __init__(self, allowance: RateLimit, frames_port: int) -> None:
        self.allowance, self.frames_port = allowance, frames_port
        self.client: KnownClient | None = None
        self.last_used = time.monotonic()

    @property
    def unread(self) -> int:
        """Bytes of frames that are still to be read at the other end."""
        raise NotImplementedError

    def write(self, message: Message, frames: np.ndarray | None = None) -> bool:
        """Sends a message and, behind it, frames; never waits. Returns False where nothing more goes in."""
        raise NotImplementedError

    def cut(self) -> None:
        """Ends it, and with it all that waits to be read there."""
        raise NotImplementedError
