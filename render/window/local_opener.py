"""Opening a scene to play: loads its world and dreams a first frame. Imports torch only then."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from playhead.controls.keymap import Keymap
from playhead.controls.player import Player
from playhead.render.window.settings import RecordingSettings, SessionSettings
from playhead.world.errors import PlayheadError
from playhead.world.home import if_any, worlds_folder

if TYPE_CHECKING:
    from playhead.engine.recording.reader import Recording
    from playhead.engine.recording.tree import Point
    from playhead.engine.session import Session
    from playhead.engine.timeline.timeline import Timeline
    from playhead.scenes.scene import Scene
    from playhead.world.world import World

Progress = Callable[[str, float], None]
"""Told what is being done, and which part (0 to 1) of it all is done."""

FIRST_WORLD = "freedoom"


def keymap_world(settings: SessionSettings) -> str:
    """The name under which the world that is going to be played looks for its key map. Loads no torch."""
    from playhead.engine.recording.finding import Summary, find_recording
    from playhead.engine.recording.schema import RecordingError
    from playhead.scenes.scene import SCENE_FILE, SceneError, find_scene, read_fields

    if settings.continued and not settings.world:
        try:
            return Summary.read(find_recording(settings.continued)[0]).world
        except RecordingError:
            return FIRST_WORLD
    if settings.world or not settings.scene:
        return settings.world or FIRST_WORLD
    try:
        return read_fields(find_scene(settings.scene) / SCENE_FILE).world
    except SceneError:
        return FIRST_WORLD  # the opening says what is wrong, in the window


def family_of(world: str) -> str:
    """The family that a world's `world.toml` names, by a glance at its text; empty where it names none."""
    for folder in (*(folder / world for folder in if_any(worlds_folder)), Path(world)):
        try:
            return str(tomllib.loads((folder / "world.toml").read_text("utf-8-sig")).get("family", ""))
        except (OSError, ValueError):
            continue
    return ""


class LocalOpener:
    """Opens the sessions of one `play`: the first, and those of the scenes that are switched to."""

    def __init__(
        self,
        settings: SessionSettings,
        recording: RecordingSettings,
        keymap: Keymap,
        player: Player,
        progress: Progress,
    ) -> None:
        self._settings, self._recording = settings, recording
        self._keymap, self._player, self._progress = keymap, player, progress
        self._world: World | None = None
        self.scene: Scene | None = None
        self.timeline: Timeline | None = None
        self.remark = ""  # what a player ought to know from the start

    @property
    def title(self) -> str:
        """The title of the scene that is played."""
        return self.scene.title if self.scene else ""

    def first(self) -> "Session":
        """Loads the world and opens the first scene."""
        settings, progress = self._settings, self._progress
        from playhead.scenes.scene import belongs, load_scene, scenes_of

        scene = load_scene(settings.scene) if settings.scene else None
        kept, point = self._read_recording()
        progress("starting torch", 0.05)
        from playhead.engine.parallel.start import load_world

        name = settings.world or (scene.world if scene else kept.world if kept else FIRST_WORLD)
        progress(f"loading the world {name}", 0.5)
        self._world = load_world(
            name,
            settings.gpus,
            settings.device,
            steps=settings.steps,
            attention=settings.attention,
            precision=settings.precision,
            decoder=settings.decoder,
            budget=settings.budget,
            cache=settings.cache,
            decoder_device=settings.decoder_device,
        )
        self._world.share_cores()
        config = self._world.config
        self._keymap.check(config.action)
        if settings.script is not None:
            from playhead.controls.script import ScriptSource, load_actions

            actions = load_actions(settings.script, config.action, self._keymap.aliases)
            self._player.script = ScriptSource(actions)
        if kept is not None and point is not None:
            return self._go_on(kept, point)
        scene = scene or scenes_of(config)[0]
        if not belongs(scene.world, config):
            raise PlayheadError(
                f"the scene `{scene.name}` is one of the world `{scene.world}`, not of `{config.name}`; "
                "leave out --world, or choose another --scene"
            )
        session = self._open(scene, scene.seed if settings.seed is None else settings.seed)
        from playhead.engine.timeline.opening import new_timeline

        self.timeline = new_timeline(self._world, scene, self._recording.folder, self._recording.unrecorded)
        return session

    def _read_recording(self) -> "tuple[Recording, Point] | tuple[None, None]":
        """The recording that is to be gone on with, and the moment in it, if there is to be one."""
        if not self._settings.continued:
            return None, None
        from playhead.engine.recording.finding import find_recording
        from playhead.engine.recording.reader import Recording
        from playhead.engine.recording.tree import Point

        path, point = find_recording(self._settings.continued)
        self._progress(f"reading {path.name}", 0.02)
        kept = Recording.read(path)
        replayed = self._settings.replayed
        if replayed is not None:
            return kept, kept.tree.check(Point(replayed.branch, replayed.first))
        return kept, kept.tree.parse(point)

    def _go_on(self, kept: "Recording", point: "Point") -> "Session":
        """Goes on with a recording from a moment of it."""
        from playhead.engine.timeline.opening import continued

        assert self._world is not None
        self.scene = kept.scene(point.branch)

        def tell(done: int, count: int) -> None:
            self._progress(f"going to tick {point.tick}", 0.7 + 0.3 * done / count)

        self._progress(f"entering {self.scene.title}", 0.7)
        replayed = self._settings.replayed
        self.timeline, session, self.remark = continued(kept, point, self._world, tell, replayed is None)
        if replayed is not None:
            from playhead.engine.recording.replay import ReplaySource

            steps = self._settings.steps
            source = ReplaySource(self.timeline, session, replayed.branch, replayed.last, steps)
            self._player.script = source
        elif self._settings.steps is not None:
            session.steps = self._settings.steps
        return session

    def neighbour(self, by: int) -> "Session":
        """Opens the scene that comes `by` after the present one among those of the same world."""
        from playhead.scenes.scene import scenes_of

        assert self._world is not None
        config = self._world.config
        scenes = scenes_of(config)
        names = [s.name for s in scenes]
        here = names.index(self.scene.name) if self.scene and self.scene.name in names else -1
        scene = scenes[(here + by) % len(scenes)]
        return self._open(scene, scene.seed)

    def _open(self, scene: "Scene", seed: int) -> "Session":
        from playhead.engine.session import Session

        assert self._world is not None
        self._progress(f"entering {scene.title}", 0.7)
        session = Session(self._world, scene.context, seed, scene)
        self._progress("dreaming the first frame", 0.85)
        session.warm_up()
        self.scene = scene
        return session
