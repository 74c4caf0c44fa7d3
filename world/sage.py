"""SageAttention 1.0.6 (extra `gpu`), made safe against its two traps.

The release subtracts the mean from the keys it is given, in place, which would corrupt a KV cache; here its
kernel gets a smoothed copy. And its kernel does not mask the last partial block of 64 keys, so that up to 63
keys that do not exist are read as zeros; here that mask is put in: the kernel is compiled from the installed
package's own source with one line more, and refused where that source is not the known one.
"""

import importlib.util
import linecache
from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch import Tensor

from playhead.world.extras import install

SCORES = "        qk = tl.dot(q, k).to(tl.float32) * q_scale * k_scale"
MASK = '        qk = tl.where(k_mask, qk, float("-inf"))'
HEAD_DIMS = (64, 128)
"""The sizes whose kernel is mended here."""


@cache
def _kernels() -> tuple[Callable[..., tuple[Tensor, ...]], Callable[..., Tensor]]:
    """The package's quantiser and its kernel, mended. Raises RuntimeError where it is absent or another."""
    try:
        from sageattention.quant_per_block import per_block_int8

        spec = importlib.util.find_spec("sageattention.attn_qk_int8_per_block")
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(f"SageAttention cannot be loaded ({error}): {install('gpu')}") from None
    if spec is None or spec.origin is None:
        raise RuntimeError(f"SageAttention is another release than 1.0.6: {install('gpu')}")
    lines = Path(spec.origin).read_text("utf-8").splitlines()
    at = [number for number, line in enumerate(lines) if line.rstrip() == SCORES]
    if len(at) != 1:
        raise RuntimeError(f"SageAttention is another release than 1.0.6: {install('gpu')}")
    lines.insert(at[0] + 1, MASK)
    name = "<sageattention 1.0.6, last block masked>"
    source = "\n".join(lines) + "\n"
    # Triton reads a kernel's source through its file's name.
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("playhead.world.sage_kernel", None)
    )
    exec(compile(source, name, "exec"), module.__dict__)
    return per_block_int8, module.forward


def sage_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with keys and queries in int8, blocks of 64 keys, and values in float16.

    Shapes `(B, heads, tokens, head_dim)`. Nothing that is given is written to. Raises RuntimeError where it
    cannot be used.
    """
    if q.shape[-1] not in HEAD_DIMS:
        raise RuntimeError(f"SageAttention is for heads of {' or '.join(map(str, HEAD_DIMS))} channels")
    quantise, kernel = _kernels()
    smooth = k - k.mean(2, keepdim=True)  # moves all scores of a query alike, which softmax does not see
    q8, q_scale, k8, k_scale = quantise(q, smooth, tensor_layout="HND")
    return kernel(q8, k8, v.half(), q_scale, k_scale, tensor_layout="HND", output_dtype=q.dtype)
