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
from ganlab.utils.progress import Progress
from ganlab.utils.rng import preserve_random_state
from ganlab.viz.progress import progress_bar


def run_metrics_with_progress(
    runner: MetricRunner, metrics: Sequence[tuple[str, str, Metric]], where: str
) -> list[dict[str, Any]]:
    """Runs all metrics with a progress bar on stderr and returns their records; `where` prefixes errors.

    All are prepared before the first is run: the scores of hours would be lost where a later metric refuses.
    """
    records = []
    with progress_bar() as progress_of:
        for name, _, metric in metrics:
            with _named(name, where):
                _prepare(metric, runner, progress_of(name))
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


def _prepare(metric: Metric, runner: MetricRunner, progress: Progress) -> None:
    """Prepares a metric before it runs, without images and networks; what it keeps meanwhile is of none."""
    if hasattr(metric, "prepare"):
        outputs = None if runner.outputs is None else attrs.evolve(runner.outputs, networks=None)
        trial = MetricRunner(runner.evaluator, lambda count, seed: iter(()), runner.weights, outputs=outputs)
        with preserve_random_state():
            metric.prepare(trial.evaluation(progress))


def named_metrics(registry: Registry, metrics: Sequence[Metric]) -> list[tuple[str, str, Metric]]:
    suffixes = registry.suffixes("metric", metrics)
    return [
        (registry.component_of("metric", metric).name, suffix, metric)
        for metric, suffix in zip(metrics, suffixes, strict=True)
    ]
