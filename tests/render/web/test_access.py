"""Who may come in by a browser, and who is refused before anything is looked at."""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from playhead.main import main
from playhead.render.web.access import WebAddress, is_loopback, parse_web_address, read_token, web_address
from playhead.world.errors import PlayheadError
from tests.engine.bridge.conftest import serve_process
from tests.render.web.conftest import ROOT, serve_pages, serving_pages

TOKEN = "t" * 43


@pytest.fixture(scope="module")
def local(tiny_world, tiny_scene):
    with serving_pages(tiny_world, tiny_scene) as (_, door):
        yield door


@pytest.fixture(scope="module")
def proxied(tiny_world, tiny_scene):
    """As behind a proxy: with a token, whatever name it is asked by."""
    with serving_pages(tiny_world, tiny_scene, behind_proxy=True, token=TOKEN) as (_, door):
        yield door


def get(door, path="/", host=None, method="GET", **headers) -> http.client.HTTPResponse:
    line = http.client.HTTPConnection("127.0.0.1", door.address.port, timeout=20)
    line.putrequest(method, path, skip_host=True)
    for name, value in {"host": host or f"127.0.0.1:{door.address.port}", **headers}.items():
        line.putheader(name.replace("_", "-"), value)
    line.endheaders()
    answer = line.getresponse()
    answer.said = answer.read().decode("utf-8", "replace")
    line.close()
    return answer


def status_of(door, origin, host=None, **headers) -> int:
    """What a WebSocket's handshake is answered with, 101 where it is opened."""
    port = door.address.port
    url = f"ws://{host or f'127.0.0.1:{port}'}/play"
    line = socket.create_connection(("127.0.0.1", port), 20)
    try:
        with connect(url, origin=origin, additional_headers=headers, proxy=None, sock=line, open_timeout=20):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_the_page_is_whole_and_nothing_of_it_comes_from_elsewhere(local):
    page = get(local)
    assert page.status == 200 and page.getheader("content-type").startswith("text/html")
    policy = page.getheader("content-security-policy")
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
    folder = ROOT / "render" / "web" / "page"
    for file in folder.iterdir():
        answer = get(local, f"/page/{file.name}" if file.name != "index.html" else "/")
        assert answer.status == 200 and answer.said == file.read_text("utf-8")
        assert "https://" not in answer.said and 'import("http' not in answer.said


@pytest.mark.parametrize(
    "path",
    ["/page/../door.py", "/page/%2e%2e%2fdoor.py", "/page//etc/passwd", "/page/nothing.js", "/keys/..%2f..",
     "/x", "/picture/tiny/%2e%2e", "/picture/other/tiny-scene", "/download/nothing", "/download/..%2f..%2fx"],
)  # fmt: skip
def test_a_path_names_what_is_offered_and_nothing_else(local, path):
    assert get(local, path).status == 404


def test_a_download_is_for_get_alone(local):
    assert get(local, "/download/x", method="HEAD").status == 405


def test_what_a_world_is_played_with_is_told(local):
    keys = json.loads(get(local, "/keys/tiny").said)
    assert keys["buttons"]["attack"] == ["space"]  # and not ctrl, with which `w` closes a tab
    assert keys["buttons"]["forward"] == ["w", "up"] and keys["functions"]["branches"] == ["m"]
    assert "quit" not in keys["functions"] and keys["help"]["pause"] == "pause and go on"
    assert get(local, "/picture/tiny/tiny-scene").getheader("content-type") == "image/jpeg"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7780", "10.0.0.1", "", "127.0.0.1.evil.example"]
)
def test_a_name_that_leads_here_from_elsewhere_is_not_answered_to(local, host):
    assert get(local, host=host or " ").status in (400, 421)
    if host:
        assert status_of(local, f"http://{host}", host) in (403, 421)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "127.8.8.8"])
def test_this_machines_names_are_answered_to(local, name):
    host = f"{name}:{local.address.port}"
    assert get(local, host=host).status == 200
    assert status_of(local, f"http://{host}", host) == 101


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://{here}", "http://127.0.0.1:1", "file://"]
)
def test_a_websocket_is_opened_for_the_servers_own_page_alone(local, origin):
    here = f"127.0.0.1:{local.address.port}"
    assert status_of(local, origin and origin.format(here=here)) == 403
    assert status_of(local, f"http://{here}") == 101


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_are_read_and_nothing_else(local, method):
    assert get(local, method=method).status == 405


def test_elsewhere_nothing_is_had_without_the_token(proxied):
    for path in (
        "/",
        "/page/main.js",
        "/keys/tiny",
        "/picture/tiny/tiny-scene",
        f"/?token={TOKEN[:-1]}",
        "/?token=",
    ):
        assert get(proxied, path, "play.example").status == 401
    assert status_of(proxied, "https://play.example", "play.example") == 403
    wrong = {"Cookie": f"playhead-{proxied.address.port}={TOKEN[:-1]}x"}
    assert status_of(proxied, "https://play.example", "play.example", **wrong) == 403


def test_the_link_leaves_a_cookie_by_which_all_is_had(proxied):
    answer = get(proxied, f"/?token={TOKEN}", "play.example")
    assert (answer.status, answer.getheader("location")) == (303, "/")
    cookie = answer.getheader("set-cookie")
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=lax"))
    cookie = cookie.split(";")[0]
    assert get(proxied, "/", "play.example", cookie=cookie).status == 200
    assert status_of(proxied, "https://play.example", "play.example", Cookie=cookie) == 101
    assert status_of(proxied, "http://play.example", "play.example", Cookie=cookie) == 403
    assert status_of(proxied, "https://evil.example", "play.example", Cookie=cookie) == 403


def test_an_address_beyond_this_machine_needs_tls_and_gets_a_token(tmp_path):
    for host in ("0.0.0.0", "192.168.1.5", "play.example", "[::]"):
        with pytest.raises(PlayheadError, match="needs TLS"):
            web_address(f"{host}:7780", None, None, False, None)
        assert len(web_address(f"{host}:7780", None, None, True, None).token) >= 32
    assert web_address("127.0.0.1:7780", None, None, False, None).token == ""
    assert web_address(
        "127.0.0.1:7780", None, None, True, None
    ).token  # behind a proxy it is not for here alone
    file = tmp_path / "token"
    made = web_address("127.0.0.1:7780", None, None, False, file).token
    assert made == read_token(file) and file.stat().st_mode & 0o077 == 0
    file.write_text("short")
    with pytest.raises(PlayheadError, match="holds no token"):
        read_token(file)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (WebAddress("127.0.0.1", 0, Path("cert.pem")), "belong together"),
        (WebAddress("127.0.0.1", 0, Path("none.pem"), Path("none.key")), "is no file"),
        (
            WebAddress("127.0.0.1", 0, Path(__file__), Path(__file__), behind_proxy=True),
            "leave out --tls-cert",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(address, said):
    with pytest.raises(PlayheadError, match=said):
        address.check()


@pytest.mark.parametrize(
    "text", ["", "7780", "http://127.0.0.1:7780", "127.0.0.1", "127.0.0.1:99999", "::1:7780", "a b:1"]
)
def test_what_is_no_address_is_refused_in_a_sentence(text):
    with pytest.raises(PlayheadError, match=r"has the form 127.0.0.1:7780"):
        parse_web_address(text)


def test_addresses_are_read():
    assert parse_web_address("[::1]:*") == ("::1", 0) and parse_web_address("localhost:7") == ("localhost", 7)
    assert is_loopback("::1") and is_loopback("127.3.2.1") and not is_loopback("127.0.0.1.example")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("web", "--no-open", "--recordings", "x", "--no-record"), "contradict each other"),
        (("web", "--no-open", "--bind", "nowhere"), "is no address of a page"),
        (("web", "--no-open", "--bind", "here\n\x1b[31m:7"), "`here  [31m:7` is no address of a page"),
        (("web", "--no-open", "--bind", "203.0.113.1:7780", "--behind-proxy"), "cannot be bound to"),
        (
            ("web", "--no-open", "--tls-cert", __file__, "--tls-key", __file__, "--bind", "127.0.0.1:*"),
            "no TLS files",
        ),
        (("serve", "--behind-proxy"), "are for --web"),
        (("serve", "--bind", "tcp://127.0.0.1:*", "--web", "0.0.0.0:7780"), "needs TLS"),
    ],
)
def test_commands_refuse_in_a_sentence(words, said, tiny_world_folder, tiny_scene, capsys, monkeypatch):
    options = ("--world", str(tiny_world_folder), "--scene", str(tiny_scene))
    monkeypatch.setattr(sys, "argv", ["main.py", *words, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 2 and said in told.err and "Traceback" not in told.err


def test_by_tls_the_link_is_https_and_the_cookie_is_secure(tiny_world_folder, tiny_scene, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", cert], capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes the certificate")
    options = ("--tls-cert", str(cert), "--tls-key", str(key), "--bind", "0.0.0.0:*")
    with serve_pages(tiny_world_folder, tiny_scene, *options) as (_, link):
        assert link.startswith("https://0.0.0.0:") and "/?token=" in link
        port = int(link.split(":")[2].split("/")[0])
        context = ssl._create_unverified_context()
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, context=context)) as line:
            line.request("GET", link[link.index("/?") :])
            assert "Secure" in line.getresponse().getheader("set-cookie")


def test_serve_has_a_door_beside_the_bridge(tiny_world_folder, tiny_scene):
    with serve_process(tiny_world_folder, tiny_scene, "--web", "127.0.0.1:*") as (process, address):
        assert address.startswith("tcp://")
        link = process.stdout.readline().split()[-1]
        line = http.client.HTTPConnection("127.0.0.1", int(link.rsplit(":", 1)[1].strip("/")), timeout=20)
        line.request("GET", "/")
        assert line.getresponse().status == 200
