"""The wide passes of a world: as many as its sessions need, all of one width."""

import threading
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor

from playhead.world.decoding import FrameDecoder
from playhead.world.errors import WorldError
from playhead.world.lighttae import Decoder
from playhead.world.sparse_attention import SPARSE
from playhead.world.state import StateLayout, WorldState
from playhead.world.wide.wide_pass import PassModel, WidePass


def why_not_wide(layout: StateLayout, decoder: FrameDecoder) -> str:
    """Why sessions of such states cannot go by wide passes, in words; empty where they can.

    All that a session has has to be a cache, a decoder's memory and rest, and a tick one latent.
    """
    config, sampling = layout.config, layout.config.sampling
    g, network = config.generator, decoder.network
    no = {
        "the world commits by a pass of its own": sampling.commit != "last",
        "its ticks have several latents": sampling.latents_per_tick != 1,
        "its first ticks have steps of their own": bool(sampling.first_steps),
        "it is told text, pictures or the mouse": bool(
            g.text_dim or g.image_dim or g.action or config.looks_at_picture
        ),
        "it obeys commands": bool(config.action.commands),
        "its cache keeps a sink": bool(sampling.sink),
        "its blocks are offloaded": layout.recorded is not None,
        "its cache is low bit": layout.reader is not None,
        "its attention is sparse": layout.attention in SPARSE,
        "its decoder makes several frames of a latent": not (
            isinstance(network, Decoder) and network.time_factor == 1
        ),
    }
    return next((reason for reason, holds in no.items() if holds), "")


class WidePasses:
    """Gives sessions of a world rows in passes of `width`, and plays their ticks. For any thread."""

    def __init__(self, model: PassModel, width: int) -> None:
        """Raises WorldError for a world whose sessions cannot go by such passes."""
        reason = why_not_wide(model.layout, model.decoder)
        if reason:
            name = model.layout.config.name
            raise WorldError(f"sessions of `{name}` cannot share passes of one width: {reason}")
        self.width = width
        self._model = model
        self._lock = threading.Lock()
        self._passes = [WidePass(model, width)]
        self._pass_of: WeakKeyDictionary[WorldState, WidePass] = WeakKeyDictionary()

    @property
    def room(self) -> int:
        """Rows that are allocated and that no session has."""
        with self._lock:
            return sum(each.room for each in self._passes)

    def row(self) -> WorldState:
        """A state for a session; where all rows are taken, in a pass more."""
        with self._lock:
            found = next((each for each in self._passes if each.room), None)
            if found is None:
                found = WidePass(self._model, self.width)
                self._passes.append(found)
            state = found.row()
            self._pass_of[state] = found
            return state

    def tick(
        self,
        states: Sequence[WorldState],
        held: Tensor,
        seeds: Sequence[int],
        ticks: Sequence[int],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[np.ndarray]:
        """As `WidePass.tick`, of states in any of the passes."""
        frames: dict[int, np.ndarray] = {}
        by_pass: dict[WidePass, list[int]] = {}
        for n, state in enumerate(states):
            by_pass.setdefault(self._pass_of[state], []).append(n)
        for each, members in by_pass.items():
            given = [states[n] for n in members], held[members]
            found = each.tick(*given, [seeds[n] for n in members], [ticks[n] for n in members], meanwhile)
            frames.update(zip(members, found, strict=True))
        return [frames[n] for n in range(len(states))]
