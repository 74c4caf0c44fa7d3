"""The connection to one session on another machine: dialled, and dialled again when it was lost."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.client.host_finding import GONE, reach_host
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.auth import ClientKeys
from playhead.engine.bridge.wire.protocol import BridgeError, Codec, SceneInfo
from playhead.world.errors import PlayheadError

FIRST, AGAIN = 5.0, 2.0
"""Seconds that a greeting is waited for: before there is a window, and for each try to come back."""
JOINING, OPENING = 10.0, 120.0
"""Seconds that a session is waited for: one that is there, and one that a large world has to begin."""
RETRY = 0.5
"""Seconds between two tries to come back."""


@dataclass(frozen=True)
class SessionOptions:
    """The session that is to be played there; "" and None as the server has it."""

    world: str = ""
    scene: str = ""
    seed: int | None = None
    steps: int | None = None
    auto_steps: bool = False
    speed: float = 1.0
    hold: bool = False
    codec: Codec = "h264"


class SessionEnded(PlayheadError):
    """The one session that a server had is over."""


class RemoteSession:
    """A connection and the session at its end. Raises PlayheadError where there is none to be had.

    `opened`, `frames` and `figures` are the session as it was found; `same` says whether it is the one from
    before, `control` who controls it, and `remark` what a player ought to know. `scene` is the one that is
    played. Of a server that has one session for all, that is the session.
    """

    def __init__(self, address: str, keys: ClientKeys | None, wanted: SessionOptions) -> None:
        self.address, self._keys, self.wanted = address, keys, wanted
        self._token = self._session = ""
        self.public = self.same = False
        self.remark = ""
        self._dial(FIRST)

    def come_back(self, stopping: Callable[[], bool], complain: Callable[[str], None]) -> None:
        """Dials until there is a connection again, or it is to stop; says what stands in the way.

        Comes back to the session, or begins it anew where the server does not have it any more. Raises
        SessionEnded where that cannot be begun anew.
        """
        said, before = "", self.client.address
        while not stopping():
            try:
                self.client.close()
                self._dial(AGAIN)
            except SessionEnded:
                raise
            except PlayheadError as error:
                if isinstance(error, BridgeError) and error.code == "protocol":
                    raise
                if str(error) != said:
                    said = str(error)
                    complain(said)
                time.sleep(RETRY)
            else:
                self.remark = self._lost_what(before)
                complain(self.remark or "connected again")
                return

    def _lost_what(self, before: str) -> str:
        """What a player ought to know who came back, from another host than the one `before` perhaps."""
        if not self.same:
            return "the server lost the session: it begins anew"
        moved = self.client.address != before
        return f"its host was lost: another one goes on from tick {self.opened.tick}" if moved else ""

    def close(self) -> None:
        """Ends the session, if it is this player's own and the server can be told."""
        if not self.public and not self.client.lost:
            self.client.send(protocol.CloseRequest(session=self._session))
            while (found := self.client.receive(0.5)) is not None:
                if isinstance(found[0], protocol.DoneReply | protocol.ErrorReply):
                    break
        self.client.close()

    def _dial(self, patience: float) -> None:
        name = f"the window on {platform.node() or 'another machine'}"
        client = reach_host(self.address, name, self._keys, patience, self._token, self._session)
        try:
            self._token = client.welcome.token
            client.patience = JOINING
            found = self._come_back(client) if self._session else None
            self.same = found is not None
            if found is None:
                found = self._open(client)
            figures, _ = client.ask(protocol.StatsRequest(session=found[0].session), protocol.StatsReply)
        except BaseException:
            client.close()
            raise
        self.client = client
        self.opened, self.frames = found
        self.figures = figures.stats
        self._session, self.scene = self.opened.session, self.opened.scene

    def _come_back(self, client: Client) -> tuple[protocol.OpenReply, np.ndarray] | None:
        try:
            return self._join(client, self._session)
        except BridgeError as error:
            if error.code not in GONE:
                raise
            if self.public:
                raise SessionEnded(f"the session at {self.address} has ended") from None
        return None

    def _open(self, client: Client) -> tuple[protocol.OpenReply, np.ndarray]:
        """Opens a session, in lockstep: it stands still until it is played. Or joins the one there is."""
        worlds, _ = client.ask(protocol.WorldsRequest(), protocol.WorldsReply)
        self.public = not worlds.worlds and bool(client.welcome.sessions)
        if self.public:
            return self._join(client, client.welcome.sessions[0])
        wanted = self.wanted
        self.control = protocol.ControlReply(session="", in_control=True, holder="", asking="")
        client.patience = OPENING
        request = protocol.OpenRequest(
            world=wanted.world, scene=wanted.scene, seed=wanted.seed, steps=wanted.steps
        )
        return _with_frames(client.ask(request, protocol.OpenReply))

    def _join(self, client: Client, session: str) -> tuple[protocol.OpenReply, np.ndarray]:
        """Asks for the control of a session that is there, and what it is."""
        request = protocol.ControlRequest(session=session, want="take")
        self.control, _ = client.ask(request, protocol.ControlReply)
        return _with_frames(client.ask(protocol.AttachRequest(session=session), protocol.OpenReply))

    def go_to(self, scene: SceneInfo, seed: int) -> None:
        """Notes where the session is from now on, for the case that it has to begin anew."""
        self.scene = scene
        self.wanted = replace(self.wanted, scene=scene.name, seed=seed)


def _with_frames(
    reply: tuple[protocol.OpenReply, np.ndarray | None],
) -> tuple[protocol.OpenReply, np.ndarray]:
    opened, frames = reply
    if frames is None:
        raise PlayheadError("the server opened a session and sent no frames; it speaks another protocol")
    return opened, frames
