"""How steady a machine is, is told by rounds of equal work: as long as a tick, and all of them counted."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from playhead.render.bench.steadiness import MOST, time_products, time_rounds

ROOT = Path(__file__).parents[2]


class Machine:
    """A clock that only work moves: each piece takes `piece` seconds, one in a while `longer` times that."""

    def __init__(self, piece: float, held_up: int = 0, longer: float = 1.0) -> None:
        self.now, self.done = 0.0, 0
        self._piece, self._held_up, self._longer = piece, held_up, longer

    def clock(self) -> float:
        return self.now

    def work(self) -> None:
        self.done += 1
        slow = self._held_up and self.done % self._held_up == 0
        self.now += self._piece * (self._longer if slow else 1)


def rounds(machine: Machine, seconds: float, count: int) -> list[float]:
    return list(islice(time_rounds(machine.work, seconds, machine.clock), count))


@pytest.mark.parametrize(("piece", "round_"), [(0.0005, 0.02), (0.003, 0.021), (0.5, 0.5)])
def test_on_a_quiet_machine_all_rounds_are_as_long_as_was_asked(piece: float, round_: float) -> None:
    machine = Machine(piece)
    assert rounds(machine, round_, 30) == pytest.approx([round_] * 30)


def test_work_longer_than_a_round_is_done_once_in_each() -> None:
    machine = Machine(0.4)
    assert rounds(machine, 0.01, 5) == pytest.approx([0.4] * 5)


def test_a_machine_that_is_held_up_shows_it_in_its_slowest_rounds_alone() -> None:
    machine = Machine(0.001, held_up=400, longer=21)  # 20 ms more in every twentieth round of 20
    times = sorted(rounds(machine, 0.02, 100))
    assert times[:95] == pytest.approx([0.02] * 95) and times[95:] == pytest.approx([0.04] * 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_timed_as_often_as_ticks_were_and_not_for_ever(dtype: torch.dtype) -> None:
    assert len(time_products(1e-6, 7, dtype)) == 7
    times = time_products(1e-6, MOST + 1000, dtype, held=12 * 2**20)
    assert len(times) == MOST and all(seconds > 0 for seconds in times)


def test_products_leave_the_threads_of_who_asks_alone() -> None:
    before = torch.get_num_threads()
    time_products(1e-6, 3, torch.float32)
    assert torch.get_num_threads() == before


def test_an_interruption_waits_for_one_round_and_not_for_all() -> None:
    """Which would be two hundred seconds here."""
    program = (
        "import _thread, threading, torch\n"
        "from playhead.render.bench.steadiness import time_products\n"
        "threading.Timer(0.5, _thread.interrupt_main).start()\n"
        "time_products(1.0, 200, torch.float32)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "KeyboardInterrupt" in done.stderr.splitlines()[-1]
