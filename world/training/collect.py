"""The collector: films a random player in ViZDoom, as footage to train the freedoom world on.

An episode is one `.npz`, uncompressed: `frames` uint8 (T, 160, 256, 3) RGB, `actions` uint8 (T, 8)
in the order of `places.BUTTONS`, `place` and `seed` (`doom.py` has the game). Action t is held from frame
t to frame t+1, for two game tics: 17.5 ticks a second. An episode is continuous (no death, no change of
level) and is a function of its place, seed and length, and of the player's habits, alone. Seeds from 900000
on are kept for held-out evaluation: never train on them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playhead.world import interrupts
from playhead.world.terminal import console
from playhead.world.training.doom import CollectError, film, import_vizdoom, open_game
from playhead.world.training.places import BUTTONS, HELD_OUT, PLACES

if TYPE_CHECKING:
    pass


def episode_path(out: Path, place: str, seed: int) -> Path:
    return out / f"{place}-{seed:06d}.npz"


def is_whole(path: Path, length: int, steady: float = 0.0, buttons: int = len(BUTTONS)) -> bool:
    """Whether `path` is an episode of `length` ticks by a player of such habits; reads no frame."""
    try:
        with np.load(path) as episode:
            shape, held = episode["actions"].shape, float(episode["steady"]) if "steady" in episode else 0.0
            return shape == (length, buttons) and held == steady and "frames" in episode
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def draft_of(path: Path, process: int) -> Path:
    """Where a process of that number writes what is to become `path`."""
    return path.with_name(f".{path.name}.{process}.tmp")


def write_episode(
    path: Path, frames: np.ndarray, actions: np.ndarray, place: str, seed: int, **more: float | str
) -> None:
    """Write beside `path`, then rename: a file with its final name is always whole."""
    draft = draft_of(path, os.getpid())
    try:
        with draft.open("wb") as file:
            np.savez(file, frames=frames, actions=actions, place=place, seed=seed, **more)  # type: ignore[arg-type]  # none is named `allow_pickle`
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


_stop: Event | None = None  # in a worker: set by the collector when the person has had enough


def start_worker(stop: Event) -> None:
    """Ctrl-C reaches every process of a terminal; only the collector acts on it."""
    import signal

    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_pool_worker(stop: Event) -> None:
    """As `start_worker`; one that is asked to end closes its game first, which would else live on."""
    import signal

    @interrupts.outside_locks
    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    start_worker(stop)
    for number in interrupts.ending():
        if number != signal.SIGINT:
            signal.signal(number, leave)


def work_until_told(work: Callable[..., int], *call: object) -> int:
    """In a worker: `work`. One that is told to end does: the pool would take that for the work's failure."""
    try:
        return work(*call)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)


def film_run(place_name: str, seeds: Sequence[int], length: int, out: Path, steady: float) -> int:
    """In a worker: film some episodes of one place with one game; how many were written."""
    place = PLACES[place_name]
    with open_game(place) as game:
        for done, seed in enumerate(seeds):
            if stopped():
                return done
            frames, actions = film(game, place, seed, length, steady)
            path = episode_path(out, place_name, seed)
            write_episode(path, frames, actions, place_name, seed, steady=steady)
    return len(seeds)


def check_steady(steady: float) -> None:
    if not 0 <= steady < 1:
        raise CollectError(f"steady is {steady}: it is a share of the time, from 0 to below 1.")


def check(episodes: int, length: int, seed: int, out: Path, places: Sequence[str], workers: int) -> None:
    """Refuse what cannot be collected before anything is written but the folder."""
    import_vizdoom()
    for name, value, least in (
        ("episodes", episodes, 1),
        ("length", length, 2),
        ("seed", seed, 0),
        ("workers", workers, 1),
        ("places", len(places), 1),
    ):
        if value < least:
            raise CollectError(f"{name} is {value}: ask for {least} or more.")
    if seed < HELD_OUT < seed + episodes:
        raise CollectError(
            f"seeds {seed} to {seed + episodes - 1} are in part held out (from {HELD_OUT} on): "
            "collect the two kinds apart."
        )
    for place in places:
        if place not in PLACES:
            known = ", ".join(PLACES)
            raise CollectError(f"there is no place '{place}': choose among {known}.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CollectError(
            f"the folder '{out}' cannot be written ({error.strerror}): choose another with out."
        ) from error


def collect(
    episodes: int,
    length: int,
    seed: int,
    out: Path | str,
    places: Sequence[str] | None = None,
    workers: int | None = None,
    steady: float = 0.0,
) -> list[Path]:
    """Film `episodes` episodes of `length` ticks into the folder `out`; their files, in order.

    Episode i is filmed in the i-th place, round and round, with seed `seed + i`. Whole files that
    are there already are kept, so the same call goes on where an earlier one stopped. Ctrl-C leaves
    whole files only, says so in one sentence and exits with status 130.
    Seeds from 900000 on are for held-out evaluation. `steady`: see `film`.
    """
    out = Path(out)
    places = tuple(PLACES if places is None else places)
    workers = (os.cpu_count() or 1) if workers is None else workers
    check_steady(steady)
    check(episodes, length, seed, out, places, workers)

    plan = [(places[i % len(places)], seed + i) for i in range(episodes)]
    files = [episode_path(out, *task) for task in plan]
    todo = [task for task, file in zip(plan, files, strict=True) if not is_whole(file, length, steady)]
    runs = split_runs(todo, most=max(1, min(8, len(todo) // (2 * workers * len(places)))))
    calls = [(place, seeds, length, out, steady) for place, seeds in runs]
    film_all(film_run, calls, workers, out, files, lambda file: is_whole(file, length, steady))
    return files


def film_all(
    work: Callable[..., int],
    calls: Sequence[tuple[object, ...]],
    workers: int,
    out: Path,
    files: Sequence[Path],
    whole: Callable[[Path], bool],
) -> None:
    """Have worker processes call `work`, which says how many episodes it wrote, with each of `calls`.

    `files` are all episodes that there will be, and `whole` says whether one is there already. Ctrl-C leaves
    whole files only, says so in one sentence and exits with status 130.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    progress = Progress(
        TextColumn("filming"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeRemainingColumn(),
        console=console(error=True),
    )
    pool = ProcessPoolExecutor(min(workers, max(1, len(calls))), context, start_pool_worker, (stop,))
    processes: list[BaseProcess] = []
    told = {128 + number for number in interrupts.ending()}
    with progress:
        bar = progress.add_task("filming", total=len(files), completed=sum(map(whole, files)))
        try:
            filmed = [pool.submit(work_until_told, work, *call) for call in calls]
            processes = multiprocessing.active_children()
            for run in as_completed(filmed):
                progress.advance(bar, run.result())
        except (KeyboardInterrupt, BrokenProcessPool) as error:
            with interrupts.under_way():
                stop.set()
                pool.shutdown(cancel_futures=True)
                progress.stop()
                statuses = told.intersection(process.exitcode for process in processes)
                if isinstance(error, BrokenProcessPool) and not statuses:
                    raise CollectError(
                        "a worker was ended from outside (out of memory?): run the same command again to "
                        "go on, with fewer workers."
                    ) from error
                progress.console.print(
                    f"Stopped: {sum(map(whole, files))} of {len(files)} episodes are in {out}, all whole; "
                    "the same command goes on from there."
                )
                # A worker may be told sooner than this process.
                broken = isinstance(error, BrokenProcessPool)
                raise SystemExit(min(statuses) if broken else interrupts.status()) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            for path in files if any(out.glob(".*.tmp")) else ():  # of workers that were ended from outside
                for process in processes:
                    draft_of(path, process.pid or 0).unlink(missing_ok=True)


def stopped() -> bool:
    """In a worker: whether the person has had enough."""
    return _stop is not None and _stop.is_set()


def split_runs(todo: Sequence[tuple[str, int]], most: int) -> list[tuple[str, list[int]]]:
    """Group the episodes by place, at most `most` a run, keeping the places interleaved.

    >>> split_runs([("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4)], most=2)
    [('a', [0, 2]), ('b', [1, 3]), ('a', [4])]
    """
    runs: list[tuple[str, list[int]]] = []
    open_runs: dict[str, list[int]] = {}
    for place, seed in todo:
        if place not in open_runs or len(open_runs[place]) == most:
            open_runs[place] = []
            runs.append((place, open_runs[place]))
        open_runs[place].append(seed)
    return runs
