"""Checkpoints, held against the state that went in: nothing lost, nothing torn, nothing damaged taken for whole."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ganlab.training import checkpoint
from ganlab.training.checkpoint import (
    DamagedCheckpoint,
    from_bytes,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    to_bytes,
)
from ganlab.utils.optimizer_state import load_optimizer_state, load_state_that_fits
from ganlab.utils.state_tree import find_non_finite


def state() -> dict[str, Any]:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return {
        "network": network.state_dict(),
        "optimizers": {"network": optimizer.state_dict()},
        "odd": {"empty": {}, "none": None, "pair": (1, [2.5, "x", True]), 7: torch.arange(3), "inf": float("inf")},
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    saved = state()
    path = save_checkpoint(tmp_path, 12, saved)
    assert path.name == "step-00000012"
    loaded = load_checkpoint(path)
    saved["network"] = dict(saved["network"])
    assert same(saved, loaded)
    assert same(load_checkpoint(path, {"odd"}), {"odd": saved["odd"]})


def test_tensors_whose_names_are_joined_alike_stay_apart(tmp_path: Path) -> None:
    """A dot may stand in a name, as in those of parameters, and so may what keeps two names apart."""
    a, b, c, d = (torch.full((2,), float(value)) for value in range(4))
    odd = {"a": {"b.c": a}, "a.b": {"c": b}, "a.b.c": c, "a.b.c_": d}
    assert same(from_bytes(to_bytes(odd)), odd)
    assert same(load_checkpoint(save_checkpoint(tmp_path, 1, {"part": odd})), {"part": odd})


def test_keys_that_are_tuples_are_read_again(tmp_path: Path) -> None:
    odd = {("up", 1): torch.arange(2), ("up", 2): {3: "x"}, None: 1.5}
    assert same(load_checkpoint(save_checkpoint(tmp_path, 1, {"part": odd})), {"part": odd})


def test_an_optimisers_state_keeps_its_types() -> None:
    """torch itself makes of it what the weights are: float32 here."""
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3, 1, 1), ())]
    weights[0].data = weights[0].data.to(memory_format=torch.channels_last)
    one, other = (torch.optim.SGD(weights) for _ in range(2))
    for weight in weights:
        mean = torch.full_like(weight, 1 / 3, dtype=torch.float64)
        one.state[weight] = {"mean": mean, "count": torch.tensor(2**24 + 1), "seen": torch.tensor([True]), "plain": 3}
    load_optimizer_state(other, from_bytes(to_bytes(one.state_dict())))
    for weight in weights:
        assert same(one.state[weight], other.state[weight])
        assert other.state[weight]["mean"].stride() == weight.stride()


def adam(*shapes: tuple[int, ...], kind: Any = torch.optim.Adam, **options: Any) -> torch.optim.Optimizer:
    """An optimiser of weights of these shapes after a step."""
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer: torch.optim.Optimizer = kind(weights, **options)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer


def test_a_state_of_other_weights_or_of_another_optimiser_is_not_loaded() -> None:
    saved = adam((2, 3), (3,), lr=1.0).state_dict()
    alike = adam((2, 3), (3,), lr=2.0)
    assert load_state_that_fits(alike, saved)
    assert alike.param_groups[0]["lr"] == 2.0, "the options are its own"
    for other in (adam((2, 3)), adam((3,), (2, 3)), adam((2, 3), (3,), kind=torch.optim.SGD, lr=1.0)):
        before = other.state_dict()
        assert not load_state_that_fits(other, saved)
        assert same(other.state_dict(), before)


def test_a_network_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    saved = state()
    path = save_checkpoint(tmp_path, 1, saved)
    assert same(dict(saved["network"]), dict(sorted(load_file(path / "network.safetensors").items()))) or (
        load_file(path / "network.safetensors").keys() == saved["network"].keys()
    )


def test_no_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, state())
    for file in path.iterdir():
        assert file.suffix in (".safetensors", ".json")
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, UnicodeDecodeError)):
            pickle.loads(file.read_bytes())  # noqa: S301 - it must fail


def test_what_cannot_be_saved_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"very\.deep is a set"):
        save_checkpoint(tmp_path, 1, {"part": {"very": {"deep": {1}}}})
    with pytest.raises(TypeError, match="a object"):
        save_checkpoint(tmp_path, 1, {"part": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_is_cut_short_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    save_checkpoint(tmp_path, 1, before)
    real, calls = checkpoint._write, []

    def failing(path: Path, data: bytes) -> str:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        return real(path, data)

    monkeypatch.setattr(checkpoint, "_write", failing)
    for step in (1, 2):
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path, step, state())
    assert list(list_checkpoints(tmp_path)) == [1]
    before["network"] = dict(before["network"])
    assert same(load_checkpoint(tmp_path / "step-00000001"), before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, damage_empty, damage_gone])
@pytest.mark.parametrize("file", ["network.safetensors", "optimizers.safetensors", "state.json", "manifest.json"])
def test_damage_is_seen_and_named(damage: Any, file: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, state())
    load_checkpoint(path)
    damage(path / file)
    with pytest.raises(DamagedCheckpoint) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_unfinished_folders_are_no_checkpoints(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 20, state())
    save_checkpoint(tmp_path, 3, state())
    (tmp_path / ".step-00000030-123").mkdir()
    (tmp_path / "step-x").mkdir()
    assert list(list_checkpoints(tmp_path)) == [3, 20]
    assert list_checkpoints(tmp_path / "none") == {}
    assert json.loads((tmp_path / "step-00000003" / "manifest.json").read_text())["step"] == 3


def test_what_is_not_finite_is_named() -> None:
    assert find_non_finite({"a": [torch.ones(2), (torch.arange(3), None, "x")]}) is None
    assert find_non_finite({"a": [torch.tensor([1.0, float("nan")])]}) == "a.0"
    assert (
        find_non_finite({"ok": torch.ones(1), "ema": {"layer.0.bias": torch.tensor(float("-inf"))}})
        == "ema.layer.0.bias"
    )
    optimizer = {"state": {0: {"step": torch.ones(()), "exp_avg": torch.tensor([torch.inf])}}}
    assert find_non_finite({"optimizers": {"generator": optimizer}}) == "optimizers.generator.state.0.exp_avg"
