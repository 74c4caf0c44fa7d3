"""By what other programs know a message: the word in its field `type`, whatever its class is called here."""

from typing import get_args

from playhead.engine.bridge.wire import protocol

REQUESTS = [
    "act",
    "attach",
    "bookmark",
    "branch",
    "close",
    "control",
    "fork",
    "hello",
    "host",
    "observe",
    "open",
    "picture",
    "ping",
    "reset",
    "restore",
    "save",
    "seek",
    "snapshot",
    "stats",
    "step",
    "timeline",
    "tune",
    "worlds",
]
REPLIES = [
    "applied",
    "bookmarked",
    "controlled",
    "done",
    "ended",
    "error",
    "figures",
    "hosted",
    "observed",
    "opened",
    "pictured",
    "pong",
    "received",
    "saved",
    "snapshotted",
    "stepped",
    "superseded",
    "timelined",
    "welcome",
    "worldlist",
]


def tags(union: object) -> list[str]:
    return sorted(message.__struct_config__.tag for message in get_args(union))


def test_messages_are_called_on_the_wire_as_they_always_were() -> None:
    assert tags(protocol.Request) == REQUESTS
    assert tags(protocol.Reply) == REPLIES


def test_a_class_says_whether_it_asks_answers_or_comes_unasked() -> None:
    assert all(message.__name__.endswith("Request") for message in get_args(protocol.Request))
    assert all(message.__name__.endswith(("Reply", "Push")) for message in get_args(protocol.Reply))
