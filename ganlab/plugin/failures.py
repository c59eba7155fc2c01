"""Errors that a plugin's code raises: catching them, describing them in one line, attributing them to the plugin."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from types import TracebackType

from attrs import define

from ganlab.plugin.component import Origin
from ganlab.plugin.registry import Registry
from ganlab.utils.errors import PluginFailed, is_lost_process, one_line


@define
class PluginFailure:
    """A plugin that failed, and one cause: a line of text with the line number in the plugin's own file."""

    origin: Origin
    cause: str

    def __str__(self) -> str:
        return f"plugin {self.origin.located}: {self.cause}"


class CatchPluginErrors:
    """Context manager around a plugin's code: stores what it raises in `error`, even SystemExit, and continues."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> CatchPluginErrors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, KeyboardInterrupt):
            return False
        self.error = error
        return error is not None


def line_in_plugin(frames: Iterable[traceback.FrameSummary], origin: Origin) -> str:
    """Returns `"line 7: "`, the innermost frame in the plugin's own file, or an empty string if there is none."""
    lines = [frame.lineno for frame in frames if frame.filename == str(origin.file)]
    return f"line {lines[-1]}: " if lines else ""


def describe_error(error: BaseException, origin: Origin) -> str:
    """Describes an error of a plugin in one line, with the innermost line of the plugin's own file in the traceback."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(origin.file)]
    text = "…"
    with CatchPluginErrors():  # the exception's __str__ may be the plugin's code too
        text = one_line(error)
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing and origin.file is not None and (origin.file.parent / f"{missing}.py").is_file():
        text += "; a plugin is one file, or a package that is installed (docs/publishing.md)"
    return f"{type(error).__name__}: {text}" + (f" (line {lines[-1]})" if lines else "")


def attribute_to_plugin(error: BaseException, registry: Registry, when: str) -> BaseException:
    """Returns PluginFailed with the innermost plugin in the error's traceback, or the error if there is none.

    That another process has ended is no plugin's failure.
    """
    traces = []
    trace = error.__traceback__
    while trace is not None:
        traces.append((trace, registry.origin_of(trace.tb_frame.f_code.co_filename)))
        trace = trace.tb_next
    found = [(trace, origin) for trace, origin in traces if origin is not None]
    if not found or is_lost_process(error):
        return error
    _, origin = found[-1]
    first = next(trace for trace, of in found if of == origin)  # without the frames of the game that called it
    text = ""
    with CatchPluginErrors():
        text = "".join(traceback.format_exception(type(error), error, first))
    return PluginFailed(f"plugin {origin} raised {when}: {describe_error(error, origin)}", text)
