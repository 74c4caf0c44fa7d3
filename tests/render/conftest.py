"""What tests in real windows share: a display, and a user's folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.render.desktop import display


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    with display() as name:
        yield name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, in which recordings are not switched off."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PLAYHEAD_RECORDINGS")
    return tmp_path / "home"
