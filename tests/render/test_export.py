"""What an exported file promises: every frame is in it, or it is not there at all."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pygame
import pytest

from playhead.render.export.export import ClipInfo, ExportError, check_export, exporting
from playhead.render.export.sheet import write_png

TICKS, HEIGHT, WIDTH = 40, 48, 64
CLIP = ClipInfo(
    size=(HEIGHT, WIDTH),
    frames_per_tick=1,
    rate=Fraction(35, 2),
    actions=np.eye(8, dtype=np.uint8)[np.arange(TICKS) % 8],
    labels=[f"{tick}" for tick in range(TICKS)],
)


def ticks(count: int = TICKS, per_tick: int = 1) -> list[np.ndarray]:
    """Frames of one grey each, which rises from tick to tick."""
    return [np.full((per_tick, HEIGHT, WIDTH, 3), 4 * tick + 20, np.uint8) for tick in range(count)]


def export(path: Path, clip: ClipInfo = CLIP, per_tick: int = 1) -> Path:
    check_export(path)
    with exporting(path, clip) as write:
        for frames in ticks(per_tick=per_tick):
            write(frames)
    return path


def greys(path: Path) -> list[float]:
    with av.open(str(path)) as film:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in film.decode(video=0)]


def test_an_npz_holds_the_very_frames_and_actions(tmp_path: Path) -> None:
    with np.load(export(tmp_path / "out.npz"), allow_pickle=False) as data:
        assert data["frames"].dtype == np.uint8
        assert np.array_equal(data["frames"], np.concatenate(ticks()))
        assert np.array_equal(data["actions"], CLIP.actions)


def test_several_frames_a_tick_lie_end_to_end(tmp_path: Path) -> None:
    clip = ClipInfo((HEIGHT, WIDTH), 4, Fraction(70), CLIP.actions, CLIP.labels)
    with np.load(export(tmp_path / "out.npz", clip, per_tick=4)) as data:
        assert data["frames"].shape == (4 * TICKS, HEIGHT, WIDTH, 3)
    assert len(greys(export(tmp_path / "out.mp4", clip, per_tick=4))) == 4 * TICKS


@pytest.mark.parametrize("name", ["walk-12:30", "http:a", "a%03d", "file:a", "a b?c=d", "[x]*", "|a"])
@pytest.mark.parametrize("form", ["mp4", "gif"])
def test_any_name_is_a_files_name(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = export(Path(f"{name}.{form}"))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert len(greys(tmp_path / file)) == TICKS


@pytest.mark.parametrize("form", ["mp4", "gif"])
def test_a_film_decodes_to_the_frames_in_order(form: str, tmp_path: Path) -> None:
    seen = greys(export(tmp_path / f"out.{form}"))
    assert len(seen) == TICKS
    assert np.allclose(seen, [4 * tick + 20 for tick in range(TICKS)], atol=3)


def test_an_mp4_is_h264_at_exactly_the_rate_of_the_world(tmp_path: Path) -> None:
    with av.open(str(export(tmp_path / "out.mp4"))) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(35, 2)
        assert (stream.height, stream.width) == (HEIGHT, WIDTH)


def test_a_gif_plays_for_as_long_as_the_world_did(tmp_path: Path) -> None:
    with av.open(str(export(tmp_path / "out.gif"))) as film:
        assert film.duration / 1e6 == pytest.approx(TICKS / 17.5, abs=0.03)


def test_a_contact_sheet_shows_the_first_and_the_last_tick(tmp_path: Path) -> None:
    sheet = pygame.surfarray.array3d(pygame.image.load(export(tmp_path / "out.png")))
    colours = np.unique(sheet.reshape(-1, 3), axis=0).tolist()
    assert [20, 20, 20] in colours
    assert [4 * TICKS + 16] * 3 in colours
    assert sheet.shape[0] > 6 * WIDTH
    assert sheet.shape[1] > 4 * HEIGHT


def test_a_png_holds_the_very_pixels(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    write_png(tmp_path / "out.png", picture)
    loaded = pygame.surfarray.array3d(pygame.image.load(tmp_path / "out.png")).swapaxes(0, 1)
    assert np.array_equal(loaded, picture)


def test_a_folder_gets_every_frame_as_a_picture(tmp_path: Path) -> None:
    folder = export(tmp_path / "pictures")
    assert [path.name for path in sorted(folder.iterdir())] == [f"{i:06d}.png" for i in range(TICKS)]
    seen = pygame.surfarray.array3d(pygame.image.load(folder / "000007.png"))
    assert (seen == 4 * 7 + 20).all()
    with pytest.raises(KeyboardInterrupt), exporting(tmp_path / "other", CLIP) as write:
        write(ticks(1)[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("suffix", [".npz", ".mp4", ".gif", ".png"])
def test_an_interrupted_export_leaves_what_was_there_before(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), exporting(path, CLIP) as write:
        for frames in ticks(10):
            write(frames)
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken").mkdir()
    for name, words in {
        "out.avi": r"out\.avi .* \.npz, \.mp4, \.gif, \.png",
        "taken": "taken is there already",
        "missing/out.npz": "missing is missing",
        "folder.png": "is a folder",
    }.items():
        with pytest.raises(ExportError, match=words):
            check_export(tmp_path / name)
