"""Every kind of features and the metrics on them, on the pretend device against the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from pretend_features import compare_features
from pretend_work import needs_pretend, on_pretend

SLOW = (pytest.mark.extended, pytest.mark.large)


@needs_pretend
@pytest.mark.parametrize(
    "kind", ["pixels", *(pytest.param(kind, marks=SLOW) for kind in ("classifier", "inception", "timm"))]
)
def test_scores_on_a_device_are_those_of_the_cpu(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, shared_folder: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    if kind == "inception":
        file = request.getfixturevalue("weights")
    elif kind == "timm":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_file(timm.create_model("test_vit").state_dict(), file)
    found = on_pretend(compare_features, tmp_path, kind, str(file), str(tmp_path))
    assert len(found) >= 5
    # The CPU takes other memory formats, and so other orders of sums.
    assert {
        name: there for name, (here, there) in found.items() if there != pytest.approx(here, rel=1e-3, abs=1e-6)
    } == {}
