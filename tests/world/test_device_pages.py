"""Within a budget torch takes a GPU's memory by pages, unless the user said how it should."""

import pytest
import torch

from playhead.world.offload import device_pages


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch's allocator is told."""
    told: list[str] = []
    for name in device_pages.NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", told.append, raising=False)
    return told


def test_segments_grow_by_pages(settings: list[str]) -> None:
    device_pages.share_pages()
    assert settings == ["expandable_segments:True"]


@pytest.mark.parametrize("name", device_pages.NAMES)
def test_what_the_user_set_stays(settings: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:64")
    device_pages.share_pages()
    assert not settings


def test_a_torch_without_the_setting_does_without_it(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cuda.memory, "_set_allocator_settings")
    device_pages.share_pages()
