"""Requests about the moments that were played in a session: what there is, how it looked, back to it."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.replies import Replies
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.wire import moment_messages as m
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.timeline.timeline import Timeline
from playhead.world.terminal import printable

LISTED = 1000
"""Branches, bookmarks and thumbnails that are told of, at the most: the newest."""
WAITING_LOOKS = 4
"""Requests to go to a moment, or for its picture, that a session lets wait."""


class MomentHandlers:
    """Their handlers, each by the name of its request. Lives on the server's thread.

    Whoever knows a session may see what was played in it. Pictures that have to be computed are for who
    plays it: they take the time of ticks.
    """

    def __init__(self, sessions: Sessions, replies: Replies) -> None:
        self._sessions, self._replies = sessions, replies

    def timeline(self, client: KnownClient, request: m.TimelineRequest) -> None:
        hosted = self._sessions.find(request.session)
        timeline = _timeline(hosted)
        head = timeline.head
        if head is None:
            raise BridgeError("refused", timeline.failure or "nothing was played yet")
        self._replies.send(client, m.TimelineReply(
            id=request.id, session=hosted.id, branch=head.branch, tick=head.tick,
            branches=[
                m.BranchInfo(b.id, b.parent.branch if b.parent else None, b.first, b.last, b.seed)
                for b in timeline.branches[-LISTED:]
            ],
            bookmarks=[
                m.BookmarkInfo(printable(mark.name), *mark.point) for mark in timeline.bookmarks[-LISTED:]
            ],
            thumbnails=[(point.branch, point.tick) for point, _ in timeline.thumbnails()[-LISTED:]],
        ))  # fmt: skip

    def seek(self, client: KnownClient, request: m.SeekRequest) -> None:
        hosted = self._sessions.controlled(client, request.session)
        timeline, point = _timeline(hosted), Point(request.branch, request.tick)
        point = _check(timeline, point)
        if hosted.public:
            asked = hosted.loop.seek(point)
        else:
            asked = hosted.loop.ask(lambda session: hosted.seek(session, timeline, point), begins=True)

        def done(_: np.ndarray) -> None:
            if not hosted.public:
                hosted.scene = timeline.scene(point)
            self._replies.observed(client, request.id, hosted)

        self._look(client, request.id, hosted, asked, done)

    def picture(self, client: KnownClient, request: m.PictureRequest) -> None:
        find = self._sessions.find if request.small else lambda id: self._sessions.controlled(client, id)
        hosted = find(request.session)
        timeline = _timeline(hosted)
        point = _check(timeline, Point(request.branch, request.tick))

        def reply(point: Point, picture: np.ndarray) -> None:
            frames = picture[None]
            self._replies.send(client, m.PictureReply(
                id=request.id, session=hosted.id, branch=point.branch, tick=point.tick, shape=frames.shape,
            ), frames)  # fmt: skip

        if request.small:
            found = timeline.pictures.nearest(point)
            if found is None:
                raise BridgeError("refused", "there is no picture of that yet")
            reply(*found)
            return
        asked = hosted.loop.ask(lambda session: timeline.picture(session, point))
        self._look(client, request.id, hosted, asked, lambda picture: reply(point, picture))

    def bookmark(self, client: KnownClient, request: m.BookmarkRequest) -> None:
        hosted = self._sessions.controlled(client, request.session)
        timeline = _timeline(hosted)
        if len(timeline.bookmarks) >= LISTED:
            raise BridgeError("limit", f"{LISTED} moments of this session have a name, which is all")
        asked = hosted.loop.ask(lambda session: timeline.bookmark(request.name))
        self._replies.then(client, request.id, asked, lambda mark: self._replies.send(client, m.BookmarkReply(
            id=request.id, session=hosted.id, name=printable(mark.name), branch=mark.point.branch,
            tick=mark.point.tick,
        )))  # fmt: skip

    def _look(
        self,
        client: KnownClient,
        id: int,
        hosted: HostedSession,
        asked: "Future[Any]",
        reply: Callable[[Any], None],
    ) -> None:
        """Answers once a session was asked, which few may at a time: it takes the time of ticks."""
        hosted.waiting_looks += 1

        def done() -> None:
            hosted.waiting_looks -= 1

        asked.add_done_callback(lambda _: self._replies.post(done))
        self._replies.then(client, id, asked, reply)


def _timeline(hosted: HostedSession) -> Timeline:
    """The timeline of a session. Raises BridgeError where it has none, or no further request may wait."""
    timeline = hosted.loop.timeline
    if timeline is None:
        raise BridgeError("refused", "what is played here is not kept, so there is no way back")
    if hosted.waiting_looks >= WAITING_LOOKS:
        raise BridgeError(
            "busy", f"{WAITING_LOOKS} requests for a moment wait already; wait for their replies"
        )
    return timeline


def _check(timeline: Timeline, point: Point) -> Point:
    try:
        return timeline.tree.check(point)
    except RecordingError as error:
        raise BridgeError("bad_value", str(error)) from None
