"""What a window has to know of the session that it plays, wherever that is."""

from typing import Protocol

from playhead.engine.playing import Playing
from playhead.engine.tick import Tick
from playhead.render.window.sharing import RemoteSharing, Sharing
from playhead.render.window.timeline_controls import TimelineControls


class PlayedSession(Protocol):
    """A session that is opened here (`LocalPlay`) or on a server (`RemotePlay`). The window's thread's."""

    @property
    def loop(self) -> Playing:
        """What plays it."""

    @property
    def sharing(self) -> Sharing | RemoteSharing:
        """Who else plays it."""

    @property
    def moments(self) -> TimelineControls | None:
        """The way back, once there is one; None for a session elsewhere, whose timeline is kept there."""

    @property
    def title(self) -> str:
        """The title of the scene that is played."""

    @property
    def scene_name(self) -> str:
        """Its name; empty where it has none."""

    def take_remark(self) -> str:
        """What the player ought to know of the session that begins; once."""

    def enter(self, tick: Tick) -> bool:
        """Takes note that the session goes on from a tick. Returns whether that is known to a timeline."""

    def update(self) -> bool:
        """Takes what has come. Returns whether there is anything else to be seen now."""

    def switch(self, by: int) -> None:
        """Goes on in the scene that comes `by` after the present one."""

    def prompt_note(self, key: int) -> str:
        """Which prompt the key of this code asks for; empty where none, or none that is known here."""
