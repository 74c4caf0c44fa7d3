"""The world standing still while something else is looked at; afterwards it goes on if it did before."""

from concurrent.futures import Future

from playhead.engine.loop import Loop
from playhead.engine.tuning import Tuning


class NestedPause:
    """Begun and ended in pairs, by one thread. A pause that was there before stays."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._count = 0
        self._was_paused = False
        self._resumed: Future[None] | None = None

    def begin(self) -> None:
        if not self._count and (self._resumed is None or self._resumed.done()):
            stats = self._loop.stats
            self._was_paused = stats is not None and stats.paused
        self._count += 1
        self._loop.tune(Tuning(paused=True))

    def end(self) -> None:
        self._count -= 1
        if not self._count and not self._was_paused:
            self._loop.tune(Tuning(paused=False))
            self._resumed = self._loop.ask(lambda session: None)  # until then `stats` tell of the standstill
