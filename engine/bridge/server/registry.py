"""What a server has to offer: its worlds, loaded, and their scenes. Messages name these and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from playhead.engine.batcher import Batcher
from playhead.engine.bridge.server.placement import FreeMemory, Placement, free_memory
from playhead.engine.bridge.server.placement import session_bytes as session_bytes
from playhead.engine.bridge.wire.protocol import BridgeError, SceneInfo, WorldInfo
from playhead.engine.session import Session
from playhead.engine.starts import Starts
from playhead.scenes.scene import MAX_SEED, Scene, belongs, load_scene, scenes_of
from playhead.world.config import WorldConfig
from playhead.world.errors import PlayheadError
from playhead.world.offload.memory_budget import MemoryBudget, told
from playhead.world.terminal import printable
from playhead.world.wide.width_choice import choose_width
from playhead.world.world import World

STARTS = 16
"""Starts of scenes that are kept ready."""
LARGEST_START = 64 * 2**20
"""Bytes of the largest cache that is kept as a start."""


class Registry:
    """Worlds by name and, for each, its scenes by name; fixed once it is made.

    Of several worlds of one name each is a copy on a device: `copies` has them all, `worlds` the first of
    each, and `placement` chooses for a session.
    """

    def __init__(
        self, worlds: Sequence[World], scenes: Sequence[Scene], free: FreeMemory = free_memory
    ) -> None:
        """`free`: how a device's free memory is read."""
        self.copies: dict[str, list[World]] = {}
        for world in worlds:
            self.copies.setdefault(world.config.name, []).append(world)
        self.worlds = {name: copies[0] for name, copies in self.copies.items()}
        self.placement = Placement(free)
        self._scenes = {
            name: {s.name: s for s in scenes if belongs(s.world, world.config)}
            for name, world in self.worlds.items()
        }
        for name, found in self._scenes.items():
            if not found:
                raise PlayheadError(f"the world `{name}` has no scene to start from; give one by --scene")
        self.findings: list[str] = []  # how a GPU's sessions share passes, a sentence a world
        self._starts = Starts(STARTS, LARGEST_START)
        self._batchers = {world: Batcher(world.wide is not None) for world in worlds}

    @classmethod
    def load(
        cls,
        worlds: Sequence[str],
        scenes: Sequence[Path],
        device: str,
        precision: str | None = None,
        decoder: str | None = None,
        budget: MemoryBudget | None = None,
        cache: str | None = None,
        devices: Sequence[str] = (),
        sessions: int = 1,
    ) -> "Registry":
        """Loads worlds, with their shipped scenes and those of the folders. Raises PlayheadError.

        `devices`: each has a copy of every world, in place of `device`. `sessions`: how many there may be,
        for which a GPU's worlds are measured (`world.wide`).
        """
        if budget is not None and len(worlds) > 1:
            raise PlayheadError("--vram and --ram are a budget of one world; serve one --world with them")
        loaded = [
            World.load(name, each, precision=precision, decoder=decoder, budget=budget, cache=cache)
            for name in worlds
            for each in devices or [device]
        ]
        for world in loaded:
            world.share_cores()
        widths = [choose_width(world, -(-sessions // len(devices or [device]))) for world in loaded]
        given = [load_scene(folder) for folder in scenes]
        for scene in given:
            if not any(belongs(scene.world, world.config) for world in loaded):
                raise PlayheadError(f"the scene `{scene.name}` needs --world {scene.world}; add it")
        found = []
        for world in loaded:
            started = any(belongs(scene.world, world.config) for scene in given)
            found += _found(world.config) if started else scenes_of(world.config)
        made = cls(loaded, [*found, *given])
        made.findings = [
            f"{world.config.name} on {world.device}: {choice.finding}"
            for world, choice in zip(loaded, widths, strict=True)
            if choice.finding
        ]
        return made

    @property
    def devices(self) -> list[str]:
        """Where sessions are played, if there is a choice: each device, and what it has free."""
        copies = next(iter(self.copies.values()), [])
        return (
            [f"{w.device} ({told(self.placement.left(w))} free)" for w in copies] if len(copies) > 1 else []
        )

    def batcher(self, world: World) -> Batcher:
        """By whom the ticks of a world's sessions are played."""
        return self._batchers[world]

    def world(self, name: str) -> World:
        world = self.worlds.get(name) if name else next(iter(self.worlds.values()))
        if world is None:
            raise BridgeError("unknown_world", f"there is no world `{name}`; try {', '.join(self.worlds)}")
        return world

    def place(self, world: World, needed: int, sessions: Mapping[World | None, int]) -> World:
        """The copy of a world that a new session goes to, as `Placement.place` has it."""
        return self.placement.place(self.copies[world.config.name], needed, sessions)

    def scene(self, world: World, name: str) -> Scene:
        scenes = self._scenes[world.config.name]
        scene = scenes.get(name) if name else next(iter(scenes.values()))
        if scene is None:
            raise BridgeError("unknown_scene", f"there is no scene `{name}`; here are {', '.join(scenes)}")
        return scene

    def scenes(self, world: World) -> Sequence[Scene]:
        """All that a world has."""
        return [*self._scenes[world.config.name].values()]

    def start(self, session: Session, scene: Scene, seed: int) -> None:
        """Puts a session of this world at the start of a scene; its steps stay."""
        self._starts.enter(session, scene, seed)

    def open(self, world: World, scene: Scene, seed: int) -> Session:
        """A session at the start of a scene, as ready as it can be made."""
        session = self._starts.session(world, scene, seed)
        if (
            world.device.type == "cuda" and world.wide is None
        ):  # ticks are recorded as graphs, which the first ones would pay for
            session.warm_up()
        return session

    def list(self) -> list[WorldInfo]:
        return [self.info(world) for world in self.worlds.values()]

    def info(self, world: World) -> WorldInfo:
        config = world.config
        return WorldInfo(
            name=config.name, family=config.family, title=printable(config.title),
            licence=printable(config.licence), height=config.frame_height,
            width=config.frame_width, ticks_per_second=config.ticks_per_second,
            frames_per_tick=config.frames_per_tick, steps=world.steps, buttons=list(config.action.buttons),
            axes=list(config.action.axes),
            scenes=[scene_info(s) for s in self._scenes.get(config.name, {}).values()],
        )  # fmt: skip


def scene_info(scene: Scene) -> SceneInfo:
    return SceneInfo(scene.name, printable(scene.title), scene.seed, len(scene.context.prompts))


def check_seed(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise BridgeError("bad_value", f"a seed is a whole number from 0 to 2^64 - 1, not {seed}")
    return seed


def check_steps(world: World, steps: int) -> None:
    try:
        world.schedule(steps)
    except PlayheadError as error:
        raise BridgeError("bad_value", str(error)) from None


def _found(config: WorldConfig) -> list[Scene]:
    try:
        return scenes_of(config)
    except PlayheadError:
        return []
