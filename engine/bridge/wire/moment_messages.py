"""The messages about what was played in a session, and the way back to it. docs/protocol.md says more."""

from typing import Annotated

import msgspec
from msgspec import Meta

from playhead.engine.bridge.wire.message import Count, Id, SessionReply, SessionRequest, Shape, Text


class TimelineRequest(SessionRequest, tag="timeline", frozen=True, kw_only=True):
    """Asks for the tree of what was played in a session that is recorded, and where in it that stands."""


class MomentRequest(SessionRequest, frozen=True, kw_only=True):
    """A request about a moment of that tree: tick number `tick` on the way to a branch's end."""

    branch: Id
    tick: Id


class SeekRequest(MomentRequest, tag="seek", frozen=True, kw_only=True):
    """Goes on from a moment that was played; what is played from there is a branch of its own."""


class PictureRequest(MomentRequest, tag="picture", frozen=True, kw_only=True):
    """Asks what a moment looked like, without going there. `small`: the thumbnail nearest to it, at once."""

    small: bool = False


class BookmarkRequest(SessionRequest, tag="bookmark", frozen=True, kw_only=True):
    """Gives the present moment a name; an empty one is made up."""

    name: Annotated[str, Meta(max_length=100, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")] = ""


class BranchInfo(msgspec.Struct, frozen=True):
    """A branch: its ticks are those after `first`, up to `last`; before them it is as its `parent`.

    A root has none. `seed`: the root's, from which it all began.
    """

    id: Count
    parent: Count | None
    first: Count
    last: Count
    seed: int


class BookmarkInfo(msgspec.Struct, frozen=True):
    name: Text
    branch: Count
    tick: Count


class TimelineReply(SessionReply, tag="timelined", frozen=True, kw_only=True):
    """What was played: the newest branches and bookmarks, and where the session stands.

    `thumbnails`: the moments, each a branch and a tick, of which there is a small picture.
    """

    branch: Count
    tick: Count
    branches: list[BranchInfo]
    bookmarks: list[BookmarkInfo]
    thumbnails: list[tuple[Count, Count]]


class PictureReply(SessionReply, tag="pictured", frozen=True, kw_only=True):
    """What a moment looked like; the frame follows. `branch` and `tick` are of the picture that there is."""

    branch: Count
    tick: Count
    shape: Shape


class BookmarkReply(SessionReply, tag="bookmarked", frozen=True, kw_only=True):
    """The name of a bookmark, and the moment that it is of."""

    name: Text
    branch: Count
    tick: Count
