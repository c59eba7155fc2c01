"""Runs several metrics with a progress bar, as in `ganlab eval` and `ganlab score`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from ganlab.evaluation.evaluator import MetricRunner
from ganlab.plugin.registry import Registry
from ganlab.protocols import Metric
from ganlab.utils.errors import ComponentError, UserError
from ganlab.viz.progress import progress_bar


def run_metrics_with_progress(
    runner: MetricRunner, metrics: Sequence[tuple[str, str, Metric]], where: str
) -> list[dict[str, Any]]:
    """Runs all metrics with a progress bar on stderr and returns their records; `where` prefixes errors.

    All are prepared before the first is run: the scores of hours would be lost where a later metric refuses.
    """
    records = []
    outputs = None if runner.outputs is None else attrs.evolve(runner.outputs, networks=None)
    with progress_bar() as progress_of:
        for name, _, metric in metrics:
            with _named(name, where):
                runner.evaluator.prepare(metric, progress_of(name), outputs)
        for name, suffix, metric in metrics:
            with _named(name, where):
                records += runner.score(metric, suffix, progress_of(name))
    return records


@contextmanager
def _named(name: str, where: str) -> Iterator[None]:
    """Errors of a metric that runs are the user's, with its name."""
    try:
        yield
    except ComponentError as error:
        raise UserError(f"{where}: metric {name!r}: {error}") from None


def named_metrics(registry: Registry, metrics: Sequence[Metric]) -> list[tuple[str, str, Metric]]:
    suffixes = registry.suffixes("metric", metrics)
    return [
        (registry.component_of("metric", metric).name, suffix, metric)
        for metric, suffix in zip(metrics, suffixes, strict=True)
    ]
