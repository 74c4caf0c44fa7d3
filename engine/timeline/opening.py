"""Opening the timeline of a play: a new recording, or one that is gone on with."""

import hashlib
import logging
import re
import time
from pathlib import Path

import msgspec

from playhead.engine.fingerprint import differences, environment, fingerprint
from playhead.engine.recording.edit import draft_of, write
from playhead.engine.recording.file import InUseError
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import ChangedError, Recorder
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.timeline.seeker import Progress
from playhead.engine.timeline.store import SnapshotStore
from playhead.engine.timeline.timeline import Timeline
from playhead.scenes.scene import Scene
from playhead.world.home import seek_folder
from playhead.world.world import World

TRIES = 5
"""Times that a file is read again that others go on with meanwhile."""


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
    point: Point,
    world: World,
    progress: Progress | None = None,
    record: bool = True,
) -> tuple[Timeline, Session, str]:
    """Goes on with a recording, in its file, from a point: the timeline, a session there, and a remark.

    The remark says what is different here, if anything is. Without `record` nothing is written. Where another
    play is recording to the file, this one goes on in a copy beside it. Raises RecordingError for another
    world than the recorded one.
    """
    others = differences(recording.fingerprint, fingerprint(world))
    if others:
        raise RecordingError(f"{recording.path} was played in another world: {'; '.join(others)}")
    recorder, recording, remark = _writer(recording, world) if record else (None, recording, "")
    root = recording.tree.root(point.branch)
    scene = recording.scene(point.branch)
    session = Session(world, scene.context, root.seed, scene)
    session.warm_up()
    unrecorded = _warn(remark) if record and recorder is None else ""
    timeline = Timeline(recorder, _store(recording, world), recording, unrecorded)
    timeline.seek(session, point, progress)
    if timeline.exact:
        return timeline, session, "" if unrecorded else remark
    here = differences(recording.environment(point.branch), environment(world))
    reason = "; ".join(here) or "a hash in it was changed"
    return timeline, session, f"this moment does not look as it did when it was recorded: {reason}"


def _writer(recording: Recording, world: World) -> tuple[Recorder | None, Recording, str]:
    """Who goes on with a recording, in its file or else in a copy; and a remark, if that is to be said."""
    try:
        for _ in range(TRIES):
            try:
                return Recorder.resume(recording, world), recording, ""
            except ChangedError:  # since it was read; what was read is still there, and more
                recording = Recording.read(recording.path)
            except InUseError:
                copy = _free_copy(recording.path)
                write(copy, draft_of(Recording.read(recording.path), lambda branch: branch.last))
                recording = Recording.read(copy)
                remark = f"another play is recorded there, so this one goes on in {copy.name}"
                return Recorder.resume(recording, world), recording, remark
        raise ChangedError(f"{recording.path} changes all the time; record to another file")
    except RecordingError as error:
        return None, recording, f"nothing is recorded: {error}"


def _free_copy(path: Path) -> Path:
    number = 2
    while (copy := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return copy


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
