"""Whole worlds on the hub: pushed with a model card whose header the hub reads, and loaded by repository."""

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from playhead.world.config import WorldConfig, load_config
from playhead.world.extras import install
from playhead.world.home import downloads_folder, own_folder
from playhead.world.hub import download
from playhead.world.importing import ImportProblem, Progress
from playhead.world.public import HubFile
from playhead.world.terminal import printable

CARD, PUBLISHED = "MODEL_CARD.md", "README.md"
"""What a world's card is called in its folder, and what the hub shows."""
LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0")
"""Names of licences that the hub knows."""
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def check_repo(repo: str) -> None:
    """Raises ImportProblem for what names no repository."""
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise ImportProblem(f"`{printable(repo)}` names no repository of the hub; write OWNER/REPO")


def fetch_world(repo: str, progress: Progress = lambda stage, part: None) -> Path:
    """The folder of a world that was pushed to a repository: its world.toml and the weights that play needs.

    What was fetched before is taken from the user's folder of downloads; who wants a newer one deletes it
    there. Raises ImportProblem for what names no repository and where a file cannot be fetched, WorldError
    for a world.toml that is none.
    """
    check_repo(repo)
    folder = downloads_folder() / repo.replace("/", "--")
    config = load_config(_fetch(repo, "world.toml", folder, progress))
    for name in config.weight_files:
        if not name.startswith("random:"):
            _fetch(repo, name, folder, progress)
    return folder


def _fetch(repo: str, name: str, folder: Path, progress: Progress) -> Path:
    file = HubFile(repo, name, 0.0)
    path = folder / name
    try:
        if not path.is_file():
            found = download(file, folder, progress)
            if found != path:  # in the cache of the hub's client
                shutil.copyfile(found, own_folder(folder) / f".{name}.copy")
                (folder / f".{name}.copy").replace(path)
    except OSError as error:
        raise ImportProblem(
            f"{name} of {repo} cannot be fetched ({error}); is it a world that was pushed? else download "
            f"{file.url} elsewhere and put it into {folder}"
        ) from None
    return path


def card_of(folder: Path, config: WorldConfig) -> str:
    """The model card of a world: its own, or one of what its world.toml says; with a header for the hub."""
    own = folder / CARD
    text = own.read_text("utf-8") if own.is_file() else _plain_card(config)
    return text if text.startswith("---\n") else _header(config) + text


def _header(config: WorldConfig) -> str:
    said = config.licence.strip()
    licence = f"license: {said.lower()}" if said.lower() in LICENCES else "license: other"
    named = "" if said.lower() in LICENCES else f"license_name: {json.dumps(said or 'not stated')}\n"
    tags = "".join(f"- {tag}\n" for tag in ("playhead", "world-model", "interactive", "video"))
    return f"---\n{licence}\n{named}library_name: playhead\ntags:\n{tags}---\n\n"


def _plain_card(config: WorldConfig) -> str:
    buttons = ", ".join(config.action.names) or "none"
    return (
        f"# {config.name}\n\n{config.title}. Frames of {config.frame_width} x {config.frame_height}, "
        f"{config.ticks_per_second:g} ticks a second; what is held: {buttons}. Licence: {config.licence}\n"
    )


def push_world(folder: Path, repo: str, private: bool = False) -> str:
    """Pushes a world's folder to a repository of the hub, in one commit. Returns where it is.

    That are world.toml, all weights it names, and its card. The repository is made where there is none; who
    pushes has logged in by the hub's own client. Raises ImportProblem where that cannot be done, WorldError
    for a folder that holds no world.
    """
    check_repo(repo)
    config = load_config(folder / "world.toml")
    names = dict.fromkeys([*config.weight_files, config.inverse_weights])
    weights = [name for name in names if name and not name.startswith("random:")]
    weights += [decoder.weights for decoder in config.decoders.values()]
    for name in weights:
        if not (folder / name).is_file():
            raise ImportProblem(f"{folder / name} is missing, so the world cannot be pushed whole")
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise ImportProblem(f"pushing needs huggingface_hub: {install('hub')}") from None
    add = hub.CommitOperationAdd
    files = [add(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in ("world.toml", *weights)]
    files.append(add(path_in_repo=PUBLISHED, path_or_fileobj=card_of(folder, config).encode()))
    try:
        api = hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.create_commit(repo, files, commit_message=f"The world {config.name}, by Playhead")
    except Exception as error:  # every kind of network and hub trouble
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ImportProblem(
            f"{repo} cannot be pushed to ({reason.rstrip('.')}); log in by `hf auth login` with a token that "
            "may write there"
        ) from None
    return str(done.commit_url)
