"""Extras are installed from a checkout: there is no release, so the name is free to take on a registry."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from playhead.engine import doctor
from playhead.engine.fleet.fleet import import_ray
from playhead.main import main
from playhead.render.export.minari import _import_minari
from playhead.render.mcp.commands import mcp
from playhead.scenes.encoders import _need
from playhead.world import extras
from playhead.world.errors import PlayheadError
from playhead.world.extras import ROOT, install
from playhead.world.hub import fetch
from playhead.world.importing import ImportProblem
from playhead.world.training.gym_collect import open_env

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pages() -> list[Path]:
    """Every text that somebody might copy a command from."""
    found = [p for kind in ("*.py", "*.md", "*.toml", "Makefile") for p in ROOT.rglob(kind)]
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]


def test_nothing_says_to_install_from_a_registry_what_is_not_there():
    said = {p for p in pages() if re.search(r"install[^\n]* ['\"]?playhead\b(?!/)", p.read_text("utf-8"))}
    assert said <= {Path(__file__)}


def test_every_extra_that_is_named_exists():
    named = {
        extra
        for p in pages()
        for found in re.findall(r"install\(['\"](\w+)['\"]\)|-e '\.\[([\w,]+)\]", p.read_text("utf-8"))
        for extra in "".join(found).split(",")
    }
    wanted = {"agents", "data", "demo", "fleet", "gpu", "hub", "mcp", "scenes", "train"}
    assert wanted <= named <= set(EXTRAS)


def test_every_package_that_comes_with_the_extras_has_its_version_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    waiting = [(need, "") for need in [*PROJECT["dependencies"], *EXTRAS["dev"]]]
    seen = set()
    while waiting:
        line, extra_of_it = waiting.pop()
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": extra_of_it}):
            continue
        for extra in need.extras or {""}:
            if (need.name, extra) in seen:
                continue
            seen.add((need.name, extra))
            if need.name == "playhead":
                waiting += [(more, "") for more in EXTRAS[extra]]
            elif need.name != "torch":  # its builds bring libraries of their own, NVIDIA's for instance
                waiting += [(more, extra) for more in importlib.metadata.requires(need.name) or []]
    found = {canonicalize_name(name) for name, _ in seen} - {"playhead"}
    assert len(found) > 100 and found <= {canonicalize_name(pin.name) for pin in pins}


def test_the_command_works_where_it_says_that_it_does():
    command, where = install("agents").split(" in ", 1)
    assert command == "pip install -e '.[agents]'" and (Path(where) / "pyproject.toml").is_file()


def test_installed_from_a_wheel_it_names_the_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    needs = ["av", 'gymnasium; extra == "agents"', "triton>=3; sys_platform == 'linux' and extra == \"gpu\""]
    monkeypatch.setattr(extras.importlib.metadata, "requires", lambda name: needs)
    assert install("agents") == "pip install 'gymnasium'" and install("gpu") == "pip install 'triton>=3'"
    assert extras.program() == "playhead"
    monkeypatch.setattr(extras.importlib.metadata, "requires", lambda name: None)
    assert install("agents") == "pip install -e '.[agents]' in a checkout of Playhead"


def test_whoever_lacks_a_package_is_told_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "playhead.render.mcp.tool_server", raising=False)
    for package in ("ray", "gymnasium", "mcp.server.mcpserver", "minari", "huggingface_hub", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    for extra, work in (
        ("train", lambda: open_env("CartPole-v1", {})),
        ("data", _import_minari),
        ("hub", lambda: fetch("hub:owner/repo/file.pt")),
        ("mcp", mcp),
        ("fleet", import_ray),
        ("scenes", lambda: _need("transformers")),
    ):
        with pytest.raises((PlayheadError, ImportProblem)) as raised:
            work()
        assert install(extra) in str(raised.value)


def test_the_doctor_shows_the_brackets(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "argv", ["main.py", "doctor"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    wanted = ("train", "data", "demo", "fleet", "hub", "mcp", "scenes")
    assert all(install(extra) in said for extra in wanted)
