"""Shell completion of the names of components, kinds and plugins: those that are available now.

cyclopts writes the shells' scripts (`ganlab --install-completion`), which call `ganlab` for the names. Loading plugins
imports torch, which takes seconds, so the names are cached; plugins are loaded again only when there are others or one
of their files has changed. What finds plugins is imported only when a name is completed: every command imports this
module, and `ganlab --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

Completions = dict[str, str]
"""Completions, each with a description, which zsh and fish show."""


def complete_with(names: Callable[[CompletionContext], Completions]) -> Parameter:
    """The shell completion of an argument with these names, as a cyclopts parameter."""
    return Parameter(completer=names)


def complete_kinds(context: CompletionContext) -> Completions:
    """Every kind of component."""
    from ganlab.plugin.kinds import KINDS

    return {kind: f"registered by {KINDS[kind].hook}" for kind in KINDS}


def complete_cache_kinds(context: CompletionContext) -> Completions:
    """Every kind of entry that the cache folder has now."""
    from ganlab.utils.cache_folder import cache_kinds
    from ganlab.utils.paths import places

    return dict.fromkeys(cache_kinds(places().cache), "in the cache")


def complete_devices(context: CompletionContext) -> Completions:
    """Names for `--device`; which of them there are only torch knows, which takes seconds to import."""
    return {
        "auto": "CUDA where there is one",
        "cpu": "",
        "cuda": "cuda:1 is the second one",
        "mps": "Apple",
        "xpu": "Intel",
        "pretend": "a device without a GPU, to test plugins on",
    }


def complete_samplers(context: CompletionContext) -> Completions:
    """The further samplers of the run on the line under shell completion."""
    return dict.fromkeys(_samplers_of_line(context), "a sampler of the run's game")


def complete_directions(context: CompletionContext) -> Completions:
    """Completes `ganlab translate --to`: `a` and `b` where the run on the line has the sampler `b_to_a`."""
    found: Completions = {}
    for name in _samplers_of_line(context):
        start, is_direction, end = name.rpartition("_to_")
        found |= {end: f"by the sampler {name}"}
        if is_direction:
            found.setdefault(start, "by the main sampler")
    return found


def _samplers_of_line(context: CompletionContext) -> list[str]:
    """The names of the further samplers of the run on the line under shell completion, of its run.json."""
    from ganlab.utils.paths import expand_home

    run = context.get("run")
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        content = json.loads(expand_home(run.raw_tokens[0]).joinpath("run.json").read_text(encoding="utf-8"))
        return list(content.get("samplers", {}))
    return []


def complete_components(*wanted: str) -> Callable[[CompletionContext], Completions]:
    """Completes names of components of these kinds."""

    def names(context: CompletionContext) -> Completions:
        found = _cached_component_names(context)
        return {name: f"{kind}, {note}" for kind in wanted for name, note in found.get(kind, {}).items()}

    return names


def complete_components_and_kinds(context: CompletionContext) -> Completions:
    """Completes the argument of `ganlab plugins`: names of components and kinds."""
    known = complete_kinds(context)
    return complete_components(*known)(context) | known


def complete_plugins(context: CompletionContext) -> Completions:
    """Completes names of plugins, including those that fail to load."""
    from ganlab.plugin.loader import plugin_sources

    return {origin.plugin: str(origin) for origin, _ in plugin_sources(_plugin_files_of_line(context))}


def _plugin_files_of_line(context: CompletionContext) -> list[Path]:
    """The files of `--plugin` on the line under shell completion."""
    from ganlab.utils.paths import expand_home

    named = context.get("--plugin")
    files = [expand_home(file).resolve() for file in named.raw_tokens] if named is not None else []
    return [file for file in files if file.is_file()]


def _cached_component_names(context: CompletionContext) -> dict[str, Completions]:
    """The components' names by kind for shell completion, from the cache while no plugin has changed."""
    from ganlab.plugin.kinds import KINDS
    from ganlab.plugin.loader import load_plugins, plugin_sources
    from ganlab.utils.errors import CannotWrite
    from ganlab.utils.files import write_whole
    from ganlab.utils.paths import places

    named = _plugin_files_of_line(context)
    key = json.dumps([[str(origin), _state_of(origin.file)] for origin, _ in plugin_sources(named)])
    kept = places().cache / "completion.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["key"] == key:
            names: dict[str, Completions] = content["names"]
            return names
    loaded = load_plugins(named)
    names = {kind: {c.name: str(c.origin) for c in loaded.registry.of_kind(kind)} for kind in KINDS}
    if not loaded.failures:  # an installed package may fix a failure without a change in any plugin
        with contextlib.suppress(CannotWrite, OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps({"key": key, "names": names}))
    return names


def _state_of(file: Path | None) -> str:
    from ganlab.utils.files import file_state

    return file_state(file.stat()) if file is not None and file.is_file() else ""
