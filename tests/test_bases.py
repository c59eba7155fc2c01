"""`base` in experiments and `matrix` in sweeps, held against files that are written out in full by hand."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab.config.load import experiment_to_toml, load_experiment
from ganlab.sweep.matrix import matrix_variants
from ganlab.sweep.plan import load_sweep
from ganlab.utils.errors import UserError
from tiers import spread

Write = Callable[..., Path]


def resolved(path: Path, *overrides: str) -> dict[str, Any]:
    return tomllib.loads(experiment_to_toml(*load_experiment(path, overrides)))


def refused(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        load_experiment(path, overrides)
    return caught.value.problems


def test_a_chain_of_files_is_the_file_that_is_written_out(
    write: Write, table: dict[str, Any], wedge: Path, tmp_path: Path
) -> None:
    """Tables are merged, lists replaced, another component's options dropped, files found beside who names them."""
    for folder in ("far", "far/deep"):
        (tmp_path / folder).mkdir()
    wedge.rename(tmp_path / "far" / "deep" / "wedge.py")
    table |= {"plugins": ["wedge.py"], "loss": "wedge", "penalty": [{"name": "l2_generator", "weight": 0.5}]}
    write(table, "far/deep/first.toml")
    write(
        {
            "base": "deep/first.toml",
            "loss": {"margin": 2.0},
            "generator": {"hidden": [8, 8], "optimizer": {"lr": 0.5}},
            "metric": [{"name": "fid", "samples": 16, "features": "pixels"}],
        },
        "far/second.toml",
    )
    last = write(
        {
            "base": "far/second.toml",
            "discriminator": {"name": "dcgan"},
            "train": {"epochs": 3},
            "penalty": [],
            "metric": {"0": {"samples": 32}},
        },
        "last.toml",
    )
    whole = {
        **table,
        "name": "last",
        "plugins": ["far/deep/wedge.py"],
        "loss": {"name": "wedge", "margin": 2.0},
        "generator": {"name": "mlp", "latent_dim": 8, "hidden": [8, 8], "optimizer": {"lr": 0.5}},
        "discriminator": {"name": "dcgan"},
        "train": {"epochs": 3, "batch_size": 16, "log_every": 2, "sample_count": 4},
        "penalty": [],
        "metric": [{"name": "fid", "samples": 32, "features": "pixels"}],
    }
    assert resolved(last) == resolved(write(whole, "whole.toml"))
    assert "base" not in resolved(last)
    assert resolved(last, "optimizer.lr=0.25")["optimizer"]["lr"] == 0.25
    assert load_experiment(tmp_path / "far/second.toml")[0].name == "second", "the name is not inherited"

    sweep = write({"base": "last.toml", "variants": {"a": {"train": {"epochs": 1}}}}, "sweep.toml")
    (planned,) = load_sweep(sweep).planned
    whole["train"]["epochs"] = 1
    assert tomllib.loads(planned.toml) == resolved(write(whole, "whole.toml"), "name=last")


def test_what_is_wrong_is_named_with_the_file_that_has_it(write: Write, table: dict[str, Any], tmp_path: Path) -> None:
    table["loss"] = {"name": "bce", "margn": 1.0}
    base = write(table, "first.toml")
    last = write({"base": "first.toml", "optimizer": {"lr": -1.0}, "trian": {"steps": 3}}, "last.toml")
    lines = sorted(refused(last), key=lambda line: line.split(": ")[1])
    assert [line.split(": ")[:2] for line in lines] == [
        [str(base), "loss.margn"],
        [str(last), "optimizer.lr"],
        [str(last), "trian"],
    ]
    assert any(line.startswith(f"{last}: loss.margn: ") for line in refused(last, "loss.margn=2.0"))


def test_a_file_with_a_base_gives_steps_or_epochs(write: Write, table: dict[str, Any]) -> None:
    base = write(table, "first.toml")
    last = write({"base": "first.toml", "train": {"steps": 3, "epochs": 2}}, "last.toml")
    assert refused(last) == (f"{last}: train: give one of 'steps' and 'epochs', not both",)
    assert "steps" in resolved(base)["train"]


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (3, "{0}: base: expected the path of an experiment file, got 3"),
        ("", "{0}: base: expected the path of an experiment file, got ''"),
        ("gone.toml", "{0}: base: {1}/gone.toml: no such file"),
        ("a.toml", "{0}: base: 'a.toml' is based on this file: {0} → {1}/a.toml"),
        ("b.toml", "{1}/b.toml: base: 'a.toml' is based on this file: {0} → {1}/b.toml → {1}/a.toml"),
        ("wrong.toml", "{0}: base: {1}/wrong.toml: not valid TOML: "),
        ("flat.toml", "{0}: train.steps: train is 3, not a table"),
        ("\0", "{0}: base: "),
    ],
)
def test_bases_that_are_refused(base: object, line: str, write: Write, tmp_path: Path) -> None:
    path = write({"base": base, "train": {"steps": 2}}, "a.toml")
    write({"base": "a.toml"}, "b.toml")
    write({"train": 3}, "flat.toml")
    (tmp_path / "wrong.toml").write_text("a = \n")
    (problem,) = refused(path)
    assert problem.startswith(line.format(path, tmp_path))
    assert "\n" not in problem


def test_a_long_chain_is_refused(write: Write) -> None:
    files = [write({"base": f"f{number + 1}.toml"}, f"f{number}.toml") for number in range(20)]
    assert refused(files[0]) == (f"{files[0]}: base: more than 16 files, each the base of another",)


@pytest.mark.extended
@pytest.mark.slow
def test_a_run_of_a_file_with_a_base_needs_only_its_folder(
    write: Write, table: dict[str, Any], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    base = write(table)
    last = write({"base": "tiny.toml", "train": {"steps": 2}}, "last.toml")
    code, out, err = ganlab("run", last, "--out", "r")
    assert (code, err) == (0, ""), out
    base.unlink()
    last.unlink()
    assert tomllib.loads(Path("r/experiment.toml").read_text())["name"] == "last"
    code, out, err = ganlab("run", "r", "--resume", "--set", "train.steps=4")
    assert (code, err) == (0, ""), out
    assert "finished at step 4" in out


MATRIX: dict[str, Any] = {
    "optimizer.lr": [1e-3, 1e-5],
    "penalty": [[], [{"name": "l2_generator", "weight": 0.5}]],
    "loss": {"name": ["bce", "least_squares"]},
}


def test_a_matrix_is_its_variants_written_out(write: Write, table: dict[str, Any]) -> None:
    write(table)
    path = write({"base": "tiny.toml", "seeds": [0, 1], "variants": {"own": {"train": {"ema": 0.5}}}, "matrix": MATRIX})
    path = path.rename(path.with_name("s.toml"))
    write(table)
    sweep = load_sweep(path)
    combinations = {
        f"lr-{lr}_penalty-{name}_loss-{loss}": {"optimizer": {"lr": lr}, "loss": {"name": loss}, "penalty": penalty}
        for lr in (0.001, 1e-05)
        for name, penalty in (("none", []), ("l2_generator", MATRIX["penalty"][1]))
        for loss in ("bce", "least_squares")
    }
    assert list(sweep.variants) == ["own", *combinations]
    written = write(
        {"base": "tiny.toml", "seeds": [0, 1], "variants": {"own": {"train": {"ema": 0.5}}, **combinations}}, "w.toml"
    )
    assert sweep.planned == load_sweep(written).planned
    assert len(sweep.planned) == 18


@pytest.mark.parametrize(
    ("matrix", "names"),
    [
        ({"generator.hidden": [[8], [16, 16]]}, ["hidden-8", "hidden-16-16"]),
        (
            {"generator.optimizer.lr": [1.0], "discriminator.optimizer.lr": [1.0, 2e20]},
            [f"generator.optimizer.lr-1.0_discriminator.optimizer.lr-{other}" for other in ("1.0", "2e20")],
        ),
        ({"loss.name": ["bce", "hinge"], "train.ema": [0.5]}, ["loss-bce_ema-0.5", "loss-hinge_ema-0.5"]),
        ({"train.capture": [True, False]}, ["capture-true", "capture-false"]),
        (
            {"penalty": [[{"name": "r1", "weight": 1.0}], [{"name": "r1", "weight": 2.0}], []]},
            ["penalty-r1.1", "penalty-r1.2", "penalty-none"],
        ),
        ({"dataset.path": ["/data/a b", "ä"]}, ["path-data-a-b", "path-none"]),
        ({"a.b": [-1, 1, 0.0]}, ["b--1", "b-1", "b-0.0"]),
    ],
)
def test_the_names_of_a_matrix(matrix: dict[str, list[Any]], names: list[str]) -> None:
    assert list(matrix_variants(matrix, 100)) == names


def test_a_long_name_keeps_its_beginning_and_stays_unique() -> None:
    long, other = matrix_variants({"a.b": ["x" * 200, "x" * 200 + "y"]}, 10)
    assert long[:90] == other[:90] != long
    assert len(long) == len(other) == 100


@pytest.mark.parametrize(
    ("matrix", "line"),
    spread(
        6,
        [
            (3, "matrix: expected a table with a list of values for each key, got 3"),
            ({}, "matrix: expected a list of values for each key, got {}"),
            ({"optimizer.lr": 0.1}, "matrix.'optimizer.lr': expected a list of values, got 0.1"),
            ({"optimizer.lr": []}, "matrix.'optimizer.lr': expected a list of values, got []"),
            ({"optimizer.lr": [0.1, 0.2, 0.1]}, "matrix.'optimizer.lr': 0.1 is listed twice"),
            ({"optimizer.lr": [0.1], "optimizer": {"lr": [0.2]}}, "matrix.'optimizer.lr': is given twice"),
            ({"optimizer..lr": [0.1]}, "matrix.'optimizer..lr': expected a dotted key, such as 'optimizer.lr'"),
            ({"seed": [1]}, "matrix.seed: cannot be varied; give the seeds by the sweep's key seeds"),
            ({"name": ["a"]}, "matrix.name: cannot be varied; it is the same for all variants"),
            (
                {"loss": ["bce"], "loss.name": ["hinge"]},
                "matrix.'loss.name': another key of the matrix sets 'loss' as a",
            ),
            ({"loss.name": ["hinge"], "loss": ["bce"]}, "matrix.loss: another key of the matrix sets a part of it"),
            ({"optimizer.lr": [0.1], "x.y": [1]}, "matrix, lr-0.1_y-1: "),
            ({"loss.name": ["bec"]}, "matrix, loss-bec: "),
            ({"train.ema": [0.0]}, "matrix, ema-0.0: resolves to the same experiment as 'own'"),
            ({"own": [1]}, "matrix: it makes a variant 'own-1' too"),
            ({f"a.b{n}": list(range(10)) for n in range(9)}, "matrix: 1,000,000,000 combinations; a sweep has at most"),
        ],
    ),
)
def test_a_bad_matrix(
    matrix: object, line: str, table: dict[str, Any], write: Write, ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    write(table)
    variants: dict[str, Any] = {"own": {}, **({"own-1": {}} if "it makes" in line else {})}
    path = write({"base": "tiny.toml", "variants": variants, "matrix": matrix}, "sweep.toml")
    code, out, err = ganlab("sweep", path, "--out", "s")
    assert (code, out) == (2, "")
    assert err.startswith(f"{path}: {line}"), err
    assert len(err.splitlines()) == 1
    assert not Path("s").exists()
