"""The commands that train: `ganlab run`, `ganlab sweep`, and `ganlab bench`, which times a step."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ganlab.cli.arguments import Blocked, Device, LauncherName, Set
from ganlab.utils.errors import Interrupted, UserError

if TYPE_CHECKING:
    from ganlab.run.train import Outcome


def run(
    experiment: Path,
    /,
    *,
    set_: Set = None,
    out: Path | None = None,
    resume: bool = False,
    anyway: bool = False,
    device: Device = "auto",
    plugin: list[Path] | None = None,
    no_plugin: Blocked = None,
    dry_run: bool = False,
) -> int:
    """Train an experiment; write samples, scores and checkpoints to a run folder.

    Parameters
    ----------
    experiment
        The experiment file, or with --resume also a run folder.
    set_
        KEY=VALUE, any TOML value; can be repeated.
    out
        The run folder, exactly. Default: runs/NAME/TIME-seedSEED.
    resume
        Resume an interrupted run: the one in --out, the one the file lies in, or the latest unfinished one.
    anyway
        With --resume: resume even where the result cannot be bitwise identical.
    device
        Where to train: auto (CUDA where there is one), cpu, cuda, cuda:1, mps, xpu, or pretend: a device without a GPU.
    plugin
        A plugin file to load; can be repeated.
    no_plugin
        A plugin not to load, by its name in `ganlab plugins`; can be repeated.
    dry_run
        Check everything and print the resolved experiment, but write nothing.
    """
    from ganlab.run import train
    from ganlab.run.request import RunRequest
    from ganlab.viz.progress import make_progress_view

    if anyway and not resume:
        raise UserError("--anyway: only goes with --resume")
    if resume and experiment.is_dir():
        experiment = experiment / "experiment.toml"
    request = RunRequest(
        experiment=experiment,
        overrides=tuple(set_ or ()),
        out=out,
        resume=resume,
        anyway=anyway,
        device=device,
        plugin_files=tuple(plugin or ()),
        blocked=tuple(no_plugin or ()),
    )
    # Of the processes that torchrun starts only the first prints.
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    if dry_run:
        console.print(train.dry_run(request), markup=False, highlight=False, soft_wrap=True, end="")
        return 0
    try:
        with _told_of_pretend(device, console):
            outcome = train.run(request, make_progress_view(console))
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with --resume") from None
    _print_summary(console, outcome)
    return 0


@contextmanager
def _told_of_pretend(device: str, console: Console) -> Iterator[None]:
    """Prints after the body what the train steps did on the pretend device that a real one would wait for."""
    if not device.startswith("pretend"):
        yield
        return
    from ganlab.testing.pretend import describe_steps, record_events

    with record_events() as events:
        yield
    for line in describe_steps(events):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_summary(console: Console, outcome: Outcome) -> None:
    from ganlab.viz.progress_text import format_duration

    console.print(
        f"\n{outcome.status} at step {outcome.step:,} in {format_duration(outcome.seconds)}",
        highlight=False,
        soft_wrap=True,
    )
    for name, entry in outcome.metrics.items():
        best = entry.get("best")
        note = f"   best {float(best['value']):.4g} at step {best['step']:,}" if best else ""
        if floor := entry.get("floor"):
            note += f"   floor {float(floor['value']):.4g} ({floor['count']:,} {floor['split']} images)"
        line = f"{name}: final {float(entry['final']['value']):.4g}{note}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if outcome.weights == "ema":
        said = "samples and scores: of the running average of the weights"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    console.print(f"run folder: {outcome.path}", markup=False, highlight=False, soft_wrap=True)


def sweep(
    file: Path,
    /,
    *,
    out: Path | None = None,
    jobs: int = 1,
    launcher: LauncherName = None,
    set_: Set = None,
) -> int:
    """Run every variant of a sweep file with every seed; skip finished runs, resume the others.

    Parameters
    ----------
    file
        The sweep file: base, seeds, a table [variants.NAME] for each variant, and optionally a table [launcher].
    out
        The folder of the sweep. Default: runs/NAME.
    jobs
        How many runs at a time.
    launcher
        What starts the runs: a launcher of `ganlab plugins launcher`. Default: the sweep file's, else local.
    set_
        KEY=VALUE, any TOML value; can be repeated.
    """
    from ganlab.sweep.launch import launch_runs
    from ganlab.sweep.plan import load_sweep
    from ganlab.utils.signals import signals_as_keyboard_interrupt

    if jobs < 1:
        raise UserError(f"--jobs {jobs}: expected at least 1")
    loaded = load_sweep(file, set_ or (), launcher)
    folder = out or Path("runs") / loaded.name
    skipped = sum(run.finished(folder) for run in loaded.planned)
    total, done, failed = len(loaded.planned), skipped, 0
    print(f"{total} runs in {folder}" + (f", {skipped} finished already" if skipped else ""), flush=True)
    try:
        with signals_as_keyboard_interrupt():
            for run, code in launch_runs(loaded, folder, jobs):
                done, failed = done + 1, failed + (code != 0)
                how = "finished" if code == 0 else f"exit code {code} ({run.last_output_line(folder)})"
                print(f"{done}/{total}  {run.variant} seed {run.seed}: {how}", flush=True)
    except KeyboardInterrupt:
        raise Interrupted("the sweep was stopped; start it again to go on") from None
    print(f"compare them by: ganlab compare {folder}")
    return 1 if failed else 0


def bench(
    experiment: Path,
    /,
    *,
    set_: Set = None,
    seconds: float = 30.0,
    device: Device = "auto",
    plugin: list[Path] | None = None,
    json: bool = False,
) -> int:
    """Time training steps in turns with two plain loops of the same arithmetic: a tutorial's and a hand-optimized one.

    Parameters
    ----------
    experiment
        The experiment file.
    set_
        KEY=VALUE, any TOML value; can be repeated.
    seconds
        How long the loops are timed, with five rounds at least; timing each plugin in the step takes half as long.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    json
        Print JSON instead of a table.
    """
    import json as json_

    from ganlab.bench.benchmark import run_benchmark as measured
    from ganlab.bench.benchmark_output import print_benchmark
    from ganlab.viz.progress import make_progress_view

    if not 0 < seconds < math.inf:
        raise UserError(f"--seconds {seconds}: expected more than 0")
    with make_progress_view(Console(stderr=True)) as view:
        result = measured(experiment, tuple(set_ or ()), device, seconds, tuple(plugin or ()), view.progress)
    if json:
        print(json_.dumps(result, indent=2))
    else:
        print_benchmark(result, Console())
    return 0
