"""Old import paths: names of the flat modules that `ganlab` once had are found, with a warning that says the new line.

    >>> from ganlab.phases import logits
    DeprecationWarning: ganlab.phases.logits has moved; write `from ganlab.nn.judged_output import logits`

Decisions:
- The finder is the last of `sys.meta_path`, so Python asks it only for a module of `ganlab` that does not exist. The
  tables of names are imported then, so that they cost nothing otherwise.
- Importing an old module imports nothing else. A name is looked up on first use, and that gives the warning, because
  the line to write depends on the name.
- Where an old module's name is now that of a package (`ganlab.config`), the package's `__getattr__` does the same.
- A public name that no longer exists raises ImportError with a line that says what to use instead. AttributeError
  would not do: `from … import …` replaces its message.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def old_names(module: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of an old module: finds each name where it is now, with a DeprecationWarning."""

    def __getattr__(name: str) -> Any:
        if name.startswith("_") or _is_submodule(module, name):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, new, value = _find(module, name)
        line = f"{module}.{name} has moved; write `from {home} import {new}`"
        warnings.warn(line, DeprecationWarning, stacklevel=2)
        vars(sys.modules[module])[name] = value
        return value

    return __getattr__


def _is_submodule(module: str, name: str) -> bool:
    """Whether a package has a module of this name: Python asks for an attribute first, then imports the module."""
    package = hasattr(sys.modules[module], "__path__")
    return package and importlib.util.find_spec(f"{module}.{name}") is not None


def _find(module: str, name: str) -> tuple[str, str, Any]:
    """The module where an old name is now, its name there, and its value; public names come from `ganlab` itself."""
    from ganlab._moved_names import GONE, MODULES, RENAMED

    old = f"{module}.{name}".removeprefix("ganlab.")
    if old in GONE:
        raise ImportError(f"ganlab.{old} no longer exists; {GONE[old]}")
    homes, _, new = RENAMED.get(old, f"{MODULES[old.rpartition('.')[0]]}.{name}").rpartition(".")
    for home in (f"ganlab.{part}" for part in homes.split()):
        value = getattr(importlib.import_module(home), new, None)
        if value is not None:
            package = sys.modules["ganlab"]
            is_public = new in package.__all__ and getattr(package, new) is value
            return "ganlab" if is_public else home, new, value
    where = " and ".join(f"ganlab.{home}" for home in homes.split())
    raise AttributeError(f"module {module!r} has no attribute {name!r}; what it had is now in {where}")


class OldModuleFinder:
    """Finds the old modules, and loads each as an empty one with a `__getattr__`.

    It has no base of `importlib.abc`, whose import every command would wait for.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the spec of an old module of `ganlab`; None for any other name."""
        package, _, old = fullname.partition(".")
        if package != "ganlab":
            return None
        from ganlab._moved_names import MODULES

        if old not in MODULES:
            return None
        is_package = any(other.startswith(f"{old}.") for other in MODULES)
        return ModuleSpec(fullname, self, origin="moved", is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the creation of an old module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fills an old module: its names are found on first use."""
        vars(module)["__getattr__"] = old_names(module.__name__)


def install() -> None:
    """Puts the finder of old modules at the end of `sys.meta_path`."""
    sys.meta_path.append(OldModuleFinder())
