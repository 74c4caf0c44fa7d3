"""The `bench` commands of the command line."""

import typer

from playhead.render.bench.parts_commands import bench_attention, bench_decode, bench_precision
from playhead.render.bench.play_commands import bench_compare, bench_play, bench_seek
from playhead.render.bench.serving_commands import bench_batch, bench_bridge, bench_serve, bench_web

app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")


@app.callback()
def bench() -> None:
    """Measure speed on this machine."""


app.command("play")(bench_play)
app.command("compare")(bench_compare)
app.command("seek")(bench_seek)
app.command("attention")(bench_attention)
app.command("precision")(bench_precision)
app.command("decode")(bench_decode)
app.command("batch")(bench_batch)
app.command("web")(bench_web)
app.command("bridge")(bench_bridge)
app.command("serve")(bench_serve)
