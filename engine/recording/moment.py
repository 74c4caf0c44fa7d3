"""A moment of a recording as the start of a scene: the frames before it, what was held, and their latents."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import ReplayedTick, replay
from playhead.engine.recording.tree import Point
from playhead.scenes.scene import Scene
from playhead.world.action import RE_ANCHOR, prompt_number
from playhead.world.context import Context
from playhead.world.errors import WorldError
from playhead.world.world import World


class _Part(NamedTuple):
    """Frames `(n, H, W, 3)`, what was held when each came about `(n, buttons)`, latents `(F, C, h, w)`."""

    frames: np.ndarray
    led: np.ndarray
    latents: np.ndarray


def moment_scene(
    recording: Recording,
    world: World,
    point: Point,
    length: int,
    watch: Callable[[Iterable[ReplayedTick]], Iterable[ReplayedTick]] = iter,
) -> Scene:
    """The recording's scene, begun from a point: its context is the last `length` latents, in whole ticks.

    As latents are kept, nothing is lost by encoding again what was decoded. What came before them is
    forgotten, and so are axes. The prompt that was in force becomes the scene's first. `watch` passes on the
    moments on the way, and may look at them. Raises WorldError for a length below 1.
    """
    if length < 1:
        raise WorldError(f"a context needs at least 1 frame, not --length {length}")
    config = world.config
    block = config.sampling.latents_per_tick
    parts: deque[_Part] = deque(maxlen=-(-length // block))
    scene, prompt = recording.scene(point.branch), 0
    start = scene.context
    for moment in watch(replay(recording, world, point.branch, 0, point.tick)):
        if moment.played is None:
            continue
        action = moment.played.action
        commands = config.action.commanded(action)
        if RE_ANCHOR in commands:
            parts.clear()
        prompt = _prompt_in_force(prompt, commands, len(start.prompts))
        row = np.array([config.action.seen_row(action)], np.uint8)
        parts.append(_Part(moment.frames, row.repeat(len(moment.frames), 0), moment.latents))
    if not parts:
        return scene
    known = [*_past(world, start), *parts] if len(parts) * block < length else parts
    frames, led, latents = (np.concatenate(arrays) for arrays in zip(*known, strict=True))
    keep = min(-(-length // block), len(latents) // block) * block
    count = keep * (config.frames_per_tick // block)
    actions = np.roll(led[-count:], -1, 0)  # a row says what is held from its frame on
    actions[-1] = 0
    order = [prompt, *(number for number in range(len(start.prompts)) if number != prompt)]
    context = replace(
        start,
        frames=frames[-count:],
        actions=actions,
        latents=latents[-keep:],
        prompts=tuple(start.prompts[number] for number in order) if start.prompts else (),
    )
    texts = tuple(scene.prompts[number] for number in order) if scene.prompts else ()
    return replace(scene, context=context, prompts=texts)


def _past(world: World, start: Context) -> list[_Part]:
    """What a session has of a past before its first tick."""
    if start.latents is None and (not len(start.frames) or world.config.looks_at_picture):
        return []
    latents = start.latents if start.latents is not None else world.encode(start.frames).cpu().numpy()
    led = np.zeros((len(start.frames), len(world.config.action.seen)), np.uint8)
    if start.actions.shape == led.shape:
        led[1:] = start.actions[:-1]
    return [_Part(start.frames, led, latents)]


def _prompt_in_force(before: int, commands: frozenset[str], count: int) -> int:
    """The number of the prompt under which a tick was dreamed, as the session obeys its commands."""
    prompt = 0 if RE_ANCHOR in commands else before
    for name in sorted(commands - {RE_ANCHOR}):
        if prompt_number(name) < count:
            prompt = prompt_number(name)
    return prompt
