"""Every type of request has somebody who carries it out."""

from typing import get_args

import msgspec
import pytest

from playhead.engine.bridge.wire import protocol as p
from playhead.world.action import Action


@pytest.mark.parametrize("kind", get_args(p.Request), ids=lambda kind: kind.__name__.lower())
def test_every_request_of_the_protocol_is_carried_out_or_refused_with_a_reason(kind, connect, caplog):
    """Where nobody takes it, the answer is that the session could not go on, and a fault is logged."""
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    values = {
        "session": session, "actions": [Action()], "action": Action(), "snapshot": "", "tick": 0,
        "name": "walk", "want": "take", "protocol": [p.VERSION], "client": "test", "branch": 1,
    }  # fmt: skip
    needed = [field.name for field in msgspec.structs.fields(kind) if field.required]
    id = client.send(kind(**{name: values[name] for name in needed}))
    while (found := client.receive(20)[0]).id != id:
        pass
    assert not (isinstance(found, p.ErrorReply) and found.code == "ended") and not caplog.records
