"""Published methods as plugins of one file (tests/methods): each conforms, trains, and is the same on two processes."""

from __future__ import annotations

import ast
import copy
import io
import math
import re
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import truncnorm
from torch.nn.functional import cross_entropy, softplus
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize

import paired_images
import signal_data
from children import Child
from ganlab.config.load import load_experiment
from ganlab.data.loader import BatchLoader
from ganlab.data.pixels import to_uint8
from ganlab.evaluation.sampling import generate_images, sample_inputs
from ganlab.protocols import DataSpec, ImageSpec
from ganlab.run.load_run import load_run
from ganlab.run.records import read_records
from ganlab.testing import conformance
from ganlab.training.build import build
from ganlab.training.loop import Training, take_step
from ganlab.utils.errors import UserError
from ganlab.utils.paths import places
from stubs import CPU
from support import REPOSITORY
from test_distributed import environments
from trainings import Trainings

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parent / "methods"
FILES = {file.stem: file for file in sorted(FOLDER.glob("*.py"))}
MOST_LINES = 60
MODULES = ("torch", "attrs", "PIL", "sklearn", "collections", "functools", "itertools", "math", "pathlib", "typing")

GENERATOR = {"generator": {"name": "mlp", "latent_dim": 8, "hidden": [16]}}
DISCRIMINATOR = {"discriminator": {"name": "mlp", "hidden": [16]}}

TONES = {"plugins": [signal_data.__file__]}

PAIRS = {"plugins": [paired_images.__file__], "dataset": {"name": "paired"}}

TABLES: dict[str, dict[str, Any]] = {
    "adversarial_autoencoder": GENERATOR,
    "began": GENERATOR
    | {"discriminator": {"name": "autoencoder", "code": 4, "width": 16}, "loss": "began", "game": "gan"},
    "bigan": GENERATOR | {"game": "small_bigan"},
    "context_encoder": {},
    "ctgan": {"game": {"continuous": 2, "latent_dim": 8, "width": 16}},
    "cut": {"source": {"name": "digits"}, "game": {"name": "small_cut", "patches": 8, "width": 8}},
    "cyclegan": {"source": {"name": "digits"}, "game": {"name": "small_cyclegan"}},
    "dann": {"source": {"name": "digits"}, "game": {"width": 8}},
    "ebgan": GENERATOR,
    "esrgan": PAIRS | {"dataset": {"name": "paired", "smaller": 2}, "game": {"blocks": 1, "width": 8}},
    "feature_matching": GENERATOR,
    "freeze_d": GENERATOR
    | {"discriminator": {"name": "freeze_d", "network": DISCRIMINATOR["discriminator"]}, "loss": "bce", "game": "gan"},
    "gman": GENERATOR | DISCRIMINATOR | {"game": {"harshness": 0.5}},
    "hifi_gan": TONES
    | {
        "dataset": {"name": "tones", "hop": 8},
        "game": {"periods": [2, 3], "scales": 2, "width": 4, "sample_rate": 1000},
    },
    "infogan": {"game": {"name": "small_infogan", "categories": 4, "noise": 6}},
    "inversion": GENERATOR | {"dataset": {"name": "numbered", "count": 32}},
    "mixed_table": GENERATOR | DISCRIMINATOR | {"loss": "bce", "game": "gan"},
    "mmd_gan": GENERATOR | {"game": {"critic_steps": 2, "dim": 16, "clip": 1.0}},
    "pix2pix": PAIRS | {"game": {"name": "small_pix2pix"}},
    "pixelda": {"source": {"name": "digits"}, "game": {"name": "small_pixelda", "width": 8}},
    "priors": DISCRIMINATOR | {"game": {"latent_dim": 8, "width": 8}},
    "projected_gan": GENERATOR | {"game": {"stages": 2, "width": 8}},
    "sixteen_bit": GENERATOR | DISCRIMINATOR | {"loss": "bce", "game": "gan"},
    "srgan": PAIRS
    | {
        "dataset": {"name": "paired", "smaller": 2},
        "game": {"blocks": 1, "width": 8, "convolutions": 2, "norm": "instance"},
    },
    "stylegan2": DISCRIMINATOR | {"game": {"dim": 8}, "penalty": [{"name": "r1"}]},
    "topk": GENERATOR | DISCRIMINATOR,
    "vae_gan": GENERATOR | {"game": "small_vae_gan"},
    "vision_aided": GENERATOR | DISCRIMINATOR | {"game": {"stages": 1, "width": 8, "interval": 2}},
    "wavegan": TONES
    | {
        "dataset": {"name": "tones"},
        "generator": {"name": "wavegan", "latent_dim": 8, "width": 4},
        "discriminator": {"name": "wavegan", "width": 4, "shuffle": 0},
        "loss": "wasserstein",
        "penalty": [{"name": "r1"}],
        "game": "gan",
    },
    "vqgan": {"loss": {"name": "hinge"}, "game": {"name": "small_vqgan", "start": 3, "codes": 8}},
}
"""What the experiment file of each method has besides the method and what all have."""

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "esrgan": {"esrgan": {"blocks": 1, "width": 8, "convolutions": 2}},
    "hifi_gan": {"hifi_gan": {"periods": [2], "scales": 1, "width": 2}},
    "mixed_table": {"mixed_table": {"file": "table.csv", "discrete": ["plan", "town"], "modes": 3}},
    "mmd_gan": {"mmd_gan": {"critic_steps": 2, "dim": 16, "width": 32}},
    "projected_gan": {"projected_gan": {"stages": 2, "width": 8}},
    "sixteen_bit": {"grey16": {"folder": "scans"}},
    "stylegan2": {"stylegan2": {"dim": 8, "width": 8}},
    "vision_aided": {"vision_aided": {"stages": 1, "width": 8, "interval": 1}},
    "srgan": {
        "srgan": {"blocks": 1, "width": 8, "convolutions": 2},
        "srresnet": {"blocks": 1, "width": 8},
    },
}
"""Options with which a file's components conform, where those by default are large."""

CONFORMS_BY_DEFAULT = ("gman", "pix2pix", "wavegan")
RUNS_BY_DEFAULT = ("stylegan2", "vqgan")


def some(names: Any, default: tuple[str, ...]) -> list[Any]:
    """Parameters of a test, of which only the default ones are in the default tier."""
    slow = (pytest.mark.extended, pytest.mark.large)
    return [pytest.param(name, marks=() if name in default else slow) for name in names]


def lines_of_code(file: Path) -> int:
    """The lines of a method's code: without imports, docstrings, comments, empty lines and networks (`nn.Module`)."""
    source = file.read_text()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_network = isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(base) for base in node.bases)
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_network or is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt)
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code = {
        token.start[0] for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in layout
    }
    return len(code - left_out)


def scans(folder: Path) -> Path:
    """A folder of grey pictures of 16 bits, with levels in the upper part of their range; its absolute path."""
    folder.mkdir()
    for number in range(40):
        levels = torch.randint(40_000, 65_536, (8, 8), generator=torch.Generator().manual_seed(number))
        Image.fromarray(levels.numpy().astype("uint16")).save(folder / f"{number:02}.png")
    return folder.absolute()


def mixed_table(file: Path) -> Path:
    """A table of two continuous and two discrete columns, in which "town" follows from the plan; its absolute path."""
    random = np.random.default_rng(0)
    plan = random.choice(["a", "b", "c"], 200, p=[0.9, 0.08, 0.02])
    town = np.where(plan == "a", "x", "y")
    age = np.where(random.random(200) < 0.5, 20, 60) + random.normal(size=200)
    rows = zip(plan, age, town, random.normal(size=200), strict=True)
    file.write_text("\n".join(["plan,age,town,height", *(f"{p},{a:.3f},{t},{h:.3f}" for p, a, t, h in rows)]))
    return file.absolute()


@pytest.fixture
def experiment(table: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """The experiment of a method by name, as a table: a few steps of tiny networks on the digits."""

    def experiment(name: str) -> dict[str, Any]:
        common = {key: table[key] for key in ("name", "dataset", "optimizer", "train")}
        own = copy.deepcopy(TABLES[name])
        if name == "sixteen_bit":
            own["dataset"] = {"name": "grey16", "folder": str(scans(Path("scans")))}
        if name in ("ctgan", "mixed_table"):
            own["dataset"] = {"name": "mixed_table", **OPTIONS["mixed_table"]["mixed_table"]}
            own["dataset"] |= {"file": str(mixed_table(Path("table.csv")))}
            own["plugins"] = [str(FILES["mixed_table"])] if name == "ctgan" else []
        plugins = [str(FILES[name]), *own.pop("plugins", [])]
        options = own.pop("game", {})
        game = options if isinstance(options, str) else {"name": name, **options}
        return {**common, **own, "plugins": plugins, "game": game}

    return experiment


@pytest.mark.parametrize("name", FILES)
def test_a_method_is_short(name: str) -> None:
    assert lines_of_code(FILES[name]) <= MOST_LINES


@pytest.mark.parametrize("name", FILES)
def test_a_method_uses_public_names_only(name: str) -> None:
    """Of ganlab names without an underscore; from elsewhere only what ganlab needs, and the standard library."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] in MODULES
        elif isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"torch", "numpy", "csv", "math", "ganlab"}
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr == "__init__"


def test_the_table_of_methods_is_true() -> None:
    text = (REPOSITORY / "docs" / "methods.md").read_text()
    rows = dict(re.findall(r"^\| .* \| `tests/methods/(\w+)\.py` \| (\d+) \|", text, re.MULTILINE))
    assert {name: int(lines) for name, lines in rows.items()} == {
        name: lines_of_code(file) for name, file in FILES.items()
    }


@pytest.mark.parametrize("name", some(FILES, CONFORMS_BY_DEFAULT))
def test_a_method_conforms(name: str, quick_timing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "sixteen_bit":
        monkeypatch.setenv("GANLAB_DATA", str(scans(Path("scans")).parent))
    if name == "mixed_table":
        monkeypatch.setenv("GANLAB_DATA", str(mixed_table(Path("table.csv")).parent))
    for component in conformance(FILES[name], OPTIONS.get(name)):
        not_passed = [str(found) for found in component.check() if found.result != "passed"]
        assert not_passed == []


def test_options_are_given_to_a_game_that_takes_components() -> None:
    """By `ganlab check FILE --set gman.count=2`, without a word about the components: they are the suite's own."""
    (instance,) = [part.instance for part in conformance(FILES["gman"], {"gman": {"count": 2}}) if part.kind == "game"]
    assert instance.count == 2
    assert type(instance.generator).__name__ == "TinyGenerator"
    with pytest.raises(UserError, match=r"gman\.count: "):
        conformance(FILES["gman"], {"gman": {"count": 0}})


@pytest.mark.parametrize("name", some(FILES, RUNS_BY_DEFAULT))
def test_a_method_runs_from_an_experiment_file(
    name: str, experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment(name)
    table["train"] |= {"steps": 6, "log_every": 2, "ema": 0.9}
    code, _, err = ganlab("run", write(table), "--out", "run", "--device", "cpu")
    assert code == 0, err
    last = read_records(Path("run/log.jsonl"))[-1]
    losses = {key: value for key, value in last.items() if key.startswith("loss_")}
    assert len(losses) >= 2
    assert all(math.isfinite(value) for value in losses.values()), losses
    run = load_run(Path("run"))
    if run.rules.sampler is None:
        return
    images = run.sample(5, seed=1)
    data = run.experiment.dataset.build(places(), "train").images
    assert images.shape == (5, *data.shape[1:])
    assert images.dtype == data.dtype
    assert torch.equal(images, run.sample(5, seed=1))
    assert not torch.equal(images, run.sample(5, seed=2))


def test_a_discriminator_begins_at_its_step(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    """VQGAN's discriminator, and its share in the autoencoder's loss; its weight is the ratio of two gradients."""
    table = experiment("vqgan")
    table["train"] |= {"steps": 6, "log_every": 1}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    records = read_records(Path("run/log.jsonl"))
    begun = [record["loss_autoencoder_adversarial"] != 0 for record in records]
    assert begun == [False, False, False, True, True, True]
    assert ["loss_discriminator" in record for record in records] == begun
    assert all(record["adaptive_weight"] > 0 for record in records)


def test_styles_are_truncated_towards_their_mean(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment("stylegan2")
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    run = load_run(Path("run"))
    mean = run.networks["mapping"].mean
    assert mean.any()
    (style,) = run.sampler.latents(1, torch.Generator().manual_seed(0))
    (half,) = run.sampler.latents(1, torch.Generator().manual_seed(0), 0.5)
    torch.testing.assert_close(half, (style + mean) / 2)
    assert not style.requires_grad
    assert not torch.equal(run.sample(3), run.sample(3, truncation=0.5))
    styles_are_mixed_walked_between_and_found(run, ganlab)


def styles_are_mixed_walked_between_and_found(run: Any, ganlab: Callable[..., Any]) -> None:
    """By hand: the synthesis network of styles that are exchanged, or that lie on a line; an image's own are found."""
    w, _ = next(sample_inputs(run.sampler, 4, 5))

    def made(styles: torch.Tensor) -> torch.Tensor:
        (image,) = generate_images(run.sampler, styles[None], run.device)
        return image[0]

    def same(images: torch.Tensor, others: torch.Tensor) -> bool:
        return bool((images.int() - others.int()).abs().max() <= 1)  # a batch of another size may round otherwise

    grid = run.mix([1, 3], count=2, seed=5)
    for row in range(2):
        for column in range(2):
            styles = torch.stack([w[2 + column if layer in (1, 3) else row, layer] for layer in range(4)])
            assert same(grid[row + 1, column + 1], made(styles))
    assert same(grid[0, 2], made(w[3]))
    assert same(grid[1, 0], made(w[0]))
    assert ganlab("sample", "run", "--mix", "0-1", "--count", 2, "--out", "mix.png")[0] == 0
    for layers, words in (
        ("0-3", "expected some of the layers 0 to 3"),
        ("4", "0 to 3"),
        ("a", "expected layers such as"),
    ):
        code, _, err = ganlab("sample", "run", "--mix", layers)
        assert (code, len(err.splitlines())) == (2, 1)
        assert words in err
    assert same(run.walk(5, count=2, frames=4).frames[1], made((w[0] + w[1]) / 2))
    found = run.project(made(w[0])[None], updates=200, starts=16)
    assert found.latents.shape == (1, 4, 8)
    assert found.errors[0] < 0.2 * found.first_errors[0]


def test_path_lengths_are_those_of_the_jacobian(experiment: Callable[[str], dict[str, Any]], write: Write) -> None:
    """StyleGAN2, appendix B: the norm of J^T y, in the mean over layers, of each image by itself."""
    synthesis = built(experiment("stylegan2"), write).game.networks["synthesis"]
    random = torch.Generator().manual_seed(0)
    w, noise, y = (torch.randn(2, *shape, generator=random) for shape in ((4, 8), (4, 8, 8), (1, 8, 8)))
    lengths = synthesis.lengths(w.requires_grad_(), noise, y)
    for number in range(2):

        def image(styles: torch.Tensor, number: int = number) -> torch.Tensor:
            made: torch.Tensor = synthesis(styles[None], noise[number : number + 1]).flatten()
            return made

        jacobian = torch.autograd.functional.jacobian(image, w[number].detach())
        gradient = torch.einsum("p,pld->ld", y[number].flatten() / 8, jacobian)
        torch.testing.assert_close(lengths[number], gradient.square().sum(1).mean().sqrt())


def test_several_discriminators_in_the_default_game(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    """A discriminator that returns a list of logits: the loss is the sum of those of its members."""
    table |= {"plugins": [str(FILES["gman"])], "discriminator": {"name": "several", **DISCRIMINATOR, "count": 2}}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    first, *_ = read_records(Path("run/log.jsonl"))
    assert first["loss_discriminator"] == pytest.approx(4 * math.log(2), abs=1)
    table |= {"discriminator": {"name": "several", **DISCRIMINATOR, "count": 1}}
    assert ganlab("run", write(table), "--out", "one", "--device", "cpu")[0] == 0
    one, *_ = read_records(Path("one/log.jsonl"))
    assert one["loss_discriminator"] == pytest.approx(2 * math.log(2), abs=0.5)


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.parametrize(("name", "networks"), [("pixelda", ["classifier"]), ("dann", ["features", "labels"])])
def test_the_classifier_is_scored_on_the_targets_test_split(
    name: str, networks: list[str], experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    """PixelDA's and DANN's figure: the share of test images of [dataset] whose class it finds, and has not seen."""
    table = experiment(name) | {"metric": [{"name": "target_accuracy"}]}
    table["train"] |= {"steps": 100}
    table["optimizer"] |= {"lr": 2e-3}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    score = read_records(Path("run/metrics.jsonl"))[-1]["value"]
    run = load_run("run")
    test = run.experiment.dataset.build(places(), "test")
    logits = test.images / 127.5 - 1
    for network in networks:
        logits = run.networks[network](logits)
    assert score == pytest.approx((logits.argmax(1) == test.condition).double().mean().item())
    assert score > 0.2  # source and target are the same digits


@pytest.mark.extended
@pytest.mark.large
def test_enlarged_images_are_scored_on_the_test_split(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    """SRGAN's figure, PSNR in closed form, of what the generator makes of the test split's conditions."""
    table = experiment("srgan") | {"metric": [{"name": "psnr"}]}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    score = read_records(Path("run/metrics.jsonl"))[-1]["value"]
    run = load_run("run")
    test = run.experiment.dataset.build(places(), "test")
    made = to_uint8(run.networks["generator"](test.condition / 127.5 - 1))
    errors = (test.images.double() - made.double()).square().flatten(1).mean(1)
    assert score == pytest.approx((10 * (255**2 / errors).log10()).mean().item())


def test_features_ascend_the_domains_loss(experiment: Callable[[str], dict[str, Any]], write: Write) -> None:
    """DANN's update by hand (section 4.1): features descend the task's gradient minus lambda times the domains'."""
    table = experiment("dann") | {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0}}
    table["game"] |= {"reversal": 0.5}
    training = built(table, write)
    batch = training.loader.batch(0)
    networks = copy.deepcopy(dict(training.game.networks))
    of_source, of_target = (networks["features"](images) for images in (batch.streams["source"].images, batch.images))
    task = cross_entropy(networks["labels"](of_source), batch.streams["source"].condition)
    domains = softplus(-networks["domains"](of_target)).mean() + softplus(networks["domains"](of_source)).mean()
    take_step(training, 0)
    for name, of_task, of_domains in (("features", 1, -0.5), ("labels", 1, 0), ("domains", 0, 1)):
        before = list(networks[name].parameters())
        gradients = torch.autograd.grad(of_task * task + of_domains * domains, before, retain_graph=True)
        for old, gradient, new in zip(before, gradients, training.game.networks[name].parameters(), strict=True):
            torch.testing.assert_close(new, old - 0.1 * gradient)


@pytest.mark.extended
@pytest.mark.large
def test_heads_join_one_after_another(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    """Vision-aided GAN's, after 2 and 4 steps, on the features of torchvision's networks, which stay as they are."""
    own = {"vgg16": make_layers(cfgs["D"][:2]), "vgg11": make_layers(cfgs["A"][:1])}
    for name, layers in own.items():
        save_file({f"features.{key}": value for key, value in layers.state_dict().items()}, f"{name}.safetensors")
    table = experiment("vision_aided")
    table["game"] |= {"features": "."}
    table["train"] |= {"steps": 6, "log_every": 1}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    records = read_records(Path("run/log.jsonl"))
    for name, first in (("vgg16", 2), ("vgg11", 4)):
        joined = [step >= first for step in range(6)]
        assert [f"loss_{name}_head" in record for record in records] == joined
        assert [record[f"loss_generator_{name}"] != 0 for record in records] == joined
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    normalised = normalize(pixels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for name, layers in own.items():
        torch.testing.assert_close(load_run("run").networks[name](pixels / 127.5 - 1), layers(normalised))


@pytest.mark.extended
@pytest.mark.large
def test_sixteen_bits_are_kept(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """What is read are the levels of the files; samples and scores are of 65,536 levels, not of 256."""
    table = experiment("sixteen_bit") | {
        "metric": [{"name": "kid", "features": "pixels", "samples": 30, "subset_size": 20}]
    }
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    run = load_run("run")
    train = run.experiment.dataset.build(places(), "train").images
    files = [np.array(Image.open(file)) for file in sorted(Path("scans").glob("*.png"))]
    assert np.array_equal(train[:, 0].numpy(), np.stack([files[n] for n in range(40) if n % 10]))
    made = run.sample(8)
    assert made.dtype == torch.uint16
    assert len(made.long().unique()) > 256
    assert read_records(Path("run/metrics.jsonl"))[-1]["protocol"]["images"] == "uint16, rounded"


def test_rows_are_drawn_by_the_logarithm_of_their_frequency(
    experiment: Callable[[str], dict[str, Any]], write: Write
) -> None:
    """CTGAN's training by sampling: of the rows for which "plan" is chosen, each plan is as often as its log says."""
    training = built(experiment("ctgan"), write)
    condition = training.dataset.condition
    assert isinstance(condition, dict)
    loader = BatchLoader.for_dataset(training.dataset, 160, 0, CPU)
    drawn = torch.cat([loader.index(number) for number in range(200)])
    plans = condition["plan"]
    counts = (plans > 0).sum(0)
    expected = (1 + counts).log() / (1 + counts).log().sum()
    own = plans.sum(1) / (plans.sum(1) + condition["town"].sum(1))  # the share of a row's draws for its plan
    found = torch.stack([own[drawn][plans[drawn].argmax(1) == plan].sum() for plan in range(3)])
    torch.testing.assert_close(found / own[drawn].sum(), expected, rtol=0.03, atol=0)
    rows = training.dataset.images
    assert rows.shape == (160, 2 * (1 + 3) + 3 + 2)
    assert rows[:, 1:4].sum(1).eq(1).all()
    assert set(rows[:, 1:4].argmax(1).tolist()) >= {0, 1}  # the two ages are two modes


def test_a_spectrogram_shows_a_tone_in_its_band() -> None:
    """HiFi-GAN's mel bands, of 500 Hz in 0 to 4,000 Hz: the peak is the band whose centre is nearest in mel."""
    (game,) = [part.cls(loss=None, sample_rate=8000) for part in conformance(FILES["hifi_gan"])]
    spec = ImageSpec.of((1, 4096), dtype="float32", condition_shape=(32, 32), condition_dtype="float32", range=(-1, 1))
    mel = game.build(DataSpec(spec)).network("mel").config()
    spectrogram = mel((2 * math.pi * 500 * torch.arange(4096) / 8000).sin()[None, None])
    assert spectrogram.shape == (1, 32, 33)
    in_mel = 2595 * math.log10(1 + 500 / 700)
    centres = torch.linspace(0, 2595 * math.log10(1 + 4000 / 700), 34)[1:-1]
    assert spectrogram[0, :, 16].argmax() == (centres - in_mel).abs().argmin()


def built(table: dict[str, Any], write: Write) -> Training:
    """The training of an experiment, before its first step."""
    experiment, plugins = load_experiment(write(table))
    return build(experiment, plugins.registry, places(), CPU)


@pytest.mark.parametrize(("name", "activated"), [("srgan", True), ("esrgan", False)])
def test_features_are_those_of_torchvisions_vgg(
    name: str, activated: bool, experiment: Callable[[str], dict[str, Any]], write: Write
) -> None:
    """The first four convolutions, loaded from a file that has more; frozen, and as torchvision computes them."""
    whole = make_layers(cfgs["E"][:4])
    save_file({f"features.{key}": value for key, value in whole.state_dict().items()}, "vgg.safetensors")
    table = experiment(name)
    table["game"] |= {"convolutions": 3, "features": "vgg.safetensors"}
    training = built(table, write)
    vgg = training.game.networks["vgg"]
    assert "vgg" in training.initialised
    assert not vgg.training
    assert not any(weight.requires_grad for weight in vgg.parameters())
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    normalised = normalize(pixels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = whole[: 7 if activated else 6](normalised)
    torch.testing.assert_close(vgg(pixels / 127.5 - 1), expected.relu() if activated else expected)


def test_super_resolution_begins_with_its_first_stage(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment("srgan")
    table["game"] |= {"name": "srresnet"}
    first = {key: value for key, value in table["game"].items() if key != "convolutions"}
    assert ganlab("run", write(table | {"game": first}), "--out", "first", "--device", "cpu")[0] == 0
    (file,) = list(Path("first").glob("checkpoints/*4/generator.safetensors"))
    table["game"] |= {"name": "srgan", "weights": str(file)}
    state = built(table, write).game.networks["generator"].state_dict()
    assert all(torch.equal(state[key], value) for key, value in load_file(file).items())
    table["game"] |= {"blocks": 2}
    with pytest.raises(UserError, match=r"generator: .* does not fit: .*blocks\.1"):
        built(table, write)


@pytest.mark.extended
@pytest.mark.large
def test_frozen_layers_keep_the_weights_of_an_earlier_run(
    experiment: Callable[[str], dict[str, Any]], table: dict[str, Any], write: Write, ganlab: Ganlab
) -> None:
    assert ganlab("run", write(table | DISCRIMINATOR), "--out", "first", "--device", "cpu")[0] == 0
    (file,) = list(Path("first").glob("checkpoints/*4/discriminator.safetensors"))
    later = experiment("freeze_d")
    later["discriminator"] |= {"weights": str(file)}
    assert ganlab("run", write(later), "--out", "run", "--device", "cpu")[0] == 0
    before, after = load_file(file), load_run("run").networks["discriminator"].state_dict()
    kept = {key for key in before if torch.equal(before[key], after[key])}
    assert kept == {"layers.0.weight", "layers.0.bias"}
    later["discriminator"] |= {"layers": 2}
    code, _, err = ganlab("run", write(later), "--out", "all")
    assert code == 2
    assert "discriminator: layers: 2 of 2 layers with weights would be frozen" in err


@pytest.mark.extended
@pytest.mark.large
def test_latents_are_found_for_a_trained_generator(
    experiment: Callable[[str], dict[str, Any]], table: dict[str, Any], write: Write, ganlab: Ganlab
) -> None:
    """The generator stays as its run left it, and the images that it makes come nearer to those that are given."""
    assert ganlab("run", write(table), "--out", "first", "--device", "cpu")[0] == 0
    (file,) = list(Path("first").glob("checkpoints/*4/generator.safetensors"))
    later = experiment("inversion")
    later["game"] |= {"weights": str(file)}
    later["optimizer"] |= {"lr": 0.1}
    later["train"] |= {"steps": 60, "batch_size": 32}
    assert ganlab("run", write(later), "--out", "run", "--device", "cpu")[0] == 0
    records = read_records(Path("run/log.jsonl"))
    assert records[-1]["loss_latents_squared"] < 0.9 * records[0]["loss_latents_squared"]
    run = load_run("run")
    assert all(
        torch.equal(run.networks["generator"].state_dict()[key], value) for key, value in load_file(file).items()
    )
    assert run.networks["latents"].weight.shape == (32, 8)


def test_began_balances_both_errors() -> None:
    """Equation 5: k moves by rate (gamma L(x) - L(G(z))), and is in [0, 1]; logits are minus the errors L."""
    (loss,) = [part.cls(gamma=0.5, rate=0.1) for part in conformance(FILES["began"]) if part.kind == "loss"]
    errors = [(3.0, 1.0), (2.0, 0.5), (0.0, 9.0)]
    k = 0.0
    for real, fake in errors:
        value = loss.discriminator(torch.full((4,), -real), torch.full((4,), -fake))
        assert value.item() == pytest.approx(real - k * fake)
        k = min(max(k + 0.1 * (0.5 * real - fake), 0), 1)
        assert loss.state_dict()["k"].item() == pytest.approx(k)
    assert k == 0


@pytest.mark.parametrize(
    ("options", "variance", "bound"),
    [
        ({"prior": "uniform"}, 1 / 3, 1),
        ({"prior": "truncated"}, truncnorm(-2, 2).var(), 2),
        ({"prior": "mixture", "components": 4, "distance": 3.0}, 1 + 9 * 3 / 16, math.inf),
    ],
)
def test_latents_have_the_variance_of_their_prior(options: dict[str, Any], variance: float, bound: float) -> None:
    """In closed form; a mean of the mixture is 3 with probability 1/4, else 0, along each of four directions."""
    (game,) = [
        part.cls(discriminator=None, loss=None, latent_dim=4, **options) for part in conformance(FILES["priors"])
    ]
    sampler = game.build(DataSpec(ImageSpec(1, 8, 8))).sampler
    drawn = sampler.latents({}, 40_000, torch.Generator().manual_seed(0), None)
    assert drawn.shape == (40_000, 4, 1, 1)
    torch.testing.assert_close(drawn.var(0).flatten(), torch.full((4,), float(variance)), rtol=0.03, atol=0)
    assert drawn.abs().max() <= bound


@pytest.mark.torchrun
@pytest.mark.extended
def test_methods_are_the_same_on_two_processes(
    experiment: Callable[[str], dict[str, Any]], write: Write, tmp_path: Path
) -> None:
    """In every weight, after four steps of gradient descent; one pair of processes takes them all.

    Batch norm and dropout are off, and no penalty draws points: their statistics and random streams are each process's
    own.
    """
    files = []
    for name in FILES:
        files.append(write(experiment(name) | {"optimizer": {"name": "sgd", "lr": 0.01}}, f"{name}.toml"))
    folders = {count: tmp_path / str(count) for count in (1, 2)}
    for folder in folders.values():
        folder.mkdir()
    children = [
        Child(Trainings(files, folders[2], environment), tmp_path / f"{rank}.log")
        for rank, environment in enumerate(environments(2))
    ]
    Trainings(files, folders[1])()
    assert [child.ended(300) for child in children] == [0, 0], [child.said for child in children]
    far = {}
    for name in FILES:
        one, two = (load_file(folder / f"{name}.safetensors")["weights"] for folder in folders.values())
        assert one.isfinite().all(), name
        far[name] = float((one - two).abs().max())
    assert {name: distance for name, distance in far.items() if distance > 1e-5} == {}


def test_a_game_that_needs_pairs_refuses_class_labels(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment("pix2pix") | {"dataset": {"name": "digits"}}
    code, _, err = ganlab("run", write(table), "--out", "run", "--device", "cpu")
    assert code == 2
    assert "[dataset] must have images of the same size as conditions" in err


def network_file(given: str, before: str) -> str:
    """A game as a plugin, with an encoder that is made of another network."""
    return f'''
from attrs import frozen
from torch import nn
import ganlab


@frozen
class Game:
    """A game for a test.

    generator: any.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")

    def build(self, data):
        latents = ganlab.Network(lambda generator: nn.Linear(ganlab.latent_dim_of(generator), 1), given={given})
        networks = {{{before}}}
        move = ganlab.Move("all", players=tuple(networks), terms=self.terms)
        return ganlab.Rules(networks=networks, moves=[move], sampler=ganlab.sampler_of("generator"))

    def terms(self, turn):
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, None).mean() + turn.forward("head", z).square().mean()


@ganlab.hookimpl
def register_games(register):
    register("made_of", Game)
'''


@pytest.mark.parametrize(
    ("given", "networks", "said"),
    [
        ('("generator",)', '"generator": self.generator, "head": latents', ""),
        (
            '("generator",)',
            '"head": latents, "generator": self.generator',
            "the network 'head' is given 'generator', which is not before it",
        ),
        ('("decoder",)', '"generator": self.generator, "head": latents', "'decoder' among what the network"),
    ],
)
def test_a_network_is_made_of_one_before_it(
    given: str, networks: str, said: str, table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    (tmp_path / "game.py").write_text(network_file(given, networks))
    common = {key: table[key] for key in ("name", "dataset", "generator", "optimizer", "train")}
    code, _, err = ganlab("run", write({**common, "plugins": ["game.py"], "game": "made_of"}), "--out", "run")
    assert code == (2 if said else 0), err
    assert said in err
    if not said:
        assert load_run(Path("run")).networks["head"].in_features == 8
