"""What is said of several GPUs, on a host that has them: `python -m tests.tools.parallel_on_gpu`.

Public worlds of random weights are played on one GPU and on several (`--gpus`, 2). Printed are milliseconds
a tick, p50 and p95, and how many times as fast; how far frames are from those of one GPU, in grey levels of
255, which rounding makes and random weights carry on; whether two runs are equal bit for bit, and a return
to a snapshot. Then a rank of `main.py rollout` is killed while it plays: what it says, its exit
status, and whether its recording is whole. Each part has a process of its own; `--only` does one.
With `--device cpu --small` all of it runs without a GPU, on small worlds.
"""

import argparse
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from playhead.engine.parallel.start import load_world
from playhead.engine.recording.reader import Recording
from playhead.engine.session import Session
from playhead.engine.stats import percentile
from playhead.scenes.scene import context_arrays
from playhead.world.action import Action
from playhead.world.config import WorldConfig
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World

MAIN = Path(__file__).parents[2] / "main.py"
EXACT = 6
"""Ticks whose frames are compared."""
MEASURED = 20
"""Ticks that are timed, once every slot of the cache was seen twice."""
LONGEST = 120
"""Seconds that a part may take."""


@dataclass(frozen=True)
class Case:
    """A catalogue world with a window of so many latents, None: its own."""

    name: str
    window: int | None = None


CASES = {
    "causal-21": Case("causal-forcing"),
    "causal-9": Case("causal-forcing", 9),
    "chunk-3": Case("self-forcing"),
    "matrix": Case("matrix-game-2"),
}
PARTS = ("causal-21", "chunk-3", "killed", "causal-9", "decoder", "matrix")
"""What there is to be seen, the most important first."""


def say(text: str) -> None:
    print(text, flush=True)


def act(config: WorldConfig, number: int) -> Action:
    """What is held in a tick; a switch of the prompt where there is one."""
    space = config.action
    return Action(frozenset({"prompt_2"} & set(space.buttons) if number == 2 else space.seen[:1]))


@dataclass(frozen=True)
class Played:
    """Frames of the first ticks of two runs, seconds of ticks of a full window, and bytes held by torch."""

    first: list[np.ndarray]
    again: list[np.ndarray]
    returned: bool
    ticks: list[float]
    peak: int


def wait_for(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def play(world: World) -> Played:
    """Plays, goes back to a snapshot, plays again from the start, then times ticks of a full window."""
    config = world.config
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)
    session = Session(world, random_context(config), 3)
    first = [session.step(act(config, n)) for n in range(EXACT)]
    kept = session.snapshot()
    one = [session.step(Action()) for _ in range(2)]
    session.restore(kept)
    other = [session.step(Action()) for _ in range(2)]
    del kept
    session.reset(3)
    again = [session.step(act(config, n)) for n in range(EXACT)]
    for _ in range(2 * config.sampling.window // config.sampling.latents_per_tick + 2):
        session.step(Action())
    session.finish()
    wait_for(world)
    ticks = []
    for _ in range(MEASURED):
        began = time.perf_counter()
        session.step(Action())
        session.finish()
        wait_for(world)
        ticks.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_reserved(world.device) if world.device.type == "cuda" else 0
    say(f"    a decode takes {1000 * decoding(world, session):.1f} ms")
    passes = session._state.passes
    if passes is not None:
        say(f"    {passes.graphs.recorded} passes recorded {passes.graphs.failure}")
    return Played(first, again, equal(one, other), ticks, peak)


def decoding(world: World, session: Session) -> float:
    """Seconds of a decode, which the first rank does alone."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        world.decode(session._state)
        wait_for(world)
        times.append(time.perf_counter() - began)
    return percentile(times, 50) or 0.0


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def apart(one: list[np.ndarray], other: list[np.ndarray]) -> str:
    """The largest and the mean distance of each tick's frames, in grey levels."""
    found = []
    for a, b in zip(one, other, strict=True):
        distance = np.abs(a.astype(int) - b)
        found.append(f"{distance.max()} ({distance.mean():.3f})")
    return ", ".join(found)


def told(played: Played) -> str:
    p50, p95 = (1000 * (percentile(played.ticks, p) or 0.0) for p in (50, 95))
    return f"{p50:.1f} ms a tick (p95 {p95:.1f}), {played.peak / 2**30:.1f} GiB reserved"


def compare(case: Case, gpus: int, device: str, small: bool) -> None:
    """One GPU and several."""
    config = random_world(case.name, small=small)
    save_world_config(config)
    window = {} if case.window is None else {"memory": case.window}
    began = time.perf_counter()
    world = load_world(config.name, 1, device, **window)
    world.share_cores()
    say(f"  {config.name}, window {world.config.sampling.window}: attention {world.attention}, {world.fused}")
    one = play(world)
    fused = world.fused.fused
    say(f"  1 GPU:  {told(one)}; replay exact: {equal(one.first, one.again)}, return exact: {one.returned}")
    del world
    free()
    world = load_world(config.name, gpus, device, **window, fused=fused or None)
    split = world.split
    assert split is not None
    say(f"    attention {world.attention}, recordable: {split.ranks.recordable}, heads: {split.by_heads}")
    several = play(world)
    exact = f"replay exact: {equal(several.first, several.again)}, return exact: {several.returned}"
    say(f"  {gpus} GPUs: {told(several)}; {exact}")
    ratio = (percentile(one.ticks, 50) or 0.0) / (percentile(several.ticks, 50) or 1.0)
    say(f"  {ratio:.2f} times as fast as one GPU")
    say(f"  grey levels from one GPU, most and mean, by tick: {apart(one.first, several.first)}")
    say(f"  took {time.perf_counter() - began:.0f} s")


def decode_elsewhere(device: str, small: bool) -> None:
    """One GPU, and the decoder on another."""
    config = random_world("causal-forcing", small=small)
    save_world_config(config)
    world = load_world(config.name, 1, device, memory=9)
    world.share_cores()
    one, fused = play(world), world.fused.fused
    say(f"  decoder beside the generator: {told(one)}")
    del world
    free()
    other_device = "cpu:0" if device == "cpu" else "cuda:1"
    world = load_world(config.name, 1, device, memory=9, decoder_device=other_device, fused=fused or None)
    other = play(world)
    say(f"  decoder on {other_device}: {told(other)}; return exact: {other.returned}")
    say(f"  equal: {equal(one.first, other.first)}, replay exact: {equal(other.first, other.again)}")


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def children(process: int) -> list[int]:
    """The ranks that a process started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return sorted(found)


def killed(gpus: int, device: str, small: bool) -> None:
    """A rank of a rollout is killed."""
    config = random_world("causal-forcing", small=small)
    save_world_config(config)
    with tempfile.TemporaryDirectory() as folder:
        context, recording = Path(folder) / "context.npz", Path(folder) / "killed.playhead"
        np.savez(context, **context_arrays(random_context(config)))  # type: ignore[arg-type]
        command = [
            *(sys.executable, str(MAIN), "rollout", "--world", config.name, "--context", str(context)),
            *("--actions", "prompt_1*20000", "--out", str(Path(folder) / "frames.npz"), "--gpus", str(gpus)),
            *("--record", str(recording), "--device", "cpu" if device == "cpu" else "auto"),
        ]
        said = Path(folder) / "said"
        with said.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 90
            while not enough(recording) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.5)
            ranks = children(process.pid)
            say(f"  ranks {ranks} of {process.pid}; rank 1 is killed")
            if ranks:
                os.kill(ranks[0], signal.SIGKILL)
            began = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            say(f"  exit status {process.poll()} after {time.monotonic() - began:.1f} s")
            lines = [line for line in said.read_text().replace("\r", "\n").splitlines() if line.strip()]
            for line in lines[-6:]:
                say(f"  said: {line[:300]}")
            time.sleep(1)
            say(f"  ranks left: {children(process.pid)}")
            kept = Recording.read(recording)
            say(f"  recording: {kept.tree.count} ticks, sealed: {kept.sealed}")
        finally:
            process.kill()
            process.wait()


def enough(recording: Path) -> bool:
    """Whether some ticks are recorded."""
    try:
        return recording.exists() and Recording.read(recording).tree.count >= 10
    except Exception:  # it is being written
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="What is said of several GPUs.")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, or cpu, where GPUs are processes")
    parser.add_argument("--small", action="store_true", help="small worlds")
    parser.add_argument("--only", choices=PARTS, help="one part, in this process")
    given = parser.parse_args()
    if given.only is None:
        sys.exit(every_part(sys.argv[1:]))
    failed = False
    try:
        if given.only == "killed":
            killed(given.gpus, given.device, given.small)
        elif given.only == "decoder":
            decode_elsewhere(given.device, given.small)
        else:
            compare(CASES[given.only], given.gpus, given.device, given.small)
    except Exception:
        failed = True
        traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
    os._exit(failed)  # NCCL would wait for graphs that hold on to it


def every_part(options: list[str]) -> int:
    """Each part in a process of its own. Returns how many failed."""
    failed = []
    with tempfile.TemporaryDirectory() as home:
        kept = {**os.environ, "PLAYHEAD_HOME": home}
        for name in PARTS:
            say(f"{name}:")
            command = [sys.executable, "-m", "tests.tools.parallel_on_gpu", "--only", name, *options]
            try:
                if subprocess.run(command, env=kept, timeout=LONGEST).returncode:
                    failed.append(name)
            except subprocess.TimeoutExpired:
                failed.append(f"{name} (took longer than {LONGEST} s)")
    say(f"failed: {', '.join(failed) or 'nothing'}")
    return len(failed)


if __name__ == "__main__":
    main()
