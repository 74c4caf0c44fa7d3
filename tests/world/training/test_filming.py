"""Filming while training promises: films join the footage as they come, and nothing is left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from world.errors import PlayheadError
from world.training.filming import Filming
from world.training.footage import Footage

LENGTH, BEFORE = 24, 10
KNOWN = ("my_way_home", "deathmatch")


def mean_colour(frames: Tensor) -> Tensor:
    """An encoder of three channels and one position."""
    return frames.float().mean((1, 2))[:, :, None, None]


def footage() -> Footage:
    frames = torch.empty(0, 160, 256, 3, dtype=torch.uint8)
    return Footage(frames, torch.zeros(BEFORE, 8, dtype=torch.uint8), [0], ["my_way_home"], KNOWN)


@pytest.fixture
def filming() -> Iterator[Filming]:
    with Filming(mean_colour, 1, length=LENGTH, salt=3) as made:
        yield made


def gathered(filming: Filming, films: int) -> tuple[Tensor, Tensor, Footage]:
    """Latents, what is told and the footage, once so many films have come."""
    latents, told, held = torch.zeros(BEFORE, 3, 1, 1), torch.zeros(BEFORE, 10), footage()
    while len(held.places) <= films:
        latents, told = filming.gather(latents, told, held)
    return latents, told, held


def test_films_join_the_footage_and_clips_are_drawn_of_them(filming: Filming) -> None:
    latents, told, held = gathered(filming, 3)
    count = BEFORE + 3 * LENGTH
    assert len(latents) == len(told) == len(held.actions) == count
    assert held.starts == [0, BEFORE, BEFORE + LENGTH, BEFORE + 2 * LENGTH]
    assert not latents[:BEFORE].any() and latents[BEFORE:].any((1, 2, 3)).all()
    clips = held.clip_index(64, LENGTH, torch.Generator().manual_seed(0))
    assert set(clips[:, 0].tolist()) == set(held.starts[1:])


def test_what_led_to_a_film_and_its_place_are_told(filming: Filming) -> None:
    _, told, held = gathered(filming, 2)
    for start, place in zip(held.starts[1:], held.places[1:], strict=True):
        film = told[start : start + LENGTH]
        assert not film[0, :8].any()
        assert torch.equal(film[1:, :8], held.actions[start : start + LENGTH - 1].float())
        assert film[:, 8:].tolist() == [[float(place == name) for name in KNOWN]] * LENGTH


def test_no_more_is_taken_than_asked_for() -> None:
    with Filming(mean_colour, 1, length=LENGTH, most=LENGTH, salt=3) as filming:
        latents, told, held = gathered(filming, 1)
        for _ in range(50):
            assert len(filming.gather(latents, told, held)[0]) == BEFORE + LENGTH


def test_nothing_is_left_behind() -> None:
    with Filming(mean_colour, 1, length=LENGTH, salt=3) as filming:
        folder, games = filming._folder, filming._games
        gathered(filming, 1)
        assert folder.is_dir() and all(game.is_alive() for game in games)
    assert not Path(folder).exists() and not any(game.is_alive() for game in games)


def test_a_game_that_ended_is_told(filming: Filming) -> None:
    for game in filming._games:
        game.kill()
        game.join()
    latents, told, held = torch.zeros(BEFORE, 3, 1, 1), torch.zeros(BEFORE, 10), footage()
    with pytest.raises(PlayheadError, match="has ended"):
        for _ in range(1000):
            latents, told = filming.gather(latents, told, held)
