"""The self-check refuses a backend that is wrong, by name, and takes the fastest right one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from playhead import main as command_line
from playhead.world import attention_check
from playhead.world.attention import BACKENDS, attention
from playhead.world.attention_check import LIMIT, choose_backend, draw_inputs, measure
from playhead.world.errors import WorldError
from playhead.world.randomise import random_world
from playhead.world.sparse_attention import SPARSE

CPU = torch.device("cpu")
CONFIG = random_world("self-forcing", small=True)


def given(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return draw_inputs(CONFIG, 24, CPU, dtype)


def test_exact_backends_are_right_at_the_worlds_shapes() -> None:
    q, k, _ = given()
    assert q.shape[2] == 3 * 24 and k.shape[2] == 21 * 24 and k.shape[2] % 64
    for backend in ("torch", "math"):
        assert measure(*given(), backend).right


@pytest.mark.parametrize("trap", ["unmasked", "writes"])
def test_both_traps_are_seen(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor, backend: str | None = None) -> Tensor:
        if trap == "writes":
            found = attention(q, k, v)
            k -= k.mean(2, keepdim=True)
            return found
        zeros = k.new_zeros(*k.shape[:2], -k.shape[2] % 64, k.shape[3])
        k = k - k.mean(2, keepdim=True)
        return attention(q, torch.cat([k, zeros], 2), torch.cat([v, zeros], 2))

    monkeypatch.setattr(attention_check, "attention", wrong)
    finding = measure(*given(), "sage")
    assert not finding.right
    assert (
        finding.reason == "it writes to the keys it is given" if trap == "writes" else finding.error > LIMIT
    )


def test_a_wrong_or_unknown_wish_is_refused_by_name() -> None:
    with pytest.raises(WorldError, match="no attention `fast`"):
        choose_backend(CONFIG, 24, CPU, torch.float32, "fast")
    with pytest.raises(WorldError, match="--attention cudnn is refused here"):
        choose_backend(CONFIG, 24, CPU, torch.float32, "cudnn")
    assert choose_backend(CONFIG, 24, CPU, torch.float32, "math").backend == "math"


def test_the_fastest_right_one_is_taken_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))

    class Device:
        """A CUDA device as far as the choice can tell; everything is computed on the CPU."""

        type = "cuda"

    times = {"torch": 3.0, "flash": 1.0, "math": 9.0}

    asked: list[tuple[str, bool]] = []

    def measured(
        q: Tensor, k: Tensor, v: Tensor, backend: str, timed: bool = True
    ) -> attention_check.BackendReport:
        asked.append((backend, timed))
        if backend not in times:
            return attention_check.BackendReport(backend, error=0.2, seconds=0.1)
        return attention_check.BackendReport(backend, 0.001, times[backend])

    monkeypatch.setattr(attention_check, "measure", measured)
    monkeypatch.setattr(attention_check, "draw_inputs", lambda *_: given())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "some GPU")
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    choose = lambda: choose_backend(CONFIG, 24, Device(), torch.bfloat16)  # type: ignore[arg-type] # noqa: E731
    first = choose()
    assert first.backend == "flash"
    assert [finding.partition(":")[0] for finding in first.findings[:3]] == ["flash", "torch", "math"]
    assert all("refused" in finding for finding in first.findings[3:])
    refused = {finding.partition(":")[0] for finding in first.findings[3:]}
    tried = set(attention_check.worth_trying(CONFIG, 24, Device()))  # type: ignore[arg-type]
    assert refused == tried - times.keys() > {"cudnn", "efficient", "sage"}
    assert {"split8", "flash4-split8"} <= tried < set(BACKENDS), "of a few queries more parts are likelier"
    times["torch"] = 0.5
    asked.clear()
    assert choose() == first  # as remembered, what was refused included
    assert asked == [("flash", False)], "it is compared again, and not timed"
    del times["flash"]  # it is wrong by now, say after an update of the driver
    assert choose().backend == "torch"
    for damaged in ("{ damaged", '{"some GPU": "flash"}'):
        (tmp_path / "attention.json").write_text(damaged, "utf-8")
        assert choose().backend == "torch"


def test_the_command_names_the_refused_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["main.py", "bench", "attention", "--world", "freedoom", "--device", "cpu"]
    )
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert not end.value.code
    lines = {
        line.split()[1].rstrip(":"): line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]
    }
    assert lines.keys() == {*BACKENDS, *SPARSE}
    assert (lines["torch"], lines["math"], lines["cudnn"]) == ("right", "right", "unusable")
