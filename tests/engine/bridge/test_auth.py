"""Beyond loopback only those come in whose key the server has, and who trust this very server."""

import contextlib
import socket

import pytest
import zmq

from engine.bridge import protocol as p
from engine.bridge.auth import (
    ServerKeys,
    check_address,
    check_target,
    load_client_keys,
    load_server_keys,
    new_keys,
)
from engine.bridge.client import Client
from engine.bridge.hall import Hall
from engine.bridge.server import Server, serve_in_background
from scenes.scene import load_scene
from tests.engine.bridge.conftest import serving
from world.action import Action
from world.errors import PlayheadError


def test_only_a_known_key_and_the_right_server_key_get_an_answer(keys, tiny_world, tiny_scene):
    trusted = load_server_keys(keys / "server.key_secret", keys / "allowed")

    def welcomed(client: str | None, of: str = "server", patience: float = 1) -> bool:
        pair = load_client_keys(keys / f"{client}.key_secret", keys / f"{of}.key") if client else None
        try:
            Client(address, "test", pair, patience).close()
        except PlayheadError as error:
            assert "does not answer" in str(error)
            return False
        return True

    with serving(tiny_world, tiny_scene, trusted=trusted, bind="tcp://0.0.0.0:*") as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        assert welcomed("laptop", patience=20)
        assert not welcomed(None)
        assert not welcomed("stranger")
        assert not welcomed("laptop", of="stranger")
        (keys / "allowed" / "laptop.key").unlink()  # from now on
        assert not welcomed("laptop")


def test_who_has_no_known_key_sees_no_frame_of_a_session_whose_name_is_known(keys, tiny_world, tiny_scene):
    trusted = load_server_keys(keys / "server.key_secret", keys / "allowed")
    mine, stranger = (
        load_client_keys(keys / f"{name}.key_secret", keys / "server.key") for name in ("laptop", "stranger")
    )
    with serving(tiny_world, tiny_scene, trusted=trusted) as server, zmq.Context() as context:
        client = Client(server.address, "laptop", mine, patience=20)
        session = client.ask(p.Open(), p.Opened)[0].session
        watchers = []
        for pair in (mine, None, stranger):
            watchers.append(context.socket(zmq.SUB))
            watchers[-1].linger = 0
            if pair is not None:
                pair.apply(watchers[-1])
            watchers[-1].connect(f"tcp://127.0.0.1:{server.frames_port}")
            watchers[-1].subscribe(p.topic(session, "raw"))
        known, *unknown = watchers
        for _ in range(10):
            while not known.poll(50):
                client.ask(p.Step(session=session, actions=[Action()], frames="none"), p.Stepped)
            known.recv_multipart()
        assert not any(watcher.poll(0) for watcher in unknown)
        for watcher in watchers:
            watcher.close()
        client.close()


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:7770", "tcp://*:7770", "tcp://example.org:1", "tcp://[::]:1"]
)
def test_other_addresses_than_loopback_need_keys(address, tmp_path):
    with pytest.raises(PlayheadError, match="keys new"):
        check_address(address, None)
    check_address(address, ServerKeys(b"", b"", tmp_path))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:7770\n", "tcp://127.0.0.1:\u0661", "tcp://127.0.0.1:"])
def test_an_address_is_matched_to_its_last_letter(address):
    for check in (check_target, lambda address: check_address(address, None)):
        with pytest.raises(PlayheadError, match="is no address"):
            check(address)


@pytest.mark.parametrize("name", ["me\n", "\u0661", "a b", ""])
def test_a_keys_name_is_matched_to_its_last_letter(name, tmp_path):
    with pytest.raises(PlayheadError, match="is no name of a key"):
        new_keys(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_secret_is_for_its_owner_alone_and_is_never_replaced(tmp_path):
    _, secret = new_keys("me", tmp_path)
    assert secret.stat().st_mode & 0o077 == 0
    before = secret.read_bytes()
    with pytest.raises(PlayheadError, match="is there already"):
        new_keys("me", tmp_path)
    assert secret.read_bytes() == before


def two_free_ports() -> int:
    """The first of two ports that follow one another, both free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, contextlib.suppress(OSError):
            port = first.getsockname()[1]
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def test_frames_have_the_next_port_or_the_one_that_is_chosen_or_any(tiny_world, tiny_scene):
    def ports(address: str, frames_port: int | None = None) -> tuple[int, int]:
        hall = Hall([tiny_world], [load_scene(tiny_scene)])
        server = Server(hall, address, frames_port=frames_port)
        made.append((server, serve_in_background(server)))
        return int(server.address.rpartition(":")[2]), server.frames_port

    made: list = []
    try:
        first = two_free_ports()
        assert ports(f"tcp://127.0.0.1:{first}") == (first, first + 1)
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
            before_taken, chosen = taken.getsockname()[1] - 1, free.getsockname()[1]
            free.close()
            other, any_one = ports(f"tcp://127.0.0.1:{before_taken}")
            assert other == before_taken and any_one not in (before_taken, before_taken + 1)
            assert ports("tcp://127.0.0.1:*", chosen)[1] == chosen
        with pytest.raises(PlayheadError, match=f"{chosen} cannot be bound to"):
            ports("tcp://127.0.0.1:*", chosen)
    finally:
        for server, thread in made:
            server.stop()
            thread.join(20)
            assert not thread.is_alive()
