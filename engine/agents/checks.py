"""What a program gives an environment, checked before anything is changed: a sentence says what is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from gymnasium.vector import AutoresetMode

from playhead.scenes.scene import check_seed
from playhead.world.errors import ActionError, PlayheadError

RENDER_MODES = ("rgb_array", "human")


def episodes(render_mode: str | None, max_ticks: SupportsIndex | None) -> None:
    """Raises PlayheadError for an unknown way of rendering, or a length that no episode has."""
    if render_mode not in (None, *RENDER_MODES):
        raise PlayheadError(
            f"there is no render mode `{render_mode}`; there are {' and '.join(RENDER_MODES)}"
        )
    if max_ticks is not None and not (_whole(max_ticks) and max_ticks >= 1):
        raise PlayheadError(f"`max_ticks` is {max_ticks}; it has to be a whole number from 1 on, or None")


def count(num_envs: SupportsIndex) -> None:
    """Raises PlayheadError for a number of environments that no vector has."""
    if not (_whole(num_envs) and num_envs >= 1):
        raise PlayheadError(f"`num_envs` is {num_envs}; it has to be a whole number from 1 on")


def autoreset(mode: str | AutoresetMode) -> AutoresetMode:
    """Gymnasium's way of beginning anew. Raises PlayheadError for another."""
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(known.value for known in AutoresetMode)
        raise PlayheadError(f"there is no autoreset mode `{mode}`; there are {known}") from None


def numbers(values: Any, shape: Sequence[int]) -> np.ndarray:  # noqa: ANN401 - whatever a program gives
    """Values as an array of numbers of that shape. Raises ActionError where they are none."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise ActionError(
            f"an action is one array of numbers of the shape {tuple(shape)}, not rows of several lengths"
        ) from None
    if array.dtype.kind not in "buif":
        raise ActionError(f"an action is made of numbers of the shape {tuple(shape)}, not of {array.dtype}")
    if array.shape != tuple(shape):
        raise ActionError(f"an action here has the shape {tuple(shape)}, not {array.shape}")
    return array


def scene(options: dict[str, Any] | None) -> str | Path | None:
    """The scene that a reset asks for, if it does. Raises PlayheadError for any other option."""
    given = _options(options)
    unknown = sorted(map(str, set(given) - {"scene"}))
    if unknown:
        raise PlayheadError(f"there is no option `{unknown[0]}` of a reset; there is `scene`")
    found = given.get("scene")
    if not isinstance(found, str | Path | None):
        raise PlayheadError(f"the option `scene` of a reset is {found!r}; it has to be a scene's name")
    return found


def seed(given: SupportsIndex | None) -> int | None:
    """A seed as a plain number. Raises PlayheadError for one that is none."""
    if given is None:
        return None
    if not _whole(given):
        raise PlayheadError(f"the seed {given!r} is no seed; it has to be a whole number from 0 to 2^64 - 1")
    check_seed(int(given), "the seed")
    return int(given)


def seeds(given: Any, num_envs: int) -> list[int | None]:  # noqa: ANN401 - whatever a program gives
    """A seed, or none, for each environment: n, n + 1, … of a number. Raises PlayheadError."""
    if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str):
        if len(given) != num_envs:
            raise PlayheadError(
                f"there are {len(given)} seeds for {num_envs} environments; give one number, or one for each"
            )
        return [seed(one) for one in given]
    first = seed(given)
    return [None if first is None else seed(first + i) for i in range(num_envs)]


def mask(options: dict[str, Any] | None, num_envs: int) -> tuple[dict[str, Any], np.ndarray]:
    """The other options of a vector's reset, and which of its environments begin. Raises PlayheadError."""
    left = _options(options)
    found = left.pop("reset_mask", np.ones(num_envs, bool))
    good = isinstance(found, np.ndarray) and found.dtype == bool and found.shape == (num_envs,)
    if not good or not found.any():
        raise PlayheadError(f"`reset_mask` has to be an array of {num_envs} bools, at least one of them true")
    return left, found


def _options(options: dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(options, dict | None):
        raise PlayheadError(f"the options of a reset are a dict, not {options!r}")
    return dict(options or {})


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
