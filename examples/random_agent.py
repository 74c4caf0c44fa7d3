"""A random agent: plays a world through Gymnasium and films what it sees.

    python examples/random_agent.py --ticks 200 --out random.mp4
    python examples/random_agent.py --connect tcp://127.0.0.1:7770    # the world is on a server

Needs the extra `agents` (Gymnasium).
"""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from playhead.render.export.video import VideoWriter
from playhead.world.errors import PlayheadError
from playhead.world.extras import install

try:
    import gymnasium
except ImportError:
    sys.exit(f"a random agent needs Gymnasium: {install('agents')}")

KEEP = 0.85
"""The chance that a button stays as it is for another tick: a player who changes his mind less often."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Films a random agent in a neural world.")
    parser.add_argument("--connect", help="the address of `main.py serve`; else the world is loaded here")
    parser.add_argument("--world", help="a world's name; else freedoom, or the server's first")
    parser.add_argument("--scene", help="a scene's name; else the world's first")
    parser.add_argument("--ticks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("random.mp4"))
    wanted = parser.parse_args()

    try:
        film(wanted)
    except PlayheadError as error:
        sys.exit(str(error))


def film(wanted: argparse.Namespace) -> None:
    """Plays an episode and films it."""
    options = {"render_mode": "rgb_array", "max_ticks": wanted.ticks}
    options |= {name: given for name in ("world", "scene") if (given := getattr(wanted, name))}
    if wanted.connect:
        env = gymnasium.make("playhead.engine.agents:playhead/Remote-v0", address=wanted.connect, **options)
    else:
        env = gymnasium.make("playhead.engine.agents:playhead/Freedoom-v0", **options)
    observation, info = env.reset(seed=wanted.seed)
    rate = Fraction(env.metadata["frames_per_second"]).limit_denominator(1001)
    draws = np.random.default_rng(wanted.seed)
    env.action_space.seed(wanted.seed)
    action, over = env.action_space.sample(), False
    with VideoWriter(wanted.out, "mp4", observation.shape[:2], rate) as video:
        video.write(info["frames"])
        while not over:
            action = np.where(draws.random(action.shape) < KEEP, action, env.action_space.sample())
            observation, _, _, over, info = env.step(action)
            video.write(info["frames"])
    env.close()
    print(f"{info['tick']} ticks in {wanted.out}; mean colour at the end: {observation.mean((0, 1)).round()}")


if __name__ == "__main__":
    main()
