"""The entry point of the command line: parses arguments, runs a command, turns errors into lines and exit codes.

The commands are in `training_commands`, `result_commands`, `project_command`, `export_command`, `author_commands`,
`data_command` and `cache_command`. They import torch only when called, so that `ganlab --help` answers at once. A
user's mistake is printed to stderr, one line for each problem, and the exit code is 2; `ganlab.utils.errors` has the
other exit codes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from types import ModuleType

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from ganlab import __version__
from ganlab.cli import (
    author_commands,
    cache_command,
    data_command,
    export_command,
    project_command,
    result_commands,
    training_commands,
)
from ganlab.cli.report_error import report_error
from ganlab.utils.errors import GanlabError, PluginFailed
from ganlab.utils.from_python import command_running
from ganlab.utils.signals import ignore_signals_at_exit, keep_exit_code, terminate_as_interrupt
from ganlab.utils.stdio import fail_safe_stream

ENDED_AT_ONCE = 130
"""The exit code after a second Ctrl-C: 128 and the number of SIGINT, as of shells."""

app = App(
    name="ganlab",
    help="Train GANs from experiment files; everything that trains is a plugin.",
    version=__version__,
    help_format="plaintext",  # to import a Markdown parser takes a fifth of the time of `ganlab --help`
    default_parameter=Parameter(negative=(), consume_multiple=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

app.register_install_completion_command(
    help="Let bash, zsh or fish complete commands, options and the names of plugins."
)
app.command(training_commands.run)
app.command(training_commands.sweep)
app.command(result_commands.compare)
app.command(result_commands.evaluate, name="eval")
app.command(result_commands.score)
app.command(result_commands.sample)
app.command(result_commands.translate)
app.command(project_command.project)
app.command(export_command.export)
app.command(result_commands.report)
app.command(training_commands.bench)
app.command(data_command.data)
app.command(data_command.moments)
app.command(author_commands.plugins)
app.command(author_commands.check)
app.command(author_commands.new)
app.command(cache_command.cache)


def main() -> None:
    """The entry point of the `ganlab` command."""
    # A command draws into files only. Another backend, such as the one that a notebook hands to its commands, may not
    # exist here, and matplotlib raises then wherever it is imported.
    os.environ["MPLBACKEND"] = "agg"
    ignore_signals_at_exit()
    sys.stdout, sys.stderr = fail_safe_stream(sys.stdout), fail_safe_stream(sys.stderr)
    code = ENDED_AT_ONCE
    with contextlib.suppress(KeyboardInterrupt):  # a second one, while the first is answered
        terminate_as_interrupt()
        code = call(sys.argv[1:])
    keep_exit_code(code)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """The main function: runs one command line and returns its exit code."""
    stderr = Console(stderr=True)
    warnings.showwarning = _print_warnings_once(stderr)
    if not sys.warnoptions:  # so that the author of a plugin sees which of its imports have moved
        warnings.filterwarnings("default", r"ganlab\.", DeprecationWarning)
    help_to = Console()
    boxed = help_to.is_terminal and help_to.width >= 50
    app.help_formatter = "default" if boxed else "plain"
    if not help_to.is_terminal:
        help_to.width = 10_000  # each line whole, for grep
    try:
        with command_running():
            result = app(arguments, console=help_to, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        error.console = stderr
        report_error(" ".join(str(error).split()), stderr)
        return 2
    except GanlabError as error:
        report_error(f"{error.trace if isinstance(error, PluginFailed) else ''}{error}", stderr)
        return error.exit_code
    except OSError as error:  # `Path.is_file` raises for a folder that may not be entered, and for a name too long
        if error.filename is None or error.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
            raise
        report_error(f"{error.filename}: {error.strerror}", stderr)
        return 2
    except SystemExit as error:
        # No command raises it, so a plugin did: its exit code 0 must not look like success.
        last = traceback.extract_tb(error.__traceback__)[-1]
        report_error(f"ended by SystemExit: {error} ({last.filename}, line {last.lineno})", stderr)
        return 1
    except KeyboardInterrupt:
        report_error("ended at once; a run that has a checkpoint goes on from its latest by --resume", stderr)
        return ENDED_AT_ONCE
    return result if isinstance(result, int) else 0


def _print_warnings_once(stderr: Console) -> Callable[..., None]:
    """A showwarning: one line, no line twice."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        line = f"warning: {message}"
        if line not in said:
            said.add(line)
            stderr.print(line, markup=False, soft_wrap=True)

    return show


class _CallableModule(ModuleType):
    """Calls `main`, as the `ganlab` script of an installation from before this module existed does."""

    def __call__(self) -> None:
        main()


sys.modules[__name__].__class__ = _CallableModule
