"""Attention by packages that a person has installed beside: newer kernels than torch brings.

They are found by name and called by what their releases document; none is a dependency. Whether one is right
here is for the self-check to say (`world.attention_check`): some read keys in 8 or 4 bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version

from torch import Tensor


@dataclass(frozen=True)
class Package:
    """Where a kernel is: `function` of `module`. `heads_first`: shapes as here, else tokens before heads."""

    title: str
    module: str
    function: str
    heads_first: bool


PACKAGES = {
    "flash3": Package("FlashAttention 3", "flash_attn_interface", "flash_attn_func", False),
    "flash4": Package("FlashAttention 4", "flash_attn.cute", "flash_attn_func", False),
    "sage2": Package("SageAttention 2", "sageattention", "sageattn", True),
    "sage3": Package("SageAttention 3", "sageattn3", "sageattn3_blackwell", True),
}
"""By the name of the backend."""

LOW_BIT = ("sage2", "sage3")
"""Those that may round what they are given to fewer bits than bfloat16 has."""


def installed_attention(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """Softmax attention `(B, heads, tokens, head_dim)`.

    Raises RuntimeError where the package is not there, or for another torch.
    """
    package = PACKAGES[backend]
    kernel = _kernel(backend)
    if package.heads_first:
        return _first(kernel(q, k, v))
    return _first(kernel(*(x.transpose(1, 2) for x in (q, k, v)))).transpose(1, 2)


def installed_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What queries read by FlashAttention 4, and the logarithms of their sums of weights, float32.

    Those are `(B, heads, queries)`. Raises RuntimeError as `installed_attention` does.
    """
    found = _kernel("flash4")(*(x.transpose(1, 2) for x in (q, k, v)), return_lse=True)
    assert isinstance(found, tuple)
    return found[0].transpose(1, 2), found[1]


def require(backend: str) -> None:
    """Raises RuntimeError where the package of a backend is not there, or for another torch."""
    _kernel(backend)


def _first(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Some releases return the logarithms of the sums of weights too."""
    return found[0] if isinstance(found, tuple) else found


@cache
def _kernel(backend: str) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    package = PACKAGES[backend]
    try:
        module = import_module(package.module)
        if backend == "sage2" and version(package.module).startswith("1."):
            raise ImportError(f"{version(package.module)} is installed, which the backend sage is for")
        kernel: Callable[..., Tensor | tuple[Tensor, ...]] = getattr(module, package.function)
    except Exception as error:  # a package for another torch fails in its own ways
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise RuntimeError(f"{package.title} cannot be loaded: {said}") from None
    return kernel
