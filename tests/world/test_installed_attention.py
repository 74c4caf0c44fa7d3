"""Kernels of packages that are installed beside: called as they document, and checked like all others.

The packages are stand-ins with their signatures: none of theirs runs without an NVIDIA GPU.
"""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world import installed_attention as installed
from playhead.world.attention import BACKENDS, attention
from playhead.world.attention_check import LIMIT, LOW_BIT_LIMIT, choose_backend, draw_inputs, measure
from playhead.world.errors import WorldError
from playhead.world.installed_attention import PACKAGES
from playhead.world.randomise import random_world
from playhead.world.split_attention import FLASH_PARTS

CPU = torch.device("cpu")
CONFIG = random_world("self-forcing", small=True)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def coarse(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As 8 bits would have it: a few percent off."""
    step = k.abs().amax() / 15
    return exact(q, (k / step).round() * step, v)


def writing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    found = exact(q, k, v)
    k -= k.mean(2, keepdim=True)
    return found


Install = Callable[[str, Callable[..., Tensor]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a stand-in of a backend's package in place, of the layout and with the answer of its releases."""

    def put(backend: str, kernel: Callable[..., Tensor]) -> None:
        package = PACKAGES[backend]

        def heads_first(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
            return kernel(q, k, v)

        def tokens_first(q: Tensor, k: Tensor, v: Tensor, **_: object) -> tuple[Tensor, Tensor]:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            sums = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).logsumexp(-1)
            return kernel(q, k, v).transpose(1, 2), sums

        module = ModuleType(package.module)
        setattr(module, package.function, heads_first if package.heads_first else tokens_first)
        for name in (package.module.split(".")[0], package.module):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(installed, "version", lambda name: "2.2.0")
        installed._kernel.cache_clear()

    yield put
    installed._kernel.cache_clear()


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_package_attends_whatever_its_layout(backend: str, install: Install) -> None:
    install(backend, exact)
    q, k, v = draw_inputs(CONFIG, 24, CPU, torch.float32)
    torch.testing.assert_close(attention(q, k, v, backend=backend), exact(q, k, v))
    assert measure(q, k, v, backend).right
    assert choose_backend(CONFIG, 24, CPU, torch.float32, backend).backend == backend


@pytest.mark.parametrize("backend", FLASH_PARTS)
def test_flash_attention_4_reads_keys_in_parts(backend: str, install: Install) -> None:
    install("flash4", exact)
    q, k, v = draw_inputs(CONFIG, 24, CPU, torch.float32)
    torch.testing.assert_close(attention(q, k, v, backend=backend), exact(q, k, v))
    # What cannot be cut evenly is read in one piece.
    torch.testing.assert_close(
        attention(q, k[:, :, 1:], v[:, :, 1:], backend=backend), exact(q, k[:, :, 1:], v[:, :, 1:])
    )
    assert measure(q, k, v, backend).right


@pytest.mark.parametrize("backend", PACKAGES)
def test_one_that_writes_to_the_cache_is_refused(backend: str, install: Install) -> None:
    install(backend, writing)
    finding = measure(*draw_inputs(CONFIG, 24, CPU, torch.float32), backend)
    assert finding.reason == "it writes to the keys it is given"


@pytest.mark.parametrize("backend", PACKAGES)
def test_one_that_is_not_there_says_so(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PACKAGES[backend].module.split(".")[0], PACKAGES[backend].module):
        monkeypatch.setitem(sys.modules, name, None)
    installed._kernel.cache_clear()
    finding = measure(*draw_inputs(CONFIG, 24, CPU, torch.float32), backend)
    assert finding.reason.startswith(f"{PACKAGES[backend].title} cannot be loaded: ")


def test_the_first_sage_is_not_taken_for_the_second(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sage2", exact)
    monkeypatch.setattr(installed, "version", lambda name: "1.0.6")
    finding = measure(*draw_inputs(CONFIG, 24, CPU, torch.float32), "sage2")
    assert finding.reason == (
        "SageAttention 2 cannot be loaded: 1.0.6 is installed, which the backend sage is for"
    )


@pytest.mark.parametrize("backend", PACKAGES)
def test_coarse_numbers_are_for_who_asks_for_them_and_say_their_error(backend: str, install: Install) -> None:
    install(backend, coarse)
    finding = measure(*draw_inputs(CONFIG, 24, CPU, torch.float32), backend)
    assert LIMIT < finding.error < LOW_BIT_LIMIT and not finding.right, "none is taken by itself"
    if backend in installed.LOW_BIT:
        choice = choose_backend(CONFIG, 24, CPU, torch.float32, backend)
        assert f"{backend}: relative L1 error {finding.error:.4f}, " in choice.findings[0]
    else:
        with pytest.raises(WorldError, match=f"--attention {backend} is refused here: .* refused above 0.01"):
            choose_backend(CONFIG, 24, CPU, torch.float32, backend)


def test_every_backend_has_a_name_of_its_own() -> None:
    assert len(set(BACKENDS)) == len(BACKENDS)


def test_flex_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it compiles is torch's; compiling takes minutes on a CPU, so what it was given is enough here."""
    asked: list[object] = []

    def compiled(function: Callable[..., Tensor], **how: object) -> Callable[..., Tensor]:
        asked.append(SimpleNamespace(function=function, **how))
        return exact

    from playhead.world import attention as module

    monkeypatch.setattr(torch, "compile", compiled)
    module._flex.cache_clear()
    choice = choose_backend(CONFIG, 24, CPU, torch.float32, "flex")
    module._flex.cache_clear()
    assert choice.backend == "flex" and len(asked) == 1


@pytest.mark.parametrize("keys", [24, 25])
def test_keys_in_parts_want_the_package_even_where_they_are_read_in_one_piece(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be found right where keys cannot be cut evenly, and fail in play where they can."""
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    installed._kernel.cache_clear()
    q, k = torch.randn(1, 2, 4, 16), torch.randn(1, 2, keys, 16)
    for backend in FLASH_PARTS:
        with pytest.raises(RuntimeError, match="FlashAttention 4 cannot be loaded"):
            attention(q, k, k, backend=backend)
