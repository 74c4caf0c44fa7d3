"""The carrier to a GPU on simulated streams, which do what they are asked whenever events allow it.

Whatever order they choose, a block has to find its own weights: events alone may keep the order, and the
host may wait for the thread that reads, never for a stream.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.world.offload import carriers, page_locked
from playhead.world.offload.buffers import Buffers, Offloaded
from playhead.world.offload.carriers import StreamCarrier
from playhead.world.offload.slab import MappedSlab, PackedSlab, SlabLayout
from tests.conftest import THOROUGH

LAYOUT = SlabLayout({"o": ((5, 7),)}, lambda _: torch.float32)
CPU = torch.device("cpu")


class Runtime:
    """Streams of work. An event is a place in one; a stream goes on past a wait once that is reached."""

    def __init__(self, seed: int) -> None:
        self.random, self.lock = random.Random(seed), threading.RLock()
        self.streams: list[SimulatedStream] = []
        self.compute = SimulatedStream(self)

    def step(self) -> bool:
        """Does one thing that may be done now, any of them; False if there is none."""
        with self.lock:
            ready = [s for s in self.streams if s.done < len(s.work) and s.work[s.done][0]()]
            if not ready:
                return False
            stream = self.random.choice(ready)
            _, do = stream.work[stream.done]
            do()
            stream.done += 1
            return True

    def finish(self) -> None:
        while self.step():
            pass
        assert all(stream.done == len(stream.work) for stream in self.streams), "streams wait for each other"


class SimulatedStream:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.done = runtime, 0
        self.work: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        runtime.streams.append(self)

    def ask(self, do: Callable[[], None]) -> None:
        with self.runtime.lock:
            self.work.append((lambda: True, do))

    def wait_event(self, event: "SimulatedEvent") -> None:
        with self.runtime.lock:
            stream, place = event.place
            self.work.append((lambda: stream.done >= place, lambda: None))


class SimulatedEvent:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.place: tuple[SimulatedStream, int] = (runtime.compute, 0)

    def record(self, stream: SimulatedStream) -> None:
        with self._runtime.lock:
            self.place = (stream, len(stream.work))

    def synchronize(self) -> None:
        assert threading.current_thread() is not threading.main_thread(), "the host waits for a stream"
        while self.place[0].done < self.place[1]:
            assert self._runtime.step(), "what is waited for never comes"


@contextmanager
def simulated(seed: int) -> Iterator[Runtime]:
    runtime = Runtime(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", lambda device=None: SimulatedStream(runtime))
        patch.setattr(torch.cuda, "Event", lambda: SimulatedEvent(runtime))
        patch.setattr(torch.cuda, "current_stream", lambda device=None: runtime.compute)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        patch.setattr(carriers, "page_locked", lambda size: torch.empty(size, dtype=torch.uint8))
        patch.setattr(carriers, "copy_on", lambda stream, to, of: stream.ask(lambda: to.copy_(of)))
        yield runtime


def slab_of(value: float, mapped: bool) -> PackedSlab | MappedSlab:
    weight = torch.full((5, 7), value)
    return MappedSlab(LAYOUT, {"o": [weight]}) if mapped else PackedSlab(LAYOUT, {"o": weight}, pinned=False)


@settings(max_examples=40 * THOROUGH)
@given(
    seed=st.integers(0, 2**32),
    mapped=st.tuples(*[st.lists(st.booleans(), min_size=1, max_size=6)] * 2),
    passes=st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=6),
    hurry=st.integers(0, 8),
)
def test_events_alone_keep_the_order(
    seed: int, mapped: tuple[list[bool], list[bool]], passes: list[tuple[int, bool]], hurry: int
) -> None:
    """Blocks of two generators, in memory and in a file; streams that run along, far behind or at once."""
    with simulated(seed) as runtime:
        buffers = Buffers(LAYOUT.size, CPU, StreamCarrier(CPU, LAYOUT.size, True))
        models = []
        for which, places in enumerate(mapped):
            slabs = [slab_of(100 * which + n, place) for n, place in enumerate(places)]
            of_context = [slab_of(-100 * which - n - 1, not place) for n, place in enumerate(places)]
            models.append(Offloaded(buffers, range(len(places)), slabs, of_context))
        seen: list[tuple[float, float]] = []

        def look(number: int, wanted: float) -> None:
            seen.append((wanted, float(LAYOUT.views(buffers.bytes[number % 2])["o"].mean())))

        for which, of_context in passes:
            for number in models[which].walk(range(len(mapped[which])), of_context):
                wanted = -100 * which - number - 1 if of_context else 100 * which + number
                runtime.compute.ask(lambda number=number, wanted=wanted: look(number, wanted))
                for _ in range(runtime.random.randint(0, hurry)):
                    runtime.step()
        runtime.finish()
        assert len(seen) == sum(len(mapped[which]) for which, _ in passes)
        assert all(found == wanted for wanted, found in seen)


def test_memory_is_locked_to_the_page_and_unlocked_when_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cudart:
        failure, locked = 0, {}

        def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
            self.locked[address] = size
            return self.failure

        def cudaHostUnregister(self, address: int) -> None:
            del self.locked[address]

    cudart = Cudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    memory = page_locked.page_locked(12345)
    memory.fill_(7)
    assert memory.numel() == 12345 and cudart.locked == {memory.data_ptr(): 12345}
    assert memory.data_ptr() % 4096 == 0
    del memory
    assert not cudart.locked
