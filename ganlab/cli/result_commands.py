"""The commands on finished runs: `ganlab compare`, `eval`, `score`, `sample`, `translate` and `report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ganlab.cli.arguments import DatasetName, Device, Direction, FeaturesName, MetricName, MetricNames, SamplerName, Set
from ganlab.utils.errors import UserError, quote


def compare(
    *paths: Path,
    metric: MetricName = None,
    baseline: str | None = None,
    split: bool = False,
    html: Path | None = None,
    csv: Path | None = None,
    json: bool = False,
) -> int:
    """Compare results: variants over seeds in one table, best first; an error where the values are not comparable.

    Parameters
    ----------
    paths
        Sweep folders, run folders, folders of them, or files of `ganlab score --json` and `ganlab eval --out`.
    metric
        The metric to compare. Default: the first that the runs recorded.
    baseline
        The variant that the others are compared with. Default: the first.
    split
        Print a table for each score protocol, instead of an error where protocols differ.
    html
        Also write one self-contained page: table, curves, samples, differing options.
    csv
        Also write the rows to this file.
    json
        Print JSON instead of a table.
    """
    import json as json_

    from ganlab.report import table_output
    from ganlab.report.collect_runs import collect_runs
    from ganlab.report.compare import comparison_tables
    from ganlab.run.records import to_json
    from ganlab.utils.files import write_whole

    if not paths:
        raise UserError("compare: name at least one run or sweep folder")
    entries = collect_runs(paths)
    made = comparison_tables(entries, metric, baseline, split)
    if html is not None:
        from ganlab.report.html import compare_page, write_page

        write_page(html, compare_page(made, entries))
    if csv is not None:
        write_whole(csv, table_output.tables_as_csv(made))
    if json:
        print(json_.dumps(to_json(table_output.tables_as_json(made)), indent=2))
    else:
        table_output.print_tables(made, Console())
    return 0


def evaluate(
    run: Path,
    /,
    *,
    metric: MetricNames = None,
    step: int | None = None,
    truncation: float | None = None,
    option: list[str] | None = None,
    per_class: Annotated[bool, Parameter(negative=())] = False,
    set_: Set = None,
    device: Device = "auto",
    out: Path | None = None,
    plugin: list[Path] | None = None,
) -> int:
    """Score a saved checkpoint again; add the results to the run's metrics.jsonl.

    Parameters
    ----------
    run
        The run folder.
    metric
        A metric of the experiment, or another by name; can be repeated. Default: all of the experiment's.
    set_
        KEY=VALUE; can be repeated. metric.0 is the first metric that --metric names: metric.0.features=classifier.
    step
        Which checkpoint. Default: the latest.
    truncation
        Draw latents from a normal truncated at this distance from 0; recorded in the score's protocol.
    option
        NAME=VALUE, an option of the game's sampler; can be repeated. Recorded in the score's protocol.
    per_class
        Score each class separately, and the mean over classes; for class-conditional runs.
    device
        Where to compute.
    out
        Write the results to this file, as JSON, and not to the run: for a run that still trains or that is read-only.
    plugin
        A plugin file to load; can be repeated.
    """
    from ganlab.config.overrides import parse_options
    from ganlab.run.rescore import rescore

    options, plugins = parse_options(option or []), plugin or []
    for record in rescore(run, metric or [], step, set_ or [], device, truncation, per_class, out, plugins, options):
        print(f"step {record['step']:,}  {_score(record)}  {record['protocol']['weights']} weights")
    return 0


def score(
    images: Path,
    /,
    *,
    against: DatasetName,
    metric: MetricNames = None,
    features: FeaturesName = None,
    set_: Set = None,
    device: Device = "auto",
    plugin: list[Path] | None = None,
    floor: Annotated[bool, Parameter(negative="--no-floor")] = True,
    json: bool = False,
) -> int:
    """Score images from any source, under the protocol of a run's scores.

    Parameters
    ----------
    images
        A folder of images, all of one size, or an .npz file with an array `images`, uint8 (N, H, W, C) or (N, C, H, W).
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

    from ganlab.evaluation.score_images import score_images
    from ganlab.run.records import to_json

    records = score_images(images, against, metric or [], features, set_ or [], device, plugin or [], floor)
    if json and records:  # of several processes one has them
        print(json_.dumps(to_json(records), indent=2))
    for record in records if not json else ():
        print(f"{_score(record)}  {record['protocol'].get('generated', record['images']['count']):,} images")
    return 0


def _score(record: Mapping[str, Any]) -> str:
    """A score's value, features, floor, and the name of its class."""
    protocol = record["protocol"]
    features = protocol.get("features", {})
    note = f" ({features['name']} features)" if isinstance(features, dict) and "name" in features else ""
    floor = f", floor {record['floor']['value']:.4g}" if "floor" in record else ""
    named = f" of {quote(protocol['class_name'])}" if "class_name" in protocol else ""
    return f"{record['name']} {record['value']:.6g}{named}{note}{floor}"


def sample(
    run: Path,
    /,
    *,
    count: int | None = None,
    seed: list[int] | None = None,
    step: int | None = None,
    label: list[str] | None = None,
    truncation: float | None = None,
    sampler: SamplerName = "",
    option: list[str] | None = None,
    latents: Path | None = None,
    interpolate: bool = False,
    mix: str | None = None,
    walk: bool = False,
    frames: int | None = None,
    fps: float | None = None,
    loop: Annotated[bool, Parameter(negative="--no-loop")] = True,
    by_class: bool = False,
    out: Path | None = None,
    device: Device = "auto",
    plugin: list[Path] | None = None,
) -> int:
    """Draw images from a run's generator, or a film of a walk through its latents.

    Parameters
    ----------
    run
        The run folder.
    count
        How many images. Default: 64; of a walk 8, which it passes.
    seed
        Equal seeds give equal images. Default: 0. Repeated, a walk passes the first image of each.
    step
        Which checkpoint. Default: the latest.
    label
        Draw only images of this class, by name or number; for class-conditional runs. Repeated, a walk passes each.
    truncation
        Draw latents from a normal truncated at this distance from 0; a smaller one gives less diverse images.
    sampler
        A further sampler of the run's game, such as that of the other direction. Default: the main one.
    option
        NAME=VALUE, an option of the sampler; can be repeated.
    latents
        FILE.npz or FILE.safetensors, as ganlab project writes it: the images of its latents.
    interpolate
        Interpolate from one latent to another in each row, instead of independent images.
    mix
        Layers such as 2-3 or 0,2-3: a grid of images with the styles of the columns' samples in these layers, and of
        the rows' in the others; --count of each, by default 6. For games whose latents are styles.
    walk
        Write a film that changes smoothly from one image to the next.
    frames
        The number of frames of a walk. Default: 60 from one image to the next.
    fps
        Frames a second of a walk. Default: 30.
    loop
        The walk ends where it begins.
    by_class
        In a folder of images, make a folder for each class.
    out
        FILE.png is a grid, of pairs where images are translated; FILE.npz an array `images`, uint8 NHWC or the data's
        own type and shape; FILE.csv the rows of a table; anything else a folder with one PNG per image. An interrupted
        command that writes a folder goes on when it is called again. Of a walk FILE.mp4, FILE.webp, FILE.gif or a
        folder. Default: samples.png; of a walk walk.webp.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    """
    from ganlab.config.overrides import parse_options
    from ganlab.evaluation.sampling import check_sampling
    from ganlab.run.latents_file import read_latents
    from ganlab.run.load_run import NEEDED_TO_SAMPLE, load_run_for
    from ganlab.run.mix import mix as mixed
    from ganlab.run.mix import write_mix
    from ganlab.run.sample_images import SampleRequest, write_samples
    from ganlab.run.walk import WalkRequest, check_walkable, write_walk

    seeds, labels = seed or [0], label or []
    if walk and (interpolate or by_class or mix is not None):
        raise UserError("--walk: goes without --interpolate, --mix and --by-class")
    if mix is not None and (interpolate or by_class or latents is not None):
        raise UserError("--mix: goes without --interpolate, --latents and --by-class")
    for given, name in () if walk else ((frames, "--frames"), (fps, "--fps"), (not loop or None, "--no-loop")):
        if given is not None:
            raise UserError(f"{name}: is for a film; add --walk")
    for name, several in () if walk else (("--seed", seeds), ("--label", labels)):
        if len(several) > 1:
            raise UserError(f"{name}: can be repeated for a walk only; add --walk")
    if latents is not None and count is not None:
        raise UserError(f"--count {count}: goes without --latents, all of which are drawn")
    check_sampling(1 if count is None else count, seeds[0], truncation)
    options = parse_options(option or [])
    check = check_walkable if walk and not sampler else None
    loaded = load_run_for(NEEDED_TO_SAMPLE, run, step, device, (), plugin or [], check=check)
    if sampler or options:
        loaded = loaded.with_sampler(sampler, options)
    found = None if latents is None else read_latents(loaded, latents)
    if found is not None:
        found.check_seed(loaded, next(iter(labels), None), seed)
    if walk:
        out = out or Path("walk.webp")
        wanted = WalkRequest(frames, fps, loop, seed, labels, count, truncation, found)
        print(f"{write_walk(loaded, wanted, out)}, from {loaded.weights} weights at step {loaded.step:,}")
        return 0
    out = out or Path("samples.png")
    if mix is not None:
        written = write_mix(loaded, mixed(loaded, mix, count, seeds[0], next(iter(labels), None), truncation), out)
        print(f"{written} from {loaded.weights} weights at step {loaded.step:,}: {out}")
        return 0
    count = len(found) if found else 64 if count is None else count
    request = SampleRequest(count, seeds[0], interpolate, next(iter(labels), None), truncation, by_class, found)
    written = write_samples(loaded, request, out)
    print(f"{written} from {loaded.weights} weights at step {loaded.step:,}: {out}")
    return 0


def translate(
    run: Path,
    given: Annotated[Path, Parameter(name="INPUT")],
    /,
    *,
    out: Path,
    to: Direction = "",
    option: list[str] | None = None,
    seed: int | None = None,
    step: int | None = None,
    device: Device = "auto",
    plugin: list[Path] | None = None,
) -> int:
    """Translate images of your own through a run: a picture, a folder of pictures, or an .npz file.

    Parameters
    ----------
    run
        The run folder, of a game that is given images, such as pix2pix or cyclegan.
    given
        A picture, of any size that the networks take; a folder of pictures and of folders of them; or an .npz file with
        an array `images`. It is taken as it is: for super-resolution, the small picture.
    out
        Of a picture FILE.png or a folder, of a folder a new folder with the same names, of an .npz file FILE.npz.
    to
        The direction: `a` for the sampler `b_to_a`. Default: the main one.
    option
        NAME=VALUE, an option of the sampler; can be repeated.
    seed
        Of latents, for networks that have them. Default: 0.
    step
        Which checkpoint. Default: the latest.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    """
    from ganlab.config.overrides import parse_options
    from ganlab.run.load_run import NEEDED_TO_SAMPLE, load_run_for
    from ganlab.run.translate import translator
    from ganlab.run.translate_files import translate_files

    options = parse_options(option or [])
    loaded = load_run_for(NEEDED_TO_SAMPLE, run, step, device, (), plugin or [], has_conditions=False)
    written = translate_files(translator(loaded, to, options, seed), given, out)
    print(f"{written} from {loaded.weights} weights at step {loaded.step:,}: {out}")
    return 0


def report(run: Path, /, *, html: Path = Path("report.html")) -> int:
    """Write one self-contained page about a run: scores, losses, samples over time, the experiment.

    Parameters
    ----------
    run
        The run folder.
    html
        The file to write.
    """
    from ganlab.report.html import report_page, write_page

    write_page(html, report_page(run))
    print(html)
    return 0
