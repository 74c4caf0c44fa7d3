"""A glimpse: pictures of other moments, asked of the loop one at a time while the world stands still."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.loop import Loop
from playhead.world.errors import PlayheadError

if TYPE_CHECKING:
    from playhead.engine.recording.tree import Place
    from playhead.engine.timeline.timeline import Timeline


class Glimpse:
    """`picture`, uint8 `(H, W, 3)`, is the newest that has come, and `place` where it was. One thread's.

    `complain` is told what went wrong; `wake` is called, by another thread, when a picture has come.
    """

    def __init__(
        self, loop: Loop, timeline: "Timeline", complain: Callable[[str], None], wake: Callable[[], None]
    ) -> None:
        self._loop, self._timeline, self._complain, self._wake = loop, timeline, complain, wake
        self.place: Place | None = None
        self.picture: np.ndarray | None = None
        self._asked: tuple[Place, Future[np.ndarray]] | None = None

    def look(self, place: "Place | None") -> None:
        """Takes the picture that has come, and asks for that of `place` if it is another one."""
        if self._asked is not None and self._asked[1].done():
            self.place, answer = self._asked
            self._asked = None
            try:
                self.picture = np.ascontiguousarray(answer.result())
            except PlayheadError as error:
                self._complain(str(error))
        if self._asked is None and place is not None and place != self.place:
            asked = self._loop.ask(lambda session: self._timeline.picture(session, place))
            asked.add_done_callback(lambda _: self._wake())
            self._asked = place, asked

    def forget(self) -> None:
        """Has no picture any more, as when play goes on."""
        self.place = self.picture = self._asked = None
