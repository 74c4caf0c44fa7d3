"""A neural world as a Gymnasium environment, in this process or behind a bridge: the same observations."""

from abc import abstractmethod
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import EzPickle

from playhead.engine.agents import checks, spaces
from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.auth import ClientKeys
from playhead.engine.display import lacks_display
from playhead.engine.session import Session
from playhead.engine.starts import Starts
from playhead.scenes.scene import Scene, belongs, load_scene, scenes_of
from playhead.world.action import Action, ActionSpace
from playhead.world.errors import PlayheadError
from playhead.world.world import World

Reward = Callable[[np.ndarray, np.ndarray, dict[str, Any]], float]
"""A reward of (frames uint8 `(n, H, W, 3)` of the tick, the action as it was given, info)."""
SEEDS = 2**32


class FrameEnv(gymnasium.Env[np.ndarray, np.ndarray], EzPickle):
    """What both environments share.

    An observation is the last frame of a tick, uint8 `(H, W, 3)`; `info` has them all (`frames`), the `tick`
    and the `seed`. An action says for each button of the world whether it is held,
    and how far each axis is moved, if there are any. A world knows no goal:
    the reward is 0 unless `reward` gives one, nothing is ever terminated, and an episode is truncated after
    `max_ticks`, if that is given. `reset(seed=…)` seeds the dream; without a seed each episode has another.
    `options={"scene": name}` starts it elsewhere. Modes: `rgb_array`, and `human`, which opens a window where
    there is a display. A copy, and what was pickled, is made anew and knows nothing of the episode.
    """

    metadata = {"render_modes": [*checks.RENDER_MODES], "render_fps": 30}  # noqa: RUF012 - gymnasium's name

    def __init__(
        self,
        size: tuple[int, int],
        space: ActionSpace,
        rate: float,
        frames_per_tick: int,
        render_mode: str | None,
        max_ticks: int | None,
        reward: Reward | None,
    ) -> None:
        """`size` is (H, W); `rate` the world's ticks per second."""
        self.metadata = {
            **self.metadata,
            "render_modes": [mode for mode in checks.RENDER_MODES if mode != "human" or not lacks_display()],
            "render_fps": max(1, round(rate)),  # one picture a tick; libraries want a whole number
            "ticks_per_second": rate,
            "frames_per_second": rate * frames_per_tick,
        }
        self.observation_space, self.action_space = spaces.observations(size), spaces.actions(space)
        self.render_mode = render_mode
        self._space, self._max_ticks, self._reward = space, max_ticks, reward
        self._frames: np.ndarray | None = None
        self._tick = self._seed = 0
        self._viewer: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode. Raises PlayheadError for an unknown option, scene or seed; nothing changed."""
        scene = checks.scene(options)
        seed = checks.seed(seed)
        before = deepcopy(self._np_random), self._np_random_seed
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(SEEDS)) if seed is None else seed
        try:
            self._frames = self._begin(scene, drawn)
        except BaseException:
            self._np_random, self._np_random_seed = before
            raise
        self._seed, self._tick = drawn, 0
        self._show()
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Plays a tick."""
        return self.arrive(self._advance(self.read(action)), action)

    def read(self, action: np.ndarray) -> Action:
        """The world's words for an action. Raises ActionError, or ResetNeeded before the first reset."""
        if self._frames is None:
            raise gymnasium.error.ResetNeeded("call reset before the first step")
        assert self.action_space.shape is not None  # a box has one
        return self._space.decode(checks.numbers(action, self.action_space.shape).tolist())

    def arrive(
        self, frames: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """What `step` returns for a tick whose frames are there."""
        self._frames = frames
        self._tick += 1
        observation, info = self._observe()
        reward = float(self._reward(self._frames, action, info)) if self._reward is not None else 0.0
        self._show()
        truncated = self._max_ticks is not None and self._tick >= self._max_ticks
        return observation, reward, False, truncated, info

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array" or self._frames is None:
            return None
        picture: np.ndarray = self._frames[-1].copy()
        return picture

    def close(self) -> None:
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    @abstractmethod
    def _begin(self, scene: str | Path | None, seed: int) -> np.ndarray:
        """Starts a scene (None: the first) over. Returns its last frames."""

    @abstractmethod
    def _advance(self, action: Action) -> np.ndarray:
        """Plays a tick. Returns its frames."""

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        assert self._frames is not None
        info = {"frames": self._frames.copy(), "tick": self._tick, "seed": self._seed}
        return self._frames[-1].copy(), info

    def _show(self) -> None:
        if self.render_mode != "human" or self._frames is None:
            return
        if self._viewer is None:
            from playhead.render.window.viewer import Viewer  # the only need of a window here

            self._viewer = Viewer(self._frames.shape[2:0:-1], self.metadata["ticks_per_second"])
        self._viewer.show(self._frames)


class WorldEnv(FrameEnv):
    """A world in this process: `world` is its name, its folder, or one that is loaded already.

    `scene`: where episodes start unless a reset says otherwise; a name or a folder.
    """

    def __init__(
        self,
        world: str | Path | World = "freedoom",
        scene: str | Path | None = None,
        steps: int | None = None,
        device: str = "auto",
        render_mode: str | None = None,
        max_ticks: int | None = None,
        reward: Reward | None = None,
    ) -> None:
        EzPickle.__init__(self, world, scene, steps, device, render_mode, max_ticks, reward)
        checks.episodes(render_mode, max_ticks)
        self._world = world if isinstance(world, World) else World.load(world, device)
        self._world.share_cores()
        self._steps = self._world.steps if steps is None else steps
        self._world.schedule(self._steps)
        self._scene = scene
        self._starts = Starts(most=1)
        self._loaded: tuple[str, Scene] | None = None
        self._session: Session | None = None
        config = self._world.config
        size, space = (config.frame_height, config.frame_width), config.action
        if space.commands:  # whether there are prompts depends on the scene
            space = space.with_prompts(len(self._load(scene).context.prompts))
        rate, frames = config.ticks_per_second, config.frames_per_tick
        super().__init__(size, space, rate, frames, render_mode, max_ticks, reward)

    def read(self, action: np.ndarray) -> Action:
        found = super().read(action)
        self.session.check(found)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> "WorldEnv":
        """A copy plays the same loaded world: nothing changes its weights."""
        memo[id(self._world)] = self._world
        copied = type(self).__new__(type(self))
        copied.__setstate__(deepcopy(self.__getstate__(), memo))
        return copied

    def _begin(self, scene: str | Path | None, seed: int) -> np.ndarray:
        found = self._load(scene or self._scene)
        if self._session is None:
            self._session = self._starts.session(self._world, found, seed)
        else:
            self._starts.enter(self._session, found, seed)
        self._session.steps = self._steps
        return self._session.frames

    def _load(self, scene: str | Path | None) -> Scene:
        """A scene of the world (None: its first), read once. Raises PlayheadError for another world's."""
        name = str(scene or "")
        if self._loaded is None or self._loaded[0] != name:
            found = load_scene(name) if scene else scenes_of(self._world.config)[0]
            if not belongs(found.world, self._world.config):
                raise PlayheadError(f"the scene `{found.name}` is one of the world `{found.world}`")
            self._loaded = name, found
        return self._loaded[1]

    @property
    def session(self) -> Session:
        """The session that is played. Raises ResetNeeded before the first reset."""
        if self._session is None:
            raise gymnasium.error.ResetNeeded("call reset before the first step")
        return self._session

    def _advance(self, action: Action) -> np.ndarray:
        return self.session.step(action)


class RemoteWorldEnv(FrameEnv):
    """A world behind a bridge: `address` is that of `main.py serve`; world and scene are named as there.

    A session of its own is opened, in lockstep, and ended by `close`.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:7770",
        world: str = "",
        scene: str = "",
        steps: int | None = None,
        keys: ClientKeys | None = None,
        render_mode: str | None = None,
        max_ticks: int | None = None,
        reward: Reward | None = None,
    ) -> None:
        EzPickle.__init__(self, address, world, scene, steps, keys, render_mode, max_ticks, reward)
        checks.episodes(render_mode, max_ticks)
        client = Client(address, "gymnasium", keys)
        self._client: Client | None = client  # None once it is closed
        try:
            request = protocol.OpenRequest(world=world, scene=scene, steps=steps)
            self._opened, _ = client.ask(request, protocol.OpenReply)
        except BaseException:
            client.close()
            raise
        info = self._opened.world
        self._scene = self._opened.scene.name
        space = info.action_space
        if self._opened.scene.prompts is not None:  # a server of before does not say
            space = space.with_prompts(self._opened.scene.prompts)
        size, rate, frames = (info.height, info.width), info.ticks_per_second, info.frames_per_tick
        super().__init__(size, space, rate, frames, render_mode, max_ticks, reward)

    def close(self) -> None:
        super().close()
        if self._client is not None:
            try:
                self._client.ask(protocol.CloseRequest(session=self._opened.session), protocol.DoneReply)
            except PlayheadError:
                pass  # the server is gone, and the session with it
            finally:
                self._client.close()
                self._client = None

    def _begin(self, scene: str | Path | None, seed: int) -> np.ndarray:
        request = protocol.ResetRequest(
            session=self._opened.session, scene=str(scene or self._scene), seed=seed
        )
        return self._frames_of(self._server().ask(request, protocol.ObserveReply))

    def _advance(self, action: Action) -> np.ndarray:
        return self.stepped(self.send(action))

    def send(self, action: Action) -> int:
        """Has the server begin a tick. Returns what `stepped` is to be called with."""
        return self._server().send(protocol.StepRequest(session=self._opened.session, actions=[action]))

    def stepped(self, request: int) -> np.ndarray:
        """Waits for a tick that was begun. Returns its frames."""
        return self._frames_of(self._server().answer(request, protocol.StepReply))

    def _server(self) -> Client:
        """The connection. Raises PlayheadError once it is closed."""
        if self._client is None:
            raise PlayheadError("this environment is closed, and its session with it; make another")
        return self._client

    @staticmethod
    def _frames_of(reply: tuple[protocol.Message, np.ndarray | None]) -> np.ndarray:
        assert reply[1] is not None
        return reply[1]
