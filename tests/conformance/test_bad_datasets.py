"""The conformance checks of data sets and features, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, dataset, features

pytestmark = pytest.mark.usefixtures("quick_timing")


BAD: dict[str, BadPlugin] = {
    "dataset test split": (dataset("pixels", seed='"train"'), "# build", "splits", "the images of the training split"),
    "dataset any split": (
        dataset("pixels", refuse="False"),
        "# build",
        "splits",
        "a split named 'no such split'",
    ),
    "dataset chance": (
        dataset("pixels + torch.randint(0, 9, (8, 8), generator=chance).byte()").replace(
            "        stream", "        chance = torch.Generator(); chance.seed()\n        stream"
        ),
        "# build",
        "again",
        "another fingerprint",
    ),
    "dataset random": (
        dataset("pixels + 0 * torch.randint(0, 9, (1,)).byte()"),
        "# build",
        "randomness",
        "build draws torch's global random numbers",
    ),
    "features float64": (features("rows.double()"), "# call", "shape", "returns torch.float64 (1, 8)"),
    "features batch": (features("rows - rows.mean(0)"), "# call", "rows", "depend on the others in its batch"),
    "features random": (features("rows + 0 * torch.rand(1)"), "# call", "randomness", "draws torch's"),
    "features in place": (features("rows + 0 * images.zero_().float().mean((1, 3))"), "# call", "images", "in place"),
    "features logits": (
        features("rows", "def logits(self, images): return self(images).argmax(1)  # here"),
        "# here",
        "classes",
        "logits returns torch.int64 (5,)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
