"""What callers from Python are told, held against types of Python, NumPy and torch, and commands' messages."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ganlab
from ganlab.utils.errors import CannotWrite, GanlabError, UserError
from ganlab.utils.from_python import command_running, from_python

Ganlab = Callable[..., tuple[int, str, str]]


@from_python
def draw(
    *paths: str | Path,
    count: int = 1,
    lr: float = 0.5,
    loop: bool = True,
    images: Tensor | None = None,
    seeds: int | Sequence[int] = 0,
    overrides: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Any:
    """A public function that returns what it was given."""
    return locals()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"count": "a"}, "count: expected a whole number, got 'a'"),
        ({"count": True}, "count: expected a whole number, got True"),
        ({"count": 2.0}, "count: expected a whole number, got 2.0"),
        ({"count": np.zeros(2, int)}, "count: expected a whole number, got ndarray"),
        ({"lr": "a"}, "lr: expected a number, got 'a'"),
        ({"lr": torch.zeros(2)}, "lr: expected a number, got Tensor"),
        ({"loop": "no"}, "loop: expected True or False, got 'no'"),
        ({"images": np.zeros(2)}, "images: expected a Tensor or None, got ndarray"),
        ({"seeds": [1, "a"]}, "seeds: expected a whole number or a list of whole numbers, got [1, 'a']"),
        ({"overrides": [5]}, "overrides: expected a list of texts, got [5]"),
        ({"overrides": "a=1"}, "overrides: expected a list of texts, got 'a=1'; write ['a=1']"),
        ({"overrides": {"a": 1}}, "overrides: expected a list of texts, got dict"),
        ({"options": ["a"]}, "options: expected a dictionary or None, got ['a']"),
    ],
)
def test_arguments_of_other_types_are_refused_by_name(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=f"^draw: {re.escape(line)}$"):
        draw(**wrong)


def test_arguments_are_taken_from_other_libraries() -> None:
    given = draw("a", Path("b"), count=np.int64(3), lr=np.float32(1), seeds=np.arange(2), overrides=iter(["a=1"]))
    assert (given["paths"], given["count"], given["lr"]) == (("a", Path("b")), 3, 1)
    assert (given["seeds"], given["overrides"]) == ((0, 1), ("a=1",))
    assert type(given["count"]) is int
    assert draw(seeds=torch.tensor(4), images=None)["seeds"] == 4
    with pytest.raises(UserError, match=r"^draw: paths: expected a text or a path, got \[5\]"):
        draw(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"draw\(\) got an unexpected keyword argument 'cuont'"):
        draw(cuont=3)  # type: ignore[call-arg]


class Thing:
    """An object with an attribute that is an option of a command."""

    fps = 100

    @from_python
    def save(self, path: str, line: str, overwrite: bool = False) -> None:
        raise UserError(line, "--out x: second")

    @from_python
    def saved(self, line: str) -> None:
        self.save("p", line)

    @from_python
    def not_written(self, path: str) -> None:
        raise CannotWrite(f"--out {path}: full")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--out a.avi: expected FILE.mp4", "path a.avi: expected FILE.mp4"),
        ("--fps 100: expected 0.1 to 50", "fps 100: expected 0.1 to 50"),
        ("goes on by --overwrite, or (--no-overwrite)", "goes on by overwrite=True, or (overwrite=False)"),
        ("nevertheless: --overwrite --out", "nevertheless: overwrite=True, path"),
        ("`ganlab sample --out x` and '--out' and a--out", "`ganlab sample --out x` and '--out' and a--out"),
        ("--gone 3: it's --gone's", "--gone 3: it's --gone's"),
        ("--save: nothing", "save: nothing"),
    ],
)
def test_options_in_messages_become_arguments(line: str, wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        Thing().save("p", line)
    assert caught.value.problems == (wanted, "path x: second")
    assert str(caught.value) == f"{wanted}\npath x: second"
    assert caught.traceback[-1].name == "public", "where the mistake was found says nothing to the caller"
    with command_running(), pytest.raises(UserError) as caught:
        Thing().save("p", line)
    assert caught.value.problems[0] == line
    # The outermost function's arguments are those that the caller wrote.
    with pytest.raises(UserError, match=r"--out x: second"):
        Thing().saved(line)
    with pytest.raises(GanlabError, match=r"^path q: full$"):
        Thing().not_written("q")


@pytest.mark.extended
@pytest.mark.slow
def test_the_public_functions_say_what_their_callers_can_write(table: dict[str, Any], ganlab_run: Path) -> None:
    run = ganlab.load_run(ganlab_run)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: ganlab.train(table, overrides=[5]), "train: overrides: expected a list of texts, got [5]"),
        (lambda: ganlab.train(table, out=5), "train: out: expected a text, a path or None, got 5"),
        (lambda: ganlab.train(table, out=ganlab_run), f"out {ganlab_run}: holds an earlier run (finished); go on with"),
        (
            lambda: ganlab.train({**table, "name": "new"}, resume=True),
            "resume=True: no unfinished run of 'new' with seed 0 in runs/new; name its folder with out",
        ),
        (lambda: ganlab.train({"seed": 2**70 * 1.0, "train": {"steps": np.int64(3)}}), "experiment: train.steps: exp"),
        (lambda: ganlab.train({3: 4}), "experiment: 3: expected a text as key, got 3"),
        (lambda: ganlab.load_run(ganlab_run, step=7), f"step 7: {ganlab_run} has no such checkpoint"),
        (lambda: ganlab.load_run(5), "load_run: path: expected a text or a path, got 5"),
        (lambda: run.sample(2, options={"psi": 1}), "options psi: the sampler has no such option"),
        (lambda: run.sample(2, sampler="back"), "sampler 'back': the game of this run has no such sampler"),
        (lambda: run.walk(frames=0), "frames 0: expected at least 1"),
        (lambda: run.walk(labels="cat"), "walk: labels: expected a list of whole numbers or texts, got 'cat'; write"),
        (lambda: run.walk(seeds=[1, 2], count=3), "count 3: goes without several seeds; 2 are given"),
        (lambda: run.walk(count=1), "walk: leads from 1 stop to nowhere"),
        (lambda: run.walk(frames=2, fps=90).save("x.gif"), "fps 90: expected 0.1 to 50 frames a second of a GIF"),
        (lambda: run.project(run.sample(1), lr="a"), "project: lr: expected a number, got 'a'"),
        (lambda: run.project(run.sample(1), feature_weight=-1.0), "feature_weight -1: expected a finite number"),
        (lambda: run.project(run.sample(1), range=[0, 1]), "range: is for files that are read; a tensor is given"),
        (lambda: run.project("x.png", range=[1, 0]), "range 1 0: expected two finite numbers, the lower one first"),
        (lambda: run.project("x.png"), "x.png: no such file or folder"),
        (lambda: run.project(run.sample(1), feature_weight=2.0), "feature_weight: is for features that are compared"),
        (lambda: ganlab.compare_runs(ganlab_run), "these runs have no scores; give their experiments a [[metric]]"),
        (lambda: ganlab.compare_runs(5), "compare_runs: paths: expected a text or a path, got [5]"),
        (lambda: ganlab.show_images("x"), "show_images: images: expected a Tensor, got 'x'"),
        (lambda: ganlab.list_plugins(plugins=[5]), "list_plugins: plugins: expected a list of texts or paths, got [5]"),
        (lambda: ganlab.check(Thing, 5), "check: kind: expected a text, got 5"),
    ]
    for call, line in calls:
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value).startswith(line), (line, str(caught.value))
        assert len(caught.value.problems) == 1


@pytest.fixture
def ganlab_run(table: dict[str, Any], write: Callable[..., Path], ganlab: Ganlab) -> Path:
    assert ganlab("run", write(table), "--out", "r", "--set", "train.steps=1")[0] == 0
    return Path("r")


def test_a_run_is_trained_in_the_main_thread_alone() -> None:
    raised: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: raised.append(_error_of(lambda: ganlab.train({"name": "x"}))))
    thread.start()
    thread.join()
    assert [str(error) for error in raised] == [
        "train: is for the main thread, which alone hears signals; elsewhere start `ganlab run`"
    ]


def _error_of(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except UserError as error:
        return error
    return None
