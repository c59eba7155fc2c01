"""What a loaded run's samples depend on and that is not as the run had it: overrides, the plugin's code, conditions.

It belongs in the protocol of a score: otherwise scores of other images would compare with the run's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.game_tables import component_fields, file_path, game_fields
from ganlab.config.load import convert_experiment
from ganlab.config.toml import read_toml
from ganlab.plugin.fields import TABLE
from ganlab.plugin.kinds import KINDS, NETWORK_KINDS
from ganlab.run.load_run import Run
from ganlab.utils.hashing import tensors_sha256


def sampling_changes(run: Run, of_all_networks: bool = False) -> dict[str, Any]:
    """Returns what is sampled otherwise than in the run, as entries of a score's protocol; empty where nothing is.

    `overrides`: options of the components that are sampled, by their path, None where one is left out. `code`: their
    plugins' files, by hash, where they are not those of run.json. `conditions`: the hash of other condition images.
    `of_all_networks`: also of networks that are not sampled, which a game's outputs may use.
    """
    options = _sampled_options(run, of_all_networks)
    found = {
        "overrides": _changed_options(run, options),
        "code": _changed_code(run, options),
        "conditions": _other_conditions(run),
    }
    return {key: value for key, value in found.items() if value}


def _changed_options(run: Run, options: Sequence[str]) -> dict[str, Any]:
    """Those of a game's options by which a loaded run samples otherwise, with their values now."""
    if not run.overrides:
        return {}
    converter = TableConverter(run.plugins.registry, KINDS.keys())
    before: Any = run.experiment
    with contextlib.suppress(InvalidTable):  # with the defaults of options that are newer than the run
        own: Mapping[str, Any] = read_toml(run.path / "experiment.toml")
        before = convert_experiment(own, run.plugins, KINDS.keys())
    first, second = (converter.write(experiment.game) for experiment in (before, run.experiment))
    if type(before.game) is not type(run.experiment.game):
        return {"game": second}
    game = run.experiment.game
    return {
        ".".join(file_path(("game", option, *more), game)): value
        for option in options
        for more, value in _differences(first.get(option), second.get(option))
    }


def _sampled_options(run: Run, of_all_networks: bool) -> list[str]:
    """The options of a loaded run's game that its samples depend on: the sampled networks, and what is no component."""
    game, sampled = run.experiment.game, run.sampler.sampler.networks
    own = component_fields(game)
    tables = {run.rules.network(name).table or name for name in sampled}
    # A network that the game makes by itself may depend on any component of networks.
    if of_all_networks or not tables <= own.keys():
        tables |= {name for name, kind in own.items() if kind in NETWORK_KINDS}
    return [f.alias for f in game_fields(game) if f.alias in tables or (f.alias not in own and TABLE not in f.metadata)]


def _differences(before: Any, now: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), (*at, str(key)))
    elif before != now:
        yield at, now


def _changed_code(run: Run, options: Sequence[str]) -> dict[str, Any]:
    """The plugin files by which a loaded run samples otherwise: those of other components or with other content."""
    converter, before = TableConverter(run.plugins.registry), run.info.get("components", {})
    imports = run.info.get("imports")  # runs of earlier releases have none
    changed: dict[str, Any] = {}
    game, own_kinds = run.experiment.game, component_fields(run.experiment.game)
    sampled = [run.plugins.registry.component_of("game", game)]
    for name in options:
        if name in own_kinds:
            part = getattr(game, name)
            sampled += [run.plugins.registry.component_of(own_kinds[name], part), *converter.components_in(part)]
    for part in sampled:
        label, record = f"{part.kind}.{part.name}", part.origin.record()
        if part.origin.source == "bundled":  # the release is in each protocol
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
    source = run.sampler.sampler.source
    if source and run.condition_data is not None:  # the images themselves of a data set
        had = run.info.get("dataset") if source == "dataset" else run.info.get("streams_data", {}).get(source)
        same = had is None or had.get("fingerprint") in (None, run.condition_data.fingerprint)
        return None if same else run.condition_data.fingerprint
    now = tensors_sha256({"condition": run.conditions.known})
    before = run.info.get("dataset", {}).get("condition_sha256")
    return None if before in (None, now) else now
