"""Where worlds are: shipped with the project, or put into the user's folder."""

from pathlib import Path

from playhead.world.config import read_config
from playhead.world.errors import WorldError, warn_once
from playhead.world.home import if_any, worlds_folder

SHIPPED = Path(__file__).parent / "shipped"


def shipped_worlds() -> list[str]:
    """Names of the worlds that come with the project."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/world.toml"))


def added_worlds() -> list[str]:
    """Names of the worlds that `worlds add`, `get` or `random` put into the user's folder."""
    return [file.parent.name for file in _added()]


def _added() -> list[Path]:
    return sorted(file for folder in if_any(worlds_folder) for file in folder.glob("*/world.toml"))


def _family(file: Path) -> str:
    """The family in a world.toml; of one that cannot be read none, with a warning."""
    try:
        return read_config(file).family
    except WorldError as error:
        warn_once(f"a world is left out: {error}")
        return ""


def find_world(name: str | Path) -> Path:
    """The folder of a world given by name or by path, or of the only one of a family here.

    Raises WorldError listing the known names.
    """
    for parent in (SHIPPED, *if_any(worlds_folder)):
        if str(name) and (parent / str(name) / "world.toml").is_file():
            return parent / str(name)
    path = Path(name)
    if path.is_dir():
        return path
    members = [file.parent for file in _added() if _family(file) == str(name)]
    if len(members) == 1:
        return members[0]
    if members:
        names = ", ".join(folder.name for folder in members)
        raise WorldError(f"`{name}` are several worlds here; choose one by --world: {names}")
    here = f"shipped are {', '.join(shipped_worlds()) or 'none'}"
    added = f", added are {', '.join(added_worlds())}" if added_worlds() else ""
    raise WorldError(
        f"there is no world `{name}`; {here}{added}; or give the folder of one, or `worlds get` a public one"
    )
