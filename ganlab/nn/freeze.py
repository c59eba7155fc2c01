"""Freezes parameters of networks by name, for `train.freeze`: what a run begins with, and then keeps, as in FreezeD.

Decisions:
- A name is a path, NETWORK.MODULE.PARAMETER, or the beginning of one: `discriminator.layers.0` is all that the module
  has. A part of it may be a range of numbers, `0-3`, both ends included, or `*`, for any name.
- Parameters alone are frozen. A module stays in training mode: batch norm goes on normalising by the batch, and its
  running statistics and spectral norm's estimates follow what passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ganlab.utils.errors import UserError, did_you_mean, quote

if TYPE_CHECKING:
    from torch import nn

MOST_LISTED = 8
"""How many names of modules or parameters an error lists."""


def freeze_parameters(networks: Mapping[str, nn.Module], patterns: Iterable[str]) -> None:
    """Freezes the parameters of networks whose names, NETWORK.PARAMETER, begin as these patterns say.

    `networks` are those that are trained. Raises UserError with a line for each pattern that no parameter matches, and
    for each network of which nothing is left to train.
    """
    parameters = {
        f"{network}.{name}": parameter for network, of in networks.items() for name, parameter in of.named_parameters()
    }
    paths = {name: name.split(".") for name in parameters}
    found: set[str] = set()
    problems: list[str] = []
    for pattern in dict.fromkeys(patterns):
        parts = pattern.split(".")
        matched = {name for name, path in paths.items() if _begins(path, parts)}
        found |= matched
        if not matched:
            problems.append(f"train.freeze: {quote(pattern)} matches no parameter{_nearest(parts, paths.values())}")
    for network, of in networks.items():
        own = {f"{network}.{name}" for name, _ in of.named_parameters()}
        if own and own <= found:
            problems.append(f"train.freeze: nothing of {network!r} is left to train")
    if problems:
        raise UserError(*problems)
    for name in found:
        parameters[name].requires_grad_(False)


def _begins(path: list[str], pattern: list[str]) -> bool:
    """Whether the path of a parameter to freeze begins as a pattern says."""
    return len(path) >= len(pattern) and all(map(_fits, path, pattern))


def _fits(part: str, pattern: str) -> bool:
    if pattern in ("*", part):
        return True
    limits = re.fullmatch(r"(\d{1,9})-(\d{1,9})", pattern)
    return limits is not None and part.isdecimal() and int(limits[1]) <= int(part) <= int(limits[2])


def _nearest(pattern: list[str], paths: Iterable[list[str]]) -> str:
    """For the error about a pattern that freezes nothing: what there is instead of its first part that does not fit."""
    paths = list(paths)
    depth = max(length for length in range(len(pattern)) if any(_begins(path, pattern[:length]) for path in paths))
    here = [path for path in paths if _begins(path, pattern[:depth]) and len(path) > depth]
    names = list(dict.fromkeys(path[depth] for path in here))
    if not names:
        return f"; {'.'.join(pattern[:depth])!r} is a parameter"
    known = [".".join((*pattern[:depth], name)) for name in names]
    if near := did_you_mean(".".join(pattern[: depth + 1]), known) if not pattern[depth][:1].isdecimal() else "":
        return near
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    of = f"{'.'.join(pattern[:depth])} has" if depth else "the networks that are trained:"
    return f"; {of} {', '.join(names[:MOST_LISTED])}{more}"
