"""Captured steps held against eager ones, bit for bit, and the watch that finds what cannot be captured.

Where there is no CUDA, graphs are played by `ReplayRecorder` (replay.py), so all of `capture` is held but the calls of
CUDA itself.
"""

from __future__ import annotations

import cProfile
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.protocols import ImageSpec, Places, Step
from ganlab.run.run_folder import read_info
from ganlab.training.build import build, captured_train_step
from ganlab.training.cuda_graphs import CapturedTrainStep, CudaGraphs, EagerRecorder, dry_run_capture
from ganlab.training.graph_check import OperationTrace, find_capture_fault
from ganlab.training.loop import Training, take_step, train
from ganlab.training.state import restore_training, training_state
from ganlab.utils.determinism import deterministic
from replay import ReplayRecorder
from tiers import spread

CPU = torch.device("cpu")
STEPS = 24
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@frozen
class Lazy:
    """A penalty on the logits' gradient by the images (Mescheder et al. 2018, arXiv:1801.04406), every so often."""

    player: str = "discriminator"
    every: int = 3
    weight: float = 0.1

    def penalty(self, step: Step) -> Tensor:
        assert step.real is not None
        images = step.real.detach().requires_grad_(True)
        logits = step.discriminator(images, None)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return self.weight * gradient.square().sum((1, 2, 3)).mean()


@pytest.fixture
def plugins() -> Plugins:
    """The bundled plugins, with more to come."""
    loaded = load_plugins()
    loaded.registry._frozen = False
    loaded.registry.register("penalty", "lazy", Lazy, Origin("test", "file", "", "", None))
    return loaded


def register(plugins: Plugins, kind: str, cls: type) -> None:
    plugins.registry.register(kind, cls.__name__.lower(), cls, Origin("faulty", "file", "", "", Path(__file__)))


def built(table: dict[str, Any], plugins: Plugins, tmp_path: Path, device: torch.device = CPU) -> Training:
    return build(convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), device)


def captured(training: Training, plugins: Plugins, recorder: Any) -> tuple[Training, CapturedTrainStep]:
    turns = captured_train_step(training.game, training.train_step, plugins.registry, recorder)
    return attrs.evolve(training, capture=turns), turns


def flat(training: Training) -> dict[str, Any]:
    """All that a checkpoint would hold, as numbers by name."""
    leaves: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(item, f"{name}.{index}")
        else:
            leaves[name] = value.clone() if isinstance(value, Tensor) else value

    walk(training_state(training, STEPS), "")
    return leaves


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        assert same, name


DCGAN = {
    "dataset": {"name": "digits", "size": 16},
    "generator": {"name": "dcgan", "latent_dim": 8, "channels": 8},
    "discriminator": {"name": "dcgan", "channels": 8},
}
CASES: dict[str, dict[str, Any]] = {
    "dropout": {"discriminator": {"name": "mlp", "hidden": [16], "dropout": 0.3}},
    "batch norm": DCGAN,
    "average, lazy penalties of both players": {
        "discriminator": {"name": "mlp", "hidden": [16], "dropout": 0.3},
        "penalty": [{"name": "lazy"}, {"name": "l2_generator", "weight": 0.1, "every": 2}],
        "train": {"ema": 0.9},
    },
    "batch norm, lazy penalty, shared noise": {
        **DCGAN,
        "penalty": [{"name": "lazy"}],
        "train": {"ema": 0.9, "fresh_noise": False},
    },
    "a loss that compares, discriminator steps": {
        "loss": {"name": "relativistic"},
        "train": {"discriminator_steps": 2},
    },
    "every second step, in parts, clipped, stopped": {
        "penalty": [{"name": "lazy"}],
        "train": {
            "ema": 0.9,
            "discriminator_every": 2,
            "accumulate": 2,
            "clip_norm": 0.3,
            "stop_discriminator_under": 1.3,
            "stop_generator_under": 0.76,
        },
    },
    "in parts, shared noise, momentum": {
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "train": {"accumulate": 4, "fresh_noise": False, "stop_generator_under": 0.7},
    },
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9}},
    "rmsprop": {"optimizer": {"name": "rmsprop", "clip_weights": 0.05}},
    "bfloat16": {"train": {"precision": "bfloat16"}},
    "schedules": {
        "penalty": [{"name": "lazy"}],
        "loss_wrapper": [{"name": "label_smoothing"}],
        "schedule": [
            {"name": "linear", "key": key, "to": to}
            for key, to in {
                "optimizer.lr": 1e-4,
                "penalty.0.weight": 5.0,
                "loss_wrapper.0.real": 0.5,
                "train.ema_half_life": 50.0,
            }.items()
        ],
        "train": {"ema_half_life": 500.0, "ema_warmup": 0.5},
    },
}


@pytest.mark.parametrize("device", spread(11, DEVICES))
@pytest.mark.parametrize("case", CASES)
def test_captured_steps_have_the_bits_of_eager_ones(
    case: str, device: str, table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    changes = CASES[case]
    table["train"] |= {"steps": STEPS, **changes.get("train", {})}
    table |= {key: value for key, value in changes.items() if key != "train"}
    table["train"]["capture"] = False
    eager = built(table, plugins, tmp_path, torch.device(device))
    assert eager.capture is None
    with deterministic(device == "cuda"):  # there two eager trainings differ too
        train(eager, 0, lambda step: None)
    wanted, means = flat(eager), eager.game.meters.means()

    table["train"]["capture"] = True
    training = built(table, plugins, tmp_path, torch.device(device))
    recorder = ReplayRecorder()
    if training.capture is None:
        training, _ = captured(training, plugins, recorder)
    turns = training.capture
    assert turns is not None
    with deterministic(device == "cuda"):
        train(training, 0, lambda step: None)
    assert turns.refusal is None
    assert turns.captured == len({training.train_step.signature(step) for step in range(STEPS)})
    if device == "cpu":
        assert recorder.replays == STEPS - 3 * turns.captured, "each kind of step is eager three times"
    assert_same(flat(training), wanted)
    assert training.game.meters.means() == means


COUNT = torch.zeros(())


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda x: x * torch.rand(()), "draws random numbers on the CPU"),
        (lambda x: COUNT.add_(1), "changes a tensor on the CPU"),
        (lambda x: x + COUNT, "uses a number on the CPU"),
        (lambda x: x * torch.tensor(2.0), None),
        (lambda x: x * 2.0 + torch.rand(3, device="meta"), None),
    ],
    ids=["random numbers", "a count", "a number", "a constant", "nothing"],
)
def test_work_on_the_cpu_beside_a_device_is_a_fault(work: Callable[[Tensor], Any], told: str | None) -> None:
    """A graph repeats none of it. The meta device stands for a GPU."""
    traces = []
    for _ in range(2):
        with OperationTrace(torch.device("meta")) as trace:
            work(torch.zeros(3, device="meta"))
        traces.append(trace)
    fault = find_capture_fault(*traces)
    assert (fault and told and told in fault.what) if told else fault is None


def test_kinds_of_steps_are_sets_of_penalties(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    table["penalty"] = [{"name": "lazy", "every": 3}, {"name": "l2_generator", "every": 2}]
    turns = built(table, plugins, tmp_path).train_step
    assert [turns.signature(step) for step in range(4)] == [
        (("penalty_lazy",), ("penalty_l2_generator",)),
        ((), ()),
        ((), ("penalty_l2_generator",)),
        (("penalty_lazy",), ()),
    ]
    assert len({turns.signature(step) for step in range(60)}) == 4


def test_steps_without_the_discriminators_turn_are_kinds_of_their_own(
    table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    """A lazy penalty counts the updates of its player, not the steps."""
    table["penalty"] = [{"name": "lazy", "every": 2}]
    table["train"]["discriminator_every"] = 2
    turns = built(table, plugins, tmp_path).train_step
    due, not_due, no_turn = (("penalty_lazy",), ()), ((), ()), (None, ())
    assert [turns.signature(step) for step in range(5)] == [due, no_turn, not_due, no_turn, due]
    assert turns.batches_per_step == 1, "a step without the discriminator's turn takes its batch too"


def test_a_tick_between_captured_steps(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    """Reading and zeroing the sums leaves them where the captured steps add to them."""
    table["penalty"] = [{"name": "lazy", "every": 2}]
    table["train"]["steps"] = STEPS
    results: list[list[dict[str, float]]] = []
    for capture in (False, True):
        training = built(table, plugins, tmp_path)
        if capture:
            training, _ = captured(training, plugins, ReplayRecorder())
        results.append([])
        for step in range(STEPS):
            take_step(training, step)
            results[-1].append(training.game.meters.means())
            training.game.meters.reset()
    assert results[0] == results[1]
    assert ["penalty_lazy" in means for means in results[1][-2:]] == [True, False], "only where it was due"


@pytest.mark.parametrize("balance", [{}, CASES["every second step, in parts, clipped, stopped"]["train"]])
def test_restored_then_captured(
    balance: dict[str, Any], table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    table["train"] |= {"steps": STEPS, **balance}
    table["discriminator"] = {"name": "mlp", "hidden": [16], "dropout": 0.3}
    whole, _ = captured(built(table, plugins, tmp_path), plugins, ReplayRecorder())
    train(whole, 0, lambda step: None)
    half, _ = captured(built(table, plugins, tmp_path), plugins, ReplayRecorder())
    for step in range(11):
        take_step(half, step)
    state = training_state(half, 11)
    resumed, _ = captured(built(table, plugins, tmp_path), plugins, ReplayRecorder())
    restore_training(resumed, state)
    train(resumed, 11, lambda step: None)
    assert_same(flat(resumed), flat(whole))


def test_a_capture_that_fails_leaves_the_steps_eager(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    class Failing(ReplayRecorder):
        def record(self, work: Callable[[], None]) -> Callable[[], None]:
            randomness = torch.get_rng_state()
            super().record(work)
            torch.set_rng_state(randomness)
            raise RuntimeError("operation not permitted when stream is capturing")

    table["train"]["steps"] = STEPS
    eager = built(table, plugins, tmp_path)
    train(eager, 0, lambda step: None)
    wanted = flat(eager)
    training = built(table, plugins, tmp_path)
    training, turns = captured(training, plugins, Failing())
    train(training, 0, lambda step: None)
    assert turns.refusal == "the capture failed: operation not permitted when stream is capturing"
    assert training.step_optimizations["captured"] == turns.refusal
    assert_same(flat(training), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# The watch
# ---------------------------------------------------------------------------------------------------------------------


class Faulty:
    """What the penalties below have in common."""

    player = "generator"
    every = 1


def item(images: Tensor) -> Tensor:
    return images.mean() * images.std().item()


def branch(images: Tensor) -> Tensor:
    return images.mean() if images.sum() > 0 else images.mean() * 2


def listed(images: Tensor) -> Tensor:
    return images.mean() * sum(images.flatten()[:2].tolist())


def as_array(images: Tensor) -> Tensor:
    return images.mean() * float(images.detach().numpy()[0, 0, 0, 0])


def chosen_by_mask(images: Tensor) -> Tensor:
    return images[images > 0].mean()


def counted(images: Tensor) -> Tensor:
    return images.mean() * len(torch.nonzero(images.detach()))


def by_a_python_number(images: Tensor) -> Tensor:
    return images.mean() * random.random()


def from_a_python_list(images: Tensor) -> Tensor:
    return images.mean() * torch.tensor([1.0, 2.0]).sum()


def compared(images: Tensor) -> Tensor:
    return images.mean() * (2.0 if torch.equal(images, images) else 1.0)


def by_a_coin(images: Tensor) -> Tensor:
    return (images if random.random() < 2 else images.flip(3)).mean()


def by_a_whole_number(images: Tensor) -> Tensor:
    return images.roll(random.randint(1, 1)).mean()


def by_numpys_coin(images: Tensor) -> Tensor:
    return (images if np.random.rand() < 2 else images.flip(3)).mean()


MEAN = {"of the last steps": torch.zeros(())}


def rebound(images: Tensor) -> Tensor:
    MEAN["of the last steps"] = 0.9 * MEAN["of the last steps"] + 0.1 * images.detach().mean()
    return images.mean() * MEAN["of the last steps"]


def from_an_array(images: Tensor) -> Tensor:
    return images.mean() * torch.from_numpy(np.ones(4, np.float32)).sum()


class Counts:
    """Does another thing in every second call."""

    calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        Counts.calls += 1
        return images.mean() if Counts.calls % 2 else images.square().mean()


def one_hot_of_unknown_classes(images: Tensor) -> Tensor:
    return images.mean() * nn.functional.one_hot(torch.zeros(2, dtype=torch.int64)).sum()


def repeated_by_values(images: Tensor) -> Tensor:
    return images.repeat_interleave(torch.ones(len(images), dtype=torch.int64), 0).mean()


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "item": (item, "reads a value back from the device"),
    "branch": (branch, "reads a value back from the device"),
    "tolist": (listed, "reads values back from the device (Tensor.tolist)"),
    "numpy": (as_array, "reads values back from the device (Tensor.numpy)"),
    "mask": (chosen_by_mask, "takes a shape from values (index)"),
    "nonzero": (counted, "takes a shape from values (nonzero)"),
    "equal": (compared, "reads a value back from the device (equal)"),
    "one_hot without a number of classes": (one_hot_of_unknown_classes, "reads a value back from the device"),
    "repeat_interleave": (repeated_by_values, "takes a shape from values (repeat_interleave)"),
    "a number that changes": (by_a_python_number, "draws Python's random numbers"),
    "a coin that falls the same way": (by_a_coin, "draws Python's random numbers"),
    "a whole number that is always the same": (by_a_whole_number, "draws Python's random numbers"),
    "numpy's coin": (by_numpys_coin, "draws NumPy's random numbers"),
    "a mean kept for the next step": (rebound, "keeps a tensor of one step for the next"),
    "an array": (from_an_array, "makes a tensor from Python values"),
    "a tensor from Python values": (from_a_python_list, "makes a tensor from Python values"),
    "another course every second step": (Counts(), "does not do the same in each step: aten.pow"),
}


def penalised(term: Callable[[Tensor], Tensor], table: dict[str, Any], plugins: Plugins) -> dict[str, Any]:
    @frozen
    class Blamed(Faulty):
        def penalty(self, step: Step) -> Tensor:
            return term(step.fake)

    register(plugins, "penalty", Blamed)
    return table | {"penalty": [{"name": "blamed"}]}


@pytest.mark.parametrize("fault", spread(8, FAULTS))
def test_a_plugin_that_cannot_be_captured_is_named_and_right_all_the_same(
    fault: str, table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    term, words = FAULTS[fault]
    table["train"]["steps"] = 8
    table = penalised(term, table, plugins)
    eager = built(table, plugins, tmp_path)
    random.seed(0)
    Counts.calls = 0
    MEAN["of the last steps"] = torch.zeros(())
    train(eager, 0, lambda step: None)
    wanted = flat(eager)
    training = built(table, plugins, tmp_path)
    training, turns = captured(training, plugins, ReplayRecorder())
    random.seed(0)
    Counts.calls = 0
    MEAN["of the last steps"] = torch.zeros(())
    train(training, 0, lambda step: None)
    assert turns.refusal is not None
    assert turns.captured == 0
    line = (term if hasattr(term, "__code__") else Counts.__call__).__code__.co_firstlineno
    place, _, what = turns.refusal.partition(": ")
    assert place.startswith(f"plugin faulty, {__file__}, line ")
    assert line < int(place.rpartition(" ")[2]) <= line + 4
    assert words in what
    assert_same(flat(training), wanted)


@pytest.mark.extended
@pytest.mark.slow
def test_bundled_components_are_fit(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    """Every loss, penalty and network that comes with ganlab; no false alarm."""
    networks: list[dict[str, Any]] = [{}, DCGAN]
    for loss in plugins.registry.of_kind("loss"):
        for changes in networks:
            training = built(table | changes | {"loss": {"name": loss.name}}, plugins, tmp_path)
            turns = captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder())
            assert dry_run_capture(turns, training.loader.batch) is None
            assert turns.captured == 1


def test_an_optimiser_and_a_network_are_named_too(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    class Reading(nn.Module):
        latent_dim = 4

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
            level = float(z.mean())
            return (self.weight * level).expand(len(z), 1, 8, 8)

    @frozen
    class Level:
        def build(self, images: ImageSpec) -> nn.Module:
            return Reading()

    register(plugins, "generator", Level)
    training = built(table | {"generator": {"name": "level"}}, plugins, tmp_path)
    turns = captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder())
    refusal = dry_run_capture(turns, training.loader.batch)
    assert refusal is not None
    assert refusal.startswith(f"plugin faulty, {__file__}, line {Reading.forward.__code__.co_firstlineno + 1}: reads")

    class Clipped(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if max(float(p.grad.abs().max()) for group in self.param_groups for p in group["params"]) < 1e9:
                super().step(closure)

    @frozen
    class Clipping:
        def build(self, parameters: Any) -> torch.optim.Optimizer:
            return Clipped(parameters, lr=0.1)

    register(plugins, "optimizer", Clipping)
    training = built(table | {"optimizer": {"name": "clipping"}}, plugins, tmp_path)
    turns = captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder())
    refusal = dry_run_capture(turns, training.loader.batch)
    assert refusal is not None
    assert "plugin faulty" in refusal
    assert "reads a value back" in refusal


KEPT = {
    "a buffer changed in place": "self.mean.lerp_(images.detach().mean(), 0.1)",
    "random numbers of the device": "images = images + 0.1 * torch.rand(len(images), 1, 1, 1, device=images.device)",
    "torch.where": "images = torch.where(images > 0, images, -images)",
    "a cache filled at first use": "self.cache = self.cache if self.cache is not None else torch.ones_like(images[:1])",
    # These look at values on the CPU only.
    "one_hot": "images = images * torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.int64), 4).sum()",
    "repeat_interleave": "n = len(images); images = images.repeat_interleave(torch.ones(n).long(), 0, output_size=n)",
    "a power iteration": "images = images * (self.weight @ self.vector).norm()",
}


@pytest.mark.parametrize("code", KEPT)
def test_no_false_alarm(code: str, table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(64, 1))
            self.register_buffer("mean", torch.zeros(()))
            self.weight, self.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
            self.cache: Tensor | None = None

        def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
            scope = {"self": self, "images": images, "torch": torch}
            exec(KEPT[code], scope)
            return self.layer(scope["images"].flatten(1)).squeeze(1)

    @frozen
    class Judging:
        def build(self, images: ImageSpec) -> nn.Module:
            return Judge()

    register(plugins, "discriminator", Judging)
    table |= {"discriminator": {"name": "judging"}, "penalty": [{"name": "lazy"}]}
    training = built(table, plugins, tmp_path)
    assert (
        dry_run_capture(
            captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder()),
            training.loader.batch,
        )
        is None
    )


@pytest.mark.parametrize("cls", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "ASGD", "RMSprop", "SGD", "Rprop"])
def test_torchs_optimisers_are_fit(cls: str, table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    """Those that read their step back on the CPU have `capturable` on CUDA, which is set there."""

    @frozen
    class Theirs:
        def build(self, parameters: Any) -> torch.optim.Optimizer:
            return getattr(torch.optim, cls)(parameters, lr=1e-3)

    register(plugins, "optimizer", Theirs)
    training = built(table | {"optimizer": {"name": "theirs"}}, plugins, tmp_path)
    assert (
        dry_run_capture(
            captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder()),
            training.loader.batch,
        )
        is None
    )


def test_a_module_that_a_plugin_imports_is_that_plugins(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "levels.py").write_text("def level(x):\n    return float(x.mean())\n")
    (tmp_path / "helped.py").write_text(
        "from attrs import frozen\nfrom ganlab import hookimpl\nfrom levels import level\n\n@frozen\nclass Level:\n"
        "    def discriminator(self, real, fake): return (fake - real).mean() * level(real)\n"
        "    def generator(self, real, fake): return -fake.mean()\n\n@hookimpl\n"
        "def register_losses(register): register('level', Level)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = load_plugins([tmp_path / "helped.py"])
    training = built(table | {"loss": {"name": "level"}}, plugins, tmp_path)
    refusal = dry_run_capture(
        captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder()),
        training.loader.batch,
    )
    assert refusal is not None
    assert refusal.startswith(f"plugin helped, {tmp_path / 'levels.py'}, line 2: reads a value back")


def test_a_profiler_goes_on_after_the_check() -> None:
    def called_afterwards() -> None:
        pass

    profiler = cProfile.Profile()
    profiler.enable()
    with OperationTrace(CPU):
        pass
    called_afterwards()
    profiler.disable()
    assert called_afterwards.__code__ in [entry.code for entry in profiler.getstats()]


def test_a_step_that_does_more_at_its_end_is_found(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    class Decaying(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            Decaying.steps += 1
            if Decaying.steps % 4 == 0:
                torch._foreach_mul_([p.detach() for group in self.param_groups for p in group["params"]], 0.99)

    @frozen
    class Decay:
        def build(self, parameters: Any) -> torch.optim.Optimizer:
            return Decaying(parameters, lr=0.1)

    register(plugins, "optimizer", Decay)
    training = built(table | {"optimizer": {"name": "decay"}}, plugins, tmp_path)
    refusal = dry_run_capture(
        captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder()),
        training.loader.batch,
    )
    assert refusal is not None
    line = inspect.unwrap(Decaying.step).__code__.co_firstlineno  # torch wraps it
    assert f"{__file__}, line {line + 4}: does not do the same in each step: aten." in refusal
    assert refusal.endswith("is not in every one")


READING = """
from attrs import frozen
from ganlab import hookimpl

@frozen
class Reading:
    def augment(self, images): return images * (1 + 0 * images.mean().item())

@hookimpl
def register_augmentations(register): register("reading", Reading)
"""


def test_a_run_with_captured_steps_and_one_whose_plugin_forbids_it(
    table: dict[str, Any], write: Any, ganlab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of `ganlab run`: equal checkpoints, and run.json says what was done and why."""
    table["train"] |= {"steps": 12, "log_every": 2}
    table["discriminator"] = {"name": "mlp", "hidden": [16], "dropout": 0.3}
    file = write(table)
    assert ganlab("run", file, "--out", "eager", "--device", "cpu")[0] == 0

    def with_graphs(experiment: Any, registry: Any, *arguments: Any) -> Training:
        training = build(experiment, registry, *arguments)
        return attrs.evolve(
            training, capture=captured_train_step(training.game, training.train_step, registry, ReplayRecorder())
        )

    monkeypatch.setattr("ganlab.run.train.build", with_graphs)
    code, out, err = ganlab("run", file, "--out", "captured", "--device", "cpu")
    assert code == 0, err
    assert "not captured" not in out + err
    assert read_info(Path("captured"))["step_levers"]["captured"] is True
    assert read_info(Path("eager"))["step_levers"]["captured"] is False
    last = Path("checkpoints/step-00000012")
    for saved in sorted(("eager" / last).glob("*.safetensors")):
        assert saved.read_bytes() == ("captured" / last / saved.name).read_bytes(), saved.name

    plugin = tmp_path / "reading.py"
    plugin.write_text(READING)
    options = ("--plugin", plugin, "--set", "augmentation=[{name = 'reading'}]")
    code, out, err = ganlab("run", file, "--out", "forbidden", "--device", "cpu", *options)
    assert code == 0, err
    why = read_info(Path("forbidden"))["step_levers"]["captured"]
    assert why.startswith(f"plugin reading, {plugin}, line 7: reads a value back from the device")
    assert (out + err).count("steps are not captured, which is slower but correct: ") == 1


# ---------------------------------------------------------------------------------------------------------------------
# What CUDA is asked, where there is none
# ---------------------------------------------------------------------------------------------------------------------


class FakeCuda:
    """Stands for torch.cuda: notes what it is asked, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.asked: list[str] = []
        self.pools: list[object] = []
        for name, stand_in in {
            "Stream": lambda device: FakeStream("side", self),
            "current_stream": lambda device: FakeStream("main", self),
            "stream": lambda stream: self.doing(f"on {stream.name}"),
            "set_stream": lambda stream: self.asked.append(f"{stream.name} is current"),
            "graph_pool_handle": object,
            "current_device": lambda: 0,
            "default_generators": [self],
            "CUDAGraph": lambda: self,
            "graph": self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        self.fails = fails

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        self.asked.append(what)
        yield
        self.asked.append(f"end of {what}")

    @contextmanager
    def graph(self, graph: object, pool: object, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
        assert (graph, capture_error_mode) == (self, "thread_local")
        self.pools.append(pool)
        with self.doing(f"capture on {stream.name}"):
            yield
            if self.fails:
                raise RuntimeError("operation not permitted")

    def clone_state(self) -> str:
        return "the state before"

    def graphsafe_set_state(self, state: str) -> None:
        self.asked.append(f"random numbers from {state}")

    def replay(self) -> None:
        self.asked.append("replay")


@frozen
class FakeStream:
    name: str
    cuda: FakeCuda

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.asked.append(f"{self.name} waits for {other.name}")


def test_what_cuda_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of torch's notes on CUDA graphs: warm-up on a side stream, capture there, one pool for all graphs."""
    cuda = FakeCuda(monkeypatch)
    graphs = CudaGraphs(torch.device("cuda"))
    graphs.run(lambda: cuda.asked.append("work"))
    assert cuda.asked == ["side waits for main", "on side", "work", "end of on side", "main waits for side"]
    cuda.asked.clear()
    replays = [graphs.record(lambda: cuda.asked.append("work")) for _ in range(2)]
    replays[0]()
    assert cuda.asked == 2 * ["capture on side", "work", "end of capture on side"] + ["replay"]
    assert cuda.pools[0] is cuda.pools[1]


def test_a_capture_that_cuda_breaks_off_gives_random_numbers_and_stream_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, fails=True)
    with pytest.raises(RuntimeError, match="not permitted"):
        CudaGraphs(torch.device("cuda", 0)).record(lambda: None)
    assert cuda.asked[-2:] == ["random numbers from the state before", "main is current"]
