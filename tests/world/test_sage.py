"""SageAttention 1.0.6 has two traps; what is used here falls into neither. Shown by its own Triton kernels.

Triton's interpreter runs them on the CPU. It has to be chosen before Triton is imported, so each case is a
process of its own.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this system")

ROOT = Path(__file__).parents[2]
START = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from sageattention.attn_qk_int8_per_block import forward
from sageattention.quant_per_block import per_block_int8
from playhead.world.sage import sage_attention

torch.manual_seed(0)

def draw(keys, size):
    q, kv = torch.randn(1, 1, 70, size), torch.randn(2, 1, 1, keys + 40, size) + 0.5
    kv[:, :, :, keys:] = torch.nan  # the rest of a cache is nobody's business
    k, v = kv.half()[..., :keys, :].unbind()
    return q.half(), k, v

def error(found, q, k, v):
    wanted = torch.softmax(q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v.float()
    return float((found.float() - wanted).abs().sum() / wanted.abs().sum())

def released(q, k, v):
    k -= k.mean(2, keepdim=True)
    q8, q_scale, k8, k_scale = per_block_int8(q, k, tensor_layout="HND")
    return forward(q8, k8, v, q_scale, k_scale, tensor_layout="HND", output_dtype=q.dtype)
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", START + code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_release_subtracts_the_mean_from_the_keys_it_is_given() -> None:
    """By its own source: the interpreter cannot enter `sageattn`, which insists on a CUDA tensor."""
    import importlib.util

    spec = importlib.util.find_spec("sageattention.core")
    assert spec is not None and spec.origin is not None
    assert "k -= km" in Path(spec.origin).read_text("utf-8")


def test_the_keys_of_the_cache_are_only_read() -> None:
    run("""
q, k, v = draw(130, 64)
before = k.clone(), v.clone(), q.clone()
for _ in range(3):
    sage_attention(q, k, v)
assert all(torch.equal(a, b) for a, b in zip((k, v, q), before))
""")


@pytest.mark.parametrize(("keys", "size"), [(65, 64), (130, 64), (257, 128), (24, 128)])
def test_the_last_partial_block_of_keys_is_exact(keys: int, size: int) -> None:
    """The released kernel reads up to 63 keys that do not exist; the mended one is as good as aligned."""
    run(f"""
q, k, v = draw({keys}, {size})
assert error(released(q, k.clone(), v), q, k, v) > 0.05
assert error(sage_attention(q, k, v), q, k, v) < 0.02
""")


def test_aligned_keys_give_the_very_numbers_of_the_release() -> None:
    run("""
q, k, v = draw(128, 64)
assert torch.equal(sage_attention(q, k, v), released(q, k.clone(), v))
""")
