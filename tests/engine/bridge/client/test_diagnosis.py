"""Whoever gets no answer is told why, as far as it can be known from here."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire.auth import load_client_keys, load_server_keys
from playhead.world.errors import PlayheadError
from tests.engine.bridge.conftest import serving


@contextmanager
def something_else() -> Iterator[str]:
    """A program that is no server of Playhead: it answers as a web server would."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            with end:
                end.recv(1000)
                end.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def why(address: str, keys=None, patience=4.0) -> str:
    with pytest.raises(PlayheadError) as error:
        Client(address, "test", keys, patience)
    assert str(error.value).startswith(f"{address} does not answer: ")
    return str(error.value)


def test_the_sentence_names_what_is_wrong_and_the_mend(keys, server, tiny_world, tiny_scene):
    def pair(client: str, of: str = "server"):
        return load_client_keys(keys / f"{client}.key_secret", keys / f"{of}.key")

    trusted = load_server_keys(keys / "server.key_secret", keys / "allowed")
    with serving(tiny_world, tiny_scene, trusted=trusted) as guarded:
        # A refusal ends the wait, as soon as a busy machine comes to it.
        assert "it wants keys; give yours by --key" in why(guarded.address, patience=30)
        assert "it does not know your key; your .key file" in why(
            guarded.address, pair("stranger"), patience=30
        )
        assert "not the server of that --server-key" in why(guarded.address, pair("laptop", "stranger"))
        assert "or was started without keys" in why(server.address, pair("laptop"))
        with something_else() as address:
            assert "no server of Playhead" in why(address)
    assert "nothing listens there; start `main.py serve`" in why("tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:7770", "http://127.0.0.1", "tcp://", "tcp://127.0.0.1:99999", ""]
)
def test_what_is_no_address_is_said_to_be_none(address):
    with pytest.raises(PlayheadError, match="is no address to connect to"):
        Client(address, "test", patience=1)
