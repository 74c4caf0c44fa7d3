"""What a request is answered with that could not be carried out."""

import logging

from playhead.engine.bridge.wire.protocol import BridgeError, Code, ErrorReply
from playhead.world.errors import ActionError, PlayheadError
from playhead.world.terminal import printable


def refusal(id: int, error: BaseException) -> ErrorReply:
    """The answer to request number `id`; a fault of the server's own is logged."""
    code: Code = "ended"
    if isinstance(error, BridgeError):
        code, said = error.code, error.message
    elif isinstance(error, ActionError):
        code, said = "bad_action", str(error)
    else:
        said = f"the session could not go on: {error}"
        if not isinstance(error, PlayheadError):
            logging.getLogger("playhead").error("the bridge could not carry out a request", exc_info=error)
    return ErrorReply(id=id, code=code, message=printable(said, 2000))
