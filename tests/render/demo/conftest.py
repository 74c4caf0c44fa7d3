"""A server with forms beside the page, and what asks them by plain HTTP as Gradio's page does."""

import http.client
import io
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.render.demo.demo_door import DemoDoor
from playhead.render.web.access import WebAddress
from playhead.scenes.scene import load_scene

ROOT = Path(__file__).parents[3]
API = "/demo/gradio_api"
FILM, PICTURE = "film", "picture"


@contextmanager
def serving_forms(
    world, scene: Path, limits: Limits | None = None, recordings: Path | None = None, framed_by="", **address
) -> Iterator[tuple[Server, DemoDoor]]:
    """A server without ZeroMQ, and its door at a free port of this machine."""
    registry = Registry([world], [load_scene(scene)])
    server = Server(registry, None, limits=limits, recordings=recordings)
    door = DemoDoor(server, registry, WebAddress("127.0.0.1", 0, **address), limits, framed_by)
    thread = serve_in_background(server)
    door.start()
    try:
        yield server, door
    finally:
        server.stop()
        thread.join(20)
        door.stop(20)
        assert not thread.is_alive()


class FormsClient:
    """What a page says over HTTP; each request by a connection of its own."""

    def __init__(self, door: DemoDoor, **headers: str) -> None:
        self.port = door.address.port
        self.host = f"127.0.0.1:{self.port}"
        self.headers = {"origin": f"http://{self.host}", **headers}

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """An answer, read: `said` are its bytes."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        line.request(method, path, body, {**self.headers, **named})
        answer = line.getresponse()
        answer.said = answer.read()
        line.close()
        return answer

    def get(self, path: str, **headers: str):
        return self.request("GET", path, **headers)

    def post(self, path: str, value: object, **headers: str):
        body = json.dumps(value).encode()
        return self.request("POST", path, body, content_type="application/json", **headers)

    def upload(self, data: bytes, name: str = "a.bin"):
        """The answer to an upload, of a file that is called so."""
        mark = secrets.token_hex(8)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        return self.request("POST", f"{API}/upload", body, content_type=kind)

    def uploaded(self, data: bytes, name: str = "a.bin") -> dict[str, object]:
        """What a page has as the value of a file that it uploaded."""
        answer = self.upload(data, name)
        assert answer.status == 200, answer.said
        (ticket,) = json.loads(answer.said)
        return {"path": ticket, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def join(self, form: str, *values: object) -> str:
        """Has a form sent. Returns the hash by which its messages are read."""
        config = json.loads(self.get("/demo/config").said)
        (index,) = (d["id"] for d in config["dependencies"] if d["api_name"] == form)
        session = secrets.token_hex(6)
        asked = {"data": list(values), "fn_index": index, "session_hash": session}
        answer = self.post(f"{API}/queue/join", asked)
        assert answer.status == 200, answer.said
        return session

    def messages(self, session: str) -> Iterator[dict]:
        """What the queue says of it, until it is done."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        line.request("GET", f"{API}/queue/data?session_hash={session}", headers=self.headers)
        answer = line.getresponse()
        assert answer.status == 200
        try:
            while row := answer.readline():
                if row.startswith(b"data:"):
                    message = json.loads(row[5:])
                    yield message
                    if message["msg"] in ("process_completed", "unexpected_error"):
                        return
        finally:
            line.close()

    def send(self, form: str, *values: object) -> dict:
        """Sends a form, and waits for the end of it. Returns the last message; the others are `told`."""
        self.told = [*self.messages(self.join(form, *values))]
        return self.told[-1]

    def film(self, script: str, scene="tiny-scene", seed="", steps=None, array=None) -> dict:
        """Films a script of the tiny world. Returns what the page is given: the film, and what was filmed."""
        last = self.send(FILM, "tiny", scene, seed, steps, script, array)
        assert last["success"], last
        bar, film, said = last["output"]["data"]
        return {"bar": bar, "film": film, **said}

    def refusal(self, form: str, *values: object) -> str:
        """The sentence by which a form is refused."""
        last = self.send(form, *values)
        assert not last["success"], last
        return last["output"]["error"]


def png(height=48, width=80, seed=0) -> bytes:
    """A picture of noise."""
    from PIL import Image

    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
