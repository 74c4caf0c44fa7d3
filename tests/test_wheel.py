"""A wheel takes one name, so that it shares an environment with what else has an `engine` or a `main`."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import playhead

ROOT = Path(__file__).parents[1]
OTHER = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "other-engine"
version = "2.0"
[project.scripts]
other = "main:main"
[tool.setuptools]
py-modules = ["main"]
packages = ["engine", "world"]
"""
pytestmark = pytest.mark.skipif(
    int(importlib.metadata.version("setuptools").split(".")[0]) < 77, reason="setuptools 77 builds the wheel"
)


def call(*words: object, folder: Path | None = None, **variables: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, cwd=folder, env=env, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def build(source: Path, out: Path) -> Path:
    words = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, source)
    call(sys.executable, "-m", "pip", "wheel", *words)
    (wheel,) = out.glob("*.whl")
    return wheel


def make_venv(folder: Path) -> tuple[Path, Path]:
    """An environment with what Playhead needs and without Playhead: its Python, its packages' folder."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python" if sys.platform != "win32" else folder / "Scripts" / "python.exe"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"))
    # What it needs is taken from here; an editable install's hook is not.
    (packages / "needs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python, packages


ROOMS = ("controls", "engine", "render", "scenes", "world")
FILES = ("__init__.py", "__main__.py", "main.py", "py.typed")


def copy_package(folder: Path) -> None:
    """Copies all that the package is made of, but weights."""
    for name in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this tree; in the place of weights there are files of a few bytes."""
    tree = tmp_path_factory.mktemp("tree")
    copy_package(tree)
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    for file in (ROOT / "world" / "shipped").rglob("*.safetensors"):
        (tree / file.relative_to(ROOT)).write_bytes(b"few")
    return build(tree, tmp_path_factory.mktemp("wheel"))


def test_it_has_all_that_is_shipped_and_no_other_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
        about = next(archive.read(str(name)).decode() for name in names if name.name == "METADATA")
    assert {name.parts[0] for name in names} == {"playhead", f"playhead-{playhead.__version__}.dist-info"}
    kinds = (".py", ".toml", ".safetensors", ".npz", ".jpg", ".md", ".typed", ".html", ".js", ".css", ".svg")
    tracked = (
        [Path(n) for n in call("git", "ls-files", folder=ROOT).splitlines()]
        if (ROOT / ".git").exists()
        else []
    )
    shipped = {Path("playhead") / n for n in tracked if n.parts[0] in ROOMS and n.suffix in kinds}
    assert shipped | {Path("playhead") / name for name in FILES} <= names
    others = {name.parts[1] for name in names if name.parts[0] == "playhead"} - {*ROOMS, *FILES}
    assert not others, "the wheel has more of the checkout than the package"
    for said in (
        "Version: " + playhead.__version__,
        "Description-Content-Type: text/markdown",
        "Typing :: Typed",
    ):
        assert said in about


def test_beside_a_package_of_the_same_folders_both_work_and_either_can_go(
    wheel: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for file in ("engine/__init__.py", "world/__init__.py"):
        (source / file).parent.mkdir(parents=True)
        (source / file).write_text("OTHERS = True\n")
    (source / "main.py").write_text(
        "import engine, world\ndef main(): print('other', engine.OTHERS, world.OTHERS)\n"
    )
    (source / "pyproject.toml").write_text(OTHER)
    other = build(source, tmp_path / "other")
    python, packages = make_venv(tmp_path / "venv")

    def pip(*words: object) -> None:
        call(sys.executable, "-m", "pip", "--python", python, "--quiet", *words)

    def plays() -> None:
        assert call(python.with_name("playhead"), "--version") == f"playhead {playhead.__version__}"
        code = (
            "import playhead, playhead.engine.session as s; print(playhead.Session is s.Session, s.__file__)"
        )
        assert call(python, "-c", code, folder=tmp_path) == f"True {packages / 'playhead/engine/session.py'}"
        assert "freedoom" in call(python, "-m", "playhead", "scenes", "--json", folder=tmp_path)

    def other_works() -> None:
        assert call(python.with_name("other")) == "other True True"

    install, remove = ("install", "--no-deps", "--no-index"), ("uninstall", "--yes")
    for first, second in ((wheel, other), (other, wheel)):
        pip(*install, first)
        pip(*install, second)
        plays()
        other_works()
        pip(*remove, "other-engine")
        plays()
        pip(*install, other)
        pip(*remove, "playhead")
        other_works()
        assert not (packages / "playhead").exists()
        pip(*remove, "other-engine")


SPAWNS = """
import multiprocessing
import main  # in the checkout's folder, to which it gives its name
from playhead.world.action import ActionSpace
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(ActionSpace(("forward",)).decode, ([1],)).buttons)
"""


def test_a_folder_of_any_name_plays_where_nothing_is_installed(tmp_path: Path) -> None:
    python, _ = make_venv(tmp_path / "venv")
    folder = tmp_path / "any name-1"
    copy_package(folder)
    assert (
        call(python, folder / "main.py", "--version", folder=tmp_path) == f"playhead {playhead.__version__}"
    )
    assert "red-circle" in call(python, folder / "main.py", "scenes", "--json", folder=tmp_path)
    (tmp_path / "spawns.py").write_text(SPAWNS)
    assert call(python, "spawns.py", folder=tmp_path, PYTHONPATH=str(folder)) == "frozenset({'forward'})"
