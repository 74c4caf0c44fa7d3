"""Opening the timeline of a play: a new recording, or one that is gone on with."""

import hashlib
import logging
import re
import time
from pathlib import Path

import msgspec

from engine.fingerprint import differences, environment, fingerprint
from engine.recording.reader import Recording
from engine.recording.recorder import Recorder
from engine.recording.schema import RecordingError
from engine.recording.tree import Place
from engine.session import Session
from engine.timeline.store import SnapshotStore
from engine.timeline.timeline import Timeline
from engine.timeline.way import Progress
from scenes.scene import Scene
from world.home import seek_folder
from world.world import World


def new_timeline(world: World, scene: Scene, folder: Path | None, unrecorded: str = "") -> Timeline:
    """A timeline that is recorded to a new file in `folder`; None: it is not, for the reason `unrecorded`.

    Where that is not possible play goes on without: `Timeline.failure` says why.
    """
    if folder is None:
        said = _warn(f"nothing is recorded: {unrecorded}") if unrecorded else ""
        return Timeline(None, SnapshotStore(), unrecorded=said)
    try:
        recorder = Recorder(_free(folder, scene.name), world, scene.title)
    except RecordingError as error:
        return Timeline(None, SnapshotStore(), unrecorded=_warn(f"nothing is recorded: {error}"))
    return Timeline(recorder, _store(Recording.read(recorder.path), world))


def continued(
    recording: Recording,
    place: Place,
    world: World,
    progress: Progress | None = None,
    record: bool = True,
) -> tuple[Timeline, Session, str]:
    """Goes on with a recording, in its file, from a place: the timeline, a session there, and a remark.

    The remark says what is different here, if anything is. Without `record` nothing is written. Raises
    RecordingError for another world than the recorded one.
    """
    others = differences(recording.fingerprint, fingerprint(world))
    if others:
        raise RecordingError(f"{recording.path} was played in another world: {'; '.join(others)}")
    root = recording.tree.root(place.branch)
    scene = recording.scene(place.branch)
    session = Session(world, scene.context, root.seed, scene)
    session.warm_up()
    store = _store(recording, world)
    try:
        timeline = Timeline(Recorder.resume(recording, world) if record else None, store, recording)
    except RecordingError as error:
        timeline = Timeline(None, store, recording, _warn(f"nothing is recorded: {error}"))
    timeline.seek(session, place, progress)
    if timeline.exact:
        return timeline, session, ""
    here = differences(recording.environment(place.branch), environment(world))
    reason = "; ".join(here) or "a hash in it was changed"
    return timeline, session, f"this moment does not look as it did when it was recorded: {reason}"


def _store(recording: Recording, world: World) -> SnapshotStore:
    """Where the snapshots of a recording are kept on this machine: they are only right on one like it."""
    machine = hashlib.blake2b(msgspec.json.encode(environment(world)), digest_size=4).hexdigest()
    folder = seek_folder()
    return SnapshotStore(None if folder is None else folder / f"{recording.id}-{machine}")


def _free(folder: Path, scene: str) -> Path:
    """A name for a play that begins now."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^a-zA-Z0-9-]+', '-', scene) or 'play'}"
    path, number = folder / f"{stem}.playhead", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.playhead"
    return path


def _warn(sentence: str) -> str:
    logging.getLogger("playhead").warning(sentence)
    return sentence
