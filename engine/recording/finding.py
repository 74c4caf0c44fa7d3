"""Recordings on the disk: which one a name means, and what it is at a glance."""

from dataclasses import dataclass
from pathlib import Path

from playhead.engine.recording.file import DAMAGE, open_base
from playhead.engine.recording.schema import LATEST, RecordingError
from playhead.world.home import if_any, recordings_folder
from playhead.world.terminal import printable


def find_recording(text: str) -> tuple[Path, str]:
    """`FILE@POINT` as a file and a point, which is empty where none is named.

    A file is a path, or the name of one in the recordings folder, with or without its ending. Raises
    RecordingError where there is none.
    """
    name, at, point = text.rpartition("@")
    folder = next(iter(if_any(recordings_folder)), None)
    for said, where in ((text, ""), (name, point)) if at else ((text, ""),):
        here = [Path(said)]
        if folder is not None and said:
            here += [folder / said, folder / f"{said}.playhead"]
        for path in here:
            if path.is_file():
                return path, where
    raise RecordingError(
        f"there is no recording `{name if at else text}`; `recordings list` names those there are"
    )


@dataclass(frozen=True)
class Summary:
    """A recording at a glance: what it says of itself, unchecked."""

    title: str
    world: str
    time: float
    rate: float
    ticks: int
    branches: int
    bookmarks: int

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """Raises RecordingError as `Recording.read` does, but does not look at every tick."""
        try:
            with open_base(path) as base:
                facts = dict(base.execute("SELECT key, value FROM recording"))
                numbers = [float(facts[key]) for key in ("time", "rate")]
                if not (0 <= numbers[0] < LATEST and 0 < numbers[1] <= 1000):
                    raise ValueError("its time or rate is none")
                counts = [
                    base.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in ("ticks", "branches", "bookmarks")
                ]
                title, world = (printable(facts[key].decode()) for key in ("title", "world"))
                time, rate = numbers
                ticks, branches, bookmarks = counts
                return cls(title, world, time, rate, ticks, branches, bookmarks)
        except RecordingError:
            raise
        except DAMAGE as error:
            raise RecordingError(f"{path} is damaged or no recording ({printable(str(error))})") from None
