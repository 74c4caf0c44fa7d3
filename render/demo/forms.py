"""What the forms do: films of scripts and starts from pictures, each by a client of its own."""

import contextlib
import re
from collections.abc import Generator
from dataclasses import dataclass

from playhead.engine.bridge.server.in_process import InProcessClient
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server
from playhead.render.demo.kept_files import KeptFiles
from playhead.render.demo.picture_start import open_at_picture
from playhead.render.demo.scripted_film import Filmed, FilmWish, actions_of, filming
from playhead.world.errors import PlayheadError

NAME = "the forms"
"""Who plays, as others who watch are told."""


@dataclass(frozen=True)
class MadeFilm:
    """What was filmed, and the ticket of the .mp4."""

    filmed: Filmed
    ticket: str


class Forms:
    """Over a server's sessions, for any thread but the server's."""

    def __init__(self, server: Server, registry: Registry, limits: Limits, files: KeptFiles) -> None:
        self._server, self._registry, self._limits, self._files = server, registry, limits, files

    def film(
        self, world: str, scene: str, seed: str, steps: int | None, script: str, array: str | None
    ) -> Generator[tuple[int, int], None, MadeFilm]:
        """Films a script, or the uploaded `array`; yields how many ticks of how many are done.

        Raises PlayheadError, before anything is played, for what cannot be.
        """
        data = None if array is None else self._files.read(array, "the .npy")
        actions = actions_of(self._registry.world(world).config, script, data)
        wish = FilmWish(actions, world, scene, read_seed(seed), steps)
        ticket, path = self._files.new()
        try:
            with self._client() as client, contextlib.closing(filming(client, wish, path)) as work:
                while True:
                    try:
                        done = next(work)
                    except StopIteration as ended:
                        filmed: Filmed = ended.value
                        break
                    yield done, len(actions)
        except BaseException:  # whoever asked may have gone, too
            path.unlink(missing_ok=True)
            raise
        self._files.keep(ticket, path, "video/mp4")
        return MadeFilm(filmed, ticket)

    def start(self, picture: str | None, world: str, place: str, seed: str) -> str:
        """Opens a session at an uploaded picture, for a page to take. Returns its id.

        Raises PlayheadError for what cannot be.
        """
        if picture is None:
            raise PlayheadError("there is no picture yet; choose one first")
        data = self._files.read(picture, "the picture")
        with self._client() as client:
            number = read_seed(seed) or 0
            return open_at_picture(self._server, self._registry, client, data, world, place, number)

    def _client(self) -> InProcessClient:
        return InProcessClient(self._server, NAME, self._limits.rate)


def read_seed(text: str) -> int | None:
    """The seed that somebody typed; None where nothing was. Raises PlayheadError for another text.

    A text, because a seed goes up to 2^64 - 1 and the numbers of JavaScript do not.
    """
    text = text.strip()
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,20}", text):
        raise PlayheadError("a seed is a whole number from 0 to 2^64 - 1; leave it empty for the scene's")
    return int(text)
