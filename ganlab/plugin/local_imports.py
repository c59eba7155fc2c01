"""The local files that a plugin file imports: which they are, and importing them for one command only.

Decisions:
- A plugin's code is its file and every local file that it reaches by imports, also by those inside functions, which run
  later. They are read from the source, so that they do not depend on what has been imported already.
- Local is what was not installed: neither Python's own, nor in site-packages, nor beside the metadata of a
  distribution. Of an installed plugin the modules of its own package count, wherever they lie.
- What plugin files import is forgotten before plugins are loaded again, as the plugin files are: a module of the same
  name in another folder, or a changed one, would not be seen.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType

from ganlab.utils.hashing import file_sha256

KEPT_IMPORTS = "kept_imports"
"""The folder beside a plugin file that is a run's copy, with copies of what it imports, which are imported first."""

_INSTALLED = ("site-packages", "dist-packages")
_imported: set[str] = set()


def local_imports(file: Path) -> dict[str, Path]:
    """Returns the local files that a loaded plugin file imports, and that these import, by the name of the module."""
    loaded = next((name for name, module in list(sys.modules.items()) if _is_of(module, file)), None)
    start = loaded or file.stem
    own = start.partition(".")[0]
    found: dict[str, Path] = {}
    for path in _loaded_by_path(sys.modules.get(start)):
        found[path.stem] = path
    seen, installed, waiting = {start}, set[str](), [(start, file), *found.items()]
    parents = start.split(".")[:-1]
    names = [".".join(parents[: end + 1]) for end in range(len(parents))]
    while waiting or names:
        if not names:
            names = sorted(_imported_names(*waiting.pop()))
            continue
        name = names.pop()
        if name in seen or name.partition(".")[0] in installed:
            continue
        seen.add(name)
        spec = find_spec(name)
        if spec is None:
            continue
        if spec.has_location and spec.origin:
            origin = Path(spec.origin)
            if not (name.partition(".")[0] == own or is_local(origin, name)):
                installed.add(name.partition(".")[0])
                continue
            found[name] = origin.resolve()
            waiting.append((name, found[name]))
        if spec.submodule_search_locations is not None:  # modules that it imports by names that are computed
            names += [other for other in list(sys.modules) if other.startswith(f"{name}.")] if name in found else []
    return found


def is_local(file: Path, name: str) -> bool:
    """Whether a module's file is local to the user of a plugin, who may change it: it was not installed."""
    if name.partition(".")[0] in {"ganlab", "ganlab_plugins", *sys.builtin_module_names}:
        return False
    if any(part in _INSTALLED for part in file.parts) or any(file.is_relative_to(path) for path in _standard_library()):
        return False
    root = file.parents[name.count(".") + (file.stem == "__init__")]
    return not _has_metadata(root)


@cache
def _standard_library() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")})


@cache
def _has_metadata(root: Path) -> bool:
    return next(root.glob("*.dist-info"), None) is not None


def _is_of(module: ModuleType, file: Path) -> bool:
    """Whether a module is that of a file; of thousands only those of the file's name have their paths compared."""
    own = _path_of(module)
    return own is not None and own.endswith(file.name) and Path(own) == file


def _file_of(module: ModuleType) -> Path | None:
    own = _path_of(module)
    return None if own is None else Path(own)


def _path_of(module: ModuleType) -> str | None:
    path = getattr(module, "__dict__", {}).get("__file__")  # not by getattr, by which some modules import others
    return path if isinstance(path, str) else None


def _loaded_by_path(module: ModuleType | None) -> Iterator[Path]:
    """Yields files of modules that a plugin loads by path (spec_from_file_location): no name leads there."""
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is not value:
            file = _file_of(value)
            if file is not None and is_local(file, file.stem):
                yield file.resolve()


def _imported_names(module: str, file: Path) -> set[str]:
    """The names of all modules that a local file may import, also inside functions, with those of their packages."""
    if file.suffix != ".py":
        return set()
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            names.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(_absolute(node.args[0].value, package))
    parts = [name.split(".") for name in names if name and not name.startswith(".")]
    return {".".join(part[: end + 1]) for part in parts for end in range(len(part))}


def _absolute(name: str, package: str) -> str:
    try:
        return importlib.util.resolve_name(name, package or None) if name.startswith(".") else name
    except ImportError:  # beyond the top-level package
        return ""


def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Finds a module that a plugin is or imports, without importing anything; None where there is none."""
    if (loaded := sys.modules.get(name)) is not None:
        spec = getattr(loaded, "__dict__", {}).get("__spec__")
        return spec if isinstance(spec, importlib.machinery.ModuleSpec) else None
    parent = name.rpartition(".")[0]
    if not parent:
        try:
            return importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
    package = find_spec(parent)
    if package is None or package.submodule_search_locations is None:
        return None
    return importlib.machinery.PathFinder.find_spec(name, package.submodule_search_locations)


def forget_local_imports() -> None:
    """Forgets what plugin files have imported in this process, before plugins are loaded again."""
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    sys.path[:] = [path for path in sys.path if Path(path).name != KEPT_IMPORTS]


@contextmanager
def watched_imports(file: Path) -> Iterator[None]:
    """While a plugin file is imported, notes which local files it imports; for a run's copy they are the kept ones."""
    kept = file.parent / KEPT_IMPORTS
    if kept.is_dir():
        sys.path.insert(0, str(kept))
        importlib.invalidate_caches()
        names = {path.name.partition(".")[0] for path in kept.iterdir()}
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            if _differs(sys.modules[name], kept, name):
                del sys.modules[name]
    finder = _LocalFinder(kept)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class SourceLoader(importlib.machinery.SourceFileLoader):
    """A loader of plugin files, and of local files that they import, that compiles the source each time.

    Python's own bytecode cache looks only at a file's length and modification time, in seconds, so after a small change
    it could run the old code.
    """

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class _LocalFinder(importlib.abc.MetaPathFinder):
    """Finds the local files that a plugin file imports, for `SourceLoader`, and notes their modules."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.has_location and spec.origin:
            file = Path(spec.origin)
            if self._kept in file.parents or is_local(file, fullname):
                _imported.add(fullname)
                if type(spec.loader) is importlib.machinery.SourceFileLoader:
                    spec.loader = SourceLoader(fullname, spec.origin)
        return spec


def _differs(module: ModuleType, kept: Path, name: str) -> bool:
    """Whether a module that is loaded already has other code than the copy of the same name."""
    file = _file_of(module)
    if file is None or not file.is_file():
        return True
    copy = kept_path(kept, name, file)
    return not copy.is_file() or file_sha256(copy) != file_sha256(file)


def kept_path(folder: Path, name: str, file: Path) -> Path:
    """Where the copy of a module that a plugin imports lies below the folder of such copies."""
    parts = name.split(".")
    return folder.joinpath(*(parts if file.stem == "__init__" else parts[:-1]), file.name)
