"""Options in words, held against TOML: what they say is read, what they exclude is refused in these words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
from attrs import Factory, frozen

from ganlab import Interval, component, components
from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.describe import class_description, describe_type, option_docs, options_of
from ganlab.config.schema import Experiment, Train
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins


@pytest.mark.parametrize(
    ("kind", "words", "good", "bad"),
    [
        (bool, "true or false", "true", "'true'"),
        (int, "a whole number", "3", "3.0"),
        (float | None, "a number", "3", "'3'"),
        (Optional[str], "text", "'3'", "3"),  # noqa: UP045
        (Interval, 'a number of steps or "N epochs"', "'2 epochs'", "'2 weeks'"),
        (Literal["a", "b", "c"], "'a', 'b' or 'c'", "'c'", "'d'"),
        (Literal[1, 3], "1 or 3", "3", "2"),
        (Union[int, Literal["original"]], "a whole number or 'original'", "'original'", "'published'"),  # noqa: UP007
        (tuple[int, ...], "a list of whole numbers", "[1, 2]", "1"),
        (list[str], "a list of texts", "['a']", "'a'"),
        (tuple[float, float], "a list of 2 numbers", "[1, 2]", "[1]"),
        (tuple[int, str], "a list of a whole number, text", "[1, 'a']", "[1]"),
        (tuple[tuple[int, int], ...], "a list of lists of 2 whole numbers", "[[1, 2]]", "1"),
    ],
)
def test_a_type_in_words_and_the_refusal_of_a_value_that_they_exclude(
    kind: Any, words: str, good: str, bad: str
) -> None:
    assert describe_type(kind) == words
    converter = TableConverter(load_plugins().registry).converter
    converter.structure(tomllib.loads(f"x = {good}")["x"], kind)
    with pytest.raises((ValueError, InvalidTable), match=r"expected ") as refusal:
        converter.structure(tomllib.loads(f"x = {bad}")["x"], kind)
    assert f"expected {words}, got" in str(refusal.value)


def test_types_that_come_by_other_ways() -> None:
    assert describe_type(Path) == "a path"
    assert describe_type(Mapping[str, int]) == describe_type(dict) == describe_type(Train) == "a table"


@frozen
class Everything:
    """What it is,
    on two lines.

    And more.
    low, high: the two ends
    of the range.
    part: the first; not a sentence: with a colon. often: how often.

    unheard: of.
    """

    low: int
    high: int = 2
    part: Any = component("loss", default="bce")
    parts: Any = components("features")
    often: Interval = Interval(2, "epochs")
    pair: tuple[float, float] = (0.5, 1.0)
    twice: int = Factory(lambda self: 2 * self.low, takes_self=True)
    wrong: int = Factory(lambda: 1 // 0)


def test_options_with_their_defaults_and_what_the_docstring_says() -> None:
    assert [(o.name, o.type, o.default) for o in options_of(Everything)] == [
        ("low", "a whole number", None),
        ("high", "a whole number", "2"),
        ("part", "the name of a loss or a table", "'bce'"),
        ("parts", "a list of tables ([[features]])", "[]"),
        ("often", 'a number of steps or "N epochs"', "'2 epochs'"),
        ("pair", "a list of 2 numbers", "[0.5, 1.0]"),
        ("twice", "a whole number", "made from the other options"),
        ("wrong", "a whole number", "none, since it raises ZeroDivisionError"),
    ]
    assert option_docs(Everything) == {
        "low": "the two ends of the range.",
        "high": "the two ends of the range.",
        "part": "the first; not a sentence: with a colon.",
        "often": "how often.",
    }
    assert class_description(Everything) == "What it is,\non two lines.\n\nAnd more.\n\nunheard: of."


def test_no_name_of_a_python_type_and_every_bundled_option_explained() -> None:
    registry = load_plugins().registry
    classes = [component.cls for kind in KINDS for component in registry.of_kind(kind)]
    for cls in (Experiment, Train, *classes):
        for option in options_of(cls):
            assert not {"int", "str", "float", "bool", "tuple", "None"} & set(option.type.replace("[", " ").split())
            assert "|" not in option.type
            assert option.doc or cls is Experiment, f"{cls.__name__}.{option.name}"
