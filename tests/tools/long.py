"""Proofs that are too long for the suite: `python -m tests.tools.long NAME`."""

import argparse
import gc
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_scene, save_world
from tests.engine.bridge.fuzz import attack
from tests.engine.bridge.soak import soak
from tests.render.desktop import display, playing
from tests.render.live import go_back, play_a_little
from tests.tools.kills import kill_plays, kill_servers, kill_windows
from tests.tools.recorded import play_with_keys, play_with_rewinds, replay


def endless(name: str = "sgf", latents: int = 3000) -> None:
    """Plays past the 1,024-row table of the reference: memory stays flat and a tick's time does not drift."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PLAYHEAD_HOME"] = folder
        config = random_world(name, small=True)
        save_world_config(config)
        world = World.load(config.name, "cpu", torch.float32)
    world.share_cores()
    session = Session(world, random_context(config), 0)
    ticks = latents // config.sampling.latents_per_tick
    process, times, memory = psutil.Process(), [], []
    for tick in range(ticks):
        began = time.perf_counter()
        frames = session.step(Action())
        session.finish()
        times.append(time.perf_counter() - began)
        if tick % max(1, ticks // 10) == 0:
            gc.collect()
            memory.append(process.memory_info().rss / 1e6)
    tenth = max(1, ticks // 10)
    early, late = (sorted(part)[len(part) // 2] for part in (times[tenth : 3 * tenth], times[-2 * tenth :]))
    growth = memory[-1] - memory[2]
    print(
        f"{name}: {session._state.cache.length} latents, tick p50 {early * 1000:.1f} ms early and "
        f"{late * 1000:.1f} ms late (ratio {late / early:.2f}), memory grew by {growth:.1f} MB"
    )
    assert session._state.cache.length == ticks * config.sampling.latents_per_tick
    assert torch.isfinite(session._state.latent).all() and frames.any()
    assert growth < 20, "memory grows"


def kills(times: int = 200) -> None:
    """Kills plays with recording at random moments: each file holds what was shown but two ticks at most."""
    with tempfile.TemporaryDirectory() as folder:
        world = save_world(make_tiny_world(), Path(folder) / "tiny")
        print(kill_plays(world, save_scene(Path(folder) / "scene"), Path(folder), times))


def kills_of_servers(times: int = 50) -> None:
    """Kills servers that record at random moments: what was saved is there, and the rest but two ticks."""
    with tempfile.TemporaryDirectory() as folder:
        world = save_world(make_tiny_world(), Path(folder) / "tiny")
        print(kill_servers(world, save_scene(Path(folder) / "scene"), Path(folder), times))


def kills_of_windows(times: int = 50) -> None:
    """Kills windows that go on with a recording: the file holds what it held, and what was shown but two."""
    with tempfile.TemporaryDirectory() as folder, display() as screen:
        os.environ["PLAYHEAD_HOME"] = folder
        world = save_world(make_tiny_world(), Path(folder) / "tiny")
        print(kill_windows(screen, world, Path(folder), times))


def recording(ticks: int = 20_000, rewinds: int = 40) -> None:
    """A window, a jittery keyboard, 20,000 ticks; then 40 rewinds: all replayed in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PLAYHEAD_HOME"] = folder
        world = save_world(make_tiny_world(), Path(folder) / "tiny")
        scene = save_scene(Path(folder) / "scene")
        print(play_with_keys(world, scene, Path(folder) / "keys", ticks))
        print(play_with_keys(world, scene, Path(folder) / "undone", ticks // 8, undone=rewinds))
        print(play_with_rewinds(world, scene, Path(folder) / "rewinds", rewinds))


def thorough(*files: str) -> None:
    """Runs property tests with forty times as many examples."""
    os.environ["PLAYHEAD_THOROUGH"] = "40"
    assert not pytest.main(["-q", "-k", "test_flipped or test_cut or test_hostile or test_whatever", *files])


def line(breaks: int = 200) -> None:
    """A line that breaks again and again under a player: one session, no frame wrong, nothing left behind."""
    from playhead.engine.bridge.client import remote_loop
    from playhead.engine.bridge.server.registry import Registry
    from playhead.engine.bridge.server.server import Server, serve_in_background
    from playhead.scenes.scene import load_scene
    from tests.engine.bridge.seat import play_over_a_breaking_line

    remote_loop.SILENCE = 0.6
    world = make_tiny_world()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            Registry([world], [load_scene(save_scene(Path(folder) / "scene"))]), "tcp://127.0.0.1:*"
        )
    thread = serve_in_background(server)
    play_over_a_breaking_line(server, world, breaks)
    server.stop()
    thread.join()
    print(f"{breaks} breaks of a line, every frame that was seen is right")


def live(ticks: int = 2_000, rewinds: int = 40) -> None:
    """Plays the shipped world in a window, by real keys that go back again and again; simulates it all anew.

    The recording is kept if anything differs.
    """
    folder = Path(tempfile.mkdtemp(prefix="playhead-live-"))
    os.environ["PLAYHEAD_HOME"] = str(folder)
    os.environ.pop("PLAYHEAD_RECORDINGS", None)
    draw = random.Random(1)
    options = ["--speed", "2", "--ticks", str(ticks)]
    with display() as screen, playing(screen, folder, *options) as player:
        player.screenshot_after(1)
        began, done = time.perf_counter(), 0
        while player.process.poll() is None:
            play_a_little(player, draw)
            if done < rewinds:
                go_back(player, draw)
                done += 1
        print(f"played for {time.perf_counter() - began:.0f} s", flush=True)
        assert player.end()[0] == 0
    (file,) = (folder / "recordings").glob("*.playhead")
    print(f"{replay(file, 'freedoom')}; {file.stat().st_size / 1e3:.0f} kB")
    shutil.rmtree(folder)


def bridge_fuzz(messages: int = 1_000_000, raw: int = 100_000) -> None:
    """Sends hostile messages and bytes to a server: it keeps its sessions and memory, no neighbour waits.

    As from another machine: the sender runs where the server and the neighbour leave a core idle.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = save_world(make_tiny_world(), Path(folder) / "tiny")
        began = time.perf_counter()

        def tell(sent: int) -> None:
            print(f"{sent:>9} messages, {time.perf_counter() - began:.0f} s", flush=True)

        outcome = attack(world, save_scene(Path(folder) / "tiny-scene"), messages, 0, raw, tell, True)
    growth = outcome.memory[-1] - outcome.memory[len(outcome.memory) // 4]
    late = {name: 1000 * value for name, value in outcome.neighbour.items()}
    answers = ", ".join(f"{count} {kind}" for kind, count in outcome.answers.most_common())
    print(f"answers       {answers}")
    print(f"memory        {' '.join(f'{size:.0f}' for size in outcome.memory)} MB as time went by")
    print(
        f"neighbour     {outcome.neighbour['ticks']} ticks of {late['tick']:.1f} ms p50; beyond its tick an "
        f"answer took {late['p50']:.2f} ms p50, {late['p99']:.2f} ms p99, {late['longest']:.2f} ms at most"
    )
    print(f"SIGTERM       obeyed after {outcome.ending:.1f} s")
    assert not outcome.said, outcome.said
    assert outcome.ending < 3, "SIGTERM is not obeyed"
    assert growth < 20, "memory grows"


def bridge_soak(requests: int = 20_000, every: int = 500) -> None:
    """Requests of every kind to a server that records: its memory ends somewhere, and it ends at SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        world = save_world(make_tiny_world(), Path(folder) / "tiny")
        scene, began = save_scene(Path(folder) / "tiny-scene"), time.perf_counter()

        def tell(asked: int, memory: float) -> None:
            print(f"{asked:>6} requests, {memory:.0f} MB, {time.perf_counter() - began:.0f} s", flush=True)

        memory, ending = soak(world, scene, Path(folder) / "kept", requests, every, tell)
    half = memory[len(memory) // 2 :]
    growth = half[-1] - half[0]
    print(f"memory grew by {growth:.0f} MB in the second half; SIGTERM obeyed after {ending:.1f} s")
    assert ending < 3, "SIGTERM is not obeyed"
    assert growth < 40, "memory grows"


PROOFS: dict[str, Callable[[], None]] = {
    "bridge-fuzz": bridge_fuzz,
    "bridge-soak": bridge_soak,
    "endless": endless,
    "endless-chunks": lambda: endless("longlive"),
    "endless-actions": lambda: endless("matrix-game-2"),
    "kills": kills,
    "kills-of-servers": kills_of_servers,
    "kills-of-windows": kills_of_windows,
    "line": line,
    "recording": recording,
    "damage": lambda: thorough("tests/engine/recording/test_damage.py"),
    "tree": lambda: thorough("tests/engine/timeline/test_timeline.py"),
    "live": live,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.tools.long", description="Runs a long proof.")
    parser.add_argument("name", choices=sorted(PROOFS))
    PROOFS[parser.parse_args().name]()
