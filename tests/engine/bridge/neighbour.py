"""A well-behaved client: plays in lockstep until its input ends, then prints what it waited for, as JSON.

Run as `python -m tests.engine.bridge.neighbour ADDRESS`.
"""

import json
import sys
import threading
import time

import numpy as np

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.world.action import Action


def play(address: str) -> dict[str, float]:
    """Seconds: the median `tick`, and by how much answers came later than their ticks: p50, p99, longest."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    client = Client(address, "neighbour", patience=60)
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    print(session, flush=True)
    step, ticks, late = p.StepRequest(session=session, actions=[Action(frozenset({"forward"}))]), [], []
    while not ended.is_set():
        began = time.perf_counter()
        stepped, frames = client.ask(step, p.StepReply)
        took = time.perf_counter() - began
        assert frames is not None and stepped.tick == len(ticks) + 1
        ticks.append(stepped.tick_seconds)
        late.append(took - stepped.tick_seconds)
    client.close()
    p50, p99 = np.percentile(late, [50, 99])
    return {
        "ticks": len(ticks), "tick": float(np.median(ticks)), "p50": p50, "p99": p99, "longest": max(late)
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(play(sys.argv[1])), flush=True)
