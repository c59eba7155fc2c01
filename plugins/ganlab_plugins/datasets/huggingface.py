"""Data sets of the Hugging Face hub, and local folders in its formats, read with the package `datasets`.

Decisions:
- Only Parquet, Arrow and folders of images are read. No code of a data set is run, and nothing is unpickled: since
  version 4 the package does not run scripts of data sets, and files that need other builders are refused here.
- Image files are decoded as those of an image folder (`_decoded_cache.py`), not by the package, so the same file has
  the same pixels wherever it is stored.
- What is prepared from a local folder is kept under the state of its files, since the package's own cache looks at
  modification times only.
- The hub is first asked whether it has the data, because the package itself retries for most of a minute if the hub is
  unreachable.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import attrs
from attrs import frozen

from ganlab import (
    ComponentError,
    DatasetConfig,
    NoSplit,
    Places,
    Progress,
    Register,
    check_split,
    file_state,
    hookimpl,
    location,
    no_progress,
    one_line,
)
from ganlab_plugins.datasets.image_folder import (
    check_background,
    check_range,
    find_folder,
    original_or_size,
    value_form,
)
from ganlab_plugins.datasets.image_pairs import check_proportions

if TYPE_CHECKING:
    from ganlab import EncodedImage, ImageDataset, MappedImages

BUILDERS = ("parquet", "arrow", "imagefolder", "cache")
"""Permitted builders of the package; "cache" reads what one of the others prepared, if the hub is unreachable."""

ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")

TIMEOUT = 10
"""Seconds after which a hub that does not answer counts as unreachable."""

OLDEST = 4
"""The first version of the package that does not run scripts of data sets."""


def _text(default: Any = attrs.NOTHING) -> Any:
    """A text option of `huggingface` that must not be empty."""
    return attrs.field(default=default, validator=attrs.validators.optional(attrs.validators.min_len(1)))


@frozen
class HuggingFace:
    """Images of a data set of the Hugging Face hub, with class labels if it has any. Needs `ganlab[huggingface]`.

    It is downloaded on first use: the hub's client stores the files (`$HF_HOME`), and the data prepared from them is in
    `huggingface` in the data folder. A local folder is one written by `save_to_disk`, or one of Parquet, Arrow or
    image files. Formats that can run code are refused. Images are decoded, resized and cropped as those of
    `image_folder`.

    path: "OWNER/NAME" on the hub, or a folder: absolute, or below `~`, or relative to the data folder, or to the
        current folder.
    config: the configuration (subset), if the data set has several.
    revision: a commit, a branch or a tag of the hub's repository; by default the newest.
    image: the column of images; not needed if there is only one.
    label: the column of class labels; not needed if there is only one. A split with an unlabelled image, written as -1,
        has no labels.
    condition: the column of condition images, of the images' proportions, as for pix2pix; there are no labels then.
    half: of pictures with both images side by side, twice as wide as high, which half is the image; the other is its
        condition, as in `image_pairs`.
    condition_channels: of the condition images.
    train: the data's split that is used as the training split. For data on the hub, or files, also a part of one:
        "train[:90%]".
    test: the data's split that is used as the test split.
    size: height and width in pixels, or [height, width]; "original" keeps the images' own size, which must be the same
        for all.
    channels: 3 for colour, 1 for grey, 4 or 2 for these with opacity; that of the files if they have other channels.
    dtype: "uint8", or "uint16" to keep 16 bits, or "float32" for numbers that are not rounded.
    range: the values in the files that are black and white, [low, high], as of `image_folder`.
    clip: set values outside `range` to its limits, instead of refusing the image.
    background: the colour below transparency, by name or as "#rrggbb", where `channels` has no opacity.
    """

    path: str = location(validator=attrs.validators.min_len(1))
    config: str | None = _text(None)
    revision: str | None = _text(None)
    image: str | None = _text(None)
    label: str | None = _text(None)
    condition: str | None = _text(None)
    half: Literal["left", "right"] | None = None
    condition_channels: int = attrs.field(default=3, validator=[attrs.validators.ge(1), attrs.validators.le(256)])
    train: str = _text("train")
    test: str = _text("test")
    size: int | Literal["original"] | tuple[int, int] = attrs.field(default=64, validator=original_or_size)
    channels: int = attrs.field(default=3, validator=[attrs.validators.ge(1), attrs.validators.le(256)])
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    range: tuple[float, float] | None = None
    clip: bool = False
    background: str = "white"

    def __attrs_post_init__(self) -> None:
        check_range(self.range, self.clip)
        check_background(self.background)
        for name, other in (("half", "condition"), ("label", "condition"), ("label", "half")):
            if getattr(self, name) is not None and getattr(self, other) is not None:
                raise ValueError(f"{name}: is set, and {other} too; set one of them")

    form = property(value_form)

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        from ganlab import ImageDataset
        from ganlab_plugins.datasets._decoded_cache import Options, decode_embedded

        check_split("huggingface", split)
        package = _package()
        part = self.train if split == "train" else self.test
        rows, name = self._rows(package, places, part)
        if len(rows) == 0:
            raise ComponentError(f"huggingface: {name}: the split {part!r} is empty")
        condition = self.condition and _column("condition", self.condition, rows, package.Image)
        image = _column("image", self.image, rows, package.Image, without=condition)
        if image is None:
            raise ComponentError(f"huggingface: {name}: has no column of images; there are {_named(rows)}")
        if image == condition:
            raise ComponentError(f"condition: the column {condition!r} has the images; there are {_named(rows)}")
        sources = [Path(file["filename"]) for file in rows.cache_files]
        size = None if self.size == "original" else self.size

        def files(column: str) -> _Files:
            plain = rows.select_columns([column]).cast_column(column, package.Image(decode=False))
            return _Files(plain, column, f"{name} ({part})" + (f", {column}" if condition else ""))

        def decoded(column: str, channels: int, half: Literal["left", "right"] | None = None) -> MappedImages:
            about = f"{name} {self.config} {part} {column} {len(rows)}"
            options = Options(size, channels, None, skips=False, half=half, form=self.form)
            return decode_embedded(sources, about, files(column), options, places.cache, progress)

        if condition:
            both = slice(0, len(rows))
            check_proportions([*zip(files(image)[both], files(condition)[both], strict=True)], progress)
        images = decoded(image, self.channels, self.half)
        if condition or self.half:
            other: Literal["left", "right"] = "right" if self.half == "left" else "left"
            partners = decoded(condition or image, self.condition_channels, None if condition else other)
            return ImageDataset(images, f"huggingface:{name}", split, partners)
        label = _column("label", self.label, rows, package.ClassLabel)
        labels, classes = (None, ()) if label is None else _labels(rows, label)
        return ImageDataset(images, f"huggingface:{name}", split, labels, classes)

    def _rows(self, package: Any, places: Places, part: str) -> tuple[Any, str]:
        """The `datasets.Dataset` of one split, and the name of the data."""
        try:
            folder: Path | None = find_folder("path", self.path, places)
        except ComponentError:
            if not ON_THE_HUB.fullmatch(self.path):
                raise
            folder = None
        name = self.path if folder is None else folder.resolve().name
        prepared = places.data / "huggingface"
        if folder is None:
            _ask_hub(self.path, self.revision, prepared)
        try:
            if folder is not None and any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
                return _split_of(package, package.load_from_disk(str(folder)), part), name
            if folder is not None:
                prepared = _prepared_from(folder, prepared)
            where = str(folder or self.path)
            builder = package.load_dataset_builder(
                where, self.config, revision=None if folder else self.revision, cache_dir=str(prepared)
            )
            if builder.name not in BUILDERS:
                raise ComponentError(
                    f"huggingface: {name}: its files are read by {builder.name!r}; wanted Parquet, Arrow or image files"
                )
            builder.download_and_prepare()
            if folder is not None:
                _remove_older(prepared)
            return builder.as_dataset(split=part), name
        except (OSError, RuntimeError, ValueError, LookupError, TypeError, *_errors(package)) as error:
            raise ComponentError(f"huggingface: {name}: {one_line(error, 200)}") from error


@frozen
class _Files(Sequence["EncodedImage"]):
    """The encoded images of a column of a `datasets.Dataset`, read on access."""

    rows: Any
    column: str
    where: str

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> EncodedImage: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[EncodedImage]: ...

    def __getitem__(self, row: int | slice) -> EncodedImage | Sequence[EncodedImage]:
        from ganlab import EncodedImage

        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)  # which ends an iteration
        return EncodedImage(f"{self.where}: row {row}", lambda: self._read(row))

    def _read(self, row: int) -> bytes:
        file = self.rows[row][self.column] or {}
        if (data := file.get("bytes")) is not None:
            return bytes(data)
        path = Path(file.get("path") or "")
        if not path.is_file():
            raise ValueError("there is no image")
        return path.read_bytes()


def _package() -> Any:
    """Imports the package `datasets`; refuses a version that runs scripts of data sets."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        cause = one_line(error, limit=100)
        raise ComponentError(f"it needs another package ({cause}): pip install 'ganlab[huggingface]'") from error
    if int(datasets.__version__.split(".")[0]) < OLDEST:
        raise ComponentError(
            f"it needs datasets {OLDEST} or newer, here is {datasets.__version__}: pip install 'ganlab[huggingface]'"
        )
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()  # they overwrite lines
    return datasets


def _errors(package: Any) -> Any:
    """The exception classes of the package `datasets` and of the hub's client."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases include the root of the HTTP library's exceptions; the hub's client has changed that library twice.
    return (package.exceptions.DatasetsError, HfHubHTTPError, *HfHubHTTPError.__bases__)


def _ask_hub(path: str, revision: str | None, prepared: Path) -> None:
    """Raises `ComponentError` if the Hugging Face hub lacks the data, or if it is unreachable and nothing is cached."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    http_errors: Any = HfHubHTTPError.__bases__
    try:
        huggingface_hub.HfApi().dataset_info(path, revision=revision, timeout=TIMEOUT)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ComponentError(
            f"path: {path!r}: neither a folder nor a readable data set of the hub ({one_line(error, 100)})"
        ) from error
    except RevisionNotFoundError as error:
        raise ComponentError(f"revision: {revision!r}: {path} has no such commit, branch or tag") from error
    except (OSError, *http_errors) as error:
        if not (prepared / path.replace("/", "___")).is_dir():  # where the package stores prepared data
            raise ComponentError(
                f"path: {path!r}: no such folder, and the hub is unreachable ({one_line(error, 100)}); download the "
                "data set elsewhere, copy its folder here, and set path to it"
            ) from error


def _prepared_from(folder: Path, prepared: Path) -> Path:
    """Where to keep what the package prepares from a Hugging Face folder's files: another place for each state of them.

    The package itself looks at modification times only, which unpacking an archive restores.
    """
    digest = hashlib.sha256()
    for here, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(here, file)
            state = file_state(os.stat(path)) if os.path.exists(path) else "missing"
            digest.update(os.fsencode(os.path.relpath(path, folder)) + f"\0{state}\n".encode())
    where = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return prepared / "local" / where / digest.hexdigest()[:16]


def _remove_older(prepared: Path) -> None:
    """Removes what was prepared from earlier states of a Hugging Face folder's files."""
    for other in prepared.parent.iterdir():
        if other != prepared:
            shutil.rmtree(other, ignore_errors=True)


def _split_of(package: Any, loaded: Any, part: str) -> Any:
    """One split of a folder that `save_to_disk` wrote; a folder of a single split is the training split."""
    splits = loaded if isinstance(loaded, package.DatasetDict) else {"train": loaded}
    if part not in splits:
        raise NoSplit(f"there is no split {part!r}; there are {', '.join(splits)}")
    return splits[part]


def _column(option: str, name: str | None, rows: Any, kind: Any, without: str | None = None) -> str | None:
    """The column of a `datasets.Dataset` that an option names, or the only one of its type; None if there is none."""
    fitting = [column for column, feature in rows.features.items() if isinstance(feature, kind)]
    if name is None:
        fitting = [column for column in fitting if column != without]
        if len(fitting) > 1:
            pair = ", and one as condition for pairs" if option == "image" and without is None else ""
            raise ComponentError(f"{option}: there are several such columns, {', '.join(fitting)}; name one{pair}")
        return fitting[0] if fitting else None
    if name not in rows.features:
        raise ComponentError(f"{option}: no column {name!r}; there are {_named(rows)}")
    # Integers may be class labels too, but only if the option names the column.
    if name not in fitting and not (option == "label" and str(getattr(rows.features[name], "dtype", "")) in _INTEGERS):
        raise ComponentError(f"{option}: the column {name!r} has the wrong type; there are {_named(rows)}")
    return name


_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def _named(rows: Any) -> str:
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in rows.features.items())


def _labels(rows: Any, column: str) -> tuple[Any, tuple[str, ...]]:
    """Class labels int64 (N,) of a `datasets.Dataset`, None if an image has none, and the classes' names, if any."""
    import torch

    values = rows.select_columns([column]).with_format(None)[:][column]
    classes = tuple(getattr(rows.features[column], "names", None) or ())
    if any(value is None or value < 0 for value in values):
        return None, classes
    return torch.tensor(values, dtype=torch.int64), classes


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("huggingface", HuggingFace)
