"""One name is installed, `playhead`; what programs may build on is in docs/api.md, and is true."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import playhead
from playhead.engine.agents import RemoteVectorEnv, RemoteWorldEnv, WorldEnv, WorldVectorEnv
from playhead.world.errors import PlayheadError
from playhead.world.world_folders import SHIPPED
from tests.engine.bridge.conftest import serving

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
ROOMS = ("controls", "engine", "render", "scenes", "world")


def here(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program that finds the checkout by PYTHONPATH, whatever the checkout's folder is called."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=240)


def test_the_import_takes_no_torch_no_numpy_and_no_window():
    done = here(
        "import sys, playhead; print(playhead.__version__, {'torch', 'numpy', 'pygame'} & set(sys.modules))"
    )
    assert (done.stdout, done.stderr) == (f"{playhead.__version__} set()\n", "")


def test_every_public_name_is_there_and_on_the_page():
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert listed == set(playhead.__all__) <= set(dir(playhead))
    for name in playhead.__all__:
        assert getattr(playhead, name) is getattr(playhead, name)
    with pytest.raises(AttributeError, match="has no attribute `Wurld`"):
        _ = playhead.Wurld


def test_type_checkers_are_told_the_same_names_as_programs():
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    told = {
        name.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.asname == name.name
    }
    assert told == playhead._PUBLIC
    assert (ROOT / "py.typed").is_file()


@pytest.mark.skipif(
    not (SHIPPED / "freedoom" / "generator.safetensors").is_file(), reason="freedoom's weights are not here"
)
def test_the_page_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    done = here("\n".join(blocks), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, missing, refused = done.stdout.splitlines()
    assert first == "3 (1, 160, 256, 3)"
    assert "walk.playhead" in missing and "does not answer" in refused


def test_environments_are_made_by_what_is_wanted_of_them(tiny_world, tiny_scene):
    options = {"scene": str(tiny_scene), "max_ticks": 2}
    one, two = playhead.make(tiny_world, **options), playhead.make(tiny_world, num_envs=2, **options)
    assert type(one) is WorldEnv and type(two) is WorldVectorEnv and two.num_envs == 2
    with serving(tiny_world, tiny_scene) as server:
        far, far_two = (playhead.make(address=server.address, num_envs=n) for n in (None, 2))
        assert type(far) is RemoteWorldEnv and type(far_two) is RemoteVectorEnv
        seen = [env.reset(seed=3)[0] for env in (one, far)]
        assert (seen[0] == seen[1]).all()
        far.close()
        far_two.close()


def test_without_gymnasium_the_sentence_says_how_to_get_it(monkeypatch):
    code = "import sys; sys.modules['gymnasium'] = None; import playhead; playhead.make"
    done = here(code)
    assert "playhead.world.errors.PlayheadError: environments need Gymnasium: pip install" in done.stderr
    assert issubclass(PlayheadError, ValueError)


def test_no_file_imports_a_room_by_itself():
    """It would be a second copy of the room, with classes of its own."""
    alone = re.compile(
        rf"""(?:^|["';]|\\n)\s*(?:from|import) (?:{"|".join(ROOMS)})(?:\.\w+)*(?: import\b|$|;)""", re.M
    )
    found = [
        (str(path.relative_to(ROOT)), match[0])
        for folder in (*ROOMS, "tests", "examples", "docs")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".md")
        for match in alone.finditer(path.read_text("utf-8"))
    ]
    assert not found


def test_the_wheel_has_every_package_and_every_room_lies_where_it_says():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    there = {
        f"playhead.{'.'.join(p.parent.relative_to(ROOT).parts)}"
        for r in ROOMS
        for p in (ROOT / r).rglob("__init__.py")
    }
    assert set(said["packages"]) == {"playhead"} | there
    assert said["package-dir"] == {"playhead": "."}
