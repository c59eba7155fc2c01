"""Published methods as plugins of one file (tests/methods): each conforms, trains, and is the same on two processes."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

from ganlab.testing import conformance

FOLDER = Path(__file__).parent / "methods"
FILES = sorted(FOLDER.glob("*.py"))
MOST_LINES = 60


def lines_of_code(file: Path) -> int:
    """The lines of a method's code: without imports, docstrings, comments, empty lines and networks (`nn.Module`)."""
    source = file.read_text()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_network = isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(base) for base in node.bases)
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_network or is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt)
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code = {
        token.start[0] for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in layout
    }
    return len(code - left_out)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_method_is_short(file: Path) -> None:
    assert lines_of_code(file) <= MOST_LINES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_method_conforms(file: Path) -> None:
    for component in conformance(file):
        component.hold()
