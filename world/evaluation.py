"""How good a world is, measured on episodes it has never seen.

From the first frames of a held-out clip the world dreams on under the clip's own actions. Against the real
continuation: PSNR by horizon, beside the decoder's ceiling and the copy of the last real frame. Far beyond
it, under a player: sharpness and colour against real footage of the place, and, judged by the
inverse-dynamics model that ships with the world, action following and the Fréchet distance of what that
model sees to what it sees in real footage. Players: `footage` holds the clip's actions over and over, `idle`
nothing, `wander` those of one clip after another, `spin` one turn button.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from playhead.world import acceleration, checkpoint
from playhead.world.binding import label
from playhead.world.clips import CONTEXT, HORIZONS, Clip, check_fit
from playhead.world.config import read_config
from playhead.world.errors import PlayheadError
from playhead.world.inverse import AFTER, BEFORE, InverseDynamics, clip_features, f1, held_buttons
from playhead.world.metrics import colour, frechet, psnr, sharpness
from playhead.world.past import prefill
from playhead.world.state import WorldState
from playhead.world.world import World
from playhead.world.world_folders import find_world

LOOKS = (16, 64, 256, 1024, 10500)
PLAYERS = ("footage", "idle", "wander", "spin")
CHUNK = 64


@dataclass
class Scores:
    """The measures of one place, or of all. Keys are horizons or ticks."""

    clips: int = 0
    ceiling: float = float("nan")
    dreamed: dict[int, float] = field(default_factory=dict)
    copied: dict[int, float] = field(default_factory=dict)
    sharpness: dict[int, float] = field(default_factory=dict)
    colour: dict[int, float] = field(default_factory=dict)
    contrast: dict[int, float] = field(default_factory=dict)
    following: dict[int, float] = field(default_factory=dict)
    following_real: float = float("nan")
    following_buttons: dict[str, float] = field(default_factory=dict)
    frechet: dict[int, float] = field(default_factory=dict)
    frechet_real: float = float("nan")  # one half of the real clips against the other
    frechet_ceiling: float = float("nan")  # real clips, encoded and decoded, against themselves


class Evaluation:
    """One evaluation of `world` on `clips`, all clips dreamed side by side for `ticks` ticks."""

    def __init__(
        self,
        world: World,
        clips: Sequence[Clip],
        inverse: InverseDynamics | None,
        player: str = "footage",
    ) -> None:
        self.world, self.clips, self.player = world, clips, player
        self.inverse = inverse
        self.places = [clip.place for clip in clips]
        self.real = torch.stack([clip.frames for clip in clips])  # (B, T, H, W, 3)
        self.actions = torch.stack([clip.actions for clip in clips])  # (B, T, buttons)
        self.ticks = 0
        self.dreamed: dict[int, Tensor] = {}
        self.copied: dict[int, Tensor] = {}
        self.looks: dict[int, tuple[Tensor, Tensor]] = {}
        self.held: dict[int, tuple[Tensor, Tensor]] = {}
        self.features: dict[int, Tensor] = {}  # (B, windows, 768) by tick

    def action(self, tick: int) -> Tensor:
        """Actions `(B, buttons)` held during `tick`: the clip's own as far as it goes, then the player's."""
        span = self.real.shape[1] - CONTEXT
        turn, at = divmod(tick, span)
        own = self.actions[:, CONTEXT - 1 + at]
        if turn == 0 or self.player == "footage":
            return own
        if self.player == "wander":
            return own.roll(-turn, 0)
        held = torch.zeros_like(own)
        if self.player == "spin":
            held[:, self._turn()] = 1
        return held

    def _turn(self) -> int:
        """A button that turns, going by its name, else the first."""
        names = self.world.config.action.buttons
        return next((i for word in ("turn", "left") for i, n in enumerate(names) if word in n.lower()), 0)

    @cached_property
    def rebuilt(self) -> Tensor:
        """The real frames, only encoded and decoded."""
        state, every = self.world.new_state(len(self.clips)), []
        for latent in torch.stack([self.world.encode(clip.numpy()) for clip in self.real], 1):
            state.latent.copy_(latent[:, None])
            every.append(self.world.decode(state)[:, 0].to("cpu", copy=True))
        return torch.stack(every, 1)

    def ceiling(self) -> Tensor:
        """PSNR `(B)` of real frames that were only encoded and decoded, after the context."""
        return psnr(self.rebuilt, self.real)[:, CONTEXT:].mean(1)

    def _start(self) -> WorldState:
        latents = torch.stack([self.world.encode(clip[:CONTEXT].numpy()) for clip in self.real])
        led = torch.cat([torch.zeros_like(self.actions[:, :1]), self.actions[:, : CONTEXT - 1]], 1).float()
        state = self.world.new_state(len(self.clips))
        label(self.world, state, self.places)
        prefill(self.world, state, latents, led.to(latents.device), range(len(self.clips)))
        return state

    def each_tick(
        self,
        ticks: int,
        watch: Callable[[int, Tensor], None] | None = None,
        checkpoint: Path | None = None,
        save_every: float = 60.0,
    ) -> Iterator[int]:
        """Dreams `ticks` ticks and measures on the way; yields each when it is done.

        `watch` is shown every tick's frames `(B, H, W, 3)`. A run goes on from `checkpoint`, if there is one,
        and leaves one there every `save_every` seconds and at its end.
        """
        state = self._start()
        seeds = range(len(self.clips))
        last = self.real[:, CONTEXT - 1]
        recent = deque([last], CHUNK + BEFORE + 1)
        first = 1 + self._resume(checkpoint, state, recent)
        saved, tick = time.monotonic(), first - 1
        for tick in range(first, ticks + 1):
            action = self.action(tick - 1).float()[:, None].to(state.action.device)
            self.world.denoise(state, action, seeds, tick - 1)
            if watch is not None or self._is_seen(tick):
                frame = self.world.decode(state)[:, 0].to("cpu", copy=True)
                recent.append(frame)
                self._look(tick, frame, last, recent)
                if watch is not None:
                    watch(tick, frame)
            self.world.commit(state)
            if checkpoint is not None and time.monotonic() - saved > save_every:
                self._save(checkpoint, state, recent, tick)
                saved = time.monotonic()
            yield tick
        if checkpoint is not None:
            self._save(checkpoint, state, recent, tick)

    def _is_seen(self, tick: int) -> bool:
        """Whether a measure needs a tick's frame, or the decoder its memory of it.

        Also of looks beyond the end of this run: another may go on from its checkpoint.
        """
        before = CHUNK + BEFORE + self.world.decoder_span
        return tick <= max(HORIZONS) or any(k - before <= tick <= k for k in LOOKS)

    def _look(self, tick: int, frame: Tensor, last: Tensor, recent: deque[Tensor]) -> None:
        if tick in HORIZONS:
            truth = self.real[:, CONTEXT - 1 + tick]
            self.dreamed[tick], self.copied[tick] = psnr(frame, truth), psnr(last, truth)
        if tick in LOOKS:
            around = torch.stack(list(recent)[-8:], 1)
            self.looks[tick] = sharpness(around).mean(1), colour(around).mean(1)
            if tick >= CHUNK:
                self._judge(tick, list(recent))

    def _settings(self) -> str:
        config = self.world.config
        return f"{config.name} {self.world.steps} {self.player} {self.places}"

    def _save(self, path: Path, state: WorldState, recent: deque[Tensor], tick: int) -> None:
        found = {name: getattr(self, name) for name in _FOUND}
        draft = path.with_suffix(".tmp")
        kept = {
            "settings": self._settings(),
            "tick": tick,
            "world": state.state(),
            "recent": list(recent),
            **found,
        }
        try:
            torch.save(kept, draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _resume(self, path: Path | None, state: WorldState, recent: deque[Tensor]) -> int:
        """The last tick that is done."""
        if path is None or not path.is_file():
            return 0
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
            if held["settings"] != self._settings():
                raise ValueError("other settings")
            state.load_state(held["world"])
        except Exception as error:  # torch raises a dozen kinds for a damaged file or one of another world
            raise PlayheadError(
                f"{path} cannot be resumed ({type(error).__name__}): it is damaged or of other settings; "
                "delete it or use another --out"
            ) from None
        recent.clear()
        recent.extend(held["recent"])
        for name in _FOUND:
            setattr(self, name, held[name])
        tick: int = held["tick"]
        return tick

    def _judge(self, tick: int, recent: list[Tensor]) -> None:
        """Which buttons the newest frames show, beside those that were held, and their features."""
        if self.inverse is None:
            return
        first = tick - len(recent) + 1  # the tick whose frame `recent[0]` shows; 0 is the last real frame
        count = len(recent) - BEFORE - AFTER
        held = torch.stack([self.action(first + BEFORE + i) for i in range(count)], 1) > 0
        clips = torch.stack(recent, 1)
        self.held[tick] = self._seen(clips), held
        self.features[tick] = self._features(clips)

    def _features(self, clips: Tensor) -> Tensor:
        """`(B, windows, 768)`."""
        assert self.inverse is not None
        device = next(self.inverse.parameters()).device
        return torch.stack([clip_features(self.inverse, clip.to(device)).float().cpu() for clip in clips])

    def _seen(self, clips: Tensor) -> Tensor:
        assert self.inverse is not None
        device = next(self.inverse.parameters()).device
        return torch.stack([held_buttons(self.inverse, clip.to(device)).cpu() for clip in clips])

    def result(self) -> dict[str, Scores]:
        """Scores by place, and under `all` over all places."""
        ceiling = self.ceiling()
        found: dict[str, Scores] = {place: self.scores(place, ceiling) for place in sorted(set(self.places))}
        return {**found, "all": self.scores(None, ceiling)}

    def scores(self, place: str | None = None, ceiling: Tensor | None = None) -> Scores:
        """The scores of one place, or of all places."""
        chosen = [i for i, p in enumerate(self.places) if place in (None, p)]
        pick = torch.tensor(chosen)
        real = self.real[pick]
        real_sharp, real_colour = sharpness(real).mean(1), colour(real).mean(1)
        result = Scores(clips=len(chosen))
        if ceiling is not None:
            result.ceiling = float(ceiling[pick].mean())
        for horizon, values in self.dreamed.items():
            result.dreamed[horizon] = float(values[pick].mean())
            result.copied[horizon] = float(self.copied[horizon][pick].mean())
        for tick, (sharp, look) in self.looks.items():
            result.sharpness[tick] = float(sharp[pick].mean() / real_sharp.mean())
            difference = (look[pick].mean(0) - real_colour.mean(0)).abs()
            result.colour[tick] = float(difference[:3].mean() / real_colour.mean(0)[:3].mean())
            result.contrast[tick] = float(look[pick, 3].mean() / real_colour[:, 3].mean())
        if self.inverse is not None:
            held = self.actions[pick, BEFORE : real.shape[1] - AFTER] > 0
            result.following_real = _macro(f1(self._real_seen[pick].flatten(0, 1), held.flatten(0, 1)), held)
            self._compare(result, pick, ceiling is not None)
            for tick, (seen, held) in self.held.items():
                if not held[pick].any():
                    continue  # an idle player has no button to follow
                each = f1(seen[pick].flatten(0, 1), held[pick].flatten(0, 1))
                result.following[tick] = _macro(each, held[pick])
                if tick == min(self.held):
                    names = self.world.config.action.buttons
                    result.following_buttons = dict(zip(names, each.tolist(), strict=True))
        return result

    def _compare(self, result: Scores, pick: Tensor, decoder: bool) -> None:
        """Fréchet distances of the clips `pick` to real footage."""
        truth = self._real_features[pick]
        result.frechet_real = frechet(truth[::2].flatten(0, 1), truth[1::2].flatten(0, 1))
        if decoder:
            result.frechet_ceiling = frechet(self._rebuilt_features[pick].flatten(0, 1), truth.flatten(0, 1))
        for tick, features in self.features.items():
            result.frechet[tick] = frechet(features[pick].flatten(0, 1), truth.flatten(0, 1))

    @cached_property
    def _real_seen(self) -> Tensor:
        return self._seen(self.real)

    @cached_property
    def _real_features(self) -> Tensor:
        return self._features(self.real)

    @cached_property
    def _rebuilt_features(self) -> Tensor:
        return self._features(self.rebuilt)


_FOUND = ("dreamed", "copied", "looks", "held", "features")


def _macro(scores: Tensor, held: Tensor) -> float:
    """The mean score of the buttons that were held: a player who only turns is not judged by the others."""
    return float(scores[held.flatten(0, -2).any(0)].nanmean())


def load_inverse(world: str | Path, device: torch.device) -> InverseDynamics | None:
    """The inverse-dynamics model in a world's folder, or None where it has none."""
    folder = find_world(world)
    config = read_config(folder / "world.toml")
    if not config.inverse_weights or not (folder / config.inverse_weights).is_file():
        return None
    path = folder / config.inverse_weights
    model = InverseDynamics(len(config.action.buttons))
    checkpoint.fill(model, checkpoint.read_float(path), path)
    return model.to(device).eval()


def prepare(
    world: World,
    inverse: InverseDynamics | None,
    episodes: Path,
    clips: Sequence[Clip],
    player: str = "footage",
) -> Evaluation:
    """An evaluation on `clips` of a folder of episodes. Raises PlayheadError for those of another game."""
    for clip in clips:
        check_fit(world.config, episodes, clip.frames, clip.actions)
    # Nothing runs beside it, as the window does in play. Beside a GPU many threads would only wait for one
    # another, and for those of other evaluations.
    torch.set_num_threads(acceleration.cores() if world.device.type == "cpu" else 1)
    return Evaluation(world, clips, inverse, player)


def in_turns(works: Sequence[Iterator[int]], device: torch.device) -> Iterator[tuple[int, int]]:
    """Advances several evaluations, a tick of each in turn; yields which one and the tick that it did.

    On a GPU each has a stream of its own: a pass of a small world leaves most of a GPU idle, and what the
    others have launched runs beside it.
    """
    streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in works]
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # what was loaded, on another stream, is there
    left = dict(enumerate(works))
    while left:
        for number, work in list(left.items()):
            with torch.cuda.stream(streams[number]):
                tick = next(work, None)
            if tick is None:
                del left[number]
            else:
                yield number, tick


def as_numbers(scores: Scores) -> dict[str, object]:
    """Scores as plain JSON values; None for what there was nothing to measure by."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    return {
        k: {str(i): number(j) for i, j in v.items()} if isinstance(v, dict) else number(v)
        for k, v in vars(scores).items()
    }
