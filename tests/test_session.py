"""The life of a run: what its folder holds, that looking never changes it, and that resuming repeats it bitwise."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import ganlab as package
from ganlab.run import train
from ganlab.run.open_folder import latest_unfinished
from ganlab.run.records import best_and_final, read_records
from ganlab.run.run_folder import RunFolder, is_unstarted
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.errors import UserError
from image_files import save
from run_folders import HELD, assert_same_bits, records
from saboteur import interrupted_at

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

CLASSIFIER = {"name": "classifier", "updates": 20}


@pytest.mark.usefixtures("real_plots")
def test_what_a_run_folder_holds(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"] |= {"sample_every": 2, "checkpoint_every": 2, "ema": 0.9}
    table["metric"] = [{"name": "fid", "every": 2, "samples": 32, "features": CLASSIFIER}]
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    assert "step 4/4" in out
    assert out.rstrip().endswith("run folder: r")
    run = Path("r")

    info = json.loads((run / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["versions"]["torch"] == torch.__version__
    assert info["device"] == "cpu"
    assert info["threads"] == torch.get_num_threads()
    assert info["components"]["loss.bce"]["plugin"] == "losses.bce"
    assert len(info["components"]["loss.bce"]["sha256"]) == 64
    assert "features.classifier" in info["components"]
    assert info["metrics"]["fid"]["final"]["step"] == 4

    log = read_records(run / "log.jsonl")
    assert [record["step"] for record in log] == [2, 4]
    assert [record["images_seen"] for record in log] == [32, 64]
    assert {"loss_generator", "loss_discriminator", "d_real", "d_fake", "images_per_second"} <= log[0].keys()

    metrics = read_records(run / "metrics.jsonl")
    assert [record["step"] for record in metrics] == [0, 2, 4]
    protocol = metrics[0]["protocol"]
    assert protocol["weights"] == "ema"
    assert protocol["features"]["name"].startswith("classifier")
    assert protocol["generated"] == 32

    for name in ("losses", "scores", "metrics"):
        with Image.open(run / "plots" / f"{name}.png") as image:
            assert image.size[0] > 300
            assert len(image.convert("L").getcolors() or []) > 5, "an empty picture"
    assert [path.name for path in sorted((run / "samples").iterdir())] == [f"step-{n:08d}.png" for n in (0, 2, 4)]
    assert list(list_checkpoints(run / "checkpoints")) == [2, 4]
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]


def test_the_default_folder(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["seed"] = 5
    assert ganlab("run", write(table))[0] == 0
    assert ganlab("run", write(table))[0] == 0
    folders = list(Path("runs/tiny").iterdir())
    assert len(folders) == 2, "a second run in the same second gets a folder of its own"
    assert all("-seed5" in folder.name for folder in folders)


NOISY = """
import torch
from attrs import frozen
from torch import nn
import ganlab

class Network(nn.Module):
    latent_dim = 4

    def __init__(self, images):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, images.size), nn.Unflatten(1, images.shape))

    def forward(self, z, condition=None):
        made = self.layers(z)
        return (made + torch.randn_like(made)).tanh()

@frozen
class Noisy:
    def build(self, images):
        return Network(images)

@ganlab.hookimpl
def register_generators(register):
    register("noisy", Noisy)
"""


@pytest.mark.parametrize("generator", ["mlp", "noisy"])
def test_looking_never_changes_the_training(
    generator: str, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """Sampling, scoring, logging and saving as often as possible, against a run that does none of it on the way.

    Also of a generator that draws noise in eval mode too, as StyleGAN's does.
    """
    table["train"]["steps"] = 6
    if generator == "noisy":
        Path("noisy.py").write_text(NOISY)
        table |= {"plugins": ["noisy.py"], "generator": {"name": "noisy"}}
    quiet = table | {"train": table["train"] | {"sample_every": 0, "checkpoint_every": 0, "log_every": 100}}
    busy = table | {"train": table["train"] | {"sample_every": 1, "checkpoint_every": 1, "log_every": 1}}
    busy["metric"] = [{"name": "fid", "every": 1, "samples": 16, "features": CLASSIFIER}]
    assert ganlab("run", write(quiet), "--out", "quiet")[0] == 0
    assert ganlab("run", write(busy), "--out", "busy")[0] == 0
    assert_same_bits(Path("quiet"), Path("busy"))


DRIFT = """
import torch
from attrs import field, frozen
import ganlab

@frozen
class Drift:
    calls: torch.Tensor = field(init=False, eq=False, factory=lambda: torch.zeros(()))

    def augment(self, images):
        return images * (1 + self.calls.add_(1))

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls.copy_(state["calls"])

@ganlab.hookimpl
def register_augmentations(register):
    register("drift", Drift)
"""


def test_the_state_of_an_augmentation_in_a_penalty_is_resumed(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    Path("drift.py").write_text(DRIFT)
    table |= {"plugins": ["drift.py"], "penalty": [{"name": "consistency", "augmentation": "drift", "weight": 1e-3}]}
    path = write(table)
    assert ganlab("run", path, "--out", "whole")[0] == 0
    assert ganlab("run", path, "--out", "parts", "--set", "train.steps=2")[0] == 0
    assert ganlab("run", path, "--out", "parts", "--resume")[0] == 0
    assert_same_bits(Path("whole"), Path("parts"))
    assert load_checkpoint(list_checkpoints(Path("parts/checkpoints"))[4])["components"]["penalty.0.augmentation"]


def test_the_resolved_file_repeats_the_run_to_the_bit(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    assert ganlab("run", write(table), "--set", "train.steps=5", "--out", "first")[0] == 0
    assert ganlab("run", "first/experiment.toml", "--out", "second")[0] == 0
    assert_same_bits(Path("first"), Path("second"))
    assert records(Path("first")) == records(Path("second"))
    assert ganlab("run", "first/experiment.toml", "--set", "seed=1", "--out", "third")[0] == 0
    with pytest.raises(AssertionError):
        assert_same_bits(Path("first"), Path("third"))


@pytest.mark.parametrize(("stop", "network"), [(0, "mlp"), (3, "mlp"), (95, "mlp"), (40, "dcgan")])
def test_stopped_and_resumed_ends_with_the_same_bits(
    stop: int, network: str, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """Stopped at several places (95 is in the second epoch) by a real signal; ticks and intervals do not line up."""
    table["train"] |= {"steps": 100, "log_every": 7, "checkpoint_every": 30, "ema": 0.9, "discriminator_steps": 1}
    table["penalty"] = [{"name": "l2_generator", "weight": 0.01, "every": 4}]
    if network == "dcgan":  # its weights lie in channels-last order
        table["dataset"]["size"] = 16
        table["generator"] = {"name": "dcgan", "latent_dim": 8, "channels": 4}
        table["discriminator"] = {"name": "dcgan", "channels": 4}
    path = write(table)
    assert ganlab("run", path, "--out", "whole")[0] == 0
    with interrupted_at(stop):
        code, _, err = ganlab("run", path, "--out", "stopped")
    assert code == 75
    assert "--resume" in err
    assert json.loads(Path("stopped/run.json").read_text())["status"] == "interrupted"
    assert max(list_checkpoints(Path("stopped/checkpoints"))) == stop

    assert ganlab("run", path, "--out", "stopped", "--resume")[0] == 0
    assert_same_bits(Path("whole"), Path("stopped"))
    assert records(Path("whole")) == records(Path("stopped"))
    assert json.loads(Path("stopped/run.json").read_text())["status"] == "finished"


@pytest.mark.extended
@pytest.mark.kill
@pytest.mark.usefixtures("forked_processes")
def test_ctrl_c_in_a_process_of_its_own(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"] |= {"steps": 100_000, "log_every": 10, "checkpoint_every": 0}
    path = write(table)
    process = subprocess.Popen(
        [sys.executable, "-m", "ganlab", "run", str(path), "--out", "r"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not read_records(Path("r/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err.decode()
    assert b"Traceback" not in err
    (step,) = list_checkpoints(Path("r/checkpoints"))
    code, out, err_ = ganlab("run", "r", "--resume", "--set", f"train.steps={step + 5}")
    assert code == 0, err_
    assert f"resuming r at step {step:,}" in out
    assert max(list_checkpoints(Path("r/checkpoints"))) == step + 5


def test_resume_finds_the_latest_unfinished_run(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"]["checkpoint_every"] = 1
    path = write(table)
    code, _, err = ganlab("run", path, "--resume")
    assert code == 2
    assert "no unfinished run of 'tiny' with seed 0" in err
    assert ganlab("run", path)[0] == 0
    (folder,) = Path("runs/tiny").iterdir()
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"status": "interrupted", "seconds": 1000.0}))
    code, out, _ = ganlab("run", path, "--resume", "--set", "train.steps=6")
    assert code == 0
    assert out.rstrip().endswith(str(folder))
    seconds = json.loads((folder / "run.json").read_text())["seconds"]
    assert 1000 < seconds < 1500, "those before count once, though each checkpoint has noted them"


def test_the_latest_unfinished_run_is_the_one_that_began_last() -> None:
    """Whatever the folders' names; one that is damaged is passed over where there is another, and else named."""

    def write_info(folder: str, text: str) -> None:
        (Path("runs/r") / folder).mkdir(parents=True)
        (Path("runs/r") / folder / "run.json").write_text(text)

    for folder, hour, more in (
        ("0101-seed0", "01", {}),
        ("0101-seed0-2", "02", {}),
        ("0101-seed0-10", "10", {}),
        ("0101-seed0-11", "11", {"status": "finished"}),
        ("0101-seed1", "12", {"seed": 1}),
    ):
        write_info(folder, json.dumps({**HELD, "started": f"2025-01-01T{hour}:00:00+00:00", **more}))
    assert latest_unfinished("r", 0) == Path("runs/r/0101-seed0-10")
    write_info("0102-seed0", '{"status": ')
    assert latest_unfinished("r", 0) == Path("runs/r/0101-seed0-10")
    assert latest_unfinished("r", 1) == Path("runs/r/0101-seed1")
    with pytest.raises(UserError, match=r"^runs/r/0102-seed0/run\.json: damaged: [^\n]*$"):
        latest_unfinished("r", 2)


def test_samples_of_steps_that_are_taken_again_are_drawn_again(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """A grid that is left of another course of training would be taken for this one's."""
    table["train"] |= {"sample_every": 1, "checkpoint_every": 2}
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    before = {file.name: file.read_bytes() for file in Path("r/samples").iterdir()}
    (Path("r/checkpoints/step-00000004/state.json")).write_bytes(b"")
    settings = ["--set", "optimizer.lr=0.5", "--set", "train.steps=5"]
    assert ganlab("run", path, "--out", "r", "--resume", "--anyway", *settings)[0] == 0
    after = {file.name: file.read_bytes() for file in Path("r/samples").iterdir()}
    same = [name for name in before if before[name] == after[name]]
    assert sorted(same) == [f"step-{step:08d}.png" for step in (0, 1, 2)]
    assert len(after) == 6


def test_resuming_something_else_is_refused(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=8", "--set", "optimizer.lr=0.5")
    assert code == 2
    assert "optimizer.lr: was 0.001, is now 0.5" in err
    assert "--anyway" in err
    settings = ["--set", "train.steps=8", "--set", "optimizer.lr=0.5"]
    assert ganlab("run", path, "--out", "r", "--resume", "--anyway", *settings)[0] == 0
    assert tomllib.loads(Path("r/experiment.toml").read_text())["optimizer"]["lr"] == 0.5
    state = load_checkpoint(Path("r/checkpoints/step-00000008"))
    for optimizer in state["optimizers"].values():
        assert optimizer["param_groups"][0]["lr"] == 0.5, "the experiment says so, and so it must be"


def test_resuming_on_other_data_or_another_processor_is_refused(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    for number in range(20):
        save(tmp_path / "images" / f"{number}.png")
    table["dataset"] = {"name": "image_folder", "path": "images", "size": 8}
    path, more = write(table), ["--resume", "--set", "train.steps=6"]
    assert ganlab("run", path, "--out", "r")[0] == 0
    save(tmp_path / "images" / "7.png")
    code, _, err = ganlab("run", path, "--out", "r", *more)
    assert code == 2
    assert re.match(r"r: dataset\.fingerprint: was '[0-9a-f]{64}', is now '[0-9a-f]{64}'\n", err), err
    info = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps(info | {"processor": "Pentium, MMX"}))
    code, _, err = ganlab("run", path, "--out", "r", *more)
    assert code == 2
    assert "r: processor: was 'Pentium, MMX', is now '" in err
    assert ganlab("run", path, "--out", "r", *more, "--anyway")[0] == 0


def test_resuming_with_another_declaration_of_the_discriminator_is_refused(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """Whether real and fake images pass the discriminator together moves the last bits."""
    path, more = write(table), ["--resume", "--set", "train.steps=6"]
    assert ganlab("run", path, "--out", "r")[0] == 0
    info = json.loads(Path("r/run.json").read_text())
    changed = info["step_levers"] | {"joined": not info["step_levers"]["joined"]}
    Path("r/run.json").write_text(json.dumps(info | {"step_levers": changed}))
    code, _, err = ganlab("run", path, "--out", "r", *more)
    assert code == 2
    assert err.startswith("r: step_levers.joined: was False, is now True\n")
    assert ganlab("run", path, "--out", "r", *more, "--anyway")[0] == 0


def test_resuming_as_another_game_is_refused(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    game = "game={name='infogan', categories=[2], continuous=0}"
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6", "--set", game)
    assert code == 2
    assert "r: game.name: was None, is now 'infogan'\n" in err


@pytest.mark.parametrize(
    "change",
    [
        "train.freeze=['generator.layers.0']",
        "optimizer={name='rmsprop', lr=1e-3}",
        "train.ema=0.9",
        "augmentation=['ada']",
    ],
)
def test_what_has_no_state_that_fits_begins_anew(
    change: str, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """Of another optimiser's state torch would give moments to other weights, and a fused step write beyond their end.

    An average that is new begins with the saved weights.
    """
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    more = ["--resume", "--anyway", "--set", "train.steps=6", "--set", change]
    code, out, _ = ganlab("run", path, "--out", "r", *more)
    assert code == 0
    anew = {"freeze": "generator", "rmsprop": "generator, discriminator", "ada": "augmentation.0"}
    who = next((of for key, of in anew.items() if key in change), None)
    assert ("begin anew" in out) == (who is not None)
    assert who is None or f"begin anew, since it has no state that fits: {who}\n" in out


def test_a_changed_bundled_file_is_reported_and_the_run_resumes_exactly(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """Bundled plugins are bound by their release, as the core is, not by the text, name or folder of their files."""
    table["train"] |= {"steps": 6, "checkpoint_every": 2}
    table["tracker"] = [{"name": "csv"}]
    path = write(table)
    assert ganlab("run", path, "--out", "whole")[0] == 0
    with interrupted_at(4):
        assert ganlab("run", path, "--out", "r")[0] == 75
    info = json.loads(Path("r/run.json").read_text())
    for label, changes in {
        "loss.bce": {"sha256": "0" * 64},
        "generator.mlp": {"plugin": "old_name", "file": "/elsewhere/old_name.py"},
        "optimizer.adam": {"sha256": "1" * 64, "file": "/elsewhere/adam.py"},
        "tracker.csv": {"sha256": "2" * 64},
    }.items():
        assert info["components"][label]["source"] == "bundled"
        info["components"][label] |= changes
    Path("r/run.json").write_text(json.dumps(info))
    code, out, err = ganlab("run", path, "--out", "r", "--resume")
    assert (code, err) == (0, "")
    line = (
        "r: bundled files have changed since the run began, within the same release: loss.bce, optimizer.adam; going on"
    )
    assert out.splitlines().count(line) == 1
    assert_same_bits(Path("whole"), Path("r"))
    assert records(Path("whole")) == records(Path("r"))
    now = json.loads(Path("r/run.json").read_text())["components"]
    assert now == json.loads(Path("whole/run.json").read_text())["components"], "all of it is recorded again"


def test_another_release_of_bundled_plugins_is_refused(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    info = json.loads(Path("r/run.json").read_text())
    version = info["components"]["loss.bce"]["version"]
    info["components"]["loss.bce"] |= {"version": "0.0.1", "sha256": "0" * 64}
    Path("r/run.json").write_text(json.dumps(info))
    code, out, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert err.startswith(
        f"r: components.loss.bce.version: was '0.0.1', is now '{version}'\nr: resuming would not repeat"
    )
    assert "bundled files have changed" not in out


def test_a_changed_local_plugin_is_refused(table: dict[str, Any], write: Write, ganlab: Command, wedge: Path) -> None:
    table |= {"plugins": ["wedge.py"], "loss": {"name": "wedge"}}
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    wedge.write_text(wedge.read_text() + "# changed\n")
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert re.match(r"r: components\.loss\.wedge\.sha256: was '[0-9a-f]{64}', is now '[0-9a-f]{64}'\n", err), err
    assert ganlab("run", path, "--out", "r", "--resume", "--anyway", "--set", "train.steps=6")[0] == 0


def test_a_plugin_that_is_edited_while_a_run_begins_is_refused(
    table: dict[str, Any], write: Write, ganlab: Command, wedge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json would have the hash of a file that the run does not train with, and its copy."""
    monkeypatch.syspath_prepend(str(wedge.parent))
    (wedge.parent / "beside_wedge.py").write_text("")
    wedge.write_text(f"import beside_wedge\n{wedge.read_text()}")
    path, build = write(table | {"plugins": ["wedge.py"], "loss": {"name": "wedge"}}), train.build_run
    for file in (wedge, wedge.parent / "beside_wedge.py"):

        def edited(*arguments: Any, file: Path = file) -> Any:
            file.write_text(file.read_text() + "# edited\n")
            return build(*arguments)

        monkeypatch.setattr(train, "build_run", edited)
        code, out, err = ganlab("run", path, "--out", "r")
        assert (code, out, err) == (2, "", f"{file}: has changed since it was loaded; begin again\n")
        assert not Path("r").exists()


def test_a_run_that_died_before_it_had_a_run_json_is_begun_again(tmp_path: Path) -> None:
    """With copies of plugins, one of them half written."""
    for file in (".lock", "experiment.toml", "plugins/0123/wedge.py", "plugins/0123/.wedge.py.a_b1c2d3"):
        (tmp_path / "r" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / file).touch()
    assert is_unstarted(tmp_path / "r")
    folder = RunFolder(tmp_path / "r")
    folder.lock()
    folder.unlock()
    assert [file.name for file in (tmp_path / "r/plugins/0123").iterdir()] == ["wedge.py"]


def test_plots_of_an_earlier_end_are_not_those_of_a_finished_run(tmp_path: Path) -> None:
    """A run that is stopped, resumed, and killed when it has finished and not yet drawn draws them on a resume."""
    folder = RunFolder(tmp_path)
    folder.plots.mkdir()
    (folder.plots / "metrics.png").touch()
    assert folder.has_plots
    folder.forget_after(4)
    assert not folder.has_plots


def test_a_dry_run_refuses_a_folder_that_a_run_would_refuse(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/other.txt").touch()
    code, _, err = ganlab("run", write(table), "--out", "r", "--dry-run")
    assert (code, err) == (2, "--out r: is not empty and holds no run (no run.json); choose another folder\n")


def test_a_run_never_goes_back(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=2")
    assert code == 2
    assert "is at step 4 already; 2 are asked for" in err


def test_scores_taken_afterwards_do_not_change_what_resuming_does(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """Two metrics of one name are told apart, and `ganlab eval` in between leaves final and best alone."""
    table["metric"] = [{"name": "fid", "samples": n, "features": CLASSIFIER} for n in (16, 32)]
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    assert ganlab("eval", "r", "--set", "metric.0.samples=8")[0] == 0
    assert ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")[0] == 0
    records = read_records(Path("r/metrics.jsonl"))
    kept = [(record["step"], record["name"]) for record in records if not record.get("eval")]
    assert kept == [(step, name) for step in (0, 4, 6) for name in ("fid", "fid_2")]
    summary = json.loads(Path("r/run.json").read_text())["metrics"]
    by_name = {name: [r["value"] for r in records if r["name"] == name and not r.get("eval")] for name in summary}
    assert set(summary) == {"fid", "fid_2"}
    for name, values in by_name.items():
        assert summary[name]["best"]["value"] == min(values)
        assert summary[name]["final"]["value"] == values[-1]


@pytest.mark.parametrize(("better", "best"), [("lower", 2), ("higher", 4), (None, None)])
def test_the_best_value_is_the_one_that_the_metric_calls_better(better: str | None, best: int | None) -> None:
    values = {2: 1.0, 4: 3.0, 6: float("nan"), 8: 2.0}
    records = [{"step": step, "name": "score", "value": value, "better": better} for step, value in values.items()]
    (entry,) = best_and_final(records).values()
    assert entry["final"]["step"] == 8
    assert entry.get("best") == (None if best is None else {"step": best, "value": values[best]})


def test_resuming_a_finished_run_does_nothing(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    before = (Path("r/run.json").read_bytes(), Path("r/log.jsonl").read_bytes())
    code, out, _ = ganlab("run", path, "--out", "r", "--resume")
    assert code == 0
    assert "already finished" in out
    for setting, line in (
        ("optimizer.lr=123", "r: optimizer.lr: was 0.001, is now 123.0"),
        ("seed=1", "r: seed: was 0, is now 1"),
    ):
        code, out, err = ganlab("run", path, "--out", "r", "--resume", "--set", setting)
        assert (code, out) == (2, ""), "it is not the run of these options"
        assert err.splitlines() == [
            line,
            "r: has finished with the earlier options; choose another --out, or take it as it is by --anyway",
        ]
    for options in (["--anyway", "--set", "optimizer.lr=123"], ["--set", "train.resident_gb=1"]):
        code, out, _ = ganlab("run", path, "--out", "r", "--resume", *options)
        assert (code, "already finished" in out) == (0, True), options
    resolved = Path("r/experiment.toml")
    whole = resolved.read_text()
    for of_another_release in (whole.replace("fresh_noise = true\n", ""), f"dropped = 3\n{whole}"):
        assert of_another_release != whole
        resolved.write_text(of_another_release)
        assert "already finished" in ganlab("run", path, "--out", "r", "--resume")[1]
        assert ganlab("run", path, "--out", "r", "--resume", "--set", "optimizer.lr=123")[0] == 2
    assert (Path("r/run.json").read_bytes(), Path("r/log.jsonl").read_bytes()) == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    table["train"] |= {"steps": 4, "checkpoint_every": 2}
    path = write(table)
    assert ganlab("run", path, "--out", "whole", "--set", "train.steps=6")[0] == 0
    assert ganlab("run", path, "--out", "r")[0] == 0
    file = Path("r/checkpoints/step-00000004/generator.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    code, out, _ = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 0
    assert "generator.safetensors: damaged" in out
    assert "resuming r at step 2" in out
    assert_same_bits(Path("whole"), Path("r"))
    assert records(Path("whole")) == records(Path("r"))


def test_where_every_checkpoint_is_damaged_nothing_is_thrown_away(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    file = Path("r/checkpoints/step-00000004/generator.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    before = Path("r/log.jsonl").read_bytes()
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert "generator.safetensors: damaged" in err
    assert "no checkpoint is whole" in err
    assert Path("r/log.jsonl").read_bytes() == before
    assert ganlab("sample", "r")[0] == 2
    assert ganlab("run", path, "--out", "r", "--resume", "--anyway", "--set", "train.steps=6")[0] == 0
    assert [record["step"] for record in read_records(Path("r/log.jsonl"))] == [2, 4, 6]


def test_a_record_that_was_cut_short_is_dropped_and_a_damaged_one_is_named(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    log = Path("r/log.jsonl")
    whole = log.read_text()
    log.write_text(whole + '{"step": 5, "los')
    assert [record["step"] for record in read_records(log)] == [2, 4]
    for damaged, line in (("garb{\n" + whole, 1), (whole + "garb{\n", 3), (whole.replace("32,", "33,"), 1)):
        log.write_text(damaged)
        code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
        assert code == 2
        assert f"log.jsonl:{line}: damaged, since its checksum does not hold" in err
        assert "remove the line" in err


UPS_AND_DOWNS = """
from attrs import frozen
from ganlab import Scores, hookimpl

values = [9.0, 3.0, 1.0, 2.0, 1.5, 4.0, 5.0]

@frozen
class UpsAndDowns:
    every: int = 1
    def evaluate(self, evaluation): return Scores({"way": values.pop(0)}, {"metric": "way"}, {"way": "lower"})

@hookimpl
def register_metrics(register): register("ups_and_downs", UpsAndDowns)
"""


def test_old_checkpoints_go_and_the_best_stays(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    table["train"] |= {"steps": 6, "checkpoint_every": 1, "checkpoint_keep": 2}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert list(list_checkpoints(Path("r/checkpoints"))) == [5, 6]
    (tmp_path / "way.py").write_text(UPS_AND_DOWNS)
    scored = table | {"plugins": ["way.py"], "metric": [{"name": "ups_and_downs"}], "floor": False}
    assert ganlab("run", write(scored), "--out", "scored")[0] == 0
    assert list(list_checkpoints(Path("scored/checkpoints"))) == [2, 5, 6], "the best was at step 2"
    table["train"]["checkpoint_keep"] = 0
    assert ganlab("run", write(table), "--out", "all")[0] == 0
    assert list(list_checkpoints(Path("all/checkpoints"))) == [1, 2, 3, 4, 5, 6]


TELLING = """
import json
from pathlib import Path
from attrs import frozen
from ganlab import hookimpl

told = []

def draw():
    import random, torch
    torch.rand(1), random.random()  # whatever is told of an event may draw random numbers as it likes

@hookimpl
def run_started(run): draw(); told.append("started")
@hookimpl
def tick_finished(run, record): draw(); told.append(f"tick {record['step']}")
@hookimpl
def evaluation_finished(record): told.append(f"{record['name']} {record['step']}")
@hookimpl
def checkpoint_saved(run, path):
    draw()
    info = json.loads((run.path / "run.json").read_text())  # as a run that is killed now would leave it
    told.append(f"saved {path.name}, {info['status']}, {info.get('seconds', 0) > 0}")
@hookimpl
def run_finished(run, error):
    told.append(f"finished {error}")
    (run.path / "told.txt").write_text("\\n".join(told))

@frozen
class Notes:
    prefix: str = "note"
    def build(self, run):
        return Writer(run.path / "notes.txt", self.prefix)

class Writer:
    def __init__(self, path, prefix):
        self.path, self.prefix, self.lines = path, prefix, []
    def log(self, record):
        draw()
        self.lines.append(f"{self.prefix} {record['step']}")
    def samples(self, step, path): self.lines.append(f"{path.name} {path.exists()}")
    def close(self): self.path.write_text("\\n".join(self.lines))

@hookimpl
def register_trackers(register): register("notes", Notes)
"""


def test_hooks_and_trackers_are_told(table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(TELLING)
    assert ganlab("run", write(table), "--out", "alone")[0] == 0
    table |= {"plugins": ["telling.py"], "tracker": [{"name": "notes"}]}
    table["metric"] = [{"name": "fid", "samples": 16, "features": CLASSIFIER}]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert Path("r/told.txt").read_text().splitlines() == [
        "started",
        "fid 0",
        "tick 2",
        "tick 4",
        "saved step-00000004, running, True",
        "fid 4",
        "finished None",
    ]
    assert Path("r/notes.txt").read_text().splitlines() == [
        "step-00000000.png True",
        "note 0",
        "note 2",
        "note 4",
        "step-00000004.png True",
        "note 4",
    ]
    assert_same_bits(Path("alone"), Path("r"))


def test_a_loss_in_a_file_of_its_own_trains(table: dict[str, Any], write: Write, ganlab: Command, wedge: Path) -> None:
    lines = [line for line in wedge.read_text().splitlines() if line.strip()]
    assert len(lines) <= 10
    table |= {"plugins": ["wedge.py"], "loss": {"name": "wedge", "margin": 0.5}}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    origin = json.loads(Path("r/run.json").read_text())["components"]["loss.wedge"]
    assert origin["source"] == "file"
    assert origin["file"] == str(wedge.resolve())
    del table["plugins"]
    assert ganlab("run", write(table), "--plugin", wedge, "--out", "r2")[0] == 0
    assert_same_bits(Path("r"), Path("r2"))


def test_a_second_process_is_kept_out(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    from ganlab.run.run_folder import RunFolder

    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    other = RunFolder(Path("r"))
    other.lock()
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=9")
    assert code == 2
    assert "another process is writing to this run" in err
    other.unlock()


def test_load_run(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"] |= {"ema": 0.5, "checkpoint_every": 2}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    run = package.load_run("r")
    assert (run.step, run.weights, run.experiment.name) == (4, "ema", "tiny")
    images = run.sample(10, seed=3)
    assert images.shape == (10, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert torch.equal(images, run.sample(10, seed=3))
    assert torch.equal(images, run.sample(300, seed=3)[:10]), "more images do not change the first"
    assert not torch.equal(images, run.sample(10, seed=4))
    state = load_checkpoint(Path("r/checkpoints/step-00000004"))
    assert all(torch.equal(v, state["ema"][k]) for k, v in run.generator.state_dict().items())
    early = package.load_run("r", step=2)
    assert not torch.equal(images, early.sample(10, seed=3))


@pytest.mark.cuda
def test_cuda_where_there_is_one(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"] |= {"steps": 8, "ema": 0.9, "checkpoint_every": 4}
    table["metric"] = [{"name": "fid", "samples": 32, "features": CLASSIFIER}]
    assert ganlab("run", write(table), "--out", "r", "--device", "cuda")[0] == 0
    assert ganlab("run", "r/experiment.toml", "--out", "r2")[0] == 0
    assert json.loads(Path("r2/run.json").read_text())["device"] == torch.cuda.get_device_name()
    assert package.load_run("r").sample(4).shape == (4, 1, 8, 8)


def test_a_checkpoint_of_another_experiment_is_refused(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    assert ganlab("run", path, "--out", "other", "--set", "seed=5")[0] == 0
    shutil.rmtree("r/checkpoints")
    shutil.copytree("other/checkpoints", "r/checkpoints")
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert "r/checkpoints/step-00000004: belongs to another experiment" in err
    assert ganlab("run", path, "--out", "r", "--resume", "--anyway", "--set", "train.steps=6")[0] == 0


def test_records_that_are_gone_are_told_of(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"]["log_every"] = 1
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    log = Path("r/log.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:1] + lines[2:]))
    (Path("r/samples") / "step-best.png").write_bytes(b"the user's own")
    code, out, _ = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 0
    assert "r/log.jsonl: 1 of 4 records up to step 4 are gone" in out
    assert (Path("r/samples") / "step-best.png").exists()


def test_a_score_is_not_written_behind_half_a_record(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["metric"] = [{"name": "fid", "samples": 16, "features": CLASSIFIER}]
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    scores = Path("r/metrics.jsonl")
    scores.write_text(scores.read_text() + '{"step": 4, "metr')
    assert ganlab("eval", "r")[0] == 0
    assert [record.get("eval", False) for record in read_records(scores)] == [False, False, True]


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "{}", "x", ""])
def test_a_damaged_run_json_is_named(text: str, table: dict[str, Any], write: Write, ganlab: Command) -> None:
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    Path("r/run.json").write_text(text)
    code, _, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert err.startswith("r/run.json: damaged: ")
    assert err.count("\n") == 1


def test_a_file_where_a_checkpoint_should_be(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"] |= {"checkpoint_every": 1, "checkpoint_keep": 2}
    path = write(table)
    assert ganlab("run", path, "--out", "r")[0] == 0
    shutil.rmtree("r/checkpoints/step-00000004")
    Path("r/checkpoints/step-00000004").write_text("x")
    code, out, err = ganlab("run", path, "--out", "r", "--resume", "--set", "train.steps=8")
    assert (code, err) == (0, "")
    assert "step-00000004: not a whole checkpoint" in out
    assert "resuming r at step 3" in out
    assert list(list_checkpoints(Path("r/checkpoints"))) == [7, 8]


def test_damaged_checkpoints_do_not_drive_out_whole_ones(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    """They are the latest, and as many as are kept; what is saved before their steps come again must stay."""
    table["train"] |= {"steps": 9, "checkpoint_every": 2, "checkpoint_keep": 2}
    path = write(table)
    assert ganlab("run", path, "--out", "r", "--set", "train.checkpoint_keep=0")[0] == 0
    assert list(list_checkpoints(Path("r/checkpoints"))) == [2, 4, 6, 8, 9]
    for step in (6, 8, 9):
        (Path("r/checkpoints") / f"step-{step:08d}" / "state.json").write_bytes(b"")
    more = ["--resume", "--anyway", "--set", "train.checkpoint_every=1", "--set", "train.steps=9"]
    info = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps(info | {"status": "interrupted"}))
    code, out, _ = ganlab("run", path, "--out", "r", *more)
    assert code == 0
    assert "resuming r at step 4" in out
    assert list(list_checkpoints(Path("r/checkpoints"))) == [8, 9]
    for saved in list_checkpoints(Path("r/checkpoints")).values():
        load_checkpoint(saved)
    assert len(list(Path("r/checkpoints").glob("damaged-step-*"))) == 3
