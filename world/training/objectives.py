"""What a generator is distilled for: the objectives, and the settings of a run.

Four of them answer how far a window of dreamed frames is from footage (`DistillTraining.objective`), all
conditioned on the actions:

- `dmd`, Distribution Matching Distillation (Yin et al. 2024, as Self Forcing applies it): a frozen *teacher*
  estimates the clean window as footage would have it, a *critic*, trained on the dreams all along, as the
  student's own; the student moves along the difference.
- `sid`, Score identity Distillation (Zhou et al. 2024, alpha 1 as in Self Forcing): the same two, and
  the gradient of the score identity's loss through both of them.
- `gan`: the critic is a discriminator of noised windows, trained against footage by the relativistic pairing
  loss with approximate R1 and R2 penalties (R3GAN, Huang et al. 2024; penalties as in APT, Lin et al. 2025).
- `phased`, Phased DMD (Fan et al. 2025, arXiv 2510.27684): each denoise step is a phase with an interval of
  noise levels of its own, from its own level down to the next step's, s. What a step makes is matched only
  after it was noised to s, at levels t of its interval. The critic then has samples at s and none at 0, so
  its target is score matching within the interval: with `x_t = a x_s + b e`, `a = (1 - t) / (1 - s)`,
  `b^2 = t^2 - a^2 s^2`, the score of `x_t` is `-e / b` on average. Ticks always go through all their steps.
  All phases share the student's weights, which tell them apart by the noise level, or each has an expert
  of its own (`DistillTraining.experts`), which starts from the same weights.

Each of these asks only that windows look like footage, and may let every place turn into the few that it
knows best. An anchor (`DistillTraining.anchor`) holds against that: the student goes on learning by flow
matching, on footage, what follows a real past. Nor do critics see a pattern while it is faint, and where
nothing moves it grows from tick to tick: sessions at rest (`DistillTraining.rest`) are held to what they saw.

A fifth objective, `rest`, teaches nothing but that, without teacher and critic: sessions not at rest are held
to what the weights that the run began with make of their every tick (as in learning without forgetting, Li
and Hoiem 2016).
"""

from typing import Literal, get_args

import msgspec

from playhead.world.training.origins import check_origin

Objective = Literal["dmd", "sid", "gan", "phased", "rest"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)


class DistillTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` sessions; a window of `length` latents is scored, `past` of them
    from before the ticks that a step dreams. A chain starts at a real past and lives for at most `horizon`
    ticks, fewer in the first tenth of a run.

    `critic_steps`: updates of the critic for each of the student (two time scales). `penalty`: weight of the
    discriminator's penalties, taken every `penalty_every`-th update (as in StyleGAN2, Karras et al. 2020),
    `penalty_noise` the size of the step they are estimated by. `shift` warps the
    noise levels that windows are judged at: the lower, the more fine detail counts. `anchor` weighs the
    flow matching loss on footage beside the objective. `truth` weighs the squared error of a chain's first
    ticks against what followed in footage, while that is known. `steady`: the share of sessions that hold one
    set of buttons, half of them (of `rest`, all) none, until they turn to another, matched with footage that
    does (`SteadyWindows`). `rest` weighs the squared error of those that hold nothing against what they saw
    last, in place of the objective, as long as they show it: that nothing changes is known (`Window.still`).
    `long`: how often the anchor's clips are long ones, which a far memory is kept by (`GeneratorTraining`).
    `experts`: the student is a mixture of experts, one for each denoise step. `origin`: so many of the `past`
    latents that a judge is shown are those that the dream began with (`world.training.origins`).

    Raises PlayheadError where the origin is longer than the past.
    """

    objective: Objective = "dmd"
    clips: int = 64
    length: int = 24
    past: int = 8
    horizon: int = 1024
    critic_steps: int = 4
    learning_rate: float = 1e-4
    critic_rate: float = 2e-4
    penalty: float = 30.0
    penalty_every: int = 4
    penalty_noise: float = 0.1
    shift: float = 3.0
    anchor: float = 0.0
    truth: float = 0.0
    long: float = 0.25
    steady: float = 0.3
    rest: float = 2.0
    experts: bool = False
    origin: int = 0
    compile: bool = True

    def __post_init__(self) -> None:
        check_origin(self.origin, self.past)

    @property
    def ticks(self) -> int:
        """Ticks dreamed a step."""
        return self.length - self.past

    @property
    def turn(self) -> int:
        """The student learns in every so many-th step."""
        return 1 if self.objective == "rest" else self.critic_steps
