"""The user's own folder: worlds and scenes that were added, and what was learnt about this machine."""

import os
from pathlib import Path


def home() -> Path:
    """`PLAYHEAD_HOME`, or else `.playhead` in the user's home."""
    return Path(os.environ.get("PLAYHEAD_HOME") or Path.home() / ".playhead")


def worlds_folder() -> Path:
    return home() / "worlds"


def scenes_folder() -> Path:
    return home() / "scenes"
