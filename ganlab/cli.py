"""The commands. Each is a thin skin: it reads arguments, calls one function of the core, and prints.

torch is imported inside the commands, so that `ganlab --help` answers at once. A user's mistake is one line a problem
on stderr and exit code 2; see `ganlab.errors` for the others.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from ganlab import __version__
from ganlab.completion import components, components_and_kinds, kinds, offered
from ganlab.completion import plugins as plugin_names
from ganlab.errors import GanlabError, Interrupted, PluginFailed, UserError
from ganlab.streams import lasting

if TYPE_CHECKING:
    from ganlab.session import Outcome

app = App(
    name="ganlab",
    help="Train GANs from experiment files; everything that trains is a plugin.",
    version=__version__,
    default_parameter=Parameter(negative=(), consume_multiple=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

app.register_install_completion_command(
    help="Let bash, zsh or fish complete commands, options and the names of plugins."
)

Set = Annotated[list[str] | None, Parameter(name="--set", help="KEY=VALUE, any TOML value; can be repeated.")]
Device = Literal["auto", "cpu", "cuda"]
Blocked = Annotated[list[str] | None, offered(plugin_names)]
Metrics = Annotated[list[str] | None, offered(components("metric"))]


def main() -> None:
    """The entry point of the `ganlab` command."""
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    stderr = Console(stderr=True)
    warnings.showwarning = lambda message, *_: stderr.print(f"warning: {message}", markup=False, soft_wrap=True)
    help_to = Console()
    boxed = help_to.is_terminal and help_to.width >= 50
    app.help_formatter = "default" if boxed else "plain"
    if not help_to.is_terminal:
        help_to.width = 10_000  # each line whole, for grep
    try:
        result = app(arguments, console=help_to, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        error.console = stderr
        stderr.print(" ".join(str(error).split()), markup=False, highlight=False, soft_wrap=True)
        return 2
    except GanlabError as error:
        if isinstance(error, PluginFailed):
            stderr.print(error.trace, markup=False, highlight=False, soft_wrap=True, end="")
        for line in str(error).splitlines():
            stderr.print(line, markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except SystemExit as error:
        # No part of a command ends it so: a plugin must not make a caller believe that all was done.
        last = traceback.extract_tb(error.__traceback__)[-1]
        stderr.print(
            f"ended by SystemExit: {error} ({last.filename}, line {last.lineno})", markup=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        stderr.print("ended at once; a run that has a checkpoint goes on from its latest by --resume", soft_wrap=True)
        return 130
    return result if isinstance(result, int) else 0


@app.command
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
    """Train an experiment: samples, scores and checkpoints go into a run folder.

    Parameters
    ----------
    experiment
        The experiment file, or with --resume also a run folder.
    out
        The run folder, exactly. Default: runs/NAME/TIME-seedSEED.
    resume
        Go on with an interrupted run: the one in --out, the one the file lies in, or the latest unfinished one.
    anyway
        With --resume: go on even where the result cannot be the same to the bit.
    device
        Where to train. auto is CUDA where there is one.
    plugin
        A plugin file to load; can be repeated.
    no_plugin
        A plugin not to load, by its name in `ganlab plugins`; can be repeated.
    dry_run
        Check everything, print the resolved experiment, write nothing.
    """
    from ganlab import session
    from ganlab.opening import Request
    from ganlab.view import make_view

    if anyway and not resume:
        raise UserError("--anyway: only goes with --resume")
    if resume and experiment.is_dir():
        experiment = experiment / "experiment.toml"
    request = Request(
        experiment=experiment,
        overrides=tuple(set_ or ()),
        out=out,
        resume=resume,
        anyway=anyway,
        device=device,
        plugin_files=tuple(plugin or ()),
        blocked=tuple(no_plugin or ()),
    )
    # Of the processes that torchrun starts one speaks.
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    if dry_run:
        console.print(session.dry_run(request), markup=False, highlight=False, soft_wrap=True, end="")
        return 0
    try:
        outcome = session.run(request, make_view(console))
    except Interrupted as error:
        Console(stderr=True).print(f"{error}; go on with --resume", markup=False, soft_wrap=True)
        return error.exit_code
    _print_summary(console, outcome)
    return 0


def _print_summary(console: Console, outcome: Outcome) -> None:
    from ganlab.view import duration

    console.print(
        f"\n{outcome.status} at step {outcome.step:,} in {duration(outcome.seconds)}", highlight=False, soft_wrap=True
    )
    for name, entry in outcome.metrics.items():
        best = entry.get("best")
        note = f"   best {float(best['value']):.4g} at step {best['step']:,}" if best else ""
        if floor := entry.get("floor"):
            note += f"   floor {float(floor['value']):.4g} ({floor['count']:,} {floor['split']} images)"
        line = f"{name}: final {float(entry['final']['value']):.4g}{note}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"run folder: {outcome.path}", markup=False, highlight=False, soft_wrap=True)


@app.command
def sweep(
    file: Path,
    /,
    *,
    out: Path | None = None,
    jobs: int = 1,
    launcher: Annotated[str | None, offered(components("launcher"))] = None,
    set_: Set = None,
) -> int:
    """Run every variant of a sweep file with every seed; skips the finished, resumes the rest.

    Parameters
    ----------
    file
        The sweep file: base, seeds, a table [variants.NAME] for each variant, and perhaps a table [launcher].
    out
        The folder of the sweep. Default: runs/NAME.
    jobs
        Runs at a time.
    launcher
        Where they run: a launcher of `ganlab plugins launcher`. Default: the sweep file's, else local.
    """
    from ganlab.interrupts import terminable
    from ganlab.sweeps import launch, load_sweep

    if jobs < 1:
        raise UserError(f"--jobs {jobs}: expected at least 1")
    loaded = load_sweep(file, set_ or (), launcher)
    folder = out or Path("runs") / loaded.name
    skipped = sum(run.finished(folder) for run in loaded.planned)
    total, done, failed = len(loaded.planned), skipped, 0
    print(f"{total} runs in {folder}" + (f", {skipped} finished already" if skipped else ""), flush=True)
    try:
        with terminable():
            for run, code in launch(loaded, folder, jobs):
                done, failed = done + 1, failed + (code != 0)
                how = "finished" if code == 0 else f"exit code {code} ({run.last_words(folder)})"
                print(f"{done}/{total}  {run.variant} seed {run.seed}: {how}", flush=True)
    except KeyboardInterrupt:
        raise Interrupted("the sweep was stopped; start it again to go on") from None
    print(f"compare them by: ganlab compare {folder}")
    return 1 if failed else 0


@app.command
def compare(
    *paths: Path,
    metric: Annotated[str | None, offered(components("metric"))] = None,
    baseline: str | None = None,
    split: bool = False,
    html: Path | None = None,
    csv: Path | None = None,
    json: bool = False,
) -> int:
    """Compare variants over seeds: one table, best first, or a refusal where the values do not compare.

    Parameters
    ----------
    paths
        Sweep folders, run folders, folders of them, or files of `ganlab score --json`.
    metric
        Which value. Default: the first that the runs recorded.
    baseline
        The variant that differences are taken to. Default: the first.
    split
        Values of different protocols: a table for each, instead of a refusal.
    html
        Also write one self-contained page: table, curves, samples, what differs.
    csv
        Also write the rows to this file.
    json
        Print JSON instead of a table.
    """
    import json as json_

    from ganlab import reporting
    from ganlab.compare import collect, tables
    from ganlab.files import write_whole
    from ganlab.runfolder import to_json

    if not paths:
        raise UserError("compare: name at least one run or sweep folder")
    entries = collect(paths)
    made = tables(entries, metric, baseline, split)
    if html is not None:
        from ganlab.pages import compare_page, write_page

        write_page(html, compare_page(made, entries))
    if csv is not None:
        write_whole(csv, reporting.as_csv(made))
    if json:
        print(json_.dumps(to_json(reporting.as_records(made)), indent=2))
    else:
        reporting.print_tables(made, Console())
    return 0


@app.command(name="eval")
def evaluate(
    run: Path,
    /,
    *,
    metric: Metrics = None,
    step: int | None = None,
    set_: Set = None,
    device: Device = "auto",
) -> int:
    """Score a saved checkpoint again; the records are added to the run's metrics.jsonl.

    Parameters
    ----------
    run
        The run folder.
    metric
        Only these metrics of the experiment, or others by name; can be repeated. Default: all of the experiment's.
    step
        Which checkpoint. Default: the latest.
    device
        Where to compute.
    """
    from ganlab.scoring import rescore

    for record in rescore(run, metric or [], step, set_ or [], device):
        print(f"step {record['step']:,}  {_score(record)}  {record['protocol']['weights']} weights")
    return 0


@app.command
def score(
    images: Path,
    /,
    *,
    against: Annotated[str, offered(components("dataset"))],
    metric: Metrics = None,
    features: Annotated[str | None, offered(components("features"))] = None,
    set_: Set = None,
    device: Device = "auto",
    plugin: list[Path] | None = None,
    floor: Annotated[bool, Parameter(negative="--no-floor")] = True,
    json: bool = False,
) -> int:
    """Score images that any tool made, under the protocol of a run's scores.

    Parameters
    ----------
    images
        A folder of images, all of one size, or an .npz file with an array `images`, uint8 (N, H, W, C).
    against
        A data set of `ganlab plugins dataset`, or a folder of real images.
    metric
        A metric by name; can be repeated. Default: fid. All the images are scored.
    features
        The network whose features are compared. Default: the metric's own, inception.
    set_
        KEY=VALUE: features.weights=FILE, dataset.size=64, metric.0.split=test; can be repeated.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    floor
        Also score real images of the other split, once, where there is one.
    json
        Print the records as JSON; `ganlab compare` reads such a file beside run folders.
    """
    import json as json_

    from ganlab.runfolder import to_json
    from ganlab.scoring import score_images

    records = score_images(images, against, metric or [], features, set_ or [], device, plugin or [], floor)
    if json and records:  # of several processes one has them
        print(json_.dumps(to_json(records), indent=2))
    for record in records if not json else ():
        print(f"{_score(record)}  {record['protocol'].get('generated', record['images']['count']):,} images")
    return 0


def _score(record: Mapping[str, Any]) -> str:
    """A record's value with its features and its floor."""
    features = record["protocol"].get("features", {})
    note = f" ({features['name']} features)" if isinstance(features, dict) and "name" in features else ""
    floor = f", floor {record['floor']['value']:.4g}" if "floor" in record else ""
    return f"{record['name']} {record['value']:.6g}{note}{floor}"


@app.command
def sample(
    run: Path,
    /,
    *,
    count: int = 64,
    seed: int = 0,
    step: int | None = None,
    interpolate: bool = False,
    out: Path = Path("samples.png"),
    device: Device = "auto",
) -> int:
    """Draw images from a run's generator.

    Parameters
    ----------
    run
        The run folder.
    count
        How many images.
    seed
        Equal seeds give equal images.
    step
        Which checkpoint. Default: the latest.
    interpolate
        Rows that walk from one latent to another, instead of independent images.
    out
        FILE.png is a grid; FILE.npz an array `images`, uint8 NHWC; anything else a folder with a PNG an image.
    device
        Where to compute.
    """
    from ganlab.runs import load_run
    from ganlab.sampling import write_samples

    if count < 1:
        raise UserError(f"--count {count}: expected at least 1")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected at least 0")
    loaded = load_run(run, step, device)
    write_samples(loaded, count, seed, out, interpolate)
    print(f"{count} images from {loaded.weights} weights at step {loaded.step:,}: {out}")
    return 0


@app.command
def report(run: Path, /, *, html: Path = Path("report.html")) -> int:
    """Write one self-contained page about a run: scores, losses, samples over time, the experiment.

    Parameters
    ----------
    run
        The run folder.
    html
        The file to write.
    """
    from ganlab.pages import report_page, write_page

    write_page(html, report_page(run))
    print(html)
    return 0


@app.command
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
    """Time the step against plain loops of the same arithmetic, in turns: a tutorial's, and one by hand at its best.

    Parameters
    ----------
    experiment
        The experiment file.
    seconds
        How long the contest lasts, which is five rounds at least; what each plugin in the step costs takes half as
        long.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    json
        Print JSON instead of a table.
    """
    import json as json_

    from ganlab.bench import bench as measured
    from ganlab.reporting import print_bench
    from ganlab.view import make_view

    if not 0 < seconds < math.inf:
        raise UserError(f"--seconds {seconds}: expected more than 0")
    with make_view(Console(stderr=True)) as view:
        result = measured(experiment, tuple(set_ or ()), device, seconds, tuple(plugin or ()), view.progress)
    if json:
        print(json_.dumps(result, indent=2))
    else:
        print_bench(result, Console())
    return 0


@app.command
def plugins(
    name: Annotated[str | None, offered(components_and_kinds)] = None,
    /,
    *,
    json: bool = False,
    plugin: list[Path] | None = None,
    no_plugin: Blocked = None,
) -> int:
    """List every component by kind, its options with types and defaults, and where it came from.

    Parameters
    ----------
    name
        Only components of this name, or of this kind.
    json
        As JSON.
    plugin
        A plugin file to load; can be repeated.
    no_plugin
        A plugin not to load; can be repeated.
    """
    from ganlab.listing import list_plugins
    from ganlab.plugins import load_plugins

    loaded = load_plugins(plugin or (), no_plugin or ())
    if loaded.problems:
        raise UserError(*loaded.problems)
    list_plugins(loaded, name, json, Console(), Console(stderr=True))
    return 0


@app.command
def check(file: Path, /, *, set_: Set = None, json: bool = False) -> int:
    """Check a plugin file: every component against what its kind must do. Exit code 1 where there is a fault.

    Parameters
    ----------
    file
        The plugin file, bundled ones too.
    set_
        NAME.OPTION=VALUE: an option of the component of that name; can be repeated. Default: its own defaults.
    json
        Print JSON instead.
    """
    from ganlab.testing.command import check_file

    return check_file(file, set_ or (), json, Console(), Console(stderr=True))


@app.command
def new(kind: Annotated[str, offered(kinds)], name: str, /, *, out: Path | None = None) -> int:
    """Write a plugin file that works, and its test, to edit.

    Parameters
    ----------
    kind
        What it is: loss, penalty, generator, … (the kinds of `ganlab plugins`).
    name
        What experiments call it: letters, digits and '_'.
    out
        The file. Default: NAME.py. Its test is written beside it, as test_NAME.py.
    """
    from ganlab.new import write_plugin

    for path in write_plugin(kind, name, out or Path(f"{name}.py")):
        print(path)
    return 0
