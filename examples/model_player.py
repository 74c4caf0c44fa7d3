"""A language model plays a corridor, by MCP; a script stands in for the model, so that it runs anywhere.

    python examples/model_player.py                                        # starts `playhead mcp` itself
    python examples/model_player.py --connect http://127.0.0.1:7780/mcp    # one that is there

Whatever speaks MCP can take the stand-in's place: it is given the same tools, pictures and resource.
Needs the extra `mcp`.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import sys
from pathlib import Path

import av
import numpy as np

from playhead.world.extras import install

try:
    from mcp import StdioServerParameters
    from mcp.client import Client
except ImportError:
    sys.exit(f"a language model's play needs the mcp SDK: {install('mcp')}")

LEAST_CHANGE = 10.0
"""Mean difference of two pictures, of 255, below which the walker has come to a wall."""


def walk_on(before: np.ndarray, now: np.ndarray) -> list[dict]:
    """The stand-in for a model: walks while the picture changes; before a wall it turns to the right."""
    change = np.abs(now.astype(int) - before.astype(int)).mean()
    if change < LEAST_CHANGE:
        return [{"buttons": ["turn_right"], "ticks": 6}]
    return [{"buttons": ["forward"], "ticks": 8}]


async def play(client: Client, scene: str, turns: int, width: int, save: str) -> None:
    """Opens a scene, has the stand-in act for so many turns, goes back once, and saves what was played."""

    async def call(tool: str, **arguments: object) -> tuple[dict, list[bytes]]:
        found = await client.call_tool(tool, arguments)
        if found.is_error:
            sys.exit(found.content[0].text)
        said, *pictures = found.content
        return json.loads(said.text), [base64.b64decode(picture.data) for picture in pictures]

    opened, pictures = await call("open", scene=scene, width=width)
    name = opened["session"]
    print(f"{opened['title']}: buttons {', '.join(opened['buttons'])}")
    before = now = pixels(pictures[-1])
    moves = [{"buttons": ["forward"], "ticks": 8}]
    for turn in range(turns):
        acted, pictures = await call("act", session=name, moves=moves, width=width)
        before, now = now, pixels(pictures[-1])
        held = "+".join(moves[0]["buttons"])
        print(f"branch {acted['branch']}, tick {acted['tick']:3}: {moves[0]['ticks']} ticks of {held}")
        if turn == turns // 2:
            await call("bookmark", session=name, name="half way")
        moves = walk_on(before, now)
    back, _ = await call("branch", session=name, moment="half way", width=width)
    print(f"back at tick {back['tick']}, to look the other way")
    acted, _ = await call("act", session=name, moves=[{"buttons": ["turn_left"], "ticks": 8}], width=width)
    print(f"branch {acted['branch']}, tick {acted['tick']:3}: 8 ticks of turn_left")
    if save:
        saved, _ = await call("save", session=name, name=save)
        print(f"saved {saved['ticks']} ticks as {saved['file']}")
    await call("close", session=name)


def pixels(png: bytes) -> np.ndarray:
    """A picture as uint8 `(H, W, 3)`."""
    with av.open(io.BytesIO(png)) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays a world by the tools that a language model is given.")
    parser.add_argument("--connect", help="the address of `playhead mcp --http`; else one is started")
    parser.add_argument("--scene", default="lamplit-corridor")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--width", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument(
        "--recordings", type=Path, default=Path("recordings"), help="of a server started here"
    )
    parser.add_argument("--save", default="", help="a name to save the recording as")
    wanted = parser.parse_args()
    command = ["-m", "playhead", "mcp", "--recordings", str(wanted.recordings)]
    here = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))

    async def run() -> None:
        async with Client(wanted.connect or here) as client:
            await play(client, wanted.scene, wanted.turns, wanted.width, wanted.save)

    asyncio.run(run())


if __name__ == "__main__":
    main()
