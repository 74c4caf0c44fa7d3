"""Footage: what is on disk is what is drawn from, no clip leaves its episode, and bad files are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.world.training.footage import (
    HELD_OUT,
    Footage,
    FootageError,
    episode_files,
    pixels,
    read_episode,
)
from tests.world.game import film, write_footage

CPU = torch.device("cpu")
modest = settings(max_examples=60, deadline=None)
lengths_of = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def footage_of(lengths: list[int]) -> Footage:
    """Episodes of these lengths; a frame's one pixel and its action hold its number."""
    total = sum(lengths)
    numbers = torch.arange(total, dtype=torch.uint8)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    frames = numbers[:, None, None, None].expand(-1, 1, 1, 3)
    return Footage(frames, numbers[:, None], starts, [str(i) for i in range(len(lengths))])


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@modest
@given(lengths_of, st.integers(1, 12), st.integers(0, 2**32))
def test_a_clip_stays_in_its_episode(lengths: list[int], length: int, seed: int) -> None:
    footage = footage_of(lengths)
    if max(lengths) < length:
        with pytest.raises(FootageError, match=f"no episode is {length} frames long"):
            footage.clip_index(4, length, draws(seed))
        return
    clips = footage.clip_index(50, length, draws(seed))
    assert clips.shape == (50, length)
    assert (clips.diff(dim=1) == 1).all()
    episode = np.repeat(np.arange(len(lengths)), lengths)
    for clip in clips.tolist():
        assert episode[clip[0]] == episode[clip[-1]]


@modest
@given(st.lists(st.integers(4, 9), min_size=20, max_size=40), st.integers(1, 5), st.integers(0, 2**32))
def test_what_is_held_back_is_drawn_for_validation_alone(lengths: list[int], most: int, seed: int) -> None:
    footage = footage_of(lengths)
    footage.hold_back(most)
    assert 1 <= len(footage.held_back) <= min(most, len(lengths) // 10)
    episode = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    for aside in (False, True):
        drawn = footage.clip_index(200, 4, draws(seed), held_back=aside)
        assert {int(i) in footage.held_back for i in episode[drawn].flatten()} == {aside}


def test_little_footage_is_all_trained_on() -> None:
    footage = footage_of([5] * 9)
    footage.hold_back(16)
    assert not footage.held_back


@modest
@given(lengths_of, lengths_of)
def test_joined_footage_is_that_of_all_episodes(one: list[int], other: list[int]) -> None:
    joined, whole = footage_of(one), footage_of([*one, *other])
    rest = footage_of(other)
    rest.actions = rest.actions + sum(one)
    rest.places = whole.places[len(one) :]
    joined.join([rest])
    assert torch.equal(joined.actions, whole.actions) and joined.places == whole.places
    assert (joined.starts, joined.lengths) == (whole.starts, whole.lengths)
    assert torch.equal(joined.led(), whole.led())
    assert torch.equal(joined.led(len(one)), whole.led()[sum(one) :])


@modest
@given(lengths_of, st.integers(1, 6))
def test_every_clip_that_fits_is_drawn_as_often_as_any_other(lengths: list[int], length: int) -> None:
    starts = {
        first + i
        for first, n in zip(np.cumsum([0, *lengths[:-1]]).tolist(), lengths, strict=True)
        for i in range(n - length + 1)
    }
    if not starts:
        return
    count = 60 * len(starts)
    drawn = footage_of(lengths).clip_index(count, length, draws(0))[:, 0].bincount()
    assert set(drawn.nonzero().flatten().tolist()) == starts
    assert drawn.max() < 2.5 * 60


def test_the_same_draw_is_the_same_clips() -> None:
    footage = footage_of([20, 30])
    assert torch.equal(footage.clip_index(9, 4, draws(1)), footage.clip_index(9, 4, draws(1)))
    assert not torch.equal(footage.clip_index(9, 4, draws(1)), footage.clip_index(9, 4, draws(2)))


def test_episodes_are_loaded_whole_and_in_order(tmp_path: Path) -> None:
    """Longer and shorter ones end to end: room is made for what was not expected."""
    lengths = [5, 12, 3, 20]
    for seed, length in enumerate(lengths):
        write_footage(tmp_path, 1, length, seed=seed)
    footage = Footage.load(tmp_path, CPU)
    assert (footage.lengths, footage.starts) == (lengths, [0, 5, 17, 20])
    assert footage.places == ["wall"] * 4
    for seed, (start, length) in enumerate(zip(footage.starts, lengths, strict=True)):
        frames, actions = film(length, seed)
        assert np.array_equal(footage.frames[start : start + length], frames)
        assert np.array_equal(footage.actions[start : start + length], actions)


def test_processes_divide_the_episodes_among_themselves(tmp_path: Path) -> None:
    write_footage(tmp_path, 5, 4)
    parts = [Footage.load(tmp_path, CPU, rank, 2) for rank in (0, 1)]
    assert [len(part.starts) for part in parts] == [3, 2]
    whole = Footage.load(tmp_path, CPU).frames.view(5, 4, 64, 64, 3)
    assert torch.equal(parts[0].frames, whole[::2].flatten(0, 1))
    assert torch.equal(parts[1].frames, whole[1::2].flatten(0, 1))
    with pytest.raises(FootageError, match="fewer episodes than there are processes"):
        Footage.load(tmp_path, CPU, 5, 6)


def test_pixels_are_channels_first_between_0_and_1() -> None:
    frames = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    found = pixels(frames)
    assert found.shape == (2, 3, 4, 6)
    assert torch.equal((found * 255).round().to(torch.uint8).movedim(1, -1), frames)


# --------------------------------------------------------------------------------- what is wrong

FRAMES, ACTIONS = film(6, 0)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"actions": ACTIONS}, "lacks the array `frames`"),
        ({"frames": FRAMES}, "lacks the array `actions`"),
        ({"frames": FRAMES.astype(np.float32), "actions": ACTIONS}, "`frames` is float32"),
        ({"frames": FRAMES[..., :2], "actions": ACTIONS}, r"uint8 \(T, H, W, 3\)"),
        ({"frames": FRAMES[0], "actions": ACTIONS}, r"\(64, 64, 3\), it has to be"),
        ({"frames": FRAMES[:0], "actions": ACTIONS[:0]}, r"\(0, 64, 64, 3\)"),
        ({"frames": FRAMES, "actions": ACTIONS[:5]}, r"\(5, 8\), it has to be \(6, buttons\)"),
        ({"frames": FRAMES, "actions": ACTIONS[:, 0]}, r"\(6,\), it has to be \(6, buttons\)"),
        ({"frames": np.array([{}] * 6, dtype=object), "actions": ACTIONS}, "no readable .npz episode"),
    ],
)
def test_an_episode_of_another_form_is_named_with_what_is_wrong(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(FootageError, match=words) as error:
        read_episode(tmp_path / "wrong.npz")
    assert str(tmp_path / "wrong.npz") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(200)])
def test_a_file_that_is_no_episode_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(content)
    with pytest.raises(FootageError, match=r"no\.npz is no readable \.npz episode"):
        Footage.load(tmp_path, CPU)


def test_a_missing_episode_and_an_array_alone_are_named(tmp_path: Path) -> None:
    with pytest.raises(FootageError, match=r"gone\.npz is missing"):
        read_episode(tmp_path / "gone.npz")
    np.save(tmp_path / "frames.npy", FRAMES)
    (tmp_path / "frames.npy").rename(tmp_path / "frames.npz")
    with pytest.raises(FootageError, match=r"frames\.npz is no readable"):
        read_episode(tmp_path / "frames.npz")


@pytest.fixture(scope="module", params=[np.savez, np.savez_compressed], ids=["stored", "compressed"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.npz"
    save: Callable[..., None] = request.param
    save(path, frames=FRAMES[:, :8, :8], actions=ACTIONS, place="wall", seed=0)
    return path


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_damage_anywhere_is_one_sentence_or_no_damage_to_the_content(
    whole: Path, where: float, flip: int, cut: bool
) -> None:
    """A file cut short or with a wrong byte is refused as unreadable, or else reads as what it was."""
    content = bytearray(whole.read_bytes())
    at = int(where * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= flip
    damaged = whole.with_name("damaged.npz")
    damaged.write_bytes(content)
    try:
        episode = read_episode(damaged)
    except FootageError as error:
        assert len(str(error).splitlines()) == 1
        assert str(damaged) in str(error)
    else:
        assert np.array_equal(episode.frames, FRAMES[:, :8, :8])
        assert np.array_equal(episode.actions, ACTIONS)


def test_threads_of_python_that_trip_each_other_up_do_not_stop_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython issue 106905: parsing in several threads at once fails now and then, whatever the file."""
    write_footage(tmp_path, 1, 6)
    load, falls = np.load, [SystemError("AST constructor recursion depth mismatch")] * 2

    def stumble(*given: object, **more: object) -> object:
        if falls:
            raise falls.pop()
        return load(*given, **more)

    monkeypatch.setattr(np, "load", stumble)
    assert np.array_equal(read_episode(tmp_path / "wall-000000.npz").frames, FRAMES)


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(FootageError, match=r"holds no \.npz episodes; `train collect --out"):
        episode_files(tmp_path)


def test_episodes_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    for name, frames, actions, words in (
        ("size", FRAMES[:, :32], ACTIONS, "frames differ in size"),
        ("buttons", FRAMES, ACTIONS[:, :5], "the number of buttons differs"),
    ):
        folder = write_footage(tmp_path / name, 2, 6)
        np.savez(folder / "z.npz", frames=frames, actions=actions)
        with pytest.raises(FootageError, match=rf"z\.npz: {words} .* wall-000000\.npz"):
            Footage.load(folder, CPU)


def test_held_out_episodes_are_never_trained_on(tmp_path: Path) -> None:
    write_footage(tmp_path, 1, 4, seed=HELD_OUT - 1)
    assert len(Footage.load(tmp_path, CPU).frames) == 4
    write_footage(tmp_path, 1, 4, seed=HELD_OUT)
    with pytest.raises(FootageError, match=r"wall-900000\.npz has seed 900000.*held out"):
        Footage.load(tmp_path, CPU)


def test_an_episode_that_names_no_place_or_seed_is_footage_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", frames=FRAMES, actions=ACTIONS)
    episode = read_episode(tmp_path / "own.npz")
    assert (episode.place, episode.seed) == ("", None)
    assert len(Footage.load(tmp_path, CPU).frames) == 6
