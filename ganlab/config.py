"""The experiment file: what it may say, reading it with `--set` overrides, and writing the resolved one.

Decisions:
- `Experiment` is the schema: its fields, and those of the components' classes, are all the keys there are.
- A file is refused as a whole, with one line a problem, before anything is built.
- The resolved file holds every option with its value, so it repeats a run even after a default has changed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, matches_re, optional

from ganlab.errors import UserError, one_line, shown, shown_key
from ganlab.options import DEFAULT, Interval, component, components
from ganlab.plugins import Plugins, load_plugins
from ganlab.protocols import (
    Augmentation,
    DatasetConfig,
    Loss,
    LossWrapper,
    Metric,
    NetworkConfig,
    OptimizerConfig,
    Penalty,
    Schedule,
    TrackerConfig,
)
from ganlab.structure import MOST_VALUES, Problem, Problems, Structurer

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
LONGEST_PATH = 500  # characters of a path, a key or a setting that an error repeats

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a run, a sweep and a variant may be called: each becomes a folder, which must lie where it should."""


@frozen
class Train:
    """The `[train]` table. One step is one update of the generator.

    steps, epochs: how long; exactly one of them.
    batch_size: images in a batch; incomplete batches are dropped.
    discriminator_steps: updates of the discriminator before each of the generator, each on a batch of its own.
    discriminator_every: the discriminator is updated in every k-th step only, from the first on, so that the generator
        has k updates for each of its own. One of this and `discriminator_steps` is 1.
    stop_discriminator_under, stop_generator_under: an update of that player whose loss, without penalties, is under
        this bound changes neither weights nor the optimiser's state. Batch norm's statistics move all the same.
    accumulate: an update's batch passes in so many equal parts, which needs the memory of one. Gradients are added up
        and divided by the number, and `batch_size` stays that of the update. What couples images of a batch, such as
        batch norm or a relativistic average, sees a part.
    clip_norm: the most that the norm of a player's gradient, penalties and all, may be; a larger one is scaled down.
    fresh_noise: draw new latents for the generator's update. `false` reuses the discriminator's last fake images: one
        pass through the generator less.
    precision: "float32"; "tf32" (matrix products of float32 on CUDA); "bfloat16" (autocast).
    capture: on CUDA, capture each kind of step once as a graph and replay it. `false` for eager steps, as a debugger
        wants them; a plugin that cannot be captured makes them eager too.
    deterministic: repeat to the bit on CUDA too, which is slower; on the CPU runs do so anyway. An operation that torch
        has no deterministic implementation of ends the run.
    ema: decay a step of the running average of the generator's weights, which is then what is sampled and scored;
        0 for none.
    ema_half_life: the same as a half-life: so many images that the discriminator sees halve what is left of old weights
        in the average, whatever the batch size; 0 for none.
    ema_warmup: with ema_half_life, the half-life is at most this share of the images seen before, so that the first
        weights are soon forgotten (0.05 in StyleGAN2); 0 for none.
    log_every: how often the means since the last time are written to `log.jsonl`, and NaN is looked for; at least 1.
    sample_every, checkpoint_every: how often samples are drawn and a checkpoint is saved; 0 for never (but the end is
        sampled and saved all the same).
    sample_count: images in a sample grid.
    checkpoint_keep: how many of the latest checkpoints are kept, besides the best by each metric: at least 2, since one
        alone could be damaged; 0 for all.
    resident_gb: how much memory the training images may take, in 10^9 bytes of the device's. Where they need more,
        batches are read from the disk ahead of the step: the results are the same to the bit. 0 always reads.
    """

    steps: int | None = field(default=None, validator=optional([ge(1), le(10**12)]))
    epochs: int | None = field(default=None, validator=optional([ge(1), le(10**9)]))
    batch_size: int = field(default=64, validator=[ge(1), le(2**24)])
    discriminator_steps: int = field(default=1, validator=[ge(1), le(1000)])
    discriminator_every: int = field(default=1, validator=[ge(1), le(1000)])
    stop_discriminator_under: float | None = field(default=None, validator=optional([ge(-1e12), le(1e12)]))
    stop_generator_under: float | None = field(default=None, validator=optional([ge(-1e12), le(1e12)]))
    accumulate: int = field(default=1, validator=[ge(1), le(2**24)])
    clip_norm: float | None = field(default=None, validator=optional([gt(0), le(10**12)]))
    fresh_noise: bool = True
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    capture: bool = True
    deterministic: bool = False
    ema: float = field(default=0.0, validator=[ge(0), lt(1)])
    ema_half_life: float = field(default=0.0, validator=[ge(0), le(1e15)])
    ema_warmup: float = field(default=0.0, validator=[ge(0), le(1)])
    log_every: Interval = Interval(50)
    sample_every: Interval = Interval(1000)
    checkpoint_every: Interval = Interval(1000)
    sample_count: int = field(default=64, validator=[gt(0), le(10_000)])
    checkpoint_keep: int = field(default=3, validator=[ge(0), le(10**9)])
    resident_gb: float | None = field(
        default=None, validator=optional(ge(0)), metadata={DEFAULT: "half of what is free"}
    )

    def __attrs_post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of 'steps' and 'epochs'" + (", not both" if self.steps is not None else ""))
        if self.discriminator_steps > 1 and self.discriminator_every > 1:
            raise ValueError(
                f"discriminator_every: {self.discriminator_every} together with discriminator_steps = "
                f"{self.discriminator_steps}; one of them must be 1"
            )
        if self.ema and self.ema_half_life:
            raise ValueError("ema_half_life: give one of 'ema' and 'ema_half_life', not both")
        if self.ema_warmup and not self.ema_half_life:
            raise ValueError("ema_warmup: needs 'ema_half_life', which it shortens at first")
        if self.log_every.count == 0:
            raise ValueError("log_every: must be at least 1: NaN is looked for once a tick")
        if self.checkpoint_keep == 1:
            raise ValueError("checkpoint_keep: must be 0, for all, or at least 2: one alone could be damaged")


@frozen
class Experiment:
    """The whole file. A component is given by its name or by a table with `name` and the component's own options.

    name: of the run; its folder lies in one of that name. Letters, digits, ".", "_" and "-", at most 100.
    train: how long and how.
    dataset: the images.
    generator: the network that makes images.
    discriminator: the network that judges them.
    loss: what each of the two is trained towards.
    optimizer: of both networks.
    generator_optimizer, discriminator_optimizer: of one of them. Without a `name` such a table changes the common one.
    seed: of all that is random: first weights, latents, the order of images.
    plugins: local plugin files, relative to this file.
    floor: also score real images of the split that is not a metric's reference, once, to be seen beside its scores.
    loss_wrapper: each changes the loss before it, from the first of the list to the last.
    penalty: each is added to the loss of one of the networks.
    augmentation: what is done, in this order, to all images that the discriminator sees.
    schedule: each changes one option while the run goes on: a learning rate, a penalty's weight.
    metric: what scores the generator, before training, after it and `every` so often.
    tracker: where records and sample grids go besides the run folder.
    """

    name: str = field(validator=matches_re(NAME), metadata={DEFAULT: "the file's name without `.toml`"})
    train: Train
    dataset: DatasetConfig = component("dataset")
    generator: NetworkConfig = component("generator")
    discriminator: NetworkConfig = component("discriminator")
    loss: Loss = component("loss")
    optimizer: OptimizerConfig = component("optimizer", default="adam")
    generator_optimizer: OptimizerConfig | None = component("optimizer", default=None)
    discriminator_optimizer: OptimizerConfig | None = component("optimizer", default=None)
    seed: int = field(default=0, validator=[ge(0), lt(2**63)])
    plugins: tuple[str, ...] = ()
    floor: bool = True
    loss_wrapper: tuple[LossWrapper, ...] = components("loss_wrapper")
    penalty: tuple[Penalty, ...] = components("penalty")
    augmentation: tuple[Augmentation, ...] = components("augmentation")
    schedule: tuple[Schedule, ...] = components("schedule")
    metric: tuple[Metric, ...] = components("metric")
    tracker: tuple[TrackerConfig, ...] = components("tracker")


NO_RESULTS = ("tracker", "train.resident_gb")
"""Options that change no bit of a run's results, so that runs may differ in them and still be the same."""

NESTED = {f"{player}_optimizer": (player, "optimizer") for player in ("generator", "discriminator")}
"""Fields of Experiment that the file writes inside another table: `[generator.optimizer]`."""


def load_experiment(
    path: Path,
    overrides: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    blocked: Iterable[str] = (),
) -> tuple[Experiment, Plugins]:
    """Reads an experiment file, with `--set` overrides, and loads the plugins it may use.

    Raises UserError with a line for every problem there is.
    """
    table = read_toml(path)
    problems: list[str] = []
    for text in overrides:
        try:
            override(table, *parse_override(text))
        except UserError as error:
            problems += error.problems
    table.setdefault("name", path.stem)
    return resolve(table, path, problems, plugin_files, blocked)


def resolve(
    table: Mapping[str, Any],
    path: Path,
    problems: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    blocked: Iterable[str] = (),
) -> tuple[Experiment, Plugins]:
    """The experiment that a table from `path` describes; `problems` are those that were found in it before."""
    problems = list(problems)
    local = table.get("plugins", [])
    written = [file for file in local if isinstance(file, str)][:MOST_VALUES] if isinstance(local, list) else []
    plugin_files = [file.expanduser().resolve() for file in plugin_files]
    named = []
    for place, file in enumerate(written):
        try:
            found = (path.parent / Path(file).expanduser()).resolve()
            found.is_file()  # raises where a name is too long
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            problems.append(f"{path}: plugins[{place}]: {shown(file)}: {reason}")
        else:
            named.append(found)
    named += plugin_files
    plugins = load_plugins(named, blocked)
    problems += plugins.problems
    problems += [str(failure) for failure in plugins.failures if failure.origin.file in named]

    try:
        experiment = structured(table, plugins)
    except Problems as error:
        problems += [f"{path}: {problem}" for problem in error.problems]
        if any("unknown" in problem.message for problem in error.problems):
            problems += [f"{failure} (so what it registers is unknown)" for failure in plugins.failures]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return experiment, plugins


def structured(table: Mapping[str, Any], plugins: Plugins) -> Experiment:
    """The table as an Experiment; raises Problems."""
    flat = dict(table)
    for key, (player, inner) in NESTED.items():
        flat.pop(key, None)
        if isinstance(flat.get(player), Mapping) and inner in flat[player]:
            flat[key] = _over(table.get(inner, "adam"), flat[player][inner])
            flat[player] = {name: value for name, value in flat[player].items() if name != inner}
    try:
        experiment: Experiment = Structurer(plugins.registry).read(flat, Experiment)
    except Problems as error:
        raise Problems([_as_written(problem) for problem in error.problems]) from None
    return experiment


def _over(common: Any, own: Any) -> Any:
    """A player's optimiser: a table without a name changes the common one."""
    if not isinstance(own, Mapping) or "name" in own:
        return own
    return {**(common if isinstance(common, Mapping) else {"name": common}), **own}


def _as_written(problem: Problem) -> Problem:
    """A problem under the path that the file has: generator_optimizer is written generator.optimizer."""
    head, dot, rest = problem.path.partition(".")
    return Problem(".".join(NESTED.get(head, (head,))) + dot + rest, problem.message)


def used_files(experiment: Experiment, plugins: Plugins) -> list[str]:
    """The plugin files that the experiment's components come from, absolute."""
    used = Structurer(plugins.registry).components_in(experiment)
    return sorted({str(part.origin.file) for part in used if part.origin.source == "file"})


def to_table(experiment: Experiment, plugins: Plugins) -> dict[str, Any]:
    """The experiment as the table of its resolved file."""
    table = Structurer(plugins.registry).write(experiment)
    for key, (player, inner) in NESTED.items():
        if key in table:
            table[player][inner] = table.pop(key)
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    return {key: value for key, value in table.items() if key not in tables} | tables


def to_toml(experiment: Experiment, plugins: Plugins) -> str:
    """The resolved experiment file: every option, and the plugin files it needs by absolute path."""
    table = to_table(experiment, plugins)
    table["plugins"] = used_files(experiment, plugins)
    return tomli_w.dumps(table)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """The keys in which the tables of two experiments differ, their seeds aside and what changes no result."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        paths = {key: f"{at}.{key}" if at else key for key in {**one, **other}}
        kept = {key: path for key, path in paths.items() if path not in ("seed", *NO_RESULTS)}
        return [d for key, path in kept.items() for d in differences(one.get(key), other.get(key), path)]
    return [] if one == other else [at]


# ---------------------------------------------------------------------------------------------------------------------
# TOML and overrides
# ---------------------------------------------------------------------------------------------------------------------


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table; raises UserError with the file's name and what is wrong."""
    where = f"{str(path)[:LONGEST_PATH]}…" if len(str(path)) > LONGEST_PATH else str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the name
        raise UserError(f"{shown(where)}: cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{where}: has more than {MAX_BYTES:,} bytes; an experiment file has at most as many")
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    try:
        return _parsed(text, where)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not valid TOML: {one_line(error)}") from None


def _parsed(text: str, where: str) -> dict[str, Any]:
    """TOML as a table. Raises TOMLDecodeError where it is none, and UserError where it is a bomb."""
    _refuse_bombs(text, where)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (
        ValueError
    ) as error:  # a number of more digits than Python reads; what follows is how Python could be told to
        raise UserError(f"{where}: {one_line(error).partition(';')[0]}") from None
    # Dotted keys nest as brackets do, and numbers in hexadecimal have no bound in Python. Depth is looked at without
    # recursion, since that is what has to be bounded.
    waiting: list[tuple[Any, str, int]] = [(table, "", 0)]
    while waiting:
        value, at, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise UserError(f"{where}: tables nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            for key, item in value.items():
                waiting.append((item, f"{at}.{shown_key(key)}" if at else shown_key(key), depth + 1))
        elif isinstance(value, list):
            waiting += [(item, at, depth + 1) for item in value]
        elif type(value) is int and not -(2**63) <= value < 2**63:
            raise UserError(f"{where}: {at}: a whole number of more than 64 bits")
    return table


# Each takes what is not closed too, so that no place is looked at twice.
_TEXTS_AND_COMMENTS = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)'''
    r"""|'''.*?(?:'{3,5}|\Z)"""
    r"""|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?"""
    r"""|\#[^\n]*""",
    re.DOTALL,
)


def _refuse_bombs(text: str, where: str) -> None:
    """tomllib recurses into brackets and takes quadratic time over dotted keys, so both are bounded beforehand."""
    bare = _TEXTS_AND_COMMENTS.sub("x", text)
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise UserError(f"{where}: brackets nested {deepest} deep; at most {MAX_DEPTH}")
    # What lies between two of these marks is one key at most.
    if any(part.count(".") > MAX_DEPTH for part in re.split(r"[=,{\[\n]", bare)):
        raise UserError(f"{where}: a dotted key of more than {MAX_DEPTH} parts")


def parse_override(text: str) -> tuple[list[str], Any]:
    """`loss.margin=0.5` as (["loss", "margin"], 0.5). A plain word needs no quotes."""
    key, equals, value = text.partition("=")
    key = key.strip()
    parts = key.split(".")
    said = text if text.isprintable() else repr(text)
    said = said if len(said) <= LONGEST_PATH else f"{said[:LONGEST_PATH]}…"
    if not equals or len(key) > LONGEST_PATH or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
        raise UserError(f"--set {said}: expected KEY=VALUE, such as train.steps=100")
    if len(parts) > MAX_DEPTH:
        raise UserError(f"--set {key}: a dotted key of more than {MAX_DEPTH} parts")
    value = value.strip()
    if len(value) > MAX_BYTES or "\n" in value:
        raise UserError(f"--set {key}: expected a value on one line")
    try:
        return parts, _parsed(f"value = {value}", f"--set {key}")["value"]
    except tomllib.TOMLDecodeError:
        if value and not re.search(r"""["'\[\]{}=]""", value):
            return parts, value
        raise UserError(f"--set {said}: {shown(value)} is neither a TOML value nor a plain word") from None


def override(table: dict[str, Any], parts: list[str], value: Any) -> None:
    """Sets one value in the table. A number in the path is a place in a list: `metric.0.samples`.

    Choosing another component by its name drops the options of the one before, and setting one of train.steps and
    train.epochs drops the other.
    """
    where = ".".join(map(shown_key, parts))
    at: Any = table
    for depth, part in enumerate(parts[:-1]):
        here = ".".join(map(shown_key, parts[: depth + 1]))
        at = at[_place(at, part, where)] if isinstance(at, list) else at.setdefault(part, {})
        if isinstance(at, str):
            raise UserError(
                f"--set {where}: {here} is {shown(at)}, not a table; set {here}={{ name = {shown(at)}, … }}"
            )
        if not isinstance(at, (dict, list)):
            raise UserError(f"--set {where}: {here} is {shown(at)}, not a table")
    last = parts[-1]
    if isinstance(at, list):
        at[_place(at, last, where)] = value
        return
    if last == "name" and len(parts) > 1 and at.get("name") != value:
        for key in [key for key in at if (parts[0], key) not in NESTED.values()]:
            del at[key]
    if parts[0] == "train" and last in ("steps", "epochs"):
        at.pop("epochs" if last == "steps" else "steps", None)
    at[last] = value


def _place(items: list[Any], part: str, where: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", part) and int(part) < len(items):
        return int(part)
    raise UserError(f"--set {where}: expected a place in a list of {len(items)}, counted from 0, got {shown(part)}")
