"""The messages of the bridge: typed, as MessagePack maps, the field `type` first. docs/protocol.md says more.

What asks is a `…Request`, what answers it a `…Reply`, what comes unasked a `…Push`; `tag` is what the field
`type` says, by which other programs know a message.

A request is a single message part; so is its reply, which is followed by a part of raw frames where it has a
`shape`: uint8 `(n, H, W, 3)`, row by row. A reply carries the `id` of its request. Pushes carry the `id` of
the action that they are about, or 0.
"""

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from playhead.engine.bridge.wire import moment_messages as m
from playhead.engine.bridge.wire.message import Count, Name, Period, Seconds, Shape, Side, Text
from playhead.engine.bridge.wire.message import Id as Id
from playhead.engine.bridge.wire.message import Message as Message
from playhead.engine.bridge.wire.message import SessionReply as SessionReply
from playhead.engine.bridge.wire.message import SessionRequest as SessionRequest
from playhead.world.action import Action, ActionSpace
from playhead.world.errors import PlayheadError

VERSION = 1
"""Raised when a message changes in a way that an older program would not understand."""
MAX_REQUEST = 256 * 1024
"""Bytes of a request; a connection that sends a longer one is cut."""
MAX_REPLY = 2**30
"""Bytes of a part of what a server says; a client hangs up on one that sends more."""
MAX_ACTIONS = 256
"""Actions of one `step`."""
LOCAL = "window"
"""The holder of the control that is the person at the server's own window; never a client's token."""

Code = Literal[
    "malformed", "protocol", "hello_first", "unknown_world", "unknown_scene", "unknown_session",
    "unknown_snapshot", "bad_action", "bad_value", "not_in_control", "wrong_clock", "busy", "limit", "rate",
    "ended", "refused",
]  # fmt: skip
"""What kind of refusal an error is. `internal` faults of the server are `ended`: that session is gone."""

Clock = Literal["lockstep", "live"]
Codec = Literal["raw", "jpeg", "h264"]
CODECS: tuple[Codec, ...] = get_args(Codec)
Sent = Literal["all", "last", "none"]

# Requests


class HelloRequest(Message, tag="hello", frozen=True, kw_only=True):
    """The first request of a connection: the protocol versions that the client speaks, and who it is.

    `resume`: the `token` of an earlier welcome, to be that client again.
    """

    protocol: Annotated[list[int], Meta(max_length=16)]
    client: Name
    resume: Name = ""


class HostRequest(Message, tag="host", frozen=True, kw_only=True):
    """Asks a server that has `hosts` for one that plays sessions.

    `session`: the one that plays this session, which began elsewhere; `resume`: the token of its owner.
    """

    session: Name = ""
    resume: Name = ""


class PingRequest(Message, tag="ping", frozen=True, kw_only=True):
    """Asks for a pong, at once."""


class WorldsRequest(Message, tag="worlds", frozen=True, kw_only=True):
    """Asks which worlds and scenes there are."""


class OpenRequest(Message, tag="open", frozen=True, kw_only=True):
    """Opens a session; the client controls it. Nothing chosen: the first world, its first scene, its seed.

    `seekable`: what makes `seek` quick and `picture` sharp is kept, where the session is recorded.
    """

    world: Name = ""
    scene: Name = ""
    seed: int | None = None
    steps: int | None = None
    clock: Clock = "lockstep"
    seekable: bool = False


class AttachRequest(SessionRequest, tag="attach", frozen=True, kw_only=True):
    """Asks what a session is, to watch it or to go on with it."""


class CloseRequest(SessionRequest, tag="close", frozen=True, kw_only=True):
    """Ends a session."""


class ResetRequest(SessionRequest, tag="reset", frozen=True, kw_only=True):
    """Goes back to the start, with another scene of the same world or another seed."""

    scene: Name = ""
    seed: int | None = None


class StepRequest(SessionRequest, tag="step", frozen=True, kw_only=True):
    """Plays these actions, a tick each (lockstep). `frames`: of all ticks, of the last one, or none."""

    actions: Annotated[list[Action], Meta(min_length=1, max_length=MAX_ACTIONS)]
    frames: Sent = "all"


class ActRequest(SessionRequest, tag="act", frozen=True, kw_only=True):
    """Holds an action from the next tick on (live), until the next act, or for `hold` seconds.

    `tap`: where no tick has seen it yet when the next act comes, the buttons that it presses anew still count
    for one tick, as a key tapped does, and its axes are added to those that follow.
    """

    action: Action
    hold: Annotated[float, Meta(gt=0, le=60)] = 1.0
    tap: bool = False


class ObserveRequest(SessionRequest, tag="observe", frozen=True, kw_only=True):
    """Asks for the newest frames."""


class SnapshotRequest(SessionRequest, tag="snapshot", frozen=True, kw_only=True):
    """Has the server keep the present state; the oldest of a session's states goes where it has too many."""


class RestoreRequest(SessionRequest, tag="restore", frozen=True, kw_only=True):
    """Goes back to a kept state."""

    snapshot: Name


class ForkRequest(SessionRequest, tag="fork", frozen=True, kw_only=True):
    """Opens a second session with the same past."""


class BranchRequest(SessionRequest, tag="branch", frozen=True, kw_only=True):
    """Opens a second session that goes on from tick number `tick` of this one's past."""

    tick: Id


class SaveRequest(SessionRequest, tag="save", frozen=True, kw_only=True):
    """Saves the recording of all that was played in a session, in the server's folder of recordings."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]


class StatsRequest(SessionRequest, tag="stats", frozen=True, kw_only=True):
    """Asks how a session keeps up."""


class ControlRequest(SessionRequest, tag="control", frozen=True, kw_only=True):
    """Asks for the control, gives it back, or hands it to the client that asks."""

    want: Literal["take", "release", "grant"]


class TuneRequest(SessionRequest, tag="tune", frozen=True, kw_only=True):
    """Changes how a session runs; what is None stays. `hold`: it stands still while nothing is held."""

    clock: Clock | None = None
    paused: bool | None = None
    single_step: bool = False
    speed: Annotated[float, Meta(ge=0.25, le=2)] | None = None
    steps: int | None = None
    auto_steps: bool | None = None
    hold: bool | None = None


Request = (
    HelloRequest | HostRequest | PingRequest | WorldsRequest | OpenRequest | AttachRequest | CloseRequest
    | ResetRequest | StepRequest | ActRequest | ObserveRequest | SnapshotRequest | RestoreRequest
    | ForkRequest | BranchRequest | SaveRequest | StatsRequest | ControlRequest | TuneRequest
    | m.TimelineRequest | m.SeekRequest | m.PictureRequest | m.BookmarkRequest
)  # fmt: skip

# Replies


class ErrorReply(Message, tag="error", frozen=True, kw_only=True):
    """Why nothing was done."""

    code: Code
    message: Text


class WelcomeReply(Message, tag="welcome", frozen=True, kw_only=True, omit_defaults=True):
    """The version that both will speak, the secret by which to come back, where frames are published.

    `sessions`: those that everybody may attach to. `hosts`: sessions are played elsewhere; `host` says where.
    """

    protocol: int
    server: Text
    token: Text
    frames_port: Annotated[int, Meta(ge=1, le=65_535)]
    sessions: list[Text]
    hosts: bool = False


class HostReply(Message, tag="hosted", frozen=True, kw_only=True):
    """A server that plays sessions: its address, and its public key, empty where none is needed."""

    address: Text
    key: Text


class PongReply(Message, tag="pong", frozen=True, kw_only=True):
    pass


class SceneInfo(msgspec.Struct, frozen=True):
    name: Text
    title: Text
    seed: int
    prompts: Count | None = None
    """How many it has, so that a client knows which of the world's `prompt_1`, … there are."""


class WorldInfo(msgspec.Struct, frozen=True):
    """What a client has to know of a world."""

    name: Text
    family: Text
    title: Text
    licence: Text
    height: Side
    width: Side
    ticks_per_second: Annotated[float, Meta(gt=0, le=1000)]
    frames_per_tick: Side
    steps: Count
    buttons: list[Text]
    axes: list[Text]
    scenes: list[SceneInfo]

    @property
    def action_space(self) -> ActionSpace:
        """What may be held and moved, as far as a client is told."""
        return ActionSpace(tuple(self.buttons), tuple(self.axes))


class WorldsReply(Message, tag="worldlist", frozen=True, kw_only=True):
    worlds: list[WorldInfo]


class ObserveReply(SessionReply, tag="observed", frozen=True, kw_only=True):
    """Where a session is; its newest frames follow."""

    tick: Count
    seed: int
    shape: Shape


class OpenReply(ObserveReply, tag="opened", frozen=True, kw_only=True):
    """What a session is and where it is; its newest frames follow."""

    world: WorldInfo
    scene: SceneInfo
    clock: Clock
    steps: Count
    in_control: bool


class StepReply(SessionReply, tag="stepped", frozen=True, kw_only=True):
    """The receipt of a step: its first action was applied in tick `first`, its last in tick `tick`.

    `tick_seconds`: what the world took for that, and for what was left to do of a tick before.
    """

    first: Count
    tick: Count
    tick_seconds: Seconds
    shape: Shape | None = None


class ActReply(SessionReply, tag="received", frozen=True, kw_only=True):
    """The first receipt of an act: it will count from the next tick on."""


class AppliedPush(SessionReply, tag="applied", frozen=True, kw_only=True):
    """The second receipt of an act: tick `tick` was the first that it held in."""

    tick: Count


class SupersededPush(SessionReply, tag="superseded", frozen=True, kw_only=True):
    """The second receipt of an act that another one followed, or that lost the control, before any tick."""


class SnapshotReply(SessionReply, tag="snapshotted", frozen=True, kw_only=True):
    """The name of a state that was kept, and the tick that it is of."""

    snapshot: Text
    tick: Count


class SaveReply(SessionReply, tag="saved", frozen=True, kw_only=True):
    """The name of the file in the server's folder, and how many ticks are in it, on all branches."""

    file: Text
    ticks: Count


class StatsReply(SessionReply, tag="figures", frozen=True, kw_only=True):
    """How a session keeps up: the fields of `engine.stats.Stats`, seconds."""

    stats: dict[str, Any]


class ControlReply(SessionReply, tag="controlled", frozen=True, kw_only=True):
    """Who controls a session now; also pushed, with id 0, whenever that changes."""

    in_control: bool
    holder: Text
    asking: Text


class EndedPush(SessionReply, tag="ended", frozen=True, kw_only=True):
    """Pushed, with id 0, to those concerned: a session is over, and why."""

    reason: Text


class DoneReply(Message, tag="done", frozen=True, kw_only=True):
    """It is done, and there is nothing else to say."""


Reply = (
    ErrorReply | WelcomeReply | HostReply | PongReply | WorldsReply | OpenReply | ObserveReply | StepReply
    | ActReply | AppliedPush | SupersededPush | SnapshotReply | SaveReply | StatsReply | ControlReply
    | EndedPush | DoneReply | m.TimelineReply | m.PictureReply | m.BookmarkReply
)  # fmt: skip
PUSHES = (AppliedPush, SupersededPush, ControlReply, EndedPush)
"""What comes unasked."""


class FrameHeader(msgspec.Struct, frozen=True):
    """What precedes the frames of a tick in the stream; `parts` follow, one a frame.

    `number` counts the stream's ticks without a gap: a missing one was dropped. `begins`: no tick led here.
    `key`: decoding may begin with it. `ready`: when the frames were there, seconds of the server's clock.
    """

    session: Text
    number: Count
    tick: Count
    seed: int
    begins: bool
    action: Action | None
    codec: Codec
    key: bool
    height: Side
    width: Side
    period: Period
    ready: Seconds
    stats: dict[str, Any] | None


class BridgeError(PlayheadError):
    """A request that is refused, as the error that it is answered with."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Any(msgspec.Struct):
    id: Id = 0


encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder(_Any).decode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
decode_header = msgspec.msgpack.Decoder(FrameHeader).decode


def request_id(data: bytes) -> int:
    """The id of a request that is wrong in other ways, so that its error can be told apart; else 0."""
    try:
        return _decode_any(data).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0


def topic(session: str, codec: str) -> bytes:
    """What to subscribe to for a session's frames in one encoding."""
    return f"{session}/{codec}".encode()
