"""Reading and writing weights: safetensors only, every key, shape and value checked before use."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from playhead.world.errors import WorldError
from playhead.world.filekind import misfit

DIGEST_SIZE = 16
"""Bytes of a digest."""


def save_weights(
    path: Path,
    tensors: dict[str, Tensor],
    dtype: torch.dtype = torch.bfloat16,
    progress: Callable[[float], None] = lambda part: None,
) -> None:
    """Writes tensors as safetensors in `dtype`, whole or not at all. `progress` is told the part done."""
    temporary, converted = path.with_suffix(".tmp"), {}
    for number, (key, tensor) in enumerate(tensors.items()):
        progress(number / len(tensors))
        converted[key] = tensor.detach().to("cpu", dtype).contiguous()
    try:
        save_file(converted, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def tensor_digest(tensor: Tensor) -> str:
    """A hex digest of the values: that of bfloat16 numbers is that of the same ones in float32."""
    values = tensor.detach().cpu()
    values = values.float() if values.is_floating_point() else values
    return digest(values.contiguous().numpy().reshape(-1).view("uint8").data)


def digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. Raises WorldError if it is missing, damaged or holds a NaN or an infinity."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WorldError(f"{path} is missing: fetch the world's weights again") from None
    except (SafetensorError, OSError, ValueError) as error:
        if what := misfit(path):
            raise WorldError(f"{path} is no safetensors file; it is {what}") from None
        raise WorldError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from None
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WorldError(f"{path}: tensor `{key}` holds a NaN or an infinity; fetch the file again")
    return tensors


def read_float(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file as float32, for training to go on from."""
    return {key: tensor.float() for key, tensor in read_weights(path).items()}


class _WithoutDraws(TorchFunctionMode):
    """Leaves initial weights undrawn: on the meta device torch would load its compiler for them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules that are built in here have keys and shapes, and no memory until `fill` gives them weights."""
    with torch.device("meta"), _WithoutDraws():
        yield


def random_seed(name: str) -> int | None:
    """The seed of random weights, as `random:SEED` names them in place of a file; None for a file's name."""
    scheme, _, seed = name.partition(":")
    return int(seed) if scheme == "random" and seed.isdecimal() else None


@torch.no_grad()
def fill_randomly(
    module: nn.Module, seed: int, device: torch.device, dtype: torch.dtype, kept: torch.device | None = None
) -> None:
    """Gives a module on the meta device random weights, such that signals keep their size.

    Drawn on `device`, one after the other, and `kept` there or elsewhere: the same on the same kind of
    device. For benchmarks and tests.
    """
    draw = torch.Generator(device).manual_seed(seed)
    drawn = {}
    for name, shape in sorted((name, tensor.shape) for name, tensor in module.state_dict().items()):
        tensor = torch.empty(shape, device=device, dtype=dtype)
        gain = tensor.ndim == 1 and name.endswith(".weight")
        spread = 0.1 if name.endswith("modulation") else 0.02
        if tensor.ndim >= 2 and not name.endswith("modulation"):
            spread = tensor[0].numel() ** -0.5
        tensor.normal_(float(gain), spread, generator=draw)
        drawn[name] = tensor if kept is None else tensor.to(kept)
    module.load_state_dict(drawn, assign=True)


def fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Loads `tensors` into `module`. Raises WorldError naming the first key that does not fit."""
    wanted = module.state_dict()
    advice = "it belongs to another configuration than the world.toml beside it"
    for key in sorted(wanted.keys() | tensors.keys()):
        if key not in tensors:
            raise WorldError(f"{path}: tensor `{key}` is missing; {advice}")
        if key not in wanted:
            raise WorldError(f"{path}: tensor `{key}` is not part of this model; {advice}")
        if wanted[key].shape != tensors[key].shape:
            raise WorldError(
                f"{path}: tensor `{key}` has shape {tuple(tensors[key].shape)} where the model has "
                f"{tuple(wanted[key].shape)}; {advice}"
            )
    module.load_state_dict(tensors, assign=True)


def load_weights(
    module: nn.Module,
    folder: Path,
    file: str,
    device: torch.device,
    dtype: torch.dtype,
    kept: torch.device | None = None,
) -> None:
    """Gives a module on the meta device the weights of a file in `folder`, or those that `random:SEED` names.

    Those of a file stay in it, mapped to main memory, and random ones are `kept` where they were drawn or
    elsewhere. Raises WorldError where the file is missing, damaged or another model's.
    """
    seed = random_seed(file)
    if seed is not None:
        fill_randomly(module, seed, device, dtype, kept)
    else:
        fill(module, read_weights(folder / file), folder / file)
