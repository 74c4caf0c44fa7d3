"""What a page says and hears, without a browser: a WebSocket whose messages are dicts."""

import json
from collections import deque

import numpy as np
from websockets.sync.client import connect


class PageClient:
    """Says hello. `ask` waits for a reply; what comes unasked meanwhile is in `pushes`."""

    def __init__(self, link: str, name: str = "test", hello: bool = True) -> None:
        host = link.split("/")[2]
        self._open = connect(
            f"ws://{host}/play",
            origin=f"http://{host}",
            proxy=None,
            max_size=None,
            max_queue=None,
            open_timeout=20,
        )
        self.line = self._open.__enter__()
        self.count, self.pushes = 0, deque()
        self.welcome = self.ask("hello", protocol=[1], client=name) if hello else None

    def send(self, type: str, **fields) -> int:
        self.count += 1
        self.line.send(json.dumps({"type": type, "id": self.count, **fields}))
        return self.count

    def receive(self, seconds: float = 20) -> dict:
        """The next message; the bytes behind it are its `bytes`."""
        data = self.line.recv(seconds)
        if isinstance(data, str):
            return json.loads(data)
        length = int.from_bytes(data[:4], "little")
        return {**json.loads(data[4 : 4 + length]), "bytes": data[4 + length :]}

    def ask(self, type: str, **fields) -> dict:
        id = self.send(type, **fields)
        while (found := self.receive())["id"] != id or found["type"] in ("tick", "applied", "superseded"):
            self.pushes.append(found)
        return found

    def tick(self) -> dict:
        """The next tick of the stream."""
        while self.pushes:
            if (found := self.pushes.popleft())["type"] == "tick":
                return found
        while (found := self.receive())["type"] != "tick":
            pass
        return found

    def close(self) -> None:
        self.line.close()

    def __enter__(self) -> "PageClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frames_of_reply(reply: dict) -> np.ndarray:
    return np.frombuffer(reply["bytes"], np.uint8).reshape(reply["shape"])
