"""What a command may be told of the world that it loads: the options that are the same everywhere."""

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
Attention = Annotated[str | None, typer.Option(help="A backend; default: the fastest right one.")]
Precision = Annotated[str | None, typer.Option(help="fp8, int8 or nvfp4 for large layers; default: full.")]
Decoder = Annotated[str | None, typer.Option(help="Which of the world's decoders; default: its own.")]
DecoderDevice = Annotated[str | None, typer.Option(help="The decoder's device, if another: cuda:1.")]
Cache = Annotated[
    str | None, typer.Option(help="fp8 for the cache, which takes half the memory; default: full.")
]
Gpus = Annotated[
    int | None, typer.Option(help="How many GPUs play it together (with --device cpu: processes).", min=1)
]
Vram = Annotated[
    str | None, typer.Option(help="GPU memory it may take (6GB); blocks are offloaded for that.")
]
Ram = Annotated[
    str | None, typer.Option(help="Main memory for it (8GB); what has no room stays in its file.")
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="Several, by commas (cuda:0,cuda:1), or all: a session goes where most memory is free."
    ),
]
