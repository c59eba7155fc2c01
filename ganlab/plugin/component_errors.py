"""Collects the errors of components while a training is built, so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.memory import is_out_of_memory


@contextmanager
def collect_component_errors(problems: list[str], table: str, device: object = "this machine") -> Iterator[None]:
    """Adds a `ComponentError` or out-of-memory error of the body to `problems`, each line after its table's name."""
    try:
        yield
    except ComponentError as error:
        problems += [f"{table}: {line}" for line in str(error).splitlines()]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problems.append(f"{table}: too large for the memory of {device}: {one_line(error, limit=160)}")
