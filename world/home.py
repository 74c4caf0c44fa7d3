"""The user's own folders: added worlds and scenes, recordings, what was learnt about this machine."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from platformdirs import user_cache_path, user_data_path

from playhead.world.errors import PlayheadError

Folder = TypeVar("Folder", Path, Path | None)


class NoHome(PlayheadError):
    """This user has no home folder, and no variable names another."""

    def __init__(self, variable: str = "PLAYHEAD_HOME") -> None:
        super().__init__(f"this user has no home folder; set {variable} to a folder to be used in its place")


WRITTEN = ("--out", "--to", "--record", "--recordings", "--thumbnails", "--screenshots")
"""Options of commands that name what is to be written."""


def expand_user(path: str) -> str:
    """A path in which `~` or `~name` is the folder of that user. Raises PlayheadError where there is none."""
    expanded = os.path.expanduser(path)
    if expanded == path and (path == "~" or path.startswith("~/")):
        raise PlayheadError(f"`{path}`: this user has no home folder; give a path that does not begin with ~")
    return expanded


def expand_arguments(words: Sequence[str]) -> list[str]:
    """The words of a command line with paths as by `expand_user`.

    A shell leaves `--record=~/x` as it is, and some expand no word at all. Raises PlayheadError for `-` where
    something is to be written: elsewhere that is the output, and here it would be a file of that name.
    """
    for option, value in zip(words, [*words[1:], ""], strict=True):
        name, equals, joined = option.partition("=")
        if name in WRITTEN and (joined if equals else value) == "-":
            raise PlayheadError(f"{name} - is no file: nothing is written to the output; give a name")
    return [_expand_argument(word) for word in words]


def _expand_argument(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={expand_user(value)}"
    return expand_user(argument)


def home() -> Path:
    """`PLAYHEAD_HOME`, or else `.playhead` in the user's home. Raises NoHome, as all folders here do."""
    said = os.environ.get("PLAYHEAD_HOME")
    if said:
        return Path(expand_user(said))
    try:
        return Path.home() / ".playhead"
    except RuntimeError:  # as for an unknown user without HOME
        raise NoHome() from None


def if_any(folder: Callable[[], Folder]) -> tuple[Folder, ...]:
    """One of the folders here, for reading; none for a user without a home, who has put nothing there."""
    try:
        return (folder(),)
    except NoHome:
        return ()


def downloads_folder() -> Path:
    """Where files lie that were downloaded by hand, a folder a world."""
    return home() / "downloads"


def worlds_folder() -> Path:
    return home() / "worlds"


def scenes_folder() -> Path:
    return home() / "scenes"


def recordings_folder() -> Path | None:
    """Where plays are recorded: PLAYHEAD_RECORDINGS (`off`: nowhere, None), else the system's place.

    Raises NoHome.
    """
    said = os.environ.get("PLAYHEAD_RECORDINGS", "")
    if said.lower() == "off":
        return None
    if said or os.environ.get("PLAYHEAD_HOME"):
        return Path(expand_user(said)) if said else home() / "recordings"
    try:
        return user_data_path("playhead", appauthor=False) / "recordings"
    except RuntimeError:
        raise NoHome("PLAYHEAD_RECORDINGS") from None


def seek_folder() -> Path | None:
    """Where snapshots are kept that make going back fast; it may be deleted at any time. None: nowhere."""
    if os.environ.get("PLAYHEAD_HOME"):
        return home() / "cache" / "seek"
    try:
        return user_cache_path("playhead", appauthor=False) / "seek"
    except RuntimeError:
        return None


def own_folder(path: Path) -> Path:
    """Makes a folder, and those above it that are missing, for the user alone; one that is there stays.

    Raises OSError where that cannot be done.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)
    return path
