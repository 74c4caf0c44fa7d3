"""The starts of scenes, kept ready: to begin there again is a copy, and no pass through the context."""

import threading
from collections import OrderedDict
from dataclasses import replace

from playhead.engine.session import Session, Snapshot
from playhead.scenes.scene import Scene
from playhead.world.context import Context
from playhead.world.size import cache_bytes
from playhead.world.world import World


class Starts:
    """Begins sessions at the starts of scenes, of any worlds; for any thread.

    The last `most` starts are kept, but none with a cache of more than `largest` bytes (None: of any size),
    and none that is not every seed's (`Session.share_start`).
    """

    def __init__(self, most: int, largest: int | None = None) -> None:
        self._most, self._largest = most, largest
        self._kept: OrderedDict[tuple[int, int], tuple[World, Context, Snapshot]] = OrderedDict()
        self._lock = threading.Lock()

    def session(self, world: World, scene: Scene, seed: int) -> Session:
        """A new session of a world at the start of a scene."""
        start = self._find(world, scene)
        if start is not None:
            session = Session.unstarted(world, scene.context, scene)
            session.restore(replace(start, seed=seed, steps=world.steps))
            return session
        session = Session(world, scene.context, seed, scene)
        self._keep(session)
        return session

    def enter(self, session: Session, scene: Scene, seed: int) -> None:
        """Puts a session at the start of a scene; its steps stay."""
        start = self._find(session.world, scene)
        if start is not None:
            session.context, session.scene = scene.context, scene
            session.restore(replace(start, seed=seed, steps=session.steps))
            return
        session.enter(scene.context, seed, scene)
        self._keep(session)

    def _find(self, world: World, scene: Scene) -> Snapshot | None:
        with self._lock:
            found = self._kept.get((id(world), id(scene.context)))
        return None if found is None else found[2]

    def _keep(self, session: Session) -> None:
        world, context = session.world, session.context
        size = cache_bytes(world.config, world.dtype.itemsize, world.cache is not None)
        if self._largest is not None and size > self._largest:
            return
        if not Session.share_start(world):
            return
        start = session.snapshot()
        with self._lock:  # the world and the context are kept too: else their ids may become another's
            self._kept[id(world), id(context)] = world, context, start
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
