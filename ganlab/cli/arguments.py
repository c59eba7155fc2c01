"""Types of the arguments that several commands take, with their help and shell completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token

from ganlab.cli.completion import (
    complete_cache_kinds,
    complete_components,
    complete_components_and_kinds,
    complete_devices,
    complete_directions,
    complete_kinds,
    complete_plugins,
    complete_samplers,
    complete_with,
)

Set = Annotated[list[str] | None, Parameter(name="--set")]


def _read_device(type_: type, tokens: Sequence[Token]) -> str:
    """Reads `--device`. The pretend device is unknown to torch until it is asked for."""
    wanted = tokens[0].value
    if wanted.partition(":")[0] == "pretend":
        from ganlab.testing.pretend import install

        install()
    return wanted


Device = Annotated[str, complete_with(complete_devices), Parameter(converter=_read_device)]

CacheKinds = Annotated[list[str] | None, complete_with(complete_cache_kinds)]
Blocked = Annotated[list[str] | None, complete_with(complete_plugins)]
DatasetName = Annotated[str, complete_with(complete_components("dataset"))]
Direction = Annotated[str, complete_with(complete_directions)]
FeaturesName = Annotated[str | None, complete_with(complete_components("features"))]
KindName = Annotated[str, complete_with(complete_kinds)]
LauncherName = Annotated[str | None, complete_with(complete_components("launcher"))]
ListedName = Annotated[str | None, complete_with(complete_components_and_kinds)]
MetricName = Annotated[str | None, complete_with(complete_components("metric"))]
MetricNames = Annotated[list[str] | None, complete_with(complete_components("metric"))]
SamplerName = Annotated[str, complete_with(complete_samplers)]
