"""`ganlab moments`: writes the moments of a data set's features as others publish them, an .npz of `mu` and `sigma`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.overrides import apply_override, parse_override
from ganlab.data.load_dataset import load_dataset
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.features import built_features, features_of, reference_rows, spatial_of
from ganlab.evaluation.moments import moments_of
from ganlab.evaluation.score_images import reference_table, registry_with
from ganlab.plugin.fields import component
from ganlab.protocols import DatasetConfig, FeaturesConfig, taken_by
from ganlab.utils.device import pick_device
from ganlab.utils.errors import ComponentError, UserError
from ganlab.utils.files import check_file, write_whole
from ganlab.utils.paths import places
from ganlab.viz.progress import progress_bar


@frozen
class MomentsConfig:
    """What `ganlab moments` computes moments of: a data set and features."""

    dataset: DatasetConfig = component("dataset")
    features: FeaturesConfig = component("features", default="inception")


def write_moments(
    of: str,
    out: Path,
    features: str | None,
    split: str,
    overrides: Iterable[str],
    device: str,
    plugin_files: Sequence[Path] = (),
    spatial: bool = False,
) -> tuple[int, int]:
    """Writes the moments of a split of a data set, or of a folder, to an .npz file; returns how many images, features.

    With `spatial` the file also has those of the spatial features, `mu_s` and `sigma_s`. Raises UserError with a line
    for every problem; then nothing is written.
    """
    check_file("--out", out, ".npz")
    registry = registry_with(plugin_files)
    table: dict[str, Any] = {"dataset": reference_table(of, registry, option="")}
    if features is not None:
        table["features"] = {"name": features}
    for text in overrides:
        apply_override(table, *parse_override(text))
    try:
        config: MomentsConfig = TableConverter(registry).read(table, MomentsConfig)
    except InvalidTable as error:
        raise UserError(*(f"moments: {problem}" for problem in error.problems)) from None
    where, own_device = places(), pick_device(device)
    with progress_bar() as progress_of:
        progress = progress_of(of)
        try:
            dataset = load_dataset(config.dataset, where, split, progress)
            if taken_by(config.features) != "any" and (dataset.images.dtype != torch.uint8 or dataset.images.ndim != 4):
                what = f"{dataset.images.dtype} of shape {tuple(dataset.images.shape)}"
                raise ComponentError(f"the features are of uint8 images (N, C, H, W), and {dataset.name} is {what}")
            if len(dataset.images) < 2:
                raise ComponentError(f"moments need at least 2 images, and {dataset.name} has {len(dataset.images)}")
            evaluation = Evaluator(config.dataset, None, where, own_device, floors=False).evaluation(
                lambda count, seed: iter(()), progress
            )
            built = built_features(config.features, evaluation)
            measures: dict[str, Callable[[Tensor], Tensor]] = {"": partial(features_of, built)}
            if spatial:
                measures["_s"], _ = spatial_of(built, "--spatial")
            arrays: dict[str, np.ndarray[Any, Any]] = {}
            for ending, measure in measures.items():
                mean, cov = moments_of(reference_rows(evaluation, dataset.images, measure))
                arrays |= {f"mu{ending}": mean.cpu().numpy(), f"sigma{ending}": cov.cpu().numpy()}
        except ComponentError as error:
            raise UserError(*(f"{of}: {line}" for line in str(error).splitlines())) from None
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"{of}: the features of {dataset.name} are not finite")
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_whole(out, stream.getvalue())
    return len(dataset.images), len(arrays["mu"])
