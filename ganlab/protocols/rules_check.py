"""Checks the rules of a game before anything is built: names that fit together, and no network without a purpose."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ganlab.protocols.game import Move, Network, Rules, Sampler
from ganlab.utils.errors import did_you_mean, one_line, quote

if TYPE_CHECKING:
    from torch import nn

NOT_NETWORKS = ("optimizers", "meters", "random", "components", "progress")
"""The parts of a checkpoint that hold no weights."""

RESERVED = ("ema", *NOT_NETWORKS)
"""Names of other parts of a checkpoint, which no network may have."""

LOGGED = re.compile(r"[\w.-]+")
"""What the name of a move or of a term may be, since it is part of names in the log."""


def rules_problems(rules: Any, streams: Mapping[str, Any], tables: Collection[str]) -> Iterator[str]:
    """Yields a line for each thing in a game's rules that does not fit.

    `streams` are its other data sets, and `tables` the component fields of its networks.
    """
    if not isinstance(rules, Rules):
        yield f"game: build returned {type(rules).__name__}; expected ganlab.Rules"
        return
    if wrong := list(_wrong_types(rules)):
        yield from wrong
        return
    networks = list(rules.networks)
    for index, name in enumerate(networks):
        yield from _network_problems(name, rules.network(name), networks, index, tables)
    if not rules.moves:
        yield "game: it has no moves"
    for name, count in Counter(move.name for move in rules.moves).items():
        if count > 1:
            yield f"game: {count} moves are named {name!r}; expected different names"
    for move in rules.moves:
        yield from _move_problems(move, rules)
    trained = {player for move in rules.moves for player in move.players}
    for name in networks:
        if not rules.network(name).frozen and name not in trained:
            yield f"game: no move trains the network {name!r}; name it in a move's players, or declare it frozen"
    if rules.sampler is not None:
        yield from _sampler_problems("its sampler", rules.sampler, networks, streams)
    elif rules.samplers:
        yield f"game: it has samplers, {', '.join(map(str, rules.samplers))}, and no sampler; expected the main one"
    elif not rules.outputs:
        yield (
            "game: it has no sampler and no outputs, so nothing could be scored; expected ganlab.Sampler, as "
            "sampler_of(NAME) returns, or outputs for metrics"
        )
    for name, further in rules.samplers.items():
        if not (isinstance(name, str) and name.isidentifier()):
            yield f"game: a sampler is named {one_line(repr(name), 60)}; expected a Python name"
        elif not isinstance(further, Sampler):
            yield f"game: its sampler {name!r} is {type(further).__name__}; expected ganlab.Sampler"
        else:
            yield from _sampler_problems(f"its sampler {name!r}", further, networks, streams)
    for name, output in rules.outputs.items():
        if not (isinstance(name, str) and callable(output)):
            yield f"game: its output {name!r} is {type(output).__name__}; expected a function, by a name"
    for name, part in rules.state.items():
        if not _is_name(name):
            yield f"game: a part of its state is named {one_line(repr(name), 60)}; expected a Python name"
        lacking = [method for method in ("state_dict", "load_state_dict") if not callable(getattr(part, method, None))]
        if lacking:
            yield f"game: its state {name!r}, {_of_type(part)}, has no {' and no '.join(lacking)}"


def _wrong_types(rules: Rules) -> Iterator[str]:
    """Of a game's rules, what is not of the type that it is declared to be."""
    for name in ("networks", "state", "outputs", "samplers"):
        if not isinstance(getattr(rules, name), Mapping):
            yield f"game: its {name} are {_of_type(getattr(rules, name))}; expected a dict, by name"
    if not isinstance(rules.moves, Sequence):
        yield f"game: its moves are {_of_type(rules.moves)}; expected a list"
    if not isinstance(rules.sampler, Sampler | None):
        yield f"game: its sampler is {_of_type(rules.sampler)}; expected ganlab.Sampler, as sampler_of(NAME) returns"
    elif rules.sampler is not None:
        yield from _texts(rules.sampler.networks, "its sampler: networks")
        for name in ("images", "latents"):
            if not callable(getattr(rules.sampler, name)):
                yield f"game: its sampler: {name} is {_of_type(getattr(rules.sampler, name))}; expected a function"
    for index, move in enumerate(rules.moves if isinstance(rules.moves, Sequence) else ()):
        if not isinstance(move, Move):
            yield f"game: its moves[{index}] is {_of_type(move)}; expected ganlab.Move"
            continue
        for name in ("players", "unfrozen"):
            yield from _texts(getattr(move, name), f"the move {move.name!r}: {name}")
        if not callable(move.terms):
            yield f"game: the move {move.name!r}: terms is {_of_type(move.terms)}; expected a function of a turn"
    for name, given in rules.networks.items() if isinstance(rules.networks, Mapping) else ():
        network = given if isinstance(given, Network) else Network(given)
        yield from _texts(network.given, f"the network {name!r}: given")
        config, meant = network.config, "expected a component, or ganlab.Network(function)"
        if _is_module(config):
            yield f"game: the network {name!r} is a module, {_of_type(config)}; {meant} that returns the module"
        elif not hasattr(config, "build") and not (isinstance(given, Network) and callable(config)):
            yield f"game: the network {name!r} is {_of_type(config)}; {meant} with a function that returns a module"


def _is_module(value: Any) -> bool:
    from torch import nn

    return isinstance(value, nn.Module)


def _of_type(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _texts(names: Any, what: str) -> Iterator[str]:
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        yield f"game: {what} is {one_line(repr(names), 60)}; expected a tuple of names, such as ('encoder',)"


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _network_problems(
    name: str, network: Network, networks: list[str], index: int, tables: Collection[str]
) -> Iterator[str]:
    """Of a game's rules, the problems of one network."""
    if not _is_name(name) or name in RESERVED:
        yield f"game: a network is named {one_line(repr(name), 60)}; expected a Python name that is not taken"
    given, before = network.given, networks[:index]
    for later in given:
        if later in networks and later not in before:
            yield f"game: the network {name!r} is given {later!r}, which is not before it; list {later!r} first"
    known = [one for one in given if one not in networks or one in before]
    yield from _unknown(known, before, f"what the network {name!r} is given, before it,")
    if hasattr(network.config, "build"):
        if given:
            yield f"game: the network {name!r} is given others, and is a configuration; expected a function"
    elif why := _why_not_callable(network.config, len(given)):
        networks_given = f"the networks in given, {', '.join(given)}" if given else "no argument, since given is empty"
        yield f"game: the function of the network {name!r} is called with {networks_given}: {why}"
    if network.table and network.table not in tables:
        listed = did_you_mean(network.table, tables) or f"; there are: {', '.join(tables) or 'none'}"
        yield f"game: the network {name!r}: table is {network.table!r}, no component field of a network{listed}"


def _why_not_callable(function: Callable[..., Any], count: int) -> str:
    """Why a function cannot be called with this many arguments; empty if it can, or where nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*range(count))
    except TypeError as error:
        return one_line(error)
    return ""


def _sampler_problems(what: str, sampler: Sampler, networks: list[str], streams: Mapping[str, Any]) -> Iterator[str]:
    """Of a game's rules, the problems of one sampler."""
    the = what.replace("its", "the", 1)
    if not sampler.networks:
        yield f"game: {what} names no networks; nothing could be sampled{' or scored' if what == 'its sampler' else ''}"
    yield from _unknown(sampler.networks, networks, f"the networks of {the}")
    if sampler.source and sampler.source not in (sources := ["dataset", *streams]):
        yield f"game: the source of {the} is {sampler.source!r}; the game's data sets are: {', '.join(sources)}"
    if sampler.makes and (sampler.makes not in streams or what == "its sampler"):
        wanted = f"the game's other data sets are: {', '.join(streams) or 'none'}"
        wanted = "what is scored is like [dataset]" if what == "its sampler" else wanted
        yield f"game: {the} makes images of {sampler.makes!r}; {wanted}"
    for name, value in sampler.options.items():
        if not (isinstance(name, str) and name.isidentifier()) or type(value) not in (float, int, bool, str):
            shown = f"{one_line(repr(name), 60)} = {one_line(repr(value), 60)}"
            yield f"game: {what} has the option {shown}; expected a Python name and a number, a bool or a text"


def _move_problems(move: Move, rules: Rules) -> Iterator[str]:
    """Of a game's rules, the problems of one move."""
    at = f"the move {move.name!r}"
    if not (isinstance(move.name, str) and LOGGED.fullmatch(move.name)):
        yield f"game: a move is named {one_line(repr(move.name), 60)}; expected letters, digits, '_', '-' and '.'"
    if not move.players:
        yield f"game: {at} has no players; expected the names of the networks that it trains"
    yield from _unknown(move.players, list(rules.networks), f"the players of {at}")
    yield from _unknown(move.unfrozen, list(rules.networks), f"what {at} names as unfrozen")
    for name, count in Counter(move.players).items():
        if count > 1:
            yield f"game: {at} names the player {name!r} {count} times"
    for name in move.players:
        if name in rules.networks and rules.network(name).frozen:
            yield f"game: {at} trains the network {name!r}, which is declared frozen"
    for option, least in (("repeats", 1), ("every", 1), ("start", 0)):
        value = getattr(move, option)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            yield f"game: {at}: {option} is {value!r}; expected a whole number of at least {least}"


def _unknown(names: Iterable[str], known: list[str], what: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            listed = did_you_mean(str(name), known) or f"; the game's networks are: {', '.join(known)}"
            yield f"game: {quote(name)} among {what} is no network of the game{listed}"


def built_network_problems(rules: Rules, networks: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yields a line for each network of a game, once built, that shares with another what is trained, or has nothing.

    Each network has an optimiser of its own, so a weight of two would be changed twice in an update; and where one of
    them is frozen, its weights are never trained.
    """
    first: dict[int, tuple[str, str]] = {}
    modules: dict[int, str] = {}
    found: set[tuple[str, str]] = set()
    idle = []
    for name, network in networks.items():
        frozen = rules.network(name).frozen
        if id(network) in modules:
            yield f"game: {modules[id(network)]!r} and {name!r} are one network; expected one of its own for each name"
            continue
        modules[id(network)] = name
        if not frozen and not any(parameter.requires_grad for parameter in network.parameters()):
            idle.append(name)
        for path, parameter in network.named_parameters():
            other, of_other = first.setdefault(id(parameter), (name, path))
            if other != name and (other, name) not in found and not (frozen and rules.network(other).frozen):
                found.add((other, name))
                at_rest = name if frozen else other if rules.network(other).frozen else ""
                yield (
                    f"game: the networks {other!r} and {name!r} share parameters, such as {of_other!r} of {other!r}, "
                    + (
                        f"and {at_rest!r} is declared frozen, so that nothing would train them"
                        if at_rest
                        else "which two optimisers would change; make what they share a network of its own"
                    )
                )
    for name in idle:
        if not any(name in pair for pair in found):
            yield f"game: the network {name!r} has no parameters to train; declare it frozen, and no player of a move"
