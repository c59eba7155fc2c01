"""Files of latents, such as `ganlab project` writes: what images are made of, for `ganlab sample` and its walks.

An .npz or .safetensors file has `latents` (N, …), of what the run's sampler takes, and what they are for, where the
networks use that: `labels` int64 (N,), else `condition` in the type of the data set, or `condition.NAME` of several.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from attrs import frozen
from safetensors import SafetensorError
from torch import Tensor

from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.npz import NO_ARRAYS
from ganlab.data.pixels import as_input
from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.protocols import ImageSpec, map_condition, named_conditions
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import UserError, one_line, quote
from ganlab.utils.files import write_whole

ENDINGS = (".npz", ".safetensors")
"""The endings of files of latents."""


class SampledRun(Protocol):
    """What latents need of a run that `ganlab.load_run` read."""

    @property
    def path(self) -> Path: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def sampler(self) -> NetworkSampler: ...
    @property
    def conditions(self) -> ConditionSampler: ...
    @property
    def sampled(self) -> ImageSpec: ...
    def check_samples(self, truncation: float | None = None) -> None: ...


@frozen(eq=False)
class GivenLatents:
    """Latents (N, …) that samples are made of, and their conditions as networks are given them; None for none known.

    `source` is the file, for messages and for the record of a folder of samples.
    """

    z: Tensor
    condition: Condition = None
    source: str = "latents"

    def __len__(self) -> int:
        return len(self.z)

    def check_seed(self, run: SampledRun, label: int | str | None, seeds: Sequence[int] | None) -> None:
        """Raises UserError for seeds of these latents' conditions where none are drawn; None for no seeds."""
        known = run.conditions.known
        draws_any = label is None and self.condition is None and known is not None
        draws_others = label is not None and isinstance(known, Mapping)  # than the class
        if seeds is not None and not draws_any and not draws_others:
            raise UserError(f"--seed {' '.join(map(str, seeds))}: has no effect with --latents, as nothing is drawn")

    def conditions_for(self, run: SampledRun, label: int | str | None, seed: int) -> Condition:
        """The conditions of these latents: of the class `label`; else their own; else drawn, as samples' are."""
        own = run.conditions if label is None else run.conditions.of_class(label)
        if label is None and self.condition is not None:
            return self.condition
        drawn: Condition = own.drawn(len(self), torch.Generator().manual_seed(seed))
        return drawn


def check_latents(run: SampledRun, so: str) -> None:
    """Raises UserError where what a run samples has no latents, and `so` nothing can be done with them."""
    if not draw_latents(run.sampler, 1, torch.Generator().manual_seed(0))[0].numel():
        raise UserError(f"{run.path}: what is sampled has no latents, so {so}")


def latents_for(run: SampledRun, z: Tensor, condition: Condition = None, source: str = "latents") -> GivenLatents:
    """Checks latents (N, …) against what a run's sampler takes. Raises UserError where they do not fit.

    `condition` is in the type of the data set; it is left out where the run's networks know no conditions.
    """
    wanted = tuple(draw_latents(run.sampler, 1, torch.Generator().manual_seed(0)).shape[1:])
    if not torch.Size(wanted).numel():
        raise UserError(f"{source}: the sampler of this run takes no latents")
    if not isinstance(z, Tensor) or not z.is_floating_point() or tuple(z.shape[1:]) != wanted:
        got = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise UserError(f"{source}: latents are {got}; the run's are floats (N, {', '.join(map(str, wanted))})")
    if not len(z):
        raise UserError(f"{source}: holds no latents")
    if not z.isfinite().all():
        raise UserError(f"{source}: latents are not finite")
    known = run.conditions.known
    if known is None or condition is None:
        return GivenLatents(z.float().cpu(), None, source)
    shapes = {name: (part.dtype, part.shape[1:]) for name, part in named_conditions(known).items()}
    for name, part in named_conditions(condition).items():
        if len(part) != len(z) or (part.dtype, part.shape[1:]) != shapes.get(name):
            kinds = ", ".join(f"{of} {str(kind)[6:]} (N, …)" for of, (kind, _) in shapes.items())
            raise UserError(f"{source}: {name} is {part.dtype} {tuple(part.shape)}; the run's conditions are: {kinds}")
    classes = len(run.conditions.counts)
    for part in named_conditions(condition).values():
        if part.ndim == 1 and not 0 <= int(part.min()) <= int(part.max()) < classes:
            raise UserError(f"{source}: labels are {int(part.min())} to {int(part.max())}; expected below {classes}")
    return GivenLatents(z.float().cpu(), map_condition(as_input, condition), source)


def read_latents(run: SampledRun, path: Path) -> GivenLatents:
    """Reads latents for a run from a file. Raises UserError for what is none, or does not fit the run."""
    if path.suffix not in ENDINGS:
        raise UserError(f"--latents {path}: expected FILE.npz or FILE.safetensors")
    try:
        arrays = _npz(path) if path.suffix == ".npz" else safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise UserError(f"--latents {path}: {error.strerror or one_line(error)}") from None
    except (*NO_ARRAYS, SafetensorError) as error:
        raise UserError(f"--latents {path}: cannot be read as {path.suffix[1:]} ({one_line(error, 120)})") from None
    if "latents" not in arrays:
        names = ", ".join(arrays) or "nothing"
        raise UserError(f"--latents {path}: has no array 'latents'; it has: {quote(names)}")
    several = {name.removeprefix("condition."): part for name, part in arrays.items() if name.startswith("condition.")}
    condition = several or arrays.get("labels", arrays.get("condition"))
    return latents_for(run, arrays["latents"], condition, f"--latents {path}")


def write_latents(path: Path, z: Tensor, condition: Condition, **more: Tensor) -> None:
    """Writes latents, their conditions in the type of the data set, and other tensors with a row for each."""
    named = named_conditions(condition)
    if isinstance(condition, Tensor) and condition.ndim == 1:
        named = {"labels": condition}
    arrays = {name: part.detach().cpu().contiguous() for name, part in {"latents": z, **named, **more}.items()}
    if path.suffix == ".safetensors":
        write_whole(path, safetensors.torch.save(arrays))
        return
    stream = io.BytesIO()
    contents: Mapping[str, Any] = {name: part.numpy() for name, part in arrays.items()}
    np.savez(stream, **contents)
    write_whole(path, stream.getvalue())


def _npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a file of latents that torch has a type for."""
    with np.load(path, allow_pickle=False) as arrays:
        if isinstance(arrays, np.ndarray):
            raise ValueError("it is one array; write the file with numpy.savez(FILE, latents=…)")
        return {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fiu"}
