"""A scripted walker: plays a world over a socket, tick by tick, and keeps the picture where it ended.

    python examples/walker.py                                   # starts a server of its own
    python examples/walker.py --connect tcp://127.0.0.1:7770    # walks on one that is there

It speaks the protocol of docs/protocol.md by itself, so it can be carried over to any language.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import zmq

from playhead.render.export.sheet import write_png

WALK = [(["forward"], 12), (["forward", "turn_right"], 8), (["strafe_left"], 4), ([], 2), (["attack"], 1)]
"""Buttons and for how many ticks they are held."""


class Bridge:
    """One connection, one request at a time."""

    def __init__(self, address: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(address)
        self._count = 0
        self.ask("hello", protocol=[1], client="walker")

    def ask(self, type: str, **fields: object) -> tuple[dict, np.ndarray | None]:
        """Sends a request. Returns its reply, and the frames uint8 `(n, H, W, 3)` if it has any."""
        self._count += 1
        self._socket.send(msgspec.msgpack.encode({"type": type, "id": self._count, **fields}))
        while self._socket.poll(60_000):
            head, *frames = self._socket.recv_multipart()
            reply = msgspec.msgpack.decode(head)
            if reply["type"] == "error":
                sys.exit(f"{reply['code']}: {reply['message']}")
            if reply["id"] == self._count:
                return reply, np.frombuffer(frames[0], np.uint8).reshape(reply["shape"]) if frames else None
        sys.exit("the server does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description="Walks through a neural world by a script.")
    parser.add_argument("--connect", help="the address of `main.py serve`; else one is started")
    parser.add_argument("--world", default="", help="a world's name; else the first that has the buttons")
    parser.add_argument("--scene", default="", help="a scene's name; else the world's first")
    parser.add_argument("--seed", type=int, help="else the scene's")
    parser.add_argument("--out", type=Path, default=Path("walker.png"))
    wanted = parser.parse_args()
    server = None
    if wanted.connect is None:
        command = [sys.executable, "-m", "playhead", "serve", "--bind", "tcp://127.0.0.1:*"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        wanted.connect = server.stdout.readline().rpartition(" at ")[2].strip()
        if not wanted.connect:
            sys.exit("the server did not start")
    try:
        bridge = Bridge(wanted.connect)
        walk(bridge, find_world(bridge, wanted.world, wanted.scene), wanted.scene, wanted.seed, wanted.out)
    finally:
        if server is not None:
            server.terminate()
            server.wait()


def find_world(bridge: Bridge, name: str, scene: str) -> str:
    """The first world there that can be walked in: of that name, with that scene, if they are given."""
    needed = {button for buttons, _ in WALK for button in buttons}
    worlds = bridge.ask("worlds")[0]["worlds"]
    for world in worlds:
        named = name in ("", world["name"]) and (not scene or scene in [s["name"] for s in world["scenes"]])
        if named and needed <= set(world["buttons"]):
            return world["name"]
    wanted = "".join([f" `{name}`" if name else "", f" with the scene `{scene}`" if scene else ""])
    here = "; ".join(f"{w['name']}, which has {', '.join(w['buttons'])}" for w in worlds) or "none"
    sys.exit(
        f"the server has no world{wanted} to walk in, by {', '.join(sorted(needed))}; it has {here}; "
        "leave --world or --scene out, or start it with --world freedoom"
    )


def walk(bridge: Bridge, world: str, scene: str, seed: int | None, out: Path) -> None:
    """Opens a session, plays the script in it and saves the last frame."""
    opened, frames = bridge.ask("open", world=world, scene=scene, seed=seed)
    session = opened["session"]
    print(
        f"{opened['scene']['title']}, seed {opened['seed']}; buttons: {', '.join(opened['world']['buttons'])}"
    )
    for buttons, ticks in WALK:
        began = time.perf_counter()
        stepped, frames = bridge.ask("step", session=session, actions=[{"buttons": buttons}] * ticks)
        seconds = time.perf_counter() - began
        held = "+".join(buttons) or "nothing"
        print(f"ticks {stepped['first']:3} to {stepped['tick']:3}: {held:20} {ticks / seconds:6.1f} ticks/s")
    write_png(out, frames[-1])
    print(f"saved {out}")
    bridge.ask("close", session=session)


if __name__ == "__main__":
    main()
