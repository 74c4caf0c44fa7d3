"""A scene: where a session starts. A folder with a readable `scene.toml` and a context beside it.

`scene.toml` names the world, the seed and the context file; the context is an `.npz` with `frames` uint8
`(T, H, W, 3)`, `actions` uint8 `(T, buttons)` and `place` str: a short episode. Nothing here loads a model.

Of public worlds there are ready scenes: prompts or a picture, whose context `scenes prepare` makes once, in
the user's own folder, as soon as the world's weights are there.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np

from playhead.world.context import Context, check_context
from playhead.world.errors import PlayheadError, WorldError, warn_once
from playhead.world.extras import program
from playhead.world.home import if_any, scenes_folder
from playhead.world.tomlfile import read_toml

if TYPE_CHECKING:  # which imports torch, and a window opens before that
    from playhead.world.config import WorldConfig

SHIPPED = Path(__file__).parent / "shipped"
READY = Path(__file__).parent / "ready"
SCENE_FILE = "scene.toml"
MAX_SEED = 2**64 - 1
LARGEST_CONTEXT = 2**31
"""Bytes that a context may unpack to."""
_DAMAGE = (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is no .npz, or one that was cut or changed."""


class SceneError(PlayheadError):
    """A scene or a context cannot be used."""


class SceneFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a `scene.toml` holds, all of it required; `context` is the name of a file beside it.

    Of public worlds also the `prompts` whose embeddings the context holds, for reading; `world` may be the
    name of a family. A ready scene names the `image` beside it that its context is to be made of, if any.
    """

    name: str
    title: str
    description: str
    world: str
    seed: int
    context: str
    prompts: tuple[str, ...] = ()
    image: str = ""


@dataclass(frozen=True)
class Scene:
    """A checked scene."""

    name: str
    title: str
    description: str
    world: str
    seed: int
    context: Context
    prompts: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where its footage was taken; empty where nobody knows."""
        return self.context.place


def scene_names() -> list[str]:
    """Names of the scenes that come with the project."""
    return _names_in(SHIPPED)


def list_scenes() -> list[Scene]:
    """Every shipped scene, by name."""
    return [load_scene(name) for name in scene_names()]


def scan_scenes() -> tuple[list[Scene], dict[str, str]]:
    """Every shipped scene, then every one in the user's own folder; and of those that are unusable, why."""
    found, broken = [], {}
    for name in _all_names():
        try:
            found.append(load_scene(name))
        except SceneError as error:
            broken[name] = str(error)
    return found, broken


def ready_scenes(config: "WorldConfig | None" = None) -> list[SceneFields]:
    """The ready scenes of a world, or all of them: prompts or a picture that come with the project."""
    found = [read_fields(READY / name / SCENE_FILE) for name in _names_in(READY)]
    return [fields for fields in found if config is None or belongs(fields.world, config)]


def belongs(world: str, config: "WorldConfig") -> bool:
    """Whether a scene of `world`, a world's name or a family's, is one of this world."""
    return world in {config.name, config.family or config.name}


def scenes_of(config: "WorldConfig") -> list[Scene]:
    """The shipped scenes of a world and the user's own: first those of its name, then those of its family.

    Scenes of the family that were made for worlds of another size are left out, and so are those that cannot
    be used, with a warning. Raises SceneError where there are none.
    """
    mine: list[Scene] = []
    shared: list[Scene] = []
    for name in _all_names():
        try:
            world = read_fields(find_scene(name) / SCENE_FILE).world
            if belongs(world, config):
                (mine if world == config.name else shared).append(load_scene(name))
        except SceneError as error:
            warn_once(f"a scene is left out: {error}")
    mine += [scene for scene in shared if fits(scene.context, config)]
    if mine:
        return mine
    ready = ", ".join(fields.name for fields in ready_scenes(config))
    if ready:
        raise SceneError(
            f"the scenes of the world `{config.name}` have to be prepared once ({ready}): "
            f"{program()} scenes prepare --world {config.name}"
        )
    raise SceneError(
        f"there is no scene of the world `{config.name}`; give the folder of one by --scene, or make one by "
        "`scenes new`"
    )


def fits(context: Context, config: "WorldConfig") -> bool:
    """Whether a context has what a world's generator looks at."""
    try:
        check_context(config, context)
    except WorldError:
        return False
    return True


def _all_names() -> list[str]:
    """Names of the shipped scenes, then those of the user's own; of equal ones the shipped one counts."""
    own = [name for folder in if_any(scenes_folder) for name in _names_in(folder)]
    return list(dict.fromkeys([*scene_names(), *own]))


def _names_in(folder: Path) -> list[str]:
    return sorted(p.parent.name for p in folder.glob(f"*/{SCENE_FILE}"))


def find_scene(name: str | Path) -> Path:
    """The folder of a scene given by name or by path. Raises SceneError listing the known names."""
    for parent in (SHIPPED, *if_any(scenes_folder), READY):
        if str(name) in _names_in(parent):
            return parent / str(name)
    path = Path(name)
    folder = path.parent if path.name == SCENE_FILE else path
    if folder.is_dir():
        return folder
    raise SceneError(
        f"there is no scene `{name}`; shipped are {', '.join(scene_names()) or 'none'}, "
        f"to prepare are {', '.join(_names_in(READY)) or 'none'}, or give the folder of one"
    )


def load_scene(name: str | Path) -> Scene:
    """Loads a scene by the name of a shipped one or by the path of its folder.

    Raises SceneError, naming the file, the field and the mend, for anything missing, damaged or out of range.
    """
    folder = find_scene(name)
    fields = read_fields(folder / SCENE_FILE)
    if folder.parent == READY:
        raise SceneError(
            f"the scene `{fields.name}` has to be prepared once: {program()} scenes prepare "
            f"{fields.name} --world WORLD"
        )
    context = _read_arrays(folder / fields.context)
    head = (fields.name, fields.title, fields.description, fields.world, fields.seed)
    return Scene(*head, context, fields.prompts)


def read_context(path: Path, buttons: int) -> Context:
    """Reads a context file; where it has no `actions`, none of `buttons` is held.

    Raises SceneError naming the file and what it has to be.
    """
    return _read_arrays(path, buttons)


def check_seed(seed: int, where: str) -> None:
    """Raises SceneError, beginning with `where`, for a seed outside 64 bits."""
    if not 0 <= seed <= MAX_SEED:
        raise SceneError(f"{where} {seed} is no seed; it has to be a whole number from 0 to 2^64 - 1")


def check_fields(fields: SceneFields, where: str) -> None:
    """Raises SceneError, beginning with `where`, for a field whose value cannot be used."""
    for field in ("name", "title", "world", "context"):
        if not getattr(fields, field).strip():
            raise SceneError(f"{where}: `{field}` is empty; give it a value")
    check_seed(fields.seed, f"{where}: `seed`")
    for field in ("context", "image"):
        file = getattr(fields, field)
        if Path(file).name != file:
            raise SceneError(f"{where}: `{field}` is `{file}`; it has to be a file beside {SCENE_FILE}")


def read_fields(path: Path) -> SceneFields:
    missing = f"a scene's folder needs a {SCENE_FILE}"
    fields = read_toml(path, SceneFields, "scene", missing, SceneError)
    check_fields(fields, str(path))
    return fields


def _read_arrays(path: Path, buttons: int | None = None) -> Context:
    """The context of an `.npz`; without `buttons` the file has to have actions itself."""
    try:
        with path.open("rb") as file:
            return parse_context(file, str(path), buttons)
    except FileNotFoundError:
        raise SceneError(f"{path} is missing: it has to be the .npz that the session starts from") from None
    except OSError as error:
        raise SceneError(f"{path} cannot be read ({error.strerror}); make it again") from None


def parse_context(file: IO[bytes], path: str, buttons: int | None = None) -> Context:
    """The context in the bytes of an `.npz`; `path` is what errors call it.

    Without `buttons` there have to be actions in it. Raises SceneError for anything damaged or out of range.
    """
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip archive of arrays")
        if unpacked_bytes(file) > LARGEST_CONTEXT:
            raise SceneError(f"{path} unpacks to more than any context may hold; make it again")
        data = np.load(file, allow_pickle=False)
        public = _public_arrays(data)
        for array in ("frames", "actions") if buttons is None else ("frames",):
            if array not in data and not public:
                raise SceneError(f"{path} has no array `{array}`; a context has frames and actions")
        frames = data["frames"] if "frames" in data else np.zeros((0, 1, 1, 3), np.uint8)
        none_held = np.zeros((len(frames), buttons or 0), np.uint8)
        actions = data.get("actions", none_held)
        place = str(data["place"]) if "place" in data else ""
    except SceneError:
        raise
    except _DAMAGE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise SceneError(f"{path} is damaged or no .npz ({reason}); make it again") from None
    empty = not frames.size and not public
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or empty:
        found = f"{frames.dtype} {frames.shape}"
        raise SceneError(f"{path}: `frames` is {found}; it has to be uint8 (T, H, W, 3)")
    if actions.dtype.kind not in "bui" or actions.ndim != 2 or len(actions) != len(frames):
        raise SceneError(
            f"{path}: `actions` is {actions.dtype} {actions.shape}; it has to be uint8 "
            f"({len(frames)}, buttons), one row a frame"
        )
    if actions.size and (actions.min() < 0 or actions.max() > 1):
        raise SceneError(f"{path}: `actions` has the value {actions.max()}; a button is 0 or 1")
    return Context(frames, actions.astype(np.uint8), **public, place=place)


def unpacked_bytes(file: IO[bytes]) -> int:
    """Bytes that the arrays of an `.npz` unpack to; 0 for what is none, or damaged.

    Ends at the file's beginning.
    """
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except _DAMAGE:
        return 0
    finally:
        file.seek(0)


def _public_arrays(data: np.lib.npyio.NpzFile) -> dict[str, Any]:
    """What a context of a public world holds besides frames, by the names of `Context`.

    `prompt_0`, `prompt_1`, … are the prompts. Raises SceneError for values that are no finite numbers.
    """
    prompts = sorted((n for n in data if n.startswith("prompt_")), key=lambda n: (len(n), n))
    found: dict[str, Any] = {n: data[n] for n in ("features", "condition", "latents") if n in data}
    if prompts:
        found["prompts"] = tuple(data[name] for name in prompts)
    for array in (*found.get("prompts", ()), *(found[n] for n in found if n != "prompts")):
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise SceneError("a context's prompts, features and latents have to be finite numbers")
    return found


def context_arrays(context: Context) -> dict[str, np.ndarray | str]:
    """The arrays of a context's file; what is read from them is the same again."""
    arrays: dict[str, np.ndarray | str] = {"frames": context.frames, "actions": context.actions}
    if context.place:
        arrays["place"] = context.place
    arrays |= {f"prompt_{number}": rows for number, rows in enumerate(context.prompts)}
    parts = ("features", "condition", "latents")
    return arrays | {n: getattr(context, n) for n in parts if getattr(context, n) is not None}
