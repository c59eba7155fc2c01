"""Samples conditions (class labels, images, attributes, or several) for generated images, for sample grids and scores.

Decisions:
- Networks that do not use conditions get none, whatever the data set has.
- Conditions are drawn from the data set's own, so classes have the data's frequencies. Labels are sorted, so that the
  class counts in run.json are enough to draw the same conditions for a loaded run. Several conditions are drawn
  together, as an entry of the data set has them.
- Conditions have their own random stream, so they do not change the latents.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ganlab.data.class_labels import class_names
from ganlab.data.pixels import as_input, as_stored, type_name
from ganlab.protocols import Dataset, condition_count, labels_in, map_condition
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import UserError, one_line, printable, quote, whole_number

LONGEST_LIST = 300
"""The most characters of a list of classes in an error."""

MAX_GRID_ROWS = 32
"""The most classes of a sample grid, one row each."""


@frozen(eq=False)
class ConditionSampler:
    """A sampler of a data set's conditions: sorted class labels int64 (N,), images (N, C, H, W), or None.

    Images are of the data's type. Conditions may also be attributes float32 (N, K, …), or several conditions by name.
    `names` holds the name of each class where the data set has any.
    """

    known: Condition = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> ConditionSampler:
        condition = dataset.condition
        labels = labels_in(condition)
        if labels is None:
            return cls(condition)
        names = class_names(dataset, int(labels.max()) + 1 if len(labels) else 0)
        return cls(condition if isinstance(condition, Mapping) else labels.sort().values, names)

    @classmethod
    def counted(cls, counts: Sequence[int], names: Sequence[str] = ()) -> ConditionSampler:
        """Makes a condition sampler from class counts, and the names of the classes; unconditional without counts."""
        known = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) if counts else None
        return cls(known, tuple(names) if len(names) == len(counts) else ())

    def record(self) -> Any:
        """Returns the condition sampler's entry in run.json: the class counts, None, or in a word what it is.

        A word says that conditions are drawn from the data set again where a run is loaded.
        """
        if self.known is None:
            return None
        if isinstance(self.known, Mapping):
            return "several"
        return self.counts or ("images" if self.known.dtype != torch.float32 else "attributes")

    def label_of(self, label: int | str) -> int:
        """The condition sampler's number of a class that `--label` names; raises UserError if there is none.

        A text is the class's name, or its number where no class has that name.
        """
        count = len(self.counts)
        if not count:
            raise UserError(f"--label {quote(label)}: the networks of this run know no classes")
        if not isinstance(label, str):
            label = whole_number("--label", label, -(2**63))
        else:
            same = [index for index, name in enumerate(self.names) if name == label]
            if len(same) > 1:
                raise UserError(
                    f"--label {label}: the classes {', '.join(map(str, same))} have this name; give a number"
                )
            if same:
                return same[0]
            if not re.fullmatch("[0-9]{1,18}", label):
                raise UserError(
                    f"--label {one_line(label, 60)}: no class of this run has that name; the classes are "
                    f"{self._classes_in_words()}{self._nearest_names(label)}"
                )
            label = int(label)
        if not 0 <= label < count:
            raise UserError(f"--label {label}: expected one of the {count:,} classes, {self._classes_in_words()}")
        return label

    def _classes_in_words(self) -> str:
        """The condition sampler's classes for an error: their numbers, and their names where the list is short."""
        numbers = f"0 to {len(self.counts) - 1}"
        shown = ", ".join(one_line(printable(name), 40) for name in self.names)
        return f"{numbers} ({shown})" if self.names and len(shown) <= LONGEST_LIST else numbers

    def _nearest_names(self, label: str) -> str:
        """For an error: the condition sampler's names of classes that are most similar, in any case of letters."""
        names = {name.casefold(): name for name in reversed(self.names)}
        near = difflib.get_close_matches(label.casefold(), list(names), n=3, cutoff=0.55)
        return f"; did you mean {' or '.join(quote(names[folded]) for folded in near)}?" if near else ""

    def of_class(self, label: int | str) -> ConditionSampler:
        """Returns a condition sampler of one class, by number or name. Raises UserError if there is no such class.

        Several conditions are those of the data set's entries of that class.
        """
        number = self.label_of(label)
        if not isinstance(self.known, Mapping):
            return ConditionSampler(torch.tensor([number]), self.names)
        labels = labels_in(self.known)
        assert labels is not None  # it has classes
        chosen = (labels == number).nonzero()[:, 0]
        if not len(chosen):
            raise UserError(f"--label {label}: the data set has no entry of that class, whose other conditions to take")
        return ConditionSampler(map_condition(lambda part: part[chosen], self.known), self.names)

    @property
    def counts(self) -> list[int]:
        """The condition sampler's number of images of each class; empty without class labels."""
        labels = labels_in(self.known)
        return [] if labels is None else labels.bincount().tolist()

    def drawn(self, count: int, generator: torch.Generator) -> Any:
        """Samples random conditions as network inputs: labels (count,), images (count, C, H, W), … or None."""
        if self.known is None:
            return None
        chosen = torch.randint(condition_count(self.known), (count,), generator=generator)
        return map_condition(lambda part: as_input(part[chosen]), self.known)

    def as_stored(self, condition: Any) -> Any:
        """Converts conditions that the condition sampler has drawn to the types of the data set, exactly."""

        def stored(part: Tensor, known: Tensor) -> Tensor:
            return part if known.dtype in (torch.int64, torch.float32) else as_stored(part, type_name(known.dtype))

        return None if condition is None else map_condition(stored, condition, self.known)

    def rows(self, count: int) -> Tensor | None:
        """Samples conditions for a grid: class labels (rows, columns), a class per row, at most `count`; or None.

        None also for several conditions, of which the class is only one.
        """
        rows = 0 if isinstance(self.known, Mapping) else min(len(self.counts), MAX_GRID_ROWS, count)
        return torch.arange(rows)[:, None].expand(rows, count // rows) if rows else None


UNCONDITIONAL = ConditionSampler()
