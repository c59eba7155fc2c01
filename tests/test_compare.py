"""Comparisons, held against scipy, against a simulation of the interval's coverage, and against being misled.

The run folders here are written by hand: a run.json, records, an experiment. Sweeps are run for real further down.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tomli_w

from ganlab.report.collect_runs import collect_runs
from ganlab.report.compare import comparison_tables
from ganlab.report.statistics import Estimate, holm_verdicts, mean_with_interval, p_value, paired_difference
from ganlab.run.records import read_records, record_line
from ganlab.run.run_folder import NEEDED, read_info
from ganlab.sweep.plan import load_sweep
from ganlab.utils.errors import UserError
from support import HERE

Command = Callable[..., tuple[int, str, str]]
PROTOCOL = {"metric": "fid", "features": {"name": "classifier", "sha256": "abc"}, "generated": 100, "weights": "ema"}


def make_run(
    path: Path,
    values: list[float],
    *,
    seed: int = 0,
    name: str = "bce",
    status: str = "finished",
    protocol: dict[str, Any] | None = None,
    better: str | None = "lower",
    experiment: dict[str, Any] | None = None,
) -> None:
    """A run folder whose metric `fid` took these values at steps 0, 100, 200 …"""
    path.mkdir(parents=True)
    info = {"status": status, "name": name, "seed": seed, "images": {}, "device": "cpu"}
    (path / "run.json").write_text(json.dumps(info | {"seconds": 60.0, "total_steps": 100 * (len(values) - 1)}))
    (path / "experiment.toml").write_text(tomli_w.dumps({"seed": seed, "loss": {"name": name}} | (experiment or {})))
    record = {"name": "fid", "better": better, "protocol": protocol or PROTOCOL}
    lines = [record_line({"step": 100 * i, **record, "value": v}) for i, v in enumerate(values)]
    (path / "metrics.jsonl").write_text("".join(lines))
    (path / "log.jsonl").write_text(record_line({"step": 100, "images_per_second": 2000.0, "seconds": 3.2}))


def make_sweep(path: Path, finals: dict[str, list[float]], **options: Any) -> Path:
    seeds = list(range(max(map(len, finals.values()))))
    path.mkdir(parents=True, exist_ok=True)
    (path / "sweep.json").write_text(
        json.dumps({"name": "s", "seeds": seeds, "variants": {name: {} for name in finals}})
    )
    for variant, values in finals.items():
        for seed, value in enumerate(values):
            make_run(path / variant / f"seed-{seed}", [50.0, value], seed=seed, name=variant, **options)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------------------------------


def test_the_interval_is_scipys() -> None:
    values = [3.1, 2.7, 3.6, 2.9]
    ours = mean_with_interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
    assert (ours.mean, ours.low, ours.high) == pytest.approx((np.mean(values), low, high), rel=1e-12)


def test_the_interval_covers_the_mean_95_times_in_100() -> None:
    """By simulation at three seeds: 20,000 draws have a standard error of 0.15%."""
    draws = np.random.default_rng(0).normal(10, 2, (20_000, 3))
    hits = sum(
        e.low <= 10 <= e.high
        for e in map(mean_with_interval, draws.tolist())
        if e.low is not None and e.high is not None
    )
    assert hits / 20_000 == pytest.approx(0.95, abs=0.006)


def test_the_paired_difference_is_scipys() -> None:
    a, b = {0: 3.0, 1: 2.5, 2: 3.5, 7: 1.0}, {0: 2.0, 1: 1.9, 2: 2.2, 9: 8.0}
    ours = paired_difference(a, b)
    result = scipy.stats.ttest_rel([a[s] for s in range(3)], [b[s] for s in range(3)])
    interval = result.confidence_interval(0.95)
    assert ours.count == 3, "only seeds that both have"
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert p_value(ours) == pytest.approx(result.pvalue, rel=1e-9)
    assert (holm_verdicts({"ours": ours}, "lower")["ours"] != "cannot tell") == (result.pvalue < 0.05)


@pytest.mark.parametrize(
    ("difference", "better", "said"),
    [
        (Estimate(-1, -2, -0.1, 3), "lower", "better"),
        (Estimate(-1, -2, -0.1, 3), "higher", "worse"),
        (Estimate(1, 0.1, 2, 3), "lower", "worse"),
        (Estimate(-1, -2, 0.1, 3), "lower", "cannot tell"),
        (Estimate(-9, None, None, 1), "lower", "cannot tell"),
        (Estimate(-1, -2, -0.1, 3), None, "cannot tell"),
        (Estimate(-1, -1, -1, 5), "lower", "cannot tell"),
        (Estimate(-1, -1, -1, 6), "lower", "better"),
        (Estimate(0, 0, 0, 3), "lower", "cannot tell"),
        (Estimate(math.nan, None, None, 3), "lower", "cannot tell"),
    ],
)
def test_a_verdict_on_one_variant_is_its_interval(difference: Estimate, better: str | None, said: str) -> None:
    assert holm_verdicts({"ours": difference}, better) == {"ours": said}


def test_the_same_difference_with_every_seed_has_the_p_value_of_the_sign_test() -> None:
    for count in range(2, 9):
        values = {seed: 0.1 * seed for seed in range(count)}
        differences = paired_difference({seed: value + 0.7 for seed, value in values.items()}, values)
        assert p_value(differences) == pytest.approx(scipy.stats.binomtest(count, count).pvalue), count


def test_small_whole_numbers_by_chance_seldom_have_a_verdict() -> None:
    """By simulation of two and three seeds, of a score that is 7 or 8: by the t test 12% and 3% had one."""
    for seeds in (2, 3):
        draws = np.random.default_rng(0).integers(7, 9, (1000, 2, seeds)).tolist()
        differences = (paired_difference(dict(enumerate(one)), dict(enumerate(other))) for one, other in draws)
        assert {holm_verdicts({"": difference}, "higher")[""] for difference in differences} == {"cannot tell"}


def with_p(p: float, mean: float = -1.0) -> Estimate:
    """A difference over four seeds that has this p value."""
    half = abs(mean) * scipy.stats.t.ppf(0.975, 3) / scipy.stats.t.isf(p / 2, 3)
    return Estimate(mean, mean - half, mean + half, 4)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0.01, 0.04, 0.03, 0.005), {0, 3}),  # the usual example of Holm's procedure
        ((0.012, 0.016, 0.024, 0.049), {0, 1, 2, 3}),
        ((0.013, 0.0001, 0.06), {0, 1}),
        ((0.018, 0.019, 0.02), set()),  # each of them alone would be told
    ],
)
def test_verdicts_on_many_are_holms(values: Sequence[float], told: set[int]) -> None:
    differences = {f"v{number}": with_p(p, -1.0 if number % 2 else 1.0) for number, p in enumerate(values)}
    assert [p_value(difference) for difference in differences.values()] == pytest.approx(values)
    said = holm_verdicts(differences, "lower")
    assert {number for number in range(len(values)) if said[f"v{number}"] != "cannot tell"} == told
    assert all(said[f"v{number}"] == ("better" if number % 2 else "worse") for number in told)


@pytest.mark.extended
@pytest.mark.slow
def test_where_nothing_differs_one_table_in_20_says_that_something_does() -> None:
    """By simulation, of eight variants with three seeds against one baseline; 400 have a standard error of 1.1%."""
    draws = np.random.default_rng(0).normal(10, 2, (400, 9, 3))
    called = alone = 0
    for baseline, *variants in draws:
        pairs = [(dict(enumerate(variant)), dict(enumerate(baseline))) for variant in variants]
        differences = {str(number): paired_difference(*pair) for number, pair in enumerate(pairs)}
        called += set(holm_verdicts(differences, "lower").values()) != {"cannot tell"}
        alone += any(holm_verdicts({"": one}, "lower")[""] != "cannot tell" for one in differences.values())
    assert called / 400 < 0.08
    assert alone / 400 > 0.2, "what would be said without"


def test_a_verdict_that_only_one_variant_alone_would_have(tmp_path: Path, ganlab: Command) -> None:
    finals = {"bce": [5.0, 6.0, 7.0], "wedge": [4.2, 4.4, 5.9], "c": [5.1, 5.8, 7.2], "d": [5.0, 6.4, 6.5]}
    (table,) = comparison_tables(collect_runs([make_sweep(tmp_path / "s", finals)]), None, "bce", split=False)
    row = table.rows[0]
    assert row.difference is not None
    assert row.difference.high is not None
    assert row.difference.high < 0
    assert (row.variant, row.verdict) == ("wedge", "cannot tell")
    _, out, _ = ganlab("compare", tmp_path / "s")
    assert "verdicts are of all 3 differences together (Holm)" in out
    assert (
        "wedge: the interval leaves 0 out, but not as clearly as 3 at once ask; a sweep of more seeds may tell\n" in out
    )
    _, out, _ = ganlab("compare", tmp_path / "s", "--json")
    assert json.loads(out)[0]["rows"][0]["p"] == pytest.approx(row.p)
    _, out, _ = ganlab("compare", tmp_path / "s", "--csv", "c.csv")
    assert float(next(csv.DictReader(io.StringIO(Path("c.csv").read_text())))["p"]) == pytest.approx(row.p)
    (tmp_path / "s" / "d" / "seed-2" / "run.json").unlink()
    (tmp_path / "s" / "wedge" / "seed-3").mkdir()
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"seeds": [0, 1, 2, 3], "variants": {v: {} for v in finals}}))
    assert "wedge: the interval leaves 0 out" in ganlab("compare", tmp_path / "s")[1], "though a seed is missing"
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"seeds": [0, 1, 2], "variants": {"bce": {}, "wedge": {}}}))
    (alone,) = comparison_tables(collect_runs([tmp_path / "s"]), None, "bce", split=False)
    assert alone.rows[0].verdict == "better"
    assert "Holm" not in ganlab("compare", tmp_path / "s")[1]


def test_what_is_not_finite_is_not_dropped() -> None:
    assert math.isnan(mean_with_interval([1.0, math.nan]).mean)
    assert mean_with_interval([1.0, math.inf]).low is None
    assert mean_with_interval([]).count == 0


def test_values_whose_squares_are_no_numbers_have_an_interval() -> None:
    """As KID, which is cubic, of a generator whose images are large and finite."""
    ours, scaled = mean_with_interval([1e200, 3e200]), mean_with_interval([1.0, 3.0])
    assert (ours.low, ours.high) == (pytest.approx(scaled.low * 1e200), pytest.approx(scaled.high * 1e200))


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def test_best_first_with_final_and_best_told_apart(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", {"bce": [5.0, 6.0, 7.0], "wedge": [3.0, 4.2, 4.9]})
    make_run(tmp_path / "s2", [50.0, 1.0, 30.0], name="collapsing")
    (table,) = comparison_tables(collect_runs([tmp_path]), None, "bce", split=False)
    assert [row.variant for row in table.rows] == ["wedge", "bce", "collapsing"]
    wedge, bce, collapsing = table.rows
    assert wedge.final.mean == pytest.approx(4.0333333)
    assert wedge.verdict == "better"
    assert bce.verdict == "baseline"
    assert (collapsing.final.mean, collapsing.best.mean, collapsing.best_steps) == (30.0, 1.0, (100,))
    assert collapsing.verdict == "cannot tell"
    assert wedge.images_per_second == 2000


def test_diverged_and_missing_seeds_are_shown_and_never_averaged_away(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0, 7.0], "wild": [1.0, 1.1, 1.2]})
    info = read_info(sweep / "wild" / "seed-2")
    (sweep / "wild" / "seed-2" / "run.json").write_text(json.dumps(info | {"status": "diverged"}))
    (sweep / "bce" / "seed-1" / "run.json").unlink()
    (table,) = comparison_tables(collect_runs([sweep]), "fid", "bce", split=False)
    wild, bce = table.rows
    assert (wild.finished, wild.wanted, wild.others) == (2, 3, {"diverged": 1})
    assert (bce.finished, bce.wanted, bce.others) == (2, 3, {"missing": 1})
    code, out, _ = ganlab("compare", sweep)
    assert code == 0
    assert "2 of 3 (1 diverged)" in " ".join(out.split())
    for seed in range(3):
        (sweep / "wild" / f"seed-{seed}" / "run.json").unlink()
        (sweep / "wild" / f"seed-{seed}" / "metrics.jsonl").unlink()
    (table,) = comparison_tables(collect_runs([sweep]), "fid", None, split=False)
    assert [(row.variant, row.finished, row.others) for row in table.rows][1:] == [("wild", 0, {"missing": 3})]
    code, out, _ = ganlab("compare", sweep)
    assert code == 0
    assert "0 of 3 (3 missing)" in " ".join(out.split())


def test_a_variant_that_diverged_is_never_called_better(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0, 7.0, 6.0], "wild": [1.0, 2.1, 2.9, 2.0]})
    (table,) = comparison_tables(collect_runs([sweep]), "fid", "bce", split=False)
    assert [row.verdict for row in table.rows] == ["better", "baseline"]
    info = read_info(sweep / "wild" / "seed-3")
    (sweep / "wild" / "seed-3" / "run.json").write_text(json.dumps(info | {"status": "diverged"}))
    (table,) = comparison_tables(collect_runs([sweep]), "fid", "bce", split=False)
    wild = table.rows[0]
    assert wild.p is not None
    assert wild.p < 0.05
    assert (wild.verdict, wild.held_back) == ("cannot tell", False)
    assert "leaves 0 out" not in ganlab("compare", sweep)[1]
    (table,) = comparison_tables(collect_runs([sweep]), "fid", "wild", split=False)
    assert table.rows[1].verdict == "cannot tell", "else the baseline would be called better by the seeds that are left"


def test_a_value_of_an_earlier_step_is_not_the_final_one(tmp_path: Path) -> None:
    """As where a metric fails at the last step; a record that `ganlab eval` adds takes its place."""
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0], "late": [3.0, 4.0]})
    run = sweep / "late" / "seed-1"
    (run / "run.json").write_text(json.dumps(read_info(run) | {"total_steps": 300, "step": 300}))
    line = re.escape(
        f"{run}: its last 'fid' is of step 100, not of its last step 300; score that one: ganlab eval {run}"
    )
    with pytest.raises(UserError, match=line):
        comparison_tables(collect_runs([sweep]), None, None, split=False)
    record = {"step": 300, "name": "fid", "better": "lower", "protocol": PROTOCOL, "value": 2.0, "eval": True}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(record_line(record))
    (table,) = comparison_tables(collect_runs([sweep]), None, None, split=False)
    assert [(row.variant, row.final.mean) for row in table.rows] == [("late", 2.5), ("bce", 5.5)]


def test_a_baseline_without_a_value_yet_is_not_replaced(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0], "wedge": [3.0, 4.0], "hinge": [3.1, 4.2]})
    for seed in range(2):
        (sweep / "bce" / f"seed-{seed}" / "run.json").unlink()
    (table,) = comparison_tables(collect_runs([sweep]), None, "bce", split=False)
    assert table.baseline == "bce"
    assert {row.variant: row.verdict for row in table.rows}["hinge"] == "cannot tell"
    (table,) = comparison_tables(collect_runs([sweep]), None, None, split=False)
    assert table.baseline == "wedge", "by default the first with values"


def test_runs_of_a_sweep_have_its_variants_also_by_themselves(tmp_path: Path, ganlab: Command) -> None:
    """Their experiments may all have the name of the base."""
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0], "wedge": [3.0, 4.0]})
    for run in sweep.glob("*/seed-*"):
        (run / "run.json").write_text(json.dumps(read_info(run) | {"name": "digits"}))
    whole = ganlab("compare", sweep, "--json")
    assert ganlab("compare", sweep / "bce", sweep / "wedge", "--json") == whole
    assert ganlab("compare", sweep, sweep / "bce" / "seed-0", "--json") == whole
    assert whole[0] == 0


def test_other_code_of_a_plugin_is_said(tmp_path: Path, ganlab: Command) -> None:
    """As where the file of a loss was edited between two seeds. Other code of a tracker changes no result."""
    sweep = make_sweep(tmp_path / "s", {"wedge": [5.0, 6.0]})
    origins = {"loss.wedge": {"plugin": "wedge", "source": "file"}, "tracker.own": {"plugin": "own", "source": "file"}}

    def set_code(seed: int, sha256: str, imported: str = "a", source: str = "file") -> None:
        run = sweep / "wedge" / f"seed-{seed}"
        components = {label: of | {"sha256": sha256, "source": source} for label, of in origins.items()}
        imports = {"wedge": {"helper": {"file": "helper.py", "sha256": imported}}}
        (run / "run.json").write_text(json.dumps(read_info(run) | {"components": components, "imports": imports}))

    line = "not all these runs had the same code of: loss.wedge\n"
    set_code(0, "1")
    for code, said in ((("1",), False), (("2",), True), (("1", "b"), True)):
        set_code(1, *code)
        assert (line in ganlab("compare", sweep)[1]) == said, code
    for seed in range(2):
        set_code(seed, str(seed), source="bundled")
    assert line not in ganlab("compare", sweep)[1], "of bundled plugins the release is in the protocol"


def test_seeds_that_the_baseline_has_not_are_said(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0], "wedge": [3.0, 4.0, 5.0]})
    (sweep / "bce" / "seed-2").mkdir()
    _, out, _ = ganlab("compare", sweep)
    assert "wedge: of its 3 finished seeds the baseline has 2" in out


def test_nothing_is_said_of_verdicts_where_there_can_be_none(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"a": [5.0, 6.0], "b": [1.0, 2.0], "c": [1.0, 2.1]}, better=None)
    (table,) = comparison_tables(collect_runs([sweep]), "fid", "a", split=False)
    assert table.rows[0].p == 0.5, "the differences are all the same"
    assert {row.verdict for row in table.rows} == {"cannot tell", "baseline"}
    _, out, _ = ganlab("compare", sweep)
    assert "Holm" not in out
    assert "leaves 0 out" not in out


def test_a_score_that_is_not_finite_is_shown_and_never_best(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0], "broken": [math.nan, 1.0]})
    (table,) = comparison_tables(collect_runs([sweep]), None, "bce", split=False)
    assert [row.variant for row in table.rows] == ["bce", "broken"]
    assert table.rows[1].verdict == "cannot tell"
    _, out, _ = ganlab("compare", sweep)
    assert "nan" in out


def test_higher_is_better_turns_the_order_round(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", {"a": [5.0, 6.0], "b": [8.0, 9.0]}, better="higher")
    (table,) = comparison_tables(collect_runs([sweep]), None, None, split=False)
    assert [row.variant for row in table.rows] == ["b", "a"]
    assert table.rows[0].best.mean == 50, "the best of a curve that falls is its first value"


def test_one_seed_has_no_interval(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0], "wedge": [3.0]})
    code, out, _ = ganlab("compare", sweep)
    assert code == 0
    assert "[one seed]" in out
    assert "wedge, bce: fewer than two finished seeds, so no interval and no verdict; add seeds" in out
    assert "better" not in out.replace("lower is better", "")


def test_values_of_different_protocols_are_refused_or_split(tmp_path: Path, ganlab: Command) -> None:
    make_run(tmp_path / "a", [5.0])
    other = PROTOCOL | {"features": {"name": "classifier", "sha256": "def"}}
    make_run(tmp_path / "b", [3.0], name="wedge", protocol=other)
    code, out, err = ganlab("compare", tmp_path / "a", tmp_path / "b")
    assert (code, out) == (2, "")
    assert "fid: protocol.features.sha256 differs: 'abc' (bce) against 'def' (wedge)" in err
    assert "--split" in err
    code, out, _ = ganlab("compare", tmp_path, "--split", "--json")
    assert code == 0
    assert [[row["variant"] for row in table["rows"]] for table in json.loads(out)] == [["bce"], ["wedge"]]
    assert ganlab("compare", tmp_path, "--split", "--csv", "x.csv")[0] == 0
    bce, wedge = csv.DictReader(io.StringIO(Path("x.csv").read_text()))
    assert ("sha256 abc" in bce["protocol"], "sha256 def" in wedge["protocol"]) == (True, True)


def test_rescored_values_do_not_count(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [5.0, 4.0])
    later = {"step": 100, "name": "fid", "better": "lower", "value": 1.0, "protocol": {"other": 1}, "eval": True}
    with (tmp_path / "a" / "metrics.jsonl").open("a") as stream:
        stream.write(record_line(later))
    (table,) = comparison_tables(collect_runs([tmp_path]), None, None, split=False)
    assert table.rows[0].final.mean == 4.0


def test_runs_that_differ_in_more_than_their_seed_share_no_row(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [5.0])
    make_run(tmp_path / "b", [5.0], seed=1, experiment={"train": {"batch_size": 7}})
    with pytest.raises(UserError, match=r"'bce' is two experiments: .* differ in train"):
        collect_runs([tmp_path])


def test_what_was_changed_for_eval_hides_no_comparable_score(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [5.0, 4.0])
    of_eval = {"step": 100, "name": "kid", "better": "lower", "eval": True}
    changed = {**PROTOCOL, "truncation": 0.5}
    for value, protocol in ((2.0, PROTOCOL), (1.0, PROTOCOL), (0.5, changed)):
        with (tmp_path / "a" / "metrics.jsonl").open("a") as stream:
            stream.write(record_line({**of_eval, "value": value, "protocol": protocol}))
    info = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps(info | {"step": 100}))
    (table,) = comparison_tables(collect_runs([tmp_path]), "kid", None, split=False)
    assert table.rows[0].final.mean == 1.0


def test_a_key_of_a_protocol_with_dots_is_told_with_its_values(tmp_path: Path) -> None:
    for name, psi in (("a", 0.5), ("b", 0.7)):
        protocol = {**PROTOCOL, "overrides": {"generator.psi": psi}}
        make_run(tmp_path / name, [5.0], name=name, protocol=protocol)
    with pytest.raises(UserError, match=re.escape("protocol.overrides.generator.psi differs: 0.5 (a) against 0.7 (b)")):
        comparison_tables(collect_runs([tmp_path]), None, None, split=False)


def test_runs_before_and_after_their_project_was_moved_share_a_row(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [5.0], experiment={"plugins": ["/old/z.py", "/old/more/b.py"]})
    make_run(tmp_path / "b", [5.0], seed=1, experiment={"plugins": ["/new/more/b.py", "/new/z.py"]})
    (table,) = comparison_tables(collect_runs([tmp_path]), None, None, split=False)
    assert table.rows[0].final.count == 2
    make_run(tmp_path / "c", [5.0], seed=2, experiment={"plugins": ["/new/other.py"]})
    with pytest.raises(UserError, match=r"'bce' is two experiments: .* differ in plugins"):
        comparison_tables(collect_runs([tmp_path]), None, None, split=False)


def test_a_seed_twice_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [5.0])
    make_run(tmp_path / "b", [5.0])
    with pytest.raises(UserError, match="has seed 0 twice"):
        collect_runs([tmp_path])


def test_refusals(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0]})
    make_run(tmp_path / "scoreless", [], name="none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for arguments, words in (
        ([], "name at least one"),
        (["nowhere"], "nowhere: no run or sweep folder"),
        (["empty"], "empty: no run or sweep folder"),
        ([sweep, "--metric", "fdi"], "--metric fdi: no run has it; did you mean 'fid'?"),
        ([sweep, "--baseline", "bcd"], "--baseline bcd: no such variant; did you mean 'bce'?"),
        (["scoreless"], "these runs have no scores"),
        (["deep.json"], "deep.json: cannot be read as the JSON of `ganlab score` (maximum recursion depth"),
        ([sweep, "scoreless"], "scoreless: finished without 'fid'"),
    ):
        code, out, err = ganlab("compare", *arguments)
        assert (code, out) == (2, ""), arguments
        assert words in err
        assert len(err.strip().splitlines()) == 1


def test_csv_and_json_hold_the_same(tmp_path: Path, ganlab: Command) -> None:
    sweep = make_sweep(tmp_path / "s", {"bce": [5.0, 6.0, 7.0], "wedge": [3.0, 4.2, 4.9]})
    code, out, _ = ganlab("compare", sweep, "--json", "--csv", "x.csv", "--baseline", "bce")
    assert code == 0
    (table,) = json.loads(out)
    rows = list(csv.DictReader(io.StringIO(Path("x.csv").read_text())))
    assert [row["variant"] for row in rows] == [row["variant"] for row in table["rows"]] == ["wedge", "bce"]
    assert float(rows[0]["difference_high"]) == pytest.approx(table["rows"][0]["difference"]["high"])
    assert table["protocol"]["generated"] == 100


# ---------------------------------------------------------------------------------------------------------------------
# Sweeps
# ---------------------------------------------------------------------------------------------------------------------

VARIANTS = {"bce": {}, "smoothed": {"loss_wrapper": [{"name": "label_smoothing"}]}}


@pytest.fixture
def sweep_file(table: dict[str, Any], write: Callable[..., Path]) -> Path:
    """Two variants over two seeds, a few steps each."""
    table["metric"] = [{"name": "fid", "samples": 16, "features": {"name": "classifier", "updates": 20}}]
    write(table)
    return write({"base": "tiny.toml", "seeds": [0, 1], "variants": VARIANTS}, "sweep.toml")


def test_a_sweep_runs_skips_what_has_finished_and_compares(
    sweep_file: Path, write: Callable[..., Path], ganlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "here.py").write_text(HERE)
    monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path / "plugins"))
    write({"base": "tiny.toml", "seeds": [3], "launcher": "here", "variants": VARIANTS}, "sweep.toml")
    code, out, err = ganlab("sweep", sweep_file, "--out", "s")
    assert (code, err) == (0, ""), out
    assert "2/2" in out
    runs = [Path("s/bce/seed-3"), Path("s/smoothed/seed-3")]
    assert [(read_info(run)["status"], read_info(run)["seed"]) for run in runs] == [("finished", 3)] * 2
    assert "2 runs in s, 2 finished already" in ganlab("sweep", sweep_file, "--out", "s")[1]
    (made,) = json.loads(ganlab("compare", "s", "--json")[1])
    finals = {row["variant"]: row["final"]["mean"] for row in made["rows"]}
    assert finals == {run.parts[1]: read_records(run / "metrics.jsonl")[-1]["value"] for run in runs}


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_a_sweep_runs_skips_resumes_and_compares(sweep_file: Path, ganlab: Command) -> None:
    code, out, err = ganlab("sweep", sweep_file, "--jobs", 2, "--out", "s")
    assert code == 0, out + err
    assert "4/4" in out
    runs = sorted(path.parent for path in Path("s").rglob("run.json"))
    assert [str(run) for run in runs] == ["s/bce/seed-0", "s/bce/seed-1", "s/smoothed/seed-0", "s/smoothed/seed-1"]
    assert {read_info(run)["status"] for run in runs} == {"finished"}
    assert {read_info(run)["seed"] for run in runs} == {0, 1}

    # One is interrupted, one is gone: only these two are run again, and end as they had ended.
    before = {run: read_records(run / "metrics.jsonl")[-1]["value"] for run in runs}
    info = read_info(runs[0])
    (runs[0] / "run.json").write_text(json.dumps(info | {"status": "interrupted"}))
    (runs[1] / "run.json").unlink()
    (runs[1] / "log.jsonl").unlink()
    code, out, _ = ganlab("sweep", sweep_file, "--jobs", 2, "--out", "s")
    assert "4 runs in s, 2 finished already" in out
    assert "bce seed 0: finished" in out
    assert "bce seed 1: exit code 2 (--out s/bce/seed-1: is not empty and holds no run" in out, "nothing is lost"
    assert code == 1
    assert read_records(runs[0] / "metrics.jsonl")[-1]["value"] == before[runs[0]]

    code, out, _ = ganlab("compare", "s", "--json")
    assert code == 0
    (made,) = json.loads(out)
    by_variant = {row["variant"]: row for row in made["rows"]}
    assert (by_variant["bce"]["finished"], by_variant["bce"]["others"]) == (1, {"missing": 1})
    assert by_variant["smoothed"]["final"]["mean"] == pytest.approx(sum(before[run] for run in runs[2:]) / 2)


DAMAGED = {
    '{"seeds": [0': "s/sweep.json: damaged: Expecting ',' delimiter: line 1 column 13 (char 12)",
    "[" * 100_000: "s/sweep.json: damaged: ",
    "[]": "s/sweep.json: damaged: it holds no seeds and variants",
    '{"seeds": [0]}': "s/sweep.json: damaged: it holds no seeds and variants",
    '{"seeds": 2, "variants": {"a": {}}}': "s/sweep.json: damaged: it holds no seeds and variants",
    '{"seeds": [0], "variants": {}}': "s/sweep.json: damaged: it holds no seeds and variants",
    '{"seeds": [0], "variants": {"../a": {}}}': "s/sweep.json: damaged: it holds no seeds and variants",
}


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:20])
def test_a_damaged_list_of_runs_is_named(text: str, ganlab: Command) -> None:
    make_sweep(Path("s"), {"a": [1.0, 2.0]})
    assert ganlab("compare", "s")[0] == 0
    Path("s/sweep.json").write_text(text)
    code, _, err = ganlab("compare", "s")
    assert code == 2
    assert err.startswith(DAMAGED[text])
    assert err.endswith("; `ganlab sweep` with --out s writes it anew\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("key", NEEDED)
@pytest.mark.parametrize("value", [None, True])
def test_a_run_that_does_not_say_what_it_is(key: str, value: object, ganlab: Command) -> None:
    make_run(Path("runs/a"), [3.0, 2.0])
    info = json.loads(Path("runs/a/run.json").read_text())
    Path("runs/a/run.json").write_text(json.dumps({**info, key: value}))
    assert ganlab("compare", "runs")[::2] == (2, f"runs/a/run.json: damaged: it holds no {key}\n")


def test_a_run_without_its_time_is_compared(ganlab: Command) -> None:
    make_run(Path("runs/a"), [3.0, 2.0])
    info = json.loads(Path("runs/a/run.json").read_text())
    Path("runs/a/run.json").write_text(json.dumps({key: info[key] for key in NEEDED}))
    code, out, _ = ganlab("compare", "runs", "--json")
    assert (code, json.loads(out)[0]["rows"][0]["final"]["mean"]) == (0, 2.0)


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_what_finished_as_another_experiment_is_not_taken_for_this_one(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command
) -> None:
    write(table)
    sweep_file = write({"base": "tiny.toml", "seeds": [0], "variants": {"bce": {}}}, "sweep.toml")
    assert ganlab("sweep", sweep_file, "--out", "s")[0] == 0
    before = Path("s/sweep.json").read_text()
    code, _, err = ganlab("sweep", sweep_file, "--out", "s", "--set", "train.batch_size=8")
    assert code == 2
    assert "s/bce/seed-0: train.batch_size: was 16, is now 8" in err
    assert "s/bce/seed-0: has finished with the earlier options; choose another --out, or remove it" in err
    code, _, err = ganlab("sweep", sweep_file, "--out", "s", "--set", "train.steps=1000")
    assert code == 2
    assert "has finished with another number of steps; choose another --out, or remove it" in err
    assert Path("s/sweep.json").read_text() == before


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_a_sweep_goes_on_after_its_project_with_a_plugin_file_was_moved(
    table: dict[str, Any], ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Path("first")
    first.mkdir()
    assert ganlab("new", "loss", "mine", "--out", first / "mine.py")[0] == 0
    (first / "tiny.toml").write_text(tomli_w.dumps(table | {"plugins": ["mine.py"], "loss": {"name": "mine"}}))
    sweep = {"base": "tiny.toml", "seeds": [0], "variants": {"mine": {}}}
    (first / "sweep.toml").write_text(tomli_w.dumps(sweep))
    monkeypatch.chdir(first)
    assert ganlab("sweep", "sweep.toml", "--out", "s")[0] == 0
    monkeypatch.chdir("..")
    moved = first.rename("moved")
    monkeypatch.chdir(moved)
    Path("sweep.toml").write_text(tomli_w.dumps(sweep | {"seeds": [0, 1]}))
    code, out, err = ganlab("sweep", "sweep.toml", "--out", "s")
    assert (code, err) == (0, "")
    assert "2 runs in s, 1 finished already" in out
    assert [run.seed for run in collect_runs([Path("s")])] == [0, 1]


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_a_failed_run_never_stops_the_others(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command
) -> None:
    write(table)
    variants = {"good": {}, "no_data": {"dataset": {"name": "image_folder", "path": "gone"}}}
    path = write({"base": "tiny.toml", "seeds": [0], "variants": variants}, "sweep.toml")
    code, out, _ = ganlab("sweep", path, "--out", "s")
    assert code == 1
    assert "good seed 0: finished" in out
    assert "no_data seed 0: exit code 2 (" in out
    assert "no such folder" in out
    assert "see s/no_data/seed-0.log" in out


@pytest.mark.extended
@pytest.mark.kill
@pytest.mark.parametrize(("number", "processes"), [(signal.SIGINT, "real"), (signal.SIGTERM, "forked")])
def test_stopping_a_sweep_saves_its_runs(
    number: signal.Signals,
    processes: str,
    table: dict[str, Any],
    write: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> None:
    if processes == "forked":
        request.getfixturevalue("forked_processes")
    table["train"] |= {"steps": 50_000, "log_every": 10}
    write(table)
    path = write({"base": "tiny.toml", "seeds": [0, 1], "variants": {"bce": {}}}, "sweep.toml")
    command = [sys.executable, "-m", "ganlab", "sweep", str(path), "--jobs", "2", "--out", "s"]
    # As a shell starts a job in the background: SIGINT is ignored, unless the program says otherwise.
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *command]
    process = subprocess.Popen(ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    logs = [Path(f"s/bce/seed-{seed}/log.jsonl") for seed in (0, 1)]
    deadline = time.monotonic() + 90
    while not all(read_records(log) for log in logs) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, (out, err)
    assert b"Traceback" not in err
    for log in logs:
        assert read_info(log.parent)["status"] == "interrupted"
        assert list((log.parent / "checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_terminal_that_is_closed_stops_a_sweep_too(
    number: signal.Signals, table: dict[str, Any], write: Callable[..., Path], ganlab: Command, monkeypatch: Any
) -> None:
    """Else its runs, which have sessions of their own, would go on without it."""
    stopped = []

    def launch(*_: object) -> Any:
        try:
            os.kill(os.getpid(), number)
            yield from ()
        finally:
            stopped.append(number)

    monkeypatch.setattr("ganlab_plugins.launchers.local.Local.launch", launch)
    write(table)
    path = write({"base": "tiny.toml", "variants": {"bce": {}}}, "sweep.toml")
    before = signal.signal(number, lambda *_: None)
    try:
        code, _, err = ganlab("sweep", path, "--out", "s")
    finally:
        signal.signal(number, before)
    assert (code, err, stopped) == (75, "the sweep was stopped; start it again to go on\n", [number])


def test_a_variants_plugins_lie_beside_the_sweep_file(
    table: dict[str, Any], write: Callable[..., Path], wedge: Path
) -> None:
    """The base in another folder, as those that come with ganlab are for a researcher's own sweep."""
    Path("bases").mkdir()
    write(table, "bases/tiny.toml")
    variants = {"wedge": {"plugins": [wedge.name], "loss": {"name": "wedge"}}}
    (planned,) = load_sweep(write({"base": "bases/tiny.toml", "variants": variants}, "s.toml")).planned
    assert f'plugins = ["{wedge}"]' in planned.toml.replace("[\n    ", "[").replace(",\n]", "]")
    variants["wedge"]["plugins"] = ["gone.py"]
    with pytest.raises(UserError, match=rf"plugin file '{wedge.with_name('gone.py')}': no such file"):
        load_sweep(write({"base": "bases/tiny.toml", "variants": variants}, "s.toml"))


def test_a_variant_changes_what_it_names(table: dict[str, Any], write: Callable[..., Path], wedge: Path) -> None:
    """A component by another name drops the options of the one before; lists are taken whole; --set is for all."""
    table["loss"] = {"name": "bce", "reduction": "mean"}
    write(table)
    variants = {"plain": {}, "wedge": {"plugins": [str(wedge)], "loss": {"margin": 2.0, "name": "wedge"}}}
    sweep = load_sweep(write({"base": "tiny.toml", "seeds": [3], "variants": variants}, "s.toml"), ["train.steps=9"])
    plain, changed = sweep.planned
    assert 'reduction = "mean"' in plain.toml
    assert 'name = "wedge"\nmargin = 2.0' in changed.toml
    assert str(wedge) in changed.toml
    assert all("seed = 3" in run.toml and "steps = 9" in run.toml for run in sweep.planned)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base": 3}, "base: expected the path of an experiment file, got 3"),
        ({"base": "none.toml"}, "none.toml: no such file"),
        ({"seeds": []}, "seeds: expected different whole numbers of at least 0, got []"),
        ({"seeds": [1, 1]}, "seeds: expected different whole numbers"),
        ({"seeds": [True]}, "seeds: expected different whole numbers"),
        ({"sedes": [1]}, "sedes: unknown key; did you mean 'seeds'?"),
        ({"dataset": "digits"}, "an experiment's keys are for its base or a variant"),
        ({"variants": {}}, "variants: expected a table [variants.NAME] for each variant, got {}"),
        ({"launcher": "lokal"}, "launcher.name: unknown launcher 'lokal'; did you mean 'local'?"),
        ({"launcher": {"threads": 2}}, "launcher: name: expected the name of a launcher (local"),
        ({"launcher": {"name": "local", "thraeds": 2}}, "launcher.thraeds: unknown key; did you mean 'threads'?"),
        ({"launcher": {"name": "local", "threads": 0}}, "launcher.threads: must be >= 1, got 0"),
        ({"launcher": ["local"]}, "launcher: expected the name of a launcher or a table, got ['local']"),
        ({"variants": {"../x": {}}}, "variants.'../x': a name is letters"),
        ({"variants": {"x": {"seed": 7}}}, "variants.x.seed: cannot be varied; give the seeds by the sweep's key"),
        ({"variants": {"x": {"loss": {"margn": 1}}}}, "loss.margn: unknown key"),
        ({"variants": {"x": {"loss": {"name": "bec"}}}}, "unknown loss 'bec'; did you mean 'bce'?"),
        (
            {"variants": {"x": {}, "y": {"train": {"batch_size": 16}}}},
            "variants.y: resolves to the same experiment as 'x'",
        ),
    ],
)
def test_bad_sweep_files(
    changes: dict[str, Any], line: str, table: dict[str, Any], write: Callable[..., Path], ganlab: Command
) -> None:
    write(table)
    path = write({"base": "tiny.toml", "seeds": [0], "variants": {"x": {}}} | changes, "sweep.toml")
    code, out, err = ganlab("sweep", path, "--out", "s")
    assert (code, out) == (2, "")
    assert line in err
    assert not Path("s").exists()


def test_the_launcher_of_a_sweep(
    table: dict[str, Any], write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file names it, with options; the command's name goes before, and another name drops the options."""
    monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path / "launchers"))
    (tmp_path / "launchers").mkdir()
    (tmp_path / "launchers" / "queue.py").write_text(QUEUE)
    write(table)

    def made(launcher: str | dict[str, Any] | None, wanted: str | None = None) -> str:
        content = {"base": "tiny.toml", "variants": {"x": {}}} | ({"launcher": launcher} if launcher else {})
        return repr(load_sweep(write(content, "sweep.toml"), launcher=wanted).launcher)

    assert made(None) == made("local") == "Local(threads=None)"
    assert made({"name": "local", "threads": 2}) == "Local(threads=2)"
    assert made({"name": "local", "threads": 2}, "local") == "Local(threads=2)"
    assert made({"name": "queue", "partition": "a"}) == "Queue(partition='a')"
    assert made({"name": "queue", "partition": "a"}, "local") == "Local(threads=None)"
    with pytest.raises(UserError, match=r"^--launcher queue: partition: missing; text is needed$"):
        made("local", "queue")
    with pytest.raises(UserError, match=r"sweep\.toml: launcher: name: expected the name of a launcher \(local, queue"):
        made({"threads": 2}, "local")


QUEUE = """
from attrs import frozen
from ganlab import hookimpl

@frozen
class Queue:
    partition: str
    def launch(self, tasks, jobs): ...

@hookimpl
def register_launchers(register): register("queue", Queue)
"""


def test_bad_sweep_arguments(sweep_file: Path, ganlab: Command) -> None:
    assert ganlab("sweep", sweep_file, "--jobs", 0)[0] == 2
    code, _, err = ganlab("sweep", sweep_file, "--launcher", "lokal")
    assert code == 2
    assert err == "--launcher lokal: unknown launcher 'lokal'; did you mean 'local'?\n"
    for key, value, line in (
        (
            "seeds",
            "[7]",
            "--set seeds: is a key of the sweep file, and --set changes its experiments; edit seeds",
        ),
        ("seed", "7", f"--set seed: each variant is trained with the seeds of {sweep_file}, "),
        ("launcher.jobs", "2", "--set launcher: is of the sweep, and --set changes its experiments; use --launcher"),
    ):
        code, _, err = ganlab("sweep", sweep_file, "--set", f"{key}={value}")
        assert (code, len(err.splitlines())) == (2, 1)
        assert err.startswith(line)
