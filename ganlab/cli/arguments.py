"""Types of the arguments that several commands take, with their help and shell completion."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ganlab.cli.completion import (
    complete_cache_kinds,
    complete_components,
    complete_components_and_kinds,
    complete_kinds,
    complete_plugins,
    complete_with,
)

Set = Annotated[list[str] | None, Parameter(name="--set")]
Device = Literal["auto", "cpu", "cuda"]

CacheKinds = Annotated[list[str] | None, complete_with(complete_cache_kinds)]
Blocked = Annotated[list[str] | None, complete_with(complete_plugins)]
DatasetName = Annotated[str, complete_with(complete_components("dataset"))]
FeaturesName = Annotated[str | None, complete_with(complete_components("features"))]
KindName = Annotated[str, complete_with(complete_kinds)]
LauncherName = Annotated[str | None, complete_with(complete_components("launcher"))]
ListedName = Annotated[str | None, complete_with(complete_components_and_kinds)]
MetricName = Annotated[str | None, complete_with(complete_components("metric"))]
MetricNames = Annotated[list[str] | None, complete_with(complete_components("metric"))]
