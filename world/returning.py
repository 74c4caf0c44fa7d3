"""There and back: whether a world shows again what it showed before an excursion.

An episode of `train there-and-back` ends where it began. From the frames before its excursion a world dreams
on under the excursion's actions, and the frame that it ends with is compared with the last real one before:
PSNR, beside that of the real game's own last frame, of that frame through the autoencoder, and of the same
world with less of a memory. The longer the excursion, the further back is what the world has to remember.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playhead.world import acceleration
from playhead.world.binding import label
from playhead.world.clips import check_fit
from playhead.world.errors import PlayheadError
from playhead.world.metrics import psnr
from playhead.world.past import prefill
from playhead.world.training.footage import episode_files, read_episode
from playhead.world.world import World

MEMORY = 16
"""Frames that the world with less of a memory remembers."""


@dataclass(frozen=True)
class ExcursionEpisode:
    """An episode that ends where it began.

    `past` uint8 `(P, H, W, 3)`, `ending` the last frames `(E, H, W, 3)`, `actions` `(P - 1 + T, buttons)`:
    those held from each frame to the next, of which the last T are the excursion's. `length`: how far it
    goes, in ticks of one way.
    """

    past: Tensor
    ending: Tensor
    actions: Tensor
    place: str
    seed: int
    excursion: str
    length: int

    @property
    def kind(self) -> tuple[str, int]:
        return self.excursion, self.length


@dataclass(frozen=True)
class ReturnScores:
    """PSNR in dB, over all clips of an excursion, of what is seen at its end against what was seen before it.

    `cut`: dreamed with a memory of `MEMORY` frames; None of a world that has no more. `cap`: the real game
    through the autoencoder, about the most that a dream of it can reach.
    """

    excursion: str
    ticks: int
    clips: int
    dreamed: float
    cut: float | None
    real: float
    cap: float


def is_excursion(path: Path) -> bool:
    """Whether a file is an episode that ends where it began; `read_excursion` says what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return "excursion" in data
    except Exception:  # numpy and zipfile raise a dozen kinds for a damaged file
        return False


def has_excursions(folder: Path) -> bool:
    """Whether a folder holds episodes of `train there-and-back`. Raises PlayheadError if it holds none."""
    return any(is_excursion(path) for path in episode_files(folder))


def read_excursion(path: Path, ending: int) -> ExcursionEpisode:
    """Reads an episode with its last `ending` frames. Raises PlayheadError naming what is wrong with it."""
    episode = read_episode(path)
    with np.load(path, allow_pickle=False) as data:
        if not {"excursion", "ticks", "past"} <= set(data):
            raise PlayheadError(
                f"{path} does not say what excursion it is; keep other episodes apart from those of "
                "`train there-and-back`"
            )
        name, length, past = str(data["excursion"]), int(data["ticks"]), int(data["past"])
    if not 1 <= past < len(episode.frames):
        raise PlayheadError(
            f"{path} has {len(episode.frames)} frames, of which {past} cannot come before its excursion; "
            "film it again"
        )
    frames, actions = torch.from_numpy(episode.frames), torch.from_numpy(episode.actions[:-1])
    return ExcursionEpisode(
        frames[:past].clone(), frames[-ending:].clone(), actions, episode.place or "unnamed",
        episode.seed or 0, name, length,
    )  # fmt: skip


def read_excursions(
    world: World, folder: Path, per_place: int
) -> dict[tuple[str, int], list[ExcursionEpisode]]:
    """By excursion and ticks, at most `per_place` episodes a place. Raises as `read_excursion` does."""
    found: dict[tuple[str, int], list[ExcursionEpisode]] = {}
    for path in episode_files(folder):
        episode = read_excursion(path, world.decoder_span + 1)
        check_fit(world.config, folder, episode.past, episode.actions)
        alike = found.setdefault(episode.kind, [])
        if alike and (len(episode.actions), len(episode.past)) != (len(alike[0].actions), len(alike[0].past)):
            raise PlayheadError(f"{path} is longer or shorter than others of its excursion; film it again")
        if sum(other.place == episode.place for other in alike) < per_place:
            alike.append(episode)
    order = list(dict.fromkeys(name for name, _ in found))
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


class ReturnEvaluation:
    """Measures a world on episodes that end where they began, all of one excursion dreamed side by side.

    `cut`: the same world with less of a memory, or None.
    """

    def __init__(
        self, world: World, cut: World | None, episodes: dict[tuple[str, int], list[ExcursionEpisode]]
    ) -> None:
        self.world, self.cut, self.episodes = world, cut, episodes
        self.results: list[ReturnScores] = []

    @property
    def ticks(self) -> int:
        """How many ticks there are to dream."""
        worlds = 1 if self.cut is None else 2
        return worlds * sum(
            len(episodes[0].actions) - len(episodes[0].past) + 1 for episodes in self.episodes.values()
        )

    def run(self, progress: Callable[[int], None] = lambda ticks: None) -> list[ReturnScores]:
        """The results in order; `progress` is told the ticks done."""
        # Nothing runs beside it, as the window does in play.
        torch.set_num_threads(acceleration.cores() if self.world.device.type == "cpu" else 1)
        done = 0
        for (excursion, length), episodes in self.episodes.items():
            shown = []
            for world in (self.world, self.cut):
                if world is None:
                    continue
                dreaming = ExcursionDream(world, episodes)
                for _ in dreaming.each_tick():
                    done += 1
                    progress(done)
                shown.append(dreaming.frame)
            shown += [
                torch.stack([episode.ending[-1] for episode in episodes]),
                rebuilt(self.world, episodes),
            ]
            before = torch.stack([episode.past[-1] for episode in episodes])
            figures = [float(psnr(frames, before).mean()) for frames in shown]
            dreamed, *cut, real, cap = figures
            self.results.append(
                ReturnScores(excursion, length, len(episodes), dreamed, cut[0] if cut else None, real, cap)
            )
        return self.results


class ExcursionDream:
    """Excursions of one kind, dreamed side by side: `frame` is what is seen last, uint8 `(B, H, W, 3)`."""

    def __init__(self, world: World, episodes: Sequence[ExcursionEpisode]) -> None:
        self.world, self.seeds = world, [episode.seed for episode in episodes]
        actions = torch.stack([episode.actions for episode in episodes]).float()
        past = len(episodes[0].past)
        latents = torch.stack([world.encode(episode.past.numpy()) for episode in episodes])
        led = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, : past - 1]], 1)
        self.state = world.new_state(len(episodes))
        label(world, self.state, [episode.place for episode in episodes])
        prefill(world, self.state, latents, led.to(latents.device), self.seeds)
        self.actions = actions[:, past - 1 :, None].to(self.state.action.device)  # (B, T, 1, buttons)
        self.frame = torch.stack([episode.past[-1] for episode in episodes])

    def each_tick(self) -> Iterator[int]:
        """Dreams; yields each tick when it is done."""
        count = self.actions.shape[1]
        for tick in range(count):
            self.world.denoise(self.state, self.actions[:, tick], self.seeds, tick)
            if tick >= count - 1 - self.world.decoder_span:  # before that nobody looks
                self.frame = self.world.decode(self.state)[:, 0].to("cpu", copy=True)
            self.world.commit(self.state)
            yield tick


def rebuilt(world: World, episodes: Sequence[ExcursionEpisode]) -> Tensor:
    """The real game's last frames, uint8 `(B, H, W, 3)`, only encoded and decoded."""
    state = world.new_state(len(episodes))
    latents = torch.stack([world.encode(episode.ending.numpy()) for episode in episodes])
    for latent in latents.split(1, 1):
        state.latent.copy_(latent)
        frames = world.decode(state)
    return frames[:, 0].to("cpu", copy=True)


def as_row(result: ReturnScores) -> dict[str, object]:
    """A result as plain JSON values."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(result).items()}
