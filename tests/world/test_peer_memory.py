"""What ranks write into each other's memory arrives, and stays until it was read."""

import itertools
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from playhead.world.parallel.peer_memory import PeerMemory

Context = multiprocessing.get_context("spawn")
ROUNDS = 5


class MappedMemory:
    """A file for each allocation, mapped by all ranks, which make them in the same order."""

    def __init__(self, folder: Path, ranks: int, number: int, count: int, wait: Callable[[], object]) -> None:
        self.barrier = wait
        name = folder / f"{number}.bytes"
        with name.open("ab") as file:  # whoever comes first makes it
            file.truncate(ranks * count)
        wait()
        mapped = np.memmap(name, np.uint8, "r+", shape=(ranks, count))
        self.parts = [torch.from_numpy(part) for part in mapped]


def drawn(rank: int, number: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """What a rank hands over in an exchange: everybody can work it out."""
    draw = torch.Generator().manual_seed(1000 * rank + number)
    return torch.randn(shape, generator=draw).to(dtype)


def exchange(rank: int, ranks: int, folder: Path, barrier: object, said: object, slow: bool) -> None:
    """A rank's exchanges, as attention has them in each of some layers: by heads, and by queries."""
    torch.set_num_threads(1)
    wait = barrier.wait  # type: ignore[attr-defined]
    numbers = itertools.count()
    memory = PeerMemory(rank, ranks, lambda n: MappedMemory(folder, ranks, next(numbers), n, wait))
    right = True

    def read(found: Tensor | None, wanted: Tensor) -> None:
        nonlocal right
        if slow:
            time.sleep(0.03)  # others are as far as they can come by then
        assert found is not None
        right = right and torch.equal(found, wanted)

    def swapped(number: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.cat([drawn(other, number, shape, dtype).chunk(ranks)[rank] for other in range(ranks)])

    for layer in range(ROUNDS):
        for number, slot, dtype in ((0, "heads", torch.bfloat16), (1, "tokens", torch.float32)):
            x = drawn(rank, 10 * layer + number, (2 * ranks, 3), dtype)
            read(memory.swap(x, slot), swapped(10 * layer + number, (2 * ranks, 3), dtype))
    for layer in range(ROUNDS):  # of as many bytes in all, the parts read after the sums have come
        first = 100 + 10 * layer
        asked = torch.stack([drawn(other, first, (2, 3)) for other in range(ranks)])
        read(memory.gather(asked[rank].clone(), "queries"), asked)
        parts = memory.swap(drawn(rank, first + 1, (2 * ranks, 3)), "found")
        sums = memory.swap(drawn(rank, first + 2, (ranks, 1)), "sums")
        read(sums, swapped(first + 2, (ranks, 1)))
        read(parts, swapped(first + 1, (2 * ranks, 3)))
    said.put((rank, right))  # type: ignore[attr-defined]


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_is_handed_over_is_there_for_as_long_as_it_takes_to_read_it(ranks: int, tmp_path: Path) -> None:
    barrier, said = Context.Barrier(ranks, timeout=60), Context.Queue()
    started = [
        Context.Process(target=exchange, args=(rank, ranks, tmp_path, barrier, said, rank == 0), daemon=True)
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    found = dict(said.get(timeout=60) for _ in started)
    for process in started:
        process.join(60)
    assert found == dict.fromkeys(range(ranks), True)


def test_nothing_is_allocated_while_a_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone:
        def __init__(self, count: int) -> None:
            self.parts = [torch.zeros(count, dtype=torch.uint8)]

        def barrier(self) -> None:
            pass

    memory, x = PeerMemory(0, 1, Alone), torch.arange(4.0)
    capturing = True
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    assert memory.swap(x, "a") is None and memory.gather(x, "a") is None
    capturing = False
    assert memory.swap(x, "a") is not None
    capturing = True
    assert memory.swap(x, "b") is None
    found = memory.swap(x, "a")
    assert found is not None and torch.equal(found, x)
