"""`ganlab eval`: evaluates metrics of a finished run again, for one checkpoint, and adds the scores to its records."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from rich.console import Console

from ganlab.config.differing_options import compared_options_sha256
from ganlab.config.toml import read_toml
from ganlab.evaluation.evaluator import Evaluator, MetricRunner
from ganlab.evaluation.game_outputs import game_outputs
from ganlab.evaluation.latents import check_truncation
from ganlab.evaluation.per_class import class_evaluator, mean_over_classes, per_class_name
from ganlab.evaluation.run_metrics import named_metrics, run_metrics_with_progress
from ganlab.evaluation.taken_data import refused_data
from ganlab.plugin.component import MissingComponent
from ganlab.protocols import ImageSpec, Metric
from ganlab.run.load_run import Run, load_run_for
from ganlab.run.missing_components import missing_components
from ganlab.run.records import to_json
from ganlab.run.run_folder import RunFolder, variant_of
from ganlab.run.sampling_changes import sampling_changes
from ganlab.utils import distributed
from ganlab.utils.determinism import deterministic
from ganlab.utils.device import pick_device
from ganlab.utils.errors import ComponentError, UserError
from ganlab.utils.files import check_no_folder, write_whole
from ganlab.utils.paths import places
from ganlab.viz.progress import PlainView, progress_bar

NEEDED_TO_SCORE = ("game", "dataset", "features")
"""The kinds of components that every score of a run depends on, when it is rescored; the metrics are looked up then."""


def rescore(
    path: Path,
    names: Collection[str],
    step: int | None,
    overrides: Iterable[str],
    device: str,
    truncation: float | None = None,
    per_class: bool = False,
    out: Path | None = None,
    plugin_files: Iterable[Path] = (),
    options: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Rescores a run's checkpoint (`ganlab eval`); the records are also added to its metrics.jsonl with "eval": true.

    With `out` they are written to that file instead, as JSON with the run's name, and the run folder is only read.
    `truncation` is the distance from 0 at which latents are cut off. `per_class` scores each class by itself, and adds
    the means over classes. `plugin_files` are loaded besides those that the run names. `options` are those of the
    sampler. They, and what `overrides` and `plugin_files` change of what is sampled, are in the protocol of each score.
    """
    check_truncation(truncation)
    if out is not None:
        check_no_folder("--out", out)
    with distributed.process_group(pick_device(device)) as own_device:
        # Of many processes each has its own device, and the networks are loaded onto that.
        run = load_run_for(NEEDED_TO_SCORE, path, step, str(own_device), overrides, plugin_files, names)
        if options:
            run = run.with_sampler(options=options)
        if truncation is not None:
            run.check_samples(truncation)
        return _rescore(run, _chosen_metrics(run, names), own_device, truncation, per_class, out)


def _rescore(
    run: Run,
    metrics: list[tuple[str, str, Metric]],
    device: torch.device,
    truncation: float | None,
    per_class: bool,
    out: Path | None,
) -> list[dict[str, Any]]:
    """Rescores a run that is loaded onto this process's device."""
    data = ImageSpec.recorded(run.info["images"])
    scored = str(run.info.get("dataset", {}).get("name", ""))
    if lines := refused_data(run.plugins.registry, [metric for _, _, metric in metrics], scored, data):
        raise UserError(*(f"{run.path}: {line}" for line in lines))
    labels = [label for label, count in enumerate(run.conditions.counts) if count]
    if per_class and not labels:
        raise UserError(f"--per-class: the networks of this run know no classes: {run.path}")
    with (
        deterministic(run.experiment.train.deterministic),
        _locked_by_writer(RunFolder(run.path, run.info, writes=out is None and distributed.rank() == 0)) as folder,
    ):
        evaluator = Evaluator(run.experiment.dataset, None, places(), device, run.experiment.floor)
        network = run.sampler
        about = sampling_changes(run)
        outputs = game_outputs(
            run.plugins.registry,
            run.experiment.game,
            run.rules,
            data,
            run.networks,
            truncation,
            sampling_changes(run, of_all_networks=True),
            run.sampler.options,
        )
        whole = evaluator.for_network(network, run.weights, run.conditions, truncation, about, outputs)

        def of_class(label: int) -> MetricRunner:
            conditions = run.conditions.of_class(label)
            scoring = class_evaluator(label, whole).for_network(
                network, run.weights, conditions, truncation, about, outputs
            )
            names = run.conditions.names
            named = {"class_name": names[label]} if names else {}
            return attrs.evolve(scoring, about={**scoring.about, "class": label, **named})

        if per_class:
            records = _score_each_class(of_class, labels, metrics, str(run.path))
        else:
            records = run_metrics_with_progress(whole, metrics, str(run.path))
        if distributed.rank() != 0:
            return []
        _say_if_images_differ(run, evaluator)
        records = [{"step": run.step, **record} for record in records]
        folder.append("metrics.jsonl", *({"eval": True, **record} for record in records))
        if out is not None:
            write_whole(out, json.dumps(to_json([{"run": _scored_run(run), **r} for r in records]), indent=2) + "\n")
        return records


def _scored_run(run: Run) -> dict[str, Any]:
    """What a file of `ganlab eval --out` says of the run and the checkpoint that were rescored."""
    return {
        "name": run.info["name"],
        "variant": variant_of(run.path, run.info),
        "seed": run.info["seed"],
        "step": run.step,
        "experiment_sha256": compared_options_sha256(read_toml(run.path / "experiment.toml")),
    }


@contextmanager
def _locked_by_writer(folder: RunFolder) -> Iterator[RunFolder]:
    """While a run is rescored, locks its folder in the process that writes."""
    try:
        folder.lock()
    except (UserError, OSError) as error:
        reason = (
            str(error) if isinstance(error, UserError) else f"{folder.path}: cannot be written to: {error.strerror}"
        )
        raise UserError(f"{reason}; with --out FILE the scores are written there and the run is only read") from None
    try:
        yield folder
    finally:
        folder.unlock()


def _say_if_images_differ(run: Run, evaluator: Evaluator) -> None:
    """Says that a run was rescored against other images than those that it was trained on."""
    before = run.info.get("dataset")
    had = before if isinstance(before, dict) else {}
    now = evaluator.loaded("train")
    if now is not None and had.get("fingerprint") not in (None, now.fingerprint):
        PlainView(Console(stderr=True)).line(
            f"{run.path}: the images are not those that it was trained on: {had.get('name')} with {had.get('count')} "
            f"images then, {now.name} with {len(now.images)} now"
        )


def _chosen_metrics(run: Run, names: Collection[str]) -> list[tuple[str, str, Metric]]:
    """The metrics to rescore with, each with name and suffix: those of the experiment, which --metric has reduced."""
    metrics, registry = run.experiment.metric, run.plugins.registry
    if not metrics:
        raise UserError(f"{run.path}: its experiment has no metric; name one with --metric")
    for index, metric in enumerate(metrics):
        if isinstance(metric, MissingComponent):
            where = f"--metric {metric.name}" if metric.name in names else f"{run.path}: metric[{index}]"
            try:
                registry.find("metric", metric.name)
            except UserError as error:
                lines = (f"{where}: {line}" for line in error.problems)
                raise UserError(*lines, *missing_components(run.info, {"metric"})) from None
    return named_metrics(registry, metrics)


def _score_each_class(
    of_class: Callable[[int], MetricRunner],
    labels: Sequence[int],
    metrics: Sequence[tuple[str, str, Metric]],
    where: str,
) -> list[dict[str, Any]]:
    """Rescores class by class (`--per-class`): records of each metric per class and mean; says what is left out."""
    found: list[dict[int, list[dict[str, Any]]]] = [{} for _ in metrics]
    refused: list[dict[int, str]] = [{} for _ in metrics]
    with progress_bar() as progress_of:
        for label in labels:
            scoring = of_class(label)  # of one class at a time, so that its images and features are not all kept
            for index, (name, suffix, metric) in enumerate(metrics):
                try:
                    records = scoring.score(
                        metric, per_class_name(suffix, label), progress_of(per_class_name(name, label))
                    )
                except ComponentError as error:
                    refused[index][label] = str(error)
                else:
                    found[index][label] = records
    lines = []
    for (name, _, _), reasons in zip(metrics, refused, strict=True):
        if len(reasons) == len(labels):  # most likely for one reason
            lines.append(f"{where}: metric {name!r}: no class can be scored; class {labels[0]}: {reasons[labels[0]]}")
        else:
            lines += [f"{where}: metric {name!r}, class {label}: {reason}" for label, reason in reasons.items()]
    if not any(found):
        raise UserError(*lines)
    for (name, _, _), by_label in zip(metrics, found, strict=True):
        if len(by_label) == 1:
            lines.append(f"{where}: metric {name!r}: no mean over classes, since only class {min(by_label)} is scored")
        elif 0 < len(by_label) < len(labels):
            lines.append(f"{where}: metric {name!r}: the mean is over {len(by_label)} of {len(labels)} classes")
    for line in lines if distributed.rank() == 0 else ():
        PlainView(Console(stderr=True)).line(line)
    return [
        record
        for by_label in found
        for record in [*(record for records in by_label.values() for record in records), *mean_over_classes(by_label)]
    ]
