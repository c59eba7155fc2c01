"""LPIPS, the perceptual distance of translated or restored images to their targets, in features of a trained network.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv:1801.03924), equation
1: at each position the features of a layer have unit length; their squared differences, weighted by channel, are
averaged over positions and added up over layers. Version 0.1 of the authors' package lpips.

Decisions:
- Nothing is downloaded: the network's weights are a file of torchvision's, which the user has. The weights of channels
  are a few kB, and come with the packages torchmetrics and lpips.
- Images are rounded to 256 levels, as they are written to files. Grey images stand for those with equal channels.
- float32 throughout, whatever the precision of training. The fingerprint is of the weights as loaded.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Evaluation,
    FittingBatches,
    Interval,
    Metric,
    Register,
    Scores,
    about_output,
    full_precision,
    hookimpl,
    location,
    output_scores,
    read_weights,
    tensors_sha256,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

NetworkName = Literal["alex", "vgg", "squeeze"]

LAYERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "alex": ("alexnet", (1, 4, 7, 9, 11)),
    "vgg": ("vgg16", (3, 8, 15, 22, 29)),
    "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12)),
}
"""Each network's name in torchvision, and which of its layers are compared."""

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of red, green and blue in [-1, 1], before the network."""

EPSILON = 1e-10
"""Is added to the length that features are divided by."""

BATCH = 64
"""How many pairs of images are compared at a time, reduced if memory runs out."""


@frozen
class LPIPS:
    """LPIPS: the perceptual distance of what the game makes of a split to the split's images; 0 for equal ones.

    weights: a file of the network's weights, torchvision's AlexNet, VGG-16 or SqueezeNet 1.1: .safetensors, or a .pth
        that contains only tensors.
    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be images of the data's shape.
    split: whose images are the targets.
    network: whose features are compared: "alex", as most published scores, "vgg" or "squeeze".
    linear: a file of the weights of channels, such as alex.pth of the package lpips; by default that of torchmetrics
        (`pip install 'ganlab[lpips]'`).
    enlarge: images are first made so many times as large, bilinearly: images of less than 31 pixels are too small for
        "alex".
    """

    weights: str = location()
    every: Interval = Interval()
    output: str = field(default="translation", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"
    network: NetworkName = "alex"
    linear: str | None = location(default=None)
    enlarge: int = field(default=1, validator=[validators.ge(1), validators.le(64)])

    def prepare(self, evaluation: Evaluation) -> None:
        """LPIPS refuses a game without the output, files that do not fit, and images that its network cannot take."""
        evaluation.outputs(self.output, self.split)
        self._distance(evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`lpips`."""
        distance = self._distance(evaluation)
        values = output_scores(evaluation, self.output, self.split, distance)
        return Scores(
            values={"lpips": float(values.mean())},
            better={"lpips": "lower"},
            protocol={
                "metric": "lpips",
                "network": {"name": self.network, "sha256": distance.fingerprint},
                **about_output(self.output, evaluation.dataset(self.split)),
                "images": "uint8, rounded",
                "enlarged": self.enlarge,
                "mean": "over images",
            },
        )

    @property
    def files(self) -> LPIPSFiles:
        """Which network LPIPS compares, and its files."""
        return LPIPSFiles(self.weights, self.network, self.linear, self.enlarge)

    def _distance(self, evaluation: Evaluation) -> Distance:
        """The distance of images, loaded once for an evaluation."""
        channels, height, width = evaluation.dataset(self.split).images.shape[1:]
        if channels not in (1, 3):
            raise ComponentError(f"lpips compares images of 1 or 3 channels, got {channels}")
        whole = evaluation.whole or evaluation
        key = ("lpips", self.network, self.weights, self.linear, self.enlarge, height, width)
        distance: Distance = whole.keep(key, lambda: self.files.loaded((height, width), evaluation.device))
        return distance


@frozen(eq=False)
class Distance:
    """LPIPS of float32 images (n, C, H, W) in [-1, 1], rounded to 256 levels, to others: (n,).

    `heads` are the weights of the channels, (C, 1, 1), by the number of each compared layer of `features`.
    """

    features: nn.Sequential
    heads: Mapping[int, Tensor]
    enlarge: int
    device: torch.device
    fingerprint: str
    batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        return FittingBatches(self._of_pairs, BATCH)

    def __call__(self, made: Tensor, target: Tensor) -> Tensor:
        import torch

        from ganlab import to_uint8

        pairs = torch.stack([to_uint8(images).to(self.device) for images in (made, target)], 1)
        with torch.no_grad(), full_precision(self.device):
            return self.batches(pairs)

    def _of_pairs(self, pairs: Tensor) -> Tensor:
        """The distances (n,) of uint8 pairs (n, 2, C, H, W)."""
        import torch

        total = torch.zeros(len(pairs), device=pairs.device)
        for head, unit in self.units(pairs.flatten(0, 1).float() / 127.5 - 1):
            first, second = unit.unflatten(0, (-1, 2)).unbind(1)
            total = total + ((first - second).square() * head).sum(1).mean((1, 2))
        return total

    def units(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What LPIPS compares of float images (n, 1 or 3, H, W) in [-1, 1], by layer: its head (C, 1, 1) and unit maps.

        The maps are (n, C, h, w), of length 1 at each position.
        """
        from torch.nn.functional import interpolate

        if self.enlarge > 1:
            images = interpolate(images, scale_factor=self.enlarge, mode="bilinear")
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        maps = (images.expand(-1, 3, -1, -1) - shift) / scale
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number in self.heads:
                yield self.heads[number], maps / (maps.norm(dim=1, keepdim=True) + EPSILON)


@frozen
class LPIPSFiles:
    """Which network LPIPS compares, `LPIPS`'s options: a network's name, its file, that of its heads, a factor."""

    weights: str
    network: NetworkName
    linear: str | None
    enlarge: int

    def loaded(self, size: tuple[int, int], device: torch.device) -> Distance:
        """The distance LPIPS with the weights of its files, for images of this size; `ComponentError` if unfit."""
        import torch
        from torchvision import models

        name, at = LAYERS[self.network]
        widths, height, width = [], *(side * self.enlarge for side in size)
        # Without memory and random numbers for weights that are replaced.
        with torch.device("meta"):
            features: nn.Sequential = getattr(models, name)().features[: at[-1] + 1].eval()
            maps = torch.zeros(1, 3, height, width)
            try:
                for number, layer in enumerate(features):
                    maps = layer(maps)
                    widths += [maps.shape[1]] if number in at else []
            except RuntimeError:
                raise ComponentError(
                    f"images of {size[0]}x{size[1]} are too small for the network {self.network!r} with enlarge = "
                    f"{self.enlarge}; use a larger factor"
                ) from None
        shapes = {f"features.{key}": tuple(tensor.shape) for key, tensor in features.state_dict().items()}
        of_features = _fitting(self.weights, shapes, f"torchvision's {name}")
        linear = self.linear or _packaged(self.network)
        heads = _fitting(
            linear, {f"lin{n}.model.1.weight": (1, c, 1, 1) for n, c in enumerate(widths)}, "LPIPS's channels"
        )
        features.load_state_dict({key.removeprefix("features."): of_features[key] for key in shapes}, assign=True)
        features.requires_grad_(False).to(device)
        by_layer = {layer: head[0].to(device) for layer, head in zip(at, heads.values(), strict=True)}
        return Distance(features, by_layer, self.enlarge, device, tensors_sha256({**of_features, **heads}))


def _fitting(file: str, shapes: Mapping[str, tuple[int, ...]], what: str) -> dict[str, Tensor]:
    """The tensors of LPIPS in a weights file, float32, that have these names and shapes; others may be there too."""
    tensors = read_weights(Path(os.path.expanduser(file)))
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            got = f"is {tuple(tensors[name].shape)}" if name in tensors else "is missing"
            raise ComponentError(f"{file} does not hold the weights of {what}: {name!r} {got}, wanted {shape}")
    return {name: tensors[name].float() for name in shapes}


def _packaged(network: str) -> str:
    """The file of torchmetrics with LPIPS's weights of channels; it is found without an import of that package."""
    package = importlib.util.find_spec("torchmetrics")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "functional", "image", "lpips_models", f"{network}.pth")
        if file.is_file():
            return str(file)
    raise ComponentError(
        "lpips: the weights of channels come with torchmetrics, which is not here: pip install 'ganlab[lpips]', or set "
        f"linear = FILE, such as {network}.pth of the package lpips"
    )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("lpips", LPIPS)
