"""Snapshots and latents of a timeline, under a memory and a disk budget.

Both only save time: what is not here is simulated again. So whatever cannot be kept is left out without a
word, and what is found on the disk counts only if its checksum and the seal of its tick are right.
"""

import contextlib
import os
import queue
import shutil
import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from playhead.engine.recording.tree import PlayedTick, Point
from playhead.engine.session import Snapshot
from playhead.world.home import own_folder

MEGABYTE = 2**20
MEMORY = 256
"""Megabytes of snapshots in memory, unless PLAYHEAD_SEEK_MEMORY says otherwise."""
DISK = 24 * 1024
"""Megabytes on the disk, unless PLAYHEAD_SEEK_DISK says otherwise: an hour of freedoom. At most half of what
is free."""
UNWRITTEN = 128
"""Megabytes that wait for the disk before more is left out."""
HEAD = struct.Struct("<8sI")
"""What precedes a tick's latents on the disk: the tick's seal and a checksum."""


class SnapshotStore:
    """Keeps snapshots and latents by point; `folder` None: in memory alone. For one thread, its own aside."""

    def __init__(
        self, folder: Path | None = None, memory: int | None = None, disk: int | None = None
    ) -> None:
        """`memory` and `disk` are budgets in bytes; None: as the environment or the defaults say."""
        self._memory = _budget("PLAYHEAD_SEEK_MEMORY", MEMORY) if memory is None else memory
        self._held: OrderedDict[Point, Snapshot] = OrderedDict()
        self._latents: OrderedDict[Point, np.ndarray] = OrderedDict()
        self._on_disk: dict[Point, tuple[Path, int]] = {}
        self._lock = threading.RLock()
        self._unwritten = self._latent_bytes = 0
        self._folder = folder
        self._disk = 0
        if folder is not None:
            self._disk = _budget("PLAYHEAD_SEEK_DISK", DISK) if disk is None else disk
            self._open_folder(folder)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
        self._thread.start()

    def _open_folder(self, folder: Path) -> None:
        try:
            own_folder(folder)
            os.utime(folder)
            self._disk = min(self._disk, shutil.disk_usage(folder).free // 2 + _size(folder))
            others = sorted(
                (f for f in folder.parent.iterdir() if f != folder), key=lambda f: f.stat().st_mtime
            )
            used = sum(map(_size, others))
            while others and used > self._disk // 2:
                used -= _size(others[0])
                shutil.rmtree(others.pop(0), ignore_errors=True)
            self._disk -= used
            for file in folder.glob("*.safetensors"):
                branch, tick, _ = file.stem.split("-")
                self._on_disk[Point(int(branch), int(tick))] = file, file.stat().st_size
            self._latent_bytes = sum(f.stat().st_size for f in folder.glob("*.latents"))
        except (OSError, ValueError):
            self._folder, self._disk = None, 0

    def nearest(self, branch: int, first: int, last: int) -> Point | None:
        """The last snapshot of a branch's ticks `first` to `last`, if there is one."""
        with self._lock:
            known = [*self._held, *self._on_disk]
        found = [point for point in known if point.branch == branch and first <= point.tick <= last]
        return max(found, default=None)

    def put(self, point: Point, played: PlayedTick, snapshot: Snapshot) -> None:
        """Keeps a snapshot of a point, in memory and, if there is room, on the disk."""
        size = sum(t.nbytes for t in _flatten(snapshot.state)[0].values())
        if size > self._memory // 2:
            return
        with self._lock:
            self._held[point] = snapshot
            room = self._unwritten + size <= UNWRITTEN * MEGABYTE
            if self._folder is not None and room and point not in self._on_disk:
                self._unwritten += size
                self._jobs.put(lambda: self._write(point, played, snapshot, size))
            while len(self._held) * size > self._memory:
                spare = next((p for p in self._held if p in self._on_disk), None)
                self._held.pop(spare if spare is not None else thinnest(self._held))

    def get(self, point: Point, played: PlayedTick, device: torch.device) -> Snapshot | None:
        """A snapshot of a point, its tensors on `device`; None if it cannot be had after all."""
        with self._lock:
            snapshot = self._held.get(point)
            if snapshot is not None:
                self._held.move_to_end(point)
        if snapshot is None:
            snapshot = self._read(point, played)
        if snapshot is None:
            with self._lock:
                self._on_disk.pop(point, None)
            return None
        tensors, rest = _flatten(snapshot.state)
        state = _unflatten({name: t.to(device) for name, t in tensors.items()}, rest)
        return Snapshot(snapshot.tick, snapshot.seed, snapshot.steps, snapshot.frames, state)

    def put_latents(self, point: Point, first: int, played: PlayedTick, latents: np.ndarray) -> None:
        """Keeps a tick's latents, float32 `(F, C, h, w)`; `first` is where its branch begins."""
        with self._lock:
            self._latents[point] = latents
            while len(self._latents) * latents.nbytes > self._memory // 4:
                self._latents.popitem(last=False)
            if self._folder is not None:
                self._jobs.put(lambda: self._write_latents(point, first, played, latents))

    def latents(self, point: Point, first: int, played: PlayedTick, like: np.ndarray) -> np.ndarray | None:
        """The latents of a tick, of the shape of `like`; None if they are not here."""
        with self._lock:
            if point in self._latents:
                return self._latents[point]
        if self._folder is None or not played.seal:
            return None
        size = HEAD.size + like.nbytes
        with contextlib.suppress(OSError), self._latent_file(point.branch).open("rb") as file:
            file.seek((point.tick - first - 1) * size)
            data = file.read(size)
            if len(data) == size:
                sealed, check = HEAD.unpack_from(data)
                body = data[HEAD.size :]
                if sealed == played.seal and check == zlib.crc32(body):
                    return np.frombuffer(body, np.float32).reshape(like.shape)
        return None

    def clear(self) -> None:
        """Forgets everything: something in it was wrong."""
        with self._lock:
            for path, _ in self._on_disk.values():
                path.unlink(missing_ok=True)
            self._held.clear()
            self._latents.clear()
            self._on_disk.clear()

    def close(self) -> None:
        """Returns when all that goes to the disk is there."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except (OSError, SafetensorError):
                self._folder = None  # a full disk, or a folder that is gone: memory has to do

    def _latent_file(self, branch: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{branch}.latents"

    def _write_latents(self, point: Point, first: int, played: PlayedTick, latents: np.ndarray) -> None:
        size = HEAD.size + latents.nbytes
        if self._folder is None or self._latent_bytes + size > self._disk // 2:
            return
        if self._sealed(played):
            body = np.ascontiguousarray(latents).tobytes()
            path = self._latent_file(point.branch)
            with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                file.seek((point.tick - first - 1) * size)
                file.write(HEAD.pack(played.seal, zlib.crc32(body)) + body)
            self._latent_bytes += size
            with self._lock:
                self._latents.pop(point, None)

    def _write(self, point: Point, played: PlayedTick, snapshot: Snapshot, size: int) -> None:
        try:
            if self._folder is None or not self._sealed(played):
                return
            tensors, rest = _flatten(snapshot.state)
            tensors["frames"] = torch.from_numpy(np.array(snapshot.frames))
            said = {"rest": rest, "tick": snapshot.tick, "seed": snapshot.seed, "steps": snapshot.steps}
            path = self._folder / f"{point.branch}-{point.tick}-{played.seal.hex()}.safetensors"
            draft = path.with_suffix(f".{os.getpid()}.tmp")
            try:
                plain = {name: _contiguous(t.cpu()) for name, t in tensors.items()}
                save_file(plain, draft, {"said": msgspec.json.encode(said).decode()})
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
            with self._lock:
                self._on_disk[point] = path, path.stat().st_size
                self._thin()
        finally:
            with self._lock:
                self._unwritten -= size

    def _thin(self) -> None:
        """Removes snapshots from the disk, where they are closest together, down to the budget."""
        while (
            self._latent_bytes + sum(size for _, size in self._on_disk.values()) > self._disk
            and self._on_disk
        ):
            path, _ = self._on_disk.pop(thinnest(self._on_disk))
            path.unlink(missing_ok=True)

    def _sealed(self, played: PlayedTick) -> bool:
        """Waits a little for the recorder; where it has stopped, nothing more is kept on the disk."""
        for _ in range(200):
            if played.seal:
                return True
            time.sleep(0.01)
        self._folder = None
        return False

    def _read(self, point: Point, played: PlayedTick) -> Snapshot | None:
        path, _ = self._on_disk.get(point, (None, 0))
        if path is None or not played.seal or not path.stem.endswith(played.seal.hex()):
            return None
        try:
            with safe_open(path, "pt") as file:
                said = msgspec.json.decode(file.metadata()["said"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            frames = tensors.pop("frames").numpy()
            state = _unflatten(tensors, said["rest"])
            return Snapshot(said["tick"], said["seed"], said["steps"], frames, state)
        except (OSError, SafetensorError, LookupError, TypeError, ValueError):
            return None


def thinnest(points: Iterable[Point]) -> Point:
    """The point whose loss leaves the smallest gap on its branch; of equal ones the oldest."""
    ordered = sorted(points)
    best, smallest = ordered[0], float("inf")
    for i, point in enumerate(ordered):
        before = ordered[i - 1].tick if i and ordered[i - 1].branch == point.branch else 0
        later = ordered[i + 1] if i + 1 < len(ordered) else None
        if later is None or later.branch != point.branch:
            continue  # a branch's last one is where play goes on
        if later.tick - before < smallest:
            best, smallest = point, later.tick - before
    return best


def _flatten(value: Any, path: str = "") -> tuple[dict[str, Tensor], Any]:  # noqa: ANN401 - states are nested
    """The tensors of a nested state by their path, and the state with `null` in their place."""
    if isinstance(value, Tensor):
        return {path: value}, None
    if not isinstance(value, dict | list):
        return {}, value
    tensors: dict[str, Tensor] = {}
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    rest: dict[str, Any] = {}
    for key, part in items:
        inner, rest[str(key)] = _flatten(part, f"{path}/{key}")
        tensors |= inner
    return tensors, rest if isinstance(value, dict) else list(rest.values())


def _unflatten(tensors: dict[str, Tensor], rest: Any, path: str = "") -> Any:  # noqa: ANN401
    if path in tensors:
        return tensors[path]
    if isinstance(rest, dict):
        return {key: _unflatten(tensors, part, f"{path}/{key}") for key, part in rest.items()}
    if isinstance(rest, list):
        return [_unflatten(tensors, part, f"{path}/{i}") for i, part in enumerate(rest)]
    return rest


def _contiguous(tensor: Tensor) -> Tensor:
    """A CPU tensor as it lies in a file, copied by numpy.

    Torch would copy it by several threads, other ones for each thread that asks; and where OpenMP has more
    threads than there are cores, those that a tick is computed by sleep whenever they wait.
    """
    if tensor.is_contiguous():
        return tensor
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]
    return torch.from_numpy(np.ascontiguousarray(tensor.view(whole).numpy())).view(tensor.dtype)


def _budget(name: str, default: int) -> int:
    said = os.environ.get(name, "")
    return (int(said) if said.isdecimal() else default) * MEGABYTE


def _size(folder: Path) -> int:
    if folder.is_file():
        return folder.stat().st_size
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
