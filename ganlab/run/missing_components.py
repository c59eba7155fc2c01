"""The components that a loaded run lacks, since the plugins that it had are missing here, in words for messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins


def missing_components(info: Mapping[str, Any], kinds: Collection[str]) -> list[str]:
    """Of a run that `load_run` refuses: the components of these kinds whose plugins are missing, and their origins."""
    registry = load_plugins().registry
    missing = []
    for label, origin in info.get("components", {}).items():
        kind, _, name = label.partition(".")
        if kind not in kinds:
            continue
        there = {part.name for part in registry.of_kind(kind)} if kind in KINDS else {name}
        if name not in there and not Path(origin.get("file") or ".").is_file():
            whose = f"{origin.get('distribution', '')} {origin.get('version', '')}".strip() or origin.get("file", "")
            missing.append(f"the run had the {kind} {name!r} from {origin.get('plugin')} ({whose})")
    return missing
