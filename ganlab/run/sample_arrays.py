"""Sample files of `ganlab sample` that hold all samples: arrays in an .npz file, or the rows of a table as .csv.

Decisions:
- Memory does not depend on the number of samples: they are generated and written batch by batch.
- What samples were made for is in the file too, in the types of the data set, so that it can be trained on.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganlab.protocols import named_conditions
from ganlab.protocols.condition import Condition
from ganlab.run.sample_files import Generate, Inputs, Progress, as_array, refuse_without_room
from ganlab.utils.errors import UserError
from ganlab.utils.files import whole_file

Stored = Callable[[Condition], Condition]
"""Converts conditions, as networks are given them, to the types of the data set."""


def write_npz(
    path: Path,
    count: int,
    inputs: Inputs,
    generate: Generate,
    stored: Stored,
    classes: Sequence[str],
    progress: Progress,
) -> None:
    """Writes samples as an .npz file: `images` uint8 (count, H, W, C), and their conditions where there are any.

    Other data are in `images` too, in their own type and shape. Conditions are `labels` int64 (count,) where they are
    class labels, else `condition`: images (count, H, W, C), or attributes as they are; of several each is
    `condition.NAME`. `classes`, if there are names, are the names of the classes by label. Raises UserError where the
    file will not fit on its disk, and CannotWrite where it does not; then nothing is written.
    """
    first, given = next(batches := _batches(inputs, generate, stored))
    forms = {name: (array.dtype, array.shape[1:]) for name, array in given.items()}
    size = sum(len(zlib.compress(array.data)) * count // len(first) for array in (first, *given.values()))
    refuse_without_room(path, size, count)
    with (
        whole_file(path, size) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        ExitStack() as opened,
    ):
        kept = {name: opened.enter_context(tempfile.TemporaryFile()) for name in given}
        done = 0
        with archive.open("images.npy", "w", force_zip64=True) as member:
            _write_header(member, first.dtype, (count, *first.shape[1:]))
            while True:
                member.write(first.data)
                for name, array in given.items():
                    kept[name].write(array.data)
                done += len(first)
                if done == count:
                    break
                progress("images", done, count)
                first, given = next(batches)
        for name, (kind, shape) in forms.items():
            kept[name].seek(0)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_header(member, kind, (count, *shape))
                shutil.copyfileobj(kept[name], member)
        if classes and any(not shape for _, shape in forms.values()):
            with archive.open("classes.npy", "w") as member:
                np.lib.format.write_array(member, np.array(classes), allow_pickle=False)


def write_csv(path: Path, count: int, inputs: Inputs, generate: Generate, stored: Stored, progress: Progress) -> None:
    """Writes samples that are rows of a table as a .csv file: columns `x1`, `x2`, …, then those of their conditions.

    Labels are a column `label`, attributes columns `condition1`, …; of several, `NAME` and `NAME1`, …. Numbers are
    written with as many digits as it takes to read the same ones. Raises UserError for conditions that are images, and
    as `write_npz` does.
    """
    first, given = next(batches := _batches(inputs, generate, stored))
    if images := [name for name, array in given.items() if array.ndim > 2]:
        raise UserError(
            f"--out {path}: a .csv file cannot hold {images[0]!r} {given[images[0]].shape[1:]}; use FILE.npz"
        )
    names = [f"x{column + 1}" for column in range(first.shape[1])]
    for name, array in given.items():
        own = "label" if name == "labels" else name.removeprefix("condition.")
        names += [own] if array.ndim == 1 else [f"{own}{column + 1}" for column in range(array.shape[1])]
    size = len(_csv_rows(first, given)) * count // len(first)
    refuse_without_room(path, size, count)
    with whole_file(path, size) as stream:
        stream.write((",".join(names) + "\n").encode())
        done = 0
        while True:
            stream.write(_csv_rows(first, given))
            done += len(first)
            if done == count:
                break
            progress("rows", done, count)
            first, given = next(batches)


def _csv_rows(rows: NDArray[Any], given: Mapping[str, NDArray[Any]]) -> bytes:
    """The lines of a .csv file for samples (n, D) and their conditions (n,) or (n, K)."""
    parts = [rows, *(array[:, None] if array.ndim == 1 else array for array in given.values())]
    # NumPy's own text of a float32 is the shortest that reads the same.
    lines = (",".join(str(value) for part in parts for value in part[index]) for index in range(len(rows)))
    return "".join(f"{line}\n" for line in lines).encode()


def _batches(
    inputs: Inputs, generate: Generate, stored: Stored
) -> Iterator[tuple[NDArray[Any], dict[str, NDArray[Any]]]]:
    """Yields samples as an array holds them, images as (n, H, W, C), with their conditions by the array's name."""
    for z, condition in inputs:
        arrays = {name: as_array(part) for name, part in named_conditions(stored(condition)).items()}
        if "condition" in arrays and arrays["condition"].ndim == 1:
            arrays = {"labels": arrays["condition"]}
        yield as_array(generate(z, condition)), arrays


def _write_header(stream: Any, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Writes the first bytes of an .npy file, which say what follows."""
    head = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, head)
