"""How far back a world remembers, and the same world with less of it."""

import msgspec

from playhead.world.config import WorldConfig


def cut_memory(config: WorldConfig, frames: int = 16) -> WorldConfig | None:
    """The configuration with a memory of at most `frames` latent frames, or None where it has no more.

    The weights stay as they are: no layer has any that depend on how many frames it attends to. Sink frames
    count, but they stay.
    """
    sampling = config.sampling
    if sampling.reach <= frames:
        return None
    window, far = min(sampling.window, frames), sampling.far
    if far is not None:
        count = (frames - window) // far.every
        far = msgspec.structs.replace(far, frames=count) if count else None
    cut = msgspec.structs.replace(sampling, window=window, far=far)
    return msgspec.structs.replace(config, sampling=cut)
