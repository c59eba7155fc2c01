"""The page of the GPU script: what each part found, as one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
p { margin: .4rem 0; } .quiet { color: #5a6675; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0; }
th, td { border-bottom: 1px solid #dde3ea; padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; }
td { min-width: 4.5rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.fine { color: #11693b; } .rehearsed { color: #1f4f99; } .failed, .out { color: #a61b1b; font-weight: 600; }
.left, .not { color: #5a6675; }
pre { background: #f4f6f8; padding: .6rem; overflow-x: auto; font-size: 12px; white-space: pre-wrap; }
img { max-width: 100%; image-rendering: pixelated; margin: .5rem 1rem .5rem 0; } a { color: inherit; }
"""


def page_of(results: Mapping[str, Any]) -> str:
    """The page of what `results.json` holds."""
    machine = ", ".join(f"{name} {value}" for name, value in results.get("machine", {}).items())
    commit = f"; commit {results['commit']}" if results.get("commit") else ""
    body = [
        f"<h1>{escape(verdict(results))}</h1>",
        f'<p class="quiet">{escape(results["began"])}, {results.get("seconds", 0)} s; {escape(machine + commit)}</p>',
    ]
    if results["rehearsed"]:
        body.append(
            f"<p>There is no GPU here: the parts ran on {escape(results['device'])}, smaller. This shows that the "
            "script runs, and says nothing about a GPU.</p>"
        )
    if results.get("missing"):
        body.append(f"<p>Not installed here: {escape(', '.join(results['missing']))}. With a network:</p>")
        body.append(f"<pre>{escape(results['download'])}</pre>")
        if results.get("installing"):
            body.append(f"<p>pip said: {escape(results['installing'])}</p>")
    body.append(_overview(results["parts"]))
    body += [_part(part) for part in results["parts"] if part["status"] != "not run"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>ganlab on a GPU</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def verdict(results: Mapping[str, Any]) -> str:
    """One line on all parts."""
    counts: dict[str, int] = {}
    for part in results["parts"]:
        counts[part["status"]] = counts.get(part["status"], 0) + 1
    order = ("failed", "out of time", "passed", "rehearsed", "left out", "not run")
    said = ", ".join(f"{counts[status]} {status}" for status in order if status in counts)
    where = results["machine"].get("gpu", results["device"])
    how = "rehearsed" if results["rehearsed"] else "tested"
    return f"ganlab, {how} on {where}: of {len(results['parts'])} parts {said}"


def _overview(parts: list[dict[str, Any]]) -> str:
    rows = []
    for part in parts:
        status = part["status"]
        time = f"{part['seconds']} of {part['limit']}" if "seconds" in part else ""
        first = next(iter([*part.get("faults", []), *part.get("left_out", [])]), "")
        rows.append(
            f'<tr><td><a href="#{part["name"]}">{part["name"]}</a></td><td>{escape(part["about"])}</td>'
            f'<td class="{_class(status)}">{status}</td><td class="number">{time}</td>'
            f"<td>{escape(_short(first))}</td></tr>"
        )
    head = '<tr><th>part</th><th></th><th></th><th class="number">seconds</th><th>first of what it said</th></tr>'
    return f'<div class="table"><table>{head}{"".join(rows)}</table></div>'


def _part(part: Mapping[str, Any]) -> str:
    status = part["status"]
    lines = [
        f'<h2 id="{part["name"]}">{part["name"]} <span class="{_class(status)}">{status}</span></h2>',
        f'<p class="quiet">{escape(part["about"])}; on {escape(part["device"])}, {part["seconds"]} s</p>',
    ]
    lines += [f'<p class="failed">{escape(text)}</p>' for text in part.get("faults", [])]
    lines += [f"<p>Left out: {escape(text)}</p>" for text in part.get("left_out", [])]
    lines += [f"<p>{escape(text)}</p>" for text in part.get("notes", [])]
    if part.get("rows"):
        lines.append(_table(part["rows"]))
    lines += [_picture(Path(path)) for path in part.get("pictures", []) if Path(path).exists()]
    if part.get("last_lines"):
        lines.append(f"<p>The end of {escape(part['log'])}:</p><pre>{escape(chr(10).join(part['last_lines']))}</pre>")
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table; those with other columns than the ones before begin another."""
    tables: list[list[dict[str, Any]]] = []
    for row in rows:
        if tables and tables[-1][0].keys() == row.keys():
            tables[-1].append(row)
        else:
            tables.append([row])
    return "\n".join(f'<div class="table"><table>{_lines(table)}</table></div>' for table in tables)


def _lines(rows: list[dict[str, Any]]) -> str:
    numeric = {name for name in rows[0] if all(_is_number(row[name]) or row[name] is None for row in rows)}

    def cells(tag: str, values: Mapping[str, Any]) -> str:
        made = []
        for name, value in values.items():
            kind = ' class="number"' if name in numeric else ""
            made.append(f"<{tag}{kind}>{escape(_text(value))}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    head = cells("th", {name: name.replace("_", " ") for name in rows[0]})
    return head + "".join(cells("td", row) for row in rows)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _class(status: str) -> str:
    return "fine" if status == "passed" else status.partition(" ")[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p class="quiet">{escape(path.name)}</p><img alt="{escape(path.name)}" src="data:image/png;base64,{data}">'


def _short(text: str, most: int = 90) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
