"""Plugin templates of `ganlab new`: writes a working plugin file of a kind, and its test.

Decisions:
- A written file passes `ganlab check` and its own test as it is; a test checks that for every kind.
- No file is overwritten, and a name that a loaded plugin has is an error now, not when the file is used. So is that of
  an installed module: Python finds the file in its place wherever the file's folder is searched first, as pytest does.
"""

from __future__ import annotations

import keyword
import unicodedata
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.plugin.local_imports import find_spec, is_local
from ganlab.utils.errors import UserError, did_you_mean, quote
from ganlab.utils.files import write_whole

MAX_NAME_LENGTH = 40
"""Longest name in characters; with it no line of a template exceeds 120."""


def write_plugin(kind: str, name: str, file: Path) -> tuple[Path, Path]:
    """Scaffolds a plugin: writes its file and its test; raises UserError with every problem of kind, name and file."""
    if file.is_dir():
        raise UserError(f"--out {file}: is a folder; expected FILE.py")
    test = file.with_name(f"test_{file.name}")
    problems = _name_problems(kind, name)
    if not problems or file.stem != name:  # a bad name is not named again as a file's
        problems += _file_problems(file, test)
    if problems:
        raise UserError(*problems)
    environment = Environment(
        loader=PackageLoader("ganlab.cli"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    words = {
        "kind": kind,
        "name": name,
        "cls": "".join(part[:1].upper() + part[1:] for part in name.split("_")),
        "file": file.name,
        "hook": KINDS[kind].hook,
        "protocol": KINDS[kind].protocol.__name__,
    }
    for path, template in ((file, f"{kind}.py.jinja"), (test, f"test_{kind}.py.jinja")):
        write_whole(path, environment.get_template(template).render(words))
    return file, test


def _name_problems(kind: str, name: str) -> list[str]:
    problems = []
    if kind not in KINDS:
        problems.append(f"unknown kind {quote(kind)}{did_you_mean(kind, KINDS) or '; there are: ' + ', '.join(KINDS)}")
    if len(name) > MAX_NAME_LENGTH:
        problems.append(f"name {quote(name)}: expected at most {MAX_NAME_LENGTH} characters")
    elif not _is_possible(name):
        near = f"; did you mean {possible!r}?" if (possible := _possible_name(name)) else ""
        problems.append(
            f"name {quote(name)}: expected ASCII letters, digits and '_', starting with a letter, and not a keyword of "
            f"Python{near}"
        )
    elif kind in KINDS:
        taken = {part.name: part.origin for part in load_plugins().registry.of_kind(kind)}
        if name in taken:
            problems.append(f"name {name!r}: the {kind} {name!r} is already registered by {taken[name]}")
    return problems


def _is_possible(name: str) -> bool:
    return name.isidentifier() and name.isascii() and not keyword.iskeyword(name) and name[0].isalpha()


def _possible_name(name: str) -> str | None:
    """A possible component name that is like a given one: letters without their marks, "_" for "-" and spaces."""
    letters = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    near = letters.replace("-", "_").replace(" ", "_").strip("_")
    return near if near and _is_possible(near) else None


def _file_problems(file: Path, test: Path) -> list[str]:
    if file.suffix != ".py" or not file.stem.isidentifier():
        return [f"{file}: expected the name of a Python file, such as my_loss.py"]
    if not file.parent.is_dir():
        return [f"{file.parent}: no such folder"]
    problems = [f"{path}: is there already, and is not overwritten" for path in (file, test) if path.exists()]
    spec = find_spec(file.stem)
    if spec is not None and spec.origin and not (spec.has_location and is_local(Path(spec.origin), file.stem)):
        problems.append(f"{file}: an installed Python module is called {file.stem!r}; choose another by --out")
    if file.stem in load_plugins().origins:
        problems.append(f"{file}: a plugin of the name {file.stem!r} is already loaded; choose another by --out")
    return problems
