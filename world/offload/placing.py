"""Puts the generators of a world where a plan has them, block by block."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from playhead.world import low_bit
from playhead.world.generator import Block, Generator
from playhead.world.offload.buffers import COUNT, Buffers, Offloaded
from playhead.world.offload.carriers import Carrier, StreamCarrier, ThreadCarrier
from playhead.world.offload.plan import OffloadPlan
from playhead.world.offload.slab import MappedSlab, PackedSlab, Slab, SlabLayout


def place_generators(
    generators: Sequence[Generator],
    plan: OffloadPlan | None,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
) -> tuple[Buffers | None, list[nn.Linear]]:
    """Moves generators, whose weights no longer change, to a device, but for the blocks of a plan.

    Returns the buffers in which those take turns, if there is a plan, and what `low_bit.place` does. The
    device never holds more at once than it will in play, and one block. Blocks that stay in their file have
    to be given as it has them, in main memory.
    """
    models = [model.eval().requires_grad_(False) for model in generators]
    if plan is None:
        return None, [layer for model in models for layer in low_bit.place(model, device, dtype, precision)]
    size, cuda = plan.needs.buffer, device.type == "cuda"
    carrier: Carrier = StreamCarrier(device, size, bool(plan.mapped)) if cuda else ThreadCarrier()
    buffers = Buffers(size if plan.layers else 0, device, carrier)
    layers: list[nn.Linear] = []
    for model in models:
        layers += _place(model, plan, buffers, device, dtype, precision)
    if cuda:
        torch.cuda.empty_cache()  # blocks that came by and went
    return buffers, layers


def _place(
    model: Generator,
    plan: OffloadPlan,
    buffers: Buffers,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None,
) -> list[nn.Linear]:
    needs = plan.needs
    passes: list[Slab] = []
    contexts: list[Slab] = []
    # What lies in a file is known by the tensors that a block has before it is moved.
    in_file = {
        layer: [_weights(low_bit.parts(block)), _weights(low_bit.context_parts(block))]
        for layer, block in enumerate(model.blocks)
        if layer in plan.mapped
    }

    def keep(number: int, block: Block, called: dict[str, nn.Linear]) -> None:
        if number not in plan.layers:
            return
        buffer = buffers.bytes[len(passes) % COUNT]
        own, of_context = low_bit.parts(block), low_bit.context_parts(block)
        every = {**called, **{kind: layers[0] for kind, layers in of_context.items()}}
        kept = in_file.pop(number, [None, None])
        for slabs, layout, kinds, mapped in (
            (passes, needs.layout, own, kept[0]),
            (contexts, needs.contexts, of_context, kept[1]),
        ):
            slabs.append(_slab(layout, {kind: every[kind].weight for kind in kinds}, mapped, device))
            for kind, view in layout.views(buffer).items():
                _move(every[kind], kinds[kind], view)

    layers = low_bit.place(model, device, dtype, precision, keep)
    if plan.layers:
        model.offloaded = Offloaded(buffers, plan.layers, passes, contexts)
    return layers


def _weights(kinds: Mapping[str, Sequence[nn.Linear]]) -> dict[str, list[Tensor]]:
    return {kind: [layer.weight.detach() for layer in layers] for kind, layers in kinds.items()}


def _slab(
    layout: SlabLayout,
    weights: Mapping[str, Tensor],
    mapped: Mapping[str, Sequence[Tensor]] | None,
    device: torch.device,
) -> Slab:
    if mapped is not None:
        return MappedSlab(layout, mapped)
    return PackedSlab(layout, weights, pinned=device.type == "cuda")


def _move(called: nn.Linear, layers: Sequence[nn.Linear], view: Tensor) -> None:
    """Has a layer, which `layers` lie side by side in, find its weight in a buffer."""
    called.weight = nn.Parameter(view, False)
    if isinstance(product := called.forward, low_bit.LowBitProduct):
        called.forward = product.of(view)  # type: ignore[method-assign, assignment]
    for layer, part in zip(layers, view.split([layer.out_features for layer in layers]), strict=True):
        layer.weight = nn.Parameter(part, False)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a module, with the weights of offloaded blocks from where they are kept."""
    found = dict(module.state_dict())
    for prefix, model in module.named_modules():
        if not isinstance(model, Generator) or model.offloaded is None:
            continue
        names = {part: name for name, part in model.named_modules()}
        start = f"{prefix}." if prefix else ""
        offloaded = model.offloaded
        for layer, *slabs in zip(offloaded.layers, offloaded.passes, offloaded.contexts, strict=True):
            block = model.blocks[layer]
            for slab, kinds in zip(slabs, (low_bit.parts(block), low_bit.context_parts(block)), strict=True):
                weights = slab.weights()
                for kind, parts in kinds.items():
                    for part, weight in zip(parts, weights[kind], strict=True):
                        found[f"{start}{names[part]}.weight"] = weight
    return found
