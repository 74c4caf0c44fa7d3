"""Builds a scene by cutting its context out of an episode."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import tomli_w

from playhead.scenes.scene import SCENE_FILE, SceneError, SceneFields, check_fields, context_arrays
from playhead.world.context import Context
from playhead.world.home import own_folder
from playhead.world.training.footage import read_episode


def cut_scene(
    episode: Path, frame: int, length: int, fields: SceneFields, out: Path, force: bool = False
) -> Path:
    """Writes a scene that opens on frame number `frame` of an episode; returns its folder, `out` / its name.

    The context is the `length` frames that end there. The folder appears whole or not at all; one that is
    there already is replaced only with `force`. Raises SceneError before anything is written.
    """
    folder = check_new(fields, out, force)
    if length < 1:
        raise SceneError(f"a context needs at least 1 frame, not --length {length}")
    if frame < length - 1:
        raise SceneError(
            f"--frame {frame} leaves no room for {length} frames that end there; take {length - 1} or later"
        )
    take = read_episode(episode)
    if frame >= len(take.frames):
        raise SceneError(f"{episode} has frames 0 to {len(take.frames) - 1}, so none numbered {frame}")
    try:
        window = slice(frame + 1 - length, frame + 1)
        arrays = {"frames": take.frames[window], "actions": take.actions[window], "place": take.place}
        _write(arrays, fields, folder)
    except OSError as error:
        raise SceneError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    return folder


def check_new(fields: SceneFields, out: Path, force: bool = False) -> Path:
    """The folder that a new scene gets. Raises SceneError for fields, or a folder, that cannot be used."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fields.name):
        raise SceneError(f"`{fields.name}` is no scene name; use small letters, digits and single hyphens")
    check_fields(fields, fields.name)
    folder = out / fields.name
    if folder.exists() and not force:
        raise SceneError(f"{folder} is there already; choose another --name, or add --force to replace it")
    if folder.exists() and not (folder / SCENE_FILE).is_file():
        raise SceneError(f"{folder} is there and is no scene; choose another --name or --out")
    return folder


def save_scene(fields: SceneFields, context: Context, out: Path, force: bool = False) -> Path:
    """Writes a scene of a context; returns its folder, `out` / its name. Raises SceneError as `cut_scene`."""
    folder = check_new(fields, out, force)
    try:
        _write(context_arrays(context), fields, folder)
    except OSError as error:
        raise SceneError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    return folder


def _write(arrays: Mapping[str, np.ndarray | str], fields: SceneFields, folder: Path) -> None:
    """Writes beside `folder`, then renames; a folder that is replaced goes only once the new one is there."""
    draft, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        own_folder(draft.parent)
        draft.mkdir()
        (draft / SCENE_FILE).write_text(tomli_w.dumps(msgspec.to_builtins(fields)), "utf-8")
        np.savez_compressed(draft / fields.context, **arrays)
        if folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
