"""What this machine has: every part Playhead can use; for each that is missing, its use and how to get it."""

import importlib
import importlib.metadata
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn.attention import sdpa_kernel

from playhead import __path__, __version__
from playhead.world.acceleration import pick_device, pick_dtype
from playhead.world.attention import KERNELS
from playhead.world.catalogue import scan_worlds
from playhead.world.config import WorldConfig
from playhead.world.extras import install
from playhead.world.loading import least_memory
from playhead.world.offload.carriers import pinned_rate
from playhead.world.offload.memory_budget import told, told_least
from playhead.world.size import memory
from playhead.world.world_folders import shipped_worlds


@dataclass(frozen=True)
class Finding:
    """A part, what was found of it, and what it lacks: for what, and how to get it. Both may be empty."""

    part: str
    found: str
    lack: str = ""


def examine() -> list[Finding]:
    """Looks at everything. Never raises: a part that cannot be looked at says why."""
    return [finding for part, look in _PARTS.items() for finding in _safely(part, look)]


def _safely(part: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as error:  # a broken driver or package must not hide the other findings
        reason = next(iter(str(error).splitlines()), "")
        return [Finding(part, "", f"does not work here: {type(error).__name__} {reason}".rstrip())]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterable[Finding]:
    yield Finding("Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("Playhead", f"{__version__} in {__path__[0]}")
    yield Finding("torch", torch.__version__)


def _processor() -> Iterable[Finding]:
    dtype = str(pick_dtype(torch.device("cpu"))).removeprefix("torch.")
    found = (
        f"{os.cpu_count()} processors, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, computes in {dtype}"
    )
    slow = "bfloat16 instructions (AVX-512 BF16 or AMX), which make a tick faster: another processor has them"
    yield Finding("CPU", found, "" if dtype == "bfloat16" else slow)


def _gpu() -> Iterable[Finding]:
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        dtype = str(pick_dtype(torch.device("cuda", index))).removeprefix("torch.")
        yield Finding(
            f"GPU {index}",
            f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, capability {gpu.major}.{gpu.minor}, "
            f"CUDA {torch.version.cuda}, computes in {dtype}",
        )
    count = torch.cuda.device_count()
    if count > 1:
        direct = all(torch.cuda.can_device_access_peer(0, other) for other in range(1, count))
        way = "directly" if direct else "through main memory, which is slower"
        lack = "" if dist.is_nccl_available() else "NCCL, for --gpus: a torch for CUDA on Linux has it"
        yield Finding("several GPUs", f"--gpus {count} at most; they reach each other {way}", lack)
    if not count:
        mend = "install its driver" if torch.version.cuda else "install a torch that is built for CUDA"
        lack = f"an NVIDIA GPU, for hundreds of ticks a second and for training; if there is one, {mend}"
        yield Finding("GPU", "", lack)


def _attention() -> Iterable[Finding]:
    device = pick_device()
    q = torch.zeros(1, 2, 64, 64, device=device, dtype=pick_dtype(device))
    works = []
    for name, backend in KERNELS.items():
        with warnings.catch_warnings(), sdpa_kernel([backend]):
            warnings.simplefilter("ignore")
            try:
                torch.nn.functional.scaled_dot_product_attention(q, q, q)
            except RuntimeError:
                continue
        works.append(name)
    yield Finding("attention", f"torch on {device.type}: {', '.join(works)}")
    for package in ("sageattention", "triton"):
        version = _version(package)
        if version:
            yield Finding(package, version)
        elif torch.cuda.is_available():
            lack = f"faster attention on an NVIDIA GPU: {install('gpu')} (Linux)"
            yield Finding(package, "", lack)
        else:
            yield Finding(package, "", "nothing here: it needs an NVIDIA GPU")


def _window() -> Iterable[Finding]:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    pygame = importlib.import_module("pygame")
    sdl = ".".join(map(str, pygame.get_sdl_version()))
    yield Finding("pygame-ce", f"{pygame.version.ver}, SDL {sdl}")
    screens = [
        f"{name}={os.environ[name]}" for name in ("DISPLAY", "WAYLAND_DISPLAY") if os.environ.get(name)
    ]
    lack = "a screen, for `play`; without one use `rollout`, or Xvfb"
    if sys.platform == "linux" and not screens:
        yield Finding("display", "", lack)
        return
    try:
        pygame.display.init()
        driver, sizes = pygame.display.get_driver(), pygame.display.get_desktop_sizes()
        pygame.display.quit()
    except pygame.error as error:
        yield Finding("display", ", ".join(screens), f"{lack} ({error})")
        return
    seen = driver not in ("dummy", "offscreen")
    size = " and ".join(f"{width} x {height}" for width, height in sizes)
    yield Finding("display", ", ".join([*screens, size, f"video driver {driver}"]), "" if seen else lack)


def _video() -> Iterable[Finding]:
    av = importlib.import_module("av")
    encoder = "libx264" in av.codecs_available
    lack = "an H.264 encoder, for .mp4 files: pip install --force-reinstall av"
    found = f"{av.__version__}, H.264 encoder libx264" if encoder else av.__version__
    yield Finding("PyAV", found, "" if encoder else lack)


def _training() -> Iterable[Finding]:
    version = _version("vizdoom")
    lack = f"filming with `train collect`: {install('train')}"
    yield Finding("ViZDoom", version or "", "" if version else lack)


def _data_sets() -> Iterable[Finding]:
    version = _version("minari") if _version("h5py") and _version("pillow") else None
    lack = f"exporting data sets `--as minari`: {install('data')}"
    yield Finding("Minari", version or "", "" if version else lack)


def _public_worlds() -> Iterable[Finding]:
    hub, encoders = _version("huggingface_hub"), (_version("transformers"), _version("diffusers"))
    lack = f"fetching public worlds with `worlds get`: {install('hub')}"
    yield Finding("hub", f"huggingface_hub {hub}" if hub else "", "" if hub else lack)
    found = f"transformers {encoders[0]}, diffusers {encoders[1]}" if all(encoders) else ""
    lack = f"making scenes of public worlds: {install('scenes')}"
    yield Finding("encoders", found, "" if found else lack)


def _memory() -> Iterable[Finding]:
    main = memory(torch.device("cpu"))
    found = [f"{told(main)} of main memory"] if main is not None else []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        rate = pinned_rate(device) / 1e9
        free = told(torch.cuda.mem_get_info(device)[0])
        found.append(f"GPU {index} has {free} free, and is filled from page-locked memory at {rate:.1f} GB/s")
    yield Finding("memory", ", ".join(found))


def _needed(config: WorldConfig) -> str:
    """What a world takes here, and what it may be brought down to."""
    device = pick_device()
    option, kind = {"cuda": ("--vram", "GPU"), "cpu": ("--ram", "main")}.get(device.type, ("", ""))
    if not option:
        return ""
    usual, least = least_memory(config, device, pick_dtype(device))
    within = f", by {option} at least {told_least(least)}" if least < usual else ""
    return f", takes {told_least(usual)} of {kind} memory{within}"


def _language_models() -> Iterable[Finding]:
    version = _version("mcp")
    lack = f"language models as players by `mcp`: {install('mcp')}"
    yield Finding("MCP", version or "", "" if version else lack)


def _forms() -> Iterable[Finding]:
    version = _version("gradio")
    lack = f"forms beside the page by `demo`: {install('demo')}"
    yield Finding("Gradio", version or "", "" if version else lack)


def _fleet() -> Iterable[Finding]:
    version = _version("ray")
    lack = f"session hosts on many machines, `serve --ray`: {install('fleet')}"
    yield Finding("Ray", version or "", "" if version else lack)


def _worlds() -> Iterable[Finding]:
    found, broken = scan_worlds()
    for entry in found:
        needed = _needed(entry.config)
        if entry.config.generator_weights.startswith("random:"):
            yield Finding(f"world {entry.name}", f"random weights{needed}")
            continue
        shipped = entry.name in shipped_worlds()
        mend = (
            f"git checkout -- world/shipped/{entry.name}" if shipped else f"worlds get {entry.name} --force"
        )
        lack = f"its weights, without which it cannot be played: {mend}"
        size = f"{entry.weights / 1e6:.1f} MB of weights{needed}" if entry.weights else ""
        yield Finding(f"world {entry.name}", size, "" if entry.weights else lack)
    for name, why in broken.items():
        yield Finding(f"world {name}", "", f"a world.toml that can be used: {why}")


_PARTS = {
    "Python": _python,
    "CPU": _processor,
    "GPU": _gpu,
    "memory": _memory,
    "attention": _attention,
    "window": _window,
    "PyAV": _video,
    "ViZDoom": _training,
    "Minari": _data_sets,
    "public worlds": _public_worlds,
    "language models": _language_models,
    "forms": _forms,
    "fleet": _fleet,
    "worlds": _worlds,
}
