"""How the packages of an extra are installed."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def install(extra: str) -> str:
    """The command that installs an extra, and where to run it.

    It names the checkout and never the name `playhead`: there is no release on a registry, so whoever took
    that name there would be installed instead.
    """
    where = ROOT if (ROOT / "pyproject.toml").is_file() else "a checkout of Playhead"
    return f"pip install -e '.[{extra}]' in {where}"
