"""Beyond loopback only those come in whose key the server has, and who trust this very server."""

import contextlib
import os
import socket

import pytest
import zmq
import zmq.auth

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.auth import (
    ServerKeys,
    check_address,
    check_target,
    load_client_keys,
    load_server_keys,
    new_keys,
)
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from tests.engine.bridge.conftest import serving


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
        session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
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
                client.ask(p.StepRequest(session=session, actions=[Action()], frames="none"), p.StepReply)
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


@pytest.mark.parametrize("host", ["X127.0.0.1", "127.0.0.1X", "127.0.0.1.example.org", "localhost.org"])
def test_a_name_that_only_holds_a_loopback_address_needs_keys(host):
    """Whoever owns the name says which machine it is."""
    with pytest.raises(PlayheadError, match="keys new"):
        check_address(f"tcp://{host}:7770", None)


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
        registry = Registry([tiny_world], [load_scene(tiny_scene)])
        server = Server(registry, address, frames_port=frames_port)
        made.append((server, serve_in_background(server)))
        return int(server.address.rpartition(":")[2]), server.frames_port

    made: list = []
    try:
        first = two_free_ports()
        assert ports(f"tcp://127.0.0.1:{first}") == (first, first + 1)
        before_taken = two_free_ports()  # the port before just any one may be another process's
        taken = socket.create_server(("127.0.0.1", before_taken + 1))
        with taken, socket.create_server(("127.0.0.1", 0)) as free:
            chosen = free.getsockname()[1]
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


def says(sentence: str):
    """The whole sentence: it is all that the person at the command line gets."""
    return pytest.raises(PlayheadError, check=lambda error: str(error) == sentence)


def test_keys_are_loaded_as_they_were_made_or_not_at_all(keys):
    secret, server, clients = keys / "laptop.key_secret", keys / "server.key", keys / "allowed"
    trusted = load_server_keys(keys / "server.key_secret", clients)
    assert (trusted.public, trusted.secret) == zmq.auth.load_certificate(keys / "server.key_secret")
    assert trusted.clients == clients
    mine = load_client_keys(secret, server)
    assert (mine.public, mine.secret) == zmq.auth.load_certificate(secret)
    assert mine.server == trusted.public
    assert load_server_keys(None, None) is None and load_client_keys(None, None) is None


def test_half_of_what_belongs_together_is_refused(keys):
    secret, server, clients = keys / "laptop.key_secret", keys / "server.key", keys / "allowed"
    for pair in ((secret, None), (None, clients)):
        with says("--key and --clients belong together: the server's key and who may connect"):
            load_server_keys(*pair)
    for pair in ((secret, None), (None, server)):
        with says("--key and --server-key belong together: your secret key, its public one"):
            load_client_keys(*pair)


def test_files_that_are_no_keys_are_named_with_the_option_that_wants_one(keys, tmp_path):
    secret, server, clients = keys / "laptop.key_secret", keys / "server.key", keys / "allowed"
    words = tmp_path / "words"
    words.write_text("no key", "utf-8")
    with says(f"{words} is no folder; --clients is the folder of the clients' public keys"):
        load_server_keys(secret, words)
    for path in (words, tmp_path / "nowhere"):
        with says(f"{path} is no key file; --key wants one that `keys new` made"):
            load_server_keys(path, clients)
        with says(f"{path} is no key file; --key wants one that `keys new` made"):
            load_client_keys(path, server)
        with says(f"{path} is no key file; --server-key wants one that `keys new` made"):
            load_client_keys(secret, path)
    for load in (lambda: load_server_keys(server, clients), lambda: load_client_keys(server, server)):
        with says(f"{server} holds no secret key; --key wants the file that ends in .key_secret"):
            load()


def test_a_file_that_is_no_key_keeps_nobody_out(keys, tmp_path):
    """Those before it and after it in the folder are still found, and files of other kinds let nobody in."""
    clients = tmp_path / "clients"
    clients.mkdir()
    public, other = (zmq.auth.load_certificate(keys / f"{n}.key")[0] for n in ("laptop", "stranger"))
    trusted = ServerKeys(b"", b"", clients)
    assert not trusted.callback("", public)
    for number in range(5):
        (clients / f"broken{number}.key").write_text("no key", "utf-8")
    assert trusted.callback("", public) is False
    (clients / "laptop.key").write_bytes((keys / "laptop.key").read_bytes())
    (clients / "stranger.txt").write_bytes((keys / "stranger.key").read_bytes())
    assert trusted.callback("", public) is True
    assert trusted.callback("", other) is False


def test_the_keys_that_are_made_are_named_and_one_of_them_is_public(tmp_path):
    folder = tmp_path / "a" / "b"
    before = os.umask(0o027)
    try:
        public, secret = new_keys("me-2_X", folder)
        assert os.umask(0o027) == 0o027, "the process goes on as it was"
    finally:
        os.umask(before)
    assert (public, secret) == (folder / "me-2_X.key", folder / "me-2_X.key_secret")
    assert sorted(folder.iterdir()) == [public, secret]
    assert public.stat().st_mode & 0o777 == 0o644 and secret.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert zmq.auth.load_certificate(public) == (zmq.auth.load_certificate(secret)[0], None)
    new_keys("x" * 64, folder)


def test_what_keeps_keys_from_being_made_is_said(tmp_path):
    long, words = "x" * 65, tmp_path / "words"
    for name in ("-me", "_me", "me.key", "../me", long):
        with says(f"`{name}` is no name of a key; use letters, digits, hyphens and underscores"):
            new_keys(name, tmp_path)
    for name in ("me.key", "me.key_secret"):
        (tmp_path / name).touch()
        with says(f"{tmp_path / name} is there already; choose another name or --out"):
            new_keys("me", tmp_path)
        (tmp_path / name).unlink()
    words.touch()
    with says(f"{words} cannot be written (File exists); choose another --out"):
        new_keys("me", words)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:7770",
        "tcp://127.8.9.10:1",
        "tcp://localhost:65535",
        "tcp://[::1]:7770",
        "tcp://127.0.0.1:*",
    ],
)
def test_loopback_needs_no_keys(address):
    check_address(address, None)


def test_what_an_address_lacks_is_said(tmp_path):
    with says(
        "tcp://10.0.0.1:7770 can be reached from other machines, which needs keys: make them by "
        "`main.py keys new server` and `main.py keys new NAME`, then give --key server.key_secret "
        "and --clients FOLDER"
    ):
        check_address("tcp://10.0.0.1:7770", None)
    for address in ("tcp://127.0.0.1:65536", "tcp://127.0.0.1:123456", "127.0.0.1:1", "udp://127.0.0.1:1",
                    "tcp://::1:7770", "tcp://[]:1", "tcp://a/b:1", ""):  # fmt: skip
        with says(f"`{address}` is no address; it has the form tcp://127.0.0.1:7770"):
            check_address(address, ServerKeys(b"", b"", tmp_path))
        with says(f"`{address}` is no address to connect to; it has the form tcp://host:7770"):
            check_target(address)


def test_one_connects_to_a_port_that_is_known():
    for address in ("tcp://host:7770", "tcp://127.0.0.1:65535", "tcp://[::1]:1"):
        check_target(address)
    for address in ("tcp://host:*", "tcp://host:0"):
        with says(f"`{address}` is no address to connect to; it has the form tcp://host:7770"):
            check_target(address)
