"""The Space: its header is what the hub reads, it installs what it needs, and it plays in the hub's frame."""

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib

from tests.render.demo.conftest import ROOT

SPACE = ROOT / "examples" / "space"
WATCHED = """
import runpy, socket, sys
asked = open("asked", "w", buffering=1)
def note(event, values):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        asked.write(f"{event} {values}\\n")
sys.addaudithook(note)
with socket.socket() as probe:
    probe.connect_ex(("127.0.0.1", 1))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a program, and notes whom it asks for anything over the network."""


def test_its_header_names_what_is_there():
    header = SPACE.joinpath("README.md").read_text("utf-8").split("---\n")[1]
    said = dict(re.findall(r"^(\w+): \"?(.*?)\"?$", header, re.MULTILINE))
    assert {"title", "emoji", "colorFrom", "colorTo", "license"} <= set(said)
    pins = ROOT.joinpath("constraints.txt").read_text("utf-8")
    assert said["sdk"] == "gradio" and f"gradio=={said['sdk_version']}\n" in pins
    assert (SPACE / said["app_file"]).is_file() and said["base_path"] == "/demo/"
    assert len(said["short_description"]) <= 60  # the hub takes no longer one


def test_it_installs_what_playhead_needs():
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text("utf-8"))["project"]
    lines = SPACE.joinpath("requirements.txt").read_text("utf-8").splitlines()
    needs = [line for line in lines if not line.startswith(("#", "--"))]
    assert needs == [*project["dependencies"], *project["optional-dependencies"]["demo"]]


def test_it_serves_whoever_comes_through_the_hub(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(tmp_path)}
    (tmp_path / "run.py").write_text(WATCHED, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "run.py", str(SPACE / "app.py")],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert f":{port}/demo/" in process.stdout.readline()
        assert [*tmp_path.glob("playhead-demo-*")]
        name = "me-playhead.hf.space"
        answer = ask(port, f"GET /demo/ HTTP/1.1\r\nHost: {name}\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert "200 OK" in answer and "frame-ancestors https://huggingface.co" in answer
        assert f"https://{name}/demo" in answer and f"http://{name}" not in answer
        own = f"GET /play HTTP/1.1\r\nHost: {name}\r\nOrigin: https://{name}\r\nConnection: Upgrade\r\n"
        key = f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
        assert "101 Switching" in ask(port, own + key)
        assert "403" in ask(port, own.replace(f"https://{name}", "https://evil.example") + key)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    asked = (tmp_path / "asked").read_text("utf-8").splitlines()
    assert "('127.0.0.1', 1)" in asked[0]  # it is noted, and beside that nothing
    assert not [line for line in asked[1:] if "127.0.0.1" not in line and "localhost" not in line]
    assert not [*tmp_path.glob("playhead-demo-*")]  # what was uploaded and filmed goes with the process


def ask(port: int, request: str) -> str:
    """What is answered by bytes of HTTP, as far as it comes at once."""
    with socket.create_connection(("127.0.0.1", port), 20) as line:
        line.sendall(request.encode())
        line.settimeout(2)
        said = b""
        try:
            while piece := line.recv(65536):
                said += piece
        except TimeoutError:
            pass
    return said.decode("utf-8", "replace")
