"""The game: ViZDoom as it is filmed, and one episode of a random player in it.

The game draws 320 x 512 and every frame is the mean of its 2 x 2 pixels: drawn at 160 x 256 its far textures
flicker from frame to frame (aliasing), which is noise to whoever has to foresee it.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from playhead.world.errors import PlayheadError
from playhead.world.extras import install
from playhead.world.training.places import BUTTONS, DOOM_BUTTONS, Place
from playhead.world.training.random_player import (
    BEHAVIOURS,
    STUCK_TICKS,
    STUCK_UNITS,
    Behaviour,
    RandomPlayer,
    Surroundings,
    behaviours,
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


def import_vizdoom() -> ModuleType:
    """The game's package. Raises CollectError where it is not installed."""
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
    root = Path(str(vzd.__file__)).parent
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
        try:  # an engine that has begun would outlive a process that is ended before it is used
            with contextlib.chdir(scratch):
                game.init()
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


class Observer:
    """Turns the game's states into what the player senses."""

    def __init__(self) -> None:
        self.trail: list[np.ndarray] = []  # the last positions, map units

    def look(self, state: GameState) -> Surroundings:
        # `open_game` asks for both.
        assert state.game_variables is not None and state.depth_buffer is not None
        self.trail = [*self.trail[-STUCK_TICKS:], np.array(state.game_variables[:2])]
        # About the horizon, where walls and not floors are seen.
        band = state.depth_buffer[72 * DRAWN : 96 * DRAWN : 4 * DRAWN, :: 4 * DRAWN]
        moved = float(np.abs(self.trail[-1] - self.trail[0]).max())
        return Surroundings(
            left=float(band[:, :24].mean()),
            ahead=float(band[:, 24:40].mean()),
            right=float(band[:, 40:].mean()),
            stuck=len(self.trail) > STUCK_TICKS and moved < STUCK_UNITS,
        )


class EpisodeCut(Exception):
    """The level's exit, or a death, ended the game in the middle of an episode."""


def hold(game: DoomGame, action: np.ndarray) -> None:
    game.make_action(action.tolist(), TICS_PER_TICK)
    if game.is_episode_finished() or game.is_player_dead():
        raise EpisodeCut


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
        observer, walker = Observer(), RandomPlayer(rng, behaviours=BEHAVIOURS[:1])
        for _ in range(ticks(rng, 40, 160)):  # 40 ticks: the weapon is up by then
            hold(game, walker.press(observer.look(game.get_state())))
        strayed = [np.abs(there - observer.trail[-1]).max() for there in observer.trail]
        if not place.scatter or max(strayed) > STUCK_UNITS:
            return  # else it is wedged in where it was put: try another spot


def average(drawn: np.ndarray) -> np.ndarray:
    """The picture (160, 256, 3) of what the game drew (320, 512, 3): the means of 2 x 2."""
    rows = drawn[::2].astype(np.uint16) + drawn[1::2]
    picture: np.ndarray = ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    return picture


def film_once(
    game: DoomGame, place: Place, rng: np.random.Generator, length: int, player_habits: Sequence[Behaviour]
) -> tuple[np.ndarray, np.ndarray]:
    frames = np.empty((length, HEIGHT, WIDTH, 3), np.uint8)
    actions = np.empty((length, len(BUTTONS)), np.uint8)
    begin(game, place, rng)
    observer, player = Observer(), RandomPlayer(rng, player_habits)
    for t in range(length):
        state = game.get_state()
        frames[t] = average(state.screen_buffer)
        actions[t] = player.press(observer.look(state))
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
        with contextlib.suppress(EpisodeCut):
            return film_once(game, place, rng, length, behaviours(steady))
    raise CollectError(
        f"no {length} ticks of '{place.name}' with seed {seed} pass without the level ending: "
        f"ask for a shorter length."
    )
