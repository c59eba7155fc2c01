"""The command that takes a run's networks away: `ganlab export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ganlab.utils.errors import UserError, printable

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors", "hub-folder": "-hub"}
"""What the name of an exported file or folder ends with by default, after the run's name."""


def export(
    run: Path,
    /,
    *,
    to: Literal["onnx", "torch", "safetensors", "hub-folder"],
    out: Path | None = None,
    network: str | None = None,
    step: int | None = None,
    sampler: str = "",
    option: list[str] | None = None,
    push: str | None = None,
    plugin: list[Path] | None = None,
) -> int:
    """Export a run's networks for use without ganlab, checked against the originals.

    Parameters
    ----------
    run
        The run folder.
    to
        onnx: latents and conditions to images, for any number of them; torch: the same, as a program of torch.export;
        safetensors: the weights alone; hub-folder: a small run folder with weights, scores, samples and a model card.
    out
        The file, which ends so, or folder to write, which must not exist. Default: the run's name, with .onnx, .pt2,
        .safetensors or -hub.
    network
        Export this network of the run alone, such as its discriminator. Default: what is sampled and scored.
    step
        Which checkpoint. Default: the latest.
    sampler
        A further sampler of the run's game. Default: the main one.
    option
        NAME=VALUE, an option of the sampler; can be repeated.
    push
        With --to hub-folder: also push the folder to this repository of the Hugging Face hub, OWNER/NAME. A new one is
        private.
    plugin
        A plugin file to load; can be repeated.
    """
    from ganlab.config.overrides import parse_options
    from ganlab.report.hub_folder import write_hub_folder
    from ganlab.report.hub_push import check_push, push_folder
    from ganlab.run.export import check_export, exported_path, write_onnx, write_program, write_safetensors
    from ganlab.run.exported_network import exported_network, exported_sampler
    from ganlab.run.load_run import load_run

    options = parse_options(option or [])
    if out is not None:
        if to == "hub-folder" and out.suffix in {*SUFFIXES.values(), ".zip", ".tar", ".gz"}:
            raise UserError(f"--out {out}: expected a folder, which --to hub-folder writes")
        check_export(out, "" if to == "hub-folder" else SUFFIXES[to])
    if network is not None and (sampler or options):
        raise UserError("--network: goes without --sampler and --option, which are of what is sampled")
    if to == "hub-folder" and (network is not None or sampler or options):
        raise UserError(
            "--to hub-folder: has all networks and samplers; it goes without --network, --sampler, --option"
        )
    if push is not None:
        if to != "hub-folder":
            raise UserError("--push: only goes with --to hub-folder")
        check_push(push)
    loaded = load_run(run, step, "cpu", plugins=plugin or [])
    if sampler or options:
        loaded = loaded.with_sampler(sampler, options)
    path = out or Path(f"{loaded.info['name']}{SUFFIXES[to]}")
    found = exported_network(loaded, network) if network is not None else exported_sampler(loaded)
    size = sum(tensor.nbytes for of in found.networks.values() for tensor in of.parameters())
    with exported_path(path, size) as temporary:
        difference, note = None, ""
        if to == "hub-folder":
            difference, note = write_hub_folder(loaded, found, temporary)
        elif to == "safetensors":
            write_safetensors(found, temporary)
        else:
            difference = {"onnx": write_onnx, "torch": write_program}[to](found, temporary)
    what = ", ".join(found.networks)
    checked = "" if difference is None else f"; its outputs differ by at most {difference:.1e}"
    print(printable(f"{path}: {what} with {found.facts['weights']} weights at step {loaded.step:,}{checked}"))
    if note:
        print(printable(f"without a program for torch alone: {note}"))
    if push is not None:
        print(push_folder(path, push, f"{loaded.info['name']} at step {loaded.step:,}"))
    return 0
