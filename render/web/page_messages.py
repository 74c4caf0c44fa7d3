"""What a page and a server say to each other: the messages of the bridge as JSON, and a few more.

A request is a text of JSON. What comes down is one too or, where frames follow, binary: the length of the
JSON in four bytes, least first, the JSON, and the frames: raw ones behind a reply with a `shape`, packets
behind a `tick`.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from playhead.engine.bridge.wire import protocol as p

PageCodec = Literal["jpeg", "h264"]
"""How a page can have a session's frames; raw ones would be 20 times as large, and are no nearer."""


class WatchRequest(p.SessionRequest, tag="watch", frozen=True, kw_only=True):
    """Asks for the frames of a session as they come, in place of those of another one."""

    codec: PageCodec


class SeenRequest(p.Message, tag="seen", frozen=True, kw_only=True):
    """Says that the tick of that `number` of the stream is drawn; it is not answered."""

    number: Annotated[int, Meta(ge=0, le=2**62)]


class DownloadRequest(p.SessionRequest, tag="download", frozen=True, kw_only=True):
    """Asks for the recording of all that was played in a session, to be fetched as a file.

    `film`: for a film of the way to the present moment in its place, which is dreamed again for that.
    """

    film: bool = False


class DownloadReply(p.SessionReply, tag="downloaded", frozen=True, kw_only=True):
    """It is at `/download/TICKET`, once and for a while; `ticks` are in it, of a recording on all branches.

    `exact`: what was dreamed again is what was played.
    """

    ticket: str
    ticks: int
    exact: bool = True


class FilmPush(p.SessionReply, tag="filming", frozen=True, kw_only=True):
    """How many ticks of a film are done, and of how many."""

    done: int
    ticks: int


class TickPush(p.Message, tag="tick", frozen=True, kw_only=True):
    """A tick of the session that is watched, a packet a frame; `sizes` are their bytes."""

    header: p.FrameHeader
    sizes: list[int]


_decoder: msgspec.json.Decoder[p.Message] = msgspec.json.Decoder(
    p.Request | WatchRequest | SeenRequest | DownloadRequest
)
_decode_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_id = msgspec.json.Decoder(p.Id).decode
_decode_tick = msgspec.json.Decoder(TickPush).decode
_encode = msgspec.json.Encoder().encode


def decode_page_request(text: str) -> p.Message:
    """A request. Raises BridgeError for a text that is none."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise p.BridgeError("malformed", f"no request of this protocol: {str(error)[:200]}") from None


def page_request_id(text: str) -> int:
    """The id of a request that is wrong in other ways; else 0."""
    try:
        return _decode_id(_decode_any(text)["id"])
    except (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError):
        return 0


def encode_for_page(message: p.Message, frames: np.ndarray | None = None) -> str | bytes:
    """A message, and behind it raw frames uint8 `(n, H, W, 3)` if there are any."""
    said = _encode(message)
    if frames is None:
        return said.decode()
    return b"".join((len(said).to_bytes(4, "little"), said, np.ascontiguousarray(frames).data))


def decode_page_tick(data: bytes) -> p.FrameHeader:
    """The header of a tick, as `encode_tick` made it. Raises msgspec's errors for other bytes."""
    length = int.from_bytes(data[:4], "little")
    return _decode_tick(data[4 : 4 + length]).header


def encode_tick(header: p.FrameHeader, packets: list[bytes]) -> bytes:
    """A tick of a stream."""
    said = _encode(TickPush(header=header, sizes=[len(packet) for packet in packets]))
    return b"".join((len(said).to_bytes(4, "little"), said, *packets))
