"""Getting a public world: fetched and gone on with, found where it was put by hand, or told what to do."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, hf_hub_download

from playhead import main as command_line
from playhead.world import public
from playhead.world.config import load_config
from playhead.world.generator import Generator
from playhead.world.home import downloads_folder, worlds_folder
from playhead.world.hub import fetch, fetch_all
from playhead.world.importing import ImportProblem
from playhead.world.lighttae import LightTAE
from playhead.world.public import LIGHTTAE, PUBLIC, PublicWorld, tiny
from playhead.world.world import World

ROOT = Path(__file__).parents[2]


class Hub(ThreadingHTTPServer):
    """A hub of some files by path. While it is `broken`, no answer gets beyond the first 100,000 bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.broken = False
        self.ranges: list[str] = []  # which parts were asked for later

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", '"tag"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if not body:
            return
        if wanted:
            self.server.ranges.append(wanted[0])
        part = data[start:]
        self.wfile.write(part[: max(0, 100_000 - start)] if self.server.broken else part)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def small_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue with small worlds in it, so that their files are small too."""
    for name in ("self-forcing", "longlive"):
        entry = PUBLIC[name]
        small = PublicWorld(entry.file, tiny(entry.config), entry.lora)
        monkeypatch.setitem(public.PUBLIC, name, small)


def save_files(name: str, folder: Path) -> list[Path]:
    """The files of a catalogue entry, as their authors store them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    entry = PUBLIC[name]
    paths = [folder / entry.file.name, folder / LIGHTTAE.name]
    torch.save({"generator_ema": Generator(entry.config.generator).state_dict()}, paths[0])
    torch.save(LightTAE(entry.config.autoencoder).state_dict(), paths[1])
    return paths


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["main.py", *words])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    return int(end.value.code or 0)


def test_a_download_that_broke_off_is_gone_on_with_by_the_next_command(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    data = os.urandom(300_000)
    hub.files["/them/weights/resolve/main/sub/model.pt"] = data
    hub.broken = True
    with pytest.raises(ImportProblem, match="cannot be fetched") as problem:
        fetch("hub:them/weights/sub/model.pt")
    assert "https://huggingface.co/them/weights/resolve/main/sub/model.pt" in str(problem.value)
    hub.broken = False
    hub.ranges.clear()
    told: list[tuple[str, float]] = []
    path = fetch("hub:them/weights/sub/model.pt", lambda stage, part: told.append((stage, part)))
    assert path.read_bytes() == data
    assert hub.ranges == ["bytes=100000-"]
    assert told[0] == ("fetching model.pt", 0.0) and told[-1][1] == 1.0
    assert len(told) > 10 and [part for _, part in told] == sorted(part for _, part in told)
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
    hub.files.clear()
    assert fetch("hub:them/weights/sub/model.pt") == path


def test_what_another_program_fetched_is_taken_from_the_cache_of_the_hubs_client(hub: Hub) -> None:
    hub.files["/them/weights/resolve/main/sub/model.pt"] = b"weights"
    theirs = Path(hf_hub_download("them/weights", "sub/model.pt"))
    hub.files.clear()
    assert fetch("hub:them/weights/sub/model.pt") == theirs
    with pytest.raises(ImportProblem, match="cannot be fetched"):
        fetch("hub:them/weights/sub/other.pt")


def test_a_world_is_got_from_the_hub_and_plays(
    hub: Hub,
    small_catalogue: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = PUBLIC["self-forcing"]
    for file, path in zip(
        (entry.file, LIGHTTAE), save_files("self-forcing", tmp_path / "theirs"), strict=True
    ):
        hub.files[f"/{file.repo}/resolve/main/{file.path}"] = path.read_bytes()
    assert run(monkeypatch, "worlds", "get", "self-forcing", "--no-scenes") == 0
    assert "licence: weights Apache-2.0" in capsys.readouterr().out
    assert World.load("self-forcing", "cpu").config.latent.mean == public.WAN_MEAN
    hub.files.clear()
    assert run(monkeypatch, "worlds", "get", "self-forcing") == 2
    assert "there already" in capsys.readouterr().err


def test_files_that_were_downloaded_by_hand_are_taken(
    small_catalogue: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_files("self-forcing", downloads_folder() / "self-forcing")
    assert run(monkeypatch, "worlds", "get", "self-forcing", "--no-scenes") == 0
    assert (worlds_folder() / "self-forcing" / "world.toml").is_file()


@pytest.mark.parametrize("name", PUBLIC)
def test_without_a_network_it_says_what_to_download_and_where_to_put_it(
    name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = PUBLIC[name]
    files = [entry.file, LIGHTTAE, *([entry.lora] if entry.lora else [])]
    with pytest.raises(ImportProblem) as problem:
        fetch_all(name, files)  # a hub without these files stands for none at all
    said = str(problem.value)
    assert all(f"https://huggingface.co/{f.repo}/resolve/main/{f.path}" in said for f in files)
    assert str(downloads_folder() / name) in said and "\n" not in said
    (downloads_folder() / name).mkdir(parents=True)
    (downloads_folder() / name / LIGHTTAE.name).touch()
    with pytest.raises(ImportProblem) as problem:
        fetch_all(name, files)
    assert LIGHTTAE.url not in str(problem.value)


def test_names_of_one_entrys_files_differ() -> None:
    """They lie in one folder when they were downloaded by hand."""
    for entry in PUBLIC.values():
        names = [entry.file.name, LIGHTTAE.name, *([entry.lora.name] if entry.lora else [])]
        assert len(set(names)) == len(names)


def test_a_conversion_that_was_killed_is_gone_on_with(tmp_path: Path, own_home: Path) -> None:
    """A real process is killed between its two sets of weights; the first is not written again."""
    from playhead.world.generator import GeneratorConfig

    sizes = GeneratorConfig(
        dim=256, heads=2, layers=24, ffn_dim=1024, in_channels=16, out_channels=16, text_dim=64
    )
    own = Generator(sizes).state_dict()
    second = {f"memory_{key}": tensor for key, tensor in own.items()}
    torch.save({"generator_ema": {**own, **second}}, tmp_path / "model.pt")
    torch.save(LightTAE(PUBLIC["sgf-plus"].config.autoencoder).state_dict(), tmp_path / LIGHTTAE.name)
    words = ["worlds", "add", str(tmp_path / "model.pt"), "--autoencoder", str(tmp_path / LIGHTTAE.name)]
    line = [sys.executable, "main.py", *words, "--name", "mine"]
    draft, folder = (own_home / "worlds" / name for name in (".mine.draft", "mine"))
    first = draft / "generator.safetensors"
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not first.exists() and process.poll() is None:  # in small steps, so that it cannot get far beyond
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not folder.exists() and not (draft / "world.toml").exists()
    before = first.stat()
    (draft / ".tmpaB3xYz").write_bytes(b"half")  # what safetensors may leave, killed a moment later

    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in folder.iterdir()} == {
        *("world.toml", "generator.safetensors", "commit.safetensors", "autoencoder.safetensors")
    }
    after = (folder / "generator.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not draft.exists()
    from playhead.world.checkpoint import read_weights

    for file in ("generator.safetensors", "commit.safetensors"):
        stored = read_weights(folder / file)
        assert all(torch.equal(stored[key], tensor.bfloat16()) for key, tensor in own.items())


def test_an_autoencoder_is_found_beside_the_checkpoint_or_fetched_once_that_fits(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = PUBLIC["self-forcing"]
    torch.save({"generator": Generator(tiny(entry.config).generator).state_dict()}, tmp_path / "x.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    assert run(monkeypatch, "worlds", "add", str(tmp_path / "other.pt")) == 2
    assert "causal Wan" in capsys.readouterr().err  # what is wrong with it, whether there is a network or not
    assert run(monkeypatch, "worlds", "add", str(tmp_path / "x.pt")) == 2
    assert LIGHTTAE.url in (said := capsys.readouterr().err) and "--autoencoder" in said
    torch.save(LightTAE(entry.config.autoencoder).state_dict(), tmp_path / "lighttaew2_1.pth")
    hub.files[f"/{LIGHTTAE.repo}/resolve/main/{LIGHTTAE.path}"] = (tmp_path / "lighttaew2_1.pth").read_bytes()
    (tmp_path / "lighttaew2_1.pth").rename(tmp_path / "taew2_1.pth")
    for name, mean in (("beside", 0.0), ("fetched", public.WAN_MEAN[0])):
        assert run(monkeypatch, "worlds", "add", str(tmp_path / "x.pt"), "--name", name) == 0
        config = load_config(worlds_folder() / name / "world.toml")
        assert config.latent.mean[0] == mean
        (tmp_path / "taew2_1.pth").unlink(missing_ok=True)
