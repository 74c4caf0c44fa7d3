"""Pictures to start from: upright, whole and cut to the world's shape, whatever their format."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from playhead.scenes.picture import read_picture
from playhead.scenes.scene import SceneError

FORMATS = {"jpg": {"quality": 95}, "png": {}, "webp": {"lossless": True}, "tiff": {}}
QUARTERS = np.zeros((48, 80, 3), np.uint8)
QUARTERS[:24, :40], QUARTERS[:24, 40:], QUARTERS[24:, :40] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noisy() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_stands_upright(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"picture.{form}"
    Image.fromarray(QUARTERS).save(file, exif=exif, **FORMATS[form])
    with Image.open(file) as shown:
        wanted = np.asarray(ImageOps.exif_transpose(shown).convert("RGB"))
    found = read_picture(file, *wanted.shape[:2]).astype(int)
    assert np.abs(found - wanted).mean() < 4


def test_a_turned_avif_stands_upright(tmp_path: Path) -> None:
    """Its turn stands in the file's head, not in its Exif."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(QUARTERS).save(tmp_path / "a.avif", exif=exif, quality=95)
    found = read_picture(tmp_path / "a.avif", 80, 48).astype(int)
    assert np.abs(found - np.rot90(QUARTERS, -1)).mean() < 8


@pytest.mark.parametrize("form", ["jpg", "progressive.jpg", "png", "webp", "tiff", "gif", "bmp", "avif"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_cut_file_is_refused(form: str, part: float, tmp_path: Path) -> None:
    file = tmp_path / f"picture.{form}"
    Image.fromarray(noisy()).save(file, **({"progressive": True} if "progressive" in form else {}))
    data = file.read_bytes()
    assert read_picture(file, 60, 100).shape == (60, 100, 3)
    file.write_bytes(data + b"\0" * 9)  # as cameras do
    assert read_picture(file, 60, 100).shape == (60, 100, 3)
    file.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(SceneError, match="is no picture that can be read") as error:
        read_picture(file, 60, 100)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(20000, 3), (60000, 1), (1, 60000), (1, 1), (2, 9000)])
@pytest.mark.parametrize("form", ["png", "jpg"])
def test_extreme_shapes_are_cut_before_they_are_scaled(
    form: str, size: tuple[int, int], tmp_path: Path
) -> None:
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / f"a.{form}")
    found = read_picture(tmp_path / f"a.{form}", 160, 256)
    assert found.shape == (160, 256, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - (200, 100, 50)).max() < 6


@pytest.mark.parametrize("name", ["a:b.png", "http:a.png", "%d.png", "a*.png"])
def test_any_name_is_a_files_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noisy()).save("plain.png")
    Path("plain.png").rename(name)
    assert read_picture(Path(name), 120, 200).shape == (120, 200, 3)


def test_the_middle_is_shown(tmp_path: Path) -> None:
    picture = np.zeros((40, 200, 3), np.uint8)
    picture[:, 80:120] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 64, 64).min() == 255


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"GIF89a", b"\xff\xd8\xff\xd9", b"II*\0\xff\xff\xff\xff"]
)
def test_what_is_no_picture_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SceneError, match=r"a\.png is no picture that can be read \(.+\); give"):
        read_picture(tmp_path / "a.png", 8, 8)


def test_an_exif_that_points_nowhere_turns_nothing(tmp_path: Path) -> None:
    with io.BytesIO() as file:
        Image.fromarray(QUARTERS).save(file, "jpeg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
        (tmp_path / "a.jpg").write_bytes(file.getvalue())
    assert np.abs(read_picture(tmp_path / "a.jpg", 48, 80).astype(int) - QUARTERS).mean() < 4
