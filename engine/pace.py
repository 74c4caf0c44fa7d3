"""The pace of a session: when the world moves, how fast, and in how many steps. It knows no thread."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from playhead.engine.auto_steps import AutoSteps
from playhead.engine.clock import FASTEST, SLOWEST, Clock, check_speed
from playhead.engine.stats import Meter, Stats
from playhead.engine.tuning import Tuning

if TYPE_CHECKING:
    from playhead.world.action import Action


class SupportsSteps(Protocol):
    """What is played at a pace, as a session is: its denoise steps a tick may be changed.

    Raises PlayheadError for steps that it cannot be played in.
    """

    steps: int


class Pace:
    """Says when to play, keeps the clock, and measures how well it is kept; for one thread.

    `paused`, `lockstep`, `hold`, `speed`: as in `Tuning`. `auto`: the machine's speed chooses the denoise
    steps. `waiting`: the world stands still until something is held. `single_steps`: ticks that are to be
    played in a pause.
    """

    def __init__(
        self,
        speed: float = 1.0,
        hold: bool = False,
        lockstep: bool = False,
        auto_steps: bool = False,
        make_clock: Callable[[float, float], Clock] = Clock,
    ) -> None:
        """Raises PlayheadError for a speed that is none. `enter` comes before anything else."""
        self.speed, self.hold, self.lockstep, self.auto = check_speed(speed), hold, lockstep, auto_steps
        self.paused, self.waiting, self.single_steps = False, False, 0
        self._make_clock = make_clock

    def enter(self, played: SupportsSteps, rate: float, most: int) -> None:
        """Begins with a session: `rate` ticks a second, `most` denoise steps, its world's own."""
        self._played, self._most = played, most
        self.clock, self.meter = self._make_clock(rate, self.speed), Meter()
        self._chooser = AutoSteps(played.steps)
        self.resync()

    @property
    def stands(self) -> bool:
        """Whether the world stands still but for what is asked."""
        return self.paused or self.lockstep

    @property
    def halted(self) -> bool:
        """Whether nothing is to be played until something is asked."""
        return self.stands and not self.single_steps

    @property
    def expected(self) -> float:
        """The seconds to expect from a tick's frames to the next one's."""
        return max(self.clock.period, self.meter.tick_times.percentile(50) or 0.0)

    def wait(self) -> float:
        """Sleeps until the next tick is due, unless the world stands still. Returns how late it then is."""
        return 0.0 if self.stands else self.clock.wait()

    def take_turn(self) -> bool:
        """Whether a tick is to be played now; of the single steps one is then used up."""
        if self.lockstep:
            return False
        if not self.paused:
            return True
        if not self.single_steps:
            return False
        self.single_steps -= 1
        return True

    def idles(self, action: "Action") -> bool:
        """Whether the world stands still under an action, because nothing is held."""
        self.waiting = self.hold and not self.paused and action.idle
        if self.waiting:
            self.meter.interrupt()  # nothing is dreamed, so nothing drifts
        return self.waiting

    def key_event(self, time: float | None) -> float | None:
        """When the key event that a tick obeys happened; None for one that waited for no tick, since the
        world stood still.
        """
        return None if time is None or time < self._moving_since else time

    def add(self, sampled: float, ready: float, done: float, key: float | None) -> None:
        """Takes in a tick that was played: when its input was sampled, its frames were there, it was over,
        and its key event happened. Chooses the steps of the next.
        """
        time, period = done - sampled, self.clock.period
        self.meter.add(ready, time, period, None if key is None else ready - key)
        if self.auto and not self.stands:
            self._played.steps = self._chooser.update(time, period)

    def resync(self) -> None:
        """Makes up for no time that was spent on something else than ticks."""
        self.clock.restart()
        self.meter.interrupt()
        self._moving_since = self.clock.now()

    def single_step(self) -> None:
        """Has one tick played, and the world then stand still."""
        self.paused = True
        self.single_steps += not self.lockstep
        self.resync()

    def tune(self, to: Tuning) -> None:
        """Goes on otherwise. Raises what the session does for steps that it cannot be played in."""
        if to.steps is not None:
            self._played.steps = to.steps
            self.auto = False
        if to.auto_steps is not None and to.auto_steps != self.auto:
            self._played.steps = self._most
            self.auto, self._chooser = to.auto_steps, AutoSteps(self._most)
        if to.hold is not None and to.hold != self.hold:
            self.hold, self.waiting = to.hold, False
            self.resync()
        if to.speed is not None:
            self.speed = self.clock.speed = min(max(to.speed, SLOWEST), FASTEST)
            self.meter.interrupt()
        if to.paused is not None and to.paused != self.paused:
            self.paused, self.single_steps = to.paused, 0
            self.resync()
        if to.lockstep is not None:
            self.lockstep, self.single_steps = to.lockstep, 0
            self.resync()

    def stats(self, tick: int, seed: int, held: tuple[str, ...], offloaded: str = "") -> Stats:
        """What is played, and how well the pace is kept: at a tick, under a seed, with this held."""
        clock, meter = self.clock, self.meter
        wanted_rate = 1 / clock.period
        return Stats(
            tick=tick,
            seed=seed,
            steps=self._played.steps,
            auto=self.auto,
            paused=self.paused,
            speed=clock.speed,
            held=held,
            budget=clock.period,
            rate=meter.rate,
            wanted_rate=wanted_rate,
            tick_p50=meter.tick_times.percentile(50),
            tick_p99=meter.tick_times.percentile(99),
            key_p50=meter.key_times.percentile(50),
            key_p99=meter.key_times.percentile(99),
            missed=meter.missed,
            counted=len(meter.tick_times),
            slow=not self.lockstep and meter.slow(wanted_rate),
            waiting=self.waiting,
            offloaded=offloaded,
        )
