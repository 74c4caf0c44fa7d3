"""Filming while training: idle cores film new episodes, which join the footage as they come.

Processes of their own film one episode after the other into a folder. The next file there is read, and
deleted, by a thread; between two steps of the training it is encoded, and its latents are laid behind the
others: clips are drawn from a set that grows. They are encoded by the thread that trains: one that encoded
while the training compiled its blocks brought both to a standstill on a GPU.
"""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from torch import Tensor

from playhead.world.errors import PlayheadError
from playhead.world.training.collect import check_steady, film_run, start_worker
from playhead.world.training.doom import CollectError, import_vizdoom
from playhead.world.training.footage import Episode, Footage, read_episode
from playhead.world.training.places import HELD_OUT, PLACES

FIRST_SEED = 100_000
"""Seeds below are for footage that is collected beforehand."""
EPISODES = 4
"""Filmed by one game, one after the other."""
WAITING = 32
"""Files that may wait to be read; no more are filmed meanwhile."""
PATIENCE = 60.0  # seconds in which a game ends with its episode, before it is ended


class Filming:
    """Films with `workers` games episodes of `length` frames, until `close`.

    `encode`: an episode to normalised latents `(T, C, h, w)`. `most`: filmed frames after which no more are
    taken. `salt`: of another one come other episodes; None: of every filming others.
    """

    def __init__(
        self,
        encode: Callable[[Episode], Tensor],
        workers: int,
        length: int = 512,
        steady: float = 0.25,
        most: int = 2_000_000,
        salt: int | None = None,
    ) -> None:
        import_vizdoom()
        check_steady(steady)
        if salt is None:  # a run that is resumed must not film the same again
            salt = random.SystemRandom().getrandbits(64)
        self._encode, self._most = encode, most
        self._folder = Path(tempfile.mkdtemp(prefix="playhead-filming-"))
        self._filmed = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="films")
        self._next: Future[Episode] | None = None
        self._buffers: dict[str, Tensor] = {}
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        given = length, steady, self._folder, self._stop
        self._games = [
            context.Process(target=_film_on, args=(salt * 1000 + number, *given), daemon=True)
            for number in range(workers)
        ]
        for game in self._games:
            game.start()

    def gather(self, latents: Tensor, told: Tensor, footage: Footage) -> tuple[Tensor, Tensor]:
        """Lays the next film, if there is one, behind `latents` `(N, C, h, w)` and `told` `(N, told)`.

        Adds it to `footage`, whose frames are not needed. Returns both, longer. Raises PlayheadError where
        a game has ended.
        """
        if self._filmed >= self._most:
            self._stop.set()
            return latents, told
        if self._next is None:
            film = next(iter(sorted(self._folder.glob("*.npz"))), None)
            if film is not None:
                self._next = self._reader.submit(_take, film)
            elif not all(game.is_alive() for game in self._games):
                raise PlayheadError(
                    "a game that was filming has ended (out of memory?): run the same command again to go "
                    "on, with fewer games"
                )
        if self._next is None or not self._next.done():
            return latents, told
        episode, self._next = self._next.result(), None
        with torch.no_grad():
            new = self._encode(episode)
        self._filmed += len(new)
        footage.join([Footage.of(episode)])
        led = footage.led(len(footage.starts) - 1)
        return self._longer("latents", latents, new), self._longer("told", told, led)

    def _longer(self, name: str, rows: Tensor, new: Tensor) -> Tensor:
        """`rows` and `new` behind them, in a buffer that is made anew only when it is full."""
        buffer, count = self._buffers.get(name, rows), len(rows) + len(new)
        if buffer.data_ptr() != rows.data_ptr() or count > len(buffer):
            room = min(2 * count, count + 400_000)
            buffer = rows.new_empty((room, *rows.shape[1:]))
            buffer[: len(rows)] = rows
            self._buffers[name] = buffer
        buffer[len(rows) : count] = new.to(buffer)
        return buffer[:count]

    def close(self) -> None:
        """Stops the games and takes away what they have left."""
        self._stop.set()
        self._reader.shutdown(cancel_futures=True)
        for game in self._games:
            game.join(PATIENCE)
            game.terminate()
            game.join()
            _end_group(game.pid)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Filming":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take(film: Path) -> Episode:
    episode = read_episode(film)
    film.unlink()
    return episode


def _film_on(salt: int, length: int, steady: float, folder: Path, stop: Event) -> None:
    """In a process: one film after the other, as long as they are fetched."""
    start_worker(stop)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a group of its own and of the game's engine, for `_end_group`
    tempfile.tempdir = str(folder)  # so that what the game keeps there goes with it, however this ends
    draw = random.Random(salt)
    training = multiprocessing.parent_process()
    while not stop.is_set() and training is not None and training.is_alive():
        if len(list(folder.glob("*.npz"))) >= WAITING:
            time.sleep(0.5)  # not in `stop.wait`: who is ended in there holds up `stop.set` for ever
            continue
        seeds = [draw.randrange(FIRST_SEED, HELD_OUT) for _ in range(EPISODES)]
        with contextlib.suppress(CollectError):  # a level that ends too soon, again and again
            film_run(draw.choice(list(PLACES)), seeds, length, folder, steady)


def _end_group(number: int | None) -> None:
    """Ends the engine that a game left behind which was itself ended: it would wait for it for ever."""
    if number is not None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):  # as always when all went well
            os.killpg(number, signal.SIGKILL)
