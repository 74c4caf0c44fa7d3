"""Frames on their way to a page: the newest wins, and few are under way at a time."""

from collections import deque
from collections.abc import Callable

from playhead.engine.bridge.wire.protocol import FrameHeader
from playhead.render.web.page_messages import PageCodec

UNDER_WAY = 4
"""Ticks that may be on their way before the page has said that it drew them."""

FlowingTick = tuple[FrameHeader, list[bytes]]


class FrameFlow:
    """One stream to one page; for one thread.

    A page that is slow, or a line that is, misses ticks: what waits is replaced by what is newer. In H.264
    nothing that follows a gap can be decoded, so ticks are left out until one comes that decoding may begin
    with; `begin` asks for it, once there is room again.
    """

    def __init__(self, codec: PageCodec, begin: Callable[[], None]) -> None:
        self._chained, self._begin = codec == "h264", begin
        self._under_way: deque[int] = deque()
        self._waiting: FlowingTick | None = None
        self._broken = False
        self.missed = 0

    def put(self, header: FrameHeader, packets: list[bytes]) -> None:
        """Takes in the next tick of the stream."""
        if header.key:
            self._broken = False
        elif self._chained and (self._broken or self._waiting is not None):
            self._broken = True
            self.missed += 1
            return
        self.missed += self._waiting is not None
        self._waiting = header, packets

    def take(self) -> FlowingTick | None:
        """The tick to be sent now, if there is one and there is room for it."""
        if self._waiting is None or len(self._under_way) >= UNDER_WAY:
            return None
        found, self._waiting = self._waiting, None
        self._under_way.append(found[0].number)
        return found

    def seen(self, number: int) -> None:
        """The page has drawn a tick, and with it all before."""
        while self._under_way and self._under_way[0] <= number:
            self._under_way.popleft()
        if self._broken and len(self._under_way) < UNDER_WAY:
            self._begin()
