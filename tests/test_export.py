"""`ganlab export`: what is written, used as somebody without ganlab would, held against what the run itself makes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import hub_server
import paired_images
from ganlab import UserError, load_run, to_uint8
from ganlab.evaluation.sampling import sample_inputs
from ganlab.report import hub_folder
from ganlab.run import export
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

LABELLED = {"name": "conditional", "network": {"name": "mlp", "latent_dim": 8, "hidden": [16]}}


def ran_by_onnx(file: Path, **inputs: torch.Tensor) -> np.ndarray:
    """What onnxruntime alone makes of these inputs: the only output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert isinstance(made, np.ndarray)
    return made


def facts_in_onnx(file: Path) -> dict[str, Any]:
    import onnx

    model = onnx.load(str(file))
    (held,) = (entry.value for entry in model.metadata_props if entry.key == "ganlab")
    return json.loads(held)


def left_here() -> set[str]:
    return {path.name for path in Path().iterdir()}


def test_weights_are_exported_or_refused_in_one_line(
    table: dict[str, Any], write: Write, ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The averaged weights, to the bit; nothing else is left, also of what is refused."""
    table["train"] |= {"ema": 0.5}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    before = left_here()
    code, out, _ = ganlab("export", "r", "--to", "safetensors")
    assert (code, out) == (0, "tiny.safetensors: generator with ema weights at step 4\n")
    assert left_here() - before == {"tiny.safetensors"}
    written, held = load_file("tiny.safetensors"), load_file("r/checkpoints/step-00000004/ema.safetensors")
    assert written.keys() == held.keys()
    assert all(torch.equal(written[name], held[name]) for name in held)
    with safe_open("tiny.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["ganlab"])
    assert facts["inputs"] == {"latents": {"shape": ["batch", 8], "dtype": "float32"}}
    assert (facts["weights"], facts["prior"], facts["step"]) == ("ema", "standard normal", 4)
    assert (
        ganlab("export", "r", "--to", "safetensors", "--network", "discriminator", "--out", "d/d.safetensors")[0] == 0
    )
    assert load_file("d/d.safetensors").keys() == load_run("r").discriminator.state_dict().keys()
    before = left_here()
    monkeypatch.setattr(export, "ONNX_PACKAGES", ("onnx_gone",))
    for arguments, line in [
        ([], "--out tiny.safetensors: is there already; name another, or remove it"),
        (
            ["--out", "x.safetensors", "--network", "genrator"],
            "--network 'genrator': the run has no such network; did you mean",
        ),
        (["--out", "x.safetensors", "--step", "3"], "--step 3: r has no such checkpoint"),
        (
            ["--out", "x.safetensors", "--network", "generator", "--option", "psi=1"],
            "--network: goes without --sampler",
        ),
        (["--out", "x.onnx", "--to", "onnx"], "--to onnx: needs onnx_gone: pip install 'ganlab[onnx]'"),
        (["--out", "x.onnx"], "--out x.onnx: expected FILE.safetensors"),
        (["--out", "x.onnx", "--to", "hub-folder"], "--out x.onnx: expected a folder, which --to hub-folder writes"),
        (
            ["--out", "tiny.safetensors/x.safetensors"],
            "--out tiny.safetensors/x.safetensors: tiny.safetensors is not a folder",
        ),
    ]:
        to = [] if "--to" in arguments else ["--to", "safetensors"]
        code, _, err = ganlab("export", "r", *to, *arguments)
        assert code == 2, err
        assert line in err
        assert err.count("\n") == 1
        assert left_here() == before


@pytest.mark.extended
@pytest.mark.large
def test_weights_that_onnx_keeps_in_a_second_file_are_refused(
    table: dict[str, Any], write: Write, ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of over 1.5 GB: only the first file would have been moved to its place."""
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1000)
    table["generator"] |= {"hidden": [64]}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    before = left_here()
    code, _, err = ganlab("export", "r", "--to", "onnx")
    line = "--to onnx: the weights are too large for one file of ONNX; --to torch has them in one\n"
    assert (code, err, left_here()) == (2, line, before)


@pytest.mark.extended
@pytest.mark.large
def test_onnxruntime_and_torch_alone_make_the_runs_images(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    """Of a class, for any number of images: those that the run samples with the same latents."""
    table["generator"] = LABELLED
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    code, out, err = ganlab("export", "r", "--to", "onnx")
    assert code == 0, err
    assert out.startswith("tiny.onnx: generator with plain weights at step 4; its outputs differ by at most ")
    assert ganlab("export", "r", "--to", "torch")[0] == 0
    program = torch.export.load("tiny.pt2", extra_files=(extra := {"ganlab.json": ""})).module()
    assert json.loads(extra["ganlab.json"]) == facts_in_onnx(Path("tiny.onnx"))
    run = load_run("r")
    for count in (1, 7):
        z, labels = torch.randn(count, 8), torch.full((count,), 3)
        wanted = run.generator(z, labels)
        np.testing.assert_allclose(ran_by_onnx(Path("tiny.onnx"), latents=z, labels=labels), wanted, atol=1e-4)
        torch.testing.assert_close(program(z, labels)[0], wanted, atol=1e-5, rtol=0)
    # The prior that the file names is the one that samples are drawn from.
    images, drawn = run.sample_with_condition(4, seed=2)
    z, _ = next(sample_inputs(run.sampler, 4, 2, run.conditions))
    assert facts_in_onnx(Path("tiny.onnx"))["prior"] == "standard normal"
    made = to_uint8(torch.from_numpy(ran_by_onnx(Path("tiny.onnx"), latents=z, labels=drawn)))
    assert (made.int() - images.int()).abs().max() <= 1


@pytest.mark.extended
@pytest.mark.large
def test_other_networks_and_images_as_inputs(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    """A translator is given noise and images, and its discriminator pairs: what each is called with is found."""
    method = Path(__file__).parent / "methods" / "pix2pix.py"
    common = {key: table[key] for key in ("name", "optimizer", "train")}
    pairs = {"plugins": [paired_images.__file__, str(method)], "dataset": {"name": "paired"}}
    game = {"game": {"name": "small_pix2pix", "dropout": 0.5}}  # by the noise that is drawn
    code, _, err = ganlab("run", write(common | pairs | game), "--out", "r")
    assert code == 0, err
    assert ganlab("export", "r", "--to", "onnx", "--out", "t.onnx")[0] == 0
    run = load_run("r")
    z, images = next(sample_inputs(run.sampler, 3, 0, run.conditions))
    made = ran_by_onnx(Path("t.onnx"), latents=z, condition_images=images)
    np.testing.assert_allclose(made, run.sampler(z, images), atol=1e-4)
    code, _, err = ganlab("export", "r", "--to", "onnx", "--out", "d.onnx", "--network", "discriminator")
    assert code == 0, err
    inputs = {name: torch.randn(5, *of["shape"][1:]) for name, of in facts_in_onnx(Path("d.onnx"))["inputs"].items()}
    wanted = run.networks["discriminator"](*inputs.values())
    np.testing.assert_allclose(ran_by_onnx(Path("d.onnx"), **inputs), wanted, atol=1e-4)


@pytest.mark.extended
@pytest.mark.large
def test_an_encoder_has_no_latents_among_its_inputs(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    code = {"encoder": {"name": "mlp_encoder", "hidden": [16]}, "game": {"name": "aae"}}
    code["discriminator"] = {"name": "mlp", "hidden": [16]}
    exit_code, _, err = ganlab("run", write(table | code), "--out", "r")
    assert exit_code == 0, err
    assert ganlab("export", "r", "--to", "onnx", "--out", "e.onnx", "--network", "encoder")[0] == 0
    assert [of["shape"] for of in facts_in_onnx(Path("e.onnx"))["inputs"].values()] == [["batch", 1, 8, 8]]
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        wanted = load_run("r").networks["encoder"](torch.zeros(5, 0), images)
    np.testing.assert_allclose(ran_by_onnx(Path("e.onnx"), condition=images), wanted, atol=1e-4)


UNFIT = """
import ganlab, torch
from attrs import frozen
from torch import nn

class Values(nn.Module):
    def forward(self, x): return torch.linalg.svdvals(x.unflatten(1, (8, 8)))

class Noise(nn.Module):
    def forward(self, x): return x[:, :8] + torch.randn_like(x[:, :8])

class Network(nn.Module):
    latent_dim = 8
    def __init__(self, layer):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 64), layer, nn.Linear(8, 64))
    def forward(self, z, condition=None): return self.layers(z).tanh().unflatten(1, (1, 8, 8))

@frozen
class Unfit:
    noisy: bool = False
    def build(self, images): return Network(Noise() if self.noisy else Values())

@ganlab.hookimpl
def register_generators(register): register("unfit", Unfit)
"""


@pytest.mark.extended
@pytest.mark.large
def test_what_cannot_be_exported_is_named_with_its_module(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    Path("unfit.py").write_text(UNFIT)
    table |= {"plugins": ["unfit.py"], "generator": {"name": "unfit"}}
    assert ganlab("run", write(table), "--out", "svd")[0] == 0
    assert ganlab("run", write(table), "--out", "noisy", "--set", "generator.noisy=true")[0] == 0
    before = left_here()
    code, _, err = ganlab("export", "svd", "--to", "onnx")
    assert (code, err.count("\n")) == (2, 1), err
    assert "ONNX has no operator for torch.ops.aten._linalg_svd" in err
    assert "which generator.layers.1 (Values) calls" in err
    for to in ("onnx", "torch"):
        code, _, err = ganlab("export", "noisy", "--to", to)
        assert (code, err.count("\n")) == (2, 1), err
        assert "export: generator draws random numbers, by torch.ops.aten.randn_like" in err
        assert "in generator.layers.1 (Noise)" in err
    assert left_here() == before
    assert ganlab("export", "svd", "--to", "torch")[0] == 0


@pytest.mark.extended
@pytest.mark.large
def test_a_hub_folder_is_pushed_by_the_hubs_client(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client itself, and a server in the place of the hub: what it has then is a run, with the same images."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # a protocol that the server lacks
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    hub = ("export", "r", "--to", "hub-folder")
    for arguments, line in [
        ((*hub, "--push", "a b"), "--push a b: Repo id must use"),
        (("export", "r", "--to", "torch", "--push", "a/b"), "--push: only goes with --to hub-folder"),
    ]:
        code, _, err = ganlab(*arguments)
        assert (code, err.count("\n"), Path("tiny-hub").exists()) == (2, 1, False)
        assert line in err
    with hub_server.serve() as (server, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        code, _, err = ganlab(*hub, "--push", "nobody/tiny")
        assert (code, err.count("\n"), server.made) == (2, 1, {})
        assert err.startswith("--push nobody/tiny: ")
        assert err.endswith("; `hf auth login` says who you are; tiny-hub is written nevertheless\n")
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        code, out, err = ganlab(*hub, "--out", "again", "--push", "ada/tiny")
    assert (code, out.splitlines()[-1]) == (0, f"{address}/ada/tiny/commit/{hub_server.OID}"), err
    assert server.commits == ["tiny at step 4"]
    (asked,) = server.made.values()
    assert asked.get("visibility") == "private" or asked.get("private") is True
    server.save(tmp_path / "pushed")
    written = {path.relative_to("again").as_posix(): path for path in Path("again").rglob("*") if path.is_file()}
    assert server.files == {name: path.read_bytes() for name, path in written.items()}
    assert torch.equal(load_run("pushed").sample(4, seed=1), load_run("r").sample(4, seed=1))


def test_a_hub_folder_has_the_records_of_its_checkpoint_and_no_later_ones(
    table: dict[str, Any], write: Write, ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later scores are of weights that it does not have."""

    def no_program(*arguments: object) -> float:
        raise UserError("not traced here")

    monkeypatch.setattr(hub_folder, "write_program", no_program)
    table["train"] |= {"checkpoint_every": 2, "log_every": 1}
    table["metric"] = [{"name": "fid", "every": 2, "samples": 16, "features": "pixels"}]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert ganlab("export", "r", "--to", "hub-folder", "--step", 2)[0] == 0
    for name, steps in (("log.jsonl", [1, 2]), ("metrics.jsonl", [0, 2])):
        held = read_records(Path("tiny-hub", name))
        assert [record["step"] for record in held] == steps
        assert held == read_records(Path("r", name))[: len(held)]
    info, of_run = read_info(Path("tiny-hub")), read_info(Path("r"))
    assert info["metrics"]["fid"]["final"]["step"] == 2
    assert of_run["metrics"]["fid"]["final"]["step"] == 4
    assert info.keys() == of_run.keys()


@pytest.mark.extended
@pytest.mark.large
def test_a_hub_folder_is_a_run_anywhere(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved, with the run, its plugin and the data gone: the same images; its program needs torch alone."""
    Path("own.py").write_text(UNFIT.replace('"unfit"', '"own"'))
    table["train"] |= {"ema": 0.5}
    table |= {"plugins": ["own.py"], "generator": {"name": "own"}}
    table["metric"] = [{"name": "fid", "samples": 32, "features": "pixels"}]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    wanted = load_run("r").sample(4, seed=1)
    code, out, err = ganlab("export", "r", "--to", "hub-folder")
    assert code == 0, err
    assert "tiny-hub: generator with ema weights at step 4; its outputs differ by at most" in out
    (tmp_path / "elsewhere").mkdir()
    hub = (tmp_path / "elsewhere" / "hub").resolve()
    Path("tiny-hub").rename(hub)
    score = read_info(Path("r"))["metrics"]["fid"]["final"]["value"]
    shutil.rmtree("r")
    Path("own.py").unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = load_run(hub)
    assert torch.equal(run.sample(4, seed=1), wanted)
    assert run.weights == "ema"
    names = {path.name for path in (hub / "checkpoints" / "step-00000004").iterdir()}
    assert names == {f"{part}.safetensors" for part in ("generator", "ema", "discriminator")} | {
        "state.json",
        "manifest.json",
    }
    z = torch.randn(3, 8)
    (images,) = torch.export.load(hub / "model.pt2").module()(z)
    torch.testing.assert_close(images, run.generator(z), atol=1e-5, rtol=0)
    card = (hub / "README.md").read_text()
    assert f"| `fid` | {float(score):.5g} | 4 |" in card
    assert re.search(r"^- `fid`: `metric fid; .*generated 32; ", card, re.MULTILINE)
    assert "![The last samples of the run](samples.png)" in card
    assert (hub / "samples.png").is_file()
    example = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(hub)
    names_of: dict[str, Any] = {}
    exec(example, names_of)
    assert names_of["images"].shape == (16, 1, 8, 8)
