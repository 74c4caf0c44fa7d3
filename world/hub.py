"""Fetching files from the hub into the user's folder of downloads, or finding them there, put by hand."""

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from playhead.world.extras import install
from playhead.world.home import downloads_folder, own_folder
from playhead.world.importing import ImportProblem, Progress
from playhead.world.public import AUTOENCODERS, LIGHTTAE, HubFile

_HUB = "https?://(?:www[.])?(?:huggingface[.]co|hf[.]co)/"


def parse(source: str) -> HubFile:
    """The file that `hub:OWNER/REPO/FILE` names. Raises ImportProblem for another form."""
    parts = source.removeprefix("hub:").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ImportProblem(f"`{source}` names no file on the hub; write hub:OWNER/REPO/FILE")
    return HubFile("/".join(parts[:2]), parts[2], 0.0)


def fetch(source: str, progress: Progress = lambda stage, part: None) -> Path:
    """The local file of a path, or of `hub:OWNER/REPO/FILE`.

    Raises ImportProblem saying what to download and what to do with it where that fails, and for a web
    address what to write in its place.
    """
    if re.match(r"https?:", source, re.IGNORECASE):
        known = re.fullmatch(rf"{_HUB}([^/]+/[^/]+)/(?:resolve|blob)/[^/]+/([^?#]+)[^/]*", source)
        mend = f"hub:{known[1]}/{known[2]}" if known else "hub:OWNER/REPO/FILE for a file on the hub"
        raise ImportProblem(f"`{source}` is a web address; write {mend}, or download it and give its path")
    if not source.startswith("hub:"):
        return Path(source)
    file = parse(source)
    folder = downloads_folder() / file.repo.replace("/", "--")
    try:
        return folder / file.name if (folder / file.name).is_file() else download(file, folder, progress)
    except OSError as error:
        raise ImportProblem(
            f"{file.path} of {file.repo} cannot be fetched ({error}); download {file.url} elsewhere and give "
            "its path instead"
        ) from None


def find_autoencoder(beside: Path, progress: Progress = lambda stage, part: None) -> Path:
    """The tiny autoencoder for a checkpoint: one that lies beside it or was downloaded, else the hub's.

    Raises ImportProblem as `fetch` does.
    """
    for name in AUTOENCODERS:
        path = beside.parent / f"{name}.pth"
        if path.is_file():
            return path
    try:
        return fetch(f"hub:{LIGHTTAE.repo}/{LIGHTTAE.path}", progress)
    except ImportProblem as problem:
        raise ImportProblem(f"{problem}, by --autoencoder") from None


def fetch_all(
    name: str, files: Sequence[HubFile], progress: Progress = lambda stage, part: None
) -> list[Path]:
    """The local files of a catalogue entry: those that lie in its folder of downloads, the others fetched.

    Raises ImportProblem saying which files to download and where to put them where that fails.
    """
    folder = downloads_folder() / name
    by_hand = [folder / file.name for file in files]
    found = []
    for file, path in zip(files, by_hand, strict=True):
        try:
            found.append(path if path.is_file() else download(file, folder, progress))
        except OSError as error:
            lacking = [f for f, p in zip(files, by_hand, strict=True) if not p.is_file()]
            raise ImportProblem(
                f"`{name}` cannot be fetched ({error}); download {' and '.join(f.url for f in lacking)} "
                f"elsewhere, put {'it' if len(lacking) == 1 else 'them'} into {folder}, and give this "
                "command again"
            ) from None
    return found


def download(file: HubFile, folder: Path, progress: Progress) -> Path:
    """Fetches a file into a folder, if the cache of the hub's client, which other programs fill, lacks it.

    What an interruption leaves of it is gone on with the next time. The client does not do that by itself:
    its parts have names that no later process knows. Raises ImportProblem without the client, OSError with a
    short reason for all other trouble.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
        get = importlib.import_module("huggingface_hub.file_download").http_get
    except ImportError:
        raise ImportProblem(f"fetching needs huggingface_hub: {install('hub')}") from None
    hub.logging.set_verbosity_error()  # its retries would be printed across the bar
    cached = hub.try_to_load_from_cache(file.repo, file.path)
    if isinstance(cached, str):  # not None, nor the mark of a file that is known not to be there
        return Path(cached)
    stage = f"fetching {file.name}"
    progress(stage, 0.0)
    try:
        url = hub.hf_hub_url(file.repo, file.path)
        there = hub.get_hf_file_metadata(url)
        own_folder(folder)
        version = "".join(filter(str.isalnum, there.etag or ""))[:16]
        part = folder / f".{file.name}.{version}.part"  # another version of the file begins anew
        with part.open("ab") as out:
            get(
                url,
                out,
                resume_size=out.tell(),
                headers=hub.utils.build_hf_headers(),
                expected_size=there.size,
                tqdm_class=_relay(stage, progress),
            )
        return part.replace(folder / file.name)
    except Exception as error:  # every kind of network and hub trouble
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise OSError(reason.rstrip(".")) from None


def _relay(stage: str, progress: Progress) -> Callable[..., Any]:
    """A bar of the hub's client that shows nothing itself and tells `progress`."""
    from tqdm import tqdm

    class Relay(tqdm):  # type: ignore[misc]  # which comes without types
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - the client's own
            super().__init__(*args, **{**options, "disable": False, "leave": False})

        def display(self, *_: object, **__: object) -> None:
            return

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.total:
                progress(stage, min(1.0, self.n / self.total))
            return shown

    return Relay
