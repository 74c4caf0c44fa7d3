"""What requests are answered with, once the session that was asked has answered; on the server's thread."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.connections import Connections
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.refusal import refusal
from playhead.engine.bridge.server.registry import Registry, scene_info
from playhead.engine.bridge.wire import protocol as p

if TYPE_CHECKING:
    from playhead.world.world import World


class Replies:
    """Answers clients. `send` and `tell` are those of the connections, `post` the server's."""

    def __init__(
        self, connections: Connections, registry: Registry, post: Callable[[Callable[[], None]], None]
    ) -> None:
        self.send, self.tell, self.post = connections.send, connections.tell, post
        self._registry = registry

    def refuse(self, client: KnownClient, id: int, error: BaseException) -> None:
        """Answers that a request could not be carried out, and why."""
        self.send(client, refusal(id, error))

    def then(self, client: KnownClient, id: int, future: "Future[Any]", reply: Callable[[Any], None]) -> None:
        """Calls `reply` with what a session answers, or answers with its error; on the server's thread."""

        def done(answered: "Future[Any]") -> None:
            try:
                reply(answered.result())
            except Exception as error:
                self.refuse(client, id, error)

        # The future is not in the closure: a circle would keep the session until it is looked for.
        future.add_done_callback(lambda answered: self.post(lambda: done(answered)))

    def opened(self, client: KnownClient, id: int, hosted: HostedSession) -> None:
        """Answers with what a session is, where it is, and its newest frames."""

        def reply(found: "tuple[int, int, int, np.ndarray, World]") -> None:
            tick, seed, steps, frames, world = found
            self.send(client, p.OpenReply(
                id=id, session=hosted.id, world=self._registry.info(world), scene=scene_info(hosted.scene),
                clock=hosted.clock, tick=tick, seed=seed, steps=steps,
                in_control=hosted.lease.holder == client.token, shape=frames.shape,
            ), frames)  # fmt: skip

        ask = hosted.loop.ask(lambda s: (s.tick, s.seed, s.steps, s.frames, s.world))
        self.then(client, id, ask, reply)

    def observed(self, client: KnownClient, id: int, hosted: HostedSession) -> None:
        """Answers with where a session is, and its newest frames."""

        def reply(found: tuple[int, int, np.ndarray]) -> None:
            tick, seed, frames = found
            self.send(
                client,
                p.ObserveReply(id=id, session=hosted.id, tick=tick, seed=seed, shape=frames.shape),
                frames,
            )

        self.then(client, id, hosted.loop.ask(lambda s: (s.tick, s.seed, s.frames)), reply)
