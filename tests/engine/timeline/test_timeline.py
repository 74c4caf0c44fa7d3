"""What the timeline promises: any moment can be gone back to, goes on exactly, and nothing is lost by it."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.engine.loop import Loop, LoopError
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.replay import replay_all, verify
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.engine.timeline.seeker import INTERVAL
from playhead.engine.timeline.store import SnapshotStore
from playhead.engine.timeline.timeline import Timeline
from playhead.world.action import Action
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World
from tests.conftest import BUTTONS, THOROUGH, make_tiny_context

WALK = Action(frozenset({"forward"}))
TURN = Action(frozenset({"turn_left"}))
actions = st.sets(st.sampled_from(BUTTONS), max_size=2).map(lambda held: Action(frozenset(held)))
moves = st.lists(
    st.one_of(
        st.tuples(st.just("step"), actions, st.integers(1, 6), st.integers(1, 3)),
        st.tuples(st.just("rewind"), st.integers(0, 25)),
        st.tuples(st.just("seek"), st.integers(0, 50), st.integers(0, 50)),
        st.tuples(st.just("bookmark")),
        st.tuples(st.just("restart"), st.integers(0, 1)),
    ),
    min_size=1,
    max_size=14,
)


def walk(timeline: Timeline, session: Session, ticks: int, action: Action = WALK) -> list[np.ndarray]:
    return [timeline.step(session, action) for _ in range(ticks)]


@pytest.fixture
def session(any_world: World) -> Session:
    return Session(any_world, make_tiny_context(), 5)


@pytest.fixture
def timeline(session: Session, tmp_path: Path) -> Timeline:
    recorder = Recorder(tmp_path / "play.playhead", session.world)
    timeline = Timeline(recorder, SnapshotStore(tmp_path / "seek" / "play"))
    timeline.begin(session)
    return timeline


def history(world: World, recording: Recording, branch: int) -> list[bytes]:
    """The frames of a branch, simulated from its scene by nothing but a session."""
    session = Session(world, recording.context(branch), recording.tree.root(branch).seed)
    frames = [session.frames.tobytes()]
    for played in recording.tree.path(branch):
        session.steps = played.steps
        frames.append(session.step(played.action).tobytes())
    return frames


@settings(max_examples=15 * THOROUGH, deadline=None)
@given(moves, st.sampled_from([3, 7, 1000]))
def test_whatever_was_done_every_branch_is_what_its_actions_give(any_world, sequence, interval):
    """Every tick that was seen is in the tree, and is what replaying its branch's actions gives."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(any_world, make_tiny_context(), 5)
        recorder = Recorder(Path(folder) / "play.playhead", any_world)
        timeline = Timeline(recorder, SnapshotStore(Path(folder) / "seek" / "play", memory=10**6))
        timeline.begin(session)
        timeline.seeker.interval = interval
        seen = {timeline.head: session.frames.tobytes()}
        marks = []
        for kind, *values in sequence:
            if kind == "step":
                action, count, session.steps = values
                for _ in range(count):
                    frames = timeline.step(session, action)
                    assert timeline.head not in seen  # nothing is overwritten
                    seen[timeline.head] = frames.tobytes()
            elif kind == "rewind":
                assert timeline.rewind(session, *values).tobytes() == seen[timeline.head]
            elif kind == "seek":
                branches = sorted(timeline.tree.branches)
                branch = timeline.tree.branch(branches[values[0] % len(branches)])
                point = Point(branch.id, values[1] % (branch.last + 1))
                frames = timeline.seek(session, point)
                assert timeline.head == timeline.tree.check(point)
                assert (session.tick, frames.tobytes()) == (point.tick, seen[timeline.head])
            elif kind == "bookmark":
                marks.append((timeline.bookmark().name, timeline.head))
            else:
                session.reset(5 + values[0])
                timeline.begin(session)
                seen.setdefault(timeline.head, session.frames.tobytes())
            assert timeline.exact
        timeline.bookmark("the end")
        timeline.close()
        recording = Recording.read(recorder.path)
        assert [(mark.name, mark.point) for mark in recording.tree.bookmarks[:-1]] == marks
        there = {
            Point(b.id, b.first + n)
            for b in recording.tree.branches.values()
            for n in range(1, len(b.ticks) + 1)
        }
        assert there == {point for point in seen if point.tick}
        for branch in recording.tree.branches:
            for number, frames in enumerate(history(any_world, recording, branch)):
                assert seen[recording.tree.check(Point(branch, number))] == frames
            assert verify(recording, any_world, branch) is None
        moments = list(replay_all(recording, any_world))
        assert all(moment.equal for moment in moments)
        assert len(moments) == len({moment.point for moment in moments})
        roots = {Point(b.id, 0) for b in recording.tree.branches.values() if b.parent is None}
        assert {moment.point for moment in moments} == there | roots


def test_what_is_played_after_going_back_is_a_branch(timeline: Timeline, session: Session) -> None:
    walk(timeline, session, 10)
    timeline.rewind(session, 4)
    assert (timeline.head, timeline.tree.end(1), session.tick) == (Point(1, 6), Point(1, 10), 6)
    assert len(timeline.branches) == 1  # looking is not taking another way
    walk(timeline, session, 3, TURN)
    assert timeline.head == Point(2, 9)
    first, second = timeline.branches
    assert (second.parent, first.last, second.last) == (Point(1, 6), 10, 9)
    path = timeline.tree.path(2)
    assert [played.action for played in path] == [WALK] * 6 + [TURN] * 3
    timeline.seek(session, Point(1, 10))
    walk(timeline, session, 2)
    assert timeline.head == Point(1, 12)  # at a branch's end it goes on


def test_a_far_moment_goes_on_as_it_did(timeline: Timeline, session: Session) -> None:
    frames = walk(timeline, session, 3 * INTERVAL)
    timeline.seek(session, Point(1, 2 * INTERVAL - 3))
    again = [session.step(WALK) for _ in range(20)]
    assert np.array_equal(again, frames[2 * INTERVAL - 3 : 2 * INTERVAL + 17])


def test_only_the_way_from_the_nearest_snapshot_is_gone(
    timeline: Timeline, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dreaming it again, unless what later ticks see was left by the last denoise pass."""
    walk(timeline, session, 3 * INTERVAL)
    denoised, denoise = [], World.denoise
    monkeypatch.setattr(World, "denoise", lambda *given: (denoised.append(1), denoise(*given)))
    gone = []
    timeline.seek(session, Point(1, 2 * INTERVAL + 7), lambda done, count: gone.append(count))
    assert gone == [7] * 7
    assert len(denoised) == (7 if session.world.last_pass_commits else 0)


def test_another_process_finds_what_was_kept(timeline: Timeline, session: Session, tmp_path: Path) -> None:
    frames = walk(timeline, session, 2 * INTERVAL + 5)
    timeline.close()
    recording = Recording.read(tmp_path / "play.playhead")
    store = SnapshotStore(tmp_path / "seek" / "play")
    recorder = Recorder.resume(recording, session.world)
    later = Timeline(recorder, store, recording)
    other = Session(session.world, make_tiny_context(seed=1), 9)
    gone = []
    found = later.seek(other, Point(1, 2 * INTERVAL + 2), lambda done, count: gone.append(count))
    assert np.array_equal(found, frames[2 * INTERVAL + 1]) and gone == [2, 2]
    later.begin(other)
    walk(later, other, 3)
    assert later.head == Point(2, 2 * INTERVAL + 5)  # a play of its own is a branch of its own
    later.close()
    again = Recording.read(recorder.path)
    assert set(again.plays) == {1, 2}
    assert verify(again, session.world) is None


def test_what_was_kept_wrongly_is_found_and_made_good(
    timeline: Timeline, session: Session, tmp_path: Path
) -> None:
    frames = walk(timeline, session, INTERVAL + 5)
    timeline.close()
    (kept,) = (tmp_path / "seek" / "play").glob("*.safetensors")
    data = bytearray(kept.read_bytes())
    data[-4000:] = bytes(4000)
    kept.write_bytes(data)
    latents = tmp_path / "seek" / "play" / "1.latents"
    torn = bytearray(latents.read_bytes())
    torn[-100] ^= 1
    latents.write_bytes(torn)
    recording = Recording.read(tmp_path / "play.playhead")
    later = Timeline(None, SnapshotStore(tmp_path / "seek" / "play"), recording)
    assert np.array_equal(later.seek(session, Point(1, INTERVAL + 5)), frames[-1])
    assert later.exact
    assert np.array_equal(session.step(TURN), Session.step(replayed(session, recording), TURN))


def replayed(session: Session, recording: Recording) -> Session:
    twin = Session(session.world, recording.context(1), 5)
    for played in recording.tree.path(1):
        twin.step(played.action)
    return twin


def test_budgets_are_kept_and_every_moment_is_still_reached(session: Session, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "play.playhead", session.world)
    folder = tmp_path / "seek" / "play"
    timeline = Timeline(recorder, SnapshotStore(folder, memory=400_000, disk=600_000))
    timeline.seeker.interval = 3
    timeline.begin(session)
    frames = walk(timeline, session, 60)
    timeline.close()
    assert 0 < sum(file.stat().st_size for file in folder.iterdir()) <= 600_000
    for tick in (59, 1, 31, 60, 17):
        assert np.array_equal(timeline.seek(session, Point(1, tick)), frames[tick - 1])


def test_without_recording_the_way_back_is_the_same(session: Session) -> None:
    timeline = Timeline(None, SnapshotStore())
    timeline.begin(session)
    frames = walk(timeline, session, 50)
    for tick in (49, 3, 41):
        assert np.array_equal(timeline.seek(session, Point(1, tick)), frames[tick - 1])
    assert np.array_equal(timeline.step(session, WALK), frames[41])


def test_a_picture_shows_a_moment_without_going_there(
    timeline: Timeline, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.engine.timeline.pictures.RECENT", 0)  # no frame is remembered
    frames = walk(timeline, session, 40)
    picture = timeline.picture(session, Point(1, 20))
    assert session.tick == 40
    assert np.abs(picture.astype(int) - frames[19][-1]).max() <= 1
    assert picture.shape == timeline.pictures.enlarged(Point(1, 20), (64, 64)).shape


def test_moments_that_there_are_not_are_refused_and_nothing_moves(
    timeline: Timeline, session: Session
) -> None:
    walk(timeline, session, 3)
    for point in (Point(1, 4), Point(1, -1), Point(2, 0)):
        with pytest.raises(RecordingError):
            timeline.seek(session, point)
    assert (timeline.head, session.tick) == (Point(1, 3), 3)


def test_a_state_of_unknown_origin_is_said_not_to_be_recorded(timeline: Timeline, session: Session) -> None:
    walk(timeline, session, 3)
    session.restore(session.snapshot())
    timeline.begin(session)
    assert "not recorded" in timeline.failure
    walk(timeline, session, 2)
    assert timeline.tree.count == 3
    session.reset()
    timeline.begin(session)
    walk(timeline, session, 2)
    assert not timeline.failure and timeline.head == Point(2, 2)


class Walk:
    source = "keyboard"

    def sample(self) -> Action:
        return WALK


def test_the_loop_goes_back_between_ticks_and_hands_over_where_it_is(
    session: Session, tmp_path: Path
) -> None:
    timeline = Timeline(Recorder(tmp_path / "play.playhead", session.world), SnapshotStore())
    ticks: list[Tick] = []
    loop = Loop(lambda: session, Walk(), lockstep=True, timeline=timeline)
    loop.subscribe(ticks.append)
    loop.start()
    loop.step([WALK] * 8, lambda tick, seconds: None, "bridge").result(20)
    assert np.array_equal(loop.rewind(3).result(20), ticks[5].frames)
    loop.step([TURN], lambda tick, seconds: None, "script").result(20)
    with pytest.raises(RecordingError):
        loop.seek(Point(1, 9)).result(20)
    loop.restart()
    loop.step([TURN], lambda tick, seconds: None, "bridge").result(20)
    loop.stop()
    loop.join()
    timeline.close()
    points = [str(tick.point) for tick in ticks]
    assert points == ["1:0", *(f"1:{n}" for n in range(1, 9)), "1:5", "2:6", "1:0", "3:1"]
    assert ticks[9].action is None and np.array_equal(ticks[9].frames, ticks[5].frames)
    recording = Recording.read(tmp_path / "play.playhead")
    assert [recording.tree.path(n)[-1].source for n in (1, 2, 3)] == ["bridge", "script", "bridge"]
    assert all(verify(recording, session.world, branch) is None for branch in (1, 2, 3))


def test_a_loop_without_a_timeline_says_that_there_is_no_way_back(session: Session) -> None:
    with pytest.raises(LoopError, match="no way back"):
        Loop(lambda: session, Walk()).rewind(3)


@pytest.mark.parametrize("name", ["matrix-game-2", "longlive", "sgf"])
def test_public_worlds_go_back_as_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of latents, keyboard and mouse memories, prompts that change, and the way back to the start."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    config = random_world(name, small=True)
    save_world_config(config)
    world = World.load(config.name, "cpu", torch.float32)
    session = Session(world, random_context(config), 3)
    timeline = Timeline(None, SnapshotStore())
    timeline.seeker.interval = 5
    timeline.begin(session)
    buttons = config.action.buttons
    random = np.random.default_rng(0)
    frames = []
    for _ in range(16):
        held = frozenset(random.choice(buttons, 1).tolist() if buttons else ())
        moved = {axis: float(random.uniform(-1, 1)) for axis in config.action.axes}
        frames.append(timeline.step(session, Action(held, moved)))
    last = timeline.tree.path(1)[-1].action
    denoised = []
    for tick in (14, 9, 15):
        with monkeypatch.context() as patch:
            patch.setattr(World, "denoise", lambda *_: denoised.append(1))
            assert np.array_equal(timeline.seek(session, Point(1, tick)), frames[tick - 1])
    assert np.array_equal(timeline.step(session, last), frames[15]) and not denoised
