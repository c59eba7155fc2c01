"""A network of a run as it is exported: called with tensors alone, each by a name, with a row for every image.

Decisions:
- What is exported by default is what is sampled and scored: latents, and conditions where there are any, to images.
- What any other network is called with is not declared anywhere. So it is watched, on examples: its samplers make
  images, the game judges images, makes its outputs of them, and takes the moves of a step. The first call counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab import __version__
from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.evaluation.sampling import sample_inputs
from ganlab.protocols import Batch, DataSpec, ImageSpec
from ganlab.run.load_run import Run
from ganlab.training.game import Game
from ganlab.utils.errors import ComponentError, UserError, did_you_mean, quote
from ganlab.utils.named import Named


@frozen(eq=False)
class ExportedNetwork:
    """A network as it is exported. `inputs(count)` returns an example of its inputs by name, of `count` rows each.

    `module` is called with them in this order, and returns a tuple of tensors, which `outputs` names. `networks` are
    the run's networks in it. `facts` say what it is of, for the file.
    """

    module: nn.Module
    inputs: Callable[[int], dict[str, Tensor]]
    outputs: tuple[str, ...]
    networks: Mapping[str, nn.Module]
    facts: Mapping[str, Any]


class _Slot(str):
    """Where a tensor of this name goes in what an exported network is called with."""

    __slots__ = ()


@frozen
class _Empty:
    """Stands for a tensor without values, as the latents of a translator are: no input, but rows of this shape."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class _CalledWithTensors(nn.Module):
    """An exported network that is called with tensors alone: they are put in the places where it was given them."""

    def __init__(self, network: nn.Module, names: tuple[str, ...], arguments: Any, named: Any) -> None:
        super().__init__()
        self.network, self.names, self.arguments, self.named = network, names, arguments, named

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.names, tensors, strict=True))
        output = self.network(*_filled(self.arguments, given), **_filled(self.named, given))
        return tuple(_tensors_by_name(output, "output").values())


def exported_sampler(run: Run) -> ExportedNetwork:
    """Returns the sampler of a run as it is exported: from latents and conditions to images."""
    run.check_samples()
    sampler, conditions = run.sampler, run.conditions

    def drawn(count: int) -> tuple[Tensor, Any]:
        z, condition = next(sample_inputs(sampler, count, 0, conditions))
        return z, condition

    z, condition = drawn(2)
    prior = {"latents": list(z.shape[1:]), "prior": _prior(sampler, z)} if z[0].numel() else {}
    options = {"options": dict(sampler.options)} if sampler.options else {}
    of = {"sampler": run.sampler_name} if run.sampler_name else {}
    values = "[-1, 1]" if run.sampled.dtype != "float32" else "those of the data"
    networks = {name: run.networks[name] for name in sampler.sampler.networks}
    facts = {**_facts(run, networks), **of, **prior, **options, "values": values}
    names = ("latents", _name_of(condition))
    return _exported(sampler, lambda count: (drawn(count), {}), names, networks, facts, "images")


def _prior(sampler: NetworkSampler, z: Tensor) -> str:
    """What an exported sampler's latents are drawn from, as far as it can be told."""
    again = draw_latents(sampler, len(z), torch.Generator().manual_seed(0))
    normal = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    return "standard normal" if torch.equal(again, normal) else "as the game's sampler draws them"


def _name_of(condition: Any) -> str:
    """The name of an exported network's input that is a condition."""
    if not isinstance(condition, Tensor):
        return "condition"
    return {1: "labels", 4: "condition_images"}.get(condition.ndim, "attributes")


def exported_network(run: Run, name: str) -> ExportedNetwork:
    """Returns one network of a run by its name as it is exported; UserError for a name that it has not."""
    if name not in run.networks:
        known = ", ".join(run.networks)
        near = did_you_mean(name, run.networks) or f"; its networks are: {known}"
        raise UserError(f"--network {quote(name)}: the run has no such network{near}")
    network = run.networks[name]

    def called(count: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return _watched(run, name, count)

    arguments, _ = called(2)
    names = list(inspect.signature(network.forward).parameters)
    names += [f"input_{index}" for index in range(len(names), len(arguments))]
    return _exported(network, called, tuple(names), {name: network}, _facts(run, [name]), "output")


def _facts(run: Run, networks: Iterable[str]) -> dict[str, Any]:
    """What an exported file says of the run that it is of, and of the networks in it."""
    return {
        "name": run.info["name"],
        "seed": run.info["seed"],
        "step": run.step,
        "weights": run.weights if {*networks} <= {*run.rules.sampled} else "plain",
        "ganlab": __version__,
        "networks": list(networks),
    }


def _exported(
    network: nn.Module,
    called: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]],
    names: tuple[str, ...],
    networks: Mapping[str, nn.Module],
    facts: Mapping[str, Any],
    output: str,
) -> ExportedNetwork:
    """An exported network, by what it is called with: positional and named arguments for a count of rows."""

    def inputs(count: int) -> tuple[dict[str, Tensor], Any, Any]:
        found: dict[str, Tensor] = {}
        arguments, named = called(count)
        slots = [_emptied(value, name, found) for value, name in zip(arguments, names, strict=False)]
        return found, slots, {name: _emptied(value, name, found) for name, value in named.items()}

    found, arguments, named = inputs(2)
    if not found:
        raise UserError(f"export: {', '.join(networks)}: called with neither latents nor conditions, so without inputs")
    module = _CalledWithTensors(network, tuple(found), arguments, named).eval()
    with torch.no_grad():
        given = network(*_filled(arguments, found), **_filled(named, found))
    outputs = tuple(_tensors_by_name(given, output))
    if not outputs:
        raise UserError(f"export: {', '.join(networks)}: returns no tensors, but {type(given).__name__}")
    shapes = {name: {"shape": ["batch", *of.shape[1:]], "dtype": str(of.dtype)[6:]} for name, of in found.items()}
    facts = {**facts, "inputs": shapes, "outputs": list(outputs)}
    return ExportedNetwork(module, lambda count: inputs(count)[0], outputs, networks, facts)


def _emptied(value: Any, name: str, found: dict[str, Tensor]) -> Any:
    """A value with a slot in place of each tensor, which is added to `found`, the inputs of an exported network."""
    if isinstance(value, Tensor) and 0 in value.shape[1:]:
        return _Empty(tuple(value.shape[1:]), value.dtype)
    if isinstance(value, Tensor):
        found[name] = value
        return _Slot(name)
    if isinstance(value, Mapping):
        return {key: _emptied(item, f"{name}_{key}", found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_emptied(item, f"{name}_{index}", found) for index, item in enumerate(value)]
    return value


def _filled(value: Any, given: Mapping[str, Tensor]) -> Any:
    """A value of `_emptied` with the tensors that an exported network is given in its slots."""
    if isinstance(value, _Slot):
        return given[value]
    if isinstance(value, _Empty):
        rows = next(iter(given.values()))
        return rows.new_zeros((rows.shape[0], *value.shape), dtype=value.dtype)
    if isinstance(value, dict):
        return {key: _filled(item, given) for key, item in value.items()}
    return [_filled(item, given) for item in value] if isinstance(value, list) else value


def _tensors_by_name(value: Any, name: str) -> dict[str, Tensor]:
    """The tensors that an exported network returns: one, several in a list, or those of an object by their names."""
    if isinstance(value, Tensor):
        return {name: value}
    if attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        return {key: of for part, item in value.items() for key, of in _tensors_by_name(item, str(part)).items()}
    if isinstance(value, list | tuple):
        parts = [_tensors_by_name(item, f"{name}_{index}") for index, item in enumerate(value)]
        return {key: of for part in parts for key, of in part.items()}
    return {}


class _Seen(Exception):
    """Ends the watching of a network that is to be exported: it was called."""


def _watched(run: Run, name: str, count: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a network that is to be exported is called with, on examples of `count` rows; UserError where it is not."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(network: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append((arguments, named))
        raise _Seen

    handle = run.networks[name].register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for use in _uses(run, count):
                # A use that needs what an example does not have ends so; another may call the network.
                with suppress(_Seen, ComponentError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
                    use()
                if calls:
                    return calls[0]
    finally:
        handle.remove()
    raise UserError(f"--network {name}: the game calls it with nothing here, so its inputs are not known")


def _uses(run: Run, count: int) -> Iterator[Callable[[], Any]]:
    """Yields what may call a network that is to be exported: samplers, the judge, outputs, the moves."""
    streams = {name: ImageSpec.recorded(of) for name, of in run.info.get("streams", {}).items()}
    images = ImageSpec.recorded(run.info["images"])
    rules = run.experiment.game.build(DataSpec(images, streams))
    for name in rules.all_samplers:

        def sampled(name: str = name) -> None:
            chosen = run.with_sampler(name)
            chosen.sampler(*next(sample_inputs(chosen.sampler, count, 0, chosen.conditions)))

        yield sampled
    conditional = run.info.get("condition") is not None
    batch = _example(images, count, conditional)
    batch = Batch(batch.images, batch.condition, {name: _example(of, count, True) for name, of in streams.items()})
    if rules.judge is not None:
        judge = rules.judge
        yield lambda: judge(run.networks, batch.images, batch.condition)
    for output in rules.outputs.values():
        yield lambda output=output: output(run.networks, batch.images, batch.condition)  # type: ignore[misc]
    game = Game(rules, Named("network of the game", run.networks), {}, (), count, torch.device("cpu"))
    for move in rules.moves:
        yield lambda move=move: move.terms(game.turn(move, batch))  # type: ignore[misc]


def _example(images: ImageSpec, count: int, conditional: bool) -> Batch:
    """An example of a batch, for a network to be exported: noise of the shape and type of the data."""
    noise = torch.rand(count, *images.shape) * 2 - 1
    if not conditional:
        return Batch(noise)
    if images.conditions:
        return Batch(noise, {n: _noise(count, of.shape, of.dtype, of.classes) for n, of in images.conditions.items()})
    if images.condition_shape is not None:
        return Batch(noise, _noise(count, images.condition_shape, images.condition_dtype, None))
    return Batch(noise, torch.randint(images.classes, (count,)) if images.classes else None)


def _noise(count: int, shape: tuple[int, ...], dtype: str, classes: int | None) -> Tensor:
    if classes is not None:
        return torch.randint(classes, (count,))
    return torch.randn(count, *shape) if dtype == "float32" else torch.rand(count, *shape) * 2 - 1
