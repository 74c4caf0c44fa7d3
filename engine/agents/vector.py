"""Several sessions of one world as a Gymnasium vector environment."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from engine.agents.env import Reward, WorldEnv
from engine.together import step_together
from world.world import World


class WorldVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` sessions of one world, stepped together in one forward pass where that changes no bit.

    Each behaves as a `WorldEnv` of its own would, bit for bit: `reset(seed=n)` seeds them n, n + 1, …
    An episode that is over begins anew with the next step.
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        world: str | Path | World = "freedoom",
        device: str = "auto",
        render_mode: str | None = None,
        reward: Reward | None = None,
        **options: Any,  # noqa: ANN401 - those of WorldEnv
    ) -> None:
        loaded = world if isinstance(world, World) else World.load(world, device)
        options |= {"render_mode": render_mode, "reward": reward}
        self.envs = [WorldEnv(loaded, **options) for _ in range(num_envs)]
        self.num_envs, self.render_mode = num_envs, render_mode
        first = self.envs[0]
        self.metadata = {**self.metadata, "render_fps": first.metadata["render_fps"]}
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self._over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        count = range(self.num_envs)
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in count]
        found = [env.reset(seed=s, options=options) for env, s in zip(self.envs, seeds, strict=True)]
        self._over[:] = False
        return np.stack([o for o, _ in found]), self._infos([i for _, i in found])

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        going = [i for i in range(self.num_envs) if not self._over[i]]
        frames = iter(step_together([self.envs[i].session for i in going],
                                    [self.envs[i].read(actions[i]) for i in going]))  # fmt: skip
        results = []
        for i, env in enumerate(self.envs):
            if self._over[i]:
                observation, info = env.reset()
                results.append((observation, 0.0, False, False, info))
            else:
                results.append(env.arrive(next(frames), actions[i]))
        observations, rewards, ended, truncated, infos = zip(*results, strict=True)
        self._over = np.array(truncated)
        return (np.stack(observations), np.array(rewards), np.array(ended), np.array(truncated),
                self._infos(list(infos)))  # fmt: skip

    def render(self) -> tuple[np.ndarray | None, ...]:
        return tuple(env.render() for env in self.envs)

    def _infos(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for i, info in enumerate(infos):
            merged = self._add_info(merged, info, i)
        return merged
