"""Arguments that several commands take, each with its help and with what a shell offers for it."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ganlab.cli.completion import components, components_and_kinds, kinds, offered
from ganlab.cli.completion import plugins as plugin_names

Set = Annotated[list[str] | None, Parameter(name="--set", help="KEY=VALUE, any TOML value; can be repeated.")]
Device = Literal["auto", "cpu", "cuda"]

Blocked = Annotated[list[str] | None, offered(plugin_names)]
DatasetName = Annotated[str, offered(components("dataset"))]
FeaturesName = Annotated[str | None, offered(components("features"))]
KindName = Annotated[str, offered(kinds)]
LauncherName = Annotated[str | None, offered(components("launcher"))]
ListedName = Annotated[str | None, offered(components_and_kinds)]
MetricName = Annotated[str | None, offered(components("metric"))]
MetricNames = Annotated[list[str] | None, offered(components("metric"))]
