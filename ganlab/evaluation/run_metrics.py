"""Runs several metrics with a progress bar, as in `ganlab eval` and `ganlab score`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ganlab.evaluation.evaluator import MetricRunner
from ganlab.plugin.registry import Registry
from ganlab.protocols import Metric
from ganlab.utils.errors import ComponentError, UserError
from ganlab.viz.progress import progress_bar


def run_metrics_with_progress(
    runner: MetricRunner, metrics: Iterable[tuple[str, str, Metric]], where: str
) -> list[dict[str, Any]]:
    """Runs all metrics with a progress bar on stderr and returns their records; `where` prefixes errors."""
    records = []
    with progress_bar() as progress_of:
        for name, suffix, metric in metrics:
            try:
                records += runner.score(metric, suffix, progress_of(name))
            except ComponentError as error:
                raise UserError(f"{where}: metric {name!r}: {error}") from None
    return records


def named_metrics(registry: Registry, metrics: Sequence[Metric]) -> list[tuple[str, str, Metric]]:
    suffixes = registry.suffixes("metric", metrics)
    return [
        (registry.component_of("metric", metric).name, suffix, metric)
        for metric, suffix in zip(metrics, suffixes, strict=True)
    ]
