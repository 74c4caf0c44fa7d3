"""A world that is pushed to the hub comes back from it as it was; tried against a stand-in of the hub."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants

from playhead import Session, World, load_scene
from playhead.main import app
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from playhead.world.hub_worlds import push_world
from playhead.world.world_folders import SHIPPED


class Hub(ThreadingHTTPServer):
    """Takes commits, and gives the files of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.closed = False


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._file(False)

    def do_GET(self) -> None:
        self._file(True)

    def _file(self, body: bool) -> None:
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        self._send(data if body else b"", len(data))

    def _send(self, data: bytes, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", '"tag"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.closed:
            self.send_error(403)
            return
        url = f"http://127.0.0.1:{self.server.server_port}/me/world"
        answer: dict[str, object] = {"errors": [], "warnings": []}
        if self.path.endswith("/repos/create"):
            answer = {"url": url}
        elif "/preupload/" in self.path:
            files = json.loads(said)["files"]
            answer = {"files": [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in files
            ]}  # fmt: skip
        elif "/commit/" in self.path:
            for line in map(json.loads, said.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[f"/me/world/resolve/main/{line['value']['path']}"] = content
            answer = {"commitUrl": f"{url}/commit/1", "commitOid": "1", "success": True}
        data = json.dumps(answer).encode()
        self._send(data, len(data))

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", url, raising=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_world_comes_back_from_the_hub_as_it_was_pushed(hub, tiny_world_folder, tiny_scene, capsys):
    app(["worlds", "push", str(tiny_world_folder), "me/world"], standalone_mode=False)
    assert "/me/world/commit/1" in capsys.readouterr().out
    names = {path.rpartition("/")[2] for path in hub.files}
    assert names == {"world.toml", "generator.safetensors", "autoencoder.safetensors", "README.md"}
    card = ModelCard(hub.files["/me/world/resolve/main/README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("other", "playhead") and "forward" in card.text
    scene = load_scene(tiny_scene)
    seen = []
    for world in (World.from_pretrained("me/world", device="cpu"), World.load(tiny_world_folder, "cpu")):
        session = Session(world, scene.context, 5)
        seen.append(np.concatenate([session.step(Action(frozenset({"forward"}))) for _ in range(4)]))
    assert np.array_equal(*seen)
    hub.files.clear()
    assert World.from_pretrained("me/world", device="cpu").config.name == "tiny"  # fetched once


def test_the_shipped_worlds_card_has_the_header_that_the_hub_reads():
    card = ModelCard((SHIPPED / "freedoom" / "MODEL_CARD.md").read_text("utf-8"))
    assert card.data.license == "apache-2.0" and "world-model" in card.data.tags
    assert card.text.lstrip().startswith("# freedoom")


def test_what_cannot_be_is_said_in_a_sentence(hub, tiny_world_folder, tmp_path):
    for repo in ("", "one", "a/b/c", "../x", "a/..", "https://huggingface.co/a/b"):
        with pytest.raises(PlayheadError, match="OWNER/REPO"):
            World.from_pretrained(repo)
        with pytest.raises(PlayheadError, match="OWNER/REPO"):
            push_world(tiny_world_folder, repo)
    with pytest.raises(PlayheadError, match=r"world.toml of me/none cannot be fetched"):
        World.from_pretrained("me/none")
    hub.closed = True
    with pytest.raises(PlayheadError, match="hf auth login"):
        push_world(tiny_world_folder, "me/world")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "world.toml").write_bytes((tiny_world_folder / "world.toml").read_bytes())
    with pytest.raises(PlayheadError, match="is missing"):
        push_world(tmp_path / "half", "me/world")
