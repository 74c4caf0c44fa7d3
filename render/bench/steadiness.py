"""How steady a machine is: the same bare products, over and over, with nothing of a world between them.

Something else may want the cores, their caches or the memory: another program, or another guest of the same
host. A world's slowest ticks show that among other things; the slowest of these rounds show nothing else.
They read as many weights as a tick does, since those have to come from the caches that all guests share.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import torch

MOST = 200
"""Rounds that are timed at the most."""
ROWS, SIZE = 160, 1024
"""Of what is multiplied, and rows and columns of each weight: as the large layers of the shipped world."""
WEIGHTS = 256 * 2**20
"""Bytes of weights at the most, more than caches hold."""
_COLD = 20
"""Products before anything is counted."""
_TRIED = 10
"""Rounds' time in which it is found how many products a round has."""


def time_products(seconds: float, rounds: int, dtype: torch.dtype, held: int = 0) -> list[float]:
    """Seconds of each round of products on the CPU, which takes about `seconds`; at most `MOST` rounds.

    By weights of `held` bytes in turn, one at the least. On as many threads as torch takes for a thread that
    begins now, as a loop's does.
    """
    count = max(1, min(held, WEIGHTS) // (SIZE * SIZE * dtype.itemsize))
    weights = cycle(torch.randn(count, SIZE, SIZE).to(dtype).unbind())
    x, product = (torch.randn(ROWS, SIZE).to(dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(x, next(weights), out=product)

    timed = time_rounds(multiply, seconds)
    with ThreadPoolExecutor(1) as alone:  # its end is the end of torch's threads that it had
        # One by one, so that an interruption waits for no more than one.
        return [alone.submit(next, timed).result() for _ in range(min(rounds, MOST))]


def time_rounds(
    work: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[float]:
    """Seconds of one round after the other, without an end.

    In each `work` is done as often as takes about `seconds`, once at the least.
    """

    def timed(times: int) -> float:
        began = clock()
        for _ in range(times):
            work()
        return clock() - began

    timed(_COLD)
    tried, taken = 0, 0.0
    while taken < _TRIED * seconds:  # the mean of many: one alone may have waited for a core
        taken += timed(1)
        tried += 1
    times = max(1, round(seconds * tried / taken))
    while True:
        yield timed(times)
