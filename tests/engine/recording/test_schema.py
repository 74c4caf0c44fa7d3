"""Hashes and seals: each stands for everything before it too, and for nothing that only looks alike."""

import hashlib
import sqlite3

import msgspec
import numpy as np
import pytest

from playhead.engine.recording import schema
from playhead.engine.recording.schema import chain, end_seal, facts_seal, seal
from playhead.world.action import Action

START = bytes(schema.HASH_BYTES)


def frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)


def test_a_hash_stands_for_all_frames_up_to_there():
    a, b, c = frames(0), frames(1), frames(2)
    assert chain(chain(START, a), c) == chain(chain(START, a.copy()), c.copy())
    assert chain(chain(START, a), c) != chain(chain(START, b), c), "what came before counts"
    assert chain(chain(START, a), b) != chain(chain(START, b), a), "and its order"
    assert len({chain(START, a), chain(b"", a), chain(chain(START, a), a)}) == 3


def test_every_value_of_the_frames_counts():
    for place in np.ndindex(2, 4, 6, 3):
        other = frames(0)
        other[place] ^= 1
        assert chain(START, other) != chain(START, frames(0))


def test_a_hash_is_the_one_that_files_hold():
    """Another function would call every recording that there is a false one."""
    expected = hashlib.blake2b(START + frames(0).tobytes(), digest_size=16).digest()
    assert chain(START, frames(0)) == expected and len(expected) == schema.HASH_BYTES


def test_frames_hash_by_their_values_however_they_lie_in_memory():
    wide = np.repeat(frames(3), 2, axis=2)
    assert chain(START, wide[:, :, ::2]) == chain(START, frames(3))
    assert chain(START, np.asfortranarray(frames(3))) == chain(START, frames(3))


def test_a_seal_stands_for_the_rows_before_it_too():
    rows = [(1, 2.5, "a", b"x", None), (2, 2.5, "a", b"x", None), (1, 2.5, "a", b"x", 0)]
    assert len({seal(b"", row) for row in rows}) == 3
    first, second, third = rows
    assert seal(seal(b"", first), third) != seal(seal(b"", second), third)
    assert seal(b"", first) != seal(b"before", first)
    assert len(seal(b"", first)) == schema.SEAL_BYTES


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([b"ab", b"c"], [b"a", b"bc"]),
        ([b"", b"a"], [b"a", b""]),
        ([1], ["1"]),
        ([1], [1.0]),
        ([None], ["None"]),
        (["a"], [b"a"]),
        ([1, 2], [12]),
        ([b"a"], [b"a", b""]),
    ],
)
def test_rows_that_only_look_alike_have_other_seals(one, other):
    assert seal(b"", one) != seal(b"", other)


def test_a_seal_is_the_one_that_files_hold():
    """Each value after its length, four bytes, the least first; text and numbers as Python writes them."""
    said = b"before" + b"\x03\x00\x00\x00'a'" + b"\x02\x01\x00\x00" + b"x" * 258 + b"\x04\x00\x00\x00None"
    assert seal(b"before", ["a", b"x" * 258, None]) == hashlib.blake2b(said, digest_size=8).digest()


def test_what_a_recording_says_of_itself_is_sealed_but_for_the_seals():
    facts = {"title": b"A play", "world": b"tiny"}
    assert facts_seal(facts) == seal(b"", ["title", b"A play", "world", b"tiny"])
    assert facts_seal(dict(reversed(facts.items()))) == facts_seal(facts), "in any order"
    assert facts_seal({**facts, "seal": b"1", "end": b"2"}) == facts_seal(facts)
    for other in ({**facts, "title": b"Another"}, {**facts, "more": b""}, {"world": b"tiny"}):
        assert facts_seal(other) != facts_seal(facts)


def base() -> sqlite3.Connection:
    """Two branches of three ticks, and something in every table that has an end."""
    base = sqlite3.connect(":memory:")
    for made in schema.TABLES.values():
        base.execute(made)
    base.execute("INSERT INTO plays VALUES (1, 0, '')")
    base.execute("INSERT INTO scenes VALUES (1, '', x'', x'')")
    for branch in (1, 2):
        base.execute(
            "INSERT INTO branches VALUES (?, NULL, 0, 1, '7', 1, x'', 0, ?)", (branch, b"b%d" % branch)
        )
        for tick in (1, 2, 3):
            seal = b"%d:%d" % (branch, tick)
            base.execute("INSERT INTO ticks VALUES (?, ?, '', 2, '', 0, 0, x'', ?)", (branch, tick, seal))
    base.execute("INSERT INTO bookmarks VALUES (1, 1, 2, 'here', 0)")
    base.execute("INSERT INTO bookmarks VALUES (2, 1, 3, 'there', 0)")
    return base


def test_the_end_of_a_recording_is_the_same_for_the_same_rows():
    assert end_seal(base()) == end_seal(base())


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM ticks WHERE branch = 1 AND tick = 3",
        "DELETE FROM ticks WHERE branch = 2 AND tick = 3",
        "UPDATE ticks SET seal = x'00' WHERE branch = 2 AND tick = 3",
        "DELETE FROM branches WHERE id = 2",
        "UPDATE branches SET seal = x'00' WHERE id = 1",
        "DELETE FROM bookmarks WHERE id = 2",
        "DELETE FROM bookmarks WHERE id = 1",
        "DELETE FROM plays",
        "DELETE FROM scenes",
        "INSERT INTO plays VALUES (2, 0, '')",
        "INSERT INTO scenes VALUES (2, '', x'', x'')",
        "UPDATE ticks SET branch = 3 WHERE branch = 2",
    ],
)
def test_rows_that_are_lost_or_added_at_the_end_are_found(change):
    other = base()
    other.execute(change)
    assert end_seal(other) != end_seal(base())


def test_the_end_is_sealed_as_files_hold_it():
    said = [
        "plays", 1, 1, "scenes", 1, 1, "branches", 2, 2, "bookmarks", 2, 2,
        1, 3, b"1:3", 2, 3, b"2:3", 1, b"b1", 2, b"b2",
    ]  # fmt: skip
    assert end_seal(base()) == seal(b"end", said)


def test_actions_come_back_as_they_were():
    action = Action(frozenset({"use", "forward"}), {"look": 0.5, "tilt": -1.0})
    assert action.to_json() == '[["forward","use"],{"look":0.5,"tilt":-1.0}]'
    assert Action.from_json(action.to_json()) == action
    assert Action.from_json(Action().to_json()) == Action()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '[["w"]]', '[["w"],{"look":"left"}]', "[[1],{}]", "[[],{},[]]"]
)
def test_what_is_no_action_is_not_taken_for_one(text):
    with pytest.raises(msgspec.MsgspecError):
        Action.from_json(text)
