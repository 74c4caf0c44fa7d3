"""The user's own folders: added worlds and scenes, recordings, what was learnt about this machine."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def home() -> Path:
    """`PLAYHEAD_HOME`, or else `.playhead` in the user's home."""
    return Path(os.environ.get("PLAYHEAD_HOME") or Path.home() / ".playhead")


def downloads_folder() -> Path:
    """Where files lie that were downloaded by hand, a folder a world."""
    return home() / "downloads"


def worlds_folder() -> Path:
    return home() / "worlds"


def scenes_folder() -> Path:
    return home() / "scenes"


def recordings_folder() -> Path | None:
    """Where plays are recorded: PLAYHEAD_RECORDINGS (`off`: nowhere, None), else the system's place."""
    said = os.environ.get("PLAYHEAD_RECORDINGS", "")
    if said.lower() == "off":
        return None
    if said or os.environ.get("PLAYHEAD_HOME"):
        return Path(said) if said else home() / "recordings"
    return user_data_path("playhead", appauthor=False) / "recordings"


def seek_folder() -> Path:
    """Where snapshots are kept that make going back fast; it may be deleted at any time."""
    own = (
        home() / "cache" if os.environ.get("PLAYHEAD_HOME") else user_cache_path("playhead", appauthor=False)
    )
    return own / "seek"


def own_folder(path: Path) -> Path:
    """Makes a folder, and those above it that are missing, for the user alone; one that is there stays.

    Raises OSError where that cannot be done.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)
    return path
