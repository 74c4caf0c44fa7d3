"""Which session of a running server a model means, of those that it has opened there or joined."""

import threading

from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import WorldInfo
from playhead.render.mcp.remote_line import RemoteLine
from playhead.render.mcp.remote_model_play import RemoteModelPlay
from playhead.world.action import ActionSpace
from playhead.world.errors import PlayheadError


class RemoteSessions:
    """Opens, joins and finds sessions of a server by their ids, which cannot be guessed. For any thread.

    `alone`: there is one connection only, as over stdio, so that no name means the session that was opened or
    joined last. Limits, leases and what may be opened are the server's. Raises PlayheadError if it refuses.
    """

    def __init__(self, line: RemoteLine, alone: bool) -> None:
        self._line, self._alone = line, alone
        self._open: dict[str, RemoteModelPlay] = {}
        self._lock = threading.Lock()
        self._worlds = line.ask(p.WorldsRequest(), p.WorldsReply)[0].worlds

    def worlds(self) -> list[WorldInfo]:
        return self._worlds

    def space(self, world: WorldInfo) -> ActionSpace:
        return world.action_space

    def open(
        self, world: str, scene: str, seed: int | None, steps: int | None
    ) -> tuple[str, RemoteModelPlay]:
        """Opens a session, as ready for the way back as the server makes it; or joins the one that it has."""
        if not self._worlds and self._line.public:
            return self.join("")
        opened, _ = self._line.ask(
            p.OpenRequest(world=world, scene=scene, seed=seed, steps=steps, seekable=True), p.OpenReply
        )
        return self._keep(RemoteModelPlay(self._line, opened, joined=False))

    def join(self, session: str) -> tuple[str, RemoteModelPlay]:
        """Goes on with a session that is there, and asks for its control; no name: that of a window."""
        if not session and not self._line.public:
            raise PlayheadError("which session? give its name, which is in the watch link of a page")
        id = session or self._line.public[0]
        opened, _ = self._line.ask(p.AttachRequest(session=id), p.OpenReply)
        play = RemoteModelPlay(self._line, opened, joined=True)
        play.control("take")
        return self._keep(play)

    def _keep(self, play: RemoteModelPlay) -> tuple[str, RemoteModelPlay]:
        with self._lock:
            self._open.pop(play.id, None)
            self._open[play.id] = play
        return play.id, play

    def find(self, name: str) -> tuple[str, RemoteModelPlay]:
        """The session of a name and, where there is one connection, of none. Raises PlayheadError."""
        with self._lock:
            if not name and not self._alone:
                raise PlayheadError("which session? give the name that `open` or `join` has returned")
            named = name or next(reversed(self._open), "")
            play = self._open.get(named)
        if play is None:
            said = f"no session `{name}`" if name else "no session"
            raise PlayheadError(f"there is {said} open here; use `open`, or `join` one that is there")
        return named, play

    def end(self, name: str) -> RemoteModelPlay:
        """Ends a session that was opened here; one that was joined is given back."""
        name, play = self.find(name)
        play.leave()
        with self._lock:
            self._open.pop(name, None)
        return play

    def recordings(self, most: int) -> list[dict[str, object]]:
        """None: the server does not say what lies in its folder."""
        return []

    def close(self) -> None:
        """Hangs up: the server keeps what was opened for as long as it keeps sessions that nobody uses."""
        self._line.close()
