"""Work that may be done a piece at a time: a generator that yields wherever it may be broken off.

It returns what was asked for. Where it is given up it is closed, and takes along what it has begun.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Work = Generator[None, None, Answer]
PIECE = 32
"""Rows or ticks of a recording that are handled without a break: about a millisecond."""


def at_once(work: "Work[Answer]") -> Answer:
    """Does all of a work. Returns its answer."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            answer: Answer = ended.value
            return answer


def pieces(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Each item, and whether a piece of the work is done with it."""
    for number, item in enumerate(items, 1):
        yield item, number % PIECE == 0
