"""Reads TOML files safely: the size, the nesting depth and the numbers of untrusted text are limited before parsing."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from ganlab.utils.errors import UserError, one_line, quote, quote_key

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
LONGEST_PATH = 500  # characters of a path, a key or an override that an error message repeats


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file as a table; raises UserError with the file's name and the problem."""
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
    if (encoding := wide_encoding(data)) is not None:
        raise UserError(f"{where}: not UTF-8 text but {encoding}; save it as UTF-8")
    if data and not data.strip(b"\0"):  # as some crashes leave a file
        raise UserError(f"{where}: holds only zero bytes; restore it from a copy")
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    try:
        return parse_toml(text, where)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not valid TOML: {one_line(error)}") from None


def wide_encoding(data: bytes) -> str | None:
    """For TOML text: "UTF-16" or "UTF-32" if bytes look like it, with or without a byte order mark; else None."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # TOML's signs and keys are ASCII, whose other bytes are 0 in these; no text in UTF-8 has a 0.
    zeros = sum(data[place::4].count(0) * 12 > len(data) for place in range(4))  # more than a third of every fourth
    return {2: "UTF-16", 3: "UTF-32"}.get(zeros)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parses TOML text. Raises TOMLDecodeError for invalid TOML and UserError for too deep nesting or large numbers."""
    _check_nesting(text, where)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # more digits than Python's limit; after ';' Python explains how to raise the limit
        raise UserError(f"{where}: {one_line(error).partition(';')[0]}") from None
    # Dotted keys nest like brackets, and Python does not limit hexadecimal numbers. The depth is checked without
    # recursion, since recursion is what has to be limited.
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


# Each alternative also matches an unterminated text, so that the search takes linear time.
_TEXTS_AND_COMMENTS = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)'''
    r"""|'''.*?(?:'{3,5}|\Z)"""
    r"""|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?"""
    r"""|\#[^\n]*""",
    re.DOTALL,
)


def _check_nesting(text: str, where: str) -> None:
    """Limits brackets and dotted keys in TOML text: tomllib recurses into brackets and is quadratic in dotted keys."""
    bare = _TEXTS_AND_COMMENTS.sub("x", text)
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise UserError(f"{where}: brackets nested {deepest} deep; at most {MAX_DEPTH}")
    # Between two of these characters there is at most one key.
    if any(part.count(".") > MAX_DEPTH for part in re.split(r"[=,{\[\n]", bare)):
        raise UserError(f"{where}: a dotted key of more than {MAX_DEPTH} parts")
