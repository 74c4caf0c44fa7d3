"""What all messages of the bridge are made of: how they are told apart, and the values that they may hold."""

from typing import Annotated

import msgspec
from msgspec import Meta

Id = Annotated[int, Meta(ge=0, le=2**62)]
Name = Annotated[str, Meta(max_length=100)]
Side = Annotated[int, Meta(ge=1, le=16_384)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Seconds = Annotated[float, Meta(ge=-1e12, le=1e12)]
Period = Annotated[float, Meta(gt=0, le=3600)]
Shape = tuple[Side, Side, Side, Annotated[int, Meta(ge=3, le=3)]]
Text = Annotated[str, Meta(max_length=10_000, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
"""What a server says, to be shown as it is: nothing in it may move a cursor or colour a terminal."""


class Message(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """Any message; `id` is chosen by who asks."""

    id: Id = 0


class SessionRequest(Message, frozen=True, kw_only=True):
    """A request about one session."""

    session: Name


class SessionReply(Message, frozen=True, kw_only=True):
    """A reply about one session."""

    session: Text
