"""A page of the documents as a reader takes it: its files, its commands, and what it says that they print."""

from __future__ import annotations

import re

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./]+\.(?:py|toml))\n")


def files(page: str) -> dict[str, str]:
    """The blocks whose first line is a comment with a file's name, by that name."""
    return {name[1]: text for _, text in BLOCK.findall(page) if (name := FILE.match(text))}


def commands(console: str) -> list[tuple[str, str]]:
    """A console block as (command, what it prints)."""
    return [tuple(part.partition("\n")[::2]) for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]]


def timeless(text: str) -> list[str]:
    """The lines of an output, with what a clock says of it as `…`."""
    text = re.sub(r"\d+\.\d+ (m?s\b)", r"… \1", text)
    return [line.rstrip() for line in text.strip("\n").splitlines()]
