"""How long work takes: the shortest of a few times, after one that does not count."""

import pytest
import torch

from playhead.world import timing


def test_the_first_run_does_not_count_and_the_shortest_other_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[float] = []
    costs = iter([100.0, 5.0, 2.0, 7.0])
    now = 0.0

    def work() -> None:
        nonlocal now
        ran.append(next(costs))
        now += ran[-1]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    assert timing.seconds(work, torch.device("cpu")) == 2.0
    assert len(ran) == 1 + timing.COUNT
