"""What a loaded run's samples depend on and that is not as the run had it: overrides, the plugin's code, conditions.

It belongs in the protocol of a score: otherwise scores of other images would compare with the run's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.load import convert_experiment
from ganlab.config.toml import read_toml
from ganlab.plugin.kinds import KINDS
from ganlab.run.load_run import NEEDED_TO_SAMPLE, Run
from ganlab.utils.hashing import tensors_sha256


def sampling_changes(run: Run) -> dict[str, Any]:
    """Returns what is sampled otherwise than in the run, as entries of a score's protocol; empty where nothing is.

    `overrides`: options of the components that are sampled, by their path, None where one is left out. `code`: their
    plugins' files, by hash, where they are not those of run.json. `conditions`: the hash of other condition images.
    """
    found = {"overrides": _changed_options(run), "code": _changed_code(run), "conditions": _other_conditions(run)}
    return {key: value for key, value in found.items() if value}


def _changed_options(run: Run) -> dict[str, Any]:
    """The options by which a loaded run samples otherwise, with their values now."""
    if not run.overrides:
        return {}
    converter = TableConverter(run.plugins.registry, KINDS.keys())
    own: Mapping[str, Any] = read_toml(run.path / "experiment.toml")
    with contextlib.suppress(InvalidTable):  # with the defaults of options that are newer than the run
        own = converter.write(convert_experiment(own, run.plugins, KINDS.keys()))
    now = converter.write(run.experiment)
    first, second = ({key: table.get(key) for key in NEEDED_TO_SAMPLE} for table in (own, now))
    return _differences(first, second)


def _differences(before: Any, now: Any, at: str = "") -> dict[str, Any]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted({*before, *now})
        paths = {key: f"{at}.{key}" if at else str(key) for key in keys}
        return {p: v for key in keys for p, v in _differences(before.get(key), now.get(key), paths[key]).items()}
    return {} if before == now else {at: now}


def _changed_code(run: Run) -> dict[str, Any]:
    """The plugin files by which a loaded run samples otherwise: those of other components or with other content."""
    converter, before = TableConverter(run.plugins.registry), run.info.get("components", {})
    imports = run.info.get("imports")  # runs of earlier releases have none
    changed: dict[str, Any] = {}
    for part in converter.components_in(run.experiment):
        label, record = f"{part.kind}.{part.name}", part.origin.record()
        if part.kind not in NEEDED_TO_SAMPLE or part.origin.source == "bundled":  # the release is in each protocol
            continue
        own = {name: of["sha256"] for name, of in part.origin.imports().items()}
        then = own if imports is None else {n: of["sha256"] for n, of in imports.get(part.origin.plugin, {}).items()}
        if before.get(label, {}).get("sha256") != record.get("sha256") or then != own:
            changed[label] = {"sha256": record.get("sha256"), **({"imports": own} if own else {})}
    return changed


def _other_conditions(run: Run) -> str | None:
    """The hash of the condition images that a loaded run samples for, if they are not those that it was trained with.

    Classes are drawn as often as run.json says, whatever the data are now.
    """
    if run.info.get("condition") != "images" or run.conditions.known is None:
        return None
    now = tensors_sha256({"condition": run.conditions.known})
    before = run.info.get("dataset", {}).get("condition_sha256")
    return None if before in (None, now) else now
