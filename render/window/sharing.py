"""What the window knows of others who play its session: what is shown, and what has to wait."""

from playhead.controls.keymap import Keymap
from playhead.engine.bridge.client.remote_loop import RemoteLoop
from playhead.engine.bridge.server.shared import SharedPlay
from playhead.engine.bridge.wire.protocol import LOCAL, ControlReply

NEEDS_CONTROL = {
    "pause", "single_step", "slower", "faster", "restart", "new_seed", "next_scene", "previous_scene",
    "more_steps", "fewer_steps", "auto_steps", "hold", "scrub_back", "scrub_forward", "undo_second",
    "bookmark", "branches",
}  # fmt: skip
"""Functions that change how the session goes on: for whoever is in control."""


class Sharing:
    """The window's side of a shared play; of one that is not shared, it says so and is in nobody's way."""

    def __init__(self, shared: SharedPlay | None, keymap: Keymap) -> None:
        self._shared = shared
        keys = keymap.window.get("control")
        self._key = keys[0] if keys else "no key"

    def hand_over(self) -> str:
        """Gives the control to the program that asks, or takes it back. Returns what there is to say."""
        if self._shared is None:
            return "nobody else can play: programs come in by play --bridge"
        control = self._shared.control
        if not control.holder and not control.asking:
            return f"no program asks for the control; they come in at {self._shared.address}"
        self._shared.hand_over()
        return ""

    def refusal(self, function: str) -> str:
        """Why a function of the window has to wait; empty if it need not."""
        holder = self._shared.control.holder if self._shared is not None else ""
        if not holder or function not in NEEDS_CONTROL:
            return ""
        return f"{holder} is in control: {self._key} takes it back"

    @property
    def said(self) -> list[str]:
        """Who else plays, or would like to; in a few words each."""
        if self._shared is None:
            return []
        control = self._shared.control
        how = " in lockstep" if control.lockstep else ""
        playing = [f"{control.holder} plays{how}   {self._key} takes over"] if control.holder else []
        asking = [f"{control.asking} asks to play   {self._key} lets it"] if control.asking else []
        return playing + asking


class RemoteSharing:
    """Who controls the session at the other end, as `Sharing` says it of one here."""

    def __init__(self, loop: RemoteLoop, keymap: Keymap) -> None:
        self._loop = loop
        keys = keymap.window.get("control")
        self._key = keys[0] if keys else "no key"

    def hand_over(self) -> str:
        """Gives the control to the one who asks, or asks for it. Returns what there is to say."""
        control = self._loop.control
        if control.in_control and not control.asking:
            return "nobody asks for the control"
        self._loop.hand_over()
        return "" if control.in_control else f"{_who(control)} is asked for the control"

    def refusal(self, function: str) -> str:
        """Why a function of the window has to wait; empty if it need not."""
        control = self._loop.control
        if control.in_control or function not in NEEDS_CONTROL:
            return ""
        return f"{_who(control)} is in control: {self._key} asks for it"

    @property
    def said(self) -> list[str]:
        """Who else plays, or would like to; in a few words each."""
        control = self._loop.control
        if not control.in_control:
            return [f"{_who(control)} plays   {self._key} asks for the control"]
        return [f"{control.asking} asks to play   {self._key} lets it"] if control.asking else []


def _who(control: ControlReply) -> str:
    """The holder of the control, by name."""
    return "the person there" if control.holder == LOCAL else control.holder or "nobody"
