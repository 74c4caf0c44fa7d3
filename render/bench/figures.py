"""What `bench play` finds, as it is printed, kept as JSON and compared with what another run found."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from playhead.engine.stats import percentile
from playhead.world.errors import PlayheadError
from playhead.world.terminal import plural, printable


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of times, in milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Of at least one time."""
        return cls(*(1000 * (percentile(seconds, p) or 0.0) for p in (50, 95, 99)))

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p95:.1f} / {self.p99:.1f}"

    @property
    def tail(self) -> float:
        """p99 over p50: 1 where all times are alike."""
        return self.p99 / self.p50 if self.p50 else 1.0


class PlayFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A run of `bench play`. Rates are per second, `start` in seconds, memory in MB.

    `tick` is from frame to frame; `key_to_frame` from the input's sample to the frame, `key_to_screen` to the
    end of the window's flip. There if they were asked for: `stages`; `gflop`, operations a tick by stage, of
    which `attention_gflop` are attention's; `tflops` and `attention_tflops`, the most that this device was
    seen to do of them in a second; on a CPU `products`, bare ones for about as long as a tick, over and over
    with nothing beside them. `paced`: at the world's own pace and recorded. `decoder`: "" for the own.
    `offloaded`: which blocks are, and of those `moved`, bytes a tick, and `link`, bytes a second that nothing
    else held up.
    """

    hardware: str
    world: str
    width: int
    height: int
    steps: int
    precision: str
    own_rate: float
    paced: bool
    ticks: int
    rate: float
    frames: float
    tick: Spread
    key_to_frame: Spread
    key_to_screen: Spread
    start: float
    attention: str | None = None
    attention_findings: tuple[str, ...] = ()
    fused: bool = False
    fused_finding: str = ""
    fused_decoder: bool = False
    fused_decoder_finding: str = ""
    decoder: str = ""
    stages: dict[str, Spread] = {}
    gflop: dict[str, float] = {}
    attention_gflop: float = 0.0
    tflops: float | None = None
    attention_tflops: float | None = None
    products: Spread | None = None
    device_memory: float | None = None
    memory: float | None = None
    offloaded: str = ""
    moved: float = 0.0
    link: float | None = None

    def lines(self) -> Iterator[str]:
        """As it is printed: a name of at most 13 letters and what was found, a line each."""
        yield f"hardware      {self.hardware}"
        steps = plural(self.steps, "step")
        yield f"world         {self.world}, {self.width} x {self.height}, {steps} a tick, {self.precision}"
        how = "at its own pace, recorded" if self.paced else "as fast as they come"
        yield f"measured      {self.ticks} ticks {how}, decode, commit and display included"
        frames = f", {self.frames:.1f} frames/s" if round(self.frames, 1) != round(self.rate, 1) else ""
        yield f"rate          {self.rate:.1f} ticks/s{frames} (the world's own: {self.own_rate:g})"
        yield f"tick          {self.tick} ms p50 / p95 / p99, from frame to frame"
        yield f"key to frame  {self.key_to_frame} ms, from the input's sample to the frame"
        yield f"key to screen {self.key_to_screen} ms, to the end of the window's flip"
        yield f"start         {self.start:.1f} s from loading to the first dreamed frame on screen"
        if self.attention is not None:
            yield f"attention     {self.attention}, of {'; '.join(self.attention_findings)}"
        for which, fused, finding in (
            ("passes", self.fused, self.fused_finding),
            ("decodes", self.fused_decoder, self.fused_decoder_finding),
        ):
            if fused or finding:
                yield f"kernels       {'fused' if fused else 'plain'} {which}: {finding}"
        if self.decoder:
            yield f"decoder       {self.decoder}"
        for name, spread in self.stages.items():
            yield f"{name:13} {spread} ms p50 / p95 / p99, waited for"
        if self.products is not None:
            name, own = ("key to frame", self.key_to_frame) if self.paced else ("the tick", self.tick)
            ratio = f"p99 / p50 {self.products.tail:.2f} here ({name}: {own.tail:.2f})"
            yield f"machine       bare products of a tick's length take {ratio}"
        if self.gflop:
            each = ", ".join(f"{name} {operations:.2f}" for name, operations in self.gflop.items())
            yield f"GFLOP a tick  {sum(self.gflop.values()):.2f}: {each}, counted"
        if self.gflop and self.tflops and self.attention_tflops:
            operations = sum(self.gflop.values())
            least = (operations - self.attention_gflop) / self.tflops
            least += self.attention_gflop / self.attention_tflops
            done, share = self.rate * operations / 1000, self.rate * least / 10
            reached = (
                f"large products reach {self.tflops:.3g} here, large attention {self.attention_tflops:.3g}"
            )
            yield f"TFLOP/s       {done:.3g}; {reached}: {share:.0f} % of what both allow"
        if self.offloaded:
            yield f"offloaded     {self.offloaded}, counted"
        if self.link:
            used = self.rate * self.moved
            of_it = f"reached {used / 1e9:.3g}, {100 * used / self.link:.0f} % of it"
            yield f"link          {self.link / 1e9:.3g} GB/s measured with nothing beside it; {of_it}"
        if self.device_memory is not None:
            yield f"device memory {self.device_memory:.0f} MB at most"
        if self.memory is not None:
            yield f"memory        {self.memory:.0f} MB resident at most"


def read(path: Path) -> PlayFigures:
    """What `bench play --json` printed into a file. Raises PlayheadError for anything else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlayFigures)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        name, why = printable(str(path)), printable(str(error))
        raise PlayheadError(f"{name} cannot be read as what `bench play --json` prints: {why}") from None


def compare(first: PlayFigures, second: PlayFigures) -> Iterator[tuple[str, str, str, str]]:
    """Rows of a name, the first's figure, the second's, and the second's over the first's.

    Of all that both have, and of what kind the runs were where that is not the same.
    """
    for name in (
        "hardware",
        "world",
        "steps",
        "precision",
        "paced",
        "attention",
        "fused",
        "fused_decoder",
        "decoder",
        "offloaded",
    ):
        a, b = getattr(first, name), getattr(second, name)
        if a != b:
            yield name, printable(str(a)), printable(str(b)), ""
    for name, a, b in _shared(first, second):
        yield name, f"{a:.4g}", f"{b:.4g}", f"{b / a:.3f}" if a else ""


def _shared(first: PlayFigures, second: PlayFigures) -> Iterator[tuple[str, float, float]]:
    yield "ticks/s", first.rate, second.rate
    yield "frames/s", first.frames, second.frames
    for name in ("tick", "key_to_frame", "key_to_screen"):
        a, b = getattr(first, name), getattr(second, name)
        for part in ("p50", "p95", "p99"):
            yield f"{name.replace('_', ' ')} {part}, ms", getattr(a, part), getattr(b, part)
    yield "start, s", first.start, second.start
    for name, spread in first.stages.items():
        if name in second.stages:
            yield f"{name} p50, ms", spread.p50, second.stages[name].p50
    if first.products is not None and second.products is not None:
        yield "bare products, p99 / p50", first.products.tail, second.products.tail
    for name, operations in first.gflop.items():
        if name in second.gflop:
            yield f"{name}, GFLOP a tick", operations, second.gflop[name]
    for name, words in (
        ("device_memory", "device memory, MB"),
        ("memory", "memory, MB"),
        ("moved", "moved, bytes a tick"),
        ("link", "link, bytes/s"),
    ):
        a, b = getattr(first, name), getattr(second, name)
        if a and b:
            yield words, a, b
