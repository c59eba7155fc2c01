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
    "dataset shuffled": (
        dataset("pixels if split == 'train' else pixels.flip(0)", seed='"train"'),
        "# build",
        "splits",
        "the images of the training split, in another order",
    ),
    "dataset sizes": (
        dataset("pixels if split == 'train' else pixels[..., 1:]"),
        "# build",
        "splits",
        "uint8 (1, 8, 7) for an image, and the training split uint8 (1, 8, 8)",
    ),
    "dataset classes": (
        dataset("pixels").replace("split)\n\n", 'split, torch.arange(32) % (4 if split == "train" else 5))\n\n'),
        "# build",
        "splits",
        "the test split has 5 classes, and the training split 4",
    ),
    "dataset labels by chance": (
        dataset("pixels").replace(
            "split)\n\n", "split, torch.from_numpy(np.random.default_rng().permutation(32)))\n\n"
        ),
        "# build",
        "again",
        "other conditions",
    ),
    "dataset test split by chance": (
        dataset("pixels + torch.randint(0, 9, (8, 8), generator=chance).byte() * (split == 'test')").replace(
            "        stream", "        chance = torch.Generator(); chance.seed()\n        stream"
        ),
        "# build",
        "again",
        "another fingerprint, of its test split",
    ),
    "features float64": (features("rows.double()"), "# call", "shape", "returns torch.float64 (1, 8)"),
    "features batch": (features("rows - rows.mean(0)"), "# call", "rows", "depend on the others in its batch"),
    "features place": (
        features("rows + torch.arange(len(rows))[:, None]"),
        "# call",
        "rows",
        "depend on the others in its batch, or on its place in it",
    ),
    "features spatial by chance": (
        features(
            "rows",
            "spatial_dim = 8\n    def spatial(self, images):  # here\n"
            "        return self(images) + torch.from_numpy(np.random.default_rng().random((len(images), 8))).float()",
        ),
        "# here",
        "shape",
        "returns other spatial for the same images in a second call",
    ),
    "features logits of the batch": (
        features("rows", "def logits(self, images): return self(images) - self(images).mean(0)  # here"),
        "# here",
        "classes",
        "an image's logits depend on the others in its batch",
    ),
    "features belongs by place": (
        features("rows", "def belongs(self, images): return torch.arange(len(images)) > 0  # here"),
        "# here",
        "classes",
        "an image's belongs depend on the others in its batch, or on its place in it",
    ),
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
