"""The mailbox: the newest thing, once."""

from playhead.engine.mailbox import Mailbox


def test_only_the_newest_thing_is_taken():
    box = Mailbox()
    box.put(1)
    box.put(2)
    assert (box.take(), box.take()) == (2, None)


def test_the_taker_is_woken_once_for_all_that_it_has_not_taken():
    box = Mailbox()
    assert [box.put(n) for n in range(3)] == [True, False, False]
    box.take()
    assert box.put(3)
