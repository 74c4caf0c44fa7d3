"""What `bench play` prints: every line, with numbers that can belong together."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from playhead.main import main
from playhead.render.bench import figures
from playhead.render.bench.play_speed import RandomSource
from playhead.render.bench.precision import PrecisionFigures
from playhead.world.action import Action, ActionSpace
from tests.conftest import BUTTONS, make_tiny_world, save_world

ROOT = Path(__file__).parents[2]
TICKS = 50


def bench(*options: str, command: str = "play") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", "bench", command, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)


def test_bench_play_prints_every_line_with_numbers_that_agree() -> None:
    done = bench("--ticks", str(TICKS), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = {line[:13].strip(): line[13:].strip() for line in done.stdout.splitlines() if line[:1].islower()}
    assert list(lines) == [
        "hardware",
        "world",
        "measured",
        "rate",
        "tick",
        "key to frame",
        "key to screen",
        "start",
        "memory",
    ]
    assert re.search(r"\d+ threads?, torch \d+\.\d+", lines["hardware"])
    assert lines["world"].startswith("freedoom, 256 x 160, 1 step a tick, ")
    assert number(lines["measured"]) == TICKS - 1  # times between frames: one fewer than frames
    assert "the world's own: 17.5" in lines["rate"]

    rate, tick = number(lines["rate"]), spread(lines["tick"])
    frame, screen = spread(lines["key to frame"]), spread(lines["key to screen"])
    for p50, p95, p99 in (tick, frame, screen):
        assert 0 < p50 <= p95 <= p99
    # The rate is one over the mean tick, which is at least half the median and at most the slowest.
    assert 1000 / tick[2] * 0.95 <= rate <= 2000 / tick[0] * 1.05
    assert frame[0] <= tick[0]  # the frame is handed over before its tick is done
    assert frame[0] < screen[2]
    assert number(lines["start"]) > 0
    assert 100 < number(lines["memory"]) < 20_000


def test_recorded_and_unrecorded_play_are_measured_in_one_run(
    tiny_world_folder: Path, tiny_scene: Path
) -> None:
    done = bench(
        "--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--ticks", "100", "--recording"
    )
    assert done.returncode == 0, done.stderr
    lines = {line[:13].strip(): line[13:].strip() for line in done.stdout.splitlines()}
    plain, recorded = spread(lines["not recorded"]), spread(lines["recorded"])
    ratios = [float(part) for part in lines["ratio"].split(" / ")]
    for ratio, with_it, without in zip(ratios, recorded, plain, strict=True):
        assert abs(ratio - with_it / without) <= 0.06 * ratio + 0.1  # the times are rounded
    assert 10 < number(lines["a minute"]) < 200


def test_runs_are_kept_as_json_and_compared_by_ratios(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    options = ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--ticks", "50", "--stages"]
    first.write_text(bench(*options, "--device", "cpu", "--json").stdout, "utf-8")
    found = figures.read(first)
    assert (
        found.ticks == 49 and found.world == "tiny" and found.stages.keys() == found.gflop.keys() | {"copy"}
    )
    assert 0 < found.tick.p50 <= found.tick.p95 <= found.tick.p99
    assert all(line[13] == " " and line[14] != " " for line in found.lines())
    assert found.products is not None and 0 < found.products.p50 <= found.products.p95 <= found.products.p99
    (machine,) = (line for line in found.lines() if line.startswith("machine "))
    assert f"p99 / p50 {found.products.p99 / found.products.p50:.2f} here" in machine
    assert f"(the tick: {found.tick.p99 / found.tick.p50:.2f})" in machine
    paced = msgspec.structs.replace(
        found, paced=True
    )  # a tick waits for its time then, which hides what it took
    ratio = found.key_to_frame.p99 / found.key_to_frame.p50
    assert any(line.endswith(f"(key to frame: {ratio:.2f})") for line in paced.lines())
    hostile = "float16\x1b[2J"
    quicker = msgspec.structs.replace(found, rate=2 * found.rate, precision=hostile, stages={}, memory=None)
    alike = figures.Spread(found.products.p50, found.products.p50, found.products.p50)
    quicker = msgspec.structs.replace(quicker, products=alike)
    second.write_bytes(msgspec.json.encode(quicker))
    done = bench(str(first), str(second), command="compare")
    assert done.returncode == 0, done.stderr
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells(done.stdout)}
    assert rows["precision"][0] == found.precision and rows["precision"][1].startswith("float16")
    assert "\x1b" not in done.stdout
    assert rows["ticks/s"][2] == "2.000" and rows["start, s"][2] == "1.000"
    assert rows["bare products, p99 / p50"][1] == "1"
    assert "hardware" not in rows and "memory, MB" not in rows and "denoise p50, ms" not in rows
    second.write_text("{}", "utf-8")
    refused = bench(str(first), str(second), command="compare")
    assert refused.returncode and "second.json cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr


def cells(table: str) -> list[list[str]]:
    """The rows of a table as it is printed."""
    lines = (re.split("[│┃]", line) for line in table.splitlines())
    return [line[1:-1] for line in lines if len(line) > 2]


@pytest.mark.parametrize("one_pass", [False, True])
def test_the_way_to_random_moments_is_measured(one_pass: bool, tiny_scene: Path, tmp_path: Path) -> None:
    world = save_world(make_tiny_world(one_pass=one_pass), tmp_path / "tiny")
    options = ["--world", str(world), "--scene", str(tiny_scene), "--ticks", "70", "--seeks", "5"]
    done = bench(*options, command="seek")
    assert done.returncode == 0, done.stderr
    lines = {line[:13].strip(): line[13:].strip() for line in done.stdout.splitlines()}
    assert list(lines) == ["hardware", "world", "played", "seek", "picture", "snapshots", "disk"]
    assert number(lines["snapshots"]) > 0 and number(lines["disk"]) > 0
    assert 0 < spread(lines["seek"])[0] <= spread(lines["seek"])[2]


def test_the_stages_of_a_one_pass_tick_are_measured(tiny_scene: Path, tmp_path: Path) -> None:
    world = save_world(make_tiny_world(one_pass=True), tmp_path / "tiny")
    done = bench("--world", str(world), "--scene", str(tiny_scene), "--ticks", "50", "--stages")
    assert done.returncode == 0, done.stderr
    lines = {line[:13].strip(): line[13:].strip() for line in done.stdout.splitlines()}
    for stage in ("denoise", "decode", "copy", "commit"):
        p50, p95, p99 = spread(lines[stage])
        assert 0 <= p50 <= p95 <= p99


def number(words: str) -> float:
    """The first number in `words`."""
    found = re.search(r"\d+(\.\d+)?", words)
    assert found, words
    return float(found[0])


def spread(words: str) -> tuple[float, float, float]:
    """p50, p95 and p99 in milliseconds."""
    found = re.match(r"([\d.]+) / ([\d.]+) / ([\d.]+) ms", words)
    assert found, words
    p50, p95, p99 = map(float, found.groups())
    return p50, p95, p99


def test_too_few_ticks_to_say_anything_are_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "50" in refusal(("--ticks", "10"), monkeypatch, capfd)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--world", "atlantis"), "no world `atlantis`"),
        (("--scene", "atlantis"), "`atlantis`"),
        (("--steps", "0"), "not 0; try --steps 2"),
    ],
)
def test_what_is_unknown_ends_in_one_sentence(
    options: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = refusal((*options, "--device", "cpu"), monkeypatch, capfd)
    assert said.startswith("playhead: ")
    assert len(said.splitlines()) == 1
    assert words in said


def refusal(
    options: Sequence[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    """What `bench play` says on stderr when it refuses, in this process."""
    monkeypatch.setattr(sys, "argv", ["main.py", "bench", "play", *options])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert (end.value.code, out) == (2, ""), err
    return err


def test_the_wanderer_holds_every_button_and_combinations_and_nothing() -> None:
    """What is measured is play: chords that change, and pauses."""
    space = ActionSpace(BUTTONS)
    wanderer, again = RandomSource(space), RandomSource(space)
    actions = [wanderer.sample() for _ in range(3000)]
    assert actions == [again.sample() for _ in range(3000)]
    assert {name for action in actions for name in action.buttons} == set(BUTTONS)
    assert {len(action.buttons) for action in actions} == {0, 1, 2}
    assert Action() in actions
    changes = sum(a != b for a, b in pairwise(actions))
    assert 3000 / 20 < changes < 3000 / 3


def test_bench_bridge_prints_every_line_with_numbers_that_agree(tiny_world_folder, tiny_scene) -> None:
    options = ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--device", "cpu"]
    done = bench(*options, "--steps", "50", "--ticks", "20", "--watchers", "2", command="bridge")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [
        (line[:13].strip(), line[13:].strip()) for line in done.stdout.splitlines() if line[:1].islower()
    ]
    assert [name for name, _ in lines] == ["hardware", "lockstep", "tick", "bridge", *["live"] * 4, "misses"]
    said = dict(lines)
    assert said["lockstep"].startswith("50 steps")
    for name in ("tick", "bridge"):
        numbers = [float(number) for number in re.findall(r"[\d.]+(?= /| ms)", said[name])]
        assert 0 < numbers[0] <= numbers[1] <= numbers[2]
    phases = [
        re.match(r"(\d+) watchers: (\d+) of (\d+) ticks missed", text)
        for name, text in lines
        if name == "live"
    ]
    assert [int(phase[1]) for phase in phases] == [0, 2, 0, 2]
    assert all(int(phase[3]) >= 20 for phase in phases)
    for place, count in ((0, 0), (1, 2)):
        missed = sum(int(phase[2]) for phase in phases if int(phase[1]) == count)
        ticks = sum(int(phase[3]) for phase in phases if int(phase[1]) == count)
        assert float(re.findall(r"\d\.\d+", said["misses"])[place]) == pytest.approx(missed / ticks, abs=1e-3)


@pytest.mark.parametrize(("precision", "most"), [("fp8", 0.06), ("int8", 0.06), ("nvfp4", 0.2)])
def test_low_bit_is_compared_with_full_precision_layer_by_layer(
    precision: str, most: float, tiny_world_folder: Path, tiny_scene: Path
) -> None:
    options = ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--device", "cpu"]
    options += ["--ticks", "3", "--precision", precision]
    done = bench(*options, "--json", command="precision")
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout, type=PrecisionFigures)
    kinds = ("qkv", "ffn in", "ffn out") if precision == "fp8" else ("qkv", "o", "ffn in", "ffn out")
    assert [(e.block, e.kind) for e in found.layers] == [
        (block, kind) for block in range(2) for kind in kinds
    ]
    assert all(0 < e.error < most for e in found.layers)
    assert len(found.psnr) == 3 and all(10 < value <= 60 for value in found.psnr)
    assert (
        found.precisions[1].endswith(precision)
        and found.precisions[0] + f", {precision}" == found.precisions[1]
    )
    assert found.weights[1] < found.weights[0] and found.ratio > 0 and found.device_memory is None
    names = [line[:13].strip() for line in found.lines()]
    assert names == ["hardware", "world", "block 0", "block 1", "PSNR", "tick", "weights"]
    printed = bench(*options, command="precision")
    assert [line[:13].strip() for line in printed.stdout.splitlines()] == names


def test_bench_serve_plays_every_session_and_holds_it_to_one_batch(tiny_world_folder, tiny_scene) -> None:
    options = ["--world", str(tiny_world_folder), "--scene", str(tiny_scene), "--device", "cpu"]
    done = bench(*options, "--sessions", "3", "--seconds", "1", "--actions", "2", command="serve")
    assert (done.returncode, done.stderr) == (0, "")
    said = dict((line[:13].strip(), line[13:].strip()) for line in done.stdout.splitlines())
    assert said["clients"] == "3 sessions, a connection each; 2 actions a request, all raw frames"
    rate, ticks = re.match(r"([\d.]+) ticks/s together: (\d+) in 1 s", said["serve"]).groups()
    assert float(rate) == int(ticks) and not int(ticks) % 2
    batch = re.match(r"([\d.]+) ticks/s together: 3 in one pass", said["bench batch"])[1]
    assert float(said["ratio"]) == pytest.approx(float(rate) / float(batch), abs=0.01)
    wrong = bench("--frames", "some", command="serve")
    assert wrong.returncode == 2 and wrong.stderr == "playhead: --frames some is none of all, last and none\n"
