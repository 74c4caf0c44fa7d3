"""Plays, windows and servers that are killed at a random moment: what do the files hold that they leave?"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.recording.finding import Summary
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import replay_all, verify
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from playhead.world.world import World
from tests.conftest import BUTTONS
from tests.engine.bridge.conftest import serve_process, wait_for
from tests.played import record_play
from tests.render.desktop import ROOT, playing
from tests.render.live import go_back, play_a_little

PLAY = """
import os, sys
from pathlib import Path
from playhead.render.window import play
from playhead.render.window.settings import PaceSettings, PlaySettings, RecordingSettings, SessionSettings

show = play.Play._receive

def receive(self, tick):
    show(self, tick)  # the player has it
    os.write(1, f"{tick.point}\\n".encode())

play.Play._receive = receive
world, scene, folder, script = sys.argv[1:]
session = SessionSettings(world=world, scene=scene, script=script)
play.play(PlaySettings(session, PaceSettings(speed=2), RecordingSettings(Path(folder))))
"""
"""A real play that says on its standard output which ticks it has handed to its window."""


def kill_plays(world: Path, scene: Path, folder: Path, times: int, seed: int = 0) -> str:
    """Kills so many plays with SIGKILL. Returns what was lost, or raises AssertionError.

    Every file has to open, to hold every tick that had been handed over but at most the last two, and to
    simulate to equal hashes.
    """
    draw = random.Random(seed)
    loaded = World.load(world)
    loaded.share_cores()
    lost: list[int] = []
    played = 0
    for number in range(times):
        home = folder / f"kill-{number}"
        acknowledged = _kill_one(world, scene, home, draw)
        (file,) = home.glob("*.playhead")
        before = _contents(home)
        recording = Recording.read(file)
        assert _contents(home) == before, f"reading {file} changed it"
        assert not recording.sealed
        assert verify(recording, loaded) is None, f"{file} does not simulate to equal hashes"
        kept = recording.tree.count
        assert kept >= acknowledged - 2, f"{file} holds {kept} ticks, and {acknowledged} were shown"
        lost.append(max(0, acknowledged - kept))
        played += acknowledged
        shutil.rmtree(home)
    worst = {n: lost.count(n) for n in sorted(set(lost))}
    return f"{times} plays killed after {played} ticks; ticks lost: how often {worst}"


def _contents(folder: Path) -> dict[str, bytes]:
    """What the recordings of a folder and their logs hold; an index of a log is nobody's data."""
    return {path.name: path.read_bytes() for path in folder.glob("*.playhead*") if path.suffix[-4:] != "-shm"}


def _kill_one(world: Path, scene: Path, home: Path, draw: random.Random) -> int:
    """Returns the number of the last tick that the killed play had handed over."""
    buttons = ("w", "s", "left", "right", "a", "d", "space", "e")
    script = " ".join(f"{draw.choice(buttons)}*{draw.randint(1, 9)}" for _ in range(200))
    env = {**os.environ, "SDL_VIDEODRIVER": "dummy", "PLAYHEAD_HOME": str(home / "home")}
    command = [sys.executable, "-c", PLAY, str(world), str(scene), str(home), script]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"1:0\n", "the play did not begin"
        time.sleep(draw.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)
        said = process.stdout.read().decode().splitlines()
    finally:
        process.kill()
        process.wait()
    return int(said[-1].split(":")[1]) if said else 0


Seen = tuple[int, bytes]
"""A tick that was acknowledged: its number, and a hash of its frames."""


def _seen(tick: int, frames: np.ndarray) -> Seen:
    return tick, hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16).digest()


def _simulated(recording: Recording, world: World) -> set[Seen]:
    """Every tick of a recording, simulated again; each has to come out as it was recorded."""
    found = set()
    for moment in replay_all(recording, world):
        assert moment.equal, f"{recording.path} does not simulate to equal hashes at {moment.point}"
        found.add(_seen(moment.point.tick, moment.frames))
    return found


def _lost(seen: list[Seen], kept: set[Seen]) -> int:
    """How many of the last ticks that were seen are missing; those before them may not be."""
    lost = next((n for n, tick in enumerate(reversed(seen)) if tick in kept), len(seen))
    missing = [one[0] for one in seen[: len(seen) - lost] if one not in kept]
    assert not missing, f"ticks {missing} were acknowledged and are not there, though later ones are"
    return lost


def _said(lost: list[int]) -> str:
    often = {n: lost.count(n) for n in sorted(set(lost))}
    return f"ticks lost: how often {often}"


@contextmanager
def _killed(process: subprocess.Popen, after: float) -> Iterator[None]:
    """Kills a process so many seconds from now, or at the end."""
    timer = threading.Timer(after, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.kill()


@dataclass
class _Known:
    """What a client was told of a session: the way to its present, all that was played, and its snapshots."""

    way: list[Seen]
    all: list[Seen]
    snapshots: dict[str, list[Seen]] = field(default_factory=dict)

    def twin(self, tick: int) -> "_Known":
        return _Known(self.way[:tick], self.way[:tick])


class _Guest:
    """Somebody at a server who steps, goes back, forks, branches, saves, closes, and notes every answer."""

    def __init__(self, client: Client, draw: random.Random) -> None:
        self._client, self._draw = client, draw
        self.sessions: dict[str, _Known] = {}
        self.saved: dict[str, list[Seen]] = {}

    def play(self) -> None:
        """Asks for one thing or another, until the server is gone."""
        kinds = [self._step] * 12 + [self._keep, self._go_back, self._reset, self._double, self._save]
        try:
            while True:
                if len(self.sessions) < 2:
                    opened, _ = self._client.ask(p.OpenRequest(), p.OpenReply)
                    self.sessions[opened.session] = _Known([], [])
                elif len(self.sessions) > 4:
                    self._close(self._draw.choice(list(self.sessions)))
                name = self._draw.choice(list(self.sessions))
                self._draw.choice(kinds)(name, self.sessions[name])
        except PlayheadError:
            pass
        finally:
            self._client.close()

    def _step(self, name: str, known: _Known) -> None:
        draw = self._draw
        held = [Action(frozenset(draw.sample(BUTTONS, draw.randrange(3)))) for _ in range(draw.randint(1, 9))]
        reply, frames = self._client.ask(p.StepRequest(session=name, actions=held), p.StepReply)
        assert frames is not None and reply.first == len(known.way) + 1
        for tick, shown in enumerate(frames.reshape(len(held), -1, *frames.shape[1:]), reply.first):
            known.way.append(_seen(tick, shown))
            known.all.append(known.way[-1])

    def _keep(self, name: str, known: _Known) -> None:
        reply, _ = self._client.ask(p.SnapshotRequest(session=name), p.SnapshotReply)
        known.snapshots[reply.snapshot] = list(known.way)

    def _go_back(self, name: str, known: _Known) -> None:
        if known.snapshots:
            snapshot, way = self._draw.choice(list(known.snapshots.items()))
            self._client.ask(p.RestoreRequest(session=name, snapshot=snapshot), p.ObserveReply)
            known.way = list(way)

    def _reset(self, name: str, known: _Known) -> None:
        self._client.ask(p.ResetRequest(session=name, seed=self._draw.randrange(3)), p.ObserveReply)
        known.way = []

    def _double(self, name: str, known: _Known) -> None:
        tick = self._draw.randint(0, len(known.way))
        request = self._draw.choice((p.ForkRequest(session=name), p.BranchRequest(session=name, tick=tick)))
        reply, _ = self._client.ask(request, p.OpenReply)
        self.sessions[reply.session] = known.twin(reply.tick)

    def _save(self, name: str, known: _Known) -> None:
        reply, _ = self._client.ask(p.SaveRequest(session=name, name=f"save-{len(self.saved)}"), p.SaveReply)
        self.saved[reply.file] = list(known.all)

    def _close(self, name: str) -> None:
        del self.sessions[name]  # asked for is enough: it may be gone
        self._client.ask(p.CloseRequest(session=name), p.DoneReply)


def kill_servers(world: Path, scene: Path, folder: Path, times: int, seed: int = 0) -> str:
    """Kills so many servers that record, with SIGKILL. Returns what was lost, or raises AssertionError.

    What was saved has to be there and whole; and of each session that was not closed the next server in that
    folder has to save all ticks, on all branches, that were acknowledged, but at most the last two.
    """
    draw, loaded = random.Random(seed), World.load(world)
    lost: list[int] = []
    ticks = saves = 0
    for number in range(times):
        home = folder / f"server-{number}"
        options = ["--recordings", str(home)]
        with serve_process(world, scene, *options) as (process, address):
            guest = _Guest(Client(address, "guest"), draw)
            with _killed(process, draw.uniform(0, 2)):
                guest.play()
        left = {path.name for path in home.glob("*.playhead")}
        assert guest.saved.keys() <= left
        with serve_process(world, scene, *options) as (process, _):
            wait_for(lambda home=home: not list(home.glob(".unsaved-*/")))
            process.terminate()
            assert process.wait(20) == 0
        files = {path: _simulated(Recording.read(path), loaded) for path in sorted(home.iterdir())}
        for name, seen in guest.saved.items():
            assert not _lost(seen, files[home / name]), f"{name} was saved and is not whole"
        rescued = [kept for path, kept in files.items() if path.name not in left]
        for known in guest.sessions.values():
            lost.append(_least_lost(known.all, rescued))
            ticks += len(known.all)
        saves += len(guest.saved)
        shutil.rmtree(home)
    assert max(lost, default=0) <= 2, _said(lost)
    return f"{times} servers killed after {ticks} ticks in {len(lost)} sessions, {saves} saves; {_said(lost)}"


def _least_lost(seen: list[Seen], files: Iterable[set[Seen]]) -> int:
    """What is missing of a session in the file that is its own: the one that misses least."""
    found = [len(seen)]
    for kept in files:
        try:
            found.append(_lost(seen, kept))
        except AssertionError:
            continue
    return min(found)


class _Watch:
    """Notes every tick that a window's bridge publishes, on a thread of its own."""

    def __init__(self, address: str) -> None:
        self.seen: list[Seen] = []
        self._client = Client(address, "watcher")
        self._socket = self._client.watch(self._client.welcome.sessions[0])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._socket.poll(100) or not self._client.lost:
            if self._socket.poll(0):
                _, head, *parts = self._socket.recv_multipart()
                header = p.decode_header(head)
                shape = len(parts), header.height, header.width, 3
                if not header.begins:
                    shown = np.frombuffer(b"".join(parts), np.uint8).reshape(shape)
                    self.seen.append(_seen(header.tick, shown))

    def close(self) -> None:
        self._thread.join()
        self._client.close()


def kill_windows(screen: str, world: Path, folder: Path, times: int, seed: int = 0, again: int = 5) -> str:
    """Kills so many windows that go on with a recording. Returns what was lost, or raises AssertionError.

    The same file is gone on with `again` and again, each time after a kill, and some are killed before they
    are open. Whatever a reader could see in the file before a kill is there after it, and so are all ticks
    that were shown but at most the last two.
    """
    draw, loaded = random.Random(seed), World.load(world)
    lost: list[int] = []
    ticks = 0
    for number in range(times):
        file = folder / f"window-{number // again}" / "play.playhead"
        if not file.exists():
            file.parent.mkdir(parents=True)
            record_play(file, loaded)
        before = Recording.read(file)
        seen, glimpse = _kill_window(screen, world, file, draw)
        after = Recording.read(file)
        assert [path.name for path in file.parent.glob("*.playhead")] == [file.name], "it went on in a copy"
        assert (after.tree.count, len(after.tree.bookmarks)) >= (glimpse.ticks, glimpse.bookmarks)
        for id, branch in before.tree.branches.items():
            assert after.tree.branches[id].ticks == branch.ticks, f"branch {id} of {file} was changed"
        assert after.tree.bookmarks[: len(before.tree.bookmarks)] == before.tree.bookmarks
        lost.append(_lost(seen, _simulated(after, loaded)))
        ticks += len(seen)
    assert max(lost, default=0) <= 2, _said(lost)
    return f"{times} windows killed after {ticks} ticks; {_said(lost)}"


def _kill_window(screen: str, world: Path, file: Path, draw: random.Random) -> tuple[list[Seen], Summary]:
    """Returns the ticks that the killed window had shown, and what a reader saw last in its file."""
    glimpse = Summary.read(file)
    options = ["--world", str(world), "--continue", str(file), "--speed", "2", "--bridge"]
    with playing(screen, file.parent, *options, "--bind", "tcp://127.0.0.1:*") as player:
        if draw.random() < 0.2:
            with _killed(player.process, draw.uniform(0.5, 4)):
                player.process.wait()
            return [], glimpse
        line = player.process.stdout.readline()
        assert line.startswith("bridge at ") and player.window, line
        watch = _Watch(line.split()[-1])
        with _killed(player.process, draw.uniform(0, 4)):
            while player.process.poll() is None:
                play_a_little(player, draw)
                go_back(player, draw)
                glimpse = Summary.read(file)
        watch.close()
        return watch.seen, glimpse
