"""`ganlab export`: writes a network of a run for use without ganlab: as ONNX, a torch.export program, or its weights.

Decisions:
- The file is written under a temporary name and checked there against the network, at other batch sizes than it was
  traced with; only then has it its own name. Where something fails nothing is left.
- A network that draws random numbers is refused: it would not make the same images elsewhere.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ganlab.run.exported_network import ExportedNetwork
from ganlab.utils.errors import UserError, one_line
from ganlab.utils.files import check_file, check_parents, raise_cannot_write

TOLERANCE = 1e-4
"""The largest difference of a written network's outputs from the original's, relative where these are above 1."""

TRACED, CHECKED = 3, (1, 5)
"""The numbers of rows with which a network is traced, and with which what was written is checked."""

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")

UNTRACEABLE = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError, NotImplementedError)
"""Errors that torch.export raises, or passes on from a network."""


def check_export(out: Path, ending: str = "") -> None:
    """Raises UserError where nothing can be exported to `out`: it is there, or its name does not end as it should."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: is there already; name another, or remove it")
    if ending:
        check_file("--out", out, ending)
    check_parents("--out", out)


@contextlib.contextmanager
def exported_path(out: Path, size: int) -> Iterator[Path]:
    """Gives a temporary path for a file or folder to export; afterwards it is moved to `out`, which must not exist.

    `size` in bytes, if only about, is for the message of CannotWrite.
    """
    check_export(out)
    with raise_cannot_write(out, size):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            yield temporary / out.name
            if (temporary / out.name).is_file():
                (temporary / out.name).chmod(0o644)
            (temporary / out.name).rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_safetensors(network: ExportedNetwork, path: Path) -> None:
    """Exports the weights of networks to a file, by their names in `state_dict`; of several with their names before."""
    states = {name: of.state_dict() for name, of in network.networks.items()}
    several = len(states) > 1
    weights = {
        f"{name}.{key}" if several else key: value.detach().cpu().contiguous().clone()
        for name, state in states.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    save_file(weights, path, {"ganlab": json.dumps(network.facts)})
    read = load_file(path)
    if read.keys() != weights.keys() or not all(torch.equal(read[name], value) for name, value in weights.items()):
        raise UserError(f"export: {path.name}: what was written is not what was to be written")


def traced(network: ExportedNetwork) -> Any:
    """Traces a network to be exported, for any number of rows; raises UserError where it cannot be traced so."""
    given = tuple(network.inputs(TRACED).values())
    rows = torch.export.Dim("batch", min=1)
    names = ", ".join(network.networks)
    program: Any = None
    failures: list[BaseException] = []
    # To trace a network by calling it takes `len(x)` for the number that it is; reading its code, the other way, does
    # not, but knows less of Python.
    for strict in (False, True):
        with contextlib.suppress(_Failed), _quietly(failures), torch.no_grad():
            shapes = (tuple({0: rows} for _ in given),)
            program = torch.export.export(network.module, given, dynamic_shapes=shapes, strict=strict)
            break
    if program is None:
        why = one_line(str(failures[0]).partition("For more information")[0] or failures[0], 200)
        raise UserError(f"export: {names} cannot be traced by torch.export for any number of images: {why}")
    with torch.no_grad():
        once, again = (network.module(*given) for _ in range(2))
    differ = not all(map(torch.equal, once, again))
    for node in program.graph.nodes:
        if differ and _draws(node):
            raise UserError(f"export: {names} draws random numbers, by {_operator(node.target)} in {_module_of(node)}")
    return program


class _Failed(Exception):
    """An attempt to trace a network for export has failed."""


@contextlib.contextmanager
def _quietly(failures: list[BaseException]) -> Iterator[None]:
    """Attempts to trace a network for export: what fails is added to `failures`, and _Failed is raised.

    A tracer's own warnings and log lines, which concern its developers, are left out.
    """
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UNTRACEABLE as error:
        failures.append(error)
        raise _Failed from None
    finally:
        logger.setLevel(level)


def write_program(network: ExportedNetwork, path: Path) -> float:
    """Exports a network as a torch.export program, and checks it; returns the largest difference."""
    program = io.BytesIO()  # torch takes a path of one suffix alone
    torch.export.save(traced(network), program, extra_files={"ganlab.json": json.dumps(network.facts)})
    path.write_bytes(program.getvalue())
    module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(module(*inputs.values()))

    return _difference(network, run)


def write_onnx(network: ExportedNetwork, path: Path) -> float:
    """Exports a network as ONNX, and checks it by onnxruntime; returns the largest difference.

    Raises UserError where one of the packages is missing, and for an operator that ONNX does not have.
    """
    if missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"--to onnx: needs {', '.join(missing)}: pip install 'ganlab[onnx]'")
    import onnxruntime

    program = traced(network)
    names = list(network.inputs(TRACED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made: Any = torch.onnx.export(
                program, dynamo=True, input_names=names, output_names=list(network.outputs), verbose=False
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f"--to onnx: {_why_no_onnx(program, error)}") from None
    made.model.metadata_props["ganlab"] = json.dumps(network.facts)
    made.save(str(path))
    if len(list(path.parent.iterdir())) > 1:
        raise UserError("--to onnx: the weights are too large for one file of ONNX; --to torch has them in one")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    used = {given.name for given in session.get_inputs()}

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        found = session.run(None, {name: of.numpy() for name, of in inputs.items() if name in used})
        return [torch.from_numpy(array) for array in found]

    return _difference(network, run)


def _difference(network: ExportedNetwork, run: Callable[[dict[str, Tensor]], list[Tensor]]) -> float:
    """The largest difference of an exported network's outputs from the original's; UserError above the tolerance."""
    largest = 0.0
    for count in CHECKED:
        inputs = network.inputs(count)
        with torch.no_grad():
            wanted = network.module(*inputs.values())
        for name, one, other in zip(network.outputs, wanted, run(inputs), strict=True):
            if one.shape != other.shape:
                raise UserError(f"export: {name} has the shape {tuple(other.shape)} there, and {tuple(one.shape)} here")
            scale = max(1.0, float(one.abs().max())) if one.numel() else 1.0
            difference = float((one.double() - other.double()).abs().max()) / scale if one.numel() else 0.0
            if not difference <= TOLERANCE:
                raise UserError(f"export: {name} differs by {difference:.3g} from that of the run's own network")
            largest = max(largest, difference)
    return largest


def _why_no_onnx(program: Any, error: BaseException) -> str:
    """Why a network cannot be exported to ONNX: the operator, and the module that calls it."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    for node in program.run_decompositions().graph.nodes:
        if repr(getattr(node, "target", None)) in str(reason) and node.op == "call_function":
            return f"ONNX has no operator for {_operator(node.target)}, which {_module_of(node)} calls"
    return f"the network cannot be converted: {one_line(reason)}"


def _draws(node: Any) -> bool:
    """Whether a node of a network to be exported may draw random numbers; dropout does not, but in training."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return all(given.get(name) is not False for name in ("train", "training"))


def _operator(target: Any) -> str:
    return f"torch.ops.{target}"


def _module_of(node: Any) -> str:
    """The module of a network to be exported that a node of the traced graph is of, with its class."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "the network")
    named = str(kind).rpartition(".")[2]
    inner = path.removeprefix("network.").removeprefix("networks.")
    return f"{inner} ({named})" if inner else named
