"""Scores of each class, held against `ganlab score` of the same images and a folder of the data's of that class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlab import Evaluation, ImageDataset, load_run
from ganlab.evaluation import sampling
from ganlab.run.records import read_records
from ganlab.utils.paths import places
from ganlab.viz.image_grid import encode_png
from ganlab_plugins.datasets.digits import Digits
from ganlab_plugins.features.classifier import Classifier
from image_files import save
from stubs import CPU

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
SAMPLES = 60


@pytest.fixture
def conditional(table: dict[str, Any]) -> dict[str, Any]:
    """An experiment whose networks look at the class, with a metric that needs no training of its own."""
    table["generator"] = {"name": "conditional", "network": table["generator"]}
    table["discriminator"] = {"name": "conditional", "network": table["discriminator"]}
    table["metric"] = [{"name": "fid", "samples": SAMPLES, "features": "pixels"}]
    return table


@pytest.fixture
def run(conditional: dict[str, Any], write: Write, ganlab: Command) -> Path:
    assert ganlab("run", write(conditional), "--out", "r")[0] == 0
    return Path("r")


def digits() -> tuple[ImageDataset, Tensor]:
    dataset = Digits().build(places(), "train")
    assert dataset.condition is not None
    return dataset, dataset.condition


def made_for(run: Path, label: int, truncation: float | None = None) -> Tensor:
    """The images of a class that a metric of seed 0 is given."""
    loaded = load_run(run)
    conditions = loaded.conditions.of_class(label)
    drawn = sampling.sample(loaded.generator, SAMPLES, 0, CPU, conditions, "metric", truncation=truncation)
    return torch.cat([images for images, _ in drawn])


def evaluated(ganlab: Command, run: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """The records that one `ganlab eval` adds, by their names."""
    before = len(read_records(run / "metrics.jsonl"))
    code, _, err = ganlab("eval", run, *arguments)
    assert code == 0, err
    return {record["name"]: record for record in read_records(run / "metrics.jsonl")[before:]}


METRICS = (
    f"{{name='fid', samples={SAMPLES}, features='pixels'}}",
    f"{{name='kid', samples={SAMPLES}, features='pixels', subset_size=40}}",
    f"{{name='precision_recall', samples={SAMPLES}, features='pixels'}}",
)


@pytest.mark.parametrize("truncation", [0.5, pytest.param(None, marks=[pytest.mark.extended, pytest.mark.slow])])
def test_a_class_scores_what_its_images_alone_score(run: Path, ganlab: Command, truncation: float | None) -> None:
    options = ["--set", f"metric=[{', '.join(METRICS)}]"]
    if truncation is not None:
        options += ["--truncation", str(truncation)]
    evaluated(ganlab, run, "--per-class", *options)
    records = evaluated(ganlab, run, "--per-class", *options)  # with what the first time left in the cache
    images, labels = digits()[0].images, digits()[1]
    for label in (3, 4):
        folder = Path(f"real-{label}")
        folder.mkdir()
        for index, image in enumerate(images[labels == label]):
            (folder / f"{index:04}.png").write_bytes(encode_png(image))
        np.savez("made.npz", images=made_for(run, label, truncation).permute(0, 2, 3, 1).numpy())
        arguments = ["made.npz", "--against", folder, "--features", "pixels", "--set", "dataset.channels=1"]
        for name in ("fid", "kid", "precision_recall"):
            arguments += ["--metric", name]
        code, out, err = ganlab("score", *arguments, "--set", "metric.1.subset_size=40", "--no-floor", "--json")
        assert code == 0, err
        for by_hand in json.loads(out):
            record = records[f"{by_hand['name']}[{label}]"]
            assert record["value"] == pytest.approx(by_hand["value"], abs=1e-6)
            protocol = record["protocol"]
            assert (protocol["class"], protocol["generated"]) == (label, SAMPLES)
            assert protocol.get("truncation") == truncation
            for entry in ("fingerprint", "count"):
                assert protocol["reference"][entry] == by_hand["protocol"]["reference"][entry]
    for name in ("fid", "kid", "kid_std", "precision", "recall", "density", "coverage"):
        of_classes = [records[f"{name}[{label}]"] for label in range(10)]
        mean = records[f"{name}[mean]"]
        assert mean["value"] == pytest.approx(np.mean([record["value"] for record in of_classes]))
        assert mean["protocol"]["reference"]["count"] == labels.bincount().tolist()
        if "floor" in mean:
            assert mean["floor"]["value"] == pytest.approx(np.mean([record["floor"]["value"] for record in of_classes]))


@pytest.mark.extended
@pytest.mark.slow
def test_features_that_learn_from_labels_learn_from_all_classes(run: Path, ganlab: Command) -> None:
    """The share of a class's images that the classifier of the whole data set puts into it."""
    features = "{name='classifier', updates=60, dim=8}"
    metrics = f"[{{name='class_accuracy', samples={SAMPLES}, features={features}}}, {{name='mode_coverage'}}]"
    before = len(read_records(run / "metrics.jsonl"))
    code, _, err = ganlab("eval", run, "--per-class", "--set", f"metric={metrics}", "--set", "metric.1.samples=9")
    assert code == 0
    assert (
        "r: metric 'mode_coverage': no class can be scored; class 0: mode_coverage needs an image of every class" in err
    )
    records = read_records(run / "metrics.jsonl")[before:]
    assert [record["name"] for record in records] == [
        *(f"class_accuracy[{c}]" for c in range(10)),
        "class_accuracy[mean]",
    ]
    evaluation = Evaluation(
        generated=lambda count, seed: iter(()),
        dataset=lambda split: digits()[0],
        device=CPU,
        places=places(),
        progress=lambda what, done, total: None,
    )
    classifier = Classifier(updates=60, dim=8).build(evaluation)
    shares = [(classifier.logits(made_for(run, c)).argmax(1) == c).double().mean().item() for c in range(10)]
    assert [record["value"] for record in records[:10]] == pytest.approx(shares)
    assert records[10]["value"] == pytest.approx(sum(shares) / 10)
    assert {record["protocol"]["features"]["sha256"] for record in records} == {classifier.fingerprint}


def test_a_class_that_a_metric_refuses_stops_no_other(run: Path, ganlab: Command) -> None:
    counts = digits()[1].bincount().tolist()
    enough = [label for label, count in enumerate(counts) if count >= 150]
    assert 0 < len(enough) < 10
    metric = "metric=[{name='precision_recall', samples=150, features='pixels'}]"
    before = len(read_records(run / "metrics.jsonl"))
    code, _, err = ganlab("eval", run, "--per-class", "--set", metric)
    assert code == 0
    said = [
        line
        for line in err.splitlines()
        if "precision and recall compare sets of equal size" in line and "class" in line
    ]
    assert len(said) == 10 - len(enough)
    few = next(label for label in range(10) if label not in enough)
    assert f"r: metric 'precision_recall', class {few}: " in said[0]
    assert f"has {counts[few]} images for 150 generated ones" in said[0]
    records = {record["name"]: record for record in read_records(run / "metrics.jsonl")[before:]}
    assert [name for name in records if name.startswith("recall")] == [
        *(f"recall[{c}]" for c in enough),
        "recall[mean]",
    ]
    assert records["recall[mean]"]["protocol"]["classes"] == enough

    code, _, err = ganlab("eval", run, "--per-class", "--set", metric.replace("150", "500"))
    assert code == 2
    (line,) = [line for line in err.splitlines() if "no class can be scored" in line]
    assert "set samples to at most" in line


def test_a_mean_over_some_classes_or_of_one_is_said(run: Path, ganlab: Command) -> None:
    counts = digits()[1].bincount()
    for count in (1, 2):
        samples = int(counts.topk(count).values[-1])
        scored = (counts >= samples).nonzero()[:, 0].tolist()
        metric = f"metric=[{{name='precision_recall', samples={samples}, features='pixels'}}]"
        before = len(read_records(run / "metrics.jsonl"))
        code, out, err = ganlab("eval", run, "--per-class", "--set", metric)
        assert code == 0
        names = [r["name"] for r in read_records(run / "metrics.jsonl")[before:] if r["name"].startswith("recall")]
        if len(scored) == 1:
            assert f"r: metric 'precision_recall': no mean over classes, since only class {scored[0]} is scored" in err
            assert names == [f"recall[{scored[0]}]"]
            assert "[mean]" not in out
        else:
            assert f"r: metric 'precision_recall': the mean is over {len(scored)} of 10 classes" in err
            assert names == [*(f"recall[{label}]" for label in scored), "recall[mean]"]


def test_one_class_has_no_mean(conditional: dict[str, Any], write: Write, ganlab: Command) -> None:
    for index in range(12):
        save(Path("set") / "only" / f"{index}.png", np.full((8, 8, 3), 20 * index, np.uint8))
    conditional["dataset"] = {"name": "image_folder", "path": str(Path("set").absolute()), "size": 8}
    conditional["train"]["batch_size"] = 8
    assert ganlab("run", write(conditional), "--out", "r")[0] == 0
    before = len(read_records(Path("r/metrics.jsonl")))
    code, _, err = ganlab("eval", "r", "--per-class")
    assert code == 0, err
    assert [record["name"] for record in read_records(Path("r/metrics.jsonl"))[before:]] == ["fid[0]"]
    assert "r: metric 'fid': no mean over classes, since only class 0 is scored" in err
    code, _, err = ganlab("compare", "r", "--metric", "fid[mean]")
    assert (code, err.strip()) == (2, "--metric fid[mean]: no run has it; did you mean 'fid[0]'?")


def test_runs_compare_by_a_class_and_by_the_mean(conditional: dict[str, Any], write: Write, ganlab: Command) -> None:
    conditional["train"]["checkpoint_every"] = 2
    scored = {}
    for seed in (0, 1):
        ganlab("run", write(conditional), "--set", f"seed={seed}", "--out", f"r{seed}")
        assert ganlab("eval", f"r{seed}", "--per-class", "--truncation", "0.1")[0] == 0  # is not what is compared
        scored[seed] = evaluated(ganlab, Path(f"r{seed}"), "--per-class")
        evaluated(ganlab, Path(f"r{seed}"), "--per-class", "--step", "2")
    for name in ("fid[mean]", "fid[3]"):
        code, out, err = ganlab("compare", "r0", "r1", "--metric", name, "--json", "--html", "page.html")
        assert code == 0, err
        (row,) = json.loads(out)[0]["rows"]
        assert row["final"]["mean"] == pytest.approx((scored[0][name]["value"] + scored[1][name]["value"]) / 2)
        assert name in Path("page.html").read_text()
        assert ganlab("compare", "r0", "r1", "--metric", name)[1].startswith(f"{name}, lower is better")
    assert ganlab("report", "r0")[0] == 0
    assert "fid[3]: " in Path("report.html").read_text()


def test_what_only_an_earlier_step_scored_is_no_final_value(
    conditional: dict[str, Any], write: Write, ganlab: Command
) -> None:
    conditional["train"]["checkpoint_every"] = 2
    ganlab("run", write(conditional), "--out", "r")
    evaluated(ganlab, Path("r"), "--per-class", "--step", "2")
    code, _, err = ganlab("compare", "r", "--metric", "fid[3]")
    assert (code, err.strip()) == (2, "r: finished without 'fid[3]'")


def test_a_run_without_classes_is_refused(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["metric"] = [{"name": "fid", "samples": SAMPLES, "features": "pixels"}]
    ganlab("run", write(table), "--out", "r")
    code, out, err = ganlab("eval", "r", "--per-class")
    assert (code, out, err.strip()) == (2, "", "--per-class: the networks of this run know no classes: r")


def test_the_folders_of_an_image_folder_are_classes(conditional: dict[str, Any], write: Write, ganlab: Command) -> None:
    """From files to scores: a conditional run, samples of one class, a score of each."""
    levels = {"dark": 20, "light": 230}
    for name, level in levels.items():
        for index in range(12):
            save(Path("set") / name / f"{index}.png", np.full((8, 8, 3), level + index, np.uint8))
    conditional["dataset"] = {"name": "image_folder", "path": str(Path("set").absolute()), "size": 8}
    conditional["train"] |= {"steps": 60, "batch_size": 8}
    conditional["optimizer"]["lr"] = 1e-2
    assert ganlab("run", write(conditional), "--out", "r")[0] == 0
    run = load_run("r")
    assert run.info["condition"] == [12, 12]
    assert ganlab("sample", "r", "--label", "1", "--count", "3", "--out", "s.npz")[0] == 0
    with np.load("s.npz") as arrays:
        assert arrays["labels"].tolist() == [1, 1, 1]
    records = evaluated(ganlab, Path("r"), "--per-class")
    assert [record["protocol"]["reference"]["count"] for record in records.values()] == [12, 12, 12]
    darker, lighter = (run.sample(20, label=label).float().mean() for label in (0, 1))
    assert darker < lighter
