"""Filming while training promises: films join the footage as they come, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import tomli_w
import torch
from torch import Tensor

from playhead.world.checkpoint import save_weights
from playhead.world.errors import PlayheadError
from playhead.world.training.filming import Filming
from playhead.world.training.footage import Episode, Footage
from tests.conftest import make_tiny_world
from tests.world.training.runs import CONFIG, ROOT, metrics

LENGTH, BEFORE = 24, 10
KNOWN = ("my_way_home", "deathmatch")


def mean_colour(film: Episode) -> Tensor:
    """An encoder of three channels and one position."""
    return torch.from_numpy(film.frames).float().mean((1, 2))[:, :, None, None]


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


# ----------------------------------------------------------------------------- the command line


class Training:
    """`train generator --film 1` in a process of its own, of a tiny world with frames as they are filmed."""

    def __init__(self, folder: Path) -> None:
        self.out, self.temporary = folder / "out", folder / "temporary"
        self.footage = folder / "footage"
        self.temporary.mkdir()
        self.torchs = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")}  # not in the temporary folder
        recipe, weights = folder / "recipe.toml", folder / "autoencoder.safetensors"
        latent = msgspec.structs.replace(CONFIG.latent, height=10, width=16)
        config = msgspec.structs.replace(CONFIG, frame_height=160, frame_width=256, latent=latent)
        built = msgspec.to_builtins(config)
        del built["latent"]["mean"], built["latent"]["std"]
        recipe.write_text(tomli_w.dumps(built), "utf-8")
        save_weights(weights, make_tiny_world(one_pass=True).autoencoder.state_dict())
        self.footage.mkdir()
        draws = np.random.default_rng(0)
        np.savez(
            self.footage / "wall-000000.npz",
            frames=draws.integers(0, 256, (BEFORE, 160, 256, 3), dtype=np.uint8),
            actions=draws.integers(0, 2, (BEFORE, 8), dtype=np.uint8),
            place="wall",
            seed=0,
        )
        self.given = [sys.executable, "main.py", "train", "generator", "--film", "1", "--device", "cpu"]
        self.given += ["--clips", "2", "--length", "6"]
        for option, path in (("footage", self.footage), ("autoencoder", weights), ("recipe", recipe)):
            self.given += [f"--{option}", str(path)]

    def films(self) -> list[Path]:
        """What has been filmed and encoded."""
        return sorted(self.footage.glob(".film-*.safetensors"))

    def start(self, steps: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.given, "--out", str(self.out), "--steps", str(steps)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary), **self.torchs},
            start_new_session=True,  # as a terminal's, so that Ctrl-C reaches all of it and no more
        )

    def start_and_film(self) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        """Begins a long run; returns once it has taken in a film, with the processes that it started."""
        training = self.start(10**7)
        while not self.films():
            assert training.poll() is None, training.communicate()
            time.sleep(0.02)
        return training, psutil.Process(training.pid).children(recursive=True)


def taken_in(out: Path) -> float:
    """Frames of footage when that was last told."""
    return [row["frames"] for row in metrics(out) if "frames" in row][-1]


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_ctrl_c_ends_the_games_too_and_the_same_command_goes_on(training: Training) -> None:
    process, started = training.start_and_film()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert not psutil.wait_procs(started, timeout=30)[1]
    assert not list(training.temporary.iterdir())
    step = torch.load(training.out / "checkpoint.pt", weights_only=True)["step"]
    films, frames = training.films(), taken_in(training.out)
    assert films and frames >= BEFORE

    again = training.start(step + 5)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"the world is in {training.out / 'world'}" in out.replace("\n", " ")
    assert metrics(training.out)[-1]["step"] == step + 5
    assert taken_in(training.out) >= BEFORE + 512 * len(films), "films are there again"
    assert not list(training.temporary.iterdir())


def test_a_run_whose_game_was_ended_says_so_and_leaves_nothing_behind(training: Training) -> None:
    process, started = training.start_and_film()
    (game,) = (child for child in started if "spawn_main" in " ".join(child.cmdline()))
    game.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err, err
    assert "playhead: a game that was filming has ended" in err
    assert not psutil.wait_procs(started, timeout=30)[1]
    assert not list(training.temporary.iterdir())
