"""The layers of the core: an import goes to the same package or a lower one, and no two modules import each other.

Held by the sources alone. Imports inside functions and under `TYPE_CHECKING` count too: what may be imported late is
still known, and what is known is depended on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganlab

CORE = Path(ganlab.__file__).parent
LAYERS = (
    "utils",
    "protocols",
    "plugin",
    "config",
    "nn",
    "data",
    "viz",
    "evaluation",
    "training",
    "run",
    "sweep",
    "report",
    "bench",
    "testing",
    "cli",
)
"""The packages, lowest first."""

MOST_LINES = 400
MOST_LINES_OF_TRAINING = 2500
MOST_FLAT = 10


def module_name(file: Path) -> str:
    return ".".join(("ganlab", *file.relative_to(CORE).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_name(file): file for file in sorted(CORE.rglob("*.py"))}


def public_names() -> dict[str, str]:
    """The public names of `ganlab` and the module that each is imported from, as `__init__.pyi` lists them."""
    stub = ast.parse((CORE / "__init__.pyi").read_text(encoding="utf-8"))
    found = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"ganlab.{node.module}" for alias in node.names}
    return found


PUBLIC = public_names()


def imports(module: str) -> Iterator[tuple[str, int]]:
    """The modules that a module imports, each with its line; a name of `ganlab` itself counts as its module."""
    file = FILES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield (
                    (inner if inner in FILES else PUBLIC.get(alias.name, source) if source == "ganlab" else source),
                    (node.lineno),
                )


EDGES = {module: list(imports(module)) for module in FILES}


def package_of(module: str) -> str:
    """The package of a module of the core; "" for the flat ones."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (CORE / parts[1]).is_dir() else ""


def test_every_package_has_a_layer() -> None:
    assert {package_of(module) for module in FILES} - {""} == set(LAYERS)


@pytest.mark.parametrize("package", LAYERS)
def test_no_import_goes_up(package: str) -> None:
    upward = [
        f"{FILES[module].relative_to(CORE.parent)}, line {line}: imports {target}, of a higher package"
        for module, found in EDGES.items()
        if package_of(module) == package
        for target, line in found
        if target.split(".")[0] == "ganlab"
        and package_of(target)
        and LAYERS.index(package_of(target)) > LAYERS.index(package)
    ]
    assert not upward, "\n".join(upward)


def test_the_core_imports_no_bundled_plugin() -> None:
    found = [
        f"{FILES[module].relative_to(CORE.parent)}, line {line}: imports {target}"
        for module, edges in EDGES.items()
        for target, line in edges
        if target.split(".")[0] == "ganlab_plugins"
    ]
    assert not found, "\n".join(found)


def test_no_two_modules_import_each_other() -> None:
    """Directly or by way of others. A package's `__init__` counts only where it is named."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, f"a circle of imports: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done:
            return
        path.append(module)
        for target, _ in EDGES[module]:
            if target in FILES and target != "ganlab":
                visit(target)
        done.add(path.pop())

    for module in FILES:
        visit(module)


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_says_what_it_is_for_and_what_it_may_import(package: str) -> None:
    """Which are packages below it, and at least those that it does import."""
    file = CORE / package / "__init__.py"
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    name = file.relative_to(CORE.parent)
    assert len(said.split("May import")[0]) > 40, f"{name}: its docstring does not say what the package is for"
    assert "May import" in said, f"{name}: its docstring has no sentence 'May import …'"
    sentence = re.split(r"\bbut\b|\n\n", said.split("May import", 1)[1])[0]
    named = set(re.findall(r"\w+", sentence)) & set(LAYERS)
    higher = [other for other in named if LAYERS.index(other) > LAYERS.index(package)]
    assert not higher, f"{name}: 'May import' names {', '.join(higher)}, of a higher layer"
    if named:
        modules = [module for module in FILES if package_of(module) == package]
        used = {package_of(target) for module in modules for target, _ in EDGES[module] if target in FILES}
        missing = sorted(used - named - {"", package})
        assert not missing, f"{name}: 'May import' does not name {', '.join(missing)}, which is imported"


@pytest.mark.parametrize("module", FILES)
def test_no_file_is_long(module: str) -> None:
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{FILES[module].relative_to(CORE.parent)}: {lines} lines, at most {MOST_LINES}"


def test_training_stays_small() -> None:
    files = [file for module, file in FILES.items() if package_of(module) == "training"]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    assert lines < MOST_LINES_OF_TRAINING, f"ganlab/training: {lines:,} lines, under {MOST_LINES_OF_TRAINING:,} wanted"


def test_few_modules_lie_flat() -> None:
    flat = sorted(file.name for file in CORE.glob("*.py"))
    assert len(flat) <= MOST_FLAT, f"{len(flat)} modules lie flat in ganlab/: {', '.join(flat)}"
