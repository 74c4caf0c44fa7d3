"""Frames on their way to a page: whatever is dropped, what arrives can be decoded, and the last arrives."""

from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.bridge.wire.protocol import FrameHeader
from playhead.render.web.frame_flow import UNDER_WAY, FrameFlow


def header(number: int, key: bool) -> FrameHeader:
    return FrameHeader("s", number, number, 0, False, None, "h264", key, 16, 16, 0.05, 0.0, None)


class Pipe:
    """A stream whose encoder gives a key frame when asked for one, and a page that draws when it is told."""

    def __init__(self, codec: str) -> None:
        self.flow = FrameFlow(codec, self.begin)
        self.number, self.key = 0, True
        self.sent: list[FrameHeader] = []
        self.drawn = 0

    def begin(self) -> None:
        self.key = True

    def tick(self) -> None:
        self.number += 1
        self.flow.put(header(self.number, self.key), [b"packet"])
        self.key = False
        self.send()

    def send(self) -> None:
        while (found := self.flow.take()) is not None:
            self.sent.append(found[0])
        assert len(self.sent) - self.drawn <= UNDER_WAY

    def draw(self) -> None:
        if self.drawn < len(self.sent):
            self.drawn += 1
            self.flow.seen(self.sent[self.drawn - 1].number)
            self.send()


@given(moves=st.lists(st.sampled_from(["tick", "draw"]), max_size=200))
def test_of_pictures_the_newest_arrives_as_soon_as_there_is_room(moves):
    pipe = Pipe("jpeg")
    for move in moves:
        getattr(pipe, move)()
        if len(pipe.sent) - pipe.drawn < UNDER_WAY and pipe.sent:
            assert pipe.sent[-1].number == pipe.number
    numbers = [h.number for h in pipe.sent]
    assert numbers == sorted(set(numbers))
    waiting = pipe.number > (numbers[-1] if numbers else 0)
    assert pipe.flow.missed + len(numbers) + waiting == pipe.number


@given(moves=st.lists(st.sampled_from(["tick", "tick", "draw"]), max_size=200))
def test_of_h264_what_arrives_after_a_gap_begins_anew(moves):
    pipe = Pipe("h264")
    for move in moves:
        getattr(pipe, move)()
    for before, after in zip([None, *pipe.sent], pipe.sent, strict=False):
        assert after.key or (before is not None and after.number == before.number + 1)
    for _ in range(2 * UNDER_WAY):
        pipe.draw()
    for _ in range(2):
        pipe.tick()
        pipe.draw()
    assert pipe.sent[-1].number == pipe.number  # a page that draws again is up to date within a tick
