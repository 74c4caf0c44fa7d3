"""A tick of a world, in its parts: `denoise`, `decode` and `commit`; `relive` makes one of a known past.

What a state looks at besides its past is bound by `world.binding`, the past itself is taken in by
`world.past`. The state holds every buffer, allocated once; nothing else here changes while a world is played.
Shapes: B sessions stepped together, F latents a tick.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from playhead.world.config import WorldConfig
from playhead.world.decoding import FrameDecoder
from playhead.world.experts import Experts
from playhead.world.flow import Flow
from playhead.world.generator import Generator
from playhead.world.parallel.split import Split
from playhead.world.sampler import Schedule, denoise
from playhead.world.state import WorldState

COMMIT = "commit"
"""What a generator is called that has weights for the commit pass alone."""


class Ticks:
    """What of a `World` makes its ticks."""

    config: WorldConfig
    device: torch.device
    generator: Generator
    generators: dict[str, Generator]
    experts: Experts
    frame_decoder: FrameDecoder
    shown_on: torch.device | None
    split: Split | None
    side_by_side: bool
    commits: ThreadPoolExecutor
    noises: Callable[[Sequence[int], int, int, Sequence[int]], Tensor]
    _flow: Flow

    def rope_table(self, first: int) -> Tensor:
        """The rope table of a block whose first latent has absolute index `first`, in main memory."""
        latent = self.config.latent
        frames = range(first, first + self.config.sampling.latents_per_tick)
        table = self.generator.rope_table(frames, latent.height, latent.width)
        return table if self.split is None else self.split.own_table(table, len(frames))

    @property
    def commits_at_once(self) -> bool:
        """Whether the commit of a tick begins before its frames are there, on the thread that plays.

        It does where another device decodes meanwhile, and where other ranks would wait for this one.
        """
        return self.shown_on is not None or self.split is not None

    @property
    def last_pass_commits(self) -> bool:
        """Whether a tick's last denoise pass commits it, and no pass of its own."""
        return self.config.sampling.commit == "last"

    @torch.no_grad()
    def denoise(self, state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        """Dreams the next block into `state.latent`; `actions` `(B, F, buttons)`, one seed a session."""
        schedule = self.draw(state, actions, seeds, tick)
        self._begin(state)
        key = ("denoise", schedule.sigmas, *state.graph_key)
        state.graphs.run(key, lambda: self._denoise(state, schedule))

    @torch.no_grad()
    def decode(self, state: WorldState) -> Tensor:
        """Decodes `state.latent` to uint8 frames `(B, frames, H, W, 3)` on the device.

        The very first block of a stream yields fewer frames where the time factor is above 1. Of several
        ranks the first alone decodes; others return what is none.
        """
        if self.split is not None and not self.split.leads:
            state.fresh = False
            return state.frames
        count = self.frame_decoder.count(state)
        if state.shown is not state.latent:
            state.shown.copy_(state.latent)
        if state.fresh:
            self.frame_decoder.decode(state)
        else:
            state.decoding.run(("decode",), lambda: self.frame_decoder.decode(state))
        state.frames = state.pictures[count]
        return state.frames

    @torch.no_grad()
    def commit(self, state: WorldState) -> None:
        """Has later ticks see this one, by a pass at the context noise level that writes keys and values.

        Where the last denoise pass commits, its own are there already. What a session at rest leaves stays
        what it was (`world.rest`).
        """
        if not self.last_pass_commits:
            self._begin(state)
            state.graphs.run(("commit", *state.graph_key), lambda: self._commit(state))
            state.remember()
        state.end()
        if self.last_pass_commits and self.device.type == "cpu":
            # What the next tick needs and this one leaves undone, after its frames were handed over.
            self._turn(state)
            self.frame_decoder.look_ahead(state)

    def draw(self, state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> Schedule:
        """Lays out what a tick is made of, its actions and its noise. Returns its noise levels."""
        self._set_action(state, actions, counts=True)
        shape = state.latent.shape[1:]
        schedule = state.schedule
        first_steps = self.config.sampling.first_steps
        if first_steps and not state.cache.length:
            schedule = Schedule.from_steps(first_steps, self.config.sampling.shift)
        for step in range(len(schedule)):
            drawn = state.foreseen.get((*seeds, tick, step))
            if drawn is None:
                drawn = self.noises(seeds, tick, step, shape)
            state.noises[step].copy_(drawn, non_blocking=drawn.is_pinned())
        return schedule

    def foresee(self, state: WorldState, seeds: Sequence[int], tick: int) -> None:
        """Makes what the tick after the one under way needs whatever is held: its noise, its rope table.

        For a GPU's sake, whose host has nothing else to do until the frames arrive.
        """
        cuda = self.device.type == "cuda"
        shape = state.latent.shape[1:]
        first = state.cache.length + self.config.sampling.latents_per_tick
        found: dict[Hashable, Tensor]
        found = {(*seeds, tick, n): self.noises(seeds, tick, n, shape) for n in range(len(state.schedule))}
        found[first] = self.rope_table(first)
        state.foreseen = {k: v.pin_memory() if cuda and not v.is_cuda else v for k, v in found.items()}

    @torch.no_grad()
    def take(self, state: WorldState, actions: Tensor, latents: Tensor) -> None:
        """Puts known latents `(B, F, C, h, w)` where `denoise` would have dreamed them.

        For worlds that commit by a pass of its own: of others, what the last pass left is not known.
        """
        self._set_action(state, actions, counts=True)
        self._begin(state)
        state.latent.copy_(latents)

    @torch.no_grad()
    def relive(
        self, state: WorldState, actions: Tensor, latents: Tensor, seeds: Sequence[int], tick: int
    ) -> None:
        """A tick of a known past, decoded and committed; as `take`, but to hold nothing is no rest there.

        Where a tick's last denoise pass commits it, that pass is run as play would have, on the known
        latents under noise of `tick`.
        """
        self._set_action(state, actions)
        state.latent.copy_(latents)
        self.decode(state)
        if self.last_pass_commits:
            self._pass_over(state, seeds, tick)
        self.commit(state)

    def recommit(self, state: WorldState) -> None:
        """Commits `state.latent` by a pass as if it came next, whatever it was dreamed from."""
        self._begin(state)
        self._commit(state)
        state.end()

    def may_join(self, state: WorldState) -> bool:
        """Whether a state can share a pass with others: all that it has is a cache and a decoder's memory.

        Recorded graphs are faster than a joint pass that is not: on a GPU only `wide` passes are shared.
        """
        return state.row is not None or not (
            state.graphs.enabled
            or self.split is not None
            or state.memory is not None
            or state.keys_values
            or self.config.looks_at_picture
            or state.recent.shape[1]
            or state.fresh
            or self.config.sampling.first_steps
            or self.config.action.commands
        )

    @torch.no_grad()
    def tick_together(
        self, states: Sequence[WorldState], actions: Tensor, seeds: Sequence[int], ticks: Sequence[int]
    ) -> "Future[None]":
        """A tick of several states in one pass; all `may_join` and have equal steps.

        `actions` `(B, F, buttons)`; a seed and a tick a state. All have their frames when this returns, and
        their commit is under way, or done where it gains nothing from that.
        """
        for state, held, seed, tick in zip(states, actions.split(1), seeds, ticks, strict=True):
            self.draw(state, held, [seed], tick)
            self._begin(state)
        joint = WorldState.join(states)
        self._denoise(joint, joint.schedule)
        joint.scatter_latents(states)
        commit = self.commits.submit(self._commit_together, joint, states)
        if not self.side_by_side:
            commit.exception()
        self.frame_decoder.decode(joint)
        joint.scatter_frames(states)
        return commit

    @torch.no_grad()
    def _commit_together(self, joint: WorldState, states: Sequence[WorldState]) -> None:
        if not self.last_pass_commits:
            self._commit(joint)
        for state in states:
            state.committed()  # a session at rest takes note of what is kept
            state.end()

    def _set_action(self, state: WorldState, actions: Tensor, counts: bool = False) -> None:
        """`counts`: where nothing is held, that is rest; a known past is none."""
        held = state.action[..., : self.config.generator.inputs]
        held.copy_(actions)
        if counts and state.rest is not None:
            state.rest.count(held)
        if state.memory is not None:
            state.memory.hold(state.action)

    def _begin(self, state: WorldState) -> None:
        state.begin(self.config.sampling.latents_per_tick)
        self._turn(state)

    def _turn(self, state: WorldState) -> None:
        """Has a state hold the rope table of its next block."""
        first = state.cache.length
        if state.turned != first:
            table = state.foreseen.get(first)
            if table is None:
                table = self.rope_table(first)
            state.cos_sin.copy_(table, non_blocking=table.is_pinned())
            state.turned = first

    def _pass_over(self, state: WorldState, seeds: Sequence[int], tick: int) -> None:
        """The last denoise pass of a tick that ended with `state.latent`, for its keys and values."""
        self._begin(state)
        own = self.experts.schedule  # whatever steps a session plays at: a past is the same for all
        last, sigma = len(own) - 1, own.sigmas[-1]
        fresh = self.noises(seeds, tick, last, state.latent.shape[1:]).to(self.device)
        x = (1 - sigma) * state.latent + sigma * fresh
        self._flow.predict(state, x, 1000 * sigma)

    def _denoise(self, state: WorldState, schedule: Schedule) -> None:
        draws = state.noises[: len(schedule)].unbind(0)
        state.latent.copy_(denoise(lambda x, t: self._flow.predict(state, x, t), draws, schedule))

    def _commit(self, state: WorldState) -> None:
        who = COMMIT if COMMIT in self.generators else None
        self._flow.predict(state, state.committed(), self.config.sampling.context_noise, who)
