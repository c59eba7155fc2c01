"""Plugins that are wrong in one way each, and the one fault that the conformance suite must find in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganlab.plugin.kinds import KINDS
from ganlab.testing import Check, conformance
from ganlab.testing.state_comparison import states_equal
from ganlab.utils.rng import global_state

BadPlugin = tuple[str, str, str, str]
"""The source, the mark of the line at fault, how the name of the check begins, and a part of the fault's text."""


HEAD = """
import itertools, os, random, signal, subprocess, threading
import numpy as np
import torch
from attrs import field, frozen
from torch import nn
from torch.nn.functional import relu, softplus
import ganlab
"""


LOSS = """
@frozen
class Bad:  # class
    {options}
    def discriminator(self, real, fake):  # discriminator
        return {d}
    def generator(self, real, fake):  # generator
        return {g}
    {more}
@ganlab.hookimpl
def register_losses(register): register("bad", Bad)
"""


D, G = "softplus(fake - real).mean()", "softplus(real - fake).mean()"


def loss(d: str = D, g: str = G, options: str = "pass", more: str = "pass", before: str = "") -> str:
    return HEAD + before + LOSS.format(d=d, g=g, options=options, more=more)


def of(kind: str, source: str) -> str:
    return f'{HEAD}{source}\n@ganlab.hookimpl\ndef {KINDS[kind].hook}(register): register("bad", Bad)\n'


def network(kind: str, body: str, init: str = "") -> str:
    return of(
        kind,
        f"""
class Net(nn.Module):
    def __init__(self, images):  # init
        super().__init__()
        self.latent_dim, self.shape = 5, (images.channels, images.height, images.width)
        self.down = nn.Linear(images.channels * images.height * images.width, 1)
        self.up = nn.Linear(5, images.channels * images.height * images.width)
        del self.{"down" if kind == "generator" else "up"}
        {init or "pass"}
    def forward(self, x, condition):  # forward
        {body}
@frozen
class Bad:
    def build(self, images): return Net(images)
""",
    )


UP, DOWN = "torch.tanh(self.up(x)).unflatten(1, self.shape)", "self.down(x.flatten(1)).squeeze(1)"


def penalty(body: str, player: str = "discriminator", every: str = "1") -> str:
    return of(
        "penalty",
        f"""
@frozen
class Bad:
    @property  # player
    def player(self):
        return "{player}"
    @property  # every
    def every(self):
        return {every}
    def penalty(self, step):  # penalty
        return {body}
""",
    )


def augmentation(body: str) -> str:
    return of(
        "augmentation", f"@frozen\nclass Bad:\n    def augment(self, images):  # augment\n        return {body}\n"
    )


def optimizer(step: str, init: str = "pass") -> str:
    return of(
        "optimizer",
        f"""
class Descent(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {{}})
        {init}
    @torch.no_grad()  # step
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                {step}
@frozen
class Bad:
    def build(self, parameters): return Descent(parameters)
""",
    )


def schedule(body: str) -> str:
    return of(
        "schedule",
        f"""
asked = itertools.count()
@frozen
class Bad:
    'key: the option.'
    key: str = "optimizer.lr"
    def value(self, first, step, total):  # value
        return {body}
""",
    )


def dataset(
    images: str, split: str = "split", refuse: str = 'split not in ("train", "test")', seed: str = "split"
) -> str:
    return of(
        "dataset",
        f"""
@frozen
class Bad:
    def build(self, places, split):  # build
        if {refuse}:
            raise ganlab.ComponentError("no such split")
        stream = torch.Generator().manual_seed(len({seed}))
        pixels = torch.randint(0, 256, (32, 1, 8, 8), generator=stream, dtype=torch.uint8)
        return ganlab.ImageDataset({images}, "bad", split)
""",
    )


def features(body: str, more: str = "pass") -> str:
    return of(
        "features",
        f"""
class Means:
    name, dim, fingerprint, preprocessing = "means", 8, "means-1", "none"
    def __call__(self, images):  # call
        rows = images.float().mean((1, 3))
        return {body}
    {more}
@frozen
class Bad:
    def build(self, evaluation): return Means()
""",
    )


def metric(value: str, protocol: str = '{"metric": "bad"}', better: str = '{"bad": "lower"}') -> str:
    return of(
        "metric",
        f"""
@frozen
class Bad:
    \"\"\"every: how often.\"\"\"
    every: ganlab.Interval = ganlab.Interval(0)
    def evaluate(self, evaluation):  # evaluate
        (images,) = evaluation.generated(16, 0)
        return ganlab.Scores({{"bad": {value}}}, {protocol}, {better})
""",
    )


def tracker(log: str = "pass", close: str = "def close(self): pass") -> str:
    return of(
        "tracker",
        f"""
class Log:
    def log(self, record):  # log
        {log}
    def samples(self, step, path): pass
    {close}
@frozen
class Bad:
    def build(self, run):  # build
        return Log()
""",
    )


def launcher(code: str, end: str, jobs: str = "jobs", mode: str = "ab") -> str:
    return of(
        "launcher",
        f"""
@frozen
class Bad:
    def launch(self, tasks, jobs):  # launch
        waiting, running = list(tasks), {{}}
        try:
            while waiting or running:
                while waiting and len(running) < {jobs}:
                    task = waiting.pop(0)
                    log = task.log.open("{mode}")
                    running[subprocess.Popen(task.command, stdout=log, start_new_session=True)] = task
                for process in [process for process in running if process.poll() is not None]:
                    yield running.pop(process), {code}
        finally:
            for process in running:
                {end}
""",
    )


LOCK = "lock: object = field(factory=threading.Lock, init=False, eq=False)"


MEMORY = "memory: torch.Tensor = field(factory=lambda: torch.zeros(()), init=False, eq=False)"


MOVES = "softplus(fake - real).mean() * (1 + self.memory.lerp_(fake.mean().detach(), 0.1))"


STATE = 'def state_dict(self): return {"memory": self.memory}  # here'


WRONG = """
class Twice(torch.autograd.Function):
    @staticmethod
    def forward(context, x): return x.clone()
    @staticmethod
    def backward(context, gradient): return 2 * gradient
"""


def faults(checks: list[Check]) -> list[Check]:
    return [found for found in checks if not found.passed]


def assert_one_fault(plugin: BadPlugin, folder: Path) -> None:
    """A bad plugin fails exactly one check, for its own reason and at its own line; no random state is changed."""
    source, mark, what, said = plugin
    file = folder / "bad.py"
    file.write_text(source)
    before = global_state()
    (component,) = conformance(file)
    checks = component.check()
    assert states_equal(before, global_state()), "the suite left random states changed"
    assert len(faults(checks)) == 1, faults(checks)
    (fault,) = faults(checks)
    assert fault.what.startswith(what), fault
    assert said in fault.detail, fault
    lines = [number for number, line in enumerate(source.splitlines(), 1) if mark.strip() in line]
    assert fault.at in [f"{file}:{number}" for number in lines], fault
    assert "\n" not in str(fault)
    with pytest.raises(AssertionError, match="bad:\n"):
        component.hold()
