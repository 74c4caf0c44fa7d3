"""The `train` commands of the command line."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

app = typer.Typer(no_args_is_help=True, help="Collect footage and train worlds.")

Recipe = Annotated[Path, typer.Option(help="A world.toml that says what to build.")]
Out = Annotated[Path, typer.Option(help="Folder of the run; a run found there goes on.")]
Frames = Annotated[Path, typer.Option(help="Folder of episodes.")]
Steps = Annotated[int | None, typer.Option(help="Stop after so many steps.", min=1)]
Minutes = Annotated[float | None, typer.Option(help="Stop after so many minutes.", min=0.01)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
Compile = Annotated[bool, typer.Option(help="Compile on a GPU.")]

FREEDOOM = Path(__file__).with_name("recipes") / "freedoom.toml"


def _one_of(what: str, name: str, known: tuple[str, ...]) -> None:
    from playhead.world.errors import PlayheadError

    if name not in known:
        raise PlayheadError(f"there is no {what} `{name}`; choose among {', '.join(known)}")


def _collect_options(options: str, size: str | None) -> tuple[dict[str, Any], tuple[int, int] | None]:
    from playhead.world.errors import PlayheadError

    try:
        made_with = json.loads(options)
    except json.JSONDecodeError:
        made_with = None
    if not isinstance(made_with, dict):
        raise PlayheadError(f'--options {options} is no JSON object, such as {{"continuous": false}}')
    parts = size.lower().split("x") if size else []
    if size and not (len(parts) == 2 and all(part.isdigit() for part in parts)):
        raise PlayheadError(f"--size {size} is no HEIGHTxWIDTH, such as 128x128")
    return made_with, (int(parts[0]), int(parts[1])) if parts else None


@app.command()
def collect(
    episodes: Annotated[int, typer.Option(help="How many episodes.")],
    length: Annotated[int, typer.Option(help="Frames an episode.")],
    seed: Annotated[int, typer.Option(help="Seed of the first; from 900000 on: held out.")],
    out: Annotated[Path, typer.Option(help="Folder for the episodes.")],
    place: Annotated[list[str] | None, typer.Option(help="Only this place; may be repeated.")] = None,
    workers: Annotated[int | None, typer.Option(help="Games at once.", min=1)] = None,
    steady: Annotated[
        float,
        typer.Option(help="Share of time in which the player holds one thing, or nothing, for long."),
    ] = 0.0,
    env: Annotated[
        str | None, typer.Option(help="A Gymnasium environment in place of ViZDoom; module:NAME imports.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of an environment's frames.")] = None,
    noop: Annotated[int | None, typer.Option(help="Which action of an environment does nothing.")] = None,
    options: Annotated[str, typer.Option(help="What the environment is made with, as JSON.")] = "{}",
) -> None:
    """Film a random player in ViZDoom, or in any Gymnasium environment; an .npz an episode."""
    if env is not None:
        from playhead.world.training.gym_collect import collect_env

        made_with, pixels = _collect_options(options, size)
        found = collect_env(
            env, episodes, length, seed, out, size=pixels, noop=noop, options=made_with, steady=steady
        )
        typer.echo(f"{len(found)} episodes in {out}; the recipe is {out / 'recipe' / 'world.toml'}")
        return
    from playhead.world.training.collect import collect as run

    files = run(episodes, length, seed, out, place, workers, steady)
    typer.echo(f"{len(files)} episodes in {out}")


@app.command()
def there_and_back(
    out: Annotated[Path, typer.Option(help="Folder for the episodes.")],
    clips: Annotated[int, typer.Option(help="Starts a place.", min=1)] = 1,
    place: Annotated[list[str] | None, typer.Option(help="Only this place; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first; from 900000 on: held out.")] = 900_000,
    workers: Annotated[int | None, typer.Option(help="Games at once.", min=1)] = None,
) -> None:
    """Film excursions that end where they began, by which `evaluate` measures a world's memory."""
    from playhead.world.training.there_and_back import collect_excursions

    files = collect_excursions(clips, out, place, workers, seed)
    typer.echo(f"{len(files)} episodes in {out}")


@app.command()
def autoencoder(
    footage: Frames,
    out: Out,
    steps: Steps = None,
    minutes: Minutes = None,
    recipe: Recipe = FREEDOOM,
    start: Annotated[Path | None, typer.Option(help="Weights of an autoencoder to begin from.")] = None,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Keep the encoder of --start, and with it the latents.")
    ] = False,
    clips: Annotated[int, typer.Option(help="Clips a batch and GPU.", min=1)] = 16,
    equivariance: Annotated[
        float, typer.Option(help="Share of clips whose halved latents paint a halved picture.", min=0, max=1)
    ] = 0.0,
    mask_channels: Annotated[
        float, typer.Option(help="Share of clips rebuilt from the first few channels.", min=0, max=1)
    ] = 0.0,
    compile: Compile = True,
    device: Device = "auto",
) -> None:
    """Train the encoder and the decoder."""
    from playhead.world.training.autoencoder import AutoencoderTraining
    from playhead.world.training.pipeline import make_autoencoder
    from playhead.world.training.run import Run

    settings = AutoencoderTraining(
        clips=clips,
        decoder_only=decoder_only,
        equivariance=equivariance,
        mask_channels=mask_channels,
        compile=compile,
    )
    make_autoencoder(recipe, footage, Run(out, steps=steps, minutes=minutes), settings, start, device)


@app.command()
def generator(
    footage: Frames,
    autoencoder: Annotated[Path, typer.Option(help="Weights of the autoencoder.")],
    out: Out,
    steps: Steps = None,
    minutes: Minutes = None,
    recipe: Recipe = FREEDOOM,
    start: Annotated[Path | None, typer.Option(help="Weights of a generator to begin from.")] = None,
    clips: Annotated[int, typer.Option(help="Clips a batch and GPU.", min=1)] = 96,
    length: Annotated[int, typer.Option(help="Latents a clip.", min=2)] = 24,
    long: Annotated[
        float, typer.Option(help="Share of batches of clips of 160, for a far memory.", min=0, max=1)
    ] = 0.25,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    shift: Annotated[
        float, typer.Option(help="Warps the noise levels between those of play: more is noisier.", min=0.1)
    ] = 1.5,
    own_from: Annotated[
        float, typer.Option(help="Part of the run after which it is given frames of its own.", min=0, max=1)
    ] = 0.3,
    one_step: Annotated[
        float, typer.Option(help="Share of clips for play in one step a tick, not two.", min=0, max=1)
    ] = 0.6,
    film: Annotated[
        int, typer.Option(help="Games that film meanwhile, a core each; what they film joins in.", min=0)
    ] = 0,
    optimizer: Annotated[
        str, typer.Option(help="What matrices learn by: muon, adamw or normuon; the rest by adamw.")
    ] = "muon",
    compile: Compile = True,
    device: Device = "auto",
) -> None:
    """Train the generator; the finished world is in OUT/world."""
    from playhead.world.training.pipeline import make_generator
    from playhead.world.training.run import Run
    from playhead.world.training.train_generator import OPTIMIZERS, GeneratorTraining, Optimizer

    _one_of("optimizer", optimizer, OPTIMIZERS)
    settings = GeneratorTraining(
        clips=clips,
        length=length,
        long=long,
        learning_rate=learning_rate,
        shift=shift,
        own_from=own_from,
        one_step=one_step,
        optimizer=cast(Optimizer, optimizer),
        compile=compile,
    )
    run = Run(out, steps=steps, minutes=minutes)
    folder = make_generator(recipe, footage, autoencoder, run, settings, start, device, film)
    if run.rank == 0:
        typer.echo(f"the world is in {folder}")


@app.command()
def inverse(
    footage: Frames, out: Out, steps: Steps = None, minutes: Minutes = None, device: Device = "auto"
) -> None:
    """Train the inverse-dynamics model that measures action following."""
    from playhead.world.training.pipeline import make_inverse
    from playhead.world.training.run import Run
    from playhead.world.training.train_inverse import InverseTraining

    make_inverse(footage, Run(out, steps=steps, minutes=minutes), InverseTraining(), device)


@app.command()
def scorer(
    world: Annotated[str, typer.Option(help="Name or folder of a trained world.")],
    footage: Frames,
    out: Out,
    steps: Steps = None,
    minutes: Minutes = None,
    clips: Annotated[int, typer.Option(help="Windows a batch and GPU.", min=1)] = 96,
    length: Annotated[int, typer.Option(help="Latents a window.", min=10)] = 24,
    origin: Annotated[
        int, typer.Option(help="Latents of some time before that a third of the windows begin with.", min=0)
    ] = 0,
    compile: Compile = True,
    device: Device = "auto",
) -> None:
    """Train the teacher of `distill`: it sees whole windows, and tells how far they are from footage."""
    from playhead.world.training.pipeline import make_scorer
    from playhead.world.training.run import Run
    from playhead.world.training.scorer import ScorerTraining

    run = Run(out, steps=steps, minutes=minutes)
    settings = ScorerTraining(clips=clips, length=length, origin=origin, compile=compile)
    weights = make_scorer(world, footage, run, settings, device)
    if run.rank == 0:
        typer.echo(f"the scorer is {weights}")


@app.command()
def distill(
    world: Annotated[str, typer.Option(help="Name or folder of a trained world.")],
    footage: Frames,
    out: Out,
    steps: Steps = None,
    minutes: Minutes = None,
    objective: Annotated[str, typer.Option(help="dmd, sid, gan, phased or rest.")] = "dmd",
    scorer: Annotated[
        Path | None, typer.Option(help="Weights made by `train scorer`; else trained first, a third longer.")
    ] = None,
    clips: Annotated[int, typer.Option(help="Sessions a batch and GPU.", min=1)] = 64,
    length: Annotated[int, typer.Option(help="Latents a window, 8 of them past.", min=10)] = 24,
    horizon: Annotated[int, typer.Option(help="Ticks that a rollout lives at most.", min=1)] = 1024,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the student.")] = 1e-4,
    critic_steps: Annotated[int, typer.Option(help="Critic updates for one of the student.", min=1)] = 4,
    shift: Annotated[
        float, typer.Option(help="Warps the noise levels of judging: lower is more for detail.", min=0.1)
    ] = 3.0,
    anchor: Annotated[
        float, typer.Option(help="What flow matching on footage counts beside it.", min=0)
    ] = 0.0,
    truth: Annotated[
        float,
        typer.Option(help="Weight of the error against what followed in footage, in a dream's first ticks."),
    ] = 0.0,
    long: Annotated[
        float, typer.Option(help="How often the anchor's clips are of 160, for a far memory.", min=0, max=1)
    ] = 0.25,
    steady: Annotated[
        float, typer.Option(help="Share of sessions that hold one chord, or nothing, for long.", min=0, max=1)
    ] = 0.3,
    rest: Annotated[
        float, typer.Option(help="What it counts that nothing changes while nothing is held.", min=0)
    ] = 2.0,
    experts: Annotated[bool, typer.Option(help="Of phased: an expert for each step.")] = False,
    origin: Annotated[
        int, typer.Option(help="Latents of where a dream began that its judge is shown too.", min=0)
    ] = 0,
    compile: Compile = True,
    device: Device = "auto",
) -> None:
    """Teach a world's generator to live on its own frames (Self Forcing); the result is in OUT/world."""
    from playhead.world.training.objectives import OBJECTIVES, DistillTraining, Objective
    from playhead.world.training.pipeline import make_distilled
    from playhead.world.training.run import Run

    _one_of("objective", objective, OBJECTIVES)
    settings = DistillTraining(
        objective=cast(Objective, objective),
        clips=clips,
        length=length,
        horizon=horizon,
        learning_rate=learning_rate,
        critic_steps=critic_steps,
        shift=shift,
        anchor=anchor,
        truth=truth,
        long=long,
        steady=steady,
        rest=rest,
        experts=experts,
        origin=origin,
        compile=compile,
    )
    # A checkpoint holds the sessions' caches too, hence is larger and rarer than others.
    run = Run(out, steps=steps, minutes=minutes, save_every=180.0)
    folder = make_distilled(world, footage, run, settings, scorer, device)
    if run.rank == 0:
        typer.echo(f"the world is in {folder}")


@app.command()
def sharpen(
    world: Annotated[str, typer.Option(help="Name or folder of a trained world.")],
    footage: Frames,
    out: Out,
    steps: Steps = None,
    minutes: Minutes = None,
    detail: Annotated[float, typer.Option(help="What fine detail counts beside squared error.")] = 0.03,
    share: Annotated[float, typer.Option(help="How much the critic is heard.", min=0)] = 0.5,
    clips: Annotated[int, typer.Option(help="Clips a batch and GPU.", min=1)] = 16,
    latent_noise: Annotated[
        float, typer.Option(help="Noise that latents are decoded with, so that dreamed ones may err.", min=0)
    ] = 0.05,
    dreamed: Annotated[
        float, typer.Option(help="Share of clips that the world's generator dreams over.", min=0, max=1)
    ] = 0.0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the decoder.")] = 3e-4,
    compile: Compile = True,
    device: Device = "auto",
) -> None:
    """Teach a world's decoder to paint as sharply as footage is; the result is in OUT/world."""
    from playhead.world.training.pipeline import make_sharper
    from playhead.world.training.run import Run
    from playhead.world.training.sharpen import SharpenTraining

    settings = SharpenTraining(
        clips=clips,
        learning_rate=learning_rate,
        latent_noise=latent_noise,
        detail=detail,
        share=share,
        dreamed=dreamed,
        compile=compile,
    )
    run = Run(out, steps=steps, minutes=minutes)
    folder = make_sharper(world, footage, run, settings, device)
    if run.rank == 0:
        typer.echo(f"the world is in {folder}")


@app.command()
def average(
    world: Annotated[str, typer.Option(help="Name or folder of a world.")],
    other: Annotated[str, typer.Option(help="Name or folder of one trained from the same weights.")],
    out: Annotated[Path, typer.Option(help="Folder for the new world.")],
    share: Annotated[float, typer.Option(help="Of the other's generator.", min=0, max=1)] = 0.5,
    decoder: Annotated[float, typer.Option(help="Of the other's decoder.", min=0, max=1)] = 0.0,
) -> None:
    """Average the weights of two worlds of one line of training; the result is in OUT."""
    from playhead.world.training.average import average_worlds

    typer.echo(f"the world is in {average_worlds(world, other, out, share, decoder)}")
