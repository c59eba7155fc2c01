"""The commands for authors of plugins: `ganlab plugins`, `ganlab check`, `ganlab new`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ganlab.cli.arguments import Blocked, Device, KindName, ListedName, Set
from ganlab.utils.errors import UserError


def plugins(
    name: ListedName = None,
    /,
    *,
    json: bool = False,
    plugin: list[Path] | None = None,
    no_plugin: Blocked = None,
) -> int:
    """List every component by kind, with the types and defaults of its options and its origin.

    Parameters
    ----------
    name
        Only components of this name, or of this kind.
    json
        Print JSON instead of text.
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


def check(file: Path, /, *, set_: Set = None, device: Device = "cpu", json: bool = False) -> int:
    """Check every component of a plugin file against the rules of its kind. Exit code 1 if a check fails.

    Parameters
    ----------
    file
        The plugin file; bundled plugins too.
    set_
        NAME.OPTION=VALUE, or KIND.NAME.OPTION=VALUE where two kinds have one name: an option of that component; can be
        repeated. Default: its own defaults.
    device
        A device to try the components on too: cuda, or pretend, which needs no GPU.
    json
        Print JSON instead of text.
    """
    from ganlab.testing.check_command import check_file

    return check_file(file, set_ or (), json, Console(), Console(stderr=True), device)


def new(kind: KindName, name: str, /, *, out: Path | None = None) -> int:
    """Write a working plugin file and its test, to be edited.

    Parameters
    ----------
    kind
        The kind of component: loss, penalty, generator, … (the kinds of `ganlab plugins`).
    name
        The component's name in experiments: letters, digits and '_'.
    out
        The file. Default: NAME.py. Its test is written next to it, as test_NAME.py.
    """
    from ganlab.cli.scaffold import write_plugin

    for path in write_plugin(kind, name, out or Path(f"{name}.py")):
        print(path)
    return 0
