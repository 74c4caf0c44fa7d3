"""The collector: films a random player in ViZDoom, as footage to train the freedoom world on.

An episode is one `.npz`, uncompressed: `frames` uint8 (T, 160, 256, 3) RGB, `actions` uint8 (T, 8)
in the order of `places.BUTTONS`, `place` and `seed`. The game draws 320 x 512 and every frame is the mean
of its 2 x 2 pixels: drawn at 160 x 256 its far textures flicker from frame to frame (aliasing), which is
noise to whoever has to foresee it. Action t is held from frame t to frame t+1,
for two game tics: 17.5 ticks a second. An episode is continuous (no death, no change of level) and
is a function of its place, seed and length, and of the player's habits, alone. Seeds from 900000 on are
kept for held-out evaluation: never train on them.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playhead.world import interrupts
from playhead.world.errors import PlayheadError
from playhead.world.extras import install
from playhead.world.terminal import console
from playhead.world.training.places import BUTTONS, DOOM_BUTTONS, HELD_OUT, PLACES, Place
from playhead.world.training.player import (
    HABITS,
    STUCK_TICKS,
    STUCK_UNITS,
    Habit,
    Player,
    Sense,
    habits,
    ticks,
)

if TYPE_CHECKING:
    from vizdoom import DoomGame, GameState

TICS_PER_TICK = 2  # the game runs 35 tics a second
HEIGHT, WIDTH = 160, 256
DRAWN = 2  # the game draws so many times as many pixels each way
ATTEMPTS = 50  # filmings of one episode, each cut short by the level's exit, before giving up


class CollectError(PlayheadError):
    """Footage cannot be collected as asked."""


# ------------------------------------------------------------------------------------ the game


def import_vizdoom():  # noqa: ANN201 (a module)
    try:
        import vizdoom
    except ImportError as error:
        raise CollectError(
            "collecting footage needs the package vizdoom, which is not installed here: "
            f"run {install('train')}"
        ) from error
    return vizdoom


@contextlib.contextmanager
def open_game(place: Place, *, objects: bool = False) -> Iterator[DoomGame]:
    """A running game of `place` with nothing drawn over the picture but the weapon."""
    vzd = import_vizdoom()
    root = Path(vzd.__file__).parent
    game = vzd.DoomGame()
    game.set_doom_game_path(str(root / (place.wad if place.game else "freedoom2.wad")))
    if not place.game:
        game.set_doom_scenario_path(str(root / "scenarios" / place.wad))
    game.set_doom_map(place.map)
    game.set_doom_skill(place.skill)
    game.set_screen_resolution(vzd.ScreenResolution.RES_512X320)
    game.set_screen_format(vzd.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_objects_info_enabled(objects)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_render_hud(False)
    game.set_render_crosshair(False)
    game.set_render_messages(False)
    game.set_render_weapon(True)
    # A tint of the whole picture for a hurt or a find says nothing of what was pressed.
    game.set_render_screen_flashes(False)
    game.set_available_buttons([getattr(vzd.Button, name) for name in DOOM_BUTTONS])
    game.set_available_game_variables([vzd.GameVariable.POSITION_X, vzd.GameVariable.POSITION_Y])
    game.set_mode(vzd.Mode.PLAYER)
    game.set_episode_timeout(0)
    # One weapon throughout, so that `attack` looks the same wherever it is pressed.
    game.add_game_args("+neverswitchonpickup 1 +con_midtime 0 +cl_showsecretmessage 0")
    with tempfile.TemporaryDirectory() as scratch:  # the game writes its settings where it starts
        game.set_doom_config_path(str(Path(scratch) / "vizdoom.ini"))
        with contextlib.chdir(scratch):
            game.init()
        try:
            yield game
        finally:
            game.close()


@functools.cache
def pickups(place: Place) -> tuple[tuple[int, int], ...]:
    """Where the map's clips, medikits and the like lie, in map units: ground one can stand on."""
    kinds = ("Clip", "Shell", "Stimpack", "Medikit", "HealthBonus", "ArmorBonus", "GreenArmor")
    with open_game(place, objects=True) as game:
        found = [thing for thing in game.get_state().objects if thing.name in kinds]
    return tuple(sorted((int(thing.position_x), int(thing.position_y)) for thing in found))


class Eyes:
    """Turns the game's states into what the player senses."""

    def __init__(self) -> None:
        self.trail: list[np.ndarray] = []  # the last positions, map units

    def look(self, state: GameState) -> Sense:
        self.trail = [*self.trail[-STUCK_TICKS:], np.array(state.game_variables[:2])]
        # About the horizon, where walls and not floors are seen.
        band = state.depth_buffer[72 * DRAWN : 96 * DRAWN : 4 * DRAWN, :: 4 * DRAWN]
        moved = float(np.abs(self.trail[-1] - self.trail[0]).max())
        return Sense(
            left=float(band[:, :24].mean()),
            ahead=float(band[:, 24:40].mean()),
            right=float(band[:, 40:].mean()),
            stuck=len(self.trail) > STUCK_TICKS and moved < STUCK_UNITS,
        )


class Cut(Exception):
    """The level's exit, or a death, ended the game in the middle of an episode."""


def hold(game: DoomGame, action: np.ndarray) -> None:
    game.make_action(action.tolist(), TICS_PER_TICK)
    if game.is_episode_finished() or game.is_player_dead():
        raise Cut


def begin(game: DoomGame, place: Place, rng: np.random.Generator) -> None:
    """Start the level afresh and walk, unseen, so that episodes begin all over the map."""
    game.set_seed(int(rng.integers(2**31)))
    game.new_episode()
    for command in ("god", "sv_infiniteammo 1", "give pistol"):
        game.send_game_command(command)
    hold(game, np.zeros(len(BUTTONS), np.uint8))  # a scenario that takes the weapon away does so now
    game.send_game_command("use pistol")
    for _ in range(6):
        if place.scatter:
            spots = pickups(place)
            x, y = spots[rng.integers(len(spots))]
            game.send_game_command(f"warp {x} {y}")
        eyes, walker = Eyes(), Player(rng, habits=HABITS[:1])
        for _ in range(ticks(rng, 40, 160)):  # 40 ticks: the weapon is up by then
            hold(game, walker.press(eyes.look(game.get_state())))
        strayed = [np.abs(there - eyes.trail[-1]).max() for there in eyes.trail]
        if not place.scatter or max(strayed) > STUCK_UNITS:
            return  # else it is wedged in where it was put: try another spot


def average(drawn: np.ndarray) -> np.ndarray:
    """The picture (160, 256, 3) of what the game drew (320, 512, 3): the means of 2 x 2."""
    rows = drawn[::2].astype(np.uint16) + drawn[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def film_once(
    game: DoomGame, place: Place, rng: np.random.Generator, length: int, player_habits: Sequence[Habit]
) -> tuple[np.ndarray, np.ndarray]:
    frames = np.empty((length, HEIGHT, WIDTH, 3), np.uint8)
    actions = np.empty((length, len(BUTTONS)), np.uint8)
    begin(game, place, rng)
    eyes, player = Eyes(), Player(rng, player_habits)
    for t in range(length):
        state = game.get_state()
        frames[t] = average(state.screen_buffer)
        actions[t] = player.press(eyes.look(state))
        if t + 1 < length:
            hold(game, actions[t])
    return frames, actions


def film(
    game: DoomGame, place: Place, seed: int, length: int, steady: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """One continuous episode: frames uint8 (T, 160, 256, 3) and actions uint8 (T, 8).

    `steady`: the share of time in which the player holds one thing for seconds (`player.STEADY`).

    A level that ends on the way is filmed again from the start, with a seed derived from this one.
    """
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, zlib.crc32(place.name.encode()), attempt])
        with contextlib.suppress(Cut):
            return film_once(game, place, rng, length, habits(steady))
    raise CollectError(
        f"no {length} ticks of '{place.name}' with seed {seed} pass without the level ending: "
        f"ask for a shorter length."
    )


# ------------------------------------------------------------------------------- the collection


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
            np.savez(file, frames=frames, actions=actions, place=place, seed=seed, **more)
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

    def leave(*_: object) -> None:
        raise SystemExit

    start_worker(stop)
    for number in interrupts.ending():
        if number != signal.SIGINT:
            signal.signal(number, leave)


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
    processes: list[int] = []
    with progress:
        bar = progress.add_task("filming", total=len(files), completed=sum(map(whole, files)))
        try:
            filmed = [pool.submit(work, *call) for call in calls]
            processes = [child.pid or 0 for child in multiprocessing.active_children()]
            for run in as_completed(filmed):
                progress.advance(bar, run.result())
        except (KeyboardInterrupt, SystemExit):  # the latter of a worker that was told sooner
            stop.set()
            pool.shutdown(cancel_futures=True)
            progress.stop()
            progress.console.print(
                f"Stopped: {sum(map(whole, files))} of {len(files)} episodes are in {out}, all whole; "
                "the same command goes on from there."
            )
            raise SystemExit(interrupts.status()) from None
        except BrokenProcessPool as error:
            raise CollectError(
                "a worker was ended from outside (out of memory?): run the same command again to "
                "go on, with fewer workers."
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            for path in files if any(out.glob(".*.tmp")) else ():  # of workers that were ended from outside
                for process in processes:
                    draft_of(path, process).unlink(missing_ok=True)


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
