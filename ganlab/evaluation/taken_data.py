"""Whether metrics and augmentations take the data of an experiment; what they do not take is refused beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from ganlab.plugin.registry import Registry
from ganlab.protocols import Augmentation, Dataset, ImageSpec, Metric, taken_by
from ganlab.utils.errors import ComponentError, UserError, one_line


def refused_data(registry: Registry, metrics: Sequence[Metric], name: str, data: ImageSpec) -> list[str]:
    """A line for each metric that does not take data of this type and shape, of the data set of this name."""
    if data.is_image and data.dtype == "uint8":
        return []
    lines = []
    for index, metric in enumerate(metrics):
        where = f"metric[{index}]: {registry.component_of('metric', metric).name}"
        try:
            takes = taken_by(metric)
        except ComponentError as error:
            lines.append(f"{where}: {error}")
            continue
        if takes != "any":
            own = type(getattr(metric, "features", None))
            of = "".join(
                f" with the features {part.name!r}" for part in registry.of_kind("features") if part.cls is own
            )
            lines.append(
                f"{where}{of} takes uint8 images (N, C, H, W); the data set {one_line(name, 60)!r} has {data.in_words}"
            )
    return lines


def check_taken(
    registry: Registry,
    metrics: Sequence[Metric],
    dataset: Dataset,
    data: ImageSpec,
    augmentations: Sequence[Augmentation] = (),
) -> None:
    """Raises UserError with a line for each metric or augmentation that does not take the data of a data set."""
    lines = []
    low, high = data.range or (-1.0, 1.0)
    for index, part in enumerate(augmentations):
        if getattr(part, "of_pixels", False) and not -1 <= low <= high <= 1:
            name = registry.component_of("augmentation", part).name
            lines.append(
                f"augmentation[{index}]: {name} is of pixels in [-1, 1]; the data set {one_line(dataset.name, 60)!r} "
                f"has values from {low:.4g} to {high:.4g}"
            )
    if lines := [*lines, *refused_data(registry, metrics, dataset.name, data)]:
        raise UserError(*lines)
