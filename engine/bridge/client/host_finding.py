"""From a server that plays no sessions itself to one that does."""

from dataclasses import replace

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.auth import ClientKeys
from playhead.engine.bridge.wire.protocol import BridgeError

GONE = ("unknown_session", "ended")
"""What a server says of a session that it has no more."""
FINDING = 70.0
"""Seconds that a host is waited for: one that is live may have to take the session over."""


def reach_host(
    address: str, name: str, keys: ClientKeys | None, patience: float, resume: str = "", session: str = ""
) -> Client:
    """A client of the server at `address` or, where that has hosts, of one of these.

    `session` and `resume`: of a session that was played before and its owner's token. Then that is the host
    which plays it now: where its own has died, one that goes on from its last snapshot. Raises as `Client`.
    """
    client = Client(address, name, keys, patience, resume)
    if not client.welcome.hosts:
        return client
    try:
        client.patience = FINDING
        found = _ask(client, session, resume)
    finally:
        client.close()
    own = replace(keys, server=found.key.encode()) if keys is not None else None
    return Client(found.address, name, own, patience, resume)


def _ask(client: Client, session: str, resume: str) -> protocol.HostReply:
    """Where that session is played; any host where nobody has it any more."""
    try:
        return client.ask(protocol.HostRequest(session=session, resume=resume), protocol.HostReply)[0]
    except BridgeError as error:
        if not session or error.code not in GONE:
            raise
        return client.ask(protocol.HostRequest(), protocol.HostReply)[0]
