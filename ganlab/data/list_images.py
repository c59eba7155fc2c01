"""The image files below a folder, by their names: which files are images, and how many others there are.

Decisions:
- A file is an image if Pillow registers its name's extension for an image format, or if its name has no extension and
  its header is an image's. Arrays, DICOM files and videos are images only where there are no others: an image folder
  that has some beside its pictures is what it was before these were read.
- A UID is a DICOM file's name and has no ending, though its last number looks like one: such files are known by their
  content, and counted as those without an ending.
- Links are followed; a link to a folder that contains it is refused with its name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from ganlab.data.dicom import DICOM, is_dicom, may_be_dicom
from ganlab.data.image_file import image_extensions, looks_like_image
from ganlab.data.video import VIDEO
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.progress import Progress, paced

NAMED = 10
"""How many folders that cannot be listed an error names, one a line."""

COMMON = (".bmp", ".gif", ".jpg", ".png", ".tif", ".webp")
"""Extensions that an error names as examples of images."""

ENDINGS = 8
"""How many endings of files that are left out are named."""

OTHERS = {"array": (".npy",), "DICOM": DICOM, "video": VIDEO}
"""Files that are images where there are no pictures, by their extensions, the first kind first."""

NO_ENDING = "no ending"
"""What files whose names have no ending are counted under."""


@frozen
class ListedImages:
    """What an image folder holds: its images' sorted relative POSIX paths, and how many other files of each ending."""

    names: list[str]
    left_out: dict[str, int]


def list_images(folder: Path, progress: Progress, others: bool = False) -> ListedImages:
    """Lists the image files below a folder. Links are followed; a cycle is an error.

    A file is an image if Pillow registers its name's extension for an image format, or if its name has no extension and
    its header is an image's. With `others` the files of the first of `OTHERS` that there are are images too, in a
    folder that has no pictures.
    """
    names: list[str] = []
    found: dict[str, list[str]] = {kind: [] for kind in OTHERS}
    left_out: Counter[str] = Counter()
    problems: list[str] = []
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    report = paced(progress)
    while waiting:
        below, above = waiting.pop()
        here = folder / below
        try:
            real = os.path.realpath(here)
            if real in above:
                problems.append(f"{here}: is a link to a folder that contains it; remove it")
                continue
            with os.scandir(here) as entries:
                for entry in entries:
                    report("image files found", len(names), 0)
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        waiting.append((f"{below}{entry.name}/", (*above, real)))
                        continue
                    ending = os.path.splitext(entry.name)[1].lower().removesuffix(".")  # "name." has none
                    if ending in image_extensions() or (not ending and looks_like_image(Path(entry.path))):
                        names.append(f"{below}{entry.name}")
                    elif others and (kind := other_kind(ending)):
                        found[kind].append(f"{below}{entry.name}")
                    elif others and may_be_dicom(ending) and is_dicom(Path(entry.path)):
                        found["DICOM"].append(f"{below}{entry.name}")
                    else:
                        left_out[ending or NO_ENDING] += 1
        except OSError as error:
            problems.append(f"{here}: cannot be listed ({error.strerror})")
    if problems:
        more = [f"and {len(problems) - NAMED:,} more folders"] if len(problems) > NAMED else []
        raise ComponentError("\n".join([*sorted(problems)[:NAMED], *more]))
    names = chosen_kind(names, found, left_out)
    if not names:
        raise no_images(folder, left_out)
    return ListedImages(sorted(names), dict(sorted(left_out.items())))


def other_kind(ending: str) -> str | None:
    """The kind of image files other than pictures that an extension stands for, one of `OTHERS`."""
    return next((kind for kind, endings in OTHERS.items() if ending in endings), None)


def chosen_kind(pictures: list[str], others: Mapping[str, list[str]], left_out: Counter[str]) -> list[str]:
    """The image files that are taken: pictures, or the others of one kind. What is not is counted in `left_out`."""
    taken = pictures
    for names in others.values():
        if not taken:
            taken = names
        else:
            endings = (Path(name).suffix.lower() for name in names)
            left_out.update(NO_ENDING if may_be_dicom(ending) else ending for ending in endings)
    return taken


def no_images(path: Path, left_out: Mapping[str, int]) -> ComponentError:
    """The error of a folder or a zip file that holds no image files."""
    there = f"; there are {by_ending(left_out)}" if left_out else ""
    return ComponentError(f"{path}: contains no images; wanted files such as {', '.join(COMMON)}{there}")


def by_ending(left_out: Mapping[str, int]) -> str:
    """The numbers of files of each ending that an image folder leaves out, in words, the most frequent first."""
    by_number = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = {NO_ENDING: f"with {NO_ENDING}"}
    named = [f"{count:,} {shown.get(ending, one_line(ending, 20))}" for ending, count in by_number]
    more = f" and {len(named) - ENDINGS:,} more endings" if len(named) > ENDINGS else ""
    return ", ".join(named[:ENDINGS]) + more


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of an image folder is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
