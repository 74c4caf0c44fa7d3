"""What can be chosen about a play."""

from dataclasses import dataclass
from pathlib import Path

from playhead.world.errors import WorldError


@dataclass(frozen=True)
class Watched:
    """The part of a recording that is played again in the window: ticks after `first`, up to `last`."""

    branch: int
    first: int
    last: int


@dataclass(frozen=True)
class PlaySettings:
    """The options of the command `play`. None: the scene's, the world's or the shipped one.

    `auto_steps` holds the rate by fewer denoise steps. `ticks`: end after so many. `script`: what to hold
    before the keys count. `hold`: the world stands still while nothing is held. `recordings`: the folder that
    the play is recorded to, None for nowhere; `unrecorded`: why, where that was not wished. `continued`: a
    recording to go on with, `FILE` or `FILE@PLACE`.
    `connect`: the address of a server to play on, with `key` and `server_key` where it wants keys, and frames
    that come by `codec`. `bridge`: where programs may watch and play this window's session, with `key` and
    `clients` where they need keys. `watched`: what of a recording is to be played again instead.
    """

    world: str | None = None
    scene: str | None = None
    seed: int | None = None
    steps: int | None = None
    auto_steps: bool = False
    keys: Path | None = None
    speed: float = 1.0
    fullscreen: bool = False
    device: str = "auto"
    attention: str | None = None
    hold: bool = False
    hud: bool = True
    script: str | None = None
    ticks: int | None = None
    screenshots: Path = Path()
    recordings: Path | None = None
    unrecorded: str = ""
    continued: str = ""
    connect: str | None = None
    key: Path | None = None
    server_key: Path | None = None
    bridge: str | None = None
    clients: Path | None = None
    codec: str = "h264"
    watched: Watched | None = None


def parse_steps(text: str | None) -> tuple[int | None, bool]:
    """The option `--steps`: denoise steps a tick (None: the world's own), and whether they are automatic."""
    if text is None or text == "auto":
        return None, text == "auto"
    if not text.isdecimal() or not int(text):
        raise WorldError(f"--steps is a whole number from 1 on, or auto, not `{text}`; try --steps 2")
    return int(text), False
