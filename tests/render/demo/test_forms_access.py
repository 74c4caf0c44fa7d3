"""Who may use the forms, and what of Gradio can be reached behind them: no file, no other machine."""

import json
import re
import socket

import pytest

from playhead.main import main
from playhead.render.demo import gradio_guard
from playhead.render.demo.kept_files import KeptFiles
from playhead.render.web.access import framing, web_address, without_token
from playhead.world.errors import PlayheadError
from tests.render.demo.conftest import API, FILM, PICTURE, FormsClient, serving_forms

TOKEN = "t" * 43
JOIN = f"{API}/queue/join"


@pytest.fixture(scope="module")
def door(tiny_world, tiny_scene):
    with serving_forms(tiny_world, tiny_scene) as (_, made):
        yield made


@pytest.fixture
def forms(door) -> FormsClient:
    return FormsClient(door)


@pytest.mark.parametrize("path", [JOIN, f"{API}/upload", f"{API}/cancel"])
def test_only_this_servers_own_pages_send_anything(door, path):
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": f"https://127.0.0.1:{door.address.port}"},
        {"origin": "null"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ):
        assert FormsClient(door, **headers).post(path, {}).status in (403, 421)
    silent = FormsClient(door)
    del silent.headers["origin"]
    assert silent.post(path, {}).status == 403


def test_nothing_is_sent_to_where_pages_are_only_read(forms):
    for path in ("/", "/play", "/keys/tiny", "/demo", "/download/x"):
        assert forms.post(path, {}).status == 405
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert forms.request(method, JOIN).status == 405


@pytest.mark.parametrize(
    "path",
    ["monitoring", "monitoring/summary", "login", "svelte/x", "pwa_icon", "manifest.json", "x",
     "static/../../x", "assets/%2e%2e/%2e%2e/routes.py", "static//etc/passwd"]
    + [f"gradio_api/{name}" for name in (
        "file=/etc/passwd", "file=../../etc/passwd", "file=%2Fetc%2Fpasswd", "file=http://127.0.0.1:9/",
        "file=main.py", "file/etc/passwd", "proxy=https://huggingface.co/", "user", "token", "startup-events",
        "openapi.json", "runs", "custom_component/x/client/component/x.js",
        "stream/a/b/1/playlist.m3u8", "call/film/x", "dev/reload", "vibe-code", "deep_link", "heartbeat/x",
    )],
)  # fmt: skip
def test_gradios_other_doors_are_shut(forms, path):
    assert forms.get(f"/demo/{path}").status == 404


@pytest.mark.parametrize(
    "path",
    ["run/film", "api/film", "call/film", "reset", "stream/x", "component_server", "process_recording",
     "vibe-edit", "run-history/connect"],
)  # fmt: skip
def test_nor_is_anything_sent_through_them(forms, path):
    assert forms.post(f"{API}/{path}", {"data": []}).status == 404


def test_a_file_that_a_request_names_is_neither_read_nor_fetched(forms):
    """By itself Gradio fetches what the value of any field says it is at, a text's too."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(1)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/a.png"
        for path in (address, "https://huggingface.co/a.png", "/etc/passwd", "main.py"):
            named = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
            assert "upload it again" in forms.refusal(PICTURE, named, "tiny", "", "")
            assert "upload it again" in forms.refusal(FILM, "tiny", "tiny-scene", "", None, "w", named)
            forms.refusal(FILM, named, named, named, None, named, None)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_no_message_names_a_file(forms, tiny_world_folder):
    said = [forms.get(path).said for path in ("/demo/", "/demo/config", f"{API}/info")]
    said.append(json.dumps(forms.film("w*2", array=None)).encode())
    said.append(json.dumps(forms.told).encode())
    answer = forms.upload(b"abc", "secret.npy")
    said.append(answer.said)
    back = forms.get(f"{API}/file={json.loads(answer.said)[0]}")
    assert back.said == b"abc" and back.getheader("content-type") == "application/octet-stream"
    said.append(repr(back.getheaders()).encode())
    text = b"\n".join(said)
    for word in (b"/tmp", b"playhead-demo", b"secret", b"site-packages", b"/home", b"/root"):
        assert word not in text, word


def test_the_page_and_its_looks_name_no_other_site(forms):
    paths = "/demo/", "/demo/theme.css", "/demo/config"
    page, looks, config = (forms.get(path).said.decode() for path in paths)
    sheets = re.findall(r'href="\./(assets/[^"]+\.css)"', page)
    assert sheets
    looks += "".join(forms.get(f"/demo/{sheet}").said.decode() for sheet in sheets)
    own = (f"http://{forms.host}", "http://www.w3.org/2000/svg")
    for text in (page, looks, config):
        named = re.findall(r"https?://[^\s\"'()<>\\]+", text)
        assert not [address for address in named if not address.startswith(own)]
    said = json.loads(config)
    assert said["analytics_enabled"] is False and said.get("stylesheets", []) == []


def test_the_browser_is_told_to_ask_nobody_else(forms, tiny_world, tiny_scene):
    policy = forms.get("/demo/").getheader("content-security-policy")
    assert "default-src 'none'" in policy and "http" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy and "form-action 'none'" in policy
    page = forms.get("/").getheader("content-security-policy")
    assert "frame-ancestors 'self'" in page and "unsafe" not in page
    with serving_forms(tiny_world, tiny_scene, framed_by="https://huggingface.co") as (_, door):
        for path in ("/demo/", "/"):
            policy = FormsClient(door).get(path).getheader("content-security-policy")
            assert policy.split("frame-ancestors")[1].split()[-1] == "https://huggingface.co"
            assert policy.count("http") == 1


def test_elsewhere_everything_needs_the_token(tiny_world, tiny_scene):
    with serving_forms(tiny_world, tiny_scene, behind_proxy=True, token=TOKEN) as (_, door):
        assert door.link.endswith(f"/demo/?token={TOKEN}")
        here = f"127.0.0.1:{door.address.port}"
        stranger = FormsClient(door, origin=f"https://{here}")
        for path in ("/", "/demo/", "/demo/config", f"{API}/info", f"{API}/queue/data", "/demo/assets/x"):
            assert stranger.get(path).status == 401
        for path in (JOIN, f"{API}/upload"):
            assert stranger.post(path, {}).status == 401
            assert stranger.post(f"{path}?token={TOKEN}", {}).status == 401
        answer = stranger.get(f"/demo/?token={TOKEN}")
        assert answer.status == 303 and answer.getheader("location") == "/demo/"
        cookie = answer.getheader("set-cookie").partition(";")[0]
        friend = FormsClient(door, origin=f"https://{here}", cookie=cookie)
        assert friend.film("w*2")["ticks"] == 2
        assert FormsClient(door, origin=f"http://{here}", cookie=cookie).post(JOIN, {}).status == 403
        page = friend.get("/demo/").said.decode()
        assert f"https://{here}/demo" in page and f"http://{here}/demo" not in page  # as the browser came


def test_what_is_sent_is_limited(forms, monkeypatch):
    assert forms.post(JOIN, {"data": ["x" * gradio_guard.LARGEST]}).status == 413
    assert forms.upload(b"x" * (gradio_guard.LARGEST_UPLOAD + 1)).status == 413
    assert forms.request("POST", JOIN, b"{", content_type="application/json").status == 400
    assert forms.request("POST", JOIN, b"[" * 100_000, content_type="application/json").status == 400
    assert forms.request("POST", f"{API}/upload", b"x", content_type="text/plain").status == 400
    assert forms.film("w*2")["ticks"] == 2


def test_an_upload_that_does_not_come_is_given_up(forms, monkeypatch):
    monkeypatch.setattr(gradio_guard, "SLOWEST", 0.2)
    head = (
        f"POST {API}/upload HTTP/1.1\r\nHost: {forms.host}\r\nOrigin: http://{forms.host}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n"
    )
    lines = [socket.create_connection(("127.0.0.1", forms.port), 20) for _ in range(gradio_guard.UPLOADS)]
    for line in lines:
        line.sendall(head.encode())
    assert [line.recv(12) for line in lines] == [b"HTTP/1.1 408"] * len(lines)
    for line in lines:
        line.close()
    monkeypatch.setattr(gradio_guard, "SLOWEST", 20.0)
    assert forms.upload(b"x").status == 200


def test_of_kept_files_the_oldest_go_and_all_with_the_process():
    kept = KeptFiles(most=3, size=100)
    tickets = [kept.take(b"x" * 10, "image/png") for _ in range(4)]
    assert [kept.find(ticket) is not None for ticket in tickets] == [False, True, True, True]
    assert len(set(tickets)) == 4 and all(len(ticket) >= 20 for ticket in tickets)
    paths = [kept.find(ticket).path for ticket in tickets[1:]]
    large = kept.take(b"x" * 90, "image/png")
    assert kept.find(tickets[2]) is None and kept.find(tickets[3]) and kept.find(large)
    with pytest.raises(PlayheadError, match="upload it again"):
        kept.read(tickets[0], "the picture")
    assert not paths[0].exists() and paths[2].exists() and not paths[2].parent.stat().st_mode & 0o077
    kept.close()
    assert not paths[2].parent.exists()


@pytest.mark.parametrize(
    "text", ["huggingface.co", "https://a b", "*", "https://*.co", "https://a.co; x", "'self'"]
)
def test_who_may_frame_it_is_a_site(text):
    with pytest.raises(PlayheadError, match="--framed-by"):
        framing(text)


def test_public_is_for_a_proxy(tmp_path):
    behind = web_address("127.0.0.1:0", None, None, True, None)
    assert behind.token and not without_token(behind, None).token
    with pytest.raises(PlayheadError, match="--behind-proxy"):
        without_token(web_address("127.0.0.1:0", None, None, False, None), None)
    with pytest.raises(PlayheadError, match="contradict"):
        without_token(behind, tmp_path / "token")


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    import sys

    monkeypatch.delitem(sys.modules, "playhead.render.demo.demo_door", raising=False)
    monkeypatch.delitem(sys.modules, "playhead.render.demo.gradio_app", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["playhead", "demo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "[demo]" in capsys.readouterr().err
