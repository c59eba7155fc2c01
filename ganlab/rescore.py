"""`ganlab eval`: a saved checkpoint scored again, by the experiment's metrics or others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from ganlab.build import pick_device, places
from ganlab.errors import ComponentError, UserError
from ganlab.evaluation import Scorer
from ganlab.protocols import Metric
from ganlab.runfolder import RunFolder
from ganlab.runs import Run, load_run
from ganlab.structure import Problems, Structurer


def rescore(
    path: Path, names: Iterable[str], step: int | None, overrides: Iterable[str], device: str
) -> list[dict[str, Any]]:
    """The records of the scores, which are also added to the run's metrics.jsonl with "eval": true."""
    run = load_run(path, step, device, overrides)
    metrics = _chosen(run, list(names))
    folder = RunFolder(run.path, run.info)
    folder.lock()
    try:
        scorer = Scorer(run.experiment.dataset, None, places(), pick_device(device))
        records = []
        with Progress(console=Console(stderr=True), transient=True) as bar:
            for name, suffix, metric in metrics:
                task = bar.add_task(name, total=None)

                def progress(what: str, done: int, total: int, task: TaskID = task, name: str = name) -> None:
                    bar.update(task, description=f"{name}: {what}", completed=done, total=total)

                try:
                    scored = scorer.score(metric, run.generator, run.weights, suffix, progress)
                except ComponentError as error:
                    raise UserError(f"{run.path}: metric {name!r}: {error}") from None
                records += [{"step": run.step, "eval": True, **record} for record in scored]
        for record in records:
            folder.append("metrics.jsonl", record)
        return records
    finally:
        folder.unlock()


def _chosen(run: Run, names: list[str]) -> list[tuple[str, str, Metric]]:
    """Name, suffix and metric of the experiment's metrics, or of those named, with defaults where it has none."""
    registry = run.plugins.registry
    suffixes = registry.suffixes("metric", run.experiment.metric)
    own = [
        (registry.component_of("metric", metric).name, suffix, metric)
        for metric, suffix in zip(run.experiment.metric, suffixes, strict=True)
    ]
    if not names:
        if not own:
            raise UserError(f"{run.path}: its experiment has no metric; name one with --metric")
        return own
    chosen: list[tuple[str, str, Metric]] = []
    for name in dict.fromkeys(names):
        mine = [entry for entry in own if entry[0] == name]
        try:
            chosen += mine or [(name, "", Structurer(registry).component("metric", name))]
        except Problems as error:
            raise UserError(*(f"--metric {name}: {problem.message}" for problem in error.problems)) from None
    return chosen
