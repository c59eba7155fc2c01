"""The printed results of `ganlab bench`: a table of loops and speeds, and lines on the parts of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from ganlab.report.table_output import format_setting, print_rich_table


def print_benchmark(result: Mapping[str, Any], console: Console) -> None:
    """Prints the results of a benchmark."""
    rates, ratios = result["steps_per_second"], result["ratios"]
    table = RichTable(title=f"{result['experiment']}, batch {result['batch_size']}", title_justify="left")
    for heading in ("loop", "steps/s", "ms a step", "ganlab is"):
        table.add_column(heading, overflow="fold")
    rows = [
        [name, f"{rate:,.2f}", f"{1000 / rate:,.2f}", f"{ratios[name]:.2f} times as fast" if name in ratios else ""]
        for name, rate in rates.items()
    ]
    for row in rows:
        table.add_row(*row)
    print_rich_table(table, rows, console)
    where = f"{result['device']}, {result['threads']} threads, torch {result['torch']}, {result['precision']}"
    parts = ", ".join(
        f"{'of which penalties' if name == 'penalties' else name} {value:.2f}"
        for name, value in result["milliseconds"].items()
    )
    top = result["ceilings"]
    levers = {name.replace("_", " "): value for name, value in result["levers"].items() if name != "captured"}
    unfit = result["unfit_for_capture"]
    lines = [
        f"{where}; medians of {result['rounds']} rounds in turns",
        "; ".join(f"{name}: {format_setting(value)}" for name, value in levers.items()),
        f"fit for capture as a CUDA graph: {f'no: {unfit}' if unfit else 'yes'}",
        f"milliseconds of a step: {parts}",
        f"{top['gflop_per_step']:.2f} Gflop a step: {top['share']:.0%} of the {top['gflops']:,.0f} Gflop/s of "
        f"{top['dtype']} products here; memory {top['gigabytes_per_second']:.0f} GB/s",
    ]
    lines += [f"{part['kind']} {part['name']}: {part['time'] - 1:+.1%} of a step's time" for part in result["plugins"]]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
