"""The core names no network: the words "generator" and "discriminator" are in games, which are plugins, and not in it.

Identifiers, keywords and texts of all files of `ganlab/` are held against this, docstrings and comments aside. What is
allowed is listed here with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganlab

CORE = Path(ganlab.__file__).parent
NETWORK = re.compile("generator|discriminator", re.IGNORECASE)

ALLOWED_FILES = {
    "_moved_names.py": "names of earlier releases",
    "plugin/kinds.py": "the kinds of networks, and the members of the protocol of a loss",
    "plugin/hookspecs.py": "the hooks of these kinds",
    "protocols/__init__.py": "the protocols of the networks of these kinds",
    "protocols/loss.py": "the protocol of a loss, which has a method for each",
    "protocols/network.py": "the protocols of the networks of these kinds",
    "run/alarms.py": "the name of an alarm, which log records have",
    "testing/loss.py": "the conformance checks of a loss's two methods",
    "testing/tiny_components.py": "the networks and losses of the suite's own game",
    "testing/tiny_game.py": "the suite's own game, which names its networks",
}

RANDOM = "testing/pretend/"
"""The folder of the pretend device, which has torch's random generators."""

ALLOWED_NAMES = {
    "generator_uses_real": "a declaration of a loss",
    "default_generators": "torch's random generators",
    "global_generators_used": "random generators",
}


def words(source: str) -> Iterator[tuple[int, str]]:
    """Yields the lines and words of a source that name a network: not random generators, and not a loss's methods."""
    tree = ast.parse(source)
    random = _random_generators(tree)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=of, attr=name):
                of_loss = name in ("generator", "discriminator") and re.search(r"\bloss\)?$", ast.unparse(of))
                found = [] if of_loss or (name == "Generator" and ast.unparse(of) == "torch") else [name]
            case ast.Call(func=function, keywords=keywords):
                of_torch = ast.unparse(function).startswith("torch.")
                found = [key.arg for key in keywords if key.arg and not (of_torch and key.arg == "generator")]
            case ast.Name(id=name) | ast.arg(arg=name):
                found = [] if name in random.get(id(node), ()) else [name]
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found = [name]
            case ast.alias(name=name, asname=other):
                found = [name, other or ""]
            case ast.ImportFrom(module=name):
                found = [name or ""]
            case ast.Constant(value=str(text)):
                found = [] if id(node) in docstrings else [text]
            case _:
                continue
        for word in found:
            if NETWORK.search(word) and word not in ALLOWED_NAMES:
                yield getattr(node, "lineno", 0), word


def _random_generators(tree: ast.Module) -> dict[int, set[str]]:
    """The names that a function gives torch's random generators, by the nodes of the function."""
    found: dict[int, set[str]] = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = set()
        for node in ast.walk(function):
            if isinstance(node, ast.arg) and node.annotation and "torch.Generator" in ast.unparse(node.annotation):
                names.add(node.arg)
            if isinstance(node, ast.Assign) and re.search(r"torch\.Generator|default_generators", ast.unparse(node)):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(function):
            found.setdefault(id(node), set()).update(names)
    return found


def words_of_file(path: str) -> list[tuple[int, str]]:
    found = list(words((CORE / path).read_text()))
    if path == "protocols/turn.py":  # the parameter of `Turn.show` with which a game gives a network's name
        return [(line, word) for line, word in found if word != "generator"]
    return found


def test_the_core_names_no_network() -> None:
    files = [path.relative_to(CORE).as_posix() for path in sorted(CORE.rglob("*.py"))]
    files = [file for file in files if not file.startswith(RANDOM)]
    assert len(files) > 150
    lines = [
        f"{file}:{line}: {word!r}" for file in files if file not in ALLOWED_FILES for line, word in words_of_file(file)
    ]
    assert not lines, "\n".join(lines)


def test_what_is_allowed_is_used() -> None:
    assert [file for file in ALLOWED_FILES if not words_of_file(file)] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fake = step.networks['discriminator'](fake)", ["discriminator"]),
        ("own.generator.build(images)", ["generator"]),
        ("train(discriminator=d)", ["discriminator"]),
        ("def step(generator: nn.Module): return generator(z)", ["generator", "generator"]),
        ("print(f'the Generator learns')", ["the Generator learns"]),
        ("from ganlab.nn import discriminator_blocks", ["discriminator_blocks"]),
        ("class TinyGenerator: 'A generator.'", ["TinyGenerator"]),
        ("def draw(generator: torch.Generator): return torch.randn(3, generator=generator)", []),
        ("def draw():\n    generator = torch.Generator()\n    return generator", []),
        ("self.loss.discriminator(real, fake) + copy.deepcopy(loss).generator(real, fake)", []),
    ],
)
def test_the_words_that_are_found(source: str, expected: list[str]) -> None:
    assert sorted(word for _, word in words(source)) == sorted(expected)
