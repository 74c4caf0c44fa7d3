"""What was measured on a device, kept in the user's folder so that it need not be measured again.

Nothing depends on it: what cannot be read is measured, and what cannot be written is measured next time.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from playhead.world.home import home, if_any, own_folder

Choice = TypeVar("Choice")


def note(name: str) -> Path | None:
    """The file of that name, or None where there is no home for it."""
    return next((folder / name for folder in if_any(home)), None)


def read(path: Path | None, kind: type[Choice]) -> dict[str, Choice]:
    """The choices that were kept, by what they hang on; none where the file is missing or damaged."""
    if path is None:
        return {}
    try:
        found: dict[str, Choice] = msgspec.json.decode(path.read_bytes(), type=dict[str, kind])  # type: ignore[valid-type]  # a type by then
    except (OSError, msgspec.DecodeError, RecursionError):
        return {}
    return found


def write(path: Path | None, known: dict[str, Any]) -> None:
    """Keeps choices in place of all that were."""
    if path is None:
        return
    try:
        own_folder(path.parent)
        draft = path.with_suffix(".tmp")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(known)))
        draft.replace(path)
    except OSError:
        return  # it is measured again next time
