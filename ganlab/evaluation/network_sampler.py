"""The networks of a game that are sampled, as one module: latents and conditions in, images out."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.evaluation.latents import latents
from ganlab.nn.modes import eval_mode
from ganlab.protocols import Sampler, latent_dim_of
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import ComponentError, InvalidRules, quote


class GivenNetworks(Mapping[str, nn.Module]):
    """The networks that a game's sampler or output is given, by name: `InvalidRules` for any other.

    `who` uses them, for that error, and `which` is what they are. One of `known` that is not there is missing, since
    its plugin is: `ComponentError`.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], who: str, which: str, known: Container[str] = frozenset()
    ) -> None:
        self._networks, self._who, self._which, self._known = networks, who, which, known

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self._networks:
            uses = f"{self._who} uses the network {quote(name)}"
            if name in self._known:
                raise ComponentError(f"{uses}, which is missing")
            raise InvalidRules(f"game: {uses}; {self._which}: {', '.join(self._networks)}")
        return self._networks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)


class NetworkSampler(nn.Module):
    """A game's sampler with its networks, such as the running averages: called with latents and conditions.

    `dtype` is the type in which samples are stored, that of the data set that they are like. `options` are the values
    of the sampler's options, by default its own.
    """

    def __init__(
        self,
        sampler: Sampler,
        networks: Mapping[str, nn.Module],
        dtype: str = "uint8",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.sampler, self.dtype = sampler, dtype
        self.options = dict(sampler.options if options is None else options)
        self.networks = nn.ModuleDict({name: networks[name] for name in sampler.networks})

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        return self.sampler.images(self._given, z, condition, **self.options)

    def latents(self, count: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
        """Draws a sampler's latents (count, …) on the CPU, which its networks may have made."""
        with eval_mode(self):
            return self.sampler.latents(self._given, count, generator, truncation)

    @property
    def _given(self) -> GivenNetworks:
        networks: Any = self.networks
        return GivenNetworks(networks, "a sampler", "it names")


def draw_latents(network: nn.Module, count: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
    """Draws latents (count, …) on the CPU for a sampler, or for a network alone, whose latents are normal."""
    if isinstance(network, NetworkSampler):
        return network.latents(count, generator, truncation)
    return latents(count, latent_dim_of(network), generator, truncation)


def sampler_of(name: str) -> Sampler:
    """Returns the sampler of a game that samples one network, by its name: a generator with normal latents."""

    def draw(
        networks: Mapping[str, nn.Module], count: int, generator: torch.Generator, truncation: float | None
    ) -> Tensor:
        return draw_latents(networks[name], count, generator, truncation)

    def images(networks: Mapping[str, nn.Module], z: Tensor, condition: Condition) -> Tensor:
        made: Tensor = networks[name](z, condition)
        return made

    return Sampler((name,), images, draw)


def translator_of(name: str, source: str = "", makes: str = "") -> Sampler:
    """Returns the sampler of a game that translates images by one network, by its name: conditions in, no latents.

    `source` is the game's data set whose images are translated, by its field, or "dataset"; empty for the images that
    are conditions in `[dataset]`. `makes` is the data set whose images a further sampler makes, by its field; empty for
    `[dataset]`.
    """

    def draw(
        networks: Mapping[str, nn.Module], count: int, generator: torch.Generator, truncation: float | None
    ) -> Tensor:
        return torch.zeros(count, 0)

    def images(networks: Mapping[str, nn.Module], z: Tensor, condition: Condition) -> Tensor:
        if condition is None:
            raise ComponentError(f"translator_of({name!r}): [dataset] has no images as conditions; give source=…")
        made: Tensor = networks[name](condition)
        return made

    return Sampler((name,), images, draw, source, makes=makes)
