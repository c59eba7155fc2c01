"""The networks of a run's checkpoint, for `ganlab.load_run`: each is built and read when it is first asked for."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganlab.nn.pretrained import note_weights
from ganlab.plugin.component import MissingComponent
from ganlab.protocols import ImageSpec, Rules
from ganlab.training.build import build_network
from ganlab.training.checkpoint import load_checkpoint
from ganlab.training.state import ema_part
from ganlab.utils.errors import UserError, one_line


class CheckpointNetworks(Mapping[str, nn.Module]):
    """The networks of a run that `load_run` reads, by name, in eval mode: each is read when it is first asked for.

    Those that are sampled have averaged weights where the checkpoint has an average; `weights` is then "ema".
    """

    def __init__(self, rules: Rules, images: ImageSpec, checkpoint: Path, device: torch.device) -> None:
        configs = {name: rules.network(name).config for name in rules.networks}
        self._names = [name for name, config in configs.items() if not isinstance(config, MissingComponent)]
        self._rules, self._images, self._checkpoint, self._device = rules, images, checkpoint, device
        sampled = rules.sampled
        parts = {name: ema_part(name, sampled) for name in sampled}
        averaged = any((checkpoint / f"{part}.safetensors").is_file() for part in parts.values())
        self.weights = "ema" if averaged else "plain"
        self._parts = parts if averaged else {}
        self.loaded: dict[str, nn.Module] = {}

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self._names:
            raise KeyError(name)
        if name not in self.loaded:
            part = self._parts.get(name, name)
            network = build_network(self._rules.network(name), self._images, self)
            state = load_checkpoint(self._checkpoint, {part})
            note_weights(self._checkpoint / f"{part}.safetensors")  # where another run is initialised by these
            try:
                network.load_state_dict(state[part])
            except (AttributeError, KeyError, RuntimeError, TypeError) as error:
                raise UserError(f"{self._checkpoint}: does not fit the experiment: {one_line(error)}") from None
            self.loaded[name] = network.requires_grad_(False).eval().to(self._device)
        return self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __deepcopy__(self, memo: dict[int, Any]) -> CheckpointNetworks:
        """Copies the networks of a run that `load_run` read: those that have been asked for; others are read again."""
        same = copy.copy(self)
        same.loaded = copy.deepcopy(self.loaded, memo)
        return same


def callable_with_latents(network: nn.Module, info: Mapping[str, Any]) -> nn.Module:
    """Lets the generator of a run that `load_run` reads be called as `generator(z)`, if it does not use conditions.

    Bundled networks have a default for the condition; one of a plugin may not.
    """
    if info.get("condition") is None:
        try:
            inspect.signature(network.forward).bind(None)
        except TypeError:
            network.register_forward_pre_hook(_without_condition, with_kwargs=True)
        except ValueError:  # no signature, as of a compiled function
            pass
    return network


def _without_condition(
    network: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Gives the generator of a run that `load_run` read the condition None where it is called without one."""
    return ((*inputs, None), named) if len(inputs) == 1 and not named else (inputs, named)
