"""Footage: episodes on disk, and all of their frames in one tensor to draw clips from.

An episode is an `.npz` with `frames` uint8 (T, H, W, 3), `actions` uint8 (T, buttons), `place` str and
`seed`; action t is held from frame t to frame t + 1. Seeds from `HELD_OUT` on are never trained on.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from playhead.world.errors import PlayheadError
from playhead.world.training.places import HELD_OUT


class FootageError(PlayheadError):
    """Footage cannot be used."""


@dataclass(frozen=True)
class Episode:
    """One continuous take."""

    frames: np.ndarray
    actions: np.ndarray
    place: str
    seed: int | None


def read_episode(path: Path, tries: int = 3) -> Episode:
    """Reads and checks an episode file. Raises FootageError naming the file and what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("frames", "actions") if name in data}
            place = str(data["place"]) if "place" in data else ""
            seed = int(data["seed"]) if "seed" in data else None
    except SystemError:  # threads that parse headers at once may trip one another (CPython issue 106905)
        if tries > 1:
            return read_episode(path, tries - 1)
        raise
    except FileNotFoundError:
        raise FootageError(f"{path} is missing") from None
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise FootageError(
            f"{path} is no readable .npz episode ({type(error).__name__}); collect it again"
        ) from None
    for name in ("frames", "actions"):
        if name not in arrays:
            raise FootageError(f"{path} lacks the array `{name}`; an episode has frames and actions")
    frames, actions = arrays["frames"], arrays["actions"]
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise FootageError(
            f"{path}: `frames` is {frames.dtype} {frames.shape}, it has to be uint8 (T, H, W, 3)"
        )
    if actions.ndim != 2 or len(actions) != len(frames):
        raise FootageError(
            f"{path}: `actions` is {actions.shape}, it has to be ({len(frames)}, buttons), one row a frame"
        )
    return Episode(frames, actions.astype(np.uint8), place, seed)


def episode_files(folder: Path) -> list[Path]:
    """The episode files of a folder, sorted. Raises FootageError where there are none."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise FootageError(f"{folder} holds no .npz episodes; `train collect --out {folder}` makes some")
    return files


class Footage:
    """Frames `(N, H, W, 3)` uint8 and actions `(N, buttons)` of many episodes, end to end on one device.

    Where only latents are needed, there are no frames, only their size: `(0, H, W, 3)`.
    `places` says where each was taken; `labelled` are the places that the generator has a label for.
    """

    def __init__(
        self,
        frames: Tensor,
        actions: Tensor,
        starts: Sequence[int],
        places: Sequence[str],
        labelled: Sequence[str] = (),
    ) -> None:
        self.frames, self.actions = frames, actions
        self.labelled = tuple(labelled)
        self.starts, self.places = list(starts), list(places)
        ends = [*self.starts[1:], len(actions)]
        self.lengths = [e - s for s, e in zip(self.starts, ends, strict=True)]
        self.held_back: frozenset[int] = frozenset()
        """Numbers of the episodes that nothing is drawn from but validation."""

    @classmethod
    def of(cls, episode: Episode) -> "Footage":
        """One episode, without its frames."""
        frames = torch.from_numpy(episode.frames[:0])
        return cls(frames, torch.from_numpy(episode.actions), [0], [episode.place])

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        labelled: Sequence[str] = (),
    ) -> "Footage":
        """Loads every `world_size`-th episode of a folder, from number `rank` on, to train on."""
        files = episode_files(folder)[rank::world_size]
        if not files:
            raise FootageError(f"{folder} has fewer episodes than there are processes; collect more")
        first = read_episode(files[0])
        frames = torch.empty((0, *first.frames.shape[1:]), dtype=torch.uint8, device=device)
        actions: list[Tensor] = []
        starts: list[int] = []
        places: list[str] = []
        filled = 0
        with ThreadPoolExecutor(8) as pool:
            for path, episode in zip(
                track(files, "reading footage", disable=rank > 0),
                pool.map(read_episode, files),
                strict=True,
            ):
                if episode.frames.shape[1:] != first.frames.shape[1:]:
                    raise FootageError(f"{path}: frames differ in size from those of {files[0].name}")
                if episode.actions.shape[1] != first.actions.shape[1]:
                    raise FootageError(f"{path}: the number of buttons differs from that of {files[0].name}")
                if episode.seed is not None and episode.seed >= HELD_OUT:
                    raise FootageError(
                        f"{path} has seed {episode.seed}, and seeds from {HELD_OUT} on are held out for "
                        "evaluation; train on others"
                    )
                need = filled + len(episode.frames)
                if need > len(frames):  # sized for all at once where, as usual, episodes are alike
                    room = max(need, filled + len(episode.frames) * (len(files) - len(starts)))
                    frames = torch.cat(
                        [frames[:filled], frames.new_empty((room - filled, *frames.shape[1:]))]
                    )
                frames[filled:need] = torch.from_numpy(episode.frames).to(device)
                actions.append(torch.from_numpy(episode.actions))
                starts.append(filled)
                places.append(episode.place)
                filled = need
        return cls(frames[:filled], torch.cat(actions).to(device), starts, places, labelled)

    def led(self, first: int = 0) -> Tensor:
        """What the generator is told of each frame from episode `first` on, float32 `(N, told)`.

        That is the action held on the frame before, which led to it, then the place's label. To an episode's
        first frame, as to the first frame of a context in play, none led.
        """
        begin = self.starts[first]
        actions = self.actions[begin:]
        led = torch.cat([actions[:1], actions[:-1]]).float()
        led[torch.tensor(self.starts[first:]) - begin] = 0
        rows = [[float(name == place) for name in self.labelled] for place in self.places[first:]]
        each = torch.tensor(rows, device=led.device).view(len(rows), -1)
        lengths = torch.tensor(self.lengths[first:], device=led.device)
        return torch.cat([led, each.repeat_interleave(lengths, 0)], 1)

    def join(self, others: Sequence["Footage"]) -> None:
        """Adds the episodes of others, whose latents its caller keeps, behind its own."""
        for other in others:
            begin = self.starts[-1] + self.lengths[-1]
            self.starts += [begin + start for start in other.starts]
            self.lengths += other.lengths
            self.places += other.places
        self.actions = torch.cat([self.actions, *(other.actions.to(self.actions) for other in others)])

    def hold_back(self, most: int) -> None:
        """Keeps episodes from being drawn, for validation: every tenth or fewer, `most` at most."""
        count = min(most, len(self.starts) // 10)
        self.held_back = frozenset(len(self.starts) * i // count for i in range(count))

    def longest(self, held_back: bool = False) -> int:
        """Frames of the longest episode of those that are drawn from, or of those `held_back`."""
        return max(n for i, n in enumerate(self.lengths) if (i in self.held_back) == held_back)

    def check_length(self, length: int) -> None:
        """Raises FootageError if no episode holds a clip of `length` frames."""
        if self.longest() < length:
            raise FootageError(f"no episode is {length} frames long; collect longer ones")

    def episodes(self, frames: Tensor) -> Tensor:
        """Numbers of the episodes that these frames are of, by their indices, on the CPU."""
        return torch.searchsorted(torch.tensor(self.starts), frames.contiguous(), right=True) - 1

    def follow(self, clips: Tensor, at: Tensor, ticks: int) -> Tensor:
        """Frame indices `(count, length)` of clips `ticks` after those that began at `at` `(count)`.

        Where one would leave its episode, or is of one that is held back (an `at` of other footage may be),
        that of `clips` `(count, length)` takes its place.
        """
        spans = enumerate(zip(self.starts, self.lengths, strict=True))
        ends = torch.tensor([0 if i in self.held_back else start + n for i, (start, n) in spans])
        further = at[:, None] + ticks + torch.arange(clips.shape[1])
        return torch.where(further[:, -1:] < ends[self.episodes(at), None], further, clips)

    def clip_index(
        self, count: int, length: int, generator: torch.Generator, held_back: bool = False
    ) -> Tensor:
        """Frame indices `(count, length)` of clips drawn uniformly from all that fit, on the CPU.

        `held_back`: from the episodes that are held back, else from all others. Raises FootageError where
        none is long enough.
        """
        if not held_back:
            self.check_length(length)
        drawn = [(i in self.held_back) == held_back for i in range(len(self.lengths))]
        room = torch.tensor(
            [max(0, n - length + 1) * here for n, here in zip(self.lengths, drawn, strict=True)]
        )
        total = int(room.sum())
        pick = torch.randint(total, (count,), generator=generator)
        ends = room.cumsum(0)
        episode = torch.searchsorted(ends, pick, right=True)
        start = torch.tensor(self.starts)[episode] + pick - (ends - room)[episode]
        return start[:, None] + torch.arange(length)


def pixels(frames: Tensor) -> Tensor:
    """uint8 `(…, H, W, 3)` to float32 `(…, 3, H, W)` in [0, 1]."""
    return frames.movedim(-1, -3).float() / 255
