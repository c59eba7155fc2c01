"""The command that finds the latents of images: `ganlab project`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ganlab.cli.arguments import Device, FeaturesName, Set
from ganlab.utils.errors import printable


def project(
    run: Path,
    /,
    *pictures: Annotated[Path, Parameter(name="IMAGE")],
    out: Path = Path("projected"),
    updates: int = 500,
    starts: int = 256,
    lr: float = 0.1,
    seed: int = 0,
    label: str | None = None,
    features: FeaturesName = None,
    set_: Set = None,
    feature_weight: float = 1.0,
    range_: Annotated[tuple[float, float] | None, Parameter(name="--range")] = None,
    frame_step: int = 1,
    one_style: Annotated[bool, Parameter(negative=())] = False,
    latents: Literal["npz", "safetensors"] = "npz",
    film: Literal["webp", "mp4", "gif", "none"] = "webp",
    step: int | None = None,
    sampler: str = "",
    option: list[str] | None = None,
    device: Device = "auto",
    plugin: list[Path] | None = None,
) -> int:
    """Find the latents of which a run's generator makes given images, or the nearest that it can.

    Parameters
    ----------
    run
        The run folder.
    pictures
        Pictures, or folders of pictures; resized and cropped to what the run samples. Also .npy, DICOM and video files.
    out
        A new folder: what the latents make of each picture, pairs.png beside the pictures, latents for ganlab sample,
        a film of the optimisation, and projection.json.
    updates
        Updates of Adam.
    starts
        It begins at the best of so many random latents.
    lr
        The learning rate, in standard deviations of the latents.
    seed
        Of the random latents.
    label
        The class of the images, by name or number. Default: that of the best random latents.
    features
        Also compare features, such as those of the run's own classifier. Default: pixels alone.
    set_
        KEY=VALUE, an option of the features: features.weights=FILE; can be repeated.
    feature_weight
        How much features count, beside pixels.
    range_
        The values in the files that are black and white, as all below and above become. Default: those of the run's
        data set.
    frame_step
        Of a video, or a DICOM file with several images, every frame, every second with 2, and so on.
    one_style
        Latents that are styles are the same in all layers (W), instead of free in each (W+).
    latents
        The form of the file of latents.
    film
        The form of the film of the optimisation.
    step
        Which checkpoint. Default: the latest.
    sampler
        A further sampler of the run's game. Default: the main one.
    option
        NAME=VALUE, an option of the sampler; can be repeated.
    device
        Where to compute.
    plugin
        A plugin file to load; can be repeated.
    """
    from ganlab.config.overrides import parse_options
    from ganlab.run.images_to_project import FileOptions
    from ganlab.run.load_run import NEEDED_TO_SAMPLE, load_run_for
    from ganlab.run.project import ProjectionOptions, check_projectable
    from ganlab.run.project_files import ProjectedFiles, project_files

    options, reading = parse_options(option or []), FileOptions.of(range_, frame_step)
    needed = NEEDED_TO_SAMPLE if features is None else (*NEEDED_TO_SAMPLE, "dataset")
    check = None if sampler else check_projectable
    loaded = load_run_for(needed, run, step, device, (), plugin or [], check=check)
    if sampler or options:
        loaded = loaded.with_sampler(sampler, options)
    wanted = ProjectionOptions(updates, starts, lr, seed, label, None, feature_weight, one_style)
    forms = ProjectedFiles(latents, film)
    lines = project_files(loaded, pictures, out, wanted, forms, features, set_ or [], reading)
    for line in lines:
        print(printable(line))
    images = f"{len(lines):,} image{'' if len(lines) == 1 else 's'}"
    print(printable(f"{images} projected by {loaded.weights} weights at step {loaded.step:,}: {out}"))
    return 0
