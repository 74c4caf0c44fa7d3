"""What to type: to install the packages of an extra, and to call the program."""

import importlib.metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def install(extra: str) -> str:
    """The command that installs an extra: in the checkout, or else the packages that it is made of.

    It never names `playhead`: there is no release on a registry, so whoever took that name there would be
    installed instead.
    """
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in {ROOT}"
    try:
        needs = importlib.metadata.requires("playhead") or []
    except importlib.metadata.PackageNotFoundError:  # a copied folder
        needs = []
    wanted = [need.partition(";")[0].strip() for need in needs if f'extra == "{extra}"' in need]
    if not wanted:
        return f"pip install -e '.[{extra}]' in a checkout of Playhead"
    return "pip install " + " ".join(f"'{need}'" for need in wanted)


def program() -> str:
    """How the command line is called here, for sentences that name a command."""
    return (
        "python main.py"
        if (ROOT / "main.py").is_file() and (ROOT / "pyproject.toml").is_file()
        else "playhead"
    )
