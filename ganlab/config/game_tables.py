"""The tables of a game in the experiment file: its components are top-level tables, its options lie in `[game]`.

Decisions:
- In the file the parts of a game lie flat, since that is what users write: `[generator]`, `[loss]`. In an `Experiment`
  they are the fields of its `game`. This file alone knows both.
- Where a network's table holds the table `optimizer`, it is that of the networks of this table. So is `clip_norm`,
  unless the network has an option of that name. A network that the game makes by a function may have a table of its
  name with these two alone; whether there is such a network is known when the game is built.
- A default game without options of its own is not written, so files and runs from before there were games are equal to
  those of today.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import attrs
from attrs import field, frozen

from ganlab.config import schema
from ganlab.config.converter import InvalidTable, Problem, TableConverter
from ganlab.config.overrides import OF_A_PLAYER
from ganlab.config.schema import DEFAULT_GAME, Experiment, Train
from ganlab.plugin.component import MissingComponent
from ganlab.plugin.fields import COMPONENT, TABLE
from ganlab.plugin.kinds import NETWORK_KINDS
from ganlab.plugin.registry import Registry
from ganlab.protocols import Rules
from ganlab.utils.errors import UserError

OPTIMIZER, CLIP_NORM = OF_A_PLAYER


@frozen
class _Clipping:
    """The options of a network's player that lie in the network's table."""

    clip_norm: float = field(validator=schema.CLIP_NORM)


def game_fields(game: Any) -> tuple[Any, ...]:
    """Returns the attrs fields of a game, or of its class, that are written in the tables of the experiment file."""
    return tuple(f for f in attrs.fields(game if isinstance(game, type) else type(game)) if f.init)


def component_fields(game: Any) -> dict[str, str]:
    """Returns the components of a game's class: the kind of each by the name of its table in the file."""
    return {f.alias: f.metadata[COMPONENT] for f in game_fields(game) if COMPONENT in f.metadata}


def network_tables(game: Any) -> list[str]:
    """Returns the tables in the file of a game's networks, such as "generator"."""
    if isinstance(game, MissingComponent):
        return []
    return [name for name, kind in component_fields(game).items() if kind in NETWORK_KINDS]


def warn_of_unused_networks(experiment: Experiment, registry: Registry, rules: Rules) -> None:
    """Warns of each table of a game's networks that is not as by default, where the game's options leave it out.

    Whether a network that a function makes has a table is only known where its name or its `table` says so. Where one
    has neither, nothing is said.
    """
    game, tables = experiment.game, network_tables(experiment.game)
    networks = {name: rules.network(name) for name in rules.networks}
    used = {*networks, *(network.table for network in networks.values())}
    of_no_table = [name for name, network in networks.items() if {name, network.table}.isdisjoint(tables)]
    if any(not hasattr(networks[name].config, "build") for name in of_no_table):
        return
    name = registry.component_of("game", game).name
    for f in game_fields(game):
        value, is_set = getattr(game, f.name), f.alias in {**experiment.optimizers, **experiment.clip_norms}
        if f.alias not in tables or f.alias in used or any(value is network.config for network in networks.values()):
            continue
        default = registry.find(f.metadata[COMPONENT], f.default).cls() if isinstance(f.default, str) else None
        if is_set or value != default:
            why = f"the game {name!r} leaves this network out with its other options, so the table has no effect"
            warnings.warn(f"{f.alias}: {why}; see ganlab plugins {name}", stacklevel=2)


def file_path(experiment_path: tuple[str, ...], game: Any) -> tuple[str, ...]:
    """Returns where the file has an option of an `Experiment`, for a game: its components are top-level tables."""
    head, *rest = experiment_path
    if head != "game" or not rest:
        return experiment_path
    if rest[0] in component_fields(game):
        return tuple(rest)
    table = {f.alias: f.metadata.get(TABLE, "game") for f in game_fields(game)}.get(rest[0], "game")
    return (table, *rest)


def read_experiment(table: Mapping[str, Any], registry: Registry, optional: Collection[str] = ()) -> Experiment:
    """Reads an experiment from the table of its file, which has the tables of its game; raises InvalidTable."""
    given = table.get("game", DEFAULT_GAME)
    name = given.get("name") if isinstance(given, Mapping) else given
    if not isinstance(name, str):
        try:
            TableConverter(registry).component("game", given)
        except ValueError as error:
            raise InvalidTable([Problem("game", str(error))]) from None
    assert isinstance(name, str)
    try:
        game: Any = registry.find("game", name).cls
    except UserError as error:
        if "game" not in optional:
            path = "game.name" if isinstance(given, Mapping) else "game"
            raise InvalidTable([Problem(path, line) for line in error.problems]) from None
        return _without_game(table, name, registry, optional)
    flat, own, problems = dict(table), {}, []
    functions = _function_tables(flat, game)
    optimizers, norms = _take_optimizers(flat, game, functions), _take_norms(flat, game, registry, functions)
    for f in game_fields(game):
        home = f.metadata.get(TABLE, "game")
        source = flat if COMPONENT in f.metadata else flat.get(home)
        if isinstance(given, Mapping) and f.alias in given and source is not given:
            where = f"a table of its own: [{f.alias}]" if source is flat else f"written in [{home}]"
            problems.append(Problem(f"game.{f.alias}", f"is {where}"))
        if isinstance(source, Mapping) and f.alias in source:
            own[f.alias] = source[f.alias]
    taken = {f.alias for f in game_fields(game) if f.metadata.get(TABLE) == "train"}
    if isinstance(flat.get("train"), Mapping):
        flat["train"] = {key: value for key, value in flat["train"].items() if key not in taken}
    elsewhere = {*component_fields(game), *taken}
    rest = {k: v for k, v in given.items() if k not in elsewhere} if isinstance(given, Mapping) else {}
    taken_keys: dict[type, Collection[str]] = {Train: sorted(taken), Experiment: list(component_fields(game))}
    taken_keys |= {
        part.cls: OF_A_PLAYER
        for table_name, kind in component_fields(game).items()
        if kind in NETWORK_KINDS and isinstance(network := flat.get(table_name), Mapping)
        for part in registry.of_kind(kind)
        if part.name == network.get("name")
    }
    strange = [key for key in _tables_of_other_games(flat, game, registry) if key not in functions]
    whose = f"the game {name!r}, whose tables are: {', '.join(component_fields(game)) or 'none'}"
    problems += [Problem(key, f"is no table of {whose}; remove it") for key in strange]
    flat = {key: value for key, value in flat.items() if key not in {*component_fields(game), *functions, *strange}}
    flat["game"] = {**rest, **own, "name": name}
    converter = TableConverter(registry, optional, taken_keys)
    made = {}
    for key, value in optimizers.items():
        try:
            made[key] = converter.component(OPTIMIZER, value)
        except InvalidTable as error:
            problems += [problem.under(f"{key}.{OPTIMIZER}") for problem in error.problems]
        except ValueError as error:
            problems.append(Problem(f"{key}.{OPTIMIZER}", str(error)))
    for key, norm in norms.items():
        try:
            norms[key] = converter.read({CLIP_NORM: norm}, _Clipping).clip_norm
        except InvalidTable as error:
            problems += [problem.under(key) for problem in error.problems]
    try:
        experiment: Experiment = converter.read(flat, Experiment)
    except InvalidTable as error:
        problems = [_in_file(problem, game) for problem in error.problems] + problems
    if problems:
        raise InvalidTable(problems)
    return attrs.evolve(experiment, optimizers=made, clip_norms=norms)


def _tables_of_other_games(flat: Mapping[str, Any], game: type[Any], registry: Registry) -> list[str]:
    """The tables in the file that the game does not have, and another has, as where a file's game was changed."""
    others = {name for part in registry.of_kind("game") for name in component_fields(part.cls)}
    own = {*component_fields(game), *(f.alias for f in attrs.fields(Experiment))}
    return [name for name in flat if name in others - own]


def _in_file(problem: Problem, game: type[Any]) -> Problem:
    """The problem with the path that the file has."""
    head, _, rest = problem.path.partition(".")
    if head != "game" or not rest:
        return problem
    option, *more = rest.split(".", 1)
    name, bracket, index = option.partition("[")
    return Problem(".".join([".".join(file_path(("game", name), game)) + bracket + index, *more]), problem.message)


def _function_tables(flat: Mapping[str, Any], game: type[Any]) -> dict[str, str]:
    """The tables of a game's networks that functions make: those with nothing but the options of a player."""
    known = {*component_fields(game), *(f.alias for f in attrs.fields(Experiment))}
    return {
        name: "network"
        for name, table in flat.items()
        if name not in known and isinstance(table, Mapping) and table and set(table) <= {OPTIMIZER, CLIP_NORM}
    }


def _take_optimizers(flat: dict[str, Any], game: type[Any], functions: Mapping[str, str]) -> dict[str, Any]:
    """Takes the table `optimizer` out of those of a game's networks; without a name it changes the common one."""
    found = {}
    for name, kind in {**component_fields(game), **functions}.items():
        network = flat.get(name)
        if kind in {*NETWORK_KINDS, "network"} and isinstance(network, Mapping) and OPTIMIZER in network:
            common, own = flat.get(OPTIMIZER, "adam"), network[OPTIMIZER]
            if isinstance(own, Mapping) and "name" not in own:
                own = {**(common if isinstance(common, Mapping) else {"name": common}), **own}
            found[name] = own
            flat[name] = {key: value for key, value in network.items() if key != OPTIMIZER}
    return found


def _take_norms(
    flat: dict[str, Any], game: type[Any], registry: Registry, functions: Mapping[str, str]
) -> dict[str, Any]:
    """Takes the key `clip_norm` out of the tables of a game's networks that have no such option of their own."""
    found = {name: flat[name][CLIP_NORM] for name in functions if CLIP_NORM in flat[name]}
    for name, kind in component_fields(game).items():
        network = flat.get(name)
        if kind in NETWORK_KINDS and isinstance(network, Mapping) and CLIP_NORM in network:
            named = [part for part in registry.of_kind(kind) if part.name == network.get("name")]
            if not any(f.alias == CLIP_NORM for part in named for f in attrs.fields(part.cls)):
                found[name] = network[CLIP_NORM]
                flat[name] = {key: value for key, value in network.items() if key != CLIP_NORM}
    return found


def _without_game(table: Mapping[str, Any], name: str, registry: Registry, optional: Collection[str]) -> Experiment:
    """An experiment whose game is missing, for a command that does not need it."""
    fields = {f.alias for f in attrs.fields(Experiment)}
    own = {key: value for key, value in table.items() if key not in fields}
    train = {f.alias for f in attrs.fields(Train)}
    flat = {key: value for key, value in table.items() if key in fields}
    if isinstance(flat.get("train"), Mapping):
        flat["train"] = {key: value for key, value in flat["train"].items() if key in train}
    flat["game"] = {"name": name, **own}
    experiment: Experiment = TableConverter(registry, optional).read(flat, Experiment)
    return experiment


def write_experiment(experiment: Experiment, registry: Registry) -> dict[str, Any]:
    """Returns the table of an experiment's resolved file, with the tables of its game."""
    converter = TableConverter(registry)
    table = converter.write(experiment)
    game = table.pop("game")
    if not isinstance(experiment.game, MissingComponent):
        parts = component_fields(experiment.game)
        table |= {name: game.pop(name) for name in parts if name in game}
        for f in game_fields(experiment.game):
            if f.alias in game and f.metadata.get(TABLE) == "train":
                table["train"][f.alias] = game.pop(f.alias)
    if game != {"name": DEFAULT_GAME}:
        table["game"] = game
    for name, optimizer in experiment.optimizers.items():
        written = {"name": registry.component_of(OPTIMIZER, optimizer).name, **converter.write(optimizer)}
        table[name] = {**table.get(name, {}), OPTIMIZER: written}
    for name, norm in experiment.clip_norms.items():
        table[name] = {**table.get(name, {}), CLIP_NORM: norm}
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    return {key: value for key, value in table.items() if key not in tables} | tables
