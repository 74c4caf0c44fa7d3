"""A film of a script, played in a session of the server's as any client would play it."""

import contextlib
import io
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from playhead.controls.keymap import find_keymap
from playhead.controls.script import decode_actions, parse_script
from playhead.engine.bridge.server.in_process import InProcessClient
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.recording.schema import chain
from playhead.render.export.video import VideoWriter
from playhead.world.action import Action
from playhead.world.config import WorldConfig
from playhead.world.errors import ActionError, PlayheadError

LONGEST = 2048
"""Ticks of a film, at the most."""


@dataclass(frozen=True)
class FilmWish:
    """What is to be filmed: what is held in each tick, and from which start, chosen as for `open`."""

    actions: list[Action]
    world: str = ""
    scene: str = ""
    seed: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Filmed:
    """What was filmed; `hash` is that of all frames, as a recording has it in its last tick."""

    scene: str
    seed: int
    steps: int
    ticks: int
    frames: int
    hash: str


def actions_of(config: WorldConfig, script: str, array: bytes | None) -> list[Action]:
    """The actions of a script or, where one was uploaded, of an `.npy`. Raises ActionError."""
    if array is not None:
        actions = decode_actions(io.BytesIO(array), config.action, "the .npy")
    else:
        actions = parse_script(script, config.action, find_keymap(config.name, config.family).aliases)
    if not 1 <= len(actions) <= LONGEST:
        raise ActionError(f"a film here has 1 to {LONGEST} ticks, and this script {len(actions)}")
    return actions


def filming(client: InProcessClient, wish: FilmWish, out: Path) -> Generator[int, None, Filmed]:
    """Writes the start and every tick as an .mp4; yields how many ticks are done.

    Its session is closed in the end, also where it is given up. Raises PlayheadError for what is refused.
    """
    opened, start = client.ask(
        p.OpenRequest(world=wish.world, scene=wish.scene, seed=wish.seed, steps=wish.steps), p.OpenReply
    )
    try:
        assert start is not None
        world, count = opened.world, len(start)
        hashed = chain(b"", start)
        rate = Fraction(world.ticks_per_second).limit_denominator(1000) * world.frames_per_tick
        with VideoWriter(out, "mp4", (world.height, world.width), rate) as film:
            film.write(start)
            for done, action in enumerate(wish.actions, 1):
                frames = _step(client, opened.session, action)
                film.write(frames)
                hashed, count = chain(hashed, frames), count + len(frames)
                yield done
    finally:
        with contextlib.suppress(PlayheadError):  # what went wrong before says more
            client.ask(p.CloseRequest(session=opened.session), p.DoneReply)
    return Filmed(opened.scene.name, opened.seed, opened.steps, len(wish.actions), count, hashed.hex())


def _step(client: InProcessClient, session: str, action: Action) -> np.ndarray:
    """One tick at a time: how many frames each has is a world's business, and the hash is of ticks."""
    _, frames = client.ask(p.StepRequest(session=session, actions=[action]), p.StepReply)
    assert frames is not None
    return frames
