"""The inbox of a thread that plays: commands in their order, answers, and nobody who waits in vain."""

import threading

import pytest

from playhead.engine.inbox import Inbox
from playhead.world.errors import PlayheadError


def ended() -> PlayheadError:
    return PlayheadError("the session ended")


def test_commands_are_taken_in_the_order_in_which_they_came():
    inbox, done = Inbox(ended), []
    for number in range(3):
        inbox.put(lambda number=number: done.append(number))
    while len(inbox):
        inbox.obey()
    assert done == [0, 1, 2]


def test_who_asks_gets_the_answer_or_the_error():
    inbox = Inbox(ended)
    answers = [inbox.ask(lambda: 6 * 7), inbox.ask(lambda: 1 // 0)]
    assert not answers[0].done()
    for _ in answers:
        inbox.obey()
    assert answers[0].result() == 42
    assert isinstance(answers[1].exception(), ZeroDivisionError)


def test_nobody_waits_for_a_thread_that_has_ended():
    inbox = Inbox(ended)
    before = inbox.ask(lambda: 1)
    inbox.close()
    for answer in (before, inbox.ask(lambda: 2)):
        with pytest.raises(PlayheadError, match="the session ended"):
            answer.result(timeout=0)
    inbox.put(lambda: None)  # which nobody waits for


def test_a_thread_that_waits_is_woken():
    inbox, woken = Inbox(ended), threading.Event()
    thread = threading.Thread(target=lambda: (inbox.obey(), woken.set()))
    thread.start()
    inbox.wake()
    thread.join(30)
    assert woken.is_set()
