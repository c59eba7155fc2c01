"""A table (CSV or TSV) of the images of a folder: their class labels and attributes, from columns that are named.

Decisions:
- A row belongs to the image of its file's name, with or without the extension. An image without a row is refused; a row
  without an image may be another split's.
- Class labels are the column's values in order: as numbers where all are whole numbers, else as texts. They are made of
  all rows, so that they do not depend on which files can be read.
- Attributes are numbers as they are in the table, float32, and are not scaled.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import field, frozen

from ganlab import ComponentError, one_line

if TYPE_CHECKING:
    from torch import Tensor

FILE_COLUMNS = ("file", "file_name", "filename", "image", "image_id", "path")
"""Names of a column that names images, the first of them that there is; without one it is the first column."""

NAMED = 5
"""How many images without a row an error names."""


@frozen
class LabelTable:
    """A table of images: its columns' names, and each row's values by the name of its image file."""

    where: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[int, dict[str, str]]] = field(repr=False)

    def column(self, option: str, name: str) -> str:
        """The name of a column of the label table; ComponentError if there is none."""
        if name not in self.columns:
            raise ComponentError(f"{option}: {self.where} has no column {name!r}; it has {', '.join(self.columns)}")
        return name

    def row_of(self, image: str) -> tuple[int, dict[str, str]] | None:
        """The row of an image file in the label table, by its name with or without the extension."""
        return self.rows.get(image) or self.rows.get(str(PurePosixPath(image).with_suffix("")))

    def classes(self, column: str) -> tuple[str, ...]:
        """All values of a label table's column, in order: the names of the classes."""
        if empty := next((line for line, row in self.rows.values() if not row[column]), None):
            raise ComponentError(f"{self.where}: line {empty}: {column} is empty; wanted a class")
        values = {row[column] for _, row in self.rows.values()}
        whole = all(value.removeprefix("-").isdecimal() for value in values)
        return tuple(sorted(values, key=lambda value: (int(value), value)) if whole else sorted(values))

    def labels(self, images: Sequence[str], column: str, classes: Sequence[str]) -> Tensor:
        """Class labels int64 (N,) of images, by a label table's column."""
        import torch

        number = {name: index for index, name in enumerate(classes)}
        values = [row[column] for _, row in self._rows_of(images)]
        if strange := sorted(set(values) - set(number)):
            raise ComponentError(f"{self.where}: {column} has {strange[0]!r}; the training split's classes lack it")
        return torch.tensor([number[value] for value in values])

    def attributes(self, images: Sequence[str], columns: Iterable[str]) -> Tensor:
        """Attributes float32 (N, K) of images, of a label table's columns."""
        import torch

        columns = list(columns)
        return torch.tensor(
            [[self._number(line, row, column) for column in columns] for line, row in self._rows_of(images)],
            dtype=torch.float32,
        )

    def _rows_of(self, images: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
        rows = [self.row_of(image) for image in images]
        if missing := [image for image, row in zip(images, rows, strict=True) if row is None]:
            more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
            raise ComponentError(
                f"{self.where}: has no row for {len(missing):,} of {len(images):,} images: "
                f"{', '.join(missing[:NAMED])}{more}"
            )
        return [row for row in rows if row is not None]

    def _number(self, line: int, row: dict[str, str], column: str) -> float:
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            got = one_line(repr(row[column]), 40)
            raise ComponentError(f"{self.where}: line {line}: {column} is {got}; wanted a finite number")
        return value


def read_table(content: bytes, where: str) -> LabelTable:
    """Reads a label table, with a header, whose values are parted by commas, semicolons or tabs; ComponentError."""
    try:
        text = content.decode("utf-8-sig")
        head = text.partition("\n")[0]
        parted = max(",;\t", key=head.count)
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=parted, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ComponentError(f"{where}: cannot be read as a table in UTF-8 ({one_line(error)})") from error
    header = [name.strip() for name in lines[0]] if lines else []
    if len(header) < 2 or len(set(header)) < len(header):
        raise ComponentError(
            f"{where}: its first line is {one_line(repr(head), 60)}; wanted different names of columns"
        )
    named = {name.lower(): name for name in reversed(header)}
    of_file = next((named[name] for name in FILE_COLUMNS if name in named), header[0])
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for line, values in enumerate(lines[1:], start=2):
        if not any(value.strip() for value in values):  # spreadsheets end with rows of separators
            continue
        if len(values) != len(header):
            raise ComponentError(f"{where}: line {line} has {len(values)} values; its header has {len(header)}")
        row = dict(zip(header, (value.strip() for value in values), strict=True))
        name = row[of_file].replace("\\", "/").removeprefix("./")
        if name in rows:
            raise ComponentError(f"{where}: lines {rows[name][0]} and {line} are both of {name}")
        rows[name] = line, row
    return LabelTable(where, tuple(name for name in header if name != of_file), rows)
