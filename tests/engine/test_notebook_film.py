"""In a notebook sessions, recordings and frames show themselves: a film that a page has inside."""

import base64
import io
import re
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest

from playhead import Film, PlayheadError, Recording, Session
from playhead.engine.recording.recorder import Recorder
from playhead.engine.timeline.timeline import Timeline
from playhead.world.action import Action
from tests.played import record_play

WALK = Action(frozenset({"forward"}))


def shown(page: str) -> np.ndarray:
    """The frames of the film in a page."""
    data = re.search(r'src="data:video/mp4;base64,([^"]+)"', page)[1]
    with av.open(io.BytesIO(base64.b64decode(data))) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


@pytest.fixture
def notebook(monkeypatch):
    """As IPython is there in a notebook."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))


def test_a_film_has_every_frame_at_its_rate_and_its_caption_does_nothing():
    frames = np.stack([np.full((40, 60, 3), value, np.uint8) for value in (0, 120, 240)])
    page = Film(frames, 17.5, "<script>alert(1)</script>")._repr_html_()
    found = shown(page)
    assert found.shape == frames.shape and np.abs(found.astype(int) - frames).max() < 12
    assert "<script>" not in page and "&lt;script&gt;" in page and 'width="540"' in page
    with av.open(io.BytesIO(Film(frames, 17.5).mp4())) as film:
        assert float(film.streams.video[0].average_rate) == 17.5


def test_odd_sizes_are_filled_up_to_even_ones():
    assert shown(Film(np.zeros((2, 33, 47, 3), np.uint8), 5)._repr_html_()).shape == (2, 34, 48, 3)


@pytest.mark.parametrize(
    ("frames", "rate"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), 5),
        (np.zeros((1, 4, 4), np.uint8), 5),
        (np.zeros((1, 4, 4, 3)), 5),
        (np.zeros((1, 4, 4, 3), np.uint8), 0),
        (np.zeros((1, 4, 4, 3), np.uint8), float("nan")),
    ],
)
def test_what_is_no_film_is_refused(frames, rate):
    with pytest.raises(PlayheadError, match="a film"):
        Film(frames, rate)


def test_a_session_in_a_notebook_shows_the_last_ten_seconds(notebook, tiny_world, tiny_context):
    session = Session(tiny_world, tiny_context, 5)
    played = [session.frames, *(session.step(WALK) for _ in range(6))]
    # Of noise, which H.264 does not keep as it is, nor to the same bits each time.
    wanted = shown(Film(np.concatenate(played), 17.5)._repr_html_()).astype(int)
    found = shown(session._repr_html_())
    assert found.shape == wanted.shape and np.abs(found - wanted).mean() < 2
    assert np.abs(wanted[1:] - wanted[:-1]).mean() > 4  # so that other frames would be told apart
    kept = session.snapshot()
    for _ in range(180):
        session.step(WALK)
    assert len(shown(session._repr_html_())) == 175 and "tick 186" in session._repr_html_()
    session.restore(kept)
    assert len(shown(session._repr_html_())) == 1
    session.step(WALK)
    assert len(shown(session._repr_html_())) == 2
    session.reset()
    assert len(shown(session._repr_html_())) == 1


def test_to_be_shown_changes_nothing_of_what_is_dreamed(notebook, tiny_world, tiny_context, monkeypatch):
    seen = [Session(tiny_world, tiny_context, 5).step(WALK)]
    monkeypatch.delitem(sys.modules, "IPython")
    session = Session(tiny_world, tiny_context, 5)
    assert np.array_equal(session.step(WALK), seen[0])
    assert len(shown(session._repr_html_())) == 1  # elsewhere nothing is kept for it


def test_a_recording_shows_its_newest_branch_and_says_what_it_holds(tmp_path, tiny_world, tiny_context):
    record_play(tmp_path / "walk.playhead", tiny_world)
    recording = Recording.read(tmp_path / "walk.playhead")
    assert repr(recording).endswith("walk.playhead: 21 ticks of the world tiny)")  # and not every tick
    page = recording._repr_html_()
    assert "A play: 21 ticks of the world tiny, branches: 2, bookmarks: the fork" in page
    assert len(shown(page)) >= 1
    timeline = Timeline(Recorder(tmp_path / "empty.playhead", tiny_world, "None"))
    assert "0 ticks" in Recording.read(tmp_path / "empty.playhead")._repr_html_()
    timeline.close()
