"""The folder of a run for a hub of models (`ganlab export --to hub-folder`): a run folder that is small and explained.

Decisions:
- It is a run folder: `ganlab.load_run` reads it, and the commands on finished runs. It holds one checkpoint, without
  the state of the optimisers, the resolved experiment, the scores, the last samples, and the local plugin files.
- What is sampled is in it as a torch.export program too, which torch alone reads, where it can be traced.
- The card (README.md) says what the scores are of: a value without its protocol is none.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor

from ganlab.report.table_output import format_protocol
from ganlab.run.export import write_program
from ganlab.run.exported_network import ExportedNetwork
from ganlab.run.load_run import Run
from ganlab.run.records import best_and_final, read_records, record_line, to_json
from ganlab.run.run_folder import RunFolder
from ganlab.training.checkpoint import folder_name, load_checkpoint, save_checkpoint
from ganlab.utils.errors import UserError, counted
from ganlab.utils.files import write_whole

RECORDS = ("log.jsonl", "metrics.jsonl")
"""The records of a run that a hub folder has too, where they are there, up to the step of its checkpoint."""

PROGRAM, CARD, GRID = "model.pt2", "README.md", "samples.png"


def write_hub_folder(run: Run, network: ExportedNetwork, path: Path) -> tuple[float | None, str]:
    """Writes the hub folder of a run; returns the largest difference of its program, and why there is none, or "".

    `network` is what is sampled, as it is exported.
    """
    path.mkdir()
    shutil.copyfile(run.path / "experiment.toml", path / "experiment.toml")
    for name in RECORDS:
        if (run.path / name).is_file():
            # Later ones are of weights that the folder does not have.
            of_it = [record for record in read_records(run.path / name) if record["step"] <= run.step]
            write_whole(path / name, "".join(map(record_line, of_it)))
    if (run.path / "plugins").is_dir():
        shutil.copytree(run.path / "plugins", path / "plugins")
    checkpoint = run.path / "checkpoints" / folder_name(run.step)
    parts = {file.stem for file in checkpoint.glob("*.safetensors")} & _parts(run)
    saved = save_checkpoint(path / "checkpoints", run.step, load_checkpoint(checkpoint, parts))
    scored = {"metrics": best_and_final(read_records(path / "metrics.jsonl"))}
    write_whole(path / "run.json", json.dumps(to_json(run.info | {"step": run.step} | scored), indent=2) + "\n")
    grids = [file for step, file in RunFolder(run.path).sample_grids().items() if step <= run.step]
    if grids:
        shutil.copyfile(grids[-1], path / GRID)
    difference, reason = None, ""
    try:
        difference = write_program(network, path / PROGRAM)
    except UserError as error:
        (path / PROGRAM).unlink(missing_ok=True)
        reason = str(error)
    write_whole(path / CARD, _card(run, network, saved.relative_to(path), path, reason))
    return difference, reason


def _parts(run: Run) -> set[str]:
    """The parts of a checkpoint that a hub folder has: the networks', and their running averages."""
    names = {*run.rules.networks}
    return names | {"ema"} | {f"ema.{name}" for name in names}


def _card(run: Run, network: ExportedNetwork, checkpoint: Path, folder: Path, reason: str) -> str:
    """The card of a hub folder, in Markdown."""
    records = read_records(folder / "metrics.jsonl")
    latest = {record["name"]: record for record in records if not record.get("eval")}
    files = [checkpoint / file.name for file in sorted((folder / checkpoint).glob("*.safetensors"))]
    sizes = {name: sum(p.numel() for p in of.parameters()) for name, of in run.networks.items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ganlab.report"),
        autoescape=False,  # Markdown; texts of the run are in code spans
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    info: Any = run.info
    return environment.get_template("model_card.md").render(
        name=info["name"],
        seed=info["seed"],
        step=f"{run.step:,}",
        total=f"{info['total_steps']:,}",
        data=info.get("dataset", {}),
        count=counted(info.get("dataset", {}).get("count", 0), "image"),
        shape="x".join(map(str, run.sampled.shape)),
        weights=network.facts["weights"],
        game=run.plugins.registry.component_of("game", run.experiment.game).name,
        networks={name: f"{size:,}" for name, size in sizes.items()},
        scores=_scores(records, latest),
        protocols={name: format_protocol(record["protocol"]) for name, record in latest.items()},
        grid=GRID if (folder / GRID).is_file() else "",
        program=PROGRAM if (folder / PROGRAM).is_file() else "",
        reason=reason,
        inputs=network.facts["inputs"],
        prior=network.facts.get("prior", ""),
        values=network.facts["values"],
        call=", ".join(_drawn(name, of) for name, of in network.inputs(1).items()),
        files=[file.as_posix() for file in files],
        version=network.facts["ganlab"],
    )


def _scores(records: Any, latest: Any) -> list[dict[str, str]]:
    """The rows of a card's table of scores, at the folder's checkpoint or before."""
    rows = []
    for name, entry in best_and_final(records).items():
        final, floor = entry["final"], latest[name].get("floor")
        rows.append(
            {
                "name": name,
                "value": f"{float(final['value']):.5g}",
                "step": f"{final['step']:,}",
                "floor": f"{float(floor['value']):.5g} ({floor['count']:,} {floor['split']} images)" if floor else "",
            }
        )
    return rows


def _drawn(name: str, tensor: Tensor) -> str:
    """An input of a card's example, as Python draws it for 16 images."""
    shape = ", ".join(map(str, (16, *tensor.shape[1:])))
    if tensor.dtype == torch.int64:
        return f"torch.zeros({shape}, dtype=torch.int64)"
    return f"torch.randn({shape})" if name == "latents" else f"torch.zeros({shape})"
