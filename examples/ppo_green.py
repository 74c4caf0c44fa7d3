"""Reinforcement learning inside a dream: PPO learns to look at what is green.

    python examples/ppo_green.py --ticks 20000 --envs 4
    python examples/ppo_green.py --connect tcp://127.0.0.1:7770 --ticks 20000

The reward is made of pixels alone: how much greener than red and blue the frame is. Needs the extra `agents`
and `pip install stable-baselines3`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from playhead.world.errors import PlayheadError
from playhead.world.extras import install
from playhead.world.world import World

try:
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    from playhead.engine.agents import RemoteWorldEnv, WorldEnv
except ImportError as error:
    wanted = "pip install stable-baselines3" if "stable" in (error.name or "") else install("agents")
    sys.exit(f"learning needs the package {error.name}, which is not installed here: {wanted}")

EPISODE = 128
"""Ticks of an episode: a world knows no end."""


def greenness(frames: np.ndarray, action: np.ndarray, info: dict) -> float:
    """By how much green exceeds the mean of red and blue in a tick's frames, in parts of full brightness."""
    red, green, blue = frames.mean((0, 1, 2)) / 255
    return float(green - (red + blue) / 2)


class Smaller(gymnasium.ObservationWrapper):
    """Every other pixel of every other row: as much as PPO's network needs, and learnt from faster."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        height, width, _ = env.observation_space.shape
        self.observation_space = gymnasium.spaces.Box(0, 255, (height // 2, width // 2, 3), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[::2, ::2]


def main() -> None:
    parser = argparse.ArgumentParser(description="Learns by PPO to see more green.")
    parser.add_argument("--connect", help="the address of `main.py serve`; else the world is loaded here")
    parser.add_argument("--world", default="freedoom", help="a world's name; empty: the server's first")
    parser.add_argument("--scene", default="acid-garden")
    parser.add_argument("--ticks", type=int, default=20_000, help="ticks to learn from")
    parser.add_argument("--rollout", type=int, default=128, help="ticks of each session between two updates")
    parser.add_argument("--envs", type=int, default=1, help="sessions side by side")
    parser.add_argument("--episode", type=int, default=EPISODE, help="ticks of an episode")
    parser.add_argument("--out", type=Path, default=Path("ppo-green.zip"))
    wanted = parser.parse_args()

    try:
        learn(wanted)
    except PlayheadError as error:
        sys.exit(str(error))


def learn(wanted: argparse.Namespace) -> None:
    """Learns, and says how green episodes were before and after."""
    options = {"scene": wanted.scene, "max_ticks": wanted.episode, "reward": greenness}
    world = None if wanted.connect else World.load(wanted.world)
    where = {"address": wanted.connect, "world": wanted.world} if world is None else {"world": world}

    def make() -> Monitor:
        env = (RemoteWorldEnv if world is None else WorldEnv)(**where, **options)
        return Monitor(Smaller(env))

    envs = DummyVecEnv([make] * wanted.envs)
    model = PPO(
        "CnnPolicy", envs, n_steps=wanted.rollout, batch_size=min(64, wanted.rollout * wanted.envs),
        n_epochs=4, ent_coef=0.01, learning_rate=2.5e-4, seed=0, verbose=1,
    )  # fmt: skip
    before = mean_reward(model, envs)
    model.learn(wanted.ticks)
    print(f"greenness of an episode: {before:+.2f} before, {mean_reward(model, envs):+.2f} after")
    model.save(wanted.out)
    print(f"saved {wanted.out}")
    envs.close()


def mean_reward(model: PPO, envs: DummyVecEnv) -> float:
    envs.seed(1000)
    mean, _ = evaluate_policy(model, envs, n_eval_episodes=envs.num_envs, deterministic=False)
    return float(mean)


if __name__ == "__main__":
    main()
