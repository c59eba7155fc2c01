"""Stand-ins for the plots of a finished run: drawing them takes more than half of the time of a run of a few steps."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ganlab.utils.files import write_whole
from ganlab.viz import plots


def _stand_in() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, format="png")
    return stream.getvalue() + bytes(20_000)  # as large as a plot is, for tests of full disks


STAND_IN = _stand_in()


def _writer(position: int) -> Callable[..., None]:
    """A function that draws nothing: it writes the stand-in to the path that it gets as this argument."""

    def write(*arguments: Any) -> None:
        path: Path = arguments[position]
        write_whole(path, STAND_IN)

    return write


STAND_INS = {
    plots.plot_losses.__name__: _writer(1),
    plots.plot_scheduled_options.__name__: _writer(2),
    plots.plot_metrics.__name__: _writer(1),
    plots.plot_real_and_fake.__name__: _writer(2),
}
"""What replaces the functions of `ganlab.viz.plots` of these names. A scatter plot of samples is drawn."""
