"""The commands on data: `ganlab data` says what is in a folder of images, `ganlab moments` writes moments for FID."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab.cli.arguments import DatasetName, Device, FeaturesName, Set
from ganlab.utils.errors import UserError, one_line

if TYPE_CHECKING:
    from ganlab.data.inspect_images import Inspection

SHOWN = 8
"""How many sizes, classes, duplicates or unreadable files are named."""

GRID = 64
"""How many images `--grid` shows at most."""


def data(path: Path, /, *, grid: Path | None = None, json: bool = False) -> int:
    """Say what is in a folder or zip file of images: sizes, ranges, duplicates, classes, and a run's [dataset] table.

    Parameters
    ----------
    path
        The folder, or the zip file.
    grid
        Also write a PNG of some images, as a run would see them.
    json
        Print JSON instead of text.
    """
    import json as json_

    from ganlab.data.image_archive import open_images
    from ganlab.data.inspect_images import inspect_images
    from ganlab.utils.errors import ComponentError, Interrupted
    from ganlab.utils.files import check_file
    from ganlab.utils.signals import signals_as_keyboard_interrupt
    from ganlab.viz.progress import progress_bar

    if not path.exists():
        raise UserError(f"{path}: no such folder or zip file")
    if grid is not None:
        check_file("--grid", grid, ".png")
    try:
        with signals_as_keyboard_interrupt(), progress_bar() as progress_of:
            progress = progress_of(str(path))
            found = inspect_images(open_images(path, progress), progress)
    except KeyboardInterrupt:
        raise Interrupted(f"{path}: interrupted; nothing is written") from None
    except ComponentError as error:
        raise UserError(*str(error).splitlines()) from None
    if grid is not None:
        _write_grid(found, grid)
    if json:
        print(json_.dumps(found.as_json(), indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0


def moments(
    dataset: DatasetName,
    /,
    *,
    out: Path,
    features: FeaturesName = None,
    split: str = "train",
    set_: Set = None,
    device: Device = "auto",
    plugin: list[Path] | None = None,
    spatial: bool = False,
) -> int:
    """Write the moments of a data set's features, as others publish them for FID: `mu` and `sigma` in an .npz file.

    Parameters
    ----------
    dataset
        A data set of `ganlab plugins dataset`, or a folder of images.
    out
        The file to write.
    features
        The network whose features they are of. Default: inception.
    split
        Which images: train or test.
    set_
        KEY=VALUE: features.weights=FILE, dataset.size=64; can be repeated.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    spatial
        Also write those of spatial features, for sfid: `mu_s` and `sigma_s`.
    """
    from ganlab.evaluation.write_moments import write_moments

    images, size = write_moments(dataset, out, features, split, set_ or [], device, plugin or [], spatial)
    print(f"moments of {size:,} features of {images:,} images: {out}")
    return 0


def _write_grid(found: Inspection, file: Path) -> None:
    """Writes the grid of images of `ganlab data`."""
    import numpy as np
    import torch

    from ganlab.viz.data_picture import save_picture

    examples = found.examples(GRID)
    if not examples:
        raise UserError(f"--grid {file}: there is no image to show")
    save_picture(torch.from_numpy(np.stack(examples)), file, limits=(-1.0, 1.0))


def _lines(found: Inspection) -> list[str]:
    """The lines that `ganlab data` prints."""
    images, count = found.images, len(found.source.names)
    lines = [f"{count:,} image files in {found.source.path}"]
    if images:
        lines.append(f"formats     {_counts(Counter(image.format for image in images))}")
        ranges = found.ranges
        modes = Counter(f"{image.mode} ({_limits(ranges[image.mode])})" for image in images)
        lines.append(f"values      {_counts(modes)}")
        lines.append(f"sizes       {_counts(Counter(f'{image.size[0]}x{image.size[1]}' for image in images))}")
    if classes := found.classes:
        named = [f"{one_line(name, 40)} {number:,}" for name, number in classes.items()]
        lines.append(f"classes     {len(classes):,}: {_some(named)}")
    if twice := found.duplicates:
        groups = [" = ".join(names[:3]) + (" = …" if len(names) > 3 else "") for names in twice]
        lines.append(f"duplicates  {sum(map(len, twice)) - len(twice):,} too many: {_some(groups)}")
    for what, reasons in (("unreadable", found.unreadable), ("refused", found.refused)):
        lines += [f"{what:11} {name}: {reason}" for name, reason in list(reasons.items())[:SHOWN]]
        if len(reasons) > SHOWN:
            lines.append(f"{what:11} and {len(reasons) - SHOWN:,} more")
    if found.source.left_out:
        lines.append(f"left out    {_counts(Counter(found.source.left_out))}")
    lines += [f"note        {note}" for note in found.notes]
    return [*lines, "", *(_table(found.table) if images else ["there is no image to train on"])]


def _counts(counter: Mapping[str, int]) -> str:
    """Counts in words, the most frequent first."""
    return _some([f"{number:,} {name}" for name, number in Counter(counter).most_common()])


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - SHOWN:,} more" if len(parts) > SHOWN else ""
    return ", ".join(parts[:SHOWN]) + more


def _limits(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.6g} to {limits[1]:.6g}"


def _table(table: Mapping[str, Any]) -> list[str]:
    """The lines of the `[dataset]` table that `ganlab data` proposes."""
    import tomli_w

    return tomli_w.dumps({"dataset": dict(table)}, multiline_strings=False).splitlines()
