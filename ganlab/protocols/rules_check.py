"""Checks the rules of a game before anything is built: names that fit together, and no network without a purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ganlab.protocols.game import Move, Rules, Sampler
from ganlab.utils.errors import did_you_mean, one_line, quote

if TYPE_CHECKING:
    from torch import nn

RESERVED = ("ema", "optimizers", "meters", "random", "components", "progress")
"""Names of other parts of a checkpoint, which no network may have."""


def rules_problems(rules: Any, streams: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each thing in a game's rules that does not fit; `streams` are its other data sets."""
    if not isinstance(rules, Rules):
        yield f"game: build returned {type(rules).__name__}; expected ganlab.Rules"
        return
    networks = list(rules.networks)
    for name in networks:
        if not (isinstance(name, str) and name.isidentifier()) or name in RESERVED:
            yield f"game: a network is named {one_line(repr(name), 60)}; expected a Python name that is not taken"
    for index, name in enumerate(networks):
        given = rules.network(name).given
        yield from _unknown(given, networks[:index], f"what the network {name!r} is given, before it,")
        if given and hasattr(rules.network(name).config, "build"):
            yield f"game: the network {name!r} is given others, and is a configuration; expected a function"
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
    yield from _sampler_problems("its sampler", rules.sampler, networks, streams)
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
    if not move.players:
        yield f"game: {at} has no players; expected the names of the networks that it trains"
    yield from _unknown((*move.players, *move.unfrozen), list(rules.networks), f"the players of {at}")
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


def _unknown(names: tuple[str, ...], known: list[str], what: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            listed = did_you_mean(str(name), known) or f"; the game's networks are: {', '.join(known)}"
            yield f"game: {quote(name)} among {what} is no network of the game{listed}"


def shared_networks(networks: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yields a line for each pair of a game's names that stand for one network."""
    first: dict[int, str] = {}
    for name, network in networks.items():
        if id(network) in first:
            yield f"game: {first[id(network)]!r} and {name!r} are one network; expected one of its own for each name"
        first.setdefault(id(network), name)
