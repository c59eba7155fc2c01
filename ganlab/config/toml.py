"""TOML as tables: reading a file, and `--set` overrides of what it says.

Decisions:
- What is read may be anybody's: its size, its depth and its numbers are bounded before a parser meets them.
- An override is TOML too, but that a plain word needs no quotes.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ganlab.utils.errors import UserError, one_line, quote, quote_key

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
LONGEST_PATH = 500  # characters of a path, a key or a setting that an error repeats


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table; raises UserError with the file's name and what is wrong."""
    where = f"{str(path)[:LONGEST_PATH]}…" if len(str(path)) > LONGEST_PATH else str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the name
        raise UserError(f"{quote(where)}: cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{where}: has more than {MAX_BYTES:,} bytes; an experiment file has at most as many")
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    try:
        return parse_toml(text, where)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not valid TOML: {one_line(error)}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML as a table. Raises TOMLDecodeError where it is none, and UserError where it is a bomb."""
    _refuse_bombs(text, where)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of more digits than Python reads; after ';' is how Python could be told to
        raise UserError(f"{where}: {one_line(error).partition(';')[0]}") from None
    # Dotted keys nest as brackets do, and numbers in hexadecimal have no bound in Python. Depth is looked at without
    # recursion, since that is what has to be bounded.
    waiting: list[tuple[Any, str, int]] = [(table, "", 0)]
    while waiting:
        value, at, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise UserError(f"{where}: tables nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            for key, item in value.items():
                waiting.append((item, f"{at}.{quote_key(key)}" if at else quote_key(key), depth + 1))
        elif isinstance(value, list):
            waiting += [(item, at, depth + 1) for item in value]
        elif type(value) is int and not -(2**63) <= value < 2**63:
            raise UserError(f"{where}: {at}: a whole number of more than 64 bits")
    return table


# Each takes what is not closed too, so that no place is looked at twice.
_TEXTS_AND_COMMENTS = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)'''
    r"""|'''.*?(?:'{3,5}|\Z)"""
    r"""|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?"""
    r"""|\#[^\n]*""",
    re.DOTALL,
)


def _refuse_bombs(text: str, where: str) -> None:
    """tomllib recurses into brackets and takes quadratic time over dotted keys, so both are bounded beforehand."""
    bare = _TEXTS_AND_COMMENTS.sub("x", text)
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise UserError(f"{where}: brackets nested {deepest} deep; at most {MAX_DEPTH}")
    # What lies between two of these marks is one key at most.
    if any(part.count(".") > MAX_DEPTH for part in re.split(r"[=,{\[\n]", bare)):
        raise UserError(f"{where}: a dotted key of more than {MAX_DEPTH} parts")
