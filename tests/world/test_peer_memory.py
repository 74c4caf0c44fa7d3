"""What ranks write into each other's memory arrives, and stays until it was read."""

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
ROUNDS = 6


class MappedMemory:
    """A file a size, mapped by all ranks."""

    def __init__(self, folder: Path, ranks: int, count: int, wait: Callable[[], object]) -> None:
        self.barrier = wait
        name = folder / f"{count}.bytes"
        with name.open("ab") as file:  # whoever comes first makes it
            file.truncate(ranks * count)
        wait()
        mapped = np.memmap(name, np.uint8, "r+", shape=(ranks, count))
        self.parts = [torch.from_numpy(part) for part in mapped]


def drawn(rank: int, number: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What a rank hands over in an exchange: everybody can work it out."""
    draw = torch.Generator().manual_seed(1000 * rank + number)
    return torch.randn(shape, generator=draw).to(dtype)


def exchange(rank: int, ranks: int, folder: Path, barrier: object, said: object, slow: bool) -> None:
    """A rank's exchanges, of which every second is of as many bytes as the one before."""
    torch.set_num_threads(1)
    wait = barrier.wait  # type: ignore[attr-defined]
    memory = PeerMemory(rank, ranks, lambda count: MappedMemory(folder, ranks, count, wait))
    right = True
    for number in range(ROUNDS):
        dtype = torch.bfloat16 if number % 2 else torch.float32
        shape = (2 * ranks, 3, 2) if number % 2 else (2 * ranks, 3)
        all_given = [drawn(other, number, shape, dtype) for other in range(ranks)]
        found = memory.swap(all_given[rank])
        if slow:
            time.sleep(0.05)  # others are at the next exchange by then
        assert found is not None
        wanted = torch.cat([given.chunk(ranks)[rank] for given in all_given])
        right = right and torch.equal(found, wanted)
        part = all_given[rank][:2].contiguous()
        gathered = memory.gather(part) if number > 2 else None
        if gathered is not None:
            right = right and torch.equal(gathered, torch.stack([given[:2] for given in all_given]))
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
    assert memory.swap(x) is None and memory.gather(x) is None
    capturing = False
    assert memory.swap(x) is not None
    capturing = True
    found = memory.swap(x)
    assert found is not None and torch.equal(found, x)
