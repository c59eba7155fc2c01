"""Initialises the networks of a new run by `initialise` of their configurations, such as a warm start from a file.

Decisions:
- It is apart from `build`, by which a network is also made to be filled from a checkpoint: on resume, to be sampled or
  scored. What it reads may be gone or have changed by then, so it is called only where a run begins.
- It draws its random numbers after those of all networks' weights, which are then the same with and without it.
- Weights and buffers are changed in place: a checkpoint holds their values, and nothing else of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ganlab.nn.initialise import initialise_by, initialise_network
from ganlab.nn.pretrained import noted_weights
from ganlab.plugin.component_errors import collect_component_errors
from ganlab.protocols import Rules
from ganlab.utils.errors import UserError

Files = dict[str, dict[str, str]]
"""The hashes of the weights files that networks were initialised by, by network and path: `initialised` in run.json."""

Start = Callable[[Rules, Mapping[str, nn.Module]], Files]
"""Loads the weights that a run begins with into the networks of its game, after all else that initialises them."""


def initialise_networks(rules: Rules, networks: Mapping[str, nn.Module], start: Start | None = None) -> Files:
    """Initialises the networks of a game in place, as its rules say; returns the weights files that were read.

    Raises UserError with a line for each that cannot be initialised.
    """
    problems: list[str] = []
    files: Files = {}
    for name, network in networks.items():
        with collect_component_errors(problems, name), noted_weights() as read:
            described: Any = rules.network(name)
            initialise_network(described.config, network)
            if described.initialise is not None:
                initialise_by(described.initialise, network)
        if read:
            files[name] = read
    if problems:
        raise UserError(*problems)
    for name, read in start(rules, networks).items() if start else ():
        files.setdefault(name, {}).update(read)
    return files
