"""The session: the only owner of mutable state (a world's state, the tick counter, the seed)."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from playhead.engine.frame_copy import FrameCopy
from playhead.engine.notebook_film import Film
from playhead.engine.parallel.leader import leader_of, on_all_ranks
from playhead.engine.recent_frames import RecentFrames, in_notebook
from playhead.world.action import RE_ANCHOR, Action, prompt_number
from playhead.world.binding import bind, switch_prompt
from playhead.world.context import Context
from playhead.world.errors import ActionError, WorldError
from playhead.world.offload.traffic import offload_line
from playhead.world.parallel.state_parts import deal_state, gather_state
from playhead.world.past import enter
from playhead.world.world import World

if TYPE_CHECKING:
    from playhead.scenes.scene import Scene


@dataclass(frozen=True)
class Snapshot:
    """Everything needed to continue bit for bit. Immutable: it may be restored any number of times."""

    tick: int
    seed: int
    steps: int
    frames: np.ndarray
    state: dict[str, Any]


class Session:
    """One player's world, stepped a tick at a time.

    `step` returns as soon as the frames are there. The commit of that tick is left to `finish`, which the
    loop calls once the frames have been handed over (every other method finishes first by itself); where the
    decode leaves cores free, it is under way on those already.
    """

    def __init__(self, world: World, context: Context, seed: int, scene: "Scene | None" = None) -> None:
        """`scene`: which one the context is of, if it is one; a recording names it."""
        self._allocate(world, context, scene)
        self.reset(seed)

    @classmethod
    def unstarted(cls, world: World, context: Context, scene: "Scene | None" = None) -> "Session":
        """A session that plays nothing until a snapshot is restored in it."""
        session = object.__new__(cls)
        session._allocate(world, context, scene)
        return session

    @staticmethod
    def share_start(world: World) -> bool:
        """Whether a snapshot of one seed's start is any other's too.

        It is not where a past is taken in under the seed's noise, nor where sessions remember their start.
        """
        return not (world.last_pass_commits or world.config.action.commands)

    def _allocate(self, world: World, context: Context, scene: "Scene | None") -> None:
        self.world = world
        self.context, self.scene = context, scene
        self._obeys = bool(world.config.action.commands)
        self._anchor: dict[str, Any] | None = None
        self._state = world.new_state()
        self._copy = FrameCopy()
        self._recent = RecentFrames(world.config.ticks_per_second) if in_notebook() else None
        self._commit: Future[None] | None = None
        self._pending = False
        leader = leader_of(world)
        self.number = leader.begin(self) if leader is not None else 0  # among those of all its world's ranks

    def enter(self, context: Context, seed: int, scene: "Scene | None" = None) -> np.ndarray:
        """Begins anew from another context of the same world. Returns its last frame(s)."""
        self.context, self.scene = context, scene
        return self.reset(seed)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Returns to the context, with another seed if one is given. Returns the context's last frame(s)."""
        if seed is not None and not 0 <= seed < 2**64:
            raise WorldError(f"a seed is a whole number from 0 to 2^64 - 1, not {seed}")
        return self._reset(seed)

    @on_all_ranks
    def _reset(self, seed: int | None) -> np.ndarray:
        if seed is not None:
            self.seed = seed
        self._drop_commit()
        with self._apart():
            first = enter(self.world, self._state, self.context, [self.seed])
        self._anchor = self._state.state() if self._obeys else None
        self.tick = 0
        self.frames = self._take_frames(first)
        if self._recent is not None:
            self._recent.begin(self.frames)
        return self.frames

    def check(self, action: Action) -> None:
        """Raises ActionError for an action that this session cannot play: a prompt that its context lacks."""
        self.world.config.action.check(action)
        for name in self.world.config.action.commanded(action) - {RE_ANCHOR}:
            count = len(self.context.prompts)
            if prompt_number(name) >= count:
                has = f"{count} prompt{'s' if count != 1 else ''}" if count else "no prompts"
                raise ActionError(f"this scene has {has}, so there is no `{name}`")

    @on_all_ranks
    def step(self, action: Action) -> np.ndarray:
        """Dreams one tick under `action`. Returns its frames, uint8 `(frames_per_tick, H, W, 3)`."""
        return self._play(action, self._dream, True)

    def _dream(self, rows: Tensor) -> None:
        self.world.denoise(self._state, rows, [self.seed], self.tick)

    @on_all_ranks
    def retrace(self, action: Action, latents: np.ndarray, decode: bool = True) -> np.ndarray:
        """Plays a tick whose latents, float32 `(F, C, h, w)`, are known: as `step`, but for the denoising.

        Where the last denoise pass commits, the tick is dreamed again: nothing else leaves them.

        With `decode` off the frames are left as they were, and the decoder's memory is behind: the frames
        are right again after `World.decoder_span` ticks that were decoded.
        """
        if self.world.last_pass_commits:
            return self._play(action, self._dream, decode)
        known = torch.from_numpy(np.array(latents))[None]
        return self._play(action, lambda rows: self.world.take(self._state, rows, known), decode)

    @property
    def latents(self) -> np.ndarray:
        """A copy of the last tick's latents, float32 `(F, C, h, w)`."""
        return self._state.latent[0].cpu().numpy().copy()

    def _play(self, action: Action, dream: Callable[[Tensor], None], decode: bool) -> np.ndarray:
        rows = self._rows(action)
        self.finish()
        if self._state.row is not None:  # whose decoder never lags, and whose numbers are those in company
            return self._step_wide([self], rows)[0]
        with self.world.turn:
            if self._obeys:
                self._obey(action)
            dream(rows)
            self._pending = True
            if self.world.side_by_side and not self.world.last_pass_commits:
                self._commit = self.world.commits.submit(self.world.commit, self._state)
            if decode:
                self._copy.start(self.world.decode(self._state)[0])
            if self.world.commits_at_once:
                self.world.commit(self._state)
                self._pending = False
            if self.world.device.type == "cuda":
                self.world.foresee(self._state, [self.seed], self.tick + 1)
        self.tick += 1
        if decode:
            self.frames = self._copy.take()
            if self._recent is not None:
                self._recent.add(self.frames)
        return self.frames

    @property
    def joins(self) -> bool:
        """Whether it can share a pass with other sessions of its world, by `step_joined`."""
        return self.world.may_join(self._state)

    @staticmethod
    def step_joined(
        sessions: "Sequence[Session]", actions: Sequence[Action], meanwhile: Callable[[], None] = lambda: None
    ) -> list[np.ndarray]:
        """Steps sessions in one pass, which may round otherwise than `step` does (`engine.together`).

        All are of one world, have equal steps and can join. `meanwhile` is called while a wide pass is under
        way on a device.
        """
        world = sessions[0].world
        for session in sessions:
            session.finish()
        rows = world.config.action.tensor(*actions).expand(-1, world.config.sampling.latents_per_tick, -1)
        if world.wide is not None:
            return Session._step_wide(sessions, rows, meanwhile)
        with world.turn:
            commit = world.tick_together(
                [s._state for s in sessions], rows, [s.seed for s in sessions], [s.tick for s in sessions]
            )
        return [session._arrive(commit) for session in sessions]

    @staticmethod
    def _step_wide(
        sessions: "Sequence[Session]", rows: Tensor, meanwhile: Callable[[], None] = lambda: None
    ) -> list[np.ndarray]:
        """A tick of sessions that go by wide passes, which leave nothing to be done later."""
        world = sessions[0].world
        assert world.wide is not None
        seeds, ticks = [s.seed for s in sessions], [s.tick for s in sessions]
        with world.turn:
            found = world.wide.tick([s._state for s in sessions], rows, seeds, ticks, meanwhile)
        for session, frames in zip(sessions, found, strict=True):
            session.tick += 1
            session.frames = frames
            if session._recent is not None:
                session._recent.add(frames)
        return found

    def _rows(self, action: Action) -> Tensor:
        """An action for each latent of a tick, `(1, F, inputs)`."""
        config = self.world.config
        return config.action.tensor(action).expand(1, config.sampling.latents_per_tick, -1)

    def _arrive(self, commit: "Future[None]") -> np.ndarray:
        """Takes in a tick that was dreamed together with other sessions'; its commit is under way."""
        self._commit, self._pending = commit, True
        self.tick += 1
        self.frames = self._take_frames(self._state.frames)
        if self._recent is not None:
            self._recent.add(self.frames)
        return self.frames

    @property
    def steps(self) -> int:
        """Denoise steps a tick. May be changed between ticks; it changes the numbers."""
        return len(self._state.schedule)

    @steps.setter
    @on_all_ranks
    def steps(self, count: int) -> None:
        self._state.schedule = self.world.schedule(count)

    @property
    def offloaded(self) -> str:
        """In a line which blocks of its world are offloaded and what a tick moves; empty if none are."""
        return offload_line(self.world, self.steps)

    def finish(self) -> None:
        """Commits the last tick, if that is still to be done.

        A commit that fails raises here, and again whenever the session is to go on: it lacks its last tick
        until it is reset or restored.
        """
        if self._pending:
            self._finish()

    @on_all_ranks
    def _finish(self) -> None:
        if self._commit is None:
            with self.world.turn:
                self.world.commit(self._state)
        else:
            self._commit.result()
        self._drop_commit()

    def _drop_commit(self) -> None:
        """Lets the commit under way, if there is one, come to its end, whatever that is."""
        if self._commit is not None:
            self._commit.exception()
        self._commit, self._pending = None, False

    @on_all_ranks
    def snapshot(self) -> Snapshot:
        """A copy of everything that the future depends on."""
        self.finish()
        with self._apart():
            state, split = self._state.state(), self.world.split
            if split is not None:
                state = gather_state(split, state)
            return Snapshot(self.tick, self.seed, self.steps, self.frames, state)

    @on_all_ranks
    def restore(self, snapshot: Snapshot) -> np.ndarray:
        """Goes back (or over) to a snapshot of this session or of a fork. Returns its frames."""
        self._drop_commit()
        state, split = snapshot.state, self.world.split
        if split is not None:
            state = deal_state(split, state)
        with self._apart():
            self._state.load_state(state)
            bind(self.world, self._state, self.context)
        self.tick, self.seed, self.steps = snapshot.tick, snapshot.seed, snapshot.steps
        self.frames = snapshot.frames
        if self._recent is not None:
            self._recent.begin(self.frames)
        return self.frames

    def _apart(self) -> "AbstractContextManager[object]":
        """While no wide pass runs, which has this session's row in its hands too.

        A GPU does one after the other anyhow.
        """
        beside = self._state.row is not None and self.world.device.type == "cpu"
        return self.world.turn if beside else nullcontext()

    @on_all_ranks
    def fork(self) -> "Session":
        """A second session with the same past and its own future; the weights are shared."""
        twin = Session.unstarted(self.world, self.context, self.scene)
        twin._anchor = self._anchor
        twin.restore(self.snapshot())
        return twin

    def warm_up(self) -> None:
        """Runs what play will run, from the context on, until nothing of it is new; then resets.

        Where the tick path is recorded as graphs, that is every cache slot, filling and full, and twice.
        """
        graphs, sampling = self._state.graphs.enabled, self.world.config.sampling
        for _ in range(2 if graphs else 1):
            for _ in range(sampling.reach + sampling.window if graphs else 2):
                self.step(Action())
            self.reset()

    def _repr_html_(self) -> str:
        """What it showed lately, as a film; outside of a notebook nothing but its newest frames is kept."""
        frames = self.frames if self._recent is None else self._recent.frames()
        config = self.world.config
        where = self.scene.title if self.scene is not None else config.title
        caption = f"{where}: tick {self.tick}, seed {self.seed}, {self.steps} denoise steps a tick"
        return Film(frames, config.ticks_per_second * config.frames_per_tick, caption)._repr_html_()

    def _obey(self, action: Action) -> None:
        """Carries out the commands among the held buttons: first a return to the start, then a prompt."""
        held = self.world.config.action.commanded(action)
        if RE_ANCHOR in held and self._anchor is not None:
            self._state.load_state(self._anchor)
            bind(self.world, self._state, self.context)
        for name in sorted(held - {RE_ANCHOR}):
            switch_prompt(self.world, self._state, prompt_number(name))

    def _take_frames(self, frames: Tensor) -> np.ndarray:
        self._copy.start(frames[0])
        return self._copy.take()
