"""Which session a model means: what binds those who connect to the sessions that they opened."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry, check_seed, check_steps, session_bytes
from playhead.engine.bridge.wire.protocol import WorldInfo
from playhead.engine.recording.finding import Summary
from playhead.engine.recording.schema import RecordingError
from playhead.render.mcp.model_play import ModelPlay
from playhead.world.action import ActionSpace
from playhead.world.errors import PlayheadError


@dataclass
class _Bound:
    play: ModelPlay
    last_used: float = field(default_factory=time.monotonic)


class ModelSessions:
    """Opens and finds sessions by a name that cannot be guessed. For any thread.

    `alone`: there is one connection only, as over stdio, so that no name means the session opened last. Where
    there may be others a name is always needed: nobody plays in the session of somebody else by mistake.
    """

    def __init__(self, registry: Registry, limits: Limits, folder: Path | None, alone: bool) -> None:
        self.registry, self.folder = registry, folder
        self._limits, self._alone = limits, alone
        self._open: dict[str, _Bound] = {}
        self._opening: list[int] = []  # bytes of each
        self._lock = threading.Lock()

    def worlds(self) -> list[WorldInfo]:
        return self.registry.list()

    def space(self, world: WorldInfo) -> ActionSpace:
        return self.registry.world(world.name).config.action

    def open(self, world: str, scene: str, seed: int | None, steps: int | None) -> tuple[str, ModelPlay]:
        """Opens a session; empty names: the first there is. Raises PlayheadError where none can be had."""
        found = self.registry.world(world)
        start = self.registry.scene(found, scene)
        check_seed(seed := start.seed if seed is None else seed)
        check_steps(found, steps := found.steps if steps is None else steps)
        self._sweep()
        size = session_bytes(found)
        with self._lock:
            self._check_room(size)
            self._opening.append(size)
        try:
            play = ModelPlay(self.registry, found, start, seed, steps, self.folder)
        finally:
            with self._lock:
                self._opening.remove(size)
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._open[name] = _Bound(play)
        return name, play

    def _check_room(self, size: int) -> None:
        if len(self._open) + len(self._opening) >= self._limits.sessions:
            raise PlayheadError(f"{self._limits.sessions} sessions are open, which is all; close one")
        held = sum(session_bytes(bound.play.world) for bound in self._open.values())
        if held + sum(self._opening) + size > self._limits.memory * 2**20:
            raise PlayheadError(f"the {self._limits.memory} MB for sessions are used up; close one")

    def find(self, name: str) -> tuple[str, ModelPlay]:
        """The session of a name and, where there is one connection, of none. Raises PlayheadError."""
        self._sweep()
        with self._lock:
            if not name and not self._alone:
                raise PlayheadError("which session? give the name that `open` has returned")
            named = name or next(reversed(self._open), "")
            bound = self._open.get(named)
            if bound is None:
                said = f"no session `{name}`" if name else "no session"
                raise PlayheadError(f"there is {said} open; it was closed, or was idle too long: use `open`")
            bound.last_used = time.monotonic()
        return named, bound.play

    def end(self, name: str) -> ModelPlay:
        """Ends a session; what it recorded stays."""
        name, play = self.find(name)
        with self._lock:
            self._open.pop(name, None)
        play.close()
        return play

    def recordings(self, most: int) -> list[dict[str, object]]:
        """The newest recordings in the folder that sessions are recorded to, at a glance."""
        if self.folder is None or not self.folder.is_dir():
            return []
        paths = sorted(self.folder.glob("*.playhead"), key=lambda path: path.stat().st_mtime)
        rows: list[dict[str, object]] = []
        for path in paths[-most:]:
            try:
                found = Summary.read(path)
            except RecordingError:
                continue
            rows.append({"name": path.stem, "title": found.title, "world": found.world, "ticks": found.ticks})
        return rows

    def close(self) -> None:
        """Ends them all."""
        with self._lock:
            bound = list(self._open.values())
            self._open.clear()
        for one in bound:
            one.play.close()

    def _sweep(self) -> None:
        """Ends what nobody has used for long."""
        now = time.monotonic()
        with self._lock:
            idle = [n for n, b in self._open.items() if now - b.last_used > self._limits.idle]
            ended = [self._open.pop(name) for name in idle]
        for one in ended:
            one.play.close()
