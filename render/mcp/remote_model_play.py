"""One session of a running server that a language model plays: requests of the bridge, under its leases."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from playhead.engine.bridge.wire import moment_messages as m
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.recording.tree import Point, find_moment
from playhead.render.mcp.model_play import check_name
from playhead.render.mcp.model_played import Branched, Seen, chosen_ticks
from playhead.render.mcp.remote_line import RemoteLine
from playhead.world.action import Action
from playhead.world.errors import PlayheadError

Wanted = Literal["take", "release", "grant"]
"""What may be asked about the control of a session."""


class RemoteModelPlay:
    """A session as `opened` by this client, or `joined` by it. Its methods may be called by any thread.

    Raises PlayheadError for what the server refuses, in its words.
    """

    exact = None  # the server does not say
    failure = ""

    def __init__(self, line: RemoteLine, opened: p.OpenReply, joined: bool) -> None:
        self._line, self.id, self.joined = line, opened.session, joined
        self.info, self.scene = opened.world, opened.scene
        self.recorded = self._timeline() is not None

    @property
    def point(self) -> Point | None:
        found = self._timeline()
        return None if found is None else Point(found.branch, found.tick)

    def look(self) -> Seen:
        reply, frames = self._line.ask(p.ObserveRequest(session=self.id), p.ObserveReply)
        return Seen(reply.tick, _last(frames))

    def act(self, actions: Sequence[Action], pictures: int) -> list[Seen]:
        seen: list[Seen] = []
        begin = 0
        for end in chosen_ticks(len(actions), pictures):
            reply, frames = self._step(actions[begin : end + 1], "last")
            seen.append(Seen(reply.tick, _last(frames)))
            begin = end + 1
        if begin < len(actions):  # no picture is wanted
            self._step(actions[begin:], "none")
        return seen

    def _step(self, actions: Sequence[Action], frames: p.Sent) -> tuple[p.StepReply, np.ndarray | None]:
        request = p.StepRequest(session=self.id, actions=list(actions), frames=frames)
        try:
            return self._line.ask(request, p.StepReply)
        except BridgeError as error:
            if error.code != "wrong_clock":
                raise
        self._tune_own("lockstep")  # it was handed over since: a world stands still while a model thinks
        return self._line.ask(request, p.StepReply)

    def rewind(self, ticks: int) -> None:
        found = self._need_timeline()
        self._seek(found.branch, max(0, found.tick - ticks))

    def branch(self, moment: str) -> None:
        found = self._need_timeline()
        marks = {mark.name: Point(mark.branch, mark.tick) for mark in found.bookmarks}
        number, tick = find_moment(moment, marks)
        number = max(branch.id for branch in found.branches) if number is None else number
        last = {branch.id: branch.last for branch in found.branches}
        self._seek(number, last.get(number, 0) if tick is None else tick)

    def _seek(self, branch: int, tick: int) -> None:
        self._line.ask(m.SeekRequest(session=self.id, branch=branch, tick=tick), p.ObserveReply)

    def bookmark(self, name: str) -> tuple[str, Point]:
        reply, _ = self._line.ask(m.BookmarkRequest(session=self.id, name=name), m.BookmarkReply)
        return reply.name, Point(reply.branch, reply.tick)

    def save(self, name: str) -> tuple[str, int]:
        check_name(name)
        reply, _ = self._line.ask(p.SaveRequest(session=self.id, name=name), p.SaveReply)
        return reply.file, reply.ticks

    def moments(self) -> tuple[list[Branched], list[tuple[str, Point]]]:
        found = self._timeline()
        if found is None:
            return [], []
        branches = [
            Branched(b.id, None if b.parent is None else Point(b.parent, b.first), b.last)
            for b in found.branches
        ]
        return branches, [(mark.name, Point(mark.branch, mark.tick)) for mark in found.bookmarks]

    def control(self, want: Wanted) -> p.ControlReply:
        """Asks for the control, gives it back, or hands it to who asks.

        A session that is given away runs by the clock, as a page plays it; one that was taken stands still.
        """
        if want != "take":
            self._tune_own("live")
        try:
            reply, _ = self._line.ask(p.ControlRequest(session=self.id, want=want), p.ControlReply)
        except BridgeError:
            self._tune_own("lockstep")
            raise
        if reply.in_control:
            self._tune_own("lockstep")
        return reply

    def leave(self) -> None:
        """Ends a session of one's own; gives one that was joined back."""
        if self.joined:
            self.control("release")
        else:
            self._line.ask(p.CloseRequest(session=self.id), p.DoneReply)

    def _tune_own(self, clock: p.Clock) -> None:
        """Has the session run by the clock or not, if it is this client that controls it."""
        try:
            self._line.ask(p.TuneRequest(session=self.id, clock=clock), p.DoneReply)
        except BridgeError as error:
            if error.code != "not_in_control":
                raise

    def _timeline(self) -> m.TimelineReply | None:
        """What was played; None where that is not kept."""
        try:
            return self._line.ask(m.TimelineRequest(session=self.id), m.TimelineReply)[0]
        except BridgeError as error:
            if error.code != "refused":
                raise
            return None

    def _need_timeline(self) -> m.TimelineReply:
        return self._line.ask(m.TimelineRequest(session=self.id), m.TimelineReply)[0]


def _last(frames: np.ndarray | None) -> np.ndarray:
    if frames is None:
        raise PlayheadError("the server sent no frames; it speaks another protocol")
    last: np.ndarray = frames[-1]
    return last
