"""What a window asks of a loop, whether it plays here (`Loop`) or on another machine (`RemoteLoop`)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from playhead.engine.stats import Stats
from playhead.engine.tick import Tick

if TYPE_CHECKING:  # it imports torch, and a window opens before that
    from playhead.engine.timeline.timeline import Timeline


class Playing(Protocol):
    """A session that is played. Its methods return at once save `join`, and may be called by any thread."""

    @property
    def timeline(self) -> "Timeline | None":
        """What has been played, where that is kept here."""

    @property
    def stats(self) -> Stats | None:
        """How it goes, once it does."""

    @property
    def alive(self) -> bool:
        """Whether it has begun and not ended."""

    def subscribe(self, receive: Callable[[Tick], None]) -> None:
        """Has `receive` called with every tick, on the loop's thread; may not block."""

    def start(self) -> None:
        """Begins, on a thread of its own."""

    def stop(self) -> None:
        """Ends the loop after the tick under way."""

    def join(self) -> None:
        """Waits for the end. Raises the error that brought it about, if one did, as a PlayheadError."""

    def toggle_pause(self) -> None:
        """Has the world stand still, or go on."""

    def single_step(self) -> None:
        """Plays one tick and then stands still."""

    def change_speed(self, factor: float) -> None:
        """Multiplies the speed, within the clock's range."""

    def change_steps(self, by: int) -> None:
        """Takes so many denoise steps a tick more, or fewer."""

    def toggle_auto_steps(self) -> None:
        """Has the rate held by fewer steps, or not any more."""

    def toggle_hold(self) -> None:
        """Has the world stand still while nothing is held, or not any more."""

    def restart(self, seed: int | None = None) -> None:
        """Begins the scene anew, with another seed if one is given."""
