"""Filming while training: idle cores film new episodes, which join the footage as they come.

Worker processes film one episode after the other into a folder of their own, a thread reads and encodes each
and deletes its file, and between two steps of the training the new latents are laid behind the others: clips
are drawn from a set that grows. Films of one run, and of its resumptions, have seeds of their own.
"""

import contextlib
import multiprocessing
import queue
import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch
from torch import Tensor

from world.errors import PlayheadError
from world.training.collect import (
    CollectError,
    check_steady,
    episode_path,
    film_run,
    import_vizdoom,
    start_worker,
)
from world.training.footage import Episode, Footage, read_episode
from world.training.places import HELD_OUT, PLACES

FIRST_SEED = 100_000
"""Seeds below are for footage that is collected beforehand."""
EPISODES = 4
"""Filmed by one game, one after the other."""


class Filming:
    """Films with `workers` games episodes of `length` frames and encodes them, until `close`.

    `encode`: frames uint8 `(T, H, W, 3)` to normalised latents `(T, C, h, w)`; it is called from a thread.
    `most`: filmed frames after which it stops. `salt`: of another one come other episodes.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        workers: int,
        length: int = 512,
        steady: float = 0.25,
        most: int = 2_000_000,
        salt: int = 0,
    ) -> None:
        import_vizdoom()
        check_steady(steady)
        self._encode, self._length, self._steady, self._left = encode, length, steady, most
        self._workers = workers
        self._seeds = random.Random(salt)
        self._folder = Path(tempfile.mkdtemp(prefix="playhead-filming-"))
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._pool = ProcessPoolExecutor(workers, context, start_worker, (self._stop,))
        self._films: dict[Future[int], tuple[str, list[int]]] = {}
        self._done: queue.SimpleQueue[tuple[Tensor, Episode]] = queue.SimpleQueue()
        self._failed: BaseException | None = None
        self._held, self._used = torch.empty(0), 0
        self._told = torch.empty(0)
        self._thread = threading.Thread(target=self._work, name="filming", daemon=True)
        self._thread.start()

    def gather(self, latents: Tensor, told: Tensor, footage: Footage) -> tuple[Tensor, Tensor]:
        """Lays what was filmed since the last call behind `latents` `(N, C, h, w)` and `told` `(N, told)`.

        Adds it to `footage`, whose frames are not needed. Returns both, longer. Raises PlayheadError if no
        more can be filmed for want of workers.
        """
        if self._failed is not None:
            raise PlayheadError(f"filming has stopped ({self._failed}); run the same command again to go on")
        while True:
            try:
                new, episode = self._done.get_nowait()
            except queue.Empty:
                return latents, told
            led = footage.extend(episode)
            latents = self._longer("_held", latents, new)
            told = self._longer("_told", told, led)

    def _longer(self, name: str, rows: Tensor, new: Tensor) -> Tensor:
        """`rows` and `new` behind them, in a buffer that is made anew only when it is full."""
        buffer: Tensor = getattr(self, name)
        count = len(rows) + len(new)
        if buffer.data_ptr() != rows.data_ptr() or count > len(buffer):
            room = min(2 * count, count + 400_000)
            buffer = rows.new_empty((room, *rows.shape[1:]))
            buffer[: len(rows)] = rows
            setattr(self, name, buffer)
        buffer[len(rows) : count] = new.to(buffer)
        return buffer[:count]

    def close(self) -> None:
        """Stops the games and takes away what they have left."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Filming":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        """Hands out films, so that no game waits for one."""
        while len(self._films) < 2 * self._workers and self._left > 0 and not self._stop.is_set():
            place = self._seeds.choice(list(PLACES))
            seeds = [self._seeds.randrange(FIRST_SEED, HELD_OUT) for _ in range(EPISODES)]
            film = self._pool.submit(film_run, place, seeds, self._length, self._folder, self._steady)
            self._films[film] = place, seeds
            self._left -= EPISODES * self._length

    def _work(self) -> None:
        """The thread: hands out films and takes in what is there of them."""
        try:
            self._begin()
            while not self._stop.is_set() and self._films:
                wait(self._films, timeout=0.5, return_when=FIRST_COMPLETED)
                for film in list(self._films):
                    place, seeds = self._films[film]
                    over = film.done()
                    if over:
                        with contextlib.suppress(CollectError):  # a level that ends too soon, again and again
                            film.result()
                    self._take_in(place, seeds)
                    if over:
                        del self._films[film]
                self._begin()
        except Exception as error:  # whatever it is, the training has to hear of it
            if not self._stop.is_set():
                self._failed = error

    def _take_in(self, place: str, seeds: list[int]) -> None:
        """Reads and encodes what is there of a film; `seeds` are left of what is not."""
        for seed in list(seeds):
            path = episode_path(self._folder, place, seed)
            if path.is_file() and not self._stop.is_set():
                episode = read_episode(path)
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                with torch.no_grad():
                    latents = self._encode(torch.from_numpy(episode.frames))
                self._done.put((latents, Episode(episode.frames[:0], episode.actions, place, seed)))
                seeds.remove(seed)
