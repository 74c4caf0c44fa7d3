"""Played sessions as a data set of Minari, Farama's format for offline learning (extra `data`)."""

import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from playhead.render.export.episodes import ExportedTick
from playhead.render.export.export import ExportError
from playhead.world.config import WorldConfig
from playhead.world.extras import install

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

CHUNK = 256
"""Ticks that wait in memory before they are written."""


def check_minari(name: str) -> None:
    """Raises ExportError where Minari is missing, and for a name that it does not take or has already."""
    _import_minari()
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage import get_dataset_path

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the latter where the version is missing
        raise ExportError(
            f"`{name}` is no name of a Minari data set; call it, say, playhead/mine-v0"
        ) from None
    if get_dataset_path(name).exists():
        raise ExportError(f"Minari has a data set `{name}` already; give this one another version")


@dataclass(frozen=True)
class Attribution:
    """Whose a data set is, and which code it was made with: empty where nobody said."""

    author: str = ""
    author_email: str = ""
    code_permalink: str = ""

    @property
    def missing(self) -> str:
        """The options that were left out, as a sentence; empty where none was."""
        lacking = [f"--{f.name.replace('_', '-')}" for f in fields(self) if not getattr(self, f.name)]
        return (
            f"the data set does not say who made it, or by which code: add {', '.join(lacking)}"
            if lacking
            else ""
        )


def write_minari(
    name: str,
    config: WorldConfig,
    episodes: Iterable[tuple[int, Iterator[ExportedTick]]],
    credits: Attribution = Attribution(),
) -> int:
    """Writes what `minari.load_dataset(name)` loads, frames unchanged; returns the number of episodes.

    Each is given with its seed. An observation is the last frame of a tick uint8 `(H, W, 3)`; observations
    and actions are those of `engine.agents`, and the environment of a shipped world can be recovered. A play
    knows no goal: rewards are 0, and the last tick of an episode is a truncation. `infos` has each `tick`.
    """
    minari = _import_minari()
    from minari.storage import get_dataset_path

    from playhead.engine.agents import registered, spaces

    size, spec = (config.frame_height, config.frame_width), registered(config.name)
    described = f"Played in the neural world {config.name} ({config.title}) with Playhead."
    if spec is not None:
        described += " A checkout of it has the environment, by pip install -e '.[agents]'."
    counts: list[int] = []
    try:
        with warnings.catch_warnings():
            # The command says in one sentence what was left out, and an algorithm there was none.
            warnings.filterwarnings("ignore", "(?s).*(is set to None|env_spec is None)")
            dataset = minari.create_dataset_from_buffers(
                name,
                _buffers(config, episodes, counts),
                env=spec,
                eval_env=spec,
                author=credits.author or None,
                author_email=credits.author_email or None,
                code_permalink=credits.code_permalink or None,
                observation_space=spaces.observations(size),
                action_space=spaces.actions(config.action),
                description=described,
                jpeg_encoding=False,
            )
        numbers = range(len(counts))
        dataset.storage.update_episode_metadata([{"total_steps": count} for count in counts], numbers)
    except BaseException as error:
        shutil.rmtree(get_dataset_path(name), ignore_errors=True)
        if isinstance(error, OSError):
            raise ExportError(
                f"the data set `{name}` cannot be written ({error.strerror or error})"
            ) from error
        raise
    return len(counts)


def _buffers(
    config: WorldConfig, episodes: Iterable[tuple[int, Iterator[ExportedTick]]], counts: list[int]
) -> "Iterator[EpisodeBuffer]":
    """The episodes in chunks; Minari joins those of one number. Fills in how many ticks each has."""
    from minari.data_collector import EpisodeBuffer

    from playhead.engine.agents import spaces

    dtype = spaces.actions(config.action).dtype
    for seed, moments in episodes:
        seen = [next(moments)]
        chunk = list(islice(moments, CHUNK))
        counts.append(0)
        while chunk:
            later = list(islice(moments, CHUNK))
            seen += chunk
            acted = [config.action.encode(m.action) for m in chunk if m.action is not None]
            yield EpisodeBuffer(
                id=len(counts) - 1,
                seed=None if counts[-1] else seed,
                observations=[m.frames[-1] for m in seen],
                actions=list(np.array(acted, dtype)),
                rewards=[0.0] * len(chunk),
                terminations=[False] * len(chunk),
                truncations=[False] * (len(chunk) - 1) + [not later],
                infos={"tick": [m.tick for m in seen]},
            )
            counts[-1] += len(chunk)
            seen, chunk = [], later


def _import_minari() -> Any:  # noqa: ANN401 (a module)
    try:
        import minari
        import minari.dataset._storages.hdf5_storage
    except ImportError as error:
        raise ExportError(f"a data set of Minari needs {error.name}: run {install('data')}") from None
    return minari
