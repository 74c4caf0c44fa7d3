"""Reads recordings, every value checked before use, and simulates them again to compare frame hashes."""

import io
import sqlite3
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from engine.fingerprint import differences, environment, fingerprint
from engine.recording.recorder import APPLICATION_ID, HASH_BYTES, VERSION, RecordingError, chain
from engine.session import Session
from world.action import Action
from world.context import Context
from world.world import World

_DAMAGE = (sqlite3.Error, msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError)
LARGEST_CONTEXT = 2**28
"""Bytes that an embedded context may unpack to."""


@dataclass(frozen=True)
class RecordedTick:
    action: Action
    steps: int
    source: str
    time: float
    hash: bytes


@dataclass(frozen=True)
class Recording:
    """A recording's content. Tick n is `ticks[n - 1]`."""

    path: Path
    world: str
    fingerprint: dict[str, str]
    environment: dict[str, str]
    seed: int
    context: Context
    start: bytes
    ticks: list[RecordedTick]

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """Raises RecordingError naming the file and what is wrong with it."""
        if not path.is_file():
            raise RecordingError(f"{path} is missing: it has to be a .playhead file")
        try:
            base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
            try:
                return cls._read(path, base)
            finally:
                base.close()
        except RecordingError:
            raise
        except _DAMAGE as error:
            raise RecordingError(f"{path} is damaged or no recording ({error})") from None
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, MemoryError) as error:
            raise RecordingError(f"{path} holds a damaged context ({error})") from None

    @classmethod
    def _read(cls, path: Path, base: sqlite3.Connection) -> "Recording":
        if base.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise RecordingError(f"{path} is a database of another program, no recording")
        version = base.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise RecordingError(f"{path} has schema {version}, and this Playhead reads {VERSION}; update it")
        facts = dict(base.execute("SELECT key, value FROM recording"))
        ticks: list[RecordedTick] = []
        for number, said, steps, source, when, digest in base.execute("SELECT * FROM ticks ORDER BY tick"):
            if number != len(ticks) + 1 or len(digest) != HASH_BYTES:
                raise RecordingError(f"{path} lacks tick {len(ticks) + 1} or its hash; the file was changed")
            buttons, axes = msgspec.json.decode(said, type=tuple[list[str], dict[str, float]])
            ticks.append(RecordedTick(Action(frozenset(buttons), axes), int(steps), source, when, digest))
        seed = int(facts["seed"])
        if not 0 <= seed < 2**64:
            raise RecordingError(f"{path} holds the seed {seed}, which is no seed")
        words = dict[str, str]
        return cls(
            path,
            facts["world"].decode(),
            msgspec.json.decode(facts["fingerprint"], type=words),
            msgspec.json.decode(facts["environment"], type=words),
            seed,
            _context(facts["context"]),
            facts["start"],
            ticks,
        )


@dataclass(frozen=True)
class Divergence:
    """The first tick (0: the start) whose frames differ, and what else differs, in words."""

    tick: int
    causes: list[str]


def replay(recording: Recording, world: World) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Simulates a recording again: tick number, frames, and whether their hash is the recorded one."""
    session = Session(world, recording.context, recording.seed)
    yield 0, session.frames, chain(b"", session.frames) == recording.start
    before = recording.start
    for number, tick in enumerate(recording.ticks, 1):
        session.steps = tick.steps
        frames = session.step(tick.action)
        yield number, frames, chain(before, frames) == tick.hash
        before = tick.hash


def causes(recording: Recording, world: World) -> list[str]:
    """What differs between the recording's world and environment and those here, in words."""
    return [
        *differences(recording.fingerprint, fingerprint(world)),
        *differences(recording.environment, environment(world)),
    ]


def verify(recording: Recording, world: World) -> Divergence | None:
    """The first tick that differs when simulated again; None if every frame is equal."""
    for number, _, equal in replay(recording, world):
        if not equal:
            return Divergence(number, causes(recording, world))
    return None


def _context(data: bytes) -> Context:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST_CONTEXT:
            raise RecordingError("a recording's context is larger than any context may be")
    arrays = np.load(io.BytesIO(data), allow_pickle=False)
    frames, actions = arrays["frames"], arrays["actions"]
    if frames.dtype != np.uint8 or frames.ndim != 4 or actions.ndim != 2 or len(actions) != len(frames):
        raise RecordingError(f"a recording's context is {frames.dtype} {frames.shape}, which is no context")
    prompts = tuple(arrays[f"prompt_{i}"] for i in range(sum(n.startswith("prompt_") for n in arrays.files)))
    rest = {name: arrays[name] for name in ("features", "condition", "latents") if name in arrays}
    return Context(frames, actions, prompts, **rest)
