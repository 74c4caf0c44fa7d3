"""Several sessions of one world as a Gymnasium vector environment, in this process or behind a bridge."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array

from playhead.engine.agents import checks
from playhead.engine.agents.env import FrameEnv, RemoteWorldEnv, Reward, WorldEnv
from playhead.engine.together import step_together
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from playhead.world.world import World

Env = TypeVar("Env", bound=FrameEnv)


class FrameVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray], Generic[Env]):
    """What both vectors share: environments of one world that are stepped together.

    Each behaves as an environment of its own would, bit for bit: `reset(seed=n)` seeds them n, n + 1, …
    `autoreset_mode` is Gymnasium's: an episode that is over begins anew with the next step, or in the same
    step (`info` then has `final_obs` and `final_info`), or only by a reset.
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, envs: Sequence[Env], autoreset_mode: AutoresetMode) -> None:
        self.envs, self.num_envs = envs, len(envs)
        first = envs[0]
        self.render_mode = first.render_mode
        self.autoreset_mode = autoreset_mode
        rates = {
            name: first.metadata[name] for name in ("render_fps", "ticks_per_second", "frames_per_second")
        }
        self.metadata = {**self.metadata, **rates, "autoreset_mode": autoreset_mode}
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, self.num_envs)
        self.action_space = batch_space(first.action_space, self.num_envs)
        self._over = np.zeros(self.num_envs, bool)
        self._observations = create_empty_array(first.observation_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins episodes anew: of all, or of those alone that `options["reset_mask"]` says.

        The others' observations are then their last ones, and they have no infos.
        """
        seeds = checks.seeds(seed, self.num_envs)
        options, mask = checks.mask(options, self.num_envs)
        checks.scene(options)
        infos: dict[str, Any] = {}
        for i, (env, s) in enumerate(zip(self.envs, seeds, strict=True)):
            if mask[i]:
                self._observations[i], info = env.reset(seed=s, options=options)
                infos = self._add_info(infos, info, i)
        self._over &= ~mask
        return self._observations.copy(), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if self._over.any() and self.autoreset_mode == AutoresetMode.DISABLED:
            raise PlayheadError(
                f"environment {self._over.argmax()} is over; begin it anew by a reset with a `reset_mask`"
            )
        held = checks.numbers(actions, self.action_space.shape)
        acts = [env.read(row) for env, row in zip(self.envs, held, strict=True)]
        going = [i for i in range(self.num_envs) if not self._over[i]]
        envs = [self.envs[i] for i in going]
        frames = iter(self._advance(envs, [acts[i] for i in going]))
        infos: dict[str, Any] = {}
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        truncated = ended.copy()
        for i, env in enumerate(self.envs):
            if self._over[i]:
                self._observations[i], info = env.reset()
            else:
                arrived = env.arrive(next(frames), actions[i])
                self._observations[i], rewards[i], ended[i], truncated[i], info = arrived
                if truncated[i] and self.autoreset_mode == AutoresetMode.SAME_STEP:
                    final = {"final_obs": self._observations[i].copy(), "final_info": info}
                    infos = self._add_info(infos, final, i)
                    self._observations[i], info = env.reset()
            infos = self._add_info(infos, info, i)
        self._over = truncated & (self.autoreset_mode != AutoresetMode.SAME_STEP)
        return self._observations.copy(), rewards, ended, truncated, infos

    def render(self) -> tuple[np.ndarray | None, ...]:
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **_: Any) -> None:  # noqa: ANN401 - gymnasium's
        for env in self.envs:
            env.close()

    @abstractmethod
    def _advance(self, envs: Sequence[Env], actions: Sequence[Action]) -> list[np.ndarray]:
        """Plays a tick in each of these environments. Returns each one's frames."""

    def _add_info(
        self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int
    ) -> dict[str, Any]:
        """As Gymnasium's, which takes arrays for equally large: ticks differ in how many frames they have."""
        if "frames" in env_info:
            vector_infos.setdefault("frames", np.full(self.num_envs, None, object))
        return super()._add_info(vector_infos, env_info, env_num)


class WorldVectorEnv(FrameVectorEnv[WorldEnv]):
    """`num_envs` sessions of one world here, stepped in one forward pass where that changes no bit."""

    def __init__(
        self,
        num_envs: int = 1,
        world: str | Path | World = "freedoom",
        device: str = "auto",
        render_mode: str | None = None,
        reward: Reward | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **options: Any,  # noqa: ANN401 - those of WorldEnv
    ) -> None:
        checks.count(num_envs)
        mode = checks.autoreset(autoreset_mode)
        checks.episodes(render_mode, options.get("max_ticks"))
        loaded = world if isinstance(world, World) else World.load(world, device)
        options |= {"render_mode": render_mode, "reward": reward}
        super().__init__([WorldEnv(loaded, **options) for _ in range(num_envs)], mode)

    def _advance(self, envs: Sequence[WorldEnv], actions: Sequence[Action]) -> list[np.ndarray]:
        return step_together([env.session for env in envs], actions)


class RemoteVectorEnv(FrameVectorEnv[RemoteWorldEnv]):
    """`num_envs` sessions behind a bridge, asked all at once, so that the server may step them together."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **options: Any,  # noqa: ANN401 - those of RemoteWorldEnv
    ) -> None:
        checks.count(num_envs)
        mode = checks.autoreset(autoreset_mode)
        envs: list[RemoteWorldEnv] = []
        try:
            envs.extend(RemoteWorldEnv(**options) for _ in range(num_envs))
        except BaseException:
            for env in envs:
                env.close()
            raise
        super().__init__(envs, mode)

    def _advance(self, envs: Sequence[RemoteWorldEnv], actions: Sequence[Action]) -> list[np.ndarray]:
        begun = [env.send(action) for env, action in zip(envs, actions, strict=True)]
        return [env.stepped(request) for env, request in zip(envs, begun, strict=True)]
