"""Messages: what is wrong in one is said under its own id, as far as it has one."""

import msgspec
import pytest

from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError


@pytest.mark.parametrize(
    "message",
    [
        {"type": "nothing", "id": 7},
        {"id": 7},
        {"type": "step", "id": 7, "actions": 3, "more": [None, {}]},
    ],
)
def test_a_request_that_is_wrong_in_other_ways_still_has_its_id(message):
    data = msgspec.msgpack.encode(message)
    with pytest.raises(msgspec.MsgspecError):
        p.decode_request(data)
    assert p.request_id(data) == 7


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000 + b"\xc0",  # deeper than anything that is read
        *map(msgspec.msgpack.encode, ({}, [7], 7, {"id": "7"}, {"id": -1}, {"id": 2**62 + 1}, {"id": None})),
    ],
)
def test_what_has_no_id_is_answered_under_0(data):
    assert p.request_id(data) == 0


def test_a_refusal_knows_its_code_and_says_its_sentence():
    error = BridgeError("busy", "another program is at it")
    assert (error.code, error.message, str(error)) == ("busy", *["another program is at it"] * 2)


def test_frames_are_subscribed_to_by_session_and_encoding():
    assert p.topic("abc", "jpeg") == b"abc/jpeg"
