"""Mutations of the code in the step that only a device shows: each is put in, a training is tried, and it is taken out.

A mutation changes one line of a function, which keeps its file and its lines.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from ganlab.testing.pretend import DeviceMismatch
from ganlab.training.graph_check import OperationTrace, find_capture_fault
from pretend_work import built, is_allowed, trained


@frozen
class Mutation:
    """A line to change, in a function of a module: `old` becomes `new`. `at` is a part of the line to be named.

    It may be in another module: "module: text".
    """

    module: str
    function: str
    old: str
    new: str
    at: str = ""
    also: tuple[Any, ...] = ()


LOSS = "ganlab_plugins.losses.least_squares"
PENALTY = "ganlab_plugins.penalties.gradient_penalty"
AUGMENTATION = "ganlab_plugins.augmentations.flip"
NETWORK = "ganlab_plugins.networks.mlp"
LOADER = "ganlab.data.loader"
EMA = "ganlab.training.ema"
METERS = "ganlab.training.meters"
ONES = '__import__("torch").ones'

MUTATIONS: dict[str, Mutation] = {
    "loss: a tensor": Mutation(
        LOSS, "LeastSquares.discriminator", "(fake - self.fake_target)", f"(fake - {ONES}(len(fake)))"
    ),
    "loss: a scalar": Mutation(LOSS, "LeastSquares.discriminator", "(fake - self.fake_target)", f"(fake - {ONES}(()))"),
    "loss: item": Mutation(
        LOSS, "LeastSquares.generator", "self.generator_target)", "self.generator_target * real.sum().item())"
    ),
    "loss: cpu": Mutation(LOSS, "LeastSquares.generator", "(fake - self", "(fake.cpu().to(fake.device) - self"),
    "penalty: a tensor": Mutation(
        PENALTY, "GradientPenalty.penalty", "device=step.real.device, ", "", "torch.lerp(step.fake, step.real"
    ),
    "penalty: item": Mutation(
        PENALTY, "GradientPenalty.penalty", "dtype=step.real.dtype)", "dtype=step.real.dtype) * step.real.max().item()"
    ),
    "augmentation: a tensor": Mutation(
        AUGMENTATION, "Flip.augment", ", device=images.device)", ")", "torch.where(mirrored"
    ),
    "augmentation: item": Mutation(AUGMENTATION, "Flip.augment", "< self.probability", "< images.max().abs().item()"),
    "augmentation: a generator": Mutation(
        AUGMENTATION, "Flip.augment", "device=images.device)", "device=images.device, generator=torch.Generator())"
    ),
    "network: a tensor": Mutation(
        NETWORK,
        "_MLPDiscriminator.forward",
        "images.flatten(1)",
        "images.flatten(1) + 0 * " + ONES + "(images[0].numel())",
    ),
    "network: item": Mutation(
        NETWORK, "_MLPDiscriminator.forward", "images.flatten(1)", "images.flatten(1) * images.max().item()"
    ),
    "network: a buffer that is not registered": Mutation(
        NETWORK,
        "_MLPDiscriminator.__init__",
        "super().__init__()",
        "super().__init__(); self.scale = " + ONES + "(images.size)",
        also=(Mutation(NETWORK, "_MLPDiscriminator.forward", "images.flatten(1)", "images.flatten(1) * self.scale"),),
    ),
    "data: an index": Mutation(
        LOADER, "BatchLoader.order", ".to(self.images.device)", "", "ganlab.data.pixels: else data[index]"
    ),
    "data: item": Mutation(
        LOADER, "BatchLoader.index", "[first:end]", "[first:end] + 0 * self.order(epoch)[first].item()"
    ),
    "average: a scalar": Mutation(
        EMA, "EMA.__init__", ", device=self._weights[0].device)", ")", "torch._foreach_mul_(change"
    ),
    "average: item": Mutation(
        EMA, "EMA.update", "self._new_share_tensor)", "self._new_share_tensor * self._weights[0].sum().sign().item())"
    ),
    "schedules: a scalar": Mutation(
        "ganlab.config.schedule_targets",
        "resolve_targets",
        ", target.first, device=device)",
        ", target.first)",
        f"{LOSS}: real - self.real_target",
    ),
    "schedules: item": Mutation(
        "ganlab.training.schedules", "_tensor_setter", "tensor.fill_(value)", "tensor.fill_(value + 0 * tensor.item())"
    ),
    "meters: a scalar": Mutation(METERS, "Meters.add", "device=value.device", "device='cpu'", "add_(value"),
    "meters: item": Mutation(METERS, "Meters.add", "value.detach())", "value.item())"),
    "update: a branch": Mutation(
        "ganlab.training.update", "Update.finish", "if stopped is None:", "if stopped is None or not bool(stopped):"
    ),
}
"""By name; what lies on the CPU without a word more is a tensor that is made there."""


def place_of(mutation: Mutation) -> str:
    """The file and line that must be named, of the function in which the mutation shows."""
    shown = mutation.also[0] if mutation.also else mutation
    module, _, text = mutation.at.rpartition(": ")
    if module:  # of another module, which is not mutated
        shown = Mutation(module, "", text, text)
    file = Path(str(sys.modules[shown.module].__file__))
    lines = _mutated(shown).splitlines()
    text = text or shown.new
    return next(f"{file}:{number}" for number, line in enumerate(lines, 1) if text in line)


def _mutated(mutation: Mutation) -> str:
    """The source of the module with the function mutated."""
    module = importlib.import_module(mutation.module)
    source = Path(str(module.__file__)).read_text()
    if not mutation.function:
        return source
    begin = f"def {mutation.function.rpartition('.')[2]}("
    owner = mutation.function.rpartition(".")[0]
    start = source.index(begin, source.index(f"class {owner}") if owner else 0)
    assert mutation.old in source[start:], mutation
    at = source.index(mutation.old, start)
    return source[:at] + mutation.new + source[at + len(mutation.old) :]


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """Puts a mutation in the body: in the class, or in all modules that have the function."""
    with ExitStack() as stack:
        for one in (mutation, *mutation.also):
            stack.enter_context(_applied(one))
        yield


@contextmanager
def _applied(mutation: Mutation) -> Iterator[None]:
    module = importlib.import_module(mutation.module)
    space = dict(vars(module))
    exec(compile(_mutated(mutation), str(module.__file__), "exec"), space)
    owner, _, name = mutation.function.rpartition(".")
    if not owner:
        found = [other for other in list(sys.modules.values()) if vars(other).get(name) is vars(module)[name]]
        before = vars(module)[name]
        for other in found:
            setattr(other, name, space[name])
        yield
        for other in found:
            setattr(other, name, before)
        return
    cls, code = getattr(module, owner), vars(space[owner])[name]
    function = getattr(vars(cls)[name], "__wrapped__", vars(cls)[name])
    changed = getattr(code, "__wrapped__", code)
    # The code is exchanged, not the function, which a class cell, a decorator or attrs may hold.
    kept = function.__code__
    function.__code__ = changed.__code__
    try:
        yield
    finally:
        function.__code__ = kept


def find_mutations(file: str, names: list[str]) -> dict[str, list[str]]:
    """Tries a training with each mutation; for each what must be named, and what was said."""
    found = {}
    assert all(map(is_allowed, trained(Path(file), "pretend", 3)[1]))
    for name in names:
        mutation = MUTATIONS[name]
        said = "not found"
        with applied(mutation):
            try:
                events = [event for event in trained(Path(file), "pretend", 3)[1] if not is_allowed(event)]
                said = str(events[0]) if events else said
            except DeviceMismatch as error:
                said = str(error)
        found[name] = [place_of(mutation), said]
    return found


def find_by_capture_check(file: str) -> dict[str, str]:
    """What the check of captured steps finds of each mutation on the CPU, without the pretend device."""
    found = {}
    for name, mutation in MUTATIONS.items():
        with applied(mutation):
            training = built(Path(file), "cpu")
            batches = [training.loader.batch(0)]
            training.train_step(batches, 0)
            traces: list[OperationTrace] = []
            for _ in range(2):
                with OperationTrace(torch.device("cpu"), traces[-1] if traces else None) as trace:
                    training.train_step(batches, 0)
                traces.append(trace)
            fault = find_capture_fault(*traces)
            found[name] = "" if fault is None else fault.what
    return found


TABLE: Mapping[str, Any] = {
    "loss": {"name": "least_squares"},
    "penalty": [{"name": "gradient_penalty"}],
    "augmentation": [{"name": "flip"}],
    "schedule": [{"name": "linear", "key": "loss.real_target", "to": 0.9}],
    "train": {"ema": 0.0, "ema_half_life": 100.0, "ema_warmup": 0.05, "stop_discriminator_under": 0.001},
}
"""What the experiment has in which every mutation shows."""
