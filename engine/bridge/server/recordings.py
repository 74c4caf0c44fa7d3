"""Recordings of a server's sessions: each is recorded from its start on, and kept if a client saves it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from playhead.engine.bridge.server.unsaved import WHOLE, Unsaved, rescuing
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.recording.edit import Draft, drafting, splitting, writing
from playhead.engine.recording.file import put_in_place
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.timeline.store import SnapshotStore
from playhead.engine.timeline.timeline import Timeline
from playhead.engine.work import Work
from playhead.world.errors import PlayheadError
from playhead.world.home import own_folder

if TYPE_CHECKING:
    from playhead.scenes.scene import Scene
    from playhead.world.world import World

COPY = ".copy"
"""The ending of a file that is handed out: what is left of one is not rescued."""
SAVED = 1000
"""Files in the folder, at the most."""


@dataclass(frozen=True)
class RecordedPoint:
    """A moment of a session's past in the file that it is recorded to."""

    path: Path
    branch: int
    tick: int


class Recordings:
    """The folder that clients may save recordings to, by a name; None where they may not.

    What is not saved goes with its session; of a server that was killed, `rescuing` saves it.
    """

    def __init__(self, folder: Path | None) -> None:
        """Raises PlayheadError for a folder that cannot be made."""
        try:
            if folder is not None:
                own_folder(folder)
        except OSError as error:
            raise PlayheadError(f"{folder} is no folder for recordings ({error}); choose another") from None
        self._folder = folder
        self._unsaved: Unsaved | None = None

    def rescuing(self, tell: Callable[[str], None]) -> Work[None]:
        """Saves what servers have left in the folder that were killed. Tells a sentence for each."""
        if self._folder is not None:
            yield from rescuing(self._folder, SAVED, tell)

    @property
    def records(self) -> bool:
        """Whether sessions are recorded."""
        return self._folder is not None

    def timeline(self, world: "World", scene: "Scene", seek_memory: int = 0) -> Timeline | None:
        """Where a new session is recorded; None: nowhere. `seek_memory`: bytes for a quick way back."""
        if self._folder is None:
            return None
        recorder = Recorder(self._new_file(), world, scene.title)
        return Timeline(recorder, SnapshotStore(memory=seek_memory) if seek_memory else None)

    def _new_file(self) -> Path:
        assert self._folder is not None
        if self._unsaved is None:
            self._unsaved = Unsaved(self._folder)
        return self._unsaved.new_file()

    def origin(self, timeline: Timeline | None, tick: int) -> "RecordedPoint | None":
        """On the thread of a session that stands on a timeline: what is written of it up to a tick."""
        if self._folder is None or timeline is None or timeline.recorder is None or timeline.head is None:
            return None
        timeline.recorder.flush()
        point = timeline.tree.check(Point(timeline.head.branch, tick))  # which may lie before its branch
        return RecordedPoint(timeline.recorder.path, *point)

    def twin(self, recorded: "RecordedPoint", world: "World", scene: "Scene") -> Work[Timeline]:
        """Where a second session is recorded that goes on from there: in a copy of what led to it."""
        path = self._new_file()
        try:
            out = yield from splitting(recorded.path, recorded.branch, path, recorded.tick)
            out.pictures = yield from out.picturing()
        except BaseException as error:  # its client may have gone, too
            path.unlink(missing_ok=True)
            if isinstance(error, RecordingError) and not recorded.path.exists():
                raise _closed() from None
            raise
        number = out.tree.branch(recorded.branch).scene
        out.scenes[number] = replace(out.scenes[number], context=scene.context)  # the same, and one object
        timeline = Timeline(Recorder.resume(out, world), recording=out)
        timeline.moved(out.tree.check(Point(recorded.branch, recorded.tick)))
        return timeline

    def check(self, timeline: Timeline | None) -> None:
        """Raises BridgeError where a session cannot be saved."""
        if self._folder is None or timeline is None or timeline.recorder is None:
            raise BridgeError("refused", "nothing is recorded here; `serve --recordings FOLDER` records")
        if timeline.failure:
            raise BridgeError("refused", timeline.failure)

    def save(self, timeline: Timeline, name: str) -> Work[tuple[str, int]]:
        """Writes what a timeline has written so far to a file of its own. Returns its name and its ticks.

        Raises BridgeError for a name that is taken, and where nothing can be written.
        """
        assert self._folder is not None
        out = self._folder / f"{name}.playhead"
        if out.exists():
            raise BridgeError("refused", f"there is a recording `{name}` already; choose another name")
        if sum(1 for _ in self._folder.glob("*.playhead")) >= SAVED:
            raise BridgeError("limit", f"{SAVED} recordings are in the folder, which is all")
        return out.name, (yield from self._copy(timeline, lambda draft: self._write(out, draft)))

    def copying(self, timeline: Timeline) -> Work[tuple[Path, int]]:
        """As `save`, to a file that nobody knows: it is to be handed out, and taken away then."""
        out = self._new_file().with_suffix(COPY)
        return out, (yield from self._copy(timeline, lambda draft: writing(out, draft)))

    def _copy(self, timeline: Timeline, write: Callable[[Draft], Work[None]]) -> Work[int]:
        """Reads what a timeline has written so far, and has it written elsewhere. Returns its ticks."""
        assert timeline.recorder is not None
        try:
            recording = yield from Recording.reading(timeline.recorder.path)
            draft = yield from drafting(recording, lambda branch: branch.last)
            yield from write(draft)
        except RecordingError as error:
            if not timeline.recorder.path.exists():
                raise _closed() from None
            raise BridgeError("refused", str(error)) from None
        return sum(len(branch.ticks) for branch in recording.tree.branches.values())

    def _write(self, out: Path, draft: Draft) -> Work[None]:
        """Writes a file, whole or not at all: half of one, of a server that is killed, is not saved."""
        if self._unsaved is None or not self._unsaved.saves_here:
            yield from writing(out, draft)
            return
        whole = self._unsaved.path / f"{secrets.token_hex(8)}{WHOLE}"
        yield from writing(whole, draft)
        try:
            put_in_place(whole, out)
        except OSError as error:
            said = error.strerror or "it is there already"
            raise RecordingError(f"{out} cannot be written ({said})") from None
        finally:
            whole.unlink(missing_ok=True)

    def discard(self, timeline: Timeline) -> None:
        """Ends the recording of a session that has ended, and takes its file away."""
        timeline.discard()

    def close(self) -> None:
        if self._unsaved is not None:
            self._unsaved.close()


def _closed() -> BridgeError:
    return BridgeError("unknown_session", "the session was closed before its recording had been read")
