"""What can be chosen about a play, by whom it concerns."""

from dataclasses import dataclass, field
from pathlib import Path

from playhead.world.errors import WorldError
from playhead.world.offload.memory_budget import MemoryBudget


@dataclass(frozen=True)
class ReplayRange:
    """The part of a recording that is played again in the window: ticks after `first`, up to `last`."""

    branch: int
    first: int
    last: int


@dataclass(frozen=True)
class SessionSettings:
    """Which session is played. None: the scene's, the world's or the shipped one.

    `script`: what to hold before the keys count. `continued`: a recording to go on with, `FILE` or
    `FILE@POINT`; `replayed`: what of it is to be played again instead.
    """

    world: str | None = None
    scene: str | None = None
    seed: int | None = None
    steps: int | None = None
    device: str = "auto"
    attention: str | None = None
    script: str | None = None
    continued: str = ""
    replayed: ReplayRange | None = None
    precision: str | None = None
    decoder: str | None = None
    budget: MemoryBudget | None = None
    cache: str | None = None
    gpus: int | None = None
    decoder_device: str | None = None


@dataclass(frozen=True)
class PaceSettings:
    """How it runs. `auto_steps` keeps the rate by fewer denoise steps. `hold`: the world stands still while
    nothing is held. `ticks`: end after so many.
    """

    speed: float = 1.0
    auto_steps: bool = False
    hold: bool = False
    ticks: int | None = None


@dataclass(frozen=True)
class RecordingSettings:
    """The `folder` that the play is recorded to, None for nowhere; `unrecorded`: why, if unwished."""

    folder: Path | None = None
    unrecorded: str = ""


@dataclass(frozen=True)
class WindowSettings:
    """What the window looks like and obeys. `keymap`: the file of one, None for the world's."""

    keymap: Path | None = None
    fullscreen: bool = False
    hud: bool = True
    screenshots: Path = Path()


@dataclass(frozen=True)
class BridgeSettings:
    """Where programs may watch and play this window's session, with the keys that they then need."""

    address: str
    secret_key: Path | None = None
    clients: Path | None = None


@dataclass(frozen=True)
class ServerSettings:
    """The server to play on, the keys where it wants some, and how its frames come."""

    address: str
    secret_key: Path | None = None
    server_key: Path | None = None
    codec: str = "h264"


@dataclass(frozen=True)
class PlaySettings:
    """The options of the command `play`; each part is handed to those alone whom it concerns."""

    session: SessionSettings = field(default_factory=SessionSettings)
    pace: PaceSettings = field(default_factory=PaceSettings)
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    window: WindowSettings = field(default_factory=WindowSettings)
    bridge: BridgeSettings | None = None
    server: ServerSettings | None = None


def parse_steps(text: str | None) -> tuple[int | None, bool]:
    """The option `--steps`: denoise steps a tick (None: the world's own), and whether they are automatic."""
    if text is None or text == "auto":
        return None, text == "auto"
    if not text.isdecimal() or not int(text):
        raise WorldError(f"--steps is a whole number from 1 on, or auto, not `{text}`; try --steps 2")
    return int(text), False
