"""The conformance suite held against plugins that are wrong in one way each, and against the bundled ones.

Each bad plugin must fail exactly one check, for its own reason and at its own line: the one marked `# here`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen

from data_files import celeba, cifar10, folder_of_images, inception, mnist, of_timm, parquet
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.testing import Check, check, conformance
from ganlab.testing.inspection import Fault, compare_with_differences, difference, same
from ganlab.testing.suite import CHECKS
from ganlab.utils.errors import UserError
from ganlab.utils.rng import global_state

pytestmark = pytest.mark.usefixtures("quick_timing")

HEAD = """
import itertools, os, random, signal, subprocess
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


def launcher(code: str, end: str) -> str:
    return of(
        "launcher",
        f"""
@frozen
class Bad:
    def launch(self, tasks, jobs):  # launch
        running = {{}}
        try:
            for task in tasks:
                running[subprocess.Popen(task.command, stdout=task.log.open("ab"), start_new_session=True)] = task
            while running:
                for process in [process for process in running if process.poll() is not None]:
                    yield running.pop(process), {code}
        finally:
            for process in running:
                {end}
""",
    )


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

BAD: dict[str, tuple[str, str, str, str]] = {
    # what is wrong: source, the mark of the line, how the check begins, what is said
    "loss nan": (loss(d="(real - fake).log().mean()  # here"), "# here", "finite", "is -inf"),
    "loss infinite": (
        loss(g="-fake.sigmoid().log().mean()  # here"),
        "# here",
        "finite",
        "standard deviation of 100 is inf",
    ),
    "loss not scalar": (loss(g="-fake"), "# generator", "finite", "wanted a scalar of floats: take the mean"),
    "loss a number": (loss(g="0.5"), "# generator", "finite", "gives float, wanted a scalar tensor"),
    "loss raises": (loss(g="fake.no_such_method()  # here"), "# here", "finite", "AttributeError: "),
    "loss detached": (loss(g="-fake.detach().mean()"), "# generator", "gradient: reaches", "detached from the logits"),
    "loss leaves real": (
        loss(d="softplus(fake).mean() + 0 * real.mean()  # here").replace(
            "def discriminator(self, real, fake):", "def discriminator(self, real, fake):  # d"
        ),
        "# d\n",
        "gradient: reaches",
        "no gradient at the logits of real images",
    ),
    "loss gradient": (
        loss(g="-Twice.apply(fake).mean()", before=WRONG),
        "# generator",
        "gradient: is right",
        "the gradient of the generator's loss is wrong",
    ),
    "loss compares real": (
        loss(g="((fake < real.mean()).float() * fake).mean()", more="generator_uses_real = False"),
        "# generator",
        "real logits",
        "generator_uses_real is False, and the generator's loss changes with the real logits",
    ),
    "loss item": (
        loss(g="-fake.mean() if real.mean().item() < 1e9 else fake.mean()  # here"),
        "# here",
        "capture",
        "reads a value back from the device (item, bool, float or int of a tensor)",
    ),
    "loss shape from values": (
        loss(g="-fake[fake < 1e9].mean()  # here"),
        "# here",
        "capture",
        "a shape from values",
    ),
    "loss random": (
        loss(g="-fake.mean() + 0 * torch.rand(1).sum()  # here"),
        "# here",
        "randomness",
        "the generator's loss draws torch's global random numbers",
    ),
    "loss Python's random": (
        loss(g="-fake.mean() + 0 * random.random()"),
        "# generator",
        "randomness",
        "draws Python's",
    ),
    "loss NumPy's random": (
        loss(g="-fake.mean() + 0 * np.random.rand()"),
        "# generator",
        "randomness",
        "draws NumPy's",
    ),
    "loss undocumented": (loss(options="margin: float = 1.0"), "@frozen", "options", "says nothing of 'margin'"),
    "loss option doubled beforehand": (
        loss(
            g="self.twice * softplus(-fake).mean()",
            options='"""scale: a factor."""; scale: float = 1.0; twice: float = field(init=False)',
            more="@twice.default\n    def _twice(self): return 2 * self.scale",
        ),
        "@frozen",
        "schedules",
        "scale: moved to 0.5 by a schedule it does not do what the number 0.5 does",
    ),
    "optimizer option copied": (
        optimizer("weight.sub_(weight.grad, alpha=self.rate)")
        .replace("super().__init__(parameters, {})", "super().__init__(parameters, {'lr': rate}); self.rate = rate")
        .replace("parameters):\n        super", "parameters, rate):\n        super")
        .replace(
            "    def build(self, parameters): return Descent(parameters)",
            "    'lr: the rate.'\n    lr: float = 0.25\n"
            "    def build(self, parameters): return Descent(parameters, self.lr)",
        ),
        "@frozen",
        "schedules",
        "lr: moved to 0.125 by a schedule",
    ),
    "loss forgets": (loss(d=MOVES, options=MEMORY), "@frozen", "resumes", "from one that never stopped"),
    "loss half a state": (loss(d=MOVES, options=MEMORY, more=STATE), "# here", "state", "no load_state_dict(state)"),
    "loss state not taken": (
        loss(
            d=MOVES,
            options=MEMORY,
            more=f"{STATE[:-8]}\n    def load_state_dict(self, state): pass  # here",
        ),
        "# here",
        "state",
        "memory differs",
    ),
    "loss targets": (
        loss(more="def with_targets(self, *, real, fake): return self  # here"),
        "# here",
        "label targets",
        "leaves the discriminator's loss as it was",
    ),
    "wrapper": (
        of("loss_wrapper", "@frozen\nclass Bad:\n    def __call__(self, loss): return None  # here\n"),
        "# here",
        "wraps",
        "gives NoneType",
    ),
    "penalty player": (
        penalty("sum(w.square().sum() for w in step.generator.parameters())"),
        "# penalty",
        "gradient: reaches",
        "no weight of the discriminator, its player; it reaches the generator's: is that its player?",
    ),
    "penalty detached": (
        penalty("step.fake_logits.detach().mean()"),
        "# penalty",
        "gradient: reaches",
        "reaches no weight",
    ),
    "penalty nan": (penalty("(step.real_logits.sum() * 0).log() * torch.inf  # here"), "# here", "finite", "is "),
    "penalty nobody's": (
        penalty("step.fake_logits.mean()", player="critic"),
        "# player",
        "player",
        "player is 'critic'",
    ),
    "penalty never": (penalty("step.fake_logits.mean()", every="0"), "# every", "player", "every is 0"),
    "augmentation rounds": (
        augmentation("(images * 4).round() / 4"),
        "# augment",
        "gradient: goes",
        "0 for every",
    ),
    "augmentation detached": (augmentation("images.detach() * 0.9"), "# augment", "gradient: goes", "detached"),
    "augmentation shape": (augmentation("images[..., 1:]"), "# augment", "shape", "gives torch.float32 (1, 1, 8, 7)"),
    "augmentation in place": (augmentation("images.mul_(0.9)"), "# augment", "images", "in place"),
    "augmentation mixes": (augmentation("images + images.mean(0)"), "# augment", "each image", "NaN in three of six"),
    "schedule divides": (
        schedule("first * (1 - step / (total - 1))  # here"),
        "# here",
        "values: a finite number",
        "ZeroDivisionError",
    ),
    "schedule infinite": (
        schedule("first * 1e308 * total"),
        "# value",
        "values: a finite number",
        "gives inf in step 0",
    ),
    "schedule counts": (schedule("first + next(asked)"), "# value", "pure", "and, asked again, "),
    "augmentation forgets what it observed": (
        augmentation("images * (1 - self.dark)").replace(
            "    def",
            """    dark: torch.Tensor = field(init=False, eq=False, factory=lambda: torch.zeros(()))
    def observe(self, real): self.dark.copy_(torch.full((), 0.5))  # observe
    def""",
            1,
        ),
        "# observe",
        "observe, measures",
        "differs in images after 1,000 batches of logits",
    ),
    "augmentation measures": (
        augmentation("images * 0.9\n    def measures(self): return {'p': 0.5}  # measures"),
        "# measures",
        "observe, measures",
        "gives float, wanted a scalar tensor",
    ),
    "generator shape": (
        network("generator", "return torch.tanh(self.up(x))"),
        "# forward",
        "shape",
        "gives images of shape (2, 64) for 2 images of 1x8x8, wanted (2, 1, 8, 8)",
    ),
    "generator unused": (
        network("generator", f"return {UP}", "self.spare = nn.Linear(2, 2)"),
        "# forward",
        "gradient: reaches",
        "no gradient reaches spare.weight, spare.bias",
    ),
    "generator batch": (
        network("generator", f"return {UP} + 0.1 * x.mean()"),
        "# forward",
        "evaluation",
        "depends on the others of its batch",
    ),
    "generator noise": (
        network("generator", f"return {UP} + 0.01 * torch.randn(1)  # here"),
        "# here",
        "evaluation",
        "in eval mode",
    ),
    "generator latent_dim": (
        network("generator", f"return {UP}", "self.latent_dim = 5.0").replace(
            "def __init__(self, images):", "def __init__(self, images):  # here"
        ),
        "# init",
        "shape",
        "no whole number latent_dim, but 5.0",
    ),
    "generator seeds": (
        network("generator", f"return {UP}", "self.up.bias.data[0] = float(np.random.default_rng().random())  "),
        "# init",
        "weights",
        "differ in up.bias",
    ),
    "generator one size": (
        network("generator", f"return {UP} + torch.zeros(1, 1, 8, 8)  # here"),
        "# here",
        "shape",
        "fails for 2 images of 1x28x28: RuntimeError: The size of tensor",
    ),
    "discriminator shape": (
        network("discriminator", "return self.down(x.flatten(1))"),
        "# forward",
        "shape",
        "gives logits of shape (2, 1)",
    ),
    "discriminator images": (
        network("discriminator", "return self.down(x.detach().flatten(1)).squeeze(1)"),
        "# forward",
        "gradient: reaches",
        "no gradient reaches the images",
    ),
    "optimizer climbs": (optimizer("weight.add_(weight.grad, alpha=0.1)"), "# step", "steps", "took a quadratic from"),
    "optimizer state": (
        optimizer("weight.sub_(weight.grad, alpha=0.2 / (1 + next(self.count)))", "self.count = itertools.count()"),
        "# step",
        "state: another",
        "keeps more than its state",
    ),
    "optimizer none": (
        of("optimizer", "@frozen\nclass Bad:\n    def build(self, parameters): return None  # here\n"),
        "# here",
        "builds",
        "wanted a torch.optim.Optimizer",
    ),
    "dataset test split": (dataset("pixels", seed='"train"'), "# build", "splits", "the images of the training split"),
    "dataset any split": (
        dataset("pixels", refuse="False"),
        "# build",
        "splits",
        "'no such split' is given",
    ),
    "dataset chance": (
        dataset("pixels + torch.randint(0, 9, (8, 8), generator=chance).byte()").replace(
            "        stream", "        chance = torch.Generator(); chance.seed()\n        stream"
        ),
        "# build",
        "again",
        "another fingerprint",
    ),
    "dataset random": (
        dataset("pixels + 0 * torch.randint(0, 9, (1,)).byte()"),
        "# build",
        "randomness",
        "build draws torch's global random numbers",
    ),
    "features float64": (features("rows.double()"), "# call", "shape", "gives torch.float64 (1, 8)"),
    "features batch": (features("rows - rows.mean(0)"), "# call", "rows", "depend on the others of its batch"),
    "features random": (features("rows + 0 * torch.rand(1)"), "# call", "randomness", "draws torch's"),
    "features in place": (features("rows + 0 * images.zero_().float().mean((1, 3))"), "# call", "images", "in place"),
    "features logits": (
        features("rows", "def logits(self, images): return self(images).argmax(1)  # here"),
        "# here",
        "classes",
        "logits gives torch.int64 (7,)",
    ),
    "metric random": (metric("float(torch.rand(()))"), "# evaluate", "again", "another score"),
    "metric nan": (metric("float('nan')"), "# evaluate", "scores", "bad is nan"),
    "metric text": (metric("'good'"), "# evaluate", "scores", "the value 'bad' is 'good', wanted a number"),
    "metric better": (metric("0.5", better='{"bad": "more"}'), "# evaluate", "scores", "better says 'more'"),
    "metric protocol": (
        metric("0.5", protocol='{"metric": object()}'),
        "# evaluate",
        "scores",
        "as JSON",
    ),
    "tracker changes": (tracker('record["mine"] = 1'), "# log", "records", "changes the record"),
    "tracker raises": (tracker('record["no such"]  # here'), "# here", "records", "KeyError"),
    "tracker close": (tracker(close="pass"), "# build", "empty run", "lacks close()"),
    "launcher codes": (launcher("0", "process.terminate(); process.wait()"), "# launch", "launches", "ended with"),
    "launcher leaves": (launcher("process.returncode", "pass"), "# launch", "stops", "leaves a task running"),
    "launcher kills": (
        launcher("process.returncode", "process.kill(); process.wait()"),
        "# launch",
        "stops",
        "without letting it save",
    ),
}


def faults(checks: list[Check]) -> list[Check]:
    return [found for found in checks if not found.passed]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    source, mark, what, said = BAD[case]
    file = tmp_path / "bad.py"
    file.write_text(source)
    before = global_state()
    (component,) = conformance(file)
    checks = component.check()
    assert same(before, global_state()), "the suite left random states changed"
    assert len(faults(checks)) == 1, faults(checks)
    (fault,) = faults(checks)
    assert fault.what.startswith(what), fault
    assert said in fault.detail, fault
    lines = [number for number, line in enumerate(source.splitlines(), 1) if mark.strip() in line]
    assert fault.at in [f"{file}:{number}" for number in lines], fault
    assert "\n" not in str(fault)
    with pytest.raises(AssertionError, match="bad:\n"):
        component.hold()


def test_every_kind_has_checks_and_a_bad_plugin() -> None:
    assert set(CHECKS) == set(KINDS)
    hooks = {hook for kind in KINDS.values() for source, *_ in BAD.values() if (hook := kind.hook) in source}
    assert hooks == {kind.hook for kind in KINDS.values()}


# ---------------------------------------------------------------------------------------------------------------------
# The bundled ones, and what the suite does with good ones
# ---------------------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "dataset mnist": ({}, mnist),
    "dataset fashion_mnist": ({}, mnist),
    "dataset stacked_mnist": ({"count": 50}, mnist),
    "dataset cifar10": ({}, cifar10),
    "dataset celeba": ({"size": 8}, celeba),
    "dataset huggingface": ({"path": "hub", "size": 8}, parquet),
    "dataset image_folder": ({"path": "folder", "size": 8}, folder_of_images),
    "dataset ring": ({"count": 1000}, None),
    "dataset grid": ({"count": 1000}, None),
    "features classifier": ({"updates": 10, "dim": 8}, None),
    "features inception": ({"weights": "data/inception.pth"}, inception),
    "features timm": ({"model": "test_vit", "weights": "data/timm.safetensors"}, of_timm("test_vit")),
    "metric kid": ({"subsets": 2, "subset_size": 8}, None),
}
"""What a component needs besides its defaults: options, and files in the data folder."""

REFUSED = {
    "loss_wrapper label_smoothing": "refuses a loss without label targets",
}
"""What is refused and said, though nothing is at fault."""

BUNDLED = {f"{part.kind} {part.name}": part for kind in KINDS for part in load_plugins().registry.of_kind(kind)}
# It is what `timm` is, with one network's name, and takes half a minute.
del BUNDLED["features dinov2"]


SMALL = {
    "generator resnet": {"channels": 8},
    "discriminator resnet": {"channels": 8},
    "generator r3gan": {"widths": [16, 16, 16, 16]},
    "discriminator r3gan": {"widths": [16, 16, 16, 16]},
}
"""Networks that take long with their default widths, which are checked too, but not in the default run."""

LARGE = {*SMALL, "features inception"}


def sizes(component: str) -> Any:
    return pytest.param(component, marks=[pytest.mark.extended, pytest.mark.large] if component in LARGE else [])


@pytest.mark.parametrize("component", map(sizes, BUNDLED))
def test_a_bundled_component_passes(component: str, tmp_path: Path) -> None:
    options, data = OPTIONS.get(component, ({}, None))
    if data is not None:
        data(tmp_path / "data")
    passes(component, options)


@pytest.mark.parametrize("component", SMALL)
def test_a_bundled_network_passes_with_few_channels(component: str) -> None:
    passes(component, SMALL[component])


def passes(component: str, options: dict[str, Any]) -> None:
    """Runs the conformance suite on a bundled component with these options: nothing is at fault or left out."""
    part = BUNDLED[component]
    (subject,) = [
        subject
        for subject in conformance(str(part.origin.file), {part.name: options} if options else None)
        if (subject.kind, subject.name) == (part.kind, part.name)
    ]
    checks = subject.check()
    assert faults(checks) == []
    # Some of the small data sets have no test split; nothing else may be refused or left out.
    assert [str(found) for found in checks if found.result != "passed" and "test split:" not in found.what] == []
    assert REFUSED.get(component, "") in " ".join(found.detail for found in checks)


def test_an_option_that_must_be_given(tmp_path: Path) -> None:
    file = tmp_path / "scaled.py"
    file.write_text(loss(options='"""scale: a factor."""\n    scale: float', g=f"self.scale * {G}"))
    (bare,) = conformance(file)
    (refused,) = [found for found in bare.check() if found.result == "refused"]
    assert refused.detail == "refuses: scale must be given, by --set NAME.scale=VALUE; nothing else is checked without"
    assert [found.result for found in bare.check()] == ["passed", "passed", "refused", "skipped"]
    (given,) = conformance(file, {"bad": {"scale": 2.0}})
    assert given.instance.scale == 2.0
    assert {found.result for found in given.check()} == {"passed"}
    assert {found.result for found in check(given.cls(3.0), "loss")} == {"passed"}
    with pytest.raises(UserError, match=r"bad\.scale: expected a number, got 'much'"):
        conformance(file, {"bad": {"scale": "much"}})
    with pytest.raises(UserError, match="bat: the file registers no such component; did you mean 'bad'"):
        conformance(file, {"bat": {}})


@pytest.mark.parametrize(
    ("options", "generator", "said"),
    [
        ("scale: float = 1.0", f"self.scale * {G}", "scale"),
        ("scale: float = 0.1", f"2 * self.scale * {G}", "scale"),
        (
            "scale: float = 1.0",
            f"{G} if self.scale > 0 else -{G}  # here",
            "scale (no other value that was tried changes anything here)",
        ),
        (
            "scale: float = 1.0",
            f"self.scale * {G} if self.scale > 0 else {G}  # here",
            "scale (steps are eager under it: line LINE reads a value back from the device (item, bool, float or int "
            "of a tensor))",
        ),
        (
            "scale: float = field(default=1.0, converter=float)",
            f"self.scale * {G}",
            "scale (not to be moved: 'loss.scale' cannot be moved: its class makes a number of a tensor)",
        ),
        (
            "scale: float = 1.0",
            f"float.__add__(self.scale, 1.0) * {G}",
            "scale (not to be moved, which ends the step: TypeError: ",
        ),
        ("scale: int = 1", f"self.scale * {G}", "it has none that could be moved"),
    ],
)
def test_what_a_schedule_may_do_with_an_option(options: str, generator: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "scaled.py"
    source = loss(options=f'"""scale: a factor."""; {options}', g=generator)
    file.write_text(source)
    (subject,) = conformance(file)
    checks = subject.check()
    assert faults(checks) == []
    (found,) = [found for found in checks if found.what.startswith("schedules")]
    line = next((number for number, text in enumerate(source.splitlines(), 1) if "# here" in text), 0)
    said = said.replace("LINE", str(line))
    assert found.detail.startswith(said) if said.endswith(": ") else found.detail == said


def schedules_of(file: Path, source: str) -> str:
    file.write_text(source)
    (subject,) = conformance(file)
    checks = subject.check()
    assert faults(checks) == []
    (found,) = [found for found in checks if found.what.startswith("schedules")]
    assert found.result == "passed"
    return found.detail


def test_what_one_training_learnt_is_not_the_nexts(tmp_path: Path) -> None:
    """An option that nothing reads changes nothing, though a loss that has learnt would."""
    options = f'"""scale: a factor. unread: nothing."""; scale: float = 1.0; unread: float = 1.0; {MEMORY}'
    takes = f"{STATE[:-8]}\n    def load_state_dict(self, state): self.memory.copy_(state['memory'])"
    said = schedules_of(tmp_path / "learning.py", loss(d=f"self.scale * {MOVES}", options=options, more=takes))
    assert said == "scale, unread (no other value that was tried changes anything here)"


def test_a_value_that_is_refused_is_not_the_one_to_try(tmp_path: Path) -> None:
    wrapper = '"""factor: at least 1."""\n    factor: float = 1.0\n    def __call__(self, loss):\n' + (
        "        if self.factor < 1: raise ganlab.ComponentError('too small')\n        return Bad.Scaled(loss, self)\n"
        "    class Scaled:\n        def __init__(self, loss, bad): self.loss, self.bad = loss, bad\n"
        "        def discriminator(self, *logits): return self.bad.factor * self.loss.discriminator(*logits)\n"
        "        def generator(self, *logits): return self.loss.generator(*logits)\n"
    )
    said = schedules_of(tmp_path / "wrapper.py", of("loss_wrapper", f"@frozen\nclass Bad:\n    {wrapper}"))
    assert said == "factor"


def test_options_of_an_optimiser_make_steps_eager(tmp_path: Path) -> None:
    (sgd,) = [one for one in conformance(str(BUNDLED["optimizer sgd"].origin.file)) if one.name == "sgd"]
    (found,) = [found for found in sgd.check() if found.what.startswith("schedules")]
    eager = "steps are eager under it: moved by a schedule, and the optimiser takes no tensor for it"
    assert found.detail == f"lr, momentum ({eager}), weight_decay ({eager})"


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown kind 'los'; did you mean 'loss'"):
        check(object, "los")
    with pytest.raises(UserError, match="no such file"):
        conformance(tmp_path / "none.py")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(UserError, match="No module named 'nothing_of_that_name'"):
        conformance(tmp_path / "broken.py")
    (is_one, *rest) = check(frozen(type("Half", (), {"discriminator": lambda self, real, fake: real})), "loss")
    assert (is_one.result, is_one.detail) == ("fault", "Half is not a valid loss: missing generator(self, real, fake)")
    assert {found.result for found in rest} == {"skipped"}


def test_a_module_is_its_file() -> None:
    import ganlab_plugins.losses.bce as module

    assert [str(subject) for subject in conformance(module)] == ["loss bce"]


def test_a_component_that_refuses_a_shape_is_not_at_fault(tmp_path: Path) -> None:
    file = tmp_path / "grey.py"
    source = network("discriminator", f"return {DOWN}").replace(
        "def build(self, images): return",
        "def build(self, images):\n        if images.channels != 1:\n"
        "            raise ganlab.ComponentError('only grey')\n        return",
    )
    file.write_text(source)
    (subject,) = conformance(file)
    checks = subject.check()
    assert {found.result for found in checks} == {"passed"}
    (shape,) = [found for found in checks if found.what.startswith("shape")]
    assert shape.detail == "refuses 3x8x8: only grey; refuses 3x32x32: only grey; refuses 3x64x64: only grey"
    file.write_text(source.replace("images.channels != 1", "True"))
    (subject,) = conformance(file)
    (refused,) = [found for found in subject.check() if found.result == "refused"]
    assert refused.detail == "refuses 1x8x8: only grey"


def test_a_metric_that_refuses_data_is_not_at_fault(tmp_path: Path) -> None:
    file = tmp_path / "refusing.py"
    source = metric("0.5").replace("(images,) =", "raise ganlab.ComponentError('the value names no class')  #")
    file.write_text(source)
    (subject,) = conformance(file)
    (refused,) = [found for found in subject.check() if found.result == "refused"]
    assert refused.detail == "refuses 1 channel: the value names no class"
    assert faults(subject.check()) == []


def test_differences_against_a_closed_form() -> None:
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)

    def right() -> torch.Tensor:
        return (x**3).sum()

    def rounded() -> torch.Tensor:
        return (x.float() ** 3).sum()

    def wrong() -> torch.Tensor:
        return (x * x.detach()).sum()

    def float32_only() -> torch.Tensor:
        return torch.nn.functional.linear(x, torch.ones(1, 2)).sum()

    assert compare_with_differences(right, [x], "it", "here") is None
    assert compare_with_differences(rounded, [x], "it", "here") is None
    with pytest.raises(Fault, match="the gradient of it is wrong"):
        compare_with_differences(wrong, [x], "it", "here")
    assert "the code takes no float64" in (compare_with_differences(float32_only, [x], "it", "here") or "")


def test_where_states_differ() -> None:
    one = {"a": [torch.zeros(2), 1], "b": "text"}
    assert difference(one, {"a": [torch.zeros(2), 1], "b": "text"}) is None
    assert difference(one, {"a": [torch.ones(2), 1], "b": "text"}) == "a[0]"
    assert difference(one, {"a": [torch.zeros(2), 1.0], "b": "text"}) == "a[1]"
    assert difference(torch.tensor(torch.nan), torch.tensor(torch.nan)) is None
    assert difference(torch.zeros(2), torch.zeros(2, 1)) is not None
    assert difference(torch.tensor(torch.nan), torch.zeros(())) is not None


def test_the_core_and_the_suite_import_no_pytest() -> None:
    code = "import sys, ganlab.testing; raise SystemExit('pytest' in sys.modules or 'ganlab_plugins' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
