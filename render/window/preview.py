"""A preview: pictures of other moments, asked of the loop one at a time while the world stands still."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.loop import Loop
from playhead.world.errors import PlayheadError

if TYPE_CHECKING:
    from playhead.engine.recording.tree import Point
    from playhead.engine.timeline.timeline import Timeline


class Preview:
    """`picture`, uint8 `(H, W, 3)`, is the newest that has come, and `point` where it was. One thread's.

    `complain` is told what went wrong; `wake` is called, by another thread, when a picture has come.
    """

    def __init__(
        self, loop: Loop, timeline: "Timeline", complain: Callable[[str], None], wake: Callable[[], None]
    ) -> None:
        self._loop, self._timeline, self._complain, self._wake = loop, timeline, complain, wake
        self.point: Point | None = None
        self.picture: np.ndarray | None = None
        self._asked: tuple[Point, Future[np.ndarray]] | None = None

    def look(self, point: "Point | None") -> None:
        """Takes the picture that has come, and asks for that of `point` if it is another one."""
        if self._asked is not None and self._asked[1].done():
            self.point, answer = self._asked
            self._asked = None
            try:
                self.picture = np.ascontiguousarray(answer.result())
            except PlayheadError as error:
                self._complain(str(error))
        if self._asked is None and point is not None and point != self.point:
            asked = self._loop.ask(lambda session: self._timeline.picture(session, point))
            asked.add_done_callback(lambda _: self._wake())
            self._asked = point, asked

    def forget(self) -> None:
        """Has no picture any more, as when play goes on."""
        self.point = self.picture = self._asked = None
