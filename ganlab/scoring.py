"""Scores by command: of a saved checkpoint (`ganlab eval`), and of images that any tool made (`ganlab score`).

Decisions:
- Images are scored as they are. A reference of another size is refused rather than resized, because resizing is part of
  a score; what is to be done is said with `--set dataset.size=…`.
- Given images are scored all, unless `samples` says otherwise, and their records differ from a run's only in that it is
  not known whose weights made them. So `ganlab compare` puts them beside runs.
- Under torchrun the processes share the images out; the first writes.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from attrs import frozen
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from ganlab import ranks
from ganlab.build import pick_device
from ganlab.by_class import means, name_of, scorer_of
from ganlab.data import ImageDataset
from ganlab.determinism import deterministic
from ganlab.errors import ComponentError, UserError, did_you_mean, one_line
from ganlab.evaluation import Scorer, Scoring
from ganlab.files import places
from ganlab.options import component, components
from ganlab.plugins import load_plugins
from ganlab.protocols import Dataset, DatasetConfig, Metric, Places
from ganlab.registry import Registry
from ganlab.rng import check_truncation
from ganlab.runfolder import RunFolder
from ganlab.runs import Run, load_run
from ganlab.structure import Problems, Structurer
from ganlab.tables import override, parse_override
from ganlab.view import NARROW, PlainView, can_redraw

FOLDER = "image_folder"
"""The data set that reads a folder of images."""

DEFAULT = "fid"


# ---------------------------------------------------------------------------------------------------------------------
# A checkpoint again
# ---------------------------------------------------------------------------------------------------------------------


def rescore(
    path: Path,
    names: Sequence[str],
    step: int | None,
    overrides: Iterable[str],
    device: str,
    truncation: float | None = None,
    per_class: bool = False,
) -> list[dict[str, Any]]:
    """The records of the scores, which are also added to the run's metrics.jsonl with "eval": true.

    `truncation` is where the latents of what is scored are cut off. `per_class` scores each class by itself, and gives
    the means over classes.
    """
    check_truncation(truncation)
    run = load_run(path, step, device, overrides)
    metrics = _of_run(run, names)
    labels = [label for label, count in enumerate(run.conditions.counts) if count]
    if per_class and not labels:
        raise UserError(f"--per-class: the networks of this run know no classes: {path}")
    with (
        deterministic(run.experiment.train.deterministic),
        ranks.joined(pick_device(device)) as own_device,
        _only_writer(RunFolder(run.path, run.info)) as folder,
    ):
        scorer = Scorer(run.experiment.dataset, None, places(), own_device, run.experiment.floor)
        network = run.generator.to(own_device)
        whole = scorer.generator(network, run.weights, run.conditions, truncation)

        def of_class(label: int) -> Scoring:
            conditions = run.conditions.of_class(label)
            scoring = scorer_of(label, whole).generator(network, run.weights, conditions, truncation)
            return attrs.evolve(scoring, about={**scoring.about, "class": label})

        if per_class:
            records = _scored_by_class(of_class, labels, metrics, str(run.path))
        else:
            records = _scored(whole, metrics, str(run.path))
        records = [{"step": run.step, "eval": True, **record} for record in records]
        if ranks.rank() != 0:
            return []
        for record in records:
            folder.append("metrics.jsonl", record)
        return records


@contextmanager
def _only_writer(folder: RunFolder) -> Iterator[RunFolder]:
    if ranks.rank() != 0:
        yield folder
        return
    folder.lock()
    try:
        yield folder
    finally:
        folder.unlock()


def _of_run(run: Run, names: Sequence[str]) -> list[tuple[str, str, Metric]]:
    """Name, suffix and metric of the experiment's metrics, or of those named, with defaults where it has none."""
    own = _named(run.plugins.registry, run.experiment.metric)
    if not names:
        if not own:
            raise UserError(f"{run.path}: its experiment has no metric; name one with --metric")
        return own
    chosen: list[tuple[str, str, Metric]] = []
    for name in dict.fromkeys(names):
        mine = [entry for entry in own if entry[0] == name]
        try:
            chosen += mine or [(name, "", Structurer(run.plugins.registry).component("metric", name))]
        except Problems as error:
            raise UserError(*(f"--metric {name}: {problem.message}" for problem in error.problems)) from None
    return chosen


def _named(registry: Registry, metrics: Sequence[Metric]) -> list[tuple[str, str, Metric]]:
    suffixes = registry.suffixes("metric", metrics)
    return [
        (registry.component_of("metric", metric).name, suffix, metric)
        for metric, suffix in zip(metrics, suffixes, strict=True)
    ]


def _scored(scoring: Scoring, metrics: Iterable[tuple[str, str, Metric]], where: str) -> list[dict[str, Any]]:
    """The records of all metrics, with a bar on stderr while they are computed."""
    records = []
    with _shown() as progress_of:
        for name, suffix, metric in metrics:
            try:
                records += scoring.score(metric, suffix, progress_of(name))
            except ComponentError as error:
                raise UserError(f"{where}: metric {name!r}: {error}") from None
    return records


def _scored_by_class(
    of_class: Callable[[int], Scoring], labels: Sequence[int], metrics: Sequence[tuple[str, str, Metric]], where: str
) -> list[dict[str, Any]]:
    """The records of all metrics, each of every class and then of the mean; says on stderr which classes it refused."""
    found: list[dict[int, list[dict[str, Any]]]] = [{} for _ in metrics]
    refused: list[dict[int, str]] = [{} for _ in metrics]
    with _shown() as progress_of:
        for label in labels:
            scoring = of_class(label)  # of one class at a time, so that its images and features are not all kept
            for index, (name, suffix, metric) in enumerate(metrics):
                try:
                    records = scoring.score(metric, name_of(suffix, label), progress_of(name_of(name, label)))
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
    for line in lines if ranks.rank() == 0 else ():
        PlainView(Console(stderr=True)).line(line)
    return [
        record
        for by_label in found
        for record in [*(record for records in by_label.values() for record in records), *means(by_label)]
    ]


@contextmanager
def _shown() -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Gives what shows how far something of a name is: by a bar on stderr, or by lines where there is no terminal."""
    console = Console(stderr=True)
    plain = PlainView(console)
    speaks = ranks.rank() == 0
    drawn = can_redraw(console) and console.width >= NARROW
    with Progress(console=console, transient=True, disable=not (speaks and drawn)) as bar:
        task = bar.add_task("", total=None)

        def progress_of(name: str) -> Callable[[str, int, int], None]:
            def progress(what: str, done: int, total: int) -> None:
                bar.update(task, description=escape(f"{name}: {what}"), completed=done, total=total)
                if speaks and not drawn:
                    plain.progress(f"{name}: {what}", done, total)

            return progress

        yield progress_of


# ---------------------------------------------------------------------------------------------------------------------
# Images from anywhere
# ---------------------------------------------------------------------------------------------------------------------


@frozen
class Wanted:
    """What `ganlab score` was asked, as the tables of an experiment file."""

    dataset: DatasetConfig = component("dataset")
    metric: tuple[Metric, ...] = components("metric")


def score_images(
    images: Path,
    against: str,
    names: Sequence[str],
    features: str | None,
    overrides: Iterable[str],
    device: str,
    plugin_files: Sequence[Path] = (),
    floor: bool = True,
) -> list[dict[str, Any]]:
    """The records of the scores of a folder of images, or of an .npz file, against a data set or a folder.

    `overrides` are texts such as "dataset.size=64", "features.weights=FILE" and "metric.0.samples=5000". Raises
    UserError with a line for every problem.
    """
    files = [file.expanduser().resolve() for file in plugin_files]
    plugins = load_plugins(files)
    problems = [*plugins.problems, *(str(failure) for failure in plugins.failures if failure.origin.file in files)]
    if problems:
        raise UserError(*problems)
    registry = plugins.registry
    table: dict[str, Any] = {
        "dataset": _reference(against, registry),
        "metric": [{"name": name} for name in dict.fromkeys(names or [DEFAULT])],
    }
    if features is not None:
        table["features"] = {"name": features}
    for text in overrides:
        override(table, *parse_override(text))
    wanted = _wanted(table, registry)
    where = places()
    try:
        reference = wanted.dataset.build(where, "train")
    except ComponentError as error:
        raise UserError(*(f"--against {against}: {line}" for line in str(error).splitlines())) from None
    made = _given(images, reference, wanted.dataset, registry, where)
    metrics = []
    for index, (metric, entry) in enumerate(zip(wanted.metric, table["metric"], strict=True)):
        if hasattr(metric, "samples") and "samples" not in entry:
            metric = attrs.evolve(metric, samples=len(made.images))  # type: ignore[misc]  # noqa: PLW2901
        if getattr(metric, "samples", 0) > len(made.images):
            raise UserError(
                f"metric.{index}.samples: {entry['samples']:,}, but {images} has {len(made.images):,} images"
            )
        metrics.append(metric)
    with ranks.joined(pick_device(device)) as own_device:
        scorer = Scorer(wanted.dataset, reference, where, own_device, floor)
        records = _scored(scorer.given(made.images), _named(registry, metrics), str(images))
        if ranks.rank() != 0:
            return []
        source = {"source": str(images), "fingerprint": made.fingerprint, "count": len(made.images)}
        return [{"images": source, **record} for record in records]


def _reference(against: str, registry: Registry) -> dict[str, Any]:
    """The data set's table: one of that name, else a folder, whose images are taken as they are."""
    names = [known.name for known in registry.of_kind("dataset")]
    if against in names:
        return {"name": against}
    if Path(against).is_dir():
        return {"name": FOLDER, "path": str(Path(against).absolute()), "size": "original"}
    near = did_you_mean(against, names) or f"; the data sets are: {', '.join(names)}"
    raise UserError(f"--against {against}: neither a data set nor a folder{near}")


def _wanted(table: dict[str, Any], registry: Registry) -> Wanted:
    """The tables as components; the features are those of every metric that has any and does not name its own."""
    common = table.pop("features", None)
    classes = {known.name: known.cls for known in registry.of_kind("metric")}
    for entry in table["metric"] if isinstance(table["metric"], list) and common is not None else ():
        options: Any = attrs.fields_dict(classes[entry["name"]]) if entry.get("name") in classes else {}
        if "features" in options:
            own = {"name": options["features"].default, **common} if isinstance(common, dict) else common
            entry.setdefault("features", own)
    try:
        wanted: Wanted = Structurer(registry).read(table, Wanted)
    except Problems as error:
        raise UserError(*(f"score: {problem}" for problem in error.problems)) from None
    return wanted


def _given(path: Path, reference: Dataset, config: Any, registry: Registry, where: Places) -> ImageDataset:
    """The images to score; raises UserError where their shape is not the reference's."""
    _, channels, height, width = reference.images.shape
    known = attrs.fields_dict(type(config))
    if path.is_dir():
        table = {"name": FOLDER, "path": str(path.absolute()), "size": "original", "channels": channels}
        try:
            images = Structurer(registry).component("dataset", table).build(where, "train").images
        except ComponentError as error:
            raise UserError(*str(error).splitlines()) from None
        except Problems as error:
            raise UserError(*(f"{path}: {problem}" for problem in error.problems)) from None
    elif path.suffix == ".npz":
        images = read_npz(path)
    else:
        raise UserError(f"{path}: expected a folder of images or an .npz file")
    if len(images) < 2:
        raise UserError(f"{path}: {len(images)} images; a score needs at least 2")
    if tuple(images.shape[1:]) != (channels, height, width):
        own = "x".join(map(str, images.shape[1:]))
        its = "x".join(map(str, (channels, height, width)))
        size = f"; --set dataset.size={images.shape[2]} resizes the reference"
        if images.shape[1] != channels:
            size = f"; --set dataset.channels={images.shape[1]}" if "channels" in known else ""
        raise UserError(f"{path}: images of {own} do not compare with those of {its} in {reference.name}{size}")
    return ImageDataset(images, path.name)


# What numpy, and Python's own parsers under it, raise on a file that is damaged, encrypted or of another kind.
_NO_ARRAYS = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_npz(path: Path) -> Tensor:
    """The images of an .npz file as uint8 (N, C, H, W): its array `images`, or its first, uint8 (N, H, W, C)."""
    try:
        if not zipfile.is_zipfile(path) and path.is_file():
            raise UserError(f"{path}: is no whole .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if not names:
                raise UserError(f"{path}: holds no array")
            name = "images" if "images" in names else names[0]
            array = arrays[name]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _NO_ARRAYS as error:
        raise UserError(f"{path}: cannot be read as an .npz file ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):  # what lies in the archive is no .npy file
        raise UserError(f"{path}: {one_line(name, 60)} is no array; write the file with numpy.savez")
    if array.dtype != np.uint8 or array.ndim != 4:
        raise UserError(f"{path}: {name} is {array.dtype} {array.shape}; wanted uint8 (N, height, width, channels)")
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
