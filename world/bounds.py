"""The numbers that a world's configuration may give: none that no machine could hold."""

from typing import Annotated

from msgspec import Meta

Size = Annotated[int, Meta(ge=-65_536, le=65_536)]
"""A number of channels, frames, buttons, …, as a file may give it; what is below 0 is told by `check`."""
Positive = Annotated[float, Meta(gt=0, le=1000)]
