"""Pieces of held-out episodes that a world is measured on: a past, and the real frames that followed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from playhead.world.config import WorldConfig
from playhead.world.errors import PlayheadError
from playhead.world.training.footage import Episode, episode_files, read_episode

CONTEXT = 8
HORIZONS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Clip:
    """A piece of a held-out episode: `CONTEXT` frames of past and the real frames that follow."""

    frames: Tensor
    actions: Tensor
    place: str


def cut_clips(folder: Path, per_place: int) -> list[Clip]:
    """`per_place` clips of each place, as evenly over its episodes as possible."""
    length = CONTEXT + max(HORIZONS)
    by_place: dict[str, list[Episode]] = {}
    for path in episode_files(folder):
        episode = read_episode(path)
        if len(episode.frames) >= length:
            by_place.setdefault(episode.place or "unnamed", []).append(episode)
    if not by_place:
        raise PlayheadError(f"no episode in {folder} is {length} frames long; collect longer ones")
    clips = []
    for place, episodes in sorted(by_place.items()):
        for number in range(per_place):
            episode = episodes[number % len(episodes)]
            turns = -(-per_place // len(episodes))
            start = (len(episode.frames) - length) * (number // len(episodes)) // turns
            part = slice(start, start + length)
            clips.append(
                Clip(torch.from_numpy(episode.frames[part]), torch.from_numpy(episode.actions[part]), place)
            )
    return clips


def check_fit(config: WorldConfig, folder: Path, frames: Tensor, actions: Tensor) -> None:
    """Raises PlayheadError where a world cannot be measured on frames `(T, H, W, 3)` and their actions."""
    if config.frames_per_tick != 1:
        raise PlayheadError(
            f"the world `{config.name}` makes {config.frames_per_tick} frames a tick; only worlds of one "
            "frame a tick can be evaluated"
        )
    wanted = (config.frame_height, config.frame_width, len(config.action.buttons))
    found = (*frames.shape[1:3], actions.shape[1])
    if found != wanted:
        raise PlayheadError(
            f"{folder} has an episode of {found[0]} x {found[1]} pixels and {found[2]} buttons where "
            f"the world `{config.name}` has {wanted[0]} x {wanted[1]} and {wanted[2]}; evaluate it on "
            "footage of its own game"
        )
