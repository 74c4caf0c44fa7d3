"""Windows of footage in which one chord, a set of buttons, is held from first to last.

A person at rest holds nothing for minutes, and one who spins holds one button. Sessions that do so for as
long as they live are matched to footage in which the same is done: beside any other it would be the buttons,
and not the picture, that tell them from it.
"""

import numpy as np
import torch
from torch import Tensor

from playhead.world.training.footage import Footage

FREE, EMPTY = -1, 0  # the chords of a session that holds what footage holds, and of one that rests
TURN = 0.05  # how many sessions choose anew before each further stretch
LEAST = 16  # windows of a chord, for a session to be given it


class SteadyWindows:
    """The windows of `length` frames of `footage` that one chord led to.

    `chords` `(K, buttons)` are those of which there are at least `least`, the empty one first.
    `rests`: whether there is an empty one.
    """

    def __init__(self, footage: Footage, length: int, least: int = LEAST) -> None:
        self.length = length
        actions = footage.actions.cpu().numpy()
        count = len(actions)
        starts = np.asarray(footage.starts)
        ends = np.repeat(starts + np.asarray(footage.lengths), footage.lengths)  # of each frame's episode
        changes = np.ones(count, bool)
        changes[:-1] = (actions[1:] != actions[:-1]).any(1)
        changes[ends[starts] - 1] = True
        here = np.arange(count)
        last = np.minimum.accumulate(np.where(changes, here, count)[::-1])[
            ::-1
        ]  # of those alike from here on
        # An action leads to the frame after it: so many alike lead to as many frames.
        drawn = np.repeat([i not in footage.held_back for i in range(len(starts))], footage.lengths)
        before = here[(last - here + 1 >= length) & (here + length < ends) & drawn]
        chords, number = np.unique(actions[before], axis=0, return_inverse=True)
        groups = [torch.from_numpy(before[number.reshape(-1) == i] + 1) for i in range(len(chords))]
        kept = [i for i, group in enumerate(groups) if len(group) >= least]
        self.chords = torch.from_numpy(chords[kept]).float()
        self._groups = [groups[i] for i in kept]
        self.rests = len(kept) > 0 and not bool(chords[kept[0]].any())

    def choose(self, count: int, share: float, draw: torch.Generator, rest: float = 0.5) -> Tensor:
        """A chord for each of `count` sessions, int64 `(count)`: FREE but for a `share` of them.

        A part `rest` of those rest, the others hold chords as often as footage does. All are FREE where
        footage holds none for long.
        """
        chosen = torch.full((count,), FREE)
        busy = [len(group) for group in self._groups[self.rests :]]
        u = torch.rand((2, count), generator=draw)
        if busy:
            odds = torch.tensor(busy, dtype=torch.float64)
            other = torch.multinomial(odds, count, replacement=True, generator=draw) + int(self.rests)
            chosen = torch.where(u[0] < share, other, chosen)
        if self.rests:
            chosen = torch.where(u[0] < share * (rest if busy else 1.0), EMPTY, chosen)
        return chosen

    def turn(self, chords: Tensor, share: float, draw: torch.Generator, rest: float = 0.5) -> Tensor:
        """What sessions with these chords `(B)` go on with: one in twenty chooses anew, as `choose` does.

        A player walks, rests and walks on; so what is dreamed after a long rest is judged too.
        """
        u = torch.rand(len(chords), generator=draw)
        return torch.where(u < TURN, self.choose(len(chords), share, draw, rest), chords)

    def held(self, chords: Tensor) -> Tensor:
        """The buttons of each chord, float32 `(B, buttons)`; none of FREE."""
        held = torch.zeros((len(chords), self.chords.shape[1]))
        steady = chords != FREE
        held[steady] = self.chords[chords[steady]]
        return held

    def replace(self, clips: Tensor, chords: Tensor, draw: torch.Generator) -> Tensor:
        """Frame indices `clips` `(B, length)`, with a window of its chord for each session that has one."""
        u = torch.rand(len(clips), generator=draw, dtype=torch.float64)
        clips = clips.clone()
        for row, chord in enumerate(chords.tolist()):
            if chord != FREE:
                group = self._groups[chord]
                start = group[int(u[row] * len(group))]
                clips[row] = start + torch.arange(self.length)
        return clips
