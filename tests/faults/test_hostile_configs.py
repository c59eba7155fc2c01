"""Experiment files, settings, sweep files and run folders that are bombs, or hold what no person wrote.

Each is refused in lines that name the place and do not repeat the bomb, in a second of the processor's time at most.
"""

from __future__ import annotations

import json
import tempfile
import time
import tomllib
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.load import experiment_from_table, load_experiment
from ganlab.config.overrides import parse_override
from ganlab.config.schema import Train
from ganlab.config.toml import read_toml, wide_encoding
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.sweep.plan import load_sweep
from ganlab.training.checkpoint import save_checkpoint
from ganlab.utils.errors import UserError, did_you_mean
from ganlab.utils.interval import Interval
from run_folders import HELD
from tiers import spread

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

BASE = """
name = "tiny"
loss = "bce"
DATASET
[generator]
name = "mlp"
hidden = HIDDEN
[discriminator]
name = "mlp"
hidden = [16]
[train]
steps = 2
batch_size = 16
"""


def experiment(*, first: str = "", last: str = "", dataset: str = '"digits"', hidden: str = "[16]") -> str:
    """A small experiment with something before it, after it (in `[train]`), or in it."""
    return first + "\n" + BASE.replace("DATASET", f"dataset = {dataset}").replace("HIDDEN", hidden) + last + "\n"


def dotted(parts: int, part: str = "a") -> str:
    return ".".join([part] * parts)


EXPERIMENTS = {
    "40 KB key": (experiment(first="a" * 40_000 + " = 1"), "'aaaa"),
    "40 KB key in a table": (experiment(last="a" * 40_000 + " = 1"), "train.'aaaa"),
    "40 KB key of lines": (experiment(first='"' + "a\\n" * 13_000 + '" = 1'), "'a\\na"),
    "40 KB dotted key": (experiment(first=dotted(20_000) + " = 1"), "a dotted key of more than 32 parts"),
    "quoted parts": (experiment(first=dotted(60_000, '"a"') + " = 1"), "a dotted key of more than 32 parts"),
    "dotted in an inline table": (experiment(first="x = { " + dotted(100_000) + " = 1 }"), "a dotted key of more"),
    "dotted after a text": (
        experiment(first='x = { y = """a"""", ' + dotted(100_000) + ' = 1, z = "" }'),
        "a dotted key of more than 32 parts",
    ),
    "dotted after a quote": (experiment(first='"\\"".' + dotted(100_000) + ' = 1 # "'), "a dotted key of more than 32"),
    "dotted header": (f"[{dotted(100_000)}]\n", "a dotted key of more than 32 parts"),
    "many dotted keys": (experiment(first="\n".join(f"{dotted(31)}.k{n} = 1" for n in range(3400))), "a: unknown key"),
    "nested by all means": (f"[{dotted(31)}]\n{dotted(31)} = " + f"{{{dotted(31)} = " * 31 + "1" + "}" * 31, "32 deep"),
    "deep brackets": (experiment(first="x = " + "[" * 100_000), "deep; at most 32"),
    "deep tables": (experiment(first="x = " + "{a = " * 1000 + "1" + "}" * 1000), "brackets nested 1000 deep"),
    "5,000 digits": (experiment(last="ema = " + "9" * 5000), "5000 digits"),
    "200 KB of hexadecimal": (experiment(last="ema = 0x" + "f" * 200_000), "train.ema: a whole number of more than 64"),
    "30 digits": (experiment(last="ema = " + "9" * 30), "train.ema: a whole number of more than 64 bits"),
    "1e400": (experiment(last="ema = 1e400"), "train.ema: expected a finite number, got inf"),
    "-1e400": (experiment(last="ema = -1e400"), "train.ema: expected a finite number, got -inf"),
    "nan": (experiment(last="ema = nan"), "train.ema: expected a finite number, got nan"),
    "a date": (experiment(last="ema = 1979-05-27"), "train.ema: expected a number, got datetime.date(1979, 5, 27)"),
    "no date": (experiment(last="ema = 1979-99-99"), "not valid TOML"),
    "24,000 keys": (experiment(last="\n".join(f"k{n} = 1" for n in range(20_000))), "19,990 more unknown keys"),
    "100,000 keys": (experiment(last="\n".join(f"k{n} = 1" for n in range(100_000))), "has more than 262,144 bytes"),
    "24,000 tables": (experiment(last="\n".join(f"[k{n}]" for n in range(24_000))), "23,990 more unknown keys"),
    "20,000 metrics": (experiment(last="[[metric]]\n" * 20_000), "metric: expected at most 100 tables, got 20,000"),
    "90,000 layers": (experiment(hidden="[" + "1," * 90_000 + "]"), "generator.hidden: expected at most 1,000 values"),
    "90,000 plugins": (
        experiment(first="plugins = [" + "''," * 60_000 + "]"),
        "plugins: expected at most 1,000 values",
    ),
    "a table twice": (experiment(last="[train]"), "not valid TOML"),
    "a key twice": (experiment(last="steps = 3"), "not valid TOML"),
    "a zero byte": (experiment(last="x = '\0'"), "not valid TOML"),
    "a zero byte in a text": (
        experiment(dataset='{ name = "image_folder", path = "a\\u0000b" }'),
        r"dataset.path: a text cannot hold a zero byte, got 'a\x00b'",
    ),
    "a zero byte in a plugin": (
        experiment(first='plugins = ["a\\u0000b"]'),
        "plugins[0]: a text cannot hold a zero byte",
    ),
    "no such home": (experiment(first='plugins = ["~nobody-at-all/x.py"]'), "plugins[0]: '~nobody-at-all/x.py': Could"),
    "a plugin of 4,000 letters": (experiment(first=f'plugins = ["{"a" * 4000}"]'), "File name too long"),
    "a text of 200 KB": (
        experiment(dataset=f'{{ name = "image_folder", path = "{"a" * 200_000}" }}'),
        "dataset.path: expected a text of at most 4,096 characters, got 200,000",
    ),
    "a path of 4,000 letters": (
        experiment(dataset=f'{{ name = "image_folder", path = "{"a" * 4000}" }}'),
        "cannot be read (File name too long)",
    ),
    "weights of 4,000 letters": (
        experiment(last=f"[[metric]]\nname = 'fid'\nfeatures = {{ name = 'inception', weights = '{'a' * 4000}' }}"),
        "cannot be read (File name too long)",
    ),
    "a name of 200 KB": (experiment(dataset='"' + "a" * 200_000 + '"'), "dataset.name: unknown dataset 'aaaa"),
    "colours": (experiment(dataset='"\\u001b[31mred"'), r"unknown dataset '\x1b[31mred'"),
    "240 KB of quotes": ('"' * 240_000, "not valid TOML"),
    "240 KB of escapes": ('x = "' + '\\"' * 120_000, "not valid TOML"),
    "240 KB of escapes in lines": ('x = """' + '\\"' * 120_000, "not valid TOML"),
    "240 KB of brackets": ("]" * 240_000, "not valid TOML"),
    "240 KB of spaces": (" " * 240_000, "train: missing; a table is needed"),
    "not UTF-8": ("\udcff", "not UTF-8 text"),
}


def refused(said: str, wanted: str) -> None:
    lines = said.splitlines()
    assert wanted in said, said[:1000]
    assert 0 < len(lines) < 25
    assert max(map(len, lines)) < 700
    assert "Traceback" not in said
    assert "\x1b" not in said


LONG = ("90,000 layers", "90,000 plugins", "24,000 keys", "20,000 metrics", "40 KB key")
"""Bombs of the extended tier: `24,000 tables` and `many dotted keys` take as long, and stay."""


@pytest.mark.parametrize(
    "name",
    spread(
        14,
        [
            pytest.param(name, marks=[pytest.mark.extended, pytest.mark.large] if name in LONG else [])
            for name in EXPERIMENTS
        ],
    ),
)
def test_bombs_are_refused_by_every_command_that_reads_an_experiment(
    name: str, ganlab: Command, tmp_path: Path, table: dict[str, Any], write: Write
) -> None:
    text, wanted = EXPERIMENTS[name]
    path = tmp_path / "bomb.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    # What is imported the first time is not the bomb's.
    ganlab("run", write(table), "--dry-run")
    if "cannot be read (" in wanted:
        ganlab("run", path, "--dry-run")
    before = time.process_time()
    code, _, said = ganlab("run", path, "--out", tmp_path / "r")
    assert time.process_time() - before < 1
    assert code == 2
    refused(said, wanted)
    assert not (tmp_path / "r").exists()

    # The same as the file that a run folder holds, and as the base of a sweep.
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps(HELD))
    (run / "experiment.toml").write_bytes(path.read_bytes())
    code, _, said = ganlab("run", run, "--resume")
    assert code == 2
    refused(said, wanted)
    if "cannot be read" in wanted:  # which is found when it is built
        return
    sweep = tmp_path / "sweep.toml"
    sweep.write_text('base = "bomb.toml"\n[variants.a]\nloss.name = "bce"\n[variants.b]\ntrain.checkpoint_keep = 2\n')
    code, _, said = ganlab("sweep", sweep, "--out", tmp_path / "s")
    assert code == 2
    refused("\n".join(said.splitlines()[:20]), wanted)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["40 KB key", "5,000 digits", "deep tables", "a table twice", "not UTF-8"])
def test_bombs_in_a_run_folder_are_refused_by_what_reads_it(
    name: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    text, wanted = EXPERIMENTS[name]
    for run in ("r", "other"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text(json.dumps(HELD | {"status": "finished", "name": run}))
        write(table, f"{run}/experiment.toml")
    save_checkpoint(tmp_path / "r" / "checkpoints", 1, {"generator": {}})
    (tmp_path / "r" / "experiment.toml").write_bytes(text.encode(errors="surrogateescape"))
    for command in (["sample", "r"], ["eval", "r"], ["compare", "r", "other"]):
        code, _, said = ganlab(*command)
        assert code == 2, command
        refused(said, wanted if command != ["compare", "r", "other"] or name != "40 KB key" else "have no scores")
    assert ganlab("report", "r", "--html", "page.html")[0] == 0


@pytest.mark.parametrize(
    "text",
    ["\ufeff" + experiment(), experiment().replace("\n", "\r\n"), experiment(last="ema = 0." + "1" * 200_000)],
    ids=["byte order mark", "lines of Windows", "200 KB of decimals"],
)
def test_odd_files_that_are_right_are_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(text.encode())
    assert load_experiment(path)[0].train.steps == 2


def test_dots_and_brackets_in_texts_and_comments_are_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "dots.toml"
    texts = [
        "'" + "a." * 500 + "'",
        '"' + "[{." * 500 + '"',
        '"""\n' + '[.{\\"' * 500 + '"""',
        "'''" + "[.'" * 99 + "'''",
    ]
    path.write_text("".join(f"k{place} = {text} # [{'.' * 500}\n" for place, text in enumerate(texts)))
    assert list(read_toml(path)) == ["k0", "k1", "k2", "k3"]


SETTINGS = {
    "40 KB key": ("a" * 40_000 + "=1", "expected KEY=VALUE"),
    "40 KB dotted key": (dotted(20_000) + "=1", "expected KEY=VALUE"),
    "200 parts": (dotted(200) + "=1", "a dotted key of more than 32 parts"),
    "40 KB and no value": ("a" * 40_000, "expected KEY=VALUE"),
    "unknown": ("a" * 400 + "=1", "'aaaa"),
    "nested": ("seed=" + "[" * 100_000, "brackets nested 100000 deep"),
    "nested by dots": ("seed={ " + dotted(100_000) + " = 1 }", "a dotted key of more than 32 parts"),
    "5,000 digits": ("seed=" + "9" * 5000, "5000 digits"),
    "hexadecimal": ("seed=0x" + "f" * 100_000, "--set seed: value: a whole number of more than 64 bits"),
    "30 digits": ("seed=" + "9" * 30, "--set seed: value: a whole number of more than 64 bits"),
    "1e400": ("train.ema=1e400", "train.ema: expected a finite number, got inf"),
    "nan": ("train.ema=nan", "train.ema: expected a finite number, got nan"),
    "a date": ("seed=1979-05-27", "seed: expected a whole number, got datetime.date(1979, 5, 27)"),
    "a text of 100 KB": ("dataset=" + "a" * 100_000, "dataset.name: unknown dataset 'aaaa"),
    "a text of 100 KB within": ("loss.name.x=" + "a" * 100_000, "--set loss.name.x: loss is 'bce', not a table"),
    "a broken text of 100 KB": ("seed='" + "a" * 100_000, "neither a TOML value nor a plain word"),
    "a place of 400 digits": ("metric." + "9" * 400 + "=1", "expected a place in a list"),
    "lines": ("a\nb=1", "expected KEY=VALUE"),
    "a zero byte": ("dataset.path=a\0b", "dataset.path"),
    "256 KB": ("seed=" + "1" * 300_000, "--set seed: expected a value on one line"),
}


@pytest.mark.parametrize("name", spread(8, SETTINGS))
def test_bombs_in_settings_are_refused(name: str, ganlab: Command, tmp_path: Path) -> None:
    text, wanted = SETTINGS[name]
    path = tmp_path / "good.toml"
    path.write_text(experiment(first="metric = []"))
    ganlab("run", path, "--dry-run")
    before = time.process_time()
    code, _, said = ganlab("run", path, "--set", text, "--out", tmp_path / "r")
    assert time.process_time() - before < 1
    assert code == 2
    refused(said, wanted)
    assert not (tmp_path / "r").exists()


VARIANT = "[variants.a]\nloss.name = 'bce'\n"
SWEEPS = {
    "40 KB variant": (f"[variants.{'a' * 40_000}]\n", "variants.'aaaa"),
    "a variant of lines": ('[variants."a\\nb"]\n', r"variants.'a\nb': a name is letters"),
    "40 KB key": ("a" * 40_000 + " = 1\n" + VARIANT, "'aaaa"),
    "20,000 keys": ("".join(f"k{n} = 1\n" for n in range(20_000)) + VARIANT, "19,990 more unknown keys"),
    "15,000 variants": ("".join(f"[variants.a{n}]\n" for n in range(14_000)), "14,000 variants times 1 seeds"),
    "5,000 wrong variants": (
        "".join(f"[variants.a{n}]\nx = 1\n" for n in range(5000)),
        "variants: 10 are wrong; the others were not looked at",
    ),
    "10,000 wrong names": ("".join(f"[variants._{n}]\n" for n in range(9000)), "8,990 more such variants"),
    "40,000 seeds": (f"seeds = {list(range(30_000))}\n" + VARIANT, "1 variants times 30,000 seeds"),
    "a seed of 30 digits": (f"seeds = [{'9' * 30}]\n" + VARIANT, "seeds: a whole number of more than 64 bits"),
    "a seed of nan": ("seeds = [nan]\n" + VARIANT, "seeds: expected different whole numbers"),
    "a base with a zero byte": ('base = "a\\u0000b"\n' + VARIANT, "embedded null byte"),
    "a base of 5,000 letters": (f'base = "{"a" * 5000}"\n' + VARIANT, "File name too long"),
    "a base that is a date": ("base = 1979-05-27\n" + VARIANT, "base: expected the path"),
    "deep": ("x = " + "[" * 1000, "brackets nested 1000 deep"),
    "dotted": (f"variants.a.{dotted(5000)} = 1\n", "a dotted key of more than 32 parts"),
    "a place that is not a digit": ("[variants.a.metric]\n'²' = 1\n", "counted from 0, got '²'"),
    "a 10 MB file": ("#" * 10_000_000, "has more than 262,144 bytes"),
}


@pytest.mark.parametrize("name", spread(8, SWEEPS))
def test_bombs_in_sweep_files_are_refused(name: str, ganlab: Command, tmp_path: Path) -> None:
    text, wanted = SWEEPS[name]
    (tmp_path / "good.toml").write_text(experiment(first="metric = []"))
    path = tmp_path / "sweep.toml"
    path.write_text(text if "base =" in text else f'base = "good.toml"\n{text}')
    ganlab("sweep", path, "--out", tmp_path / "s")
    before = time.process_time()
    code, _, said = ganlab("sweep", path, "--out", tmp_path / "s")
    assert time.process_time() - before < 1
    assert code == 2
    refused(said, wanted)
    assert not (tmp_path / "s").exists()


def test_a_device_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(UserError, match="/dev/zero: has more than 262,144 bytes"):
        read_toml(Path("/dev/zero"))


def test_a_long_name_is_compared_with_none() -> None:
    before = time.process_time()
    assert did_you_mean("a" * 100_000, ["a" * 50_000]) == ""
    assert time.process_time() - before < 0.1
    assert did_you_mean("margn", ["margin"]) == "; did you mean 'margin'?"


# Numbers --------------------------------------------------------------------------------------------------------------

REGISTRY = load_plugins().registry


def options(types: tuple[type, ...]) -> list[tuple[str, str, str]]:
    """Every option of those types of `[train]` and of the bundled components: kind, name and option."""
    known = [("train", "", Train), *((c.kind, c.name, c.cls) for kind in KINDS for c in REGISTRY.of_kind(kind))]
    return [
        (kind, name, field.name)
        for kind, name, cls in known
        for field in attrs.fields(cls)
        if field.init and any(one in types for one in parts(typing.get_type_hints(cls)[field.name]))
    ]


def parts(hint: Any) -> set[Any]:
    """A type and what it is made of."""
    return {hint}.union(*(parts(inner) for inner in typing.get_args(hint) if typing.get_origin(hint) is not Literal))


def says_of(kind: str, name: str, option: str, value: object) -> list[str]:
    """The problems that a table of one component has of one option's value."""
    cls = Train if kind == "train" else next(c.cls for c in REGISTRY.of_kind(kind) if c.name == name)
    hint = typing.get_type_hints(cls)[option]
    given = [value] * 2 if typing.get_origin(hint) is tuple else value
    try:
        if kind == "train":
            TableConverter(REGISTRY).read({option: given}, Train)
        else:
            TableConverter(REGISTRY).component(kind, {"name": name, option: given})
    except InvalidTable as error:
        return [problem.message for problem in error.problems if problem.path.split("[")[0] == option]
    return []


UNBOUNDED = ["seed", "weight", "resident_gb", "gpus"]
"""Options for which every number has a sense: none of them makes a run longer or larger."""


@pytest.mark.parametrize(("kind", "name", "option"), options((int, Interval)))
def test_every_whole_number_has_an_upper_limit(kind: str, name: str, option: str) -> None:
    """What would never end, or never fit, is a slip of the pen and is refused before anything is built."""
    for value in (10**12 + 1, 2**63 - 1, 10**30, -(10**30)):
        said = says_of(kind, name, option, value)
        assert said or (option in UNBOUNDED and 0 <= value < 2**63), value
        assert all(len(line) < 120 for line in said)


@pytest.mark.parametrize(("kind", "name", "option"), options((float,)))
def test_every_other_number_has_limits_too(kind: str, name: str, option: str) -> None:
    """torch refuses numbers that are not float32, in the middle of a step."""
    for value in (1e308, -1e308, float("inf"), float("nan"), 10**30, 10**400):
        said = says_of(kind, name, option, value)
        assert said or (option in UNBOUNDED and value == 1e308), value
        assert all(len(line) < 120 for line in said)


@pytest.mark.parametrize(
    ("setting", "codes"),
    [
        ("generator.hidden=[1048576, 1048576]", (2,)),
        pytest.param("discriminator.hidden=[1048576, 1048576]", (2,), marks=[pytest.mark.extended, pytest.mark.large]),
        ("generator={name='dcgan', channels=65536}", (2,)),
        ("optimizer.lr=1e6", (0, 3)),
        ("optimizer={name='rmsprop', lr=1e6, weight_decay=1e6}", (0, 3)),
        ("penalty=[{name='l2_generator', weight=1e308}]", (3,)),
    ],
)
def test_what_is_allowed_ends_well_or_in_a_line(
    setting: str, codes: tuple[int, ...], table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    table["dataset"]["size"] = 16
    table["train"] |= {"steps": 3, "log_every": 1}
    found, _, said = ganlab("run", write(table), "--out", tmp_path / "r", "--set", setting)
    assert found in codes, said
    assert len(said.splitlines()) == (found != 0)
    assert ("too large for the memory" in said) == (found == 2)


# Whatever is written --------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**65), 2**65),
        st.floats(),
        st.booleans(),
        st.text(max_size=8),
        st.dates(),
        st.datetimes(),
        st.sampled_from(["mlp", "adam", "bce", "fid", "digits", "2 epochs"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "hidden", "lr", "every", "", "ü", "a\nb"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ["name", "seed", "plugins", "train", "dataset", "generator", "loss", "optimizer", "penalty", "metric", "floor"]


load = cache(load_plugins)


@settings(deadline=None, max_examples=100)
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3),
    inside=st.dictionaries(st.sampled_from(["steps", "ema", "log_every", "precision", "x"]), VALUES, max_size=2),
)
def test_any_table_is_an_experiment_or_refused_line_by_line(changes: dict[str, Any], inside: dict[str, Any]) -> None:
    table = tomllib.loads(experiment())
    table["train"] |= inside
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.toml")
        path.write_text(tomli_w.dumps(table | changes), encoding="utf-8")
        try:
            experiment_from_table(read_toml(path), path, load=load)
        except UserError as error:
            problems = error.problems
        else:
            problems = ()
    assert all("\n" not in line and len(line) < 700 for line in problems)


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=40) | st.from_regex(r"[a-z.]{1,12}=[\[\]{}\"'a-z0-9=.\\ ]{0,20}", fullmatch=True))
def test_any_setting_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parts, _ = parse_override(text)
    except UserError as error:
        said = str(error)
    else:
        said = ""
        assert ".".join(parts) == text.partition("=")[0].strip()
    assert said.isprintable()


def test_any_sweep_reads_its_own_name_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(experiment())
    (tmp_path / "s.toml").write_text('base = "good.toml"\n[variants.a]\nloss = "bce"\n')
    assert load_sweep(tmp_path / "s.toml").name == "s"


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_file_in_another_encoding_is_told_its_name(
    encoding: str, command: str, ganlab: Command, tmp_path: Path
) -> None:
    """With a byte order mark ("utf-16") and without one."""
    file = tmp_path / "x.toml"
    file.write_bytes(("# Größe, ширина, 高さ\n" + experiment()).encode(encoding))
    code, _, said = ganlab(command, file)
    assert code == 2
    assert said == f"{file}: not UTF-8 text but {encoding[:6].upper()}; save it as UTF-8\n"


def test_a_file_of_zeros_is_called_that(ganlab: Command, tmp_path: Path) -> None:
    """As some file systems leave one after a crash."""
    (tmp_path / "x.toml").write_bytes(bytes(4096))
    code, _, said = ganlab("run", tmp_path / "x.toml")
    assert (code, said) == (2, f"{tmp_path / 'x.toml'}: holds only zero bytes; restore it from a copy\n")


@pytest.mark.parametrize("text", ["", "a", "é = 1", "x = '\0'", "# 高さ" * 500, "x = 1\n" * 3])
def test_text_in_utf_8_is_not_taken_for_another_encoding(text: str) -> None:
    assert wide_encoding(text.encode()) is None
