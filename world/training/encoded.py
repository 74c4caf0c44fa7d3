"""Footage in latents: encoded once, and kept beside it.

Of footage the generator's stages need only its latents and what was held. The first run on a folder encodes
it and leaves `.latents-KEY.safetensors` there, 20 kB a frame of the shipped world's recipe. The key names the
encoder's weights and the episode files: of other weights or other episodes there are other latents. What was
filmed while a run trained is kept in the same way, as `.film-KEY-NUMBER.safetensors`, whose key names the
encoder alone. The files may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from playhead.world.training.footage import Footage


def read_encoded(
    folder: Path, key: str, device: torch.device, labelled: Sequence[str] = ()
) -> tuple[Footage, Tensor] | None:
    """Footage without its frames, and their latents, as `keep_encoded` left them; None if there are none."""
    return _read(folder / f".latents-{key}.safetensors", device, labelled)


def keep_encoded(folder: Path, key: str, footage: Footage, latents: Tensor) -> None:
    """Keeps `latents` `(N, C, h, w)` and all of `footage` but its frames in `folder`, where it may write."""
    _keep(folder / f".latents-{key}.safetensors", footage, latents)


def read_films(
    folder: Path, key: str, device: torch.device, part: slice = slice(None)
) -> list[tuple[Footage, Tensor]]:
    """Of the films that `keep_film` left, those of a `part`, as `read_encoded` has footage."""
    paths = sorted(folder.glob(f".film-{key}-*.safetensors"))[part]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda path: _read(path, device), paths)
        return [film for film in track(found, "reading films", len(paths), disable=not paths) if film]


def keep_film(folder: Path, key: str, footage: Footage, latents: Tensor) -> None:
    """Keeps one more film, as `keep_encoded` keeps footage."""
    _keep(folder / f".film-{key}-{uuid.uuid4().hex}.safetensors", footage, latents)


def _read(path: Path, device: torch.device, labelled: Sequence[str] = ()) -> tuple[Footage, Tensor] | None:
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            told = json.loads(file.metadata()["footage"])
            frames = torch.empty((0, *told["size"], 3), dtype=torch.uint8, device=device)
            footage = Footage(frames, file.get_tensor("actions"), told["starts"], told["places"], labelled)
            return footage, file.get_tensor("latents")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # none, or one that was cut short
        return None


def _keep(path: Path, footage: Footage, latents: Tensor) -> None:
    told = {"size": list(footage.frames.shape[1:3]), "starts": footage.starts, "places": footage.places}
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        tensors = {"latents": latents.cpu(), "actions": footage.actions.cpu()}
        save_file(tensors, draft, {"footage": json.dumps(told)})
        draft.replace(path)
    except (OSError, SafetensorError):
        pass  # it is encoded anew next time
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def key_of(files: Sequence[Path], encoder: dict[str, Tensor]) -> str:
    """Names what latents come of: the episode files, by name, size and time, and the encoder's weights.

    Without files, it names the encoder alone.
    """
    found = hashlib.sha256()
    for path in files:
        stat = path.stat()
        found.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for name, tensor in sorted(encoder.items()):
        if name.startswith("encoder."):  # a sharpened decoder has the same latents
            found.update(name.encode())
            found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
