"""How steady a machine is: the same bare products, over and over, with nothing of a world between them.

Something else may want the cores: another program, or another guest of the same host. A world's slowest ticks
show that among other things; the slowest of these rounds show nothing else.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

MOST = 200
"""Rounds that are timed at the most."""
SIZE = 256
"""Rows and columns of the matrices: a fraction of a millisecond on a core or two, within their caches."""
_COLD = 20
"""Products before anything is counted."""
_TRIED = 10
"""Rounds' time in which it is found how many products a round has."""


def time_products(seconds: float, rounds: int, dtype: torch.dtype) -> list[float]:
    """Seconds of each round of products on the CPU, which takes about `seconds`; at most `MOST` rounds.

    On as many threads as torch takes for a thread that begins now, as a loop's does.
    """
    a, b, product = (torch.randn(SIZE, SIZE, dtype=dtype) for _ in range(3))
    multiply = partial(torch.mm, a, b, out=product)
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
