"""`ganlab score`: scores images that any tool generated, from a folder or an .npz file, against a data set.

Decisions:
- Images are scored as they are. A reference of another size is an error and is not resized, because resizing is part of
  a score; the user chooses it with `--set dataset.size=…`.
- All images are scored unless `samples` is set. The records have the form of a run's, with unknown weights, so that
  `ganlab compare` can compare them with runs.
- Under torchrun the ranks split the images; rank 0 writes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.overrides import apply_override, parse_override
from ganlab.data.dataset import ImageDataset, image_spec
from ganlab.data.load_dataset import load_dataset
from ganlab.data.npz import CHANNELS, check_no_single_array, read_npz
from ganlab.data.pixels import type_name
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.run_metrics import named_metrics, run_metrics_with_progress
from ganlab.evaluation.taken_data import check_taken
from ganlab.plugin.fields import component, components
from ganlab.plugin.loader import load_plugins
from ganlab.plugin.registry import Registry
from ganlab.protocols import Dataset, DatasetConfig, Metric, Places
from ganlab.utils import distributed
from ganlab.utils.device import pick_device
from ganlab.utils.errors import ComponentError, UserError, did_you_mean
from ganlab.utils.paths import expand_home, places
from ganlab.utils.progress import Progress
from ganlab.viz.progress import progress_bar

IMAGE_FOLDER = "image_folder"
"""The name of the data set component that reads a folder of images."""


@frozen
class ScoreConfig:
    """What `ganlab score` scores images with: the reference data set and the metrics."""

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
    """Scores images of a folder or an .npz file against a data set or a folder (`ganlab score`); returns the records.

    `overrides` are texts such as "dataset.size=64", "features.weights=FILE" and "metric.0.samples=5000". Raises
    UserError with a line for every problem.
    """
    registry = registry_with(plugin_files)
    table: dict[str, Any] = {
        "dataset": reference_table(against, registry),
        "metric": [{"name": name} for name in dict.fromkeys(names or [DEFAULT_METRIC])],
    }
    if features is not None:
        table["features"] = {"name": features}
    for text in overrides:
        apply_override(table, *parse_override(text))
    chosen = copy.deepcopy(table["dataset"])
    wanted = _build_components(table, registry)
    if not wanted.metric:
        raise UserError("score: metric: is empty; name one with --metric")
    where = places()
    with progress_bar() as progress_of:
        try:
            reference = load_dataset(wanted.dataset, where, "train", progress_of(against))
        except ComponentError as error:
            raise UserError(*(f"--against {against}: {line}" for line in str(error).splitlines())) from None
        made = _load_images(images, reference, chosen, registry, where, progress_of(str(images)))
    check_taken(registry, wanted.metric, reference, image_spec(reference))
    metrics = []
    for index, (metric, entry) in enumerate(zip(wanted.metric, table["metric"], strict=True)):
        if hasattr(metric, "samples") and "samples" not in entry:
            metric = attrs.evolve(metric, samples=len(made.images))  # type: ignore[misc]  # noqa: PLW2901
        if getattr(metric, "samples", 0) > len(made.images):
            raise UserError(
                f"metric.{index}.samples: {entry['samples']:,}, but {images} has {len(made.images):,} images"
            )
        metrics.append(metric)
    with distributed.process_group(pick_device(device)) as own_device:
        evaluator = Evaluator(wanted.dataset, reference, where, own_device, floor)
        records = run_metrics_with_progress(
            evaluator.for_images(made.images, made.condition), named_metrics(registry, metrics), str(images)
        )
        if distributed.rank() != 0:
            return []
        source = {"source": str(images), "fingerprint": made.fingerprint, "count": len(made.images)}
        return [{"images": source, **record} for record in records]


def registry_with(plugin_files: Sequence[Path]) -> Registry:
    """To score images: the components that there are with these plugin files. Raises UserError where one fails."""
    files = [expand_home(file).resolve() for file in plugin_files]
    plugins = load_plugins(files)
    problems = [*plugins.problems, *(str(failure) for failure in plugins.failures if failure.origin.file in files)]
    if problems:
        raise UserError(*problems)
    return plugins.registry


def reference_table(against: str, registry: Registry, option: str = "--against ") -> dict[str, Any]:
    """To score images: the TOML table of the reference, a data set's name or a folder at original size.

    `option` is what errors begin with.
    """
    names = [known.name for known in registry.of_kind("dataset")]
    if against in names:
        return {"name": against}
    if Path(against).is_dir():
        return {"name": IMAGE_FOLDER, "path": str(Path(against).absolute()), "size": "original"}
    near = did_you_mean(against, names) or f"; the data sets are: {', '.join(names)}"
    raise UserError(f"{option}{against}: neither a data set nor a folder{near}")


def _build_components(table: dict[str, Any], registry: Registry) -> ScoreConfig:
    """To score images: builds the components; `--features` applies to every metric that does not name its own."""
    common = table.pop("features", None)
    classes = {known.name: known.cls for known in registry.of_kind("metric")}
    if isinstance(table["metric"], list):
        table["metric"] = [{"name": entry} if isinstance(entry, str) else entry for entry in table["metric"]]
    tables = [entry for entry in table["metric"] if isinstance(entry, dict)] if common is not None else []
    for entry in tables:
        name = entry.get("name")
        options: Any = attrs.fields_dict(classes[name]) if isinstance(name, str) and name in classes else {}
        if "features" in options:
            own = {"name": options["features"].default, **common} if isinstance(common, dict) else common
            given = entry.setdefault("features", own)
            if isinstance(given, dict) and "name" not in given and isinstance(own, dict):
                entry["features"] = {**own, **given}  # as of metric.0.features.resize=clean-fid
    try:
        wanted: ScoreConfig = TableConverter(registry).read(table, ScoreConfig)
    except InvalidTable as error:
        raise UserError(*(f"score: {problem}" for problem in error.problems)) from None
    return wanted


def _load_images(
    path: Path, reference: Dataset, chosen: Any, registry: Registry, where: Places, progress: Progress
) -> ImageDataset:
    """Loads the images to score; raises UserError if their shape is not the reference's.

    `chosen` is the reference's TOML table.
    """
    shape, dtype = tuple(reference.images.shape[1:]), reference.images.dtype
    if path.is_dir():
        if dtype != torch.uint8 or len(shape) != 3:
            raise UserError(
                f"{path}: a folder of images is uint8, and {reference.name} has {image_spec(reference).in_words}"
            )
        table = {"name": IMAGE_FOLDER, "path": str(path.absolute()), "size": "original", "channels": shape[0]}
        try:
            config: DatasetConfig = TableConverter(registry).component("dataset", table)
            # Subfolders are no conditions: they are numbered by their names, and the reference's classes may not be.
            images, condition = load_dataset(config, where, "train", progress).images, None
        except ComponentError as error:
            raise UserError(*str(error).splitlines()) from None
        except InvalidTable as error:
            raise UserError(*(f"{path}: {problem}" for problem in error.problems)) from None
    elif path.suffix == ".npz":
        images, condition = read_npz(path, shape, type_name(dtype))
    else:
        check_no_single_array(path)
        raise UserError(f"{path}: expected a folder of images or an .npz file")
    if len(images) < 2:
        raise UserError(f"{path}: a score needs at least 2 images, and this has {len(images)}")
    if tuple(images.shape[1:]) != shape:
        own, its = ("x".join(map(str, shape[1:])) for shape in (images.shape, reference.images.shape))
        advice = _advice(images.shape, reference, chosen, registry)
        raise UserError(f"{path}: images of {own} do not compare with those of {its} in {reference.name}{advice}")
    return ImageDataset(images, path.name, condition=condition)


def _advice(shape: Sequence[int], reference: Dataset, chosen: Mapping[str, Any], registry: Registry) -> str:
    """What would give the reference the shape (N, C, H, W) of the images to score, if its data set has such options."""
    if len(shape) != 4 or reference.images.ndim != 4:
        return ""
    _, channels, height, width = shape
    wanted: dict[str, Any] = {}
    if channels != reference.images.shape[1]:
        if channels not in CHANNELS:  # of a picture, others cannot be made
            return ""
        wanted["channels"] = channels
    if (height, width) != tuple(reference.images.shape[2:]):
        wanted["size"] = height if height == width else [height, width]
    try:
        TableConverter(registry).component("dataset", copy.deepcopy({**chosen, **wanted}))
    except InvalidTable:
        return ""
    options = " ".join(f"--set dataset.{name}={value}".replace(", ", ",") for name, value in wanted.items())
    return f"; {options} {'resizes the reference' if list(wanted) == ['size'] else 'gives the reference this shape'}"


DEFAULT_METRIC = "fid"
