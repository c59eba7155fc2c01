"""What a shell offers where a command takes the name of a component, a kind or a plugin: those that are there now.

cyclopts writes the shells' scripts (`ganlab --install-completion`), which ask `ganlab` itself at such a place. Most
plugins import torch, which takes seconds, so the names are kept, and plugins are loaded again only where there are
others or one of their files has changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins, sources
from ganlab.utils.errors import CannotWrite
from ganlab.utils.files import write_whole
from ganlab.utils.paths import places

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

Offer = dict[str, str]
"""What is offered, each with what it is, which zsh and fish show beside it."""


def offered(names: Callable[[CompletionContext], Offer]) -> Parameter:
    """Marks a command's argument as one of these names."""
    return Parameter(completer=names)


def kinds(context: CompletionContext) -> Offer:
    """Every kind of component."""
    return {kind: f"registered by {KINDS[kind].hook}" for kind in KINDS}


def components(*wanted: str) -> Callable[[CompletionContext], Offer]:
    """The names of the components of these kinds."""

    def names(context: CompletionContext) -> Offer:
        found = _known(context)
        return {name: f"{kind}, {note}" for kind in wanted for name, note in found.get(kind, {}).items()}

    return names


def components_and_kinds(context: CompletionContext) -> Offer:
    """What `ganlab plugins` takes: any component's name, and the kinds."""
    known = kinds(context)
    return components(*known)(context) | known


def plugins(context: CompletionContext) -> Offer:
    """The names of all plugins, those that fail to load too."""
    return {origin.plugin: str(origin) for origin, _ in sources(_named(context))}


def _named(context: CompletionContext) -> list[Path]:
    """The plugin files that the line names by --plugin."""
    named = context.get("--plugin")
    files = [Path(file).expanduser().resolve() for file in named.raw_tokens] if named is not None else []
    return [file for file in files if file.is_file()]


def _known(context: CompletionContext) -> dict[str, Offer]:
    """Kinds to the names of their components, kept for as long as the same plugins lie there unchanged."""
    named = _named(context)
    key = json.dumps([[str(origin), *_state(origin.file)] for origin, _ in sources(named)])
    kept = places().cache / "completion.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["key"] == key:
            names: dict[str, Offer] = content["names"]
            return names
    loaded = load_plugins(named)
    names = {kind: {c.name: str(c.origin) for c in loaded.registry.of_kind(kind)} for kind in KINDS}
    if not loaded.failures:  # which what is installed may mend, without a change in any plugin
        with contextlib.suppress(CannotWrite, OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps({"key": key, "names": names}))
    return names


def _state(file: Path | None) -> tuple[int, int]:
    status = file.stat() if file is not None and file.is_file() else None
    return (status.st_mtime_ns, status.st_size) if status else (0, 0)
