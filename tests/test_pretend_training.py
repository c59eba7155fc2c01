"""Trainings and runs on the pretend device against the CPU's, to the bit, and what crosses devices in their steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pretend_mutations
import pretend_runs
import typed_data
from ganlab.plugin.loader import load_plugins
from odd_plugin import FAULTS, STEP, odd
from pretend_mutations import MUTATIONS
from pretend_work import compare_captured, compare_trainings, needs_pretend, on_pretend
from step_cases import as_files, changed, experiment_tables, method_tables
from test_distributed import environments

pytestmark = needs_pretend


@pytest.fixture
def mlp(table: dict[str, Any]) -> dict[str, Any]:
    """Two multilayer perceptrons without dropout, which on the CPU draws other random numbers."""
    return changed(table, discriminator={"dropout": 0.0}, train={"ema": 0.9})


def dcgan(table: dict[str, Any]) -> dict[str, Any]:
    generator = {"name": "dcgan", "latent_dim": 8, "channels": 4}
    return changed(table, generator=generator, discriminator={"name": "dcgan", "channels": 4})


def scheduled(key: str, to: float) -> list[dict[str, Any]]:
    return [{"name": "linear", "key": key, "to": to}]


def some_trainings(mlp: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A case of every kind of code in the step."""
    hinge = {"name": "hinge"}
    typed = {"name": "typed", "form": "images", "dtype": "uint16", "condition": "labels+attributes+deep"}
    uses_all = mlp | {"plugins": [typed_data.__file__], "generator": "uses_all", "discriminator": "uses_all"}
    return {
        "16 bits, several conditions": uses_all | {"dataset": typed},
        "rows of floats, streamed": changed(
            uses_all | {"dataset": typed | {"form": "table", "dtype": "float32"}}, train={"resident_gb": 0.0}
        ),
        "mlp": mlp,
        "dcgan in bfloat16": changed(dcgan(mlp), train={"precision": "bfloat16"}),
        "accumulated, clipped, stopped": changed(
            mlp, train={"accumulate": 2, "clip_norm": 1.0, "stop_discriminator_under": 1.3}
        ),
        "streamed, the same noise": changed(mlp, train={"resident_gb": 0.0, "fresh_noise": False}),
        "gradients of gradients": changed(
            mlp, loss={"name": "wasserstein"}, penalty=[{"name": "gradient_penalty", "every": 2}]
        ),
        # A loss whose options move was given logits of the CPU before the run.
        "scheduled target": changed(
            mlp, loss={"name": "least_squares"}, schedule=scheduled("loss.generator_target", 0.5)
        ),
        "scheduled half-life and wrapper": changed(
            mlp,
            train={"ema": 0.0, "ema_half_life": 100.0},
            loss_wrapper=[{"name": "label_smoothing", "real": 0.9}],
            schedule=[*scheduled("train.ema_half_life", 50.0), *scheduled("loss_wrapper.0.real", 0.99)],
        ),
        "augmented": changed(mlp, loss=hinge, augmentation=[{"name": "diffaugment"}, {"name": "flip"}]),
        "conditional": changed(
            dcgan(mlp),
            generator={"name": "conditional", "network": {"name": "dcgan", "latent_dim": 8, "channels": 4}},
            discriminator={"name": "conditional", "network": {"name": "dcgan", "channels": 4}},
        ),
    }


def test_trainings_are_those_of_the_cpu_and_a_step_reads_nothing_back(mlp: dict[str, Any], tmp_path: Path) -> None:
    tables = some_trainings(mlp)
    found = on_pretend(compare_trainings, tmp_path, as_files(tables, tmp_path))
    assert found == {name: [] for name in tables}


def captured_trainings(mlp: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything that a step may have, every bundled game, and a method with spectra, which are transposed in place."""
    everything = changed(
        mlp,
        loss={"name": "least_squares"},
        loss_wrapper=[{"name": "label_smoothing", "real": 0.9}],
        penalty=[{"name": "gradient_penalty", "every": 2}, {"name": "l2_generator"}],
        augmentation=[{"name": "flip"}],
        discriminator={"dropout": 0.3},
        train={
            **{"ema": 0.0, "ema_half_life": 100.0, "ema_warmup": 0.5},
            **{"accumulate": 2, "clip_norm": 1.0, "stop_discriminator_under": 0.4},
        },
        schedule=[
            *scheduled("loss_wrapper.0.real", 0.99),
            *scheduled("penalty.0.weight", 5.0),
            *scheduled("train.ema_half_life", 50.0),
            *scheduled("optimizer.lr", 1e-4),
        ],
    )
    games = {table["game"]["name"]: table for table in experiment_tables().values() if "name" in table.get("game", ())}
    batch_norm = changed(dcgan(mlp), train={"precision": "bfloat16"})
    spectra = {"hifi_gan": method_tables(mlp)["hifi_gan"]}
    return {"everything": everything, "batch norm in bfloat16": batch_norm, **games, **spectra}


@pytest.mark.parametrize("default", [True, pytest.param(False, marks=(pytest.mark.extended, pytest.mark.large))])
def test_captured_steps_that_are_replayed_have_the_bits_of_eager_ones(
    default: bool, mlp: dict[str, Any], tmp_path: Path
) -> None:
    tables = captured_trainings(mlp)
    chosen = {name: table for name, table in tables.items() if (name == "everything") is default}
    # With the lazy penalty and without are two kinds of step, and three eager steps come before the replay of each.
    kinds, steps = (2, 8) if default else (1, 5)
    found = on_pretend(compare_captured, tmp_path, as_files(chosen, tmp_path), steps)
    assert found == {name: [steps - 3 * kinds] for name in chosen}
    bundled = {part.name for part in load_plugins([]).registry.of_kind("game")} - {"gan"}
    assert chosen.keys() == ({"everything"} if default else {"batch norm in bfloat16", "hifi_gan", *bundled})


def test_a_run_its_resume_and_all_that_reads_it_are_those_of_the_cpu(mlp: dict[str, Any], tmp_path: Path) -> None:
    table = changed(
        mlp,
        train={"checkpoint_every": 2, "log_every": 2, "sample_every": 2, "steps": 6},
        metric=[
            {"name": "fid", "samples": 64, "features": {"name": "pixels"}},
            {"name": "kid", "samples": 64, "features": {"name": "pixels"}, "subsets": 5, "subset_size": 16},
        ],
        loss={"name": "least_squares"},
        schedule=scheduled("loss.real_target", 0.9),
    )
    files = as_files({"run": table}, tmp_path)
    assert on_pretend(pretend_runs.run_and_read, tmp_path, files["run"]) == []


@pytest.mark.extended
@pytest.mark.slow
def test_a_divergence_has_the_same_cause_there(table: dict[str, Any], tmp_path: Path) -> None:
    """A loss, a penalty's gradient and a network that give what is not finite in a step."""
    odd(table, tmp_path)
    table["plugins"] = [str(tmp_path / "odd.py")]
    chosen = ("loss", "penalty's gradient", "network")
    files = as_files({name: table | FAULTS[name][0] for name in chosen}, tmp_path)
    found = on_pretend(pretend_runs.said_of_both, tmp_path, files)
    for name in chosen:
        here, there = ((code, said.splitlines()[-1]) for code, said in found[name])
        assert here == there, name
        assert here[0] == 3
        assert here[1].startswith(f"diverged in step {STEP}: {FAULTS[name][1]} ({FAULTS[name][2]} ")


@pytest.mark.extended
@pytest.mark.slow
def test_metrics_of_outputs_and_classes_score_the_same_there(table: dict[str, Any], tmp_path: Path) -> None:
    features = {"name": "classifier", "updates": 20}
    classes = changed(
        dcgan(changed(table, discriminator={"dropout": 0.0})),
        metric=[{"name": "class_accuracy", "samples": 40, "features": features}],
        generator={"name": "conditional", "network": {"name": "dcgan", "latent_dim": 8, "channels": 4}},
    )
    modes = changed(
        classes,
        metric=[{"name": "mode_coverage", "samples": 40, "features": features}],
    )
    pairs = changed(
        table,
        game={"name": "pix2pix"},
        dataset={"name": "degraded", "dataset": {"name": "digits"}, "blur": 1.0},
        generator={"name": "unet", "channels": 4, "dropout": 0.0},
        discriminator={"name": "patchgan", "channels": 4, "halvings": 1},
        metric=[{"name": "psnr"}, {"name": "ssim", "window": 7}, {"name": "output_fid", "features": "pixels"}],
    )
    adapted = changed(
        table,
        game={"name": "pixelda", "adapt": False, "channels": 4, "dropout": 0.0},
        source={"name": "digits"},
        dataset={"name": "blended"},
        metric=[{"name": "target_accuracy"}],
    )
    for unused in ("generator", "discriminator", "loss"):
        adapted.pop(unused, None)
    tables = {"classes": classes, "modes": modes, "pairs": pairs, "adapted": adapted}
    found = on_pretend(pretend_runs.scores_of_both, tmp_path, as_files(tables, tmp_path))
    for name, (here, there) in found.items():
        assert here, name
        assert there == pytest.approx(here, rel=1e-3), name


def test_a_checkpoint_and_the_spread_of_samples_wait_a_few_times(mlp: dict[str, Any], tmp_path: Path) -> None:
    """However many tensors and batches there are: once for a type of number, and twice for a class."""
    found = on_pretend(pretend_runs.count_waits, tmp_path, as_files({"run": mlp}, tmp_path)["run"])
    assert found["tensors"] > 20
    assert found["checkpoint"] == found["types"] <= 3
    assert found["spread"] == found["spread of parts"] == 2
    assert found["spread of four classes"] == 8


@pytest.fixture
def crossing(tmp_path: Path) -> Path:
    """A loss that makes a tensor on the CPU, in its line 9."""
    path = tmp_path / "crossing.py"
    path.write_text(pretend_runs.CROSSING)
    return path


def test_a_plugin_on_another_device_is_named_with_its_line_before_there_is_a_run_folder(
    mlp: dict[str, Any], tmp_path: Path, crossing: Path
) -> None:
    files = as_files({"run": changed(mlp, plugins=[str(crossing)], loss={"name": "crossing"})}, tmp_path)
    code, said, there = on_pretend(pretend_runs.said_of_run, tmp_path, files["run"])
    assert code == 1
    assert not there
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"plugin crossing ({crossing}) raised before the first step: ")
    assert f"{crossing}:9: " in last
    assert "pretend:0" in last
    assert "cpu" in last
    code, said = on_pretend(pretend_runs.said_of_check, tmp_path, str(crossing))
    assert code == 1
    assert f"{crossing}:9: mul of tensors on pretend:0 and cpu" in said
    copying = pretend_runs.CROSSING.replace("torch.ones(len(real))", "1.0").replace(
        "-fake.mean()", "-fake.mean().cpu()"
    )
    crossing.write_text(copying)
    code, said, there = on_pretend(pretend_runs.said_of_run, tmp_path, files["run"])
    assert (code, there) == (1, False)
    assert f"{crossing}:10: to of a tensor on pretend:0 to cpu inside the train step" in said.strip().splitlines()[-1]


def test_devices_by_their_names(mlp: dict[str, Any], tmp_path: Path) -> None:
    file = as_files({"run": mlp}, tmp_path)["run"]
    said = on_pretend(pretend_runs.said_of_devices, tmp_path, file)
    here = "there are: cpu, pretend:0, pretend:1"
    assert said == {
        "pretend:7": [2, f"--device pretend:7: torch finds 2 pretend devices here; {here}"],
        "xpu": [2, f"--device xpu: torch finds no xpu device here; {here}"],
        "mps": [2, f"--device mps: torch finds no mps device here; {here}"],
        "meta": [2, f"--device meta: torch finds no meta device here; {here}"],
        "pretend:1": [0, ""],
    }


SOME = ["loss: a tensor", "network: item", "data: an index", "average: a scalar", "augmentation: a generator"]


@pytest.mark.parametrize(
    "names", [SOME, pytest.param(list(MUTATIONS), marks=(pytest.mark.extended, pytest.mark.slow))], ids=["some", "all"]
)
def test_mutations_that_only_a_device_shows_are_found_at_their_lines(
    names: list[str], mlp: dict[str, Any], tmp_path: Path
) -> None:
    file = as_files({"run": changed(mlp, **pretend_mutations.TABLE)}, tmp_path)["run"]
    found = on_pretend(pretend_mutations.find_mutations, tmp_path, file, names)
    assert found.keys() == set(names)
    assert {name: said for name, (place, said) in found.items() if not said.startswith(f"{place}: ")} == {}


@pytest.mark.extended
@pytest.mark.torchrun
def test_two_processes_each_have_a_device_of_their_own(mlp: dict[str, Any], tmp_path: Path) -> None:
    """Of a run and of `eval`, which loaded every process's networks onto the first device."""
    metric = [{"name": "fid", "samples": 64, "features": {"name": "pixels"}}]
    file = as_files({"run": changed(mlp, metric=metric)}, tmp_path)["run"]

    def on_both(*arguments: str) -> list[Any]:
        return pretend_runs.on_two(pretend_runs.one_command, tmp_path, environments(2), *arguments)

    on_both("run", file, "--device", "cpu", "--out", "cpu")
    assert on_both("run", file, "--device", "pretend", "--out", "there") == [["pretend:0"], ["pretend:1"]]
    assert pretend_runs.state_differences("cpu", "there") == []
    assert on_both("eval", "there", "--device", "pretend") == [["pretend:0"], ["pretend:1"]]


@pytest.mark.extended
@pytest.mark.large
def test_every_game_of_the_methods(table: dict[str, Any], tmp_path: Path) -> None:
    found = on_pretend(compare_trainings, tmp_path, as_files(method_tables(table), tmp_path))
    assert pretend_runs.wrong_lines(found) == {}


@pytest.mark.extended
@pytest.mark.large
def test_every_bundled_component_and_every_option_that_may_move(mlp: dict[str, Any], tmp_path: Path) -> None:
    found = on_pretend(pretend_runs.compare_all_components, tmp_path, mlp, str(tmp_path))
    assert len(found) > 40
    wrong = pretend_runs.wrong_lines(found)
    assert wrong.keys() == set(pretend_runs.READ_BACK)
    assert all("diffaugment.py" in line and "reads a value back" in line for lines in wrong.values() for line in lines)


@pytest.mark.extended
@pytest.mark.large
def test_every_experiment_for_some_steps(tmp_path: Path) -> None:
    found = on_pretend(pretend_runs.compare_experiments, tmp_path, str(tmp_path))
    assert len(found) > 15
    assert pretend_runs.wrong_lines(found) == {}
