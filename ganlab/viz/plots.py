"""Plots with matplotlib: losses, scheduled options, metrics, discriminator outputs, metric curves and 2-D points."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab.utils.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def _default_style() -> Iterator[None]:
    """Plots are drawn in matplotlib's default style, whatever the user's matplotlibrc says: it may ask for LaTeX."""
    from matplotlib import style  # half a second, for which no run should wait before its first step

    with style.context("default", after_reset=True):
        yield


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _encode_figure(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _plot_values(axes: Any, log: Sequence[Mapping[str, Any]], name: str, label: str | None = None) -> None:
    """Plots a value over steps. Records without it, as of a lazy penalty, are left out: they would break the line."""
    points = [(record["step"], float(record[name])) for record in log if name in record]
    alone = "o" if len(points) == 1 else None  # there is no line to see
    axes.plot([step for step, _ in points], [value for _, value in points], label=label, linewidth=1.2, marker=alone)


@_default_style()
def plot_losses(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots every term of both losses, averaged per tick, over steps."""
    seen = dict.fromkeys(name for record in log for name in record)
    names = [name for name in seen if name.startswith(("loss_", "penalty_"))]
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    for name in names:
        label = name.removeprefix("loss_").replace("_", " ")
        _plot_values(axes, log, name, label)
    axes.set(xlabel="step", ylabel="loss, mean of a tick", title="Loss terms")
    axes.grid(alpha=0.3)
    if names:
        axes.legend()
    write_whole(path, _encode_figure(figure))


@_default_style()
def plot_scheduled_options(log: Sequence[Mapping[str, Any]], keys: Sequence[str], path: Path) -> None:
    """Plots scheduled options with matplotlib, one panel each: the option's value at the end of each tick."""
    figure = _figure(8, 2.4 * len(keys))
    for axes, key in zip(figure.subplots(len(keys), squeeze=False)[:, 0], keys, strict=True):
        _plot_values(axes, log, key)
        axes.set(xlabel="step", title=key)
        axes.grid(alpha=0.3)
    write_whole(path, _encode_figure(figure))


@_default_style()
def plot_real_and_fake(real: Sequence[float], fake: Sequence[float], path: Path, step: int) -> None:
    """Plots histograms of D(real) and D(fake) with matplotlib: the sigmoids of the logits of real and fake images.

    With a cross-entropy loss they are probabilities of being real; with other losses only their order is meaningful.
    """
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    bins = [i / 50 for i in range(51)]
    for values, label in ((real, "D(real)"), (fake, "D(fake)")):
        finite = [value for value in values if math.isfinite(value)]
        mean = f"mean {sum(finite) / len(finite):.2f}" if len(finite) == len(values) else "not finite"
        axes.hist(finite, bins=bins, alpha=0.55, label=f"{label}, {mean}")
    axes.axvline(0.5, color="black", linestyle="--", linewidth=1, label="0.5: a logit of 0")
    axes.set(
        xlabel="sigmoid of the logit",
        ylabel="images",
        xlim=(0, 1),
        title=f"D(real) and D(fake) at step {step:,}, in evaluation mode",
    )
    axes.legend()
    write_whole(path, _encode_figure(figure))


@_default_style()
def plot_metrics(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots each metric over steps, one panel each; a value that is not finite leaves a gap."""
    records = [record for record in records if not record.get("eval")]
    names = list(dict.fromkeys(record["name"] for record in records))
    figure = _figure(8, 3.4 * max(1, len(names)))
    panels = figure.subplots(max(1, len(names)), squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=False):
        mine = [record for record in records if record["name"] == name]
        values = [float(record["value"]) for record in mine]
        axes.plot([record["step"] for record in mine], values, marker="o", markersize=4)
        if "floor" in mine[-1]:
            _draw_floor_line(axes, mine[-1]["floor"])
        features = mine[-1]["protocol"].get("features", {})
        note = f" ({features['name']} features)" if isinstance(features, Mapping) and "name" in features else ""
        axes.set(xlabel="step", ylabel=name, title=f"{name}{note}")
        if values and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    write_whole(path, _encode_figure(figure))


def _draw_floor_line(axes: Any, floor: Mapping[str, Any]) -> None:
    label = f"real images of the {floor['split']} split: {float(floor['value']):.4g}"
    axes.axhline(float(floor["value"]), color="black", linestyle="--", linewidth=1, label=label)
    axes.legend()


@_default_style()
def metric_curves_png(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], metric: str, floor: Mapping[str, Any] | None
) -> bytes:
    """Plots a metric over steps as PNG: for each variant the mean over its seeds and a band from minimum to maximum.

    `curves` maps a variant to the points (step, value) of each of its seeds. Only steps that every seed has are drawn,
    so that a seed that stopped early does not distort the mean. `floor` is what real images score.
    """
    figure = _figure(9, 5)
    axes = figure.subplots()
    lowest, highest = math.inf, 0.0
    for variant, seeds in curves.items():
        by_step = [dict(points) for points in seeds if points]
        steps = sorted(set.intersection(*(set(points) for points in by_step))) if by_step else []
        if not steps:
            continue
        values = [[points[step] for points in by_step] for step in steps]
        means = [sum(at) / len(at) for at in values]
        (line,) = axes.plot(
            steps,
            means,
            marker="o",
            markersize=3,
            label=f"{variant} ({len(by_step)} seed{'' if len(by_step) == 1 else 's'})",
        )
        axes.fill_between(
            steps, [min(at) for at in values], [max(at) for at in values], alpha=0.2, color=line.get_color()
        )
        finite = [mean for mean in means if math.isfinite(mean)]
        lowest, highest = min([lowest, *finite]), max([highest, *finite])
    axes.set(xlabel="step", ylabel=metric, title=f"{metric}: mean and range over seeds")
    if 0 < lowest < highest / 20:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    if floor is not None:
        _draw_floor_line(axes, floor)
    return _encode_figure(figure)


@_default_style()
def scatter_png(x: Sequence[float], y: Sequence[float], of_columns: bool = False) -> bytes:
    """Plots 2-D points in [-1, 1] with matplotlib, as PNG; every such plot has the same size and scale.

    Dots are translucent, so that dense regions are darker. Two columns of a table (`of_columns`) are drawn in their own
    unit.
    """
    figure = _figure(5, 5)
    axes = figure.subplots()
    axes.scatter(x, y, s=9, alpha=0.35, linewidths=0)
    if of_columns:
        axes.set(xlabel="column 1", ylabel="column 2", title=f"{len(x):,} rows")
    else:
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", title=f"{len(x):,} points")
    axes.grid(alpha=0.3)
    return _encode_figure(figure)
