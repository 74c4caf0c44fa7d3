"""A connection to a running server that several threads may ask by; once it is lost it is made anew."""

import platform
import threading

import numpy as np

from playhead.engine.bridge.client.client import Client, Expected
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.auth import ClientKeys

FIRST, PATIENCE = 5.0, 300.0
"""Seconds that a welcome is waited for, and any other reply: a server may open a large world, or play on."""


class RemoteLine:
    """Asks one question after another. Raises PlayheadError as `Client` does."""

    def __init__(self, address: str, keys: ClientKeys | None) -> None:
        self._address, self._keys, self._lock = address, keys, threading.Lock()
        self._client = self._dial("")

    def ask(self, request: p.Message, reply: type[Expected]) -> tuple[Expected, np.ndarray | None]:
        """Sends a request, waits for the reply and the frames that come with it.

        A connection that was lost since is made anew first: as the same client, so that its sessions are its
        own still, if the server is the one that it was.
        """
        with self._lock:
            if self._client.lost:
                token = self._client.welcome.token
                self._client.close()
                self._client = self._dial(token)
            return self._client.ask(request, reply)

    def _dial(self, token: str) -> Client:
        name = f"a model on {platform.node() or 'another machine'}"
        client = Client(self._address, name, self._keys, FIRST, token)
        client.patience = PATIENCE
        return client

    @property
    def public(self) -> list[str]:
        """The sessions that everybody may go on with."""
        return self._client.welcome.sessions

    def close(self) -> None:
        with self._lock:
            self._client.close()
