"""Films there and back: a player who stands still, makes an excursion and ends up where it began.

For `evaluate`, which has a world dream the same excursion and compares what it shows at the end with what was
seen before. An episode is one of `world.training.collect` with three fields more: `excursion` (a name of
`EXCURSIONS`), `ticks` (how far it went) and `past` (how many of its frames come before the excursion). It is
a function of its place, seed, excursion and ticks alone; excursions of one place and seed begin alike, unless
a way is blocked. All but the player is frozen meanwhile (a cheat of the game): else monsters would come
and go, shove the player aside, and what the real game shows at the end would tell little of memory. What is
picked up on the way, or a door that was opened, may still be seen to differ.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from playhead.world.training.collect import check, film_all, split_runs, stopped, write_episode
from playhead.world.training.doom import (
    HEIGHT,
    WIDTH,
    CollectError,
    EpisodeCut,
    average,
    begin,
    hold,
    open_game,
)
from playhead.world.training.places import BUTTONS, HELD_OUT, PLACES, Place

if TYPE_CHECKING:
    from vizdoom import DoomGame

PAST = 16
"""Frames of an episode before the excursion, in which the player stands still."""
TURN = 52
"""Ticks that turn furthest without going beyond a whole turn, measured: 356.84 degrees.

The first three ticks of a turn turn by 3.52, 3.52 and 5.27 degrees, all others by 7.03. Letting go for a tick
starts that anew, so that one tick more makes 360.35.
"""
COAST = 24
"""Ticks with nothing held, after which one who ran stands still."""
NEAR = 4.0
"""Map units from where it began, each way, at which a player is back; a step of a run is 17."""
BLOCKED = (8, 10.0)
"""After so many ticks one who walks makes more map units a tick, or is stuck."""
ATTEMPTS = 200
"""Starts that are tried before giving up; few have room for the longest walk."""
LENGTHS = (12, 24, 48)

EXCURSIONS: tuple[tuple[str, int], ...] = (
    *(("right-left", ticks) for ticks in LENGTHS),
    *(("forward-back", ticks) for ticks in LENGTHS),
    ("whole-turn", TURN),
)
"""Each name and number of ticks: of one way, or of the whole turn."""


def rows(button: str | None, ticks: int) -> np.ndarray:
    """Actions uint8 (ticks, 8) that hold one button, or nothing."""
    held = np.zeros((ticks, len(BUTTONS)), np.uint8)
    if button is not None:
        held[:, BUTTONS.index(button)] = 1
    return held


def plan(excursion: str, ticks: int) -> np.ndarray:
    """The actions uint8 (T, 8) of an excursion.

    In between the keys are let go for a tick: else the way back would begin as fast as the way there ended,
    and a turn end 9 degrees beyond its start.
    """
    if excursion == "whole-turn":
        turn, still = rows("turn_right", ticks), rows(None, 1)
        return np.concatenate([turn, still, turn[:1], still])
    there, back, rest = {
        "right-left": ("turn_right", "turn_left", 1),
        "forward-back": ("forward", "back", COAST),
    }[excursion]
    return np.concatenate([rows(there, ticks), rows(None, 1), rows(back, ticks), rows(None, rest)])


class NotReturned(Exception):
    """The excursion did not end where it began: a wall, a thing or a monster was in the way."""


def spot(game: DoomGame) -> np.ndarray:
    """Where the player stands, map units (2)."""
    variables = game.get_state().game_variables
    assert variables is not None  # `open_game` asks for them
    return np.array(variables[:2])


def face_the_open(game: DoomGame) -> None:
    """Turn, unseen, to where one can walk furthest, and stand still."""
    ways = []
    for action in plan("whole-turn", TURN):
        hold(game, action)
        depth = game.get_state().depth_buffer
        assert depth is not None  # `open_game` asks for it
        height, width = depth.shape
        ahead = depth[height * 9 // 20 : height * 12 // 20, width * 15 // 32 : width * 17 // 32]
        ways.append(float(ahead.min()))  # about the horizon, as wide as the player
    for action in (*rows("turn_right", 1 + int(np.argmax(ways[:TURN]))), *rows(None, COAST)):
        hold(game, action)


def film_once(
    game: DoomGame, place: Place, rng: np.random.Generator, excursion: str, ticks: int
) -> tuple[np.ndarray, np.ndarray]:
    begin(game, place, rng)
    game.send_game_command("freeze")  # until the level begins afresh
    face_the_open(game)
    actions = np.concatenate([rows(None, PAST - 1), plan(excursion, ticks), rows(None, 1)])
    frames = np.empty((len(actions), HEIGHT, WIDTH, 3), np.uint8)
    start = before = spot(game)
    for t, action in enumerate(actions):
        frames[t] = average(game.get_state().screen_buffer)
        here = spot(game)
        if t == PAST - 1:
            start = here
        walked = excursion == "forward-back" and PAST + BLOCKED[0] <= t < PAST + ticks
        if walked and np.hypot(*(here - before)) < BLOCKED[1]:
            raise NotReturned
        before = here
        if t + 1 < len(actions):
            hold(game, action)
    if np.abs(before - start).max() > NEAR:
        raise NotReturned
    return frames, actions


def film(
    game: DoomGame, place: Place, seed: int, excursion: str, ticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """One episode: frames uint8 (T, 160, 256, 3) and actions uint8 (T, 8).

    Where the level ends on the way, or the player does not get back, it is filmed again from another start,
    with a seed derived from this one.
    """
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, zlib.crc32(place.name.encode()), attempt])
        with contextlib.suppress(EpisodeCut, NotReturned):
            return film_once(game, place, rng, excursion, ticks)
    raise CollectError(
        f"from {ATTEMPTS} starts in '{place.name}' with seed {seed} the player never came back from "
        f"{excursion} of {ticks} ticks: choose another seed."
    )


# ------------------------------------------------------------------------------- the collection


def excursion_path(out: Path, place: str, seed: int, excursion: str, ticks: int) -> Path:
    return out / f"{place}-{seed:06d}-{excursion}-{ticks:02d}.npz"


def is_filmed(path: Path, excursion: str, ticks: int) -> bool:
    """Whether `path` is a whole episode of that excursion; reads no frame."""
    try:
        with np.load(path) as episode:
            told = str(episode["excursion"]), int(episode["ticks"]), int(episode["past"])
            length = PAST + len(plan(excursion, ticks))
            return (
                told == (excursion, ticks, PAST) and len(episode["actions"]) == length and "frames" in episode
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def film_excursions(place_name: str, seeds: Sequence[int], out: Path) -> int:
    """In a worker: film what is missing of some seeds of one place with one game; how many were written."""
    place, done = PLACES[place_name], 0
    with open_game(place) as game:
        for seed in seeds:
            for excursion, ticks in EXCURSIONS:
                path = excursion_path(out, place_name, seed, excursion, ticks)
                if stopped():
                    return done
                if is_filmed(path, excursion, ticks):
                    continue
                frames, actions = film(game, place, seed, excursion, ticks)
                fields: dict[str, float | str] = {"excursion": excursion, "ticks": ticks, "past": PAST}
                write_episode(path, frames, actions, place_name, seed, **fields)
                done += 1
    return done


def collect_excursions(
    clips: int,
    out: Path | str,
    places: Sequence[str] | None = None,
    workers: int | None = None,
    seed: int = HELD_OUT,
) -> list[Path]:
    """Film every excursion `clips` times in each place into the folder `out`; the files, in order.

    The i-th start is in the i-th place, round and round, with seed `seed + i`. Whole files that are there
    already are kept. For Ctrl-C see `film_all`.
    """
    out, places = Path(out), tuple(PLACES if places is None else places)
    workers = (os.cpu_count() or 1) if workers is None else workers
    check(clips * len(places), 2, seed, out, places, workers)
    starts = [(places[i % len(places)], seed + i) for i in range(clips * len(places))]
    trips = {excursion_path(out, *start, *trip): (start, trip) for start in starts for trip in EXCURSIONS}
    todo = list(dict.fromkeys(start for file, (start, trip) in trips.items() if not is_filmed(file, *trip)))
    calls = [(place, seeds, out) for place, seeds in split_runs(todo, most=1)]
    film_all(film_excursions, calls, workers, out, list(trips), lambda file: is_filmed(file, *trips[file][1]))
    return list(trips)
