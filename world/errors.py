"""Errors a person can act on: each message is one sentence that names the thing and the mend."""

import logging
from functools import cache


class PlayheadError(ValueError):
    """Bad input. The command line prints the message alone and exits with status 2."""


class WorldError(PlayheadError):
    """A world's folder, configuration or weights cannot be used."""


class ActionError(PlayheadError):
    """An action, a script or a key map names something the world does not have."""


@cache
def warn_once(sentence: str) -> None:
    """Logs a warning, the first time: of what is left out, and found again whenever somebody looks."""
    logging.getLogger("playhead").warning(sentence)
