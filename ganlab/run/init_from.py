"""The weights that a run begins with (`[init_from]`): reads them from a checkpoint of another run, or from a file.

Decisions:
- Of another run the checkpoint's files are read, and not its experiment: its plugins may be missing here.
- They are read once, where a run begins. run.json has the hashes of the files (`initialised`) and what was taken of
  them (`init_from`), so that the run is whole without them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ganlab.config.schema import InitFrom
from ganlab.nn.initialise import initialise_by
from ganlab.nn.pretrained import note_weights, noted_weights, read_weights
from ganlab.nn.transfer import Transferred, renamed, transfer_weights
from ganlab.protocols import Rules
from ganlab.protocols.rules_check import NOT_NETWORKS
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.utils.errors import ComponentError, UserError, did_you_mean, one_line, quote
from ganlab.utils.paths import expand_home

EMA = "ema"
"""The part of a checkpoint with the running average of the one network that is averaged; of several, `ema.NETWORK`."""

MOST_LISTED = 40
"""How many layers of a network that begin anew, or tensors that are not used, are listed; run.json lists all."""


@frozen
class Source:
    """Where the weights that a run begins with are from: its tensors, and the files that hold them.

    `tensors` have the name of their network there before their own. `files` are by the network's name, or one alone by
    "". `averaged` are the networks whose weights are running averages. `names` are names there by names here, and
    `known` the first parts of all names there.
    """

    where: str
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]
    names: Mapping[str, str]
    known: tuple[str, ...]
    averaged: frozenset[str] = frozenset()

    @property
    def contents(self) -> str:
        """What there is to begin with, in words."""
        more = f" and {len(self.known) - 8} more" if len(self.known) > 8 else ""
        return f"it has {', '.join(self.known[:8]) or 'nothing'}{more}"

    def file_of(self, tensor: str) -> Path:
        return self.files.get("") or self.files[_first(tensor)]


@define
class InitialWeights:
    """The weights that a run begins with; called by `build`, it loads them into the game's networks.

    Afterwards `record` is what run.json says of them, and `lines` what the user is told.
    """

    config: InitFrom
    record: dict[str, Any] = field(factory=dict)
    lines: list[str] = field(factory=list)

    def __call__(self, rules: Rules, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, str]]:
        """Loads a run's first weights into its networks; returns the hashes of the files by network and path.

        Raises UserError with a line for each thing that does not fit.
        """
        config = self.config = with_names_of_file(self.config)
        self.lines.clear()
        if unknown := [name for name in (*config.networks, *map(_first, config.names)) if name not in networks]:
            there = did_you_mean(unknown[0], networks) or f"; its networks are: {', '.join(networks)}"
            raise UserError(f"init_from: the game has no network {quote(unknown[0])}{there}")
        wanted = config.networks or tuple(name for name in networks if not rules.network(name).frozen)
        source = _read_run(config, wanted) if config.run is not None else _read_file(config, wanted, networks)
        begun: dict[str, dict[str, str]] = {}
        problems = list(_unknown_names(config.names, networks, source))
        for name in wanted:
            try:
                read = self._begin(name, networks[name], source)
            except UserError as error:
                problems += error.problems
            except ComponentError as error:
                problems.append(f"init_from: {name}: {one_line(error)}")
            else:
                if read:
                    begun[name] = read
        if not begun and not problems:
            problems.append(f"init_from: {source.where} has weights of no network of the game; {source.contents}")
        if problems:
            raise UserError(*problems)
        return begun

    def _begin(self, name: str, network: nn.Module, source: Source) -> dict[str, str]:
        """Has one network of a run begin with its weights; returns the files' hashes, none where it begins anew."""
        config = self.config
        there = {tensor: renamed(f"{name}.{tensor}", source.names) for tensor in network.state_dict()}
        given = {tensor: source.tensors[other] for tensor, other in there.items() if other in source.tensors}
        if not given:
            nothing = f"init_from: {source.where} has no weights of {name}; {source.contents}"
            if config.networks or config.strict:
                raise UserError(nothing)
            self.lines.append(f"{nothing}: {name} begins anew")
            return {}
        done: list[Transferred] = []
        with noted_weights() as read:
            for file in {source.file_of(there[tensor]) for tensor in given}:
                note_weights(file)
            if config.names_file is not None:
                note_weights(expand_home(config.names_file))
            initialise_by(partial(_transfer, given, done), network)
        (found,) = done
        left = [f"{_joined(name, layer)} begins anew: {why}" for layer, why in found.left.items()]
        if not found.taken:
            raise UserError(f"init_from: no layer of {name} fits those of {source.where}; {left[0]}")
        unused = _not_asked_for(name, there, source)
        more = [f"not used: {tensor}" for tensor in unused]
        if config.strict and (left or more):
            raise UserError(*(f"init_from.strict: {line}" for line in _listed(left + more, name)))
        kind = "averaged" if _first(renamed(name, source.names)) in source.averaged else "plain"
        self.record[name] = {"from": source.where, "weights": kind, "layers": len(found.taken)}
        self.record[name] |= {"new": dict(found.left), "unused": unused}
        of = f"{len(found.taken)} of {len(found.taken) + len(left)} layers"
        self.lines.append(f"init_from: {of} of {name} begin with the {kind} weights of {source.where}")
        self.lines += [f"init_from: {line}" for line in _listed(left, name)]
        if more:
            self.lines.append(f"init_from: {len(more)} tensors of {source.where} are not used, such as {unused[0]}")
        return read


def with_names_of_file(config: InitFrom) -> InitFrom:
    """What a run is to begin with, with the names of `names_file` among its names. Raises UserError."""
    if config.names_file is None:
        return config
    path = expand_home(config.names_file)
    try:
        read = json.loads if path.suffix == ".json" else tomllib.loads
        names = _flat(read(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"init_from.names_file: {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"init_from.names_file: {path}: {one_line(error)}") from None
    return evolve(config, names={**names, **config.names})


def _flat(table: Any) -> dict[str, str]:
    """Names there by names here, of a table that a run is to begin with, which may have tables. Raises ValueError."""
    if not isinstance(table, dict):
        raise ValueError("is no table of names; wanted name here = name there")
    found: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, str):
            found[name] = value
        elif isinstance(value, dict):
            found |= {f"{name}.{own}": other for own, other in _flat(value).items()}
        else:
            raise ValueError(f"{quote(name)} is {one_line(repr(value), 40)}; wanted a name")
    return found


def _transfer(given: Mapping[str, Tensor], done: list[Transferred], network: nn.Module) -> None:
    done.append(transfer_weights(network, given))


def _read_run(config: InitFrom, wanted: Iterable[str]) -> Source:
    """Reads what a run is to begin with from a checkpoint of another."""
    assert config.run is not None
    folder = expand_home(config.run)
    try:
        read_info(folder)
    except UserError as error:
        raise UserError(*(f"init_from.run: {line}" for line in error.problems)) from None
    saved = list_checkpoints(folder / "checkpoints")
    if not saved:
        raise UserError(f"init_from.run: {folder}: this run has no checkpoint yet")
    step = max(saved) if config.step is None else config.step
    if step not in saved:
        listed = ", ".join(map(str, saved))
        raise UserError(f"init_from.step: {folder} has no checkpoint of step {step}; there are: {listed}")
    checkpoint = saved[step]
    parts = {file.stem: file for file in sorted(checkpoint.glob("*.safetensors")) if file.stem not in NOT_NETWORKS}
    averages = _averages(parts) if config.ema is not False else {}
    if config.ema and not averages:
        raise UserError(f"init_from.ema: {folder} has no running average at step {step:,}")
    names = {_first(renamed(name, config.names)) for name in wanted} | {_first(to) for to in config.names.values()}
    read = {name: averages.get(name, name) for name in names if name in parts and not _is_average(name)}
    try:
        states = load_checkpoint(checkpoint, set(read.values()))
    except DamagedCheckpoint as error:
        raise UserError(f"init_from.run: {one_line(error)}") from None
    tensors = {
        f"{name}.{key}": value
        for name, part in read.items()
        for key, value in states[part].items()
        if isinstance(value, Tensor)
    }
    files = {name: parts[part] for name, part in read.items()}
    where = f"{folder} at step {step:,}"
    known = tuple(name for name in parts if not _is_average(name))
    return Source(where, tensors, files, config.names, known, frozenset(read.keys() & averages.keys()))


def _is_average(part: str) -> bool:
    return part == EMA or part.startswith(f"{EMA}.")


def _averages(parts: Mapping[str, Path]) -> dict[str, str]:
    """The parts of a checkpoint to begin with that are running averages, by their networks' names."""
    found = {part.partition(".")[2]: part for part in parts if part.startswith(f"{EMA}.")}
    if EMA in parts:
        own = _shapes(parts[EMA])
        alike = [name for name, file in parts.items() if not _is_average(name) and _shapes(file) == own]
        if len(alike) != 1:
            raise UserError(
                f"init_from.ema: which network the average in {parts[EMA].parent} is of cannot be told: "
                f"{', '.join(alike) or 'none'} have the same layers; ema = false takes the weights themselves"
            )
        found[alike[0]] = EMA
    return found


def _shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a checkpoint's file of weights to begin with, by name; it is not read whole."""
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"init_from.run: {file}: cannot be read: {one_line(error)}") from None


def _read_file(config: InitFrom, wanted: tuple[str, ...], networks: Mapping[str, nn.Module]) -> Source:
    """Reads what a run is to begin with from a file: of one network, or of several with their names before each."""
    assert config.file is not None
    path = expand_home(config.file)
    try:
        tensors = read_weights(path, nested=True)
    except ComponentError as error:
        raise UserError(f"init_from.file: {error}") from None
    source = Source(str(path), tensors, {"": path}, config.names, tuple(dict.fromkeys(map(_first, tensors))))
    if config.names or set(source.known) & set(wanted):
        return source
    if len(wanted) > 1:
        raise UserError(
            f"init_from.file: it is not said which network the weights in {path} are of ({source.contents}); write "
            f"networks = [{quote(wanted[0])}], or another"
        )
    is_bare = len(source.known) != 1 or any(name in tensors for name in networks[wanted[0]].state_dict())
    return evolve(source, names={wanted[0]: "" if is_bare else source.known[0]})


def _unknown_names(names: Mapping[str, str], networks: Mapping[str, nn.Module], source: Source) -> Iterator[str]:
    """Yields a line for each name in `init_from.names` that nothing here, or nothing there, has."""
    here = [f"{name}.{tensor}" for name, network in networks.items() for tensor in network.state_dict()]
    for own, other in names.items():
        for name, known, place in ((own, here, "the game"), (other, list(source.tensors), source.where)):
            if name and not any(f"{tensor}.".startswith(f"{name}.") for tensor in known):
                beginnings = {".".join(tensor.split(".")[: name.count(".") + 1]) for tensor in known}
                near = did_you_mean(name, sorted(beginnings))
                yield f"init_from.names: {quote(name)}: {place} has no tensor of that name{near}"


def _not_asked_for(name: str, there: Mapping[str, str], source: Source) -> list[str]:
    """The tensors of a network of the source that the network here, which is to begin with them, does not have."""
    root = renamed(name, source.names)
    own = [tensor for tensor in source.tensors if not root or tensor.startswith(f"{root}.")]
    used = {
        *there.values(),
        *(
            tensor
            for target in source.names.values()
            if target and target != root
            for tensor in own
            if tensor.startswith(f"{target}.")
        ),
    }
    return [tensor for tensor in own if tensor not in used]


def _listed(lines: list[str], name: str) -> list[str]:
    """The lines about a network that begins with other weights, or the first of them and how many there are."""
    more = len(lines) - MOST_LISTED
    return lines if more <= 0 else [*lines[:MOST_LISTED], f"{name}: and {more} more"]


def _first(name: str) -> str:
    return name.partition(".")[0]


def _joined(name: str, layer: str) -> str:
    return f"{name}.{layer}" if layer else name
