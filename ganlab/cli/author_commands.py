"""Commands for authors of plugins: `plugins`, `check`, `new`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ganlab.cli.arguments import Blocked, KindName, ListedName, Set
from ganlab.utils.errors import UserError


def plugins(
    name: ListedName = None,
    /,
    *,
    json: bool = False,
    plugin: list[Path] | None = None,
    no_plugin: Blocked = None,
) -> int:
    """List every component by kind, its options with types and defaults, and where it came from.

    Parameters
    ----------
    name
        Only components of this name, or of this kind.
    json
        As JSON.
    plugin
        A plugin file to load; can be repeated.
    no_plugin
        A plugin not to load; can be repeated.
    """
    from ganlab.cli.list_plugins import list_plugins
    from ganlab.plugin.loader import load_plugins

    loaded = load_plugins(plugin or (), no_plugin or ())
    if loaded.problems:
        raise UserError(*loaded.problems)
    list_plugins(loaded, name, json, Console(), Console(stderr=True))
    return 0


def check(file: Path, /, *, set_: Set = None, json: bool = False) -> int:
    """Check a plugin file: every component against what its kind must do. Exit code 1 where there is a fault.

    Parameters
    ----------
    file
        The plugin file, bundled ones too.
    set_
        NAME.OPTION=VALUE: an option of the component of that name; can be repeated. Default: its own defaults.
    json
        Print JSON instead.
    """
    from ganlab.testing.check_command import check_file

    return check_file(file, set_ or (), json, Console(), Console(stderr=True))


def new(kind: KindName, name: str, /, *, out: Path | None = None) -> int:
    """Write a plugin file that works, and its test, to edit.

    Parameters
    ----------
    kind
        What it is: loss, penalty, generator, … (the kinds of `ganlab plugins`).
    name
        What experiments call it: letters, digits and '_'.
    out
        The file. Default: NAME.py. Its test is written beside it, as test_NAME.py.
    """
    from ganlab.cli.scaffold import write_plugin

    for path in write_plugin(kind, name, out or Path(f"{name}.py")):
        print(path)
    return 0
