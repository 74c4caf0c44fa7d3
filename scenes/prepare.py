"""Preparing the ready scenes of a public world: their prompts and pictures are encoded once, for good."""

from collections.abc import Callable, Sequence

import msgspec

from playhead.scenes.build import save_scene
from playhead.scenes.encoders import Encoders, SupportsScenes, make_context
from playhead.scenes.scene import READY, SceneError, SceneFields, fits, load_scene, ready_scenes
from playhead.world.home import scenes_folder

Progress = Callable[[str, float], None]


def prepare_scenes(
    world: SupportsScenes,
    encoders: Encoders,
    names: Sequence[str] = (),
    force: bool = False,
    progress: Progress = lambda stage, part: None,
) -> dict[str, bool]:
    """Makes the contexts of a world's ready scenes in the user's folder: `names`, or all that there are.

    Returns for each whether it was made now; one that is there and fits stays as it is, unless `force`.
    Raises SceneError for a name that is not there, for one that is prepared for worlds of another size, or
    for an encoder that cannot be had; scenes that were finished before stay.
    """
    ready = {fields.name: fields for fields in ready_scenes(world.config)}
    unknown = [name for name in names if name not in ready]
    if unknown or not ready:
        which = f"no ready scene `{unknown[0]}`" if unknown else "no ready scene"
        raise SceneError(
            f"there is {which} of the world `{world.config.name}`; there are {', '.join(ready) or 'none'}"
        )
    chosen = [ready[name] for name in names or ready]
    wanted = [fields for fields in chosen if force or not _is_prepared(fields, world)]
    for number, fields in enumerate(wanted):
        progress(f"preparing {fields.name}", number / len(wanted))
        picture = READY / fields.name / fields.image if fields.image else None
        context = make_context(world, fields.prompts, picture, encoders)
        save_scene(msgspec.structs.replace(fields, image=""), context, scenes_folder(), force)
    return {fields.name: fields in wanted for fields in chosen}


def _is_prepared(fields: SceneFields, world: SupportsScenes) -> bool:
    folder = scenes_folder() / fields.name
    if not folder.exists():
        return False
    if not fits(load_scene(folder).context, world.config):
        raise SceneError(
            f"{folder} is prepared for worlds of another size than `{world.config.name}`; --force replaces it"
        )
    return True
