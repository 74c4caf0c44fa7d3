"""What a session's numbers depend on beside scene, seed and actions: the world, and the environment.

Equal fingerprints and equal environments promise equal frames; a difference is the cause of a replay that
differs, and is named in words.
"""

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from weakref import WeakKeyDictionary

import msgspec
import torch
from torch import nn

from playhead import __version__
from playhead.world import low_bit
from playhead.world.checkpoint import digest, tensor_digest
from playhead.world.config import OWN_DECODER
from playhead.world.offload.placing import whole_state
from playhead.world.sparse_attention import SPARSE, SPARSE_KERNELS
from playhead.world.ticks import COMMIT
from playhead.world.world import World

_known: "WeakKeyDictionary[World, dict[str, str]]" = WeakKeyDictionary()
_decoders: "WeakKeyDictionary[World, str]" = WeakKeyDictionary()

WORDS = {
    "generator": "the generator's weights",
    "commit": "the weights of the commit pass",
    "experts": "the weights of the denoise steps before the last",
    "autoencoder": "the autoencoder's weights",
    "configuration": "the world's configuration",
    "dtype": "the number type",
    "device": "the device",
    "threads": "the number of threads",
    "processor": "the processor's instructions",
    "torch": "the version of torch",
    "playhead": "the version of Playhead",
    "attention": "the attention backend",
    "kernels": "the kernels of small operations",
    "precision": "the precision",
    "decoder": "the decoder",
    "cache": "the cache's precision",
    "ring": "where the cache has its frames",
    "gpus": "the number of GPUs",
    "width": "how many rows a pass has",
    "python": "the version of Python",
    "numpy": "the version of numpy",
    "system": "the operating system",
}
"""What each part of a fingerprint or an environment is, for a sentence."""
UNSAID = {
    "precision": "full",
    "cache": "full",
    "kernels": "plain",
    "decoder": OWN_DECODER,
    "gpus": "1",
    "width": "1",
    "ring": "rolling",
}
"""What a part is where it is not named."""
LATER = ("commit", "experts")
"""Parts that recordings once did not keep: where one is not there, it is not known to differ."""


def fingerprint(world: World) -> dict[str, str]:
    """Hex digests of the generators' weights, the autoencoder's and the configuration; computed once a world.

    Weights count by value: a bfloat16 file has the same digest wherever it is played.
    """
    if world not in _known:
        config = msgspec.structs.replace(world.config, decoders={})  # which others it has changes nothing
        found = {
            "generator": _digest_module(world.generator),
            "autoencoder": _digest_module(world.autoencoder),
            "configuration": digest(msgspec.json.encode(config, order="deterministic")),
        }
        *experts, _ = world.experts.generators
        if experts:
            found["experts"] = digest("\n".join(_digest_module(expert) for expert in experts).encode())
        if COMMIT in world.generators:
            found["commit"] = _digest_module(world.generators[COMMIT])
        _known[world] = found
    return _known[world]


def environment(world: World) -> dict[str, str]:
    """All else that may change the numbers: device, number type, another decoder, threads, versions."""
    found = {
        "dtype": str(world.dtype).removeprefix("torch."),
        "device": world.device.type,
        "threads": str(torch.get_num_threads()),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "playhead": __version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if world.device.type == "cuda":
        found["processor"] = torch.cuda.get_device_name(world.device)
        found["torch"] += f", cuDNN {torch.backends.cudnn.version()}"
    backend = getattr(world, "attention", None)
    if backend is not None:
        found["attention"] = str(getattr(backend, "name", backend))
        if backend in SPARSE and world.device.type == "cuda":
            found["attention"] += f", kernels {SPARSE_KERNELS}"
    kinds = {"fused": world.fused.fused, "fused decoder": world.fused_decoder.fused}
    if any(kinds.values()):
        found["kernels"] = ", ".join(kind for kind, taken in kinds.items() if taken)
    if world.precision is not None:
        found["precision"] = world.precision + low_bit.left_full(world.generator, world.precision)
    if world.frame_decoder.name != OWN_DECODER:
        if world not in _decoders:
            _decoders[world] = _digest_module(world.frame_decoder.network)
        found["decoder"] = f"{world.frame_decoder.name} {_decoders[world][:16]}"
    if world.cache is not None:
        found["cache"] = f"{world.cache} without scales{world.reader or ''}"
    if world.steady:
        found["ring"] = "steady"
    if world.split is not None:
        found["gpus"] = str(world.split.ranks.size)
    if world.wide is not None:
        found["width"] = str(world.wide.width)
    return found


def differences(before: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """In words, each part that two fingerprints or environments do not share: what it was and is."""
    found = []
    for part in [*WORDS, *sorted((before.keys() | here.keys()) - WORDS.keys())]:
        was, now = (known.get(part, UNSAID.get(part, "unknown")) for known in (before, here))
        if was != now and (part in before or part not in LATER):
            found.append(f"{WORDS.get(part, part)} (recorded {was[:40]}, here {now[:40]})")
    return found


def _digest_module(module: nn.Module) -> str:
    full = low_bit.full_weights(module)  # weights count by what they were before they were rounded
    scales = {f"{name}{kind}" for name in full for kind in low_bit.SCALES}
    tensors = sorted((name, tensor) for name, tensor in whole_state(module).items() if name not in scales)
    with ThreadPoolExecutor(8) as pool:
        described = pool.map(
            lambda pair: full.get(pair[0]) or (tuple(pair[1].shape), tensor_digest(pair[1])), tensors
        )
        lines = [
            f"{name} {shape} {found}" for (name, _), (shape, found) in zip(tensors, described, strict=True)
        ]
    return digest("\n".join(lines).encode())
