"""A session that begins with an uploaded picture: its scene is what `scenes new --image` makes of it."""

import io
from concurrent.futures import Future

import numpy as np

from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.in_process import PATIENCE, InProcessClient
from playhead.engine.bridge.server.open_handlers import SEEK_MEMORY
from playhead.engine.bridge.server.opener import OpenedSession
from playhead.engine.bridge.server.registry import Registry, check_seed, session_bytes
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.work import Work
from playhead.scenes.picture import decode_picture
from playhead.scenes.scene import Scene, SceneError
from playhead.scenes.settle import settles, settling
from playhead.world.context import Context
from playhead.world.errors import PlayheadError
from playhead.world.world import World

LENGTH, SETTLE = 8, 4
"""Frames of the scene's past, and ticks that are dreamed with nothing held: what `scenes new` takes."""
PIXELS = 2**25
"""Of a picture, at the most: it is unpacked whole."""
FORMATS = ("PNG", "JPEG", "WEBP")


def open_at_picture(
    server: Server,
    registry: Registry,
    client: InProcessClient,
    data: bytes,
    world: str,
    place: str,
    seed: int,
) -> str:
    """Opens a live session at a picture, whose control nobody has yet. Returns its id.

    The scene is made by the thread that copies recordings, a slice at a time, and its memory is counted as
    a session's. Raises PlayheadError for a picture, a world or a place that will not do, and where there is
    no room.
    """
    loaded = registry.world(world)
    if not settles(loaded.config):
        raise SceneError(f"the world `{loaded.config.name}` starts from prompts, not from a picture alone")
    check_seed(seed)
    shown = _picture(data, loaded)
    found: Future[str] = Future()
    work = settling(loaded, shown, LENGTH, SETTLE, seed, place)
    server.post(lambda: _begin(server, registry, client, loaded, work, seed, found))
    try:
        return found.result(PATIENCE)
    except TimeoutError:
        raise PlayheadError("the picture takes too long, others are at work; try again in a moment") from None


def _picture(data: bytes, world: World) -> np.ndarray:
    """Raises SceneError for what is no picture, or one that would not fit."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # which reads its beginning alone
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise SceneError("that is no picture that can be read; give a .png, .jpg or .webp") from None
    if width * height > PIXELS:
        raise SceneError(
            f"{width} x {height} are more pixels than the {PIXELS} that are taken here; scale it down"
        )
    config = world.config
    return decode_picture(data, config.frame_height, config.frame_width, "that")


def _begin(
    server: Server,
    registry: Registry,
    client: InProcessClient,
    world: World,
    work: Work[Context],
    seed: int,
    found: "Future[str]",
) -> None:
    """On the server's thread: has the scene made, and then its session."""
    sessions, size = server.sessions, session_bytes(world)

    def settled(done: "Future[Context]") -> None:
        sessions.reserved -= size
        try:
            _host(server, registry, client, world, done.result(), seed, found)
        except Exception as error:
            found.set_exception(error)

    try:
        known = client.client
        if known is None:
            raise BridgeError("ended", "whoever asked for it is gone")
        sessions.check_room(server.opener.opening)
        sessions.check_memory(size)
        sessions.reserved += size
        making = server.saver.submit(known.token, work)
        making.add_done_callback(lambda done: server.post(lambda: settled(done)))
    except Exception as error:
        found.set_exception(error)


def _host(
    server: Server,
    registry: Registry,
    client: InProcessClient,
    world: World,
    context: Context,
    seed: int,
    found: "Future[str]",
) -> None:
    known, recordings = client.client, server.sessions.recordings
    if known is None:
        raise BridgeError("ended", "whoever asked for it is gone")
    scene = Scene("picture", "From a picture", "", world.config.name, seed, context)
    memory = SEEK_MEMORY if recordings.records else 0

    def make() -> Work[OpenedSession]:
        session = registry.open(world, scene, seed)
        yield
        return OpenedSession(session, recordings.timeline(world, scene, memory))

    def opened(future: "Future[HostedSession]") -> None:
        error = future.exception()
        if error is not None:
            found.set_exception(error)
            return
        hosted = future.result()
        hosted.lease.release(known.token)
        hosted.set_clock("live")  # and it stands still until somebody has the control
        found.set_result(hosted.id)

    server.opener.open(known.token, world, scene, "lockstep", make, opened, memory)
