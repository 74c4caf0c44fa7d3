"""Where the user's own folders are."""

import os
from pathlib import Path

import pytest

from playhead.world.errors import PlayheadError
from playhead.world.home import (
    WRITTEN,
    expand_arguments,
    home,
    recordings_folder,
    scenes_folder,
    seek_folder,
    worlds_folder,
)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, with none of the variables set."""
    for name in ("PLAYHEAD_HOME", "PLAYHEAD_RECORDINGS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


pytestmark = pytest.mark.skipif(os.name != "posix", reason="the home folder is set by HOME")


def test_without_variables_the_folders_are_in_the_users_home(user: Path) -> None:
    assert home() == user / ".playhead"
    for folder in (recordings_folder(), seek_folder()):
        assert folder is not None and folder.is_relative_to(user)


def test_a_tilde_in_a_variable_is_the_users_home(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", "~/mine")
    assert [home(), worlds_folder(), scenes_folder()] == [user / "mine" / n for n in ("", "worlds", "scenes")]
    assert recordings_folder() == user / "mine" / "recordings"
    assert seek_folder() == user / "mine" / "cache" / "seek"
    monkeypatch.setenv("PLAYHEAD_RECORDINGS", "~/films")
    assert recordings_folder() == user / "films"


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("--record=~/x", "--record={}/x"),
        ("~/a b.playhead@12", "{}/a b.playhead@12"),
        ("~", "{}"),
        ("--continue=~/x=y@3", "--continue={}/x=y@3"),
        ("w+yaw=0.5*3", "w+yaw=0.5*3"),
        ("--name=a~/b", "--name=a~/b"),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x"),
    ],
)
def test_a_tilde_in_a_commands_word_is_the_users_home(word: str, wanted: str, user: Path) -> None:
    assert expand_arguments([word]) == [wanted.format(user)]


def test_a_tilde_without_a_home_is_one_sentence(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(PlayheadError, match="`~/x`: this user has no home folder; give"):
        expand_arguments(["--out=~/x"])


@pytest.mark.parametrize("option", WRITTEN)
def test_a_hyphen_is_no_name_for_what_is_written(option: str) -> None:
    for words in (["x", option, "-"], [f"{option}=-", "y"]):
        with pytest.raises(PlayheadError, match=f"{option} - is no file: nothing is written to the output"):
            expand_arguments(words)
    others = ["--title", "-", option, "a-b", "--from", "-"]
    assert expand_arguments(others) == others
