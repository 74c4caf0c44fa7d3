"""A window's own session, offered to programs: they watch it and, as far as they are let, play it.

Torch is imported only with `serve`, because a window opens before that.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from playhead.engine.bridge.server.acts import ActSource, SharedSource
from playhead.engine.bridge.server.lease import ControlState, Lease
from playhead.engine.bridge.wire.auth import check_address, load_server_keys
from playhead.engine.bridge.wire.protocol import LOCAL
from playhead.engine.loop import Loop
from playhead.engine.tick import ActionSource

if TYPE_CHECKING:
    from playhead.engine.bridge.server.server import Server
    from playhead.engine.tick import Tick
    from playhead.scenes.scene import Scene


class SharedPlay:
    """Shares the session of one loop. Who plays it is agreed upon by a lease that the person here owns.

    `control` says who does; `told` is called, on another thread, whenever that has changed.
    """

    def __init__(
        self,
        address: str,
        secret_key: Path | None = None,
        clients: Path | None = None,
        recordings: Path | None = None,
    ) -> None:
        """`recordings`: where what was played may be saved.

        Raises PlayheadError for an address that is none, or that needs keys and has none.
        """
        self._keys = load_server_keys(secret_key, clients)
        check_address(address, self._keys)
        self.address, self._recordings = address, recordings
        self.control = ControlState()
        self.told: Callable[[], None] = lambda: None
        self._lease, self._acts = Lease(LOCAL, LOCAL), ActSource()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def source(self, local: ActionSource) -> SharedSource:
        """The actions of whoever plays: `local` is the person here."""
        return SharedSource(local, self._acts, self._lease)

    def serve(self, loop: Loop, scene: "Callable[[], Scene]") -> None:
        """On the loop's thread, before its first tick: begins to serve. `scene` tells which one is played.

        Raises PlayheadError for an address that cannot be had.
        """
        import secrets

        from playhead.engine.bridge.server.hosted import HostedSession
        from playhead.engine.bridge.server.registry import Registry
        from playhead.engine.bridge.server.server import Server, serve_in_background

        id = secrets.token_urlsafe(12)
        hosted = HostedSession(id, scene(), loop, self._acts, self._lease, "live", public=True)

        def follow(tick: "Tick") -> None:
            if tick.action is None:
                hosted.scene = scene()

        loop.subscribe(follow)
        self._server = Server(Registry([], []), self.address, self._keys, recordings=self._recordings)
        self._server.sessions.controls = self._note
        self._server.sessions.add(hosted)
        self.address = self._server.address
        self._hosted = hosted
        self._thread = serve_in_background(self._server, loop.fail)

    def hand_over(self) -> None:
        """Takes the control back from a program or, where one asks for it, gives it to that."""
        server = self._server
        if server is not None:
            server.post(lambda: server.sessions.hand_over(self._hosted))

    def close(self) -> None:
        """Ends the serving; those who play or ask are told."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join(10)

    def _note(self, control: ControlState) -> None:
        self.control = control
        self.told()
