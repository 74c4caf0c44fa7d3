"""Footage of any Gymnasium environment, by a random player; and the recipe and key map of its world.

Pictures are the observations where those are images, else what `render_mode="rgb_array"` renders. Actions are
declared from the action space: `Discrete` has a button for every action but the one that does nothing,
`MultiDiscrete` for every value but 0 of each part, `MultiBinary` for every bit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli_w
import torch
import torch.nn.functional as F
from rich.progress import Progress

from playhead.world.action import ActionSpace
from playhead.world.config import LatentConfig, SamplingConfig, WorldConfig
from playhead.world.extras import install
from playhead.world.generator import GeneratorConfig
from playhead.world.kv_cache import FarMemory
from playhead.world.lighttae import LightTAEConfig
from playhead.world.terminal import console
from playhead.world.training.collect import check_steady, episode_path, is_whole, write_episode
from playhead.world.training.doom import ATTEMPTS, CollectError

MULTIPLE = 32  # pixels: 16 a latent position, two of those a token
MEAN_HOLD = 5  # ticks that a button is held on average
LONG_HOLD = (48, 200)  # and for at least and at most, by a player who lays the keyboard aside
KEYS = ("left", "right", "up", "down", "space", "e", "q", "r", "f", "z", "x", "c", "v", "1", "2", "3", "4")


class ButtonMapping:
    """A space's actions as buttons: which there are, and what is given to the game for those held."""

    def __init__(self, env: Any, noop: int | None = None) -> None:  # noqa: ANN401 (any environment)
        from gymnasium import spaces

        space = env.action_space
        self.space, self.noop = space, noop
        if isinstance(space, spaces.Discrete):
            names = _names(env, int(space.n))
            still = [i for i, name in enumerate(names) if name in ("noop", "no_op", "nothing", "none")]
            self.noop = noop if noop is not None else still[0] if still else 0
            if not 0 <= self.noop < space.n:
                raise CollectError(f"--noop {self.noop} is none of the {space.n} actions, 0 to {space.n - 1}")
            self.values: list[tuple[int, int]] = [(0, i) for i in range(int(space.n)) if i != self.noop]
            self.names = [names[i] for _, i in self.values]
        elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            self.values = [(p, v) for p, n in enumerate(space.nvec) for v in range(1, int(n))]
            self.names = [f"part{p}_{v}" for p, v in self.values]
        elif isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
            self.values = [(p, 1) for p in range(space.shape[0])]
            self.names = [f"button_{p}" for p, _ in self.values]
        else:
            raise CollectError(
                f"the actions of this environment are {space}; only Discrete, MultiDiscrete and MultiBinary "
                "ones can be filmed, so wrap it in one of those"
            )
        if not self.names:
            raise CollectError("this environment has no action but doing nothing")
        self.parts = max(part for part, _ in self.values) + 1

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A random set of buttons that can be held together, uint8 `(buttons)`; nothing one time in five."""
        held = np.zeros(len(self.names), np.uint8)
        for part in range(self.parts):
            choices = [i for i, (p, _) in enumerate(self.values) if p == part]
            idle = 0.2 if self.parts == 1 else 0.5
            if choices and rng.random() >= idle:
                held[rng.choice(choices)] = 1
        return held

    def given(self, held: np.ndarray) -> int | np.ndarray:
        """What the game is given for the buttons held."""
        from gymnasium import spaces

        if isinstance(self.space, spaces.Discrete):
            pressed = [self.values[i][1] for i in np.flatnonzero(held)]
            return int(self.space.start) + (pressed[0] if pressed else int(self.noop or 0))
        action = np.zeros(self.space.shape, self.space.dtype)
        for i in np.flatnonzero(held):
            part, value = self.values[i]
            action[part] = value
        return action


def _names(env: Any, count: int) -> list[str]:  # noqa: ANN401
    """The environment's own names of its actions, where it has any."""
    base = env.unwrapped
    if hasattr(base, "get_action_meanings"):
        found = [str(name) for name in base.get_action_meanings()]
    else:
        found = [action.name for action in getattr(base, "actions", ()) if hasattr(action, "name")]
    clean = ["".join(c if c.isalnum() else "_" for c in name.lower()) for name in found]
    return clean if len(set(clean)) == len(clean) == count else [f"action_{i}" for i in range(count)]


def open_env(name: str, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """Makes an environment. `module:Name-v0` imports the module first, as Gymnasium has it."""
    try:
        import gymnasium
    except ImportError:
        raise CollectError(f"filming needs gymnasium: run {install('train')}") from None
    try:
        return gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True, **options)
    except (gymnasium.error.Error, ImportError, TypeError, AttributeError) as error:
        said = str(error).strip().splitlines()[0]
        raise CollectError(
            f"the environment `{name}` cannot be made ({said}); write module:NAME to import the module that "
            "registers it"
        ) from None


def _picture(env: Any, observed: object) -> np.ndarray:  # noqa: ANN401
    """uint8 `(H, W, 3)`."""
    for image in (observed, None):
        image = env.render() if image is None else image
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,):
            return image
    raise CollectError("this environment neither observes nor renders pictures of three colours")


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if picture.shape[:2] == size:
        return picture
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    return small[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def film_env(
    env: Any,  # noqa: ANN401
    buttons: ButtonMapping,
    seed: int,
    length: int,
    size: tuple[int, int],
    steady: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """One continuous episode, frames and actions; a function of its seed and length (and of the game's own).

    `steady`: the share of time in which the player holds one thing, half of it nothing, for long.
    One that the game ends on the way is filmed again with a seed derived from this one.
    """
    long, short = (1 - steady) * sum(LONG_HOLD) / 2, steady * MEAN_HOLD
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        observed, _ = env.reset(seed=int(rng.integers(2**31)))
        frames = np.empty((length, *size, 3), np.uint8)
        actions = np.zeros((length, len(buttons.names)), np.uint8)
        held, left = buttons.draw(rng), 0
        for t in range(length):
            frames[t] = _resize(_picture(env, observed), size)
            if left <= 0:
                held, left = buttons.draw(rng), int(rng.geometric(1 / MEAN_HOLD))
                if steady and rng.random() < short / (short + long):
                    held, left = held * (rng.random() < 0.5), int(rng.integers(*LONG_HOLD))
            actions[t], left = held, left - 1
            if t + 1 == length:
                return frames, actions
            observed, _, terminated, truncated, _ = env.step(buttons.given(held))
            if terminated or truncated:
                break
    raise CollectError(f"no {length} ticks pass without the game ending; ask for a shorter --length")


def collect_env(
    name: str,
    episodes: int,
    length: int,
    seed: int,
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    noop: int | None = None,
    options: dict[str, Any] | None = None,
    rate: float | None = None,
    steady: float = 0.0,
) -> list[Path]:
    """Films into `out`; `out/recipe` gets a `world.toml` and a `keys.toml`. Whole files are kept."""
    check_steady(steady)
    env = open_env(name, options or {})
    try:
        buttons = ButtonMapping(env, noop)
        observed, _ = env.reset(seed=seed)
        found = _picture(env, observed).shape[:2]
        height, width = size or tuple(max(MULTIPLE, n // MULTIPLE * MULTIPLE) for n in found)
        if height % MULTIPLE or width % MULTIPLE or min(height, width) < MULTIPLE:
            raise CollectError(
                f"{height} x {width} pixels will not do: both have to be multiples of {MULTIPLE}"
            )
        place = "".join(c if c.isalnum() else "-" for c in name.split(":")[-1]).lower()
        rate = rate or float(env.metadata.get("render_fps") or 15)
        try:
            (out / "recipe").mkdir(parents=True, exist_ok=True)
            write_recipe(out / "recipe", place, buttons.names, (height, width), rate)
        except OSError as error:
            raise CollectError(f"the folder {out} cannot be written ({error.strerror})") from None
        files = []
        with Progress(console=console(error=True)) as bar:
            for number in bar.track(range(seed, seed + episodes), description="filming"):
                path = episode_path(out, place, number)
                files.append(path)
                if not is_whole(path, length, steady, len(buttons.names)):
                    frames, actions = film_env(env, buttons, number, length, (height, width), steady)
                    write_episode(path, frames, actions, place, number, steady=steady)
        return files
    finally:
        env.close()


def write_recipe(folder: Path, name: str, buttons: Sequence[str], size: tuple[int, int], rate: float) -> None:
    """The recipe of a small world with these buttons, and a key map that gives each a key."""
    height, width = size
    config = WorldConfig(
        name=name,
        title=f"{name}, dreamed",
        licence="that of the game it was filmed in",
        frame_height=height,
        frame_width=width,
        ticks_per_second=rate,
        latent=LatentConfig(32, height // 16, width // 16),
        generator=GeneratorConfig(
            dim=320,
            heads=5,
            layers=6,
            ffn_dim=896,
            in_channels=64,
            out_channels=32,
            buttons=len(buttons),
            predicts="clean",
        ),
        autoencoder=LightTAEConfig(
            latent_channels=32,
            patch=4,
            encoder_widths=(64, 64, 96, 112),
            decoder_widths=(128, 64, 32, 32),
            encoder_space=(False, True, True),
            decoder_space=(True, True, False),
            encoder_time=(False, False, False),
            decoder_time=(False, False, False),
        ),
        sampling=SamplingConfig(
            latents_per_tick=1,
            steps=(1000.0,),
            shift=1.0,
            window=8,
            commit="last",
            previous=True,
            far=FarMemory(frames=16, every=8, layers=(2, 4)),
        ),
        action=ActionSpace(tuple(buttons)),
        inverse_weights="inverse.safetensors",
    )
    recipe = msgspec.to_builtins(config)
    del recipe["latent"]["mean"], recipe["latent"]["std"]
    (folder / "world.toml").write_text(tomli_w.dumps(recipe), "utf-8")
    keys = dict(zip(buttons, _keys(buttons), strict=False))
    (folder / "keys.toml").write_text(
        tomli_w.dumps({"buttons": {button: [key] for button, key in keys.items()}}), "utf-8"
    )


def _keys(buttons: Sequence[str]) -> list[str]:
    """A key for each button, as far as there are any: the arrow its name speaks of, or the next free one."""
    wishes = {"left": "left", "right": "right", "forward": "up", "up": "up", "gas": "up"}
    wishes |= {"down": "down", "back": "down", "brake": "down"}
    taken: dict[int, str] = {}
    for i, button in enumerate(buttons):
        key = next((key for word, key in wishes.items() if word in button), None)
        if key is not None and key not in taken.values():
            taken[i] = key
    free = iter([key for key in KEYS if key not in taken.values()])
    return [key for i in range(len(buttons)) if (key := taken.get(i) or next(free, None)) is not None]
