"""Parity with the public reference implementations: `python -m tests.tools.parity DIR`.

DIR is a folder of the golden format (`golden_format.py`). Its model is built here from the very classes that
play uses, filled by the recipe and run the same way (`golden_runs.py`); then every stored result is compared.
`--device cuda` runs it on a GPU, in float32 without TF32; `--fused` by fused passes, on a GPU by its kernels,
on a CPU by their twins. What is traced within a block is not compared then: they do not come by there.

Exit status: 0 within the folder's limits, 1 beyond them, 2 if DIR is no such folder or not supported yet.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from playhead.world import acceleration
from playhead.world.errors import PlayheadError
from tests.tools.golden_format import (
    GoldenError,
    Header,
    Meta,
    PassesMeta,
    RolloutMeta,
    TaeMeta,
    Tensors,
    VaeMeta,
    read_meta,
    read_tensors,
)
from tests.tools.golden_runs import How, run_autoencoder, run_passes, run_rollout, run_wan_vae


class Row(NamedTuple):
    """One compared tensor: its largest absolute error and its relative L2 error."""

    name: str
    max_abs: float
    rel_l2: float


def compare(name: str, found: Tensor, stored: Tensor) -> Row:
    """The errors of `found`; traces are stored flatter than they are found."""
    if found.numel() != stored.numel():
        return Row(name, float("inf"), float("inf"))
    stored = stored.double().flatten()
    error = found.cpu().double().flatten() - stored
    return Row(name, float(error.abs().max()), float(error.norm() / stored.norm()))


class Report(NamedTuple):
    """A row a compared tensor, what contradicts the folder's listing, and the tensors left uncompared."""

    limits: tuple[float, float]
    rows: list[Row]
    wrong: list[str]
    left_out: list[str]

    def within(self, row: Row) -> bool:
        return row.max_abs <= self.limits[0] and row.rel_l2 <= self.limits[1]  # a NaN is not

    @property
    def passes(self) -> bool:
        return not self.wrong and all(map(self.within, self.rows))

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'':{width}}  {'max abs':>8} {'limit':>8}  {'rel L2':>8} {'limit':>8}"]
        for row in self.rows:
            lines.append(
                f"{row.name:{width}}  {row.max_abs:8.1e} {self.limits[0]:8.1e}  {row.rel_l2:8.1e} "
                f"{self.limits[1]:8.1e}{'' if self.within(row) else '  FAIL'}"
            )
        lines += [f"not compared: {name}" for name in self.left_out]
        lines += [f"{line}  FAIL" for line in self.wrong]
        return "\n".join([*lines, "pass" if self.passes else "FAIL"])


RUNS: dict[tuple[str, str], tuple[type[Meta], Callable[[Any, Tensors, How], tuple[Tensors, list[str]]]]] = {
    ("self-forcing", "rollout"): (RolloutMeta, run_rollout),
    ("self-forcing", "passes"): (PassesMeta, run_passes),
    ("matrix-game-2", "rollout"): (RolloutMeta, run_rollout),
    ("matrix-game-2", "passes"): (PassesMeta, run_passes),
    ("taehv-wan2.1", "autoencoder"): (TaeMeta, run_autoencoder),
    ("wan-vae-2.1", "autoencoder"): (VaeMeta, run_wan_vae),
}
"""What is supported, by `family` and `kind`."""


@torch.inference_mode()
def check(
    folder: Path,
    atol: float | None = None,
    rel_l2: float | None = None,
    device: str = "cpu",
    fused: bool = False,
) -> Report:
    """Rebuilds, runs and compares a golden folder; `atol`, `rel_l2`: limits in place of the folder's own.

    Convolutions run by torch's own loops: on processors without AVX-512 oneDNN's are 1e-5 from float64 by
    their rounding alone, where these, like the references, are 4e-6. Raises GoldenError if that cannot be
    done with the folder or the device.
    """
    how = How(acceleration.pick_device(device), fused)
    if how.device.type not in ("cpu", "cuda"):
        raise GoldenError(f"numbers are compared on cpu and cuda, not on {how.device}")
    path = folder / "meta.json"
    header = read_meta(path, Header)
    if (header.family, header.kind) not in RUNS:
        raise GoldenError(
            f"{path}: family `{header.family}`, kind `{header.kind}` is not supported yet; "
            f"supported are {', '.join(' '.join(pair) for pair in RUNS)}"
        )
    described, run = RUNS[header.family, header.kind]
    meta = read_meta(path, described)
    io = read_tensors(folder / "io.safetensors")
    # Setting that flag brings up a warning about Intel GPUs.
    with (
        warnings.catch_warnings(action="ignore"),
        torch.backends.mkldnn.flags(enabled=False),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        given = {name: tensor.to(how.device) for name, tensor in io.items()}
        found, wrong = run(meta, given, how)
    for name in meta.outputs:
        if name not in io or name not in found:
            raise GoldenError(
                f"{path} lists the output `{name}`, which is not in io.safetensors or not known"
            )
    order = [*meta.outputs, *sorted(found.keys() - set(meta.outputs))]
    return Report(
        limits=(
            meta.tolerances.suggested_atol_float32 if atol is None else atol,
            meta.tolerances.suggested_rel_l2_float32 if rel_l2 is None else rel_l2,
        ),
        rows=[compare(name, found[name], io[name]) for name in order if name in io],
        wrong=wrong,
        left_out=[name for name in meta.traces if name not in found],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.parity", description="Checks a golden folder."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder with meta.json and io.safetensors")
    parser.add_argument("--atol", type=float, help="the largest absolute error, in place of the folder's own")
    parser.add_argument("--rel-l2", type=float, help="the largest relative L2 error, likewise")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--fused", action="store_true", help="by fused passes")
    given = parser.parse_args(arguments)
    try:
        report = check(given.folder, given.atol, given.rel_l2, given.device, given.fused)
    except PlayheadError as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 0 if report.passes else 1


if __name__ == "__main__":
    sys.exit(main())
