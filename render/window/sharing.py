"""What the window knows of programs that play its session along: what is shown, and what has to wait."""

from playhead.controls.keymap import Keymap
from playhead.engine.bridge.server.shared import SharedPlay

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
