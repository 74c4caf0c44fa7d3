"""Work that other threads leave: it wakes who waits, is done in its order, and an error costs no other."""

import select
from collections.abc import Iterator

import pytest

from playhead.engine.bridge.work_queue import WorkQueue


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture(params=[False, True])
def work(request: pytest.FixtureRequest, failures: list[Exception]) -> Iterator[WorkQueue]:
    """A queue whose errors are raised, and one that tells them."""
    queue = WorkQueue(failures.append if request.param else None)
    yield queue
    queue.close()


def woken(work: WorkQueue) -> bool:
    return bool(select.select([work.woken], [], [], 0)[0])


def test_whoever_waits_is_woken_until_the_work_is_done(work: WorkQueue) -> None:
    done: list[int] = []
    assert not woken(work)
    for number in range(3):
        work.post(lambda number=number: done.append(number))
    assert woken(work) and not done
    work.do()
    assert done == [0, 1, 2] and not woken(work)
    work.wake()
    assert woken(work)
    work.do()
    assert done == [0, 1, 2] and not woken(work)


def test_work_that_work_leaves_is_done_too(work: WorkQueue) -> None:
    done: list[str] = []
    work.post(lambda: work.post(lambda: done.append("later")))
    work.do()
    assert done == ["later"]


def test_a_piece_of_work_that_fails_costs_no_other(work: WorkQueue, failures: list[Exception]) -> None:
    done: list[str] = []
    work.post(lambda: done.append("before"))
    work.post(lambda: {}["missing"])
    work.post(lambda: done.append("after"))
    try:
        work.do()
    except KeyError as error:
        assert done == ["before"] and woken(work)  # a poll does not sleep over the rest
        failures.append(error)
        work.do()
    assert done == ["before", "after"] and [type(error) for error in failures] == [KeyError]


def test_work_for_a_thread_that_has_ended_is_left_in_peace() -> None:
    work = WorkQueue()
    work.close()
    work.post(lambda: pytest.fail("nobody does it"))
