"""Inception features: the network of 2015 that published FIDs use, in torch-fidelity's port from TensorFlow.

Szegedy et al. 2015, "Rethinking the Inception Architecture" (arXiv:1512.00567); Heusel et al. 2017 (arXiv:1706.08500)
use its 2048 features before the classifier. Published scores are computed with these weights and TensorFlow 1's
bilinear resize; torchvision's Inception has other values.

Decisions:
- Images of other sizes are resized to 299x299 in one of three ways: as TensorFlow 1 does, which published scores up to
  about 2021 are of; as clean-fid does (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN
  Evaluation", arXiv:2104.11222); as pytorch-fid does. Scores differ, so the preprocessing in their protocol names it.
- clean-fid resizes with Pillow; torch's antialiased bicubic is the same up to rounding, and runs on the device.
- The spatial features are the first 7 channels of the layer mixed_6/conv, as in the code of Dhariwal and Nichol 2021
  (arXiv:2105.05233), from which published values of sFID are, and in its order: rows, columns, channels.
- A weights file is data, never code: it is read by safetensors, or by torch.load with `weights_only`, and the tensors
  are passed to torch-fidelity in memory, because torch-fidelity's own loading executes any pickle.
- The fingerprint is of the weights as loaded, so the same weights in either format have the same one.
- float32 throughout: TensorFloat-32 and autocast are disabled, so that a score does not depend on settings for
  training.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from ganlab import (
    ComponentError,
    Evaluation,
    FeaturesConfig,
    FittingBatches,
    Register,
    full_precision,
    hookimpl,
    location,
    one_line,
    read_weights,
    tensors_sha256,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HASH_PREFIX = "6726825d"
"""First digits of the published file's sha256, which are part of its name too."""

BATCH = {"cpu": 64, "cuda": 512}
"""Batch size on the CPU and on other devices, reduced if memory runs out. On a CPU larger batches are no faster."""


SIDE = 299
"""Height and width of the images that the network is given."""

Resize = Literal["tensorflow", "clean-fid", "pytorch-fid"]

PREPROCESSING: dict[Resize, str] = {
    "tensorflow": "uint8, resized to 299x299 by TensorFlow 1's bilinear (no antialias), (x - 128) / 128",
    "clean-fid": "uint8, resized to 299x299 as clean-fid does: Pillow's bicubic of float32 channels (antialiased, "
    "clipped to 0 to 255, not rounded), (x - 128) / 128",
    "pytorch-fid": "uint8 / 255, resized to 299x299 as pytorch-fid does: torch's bilinear (no antialias), 2 x - 1",
}

LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)
"""The layers from the resized image to the features before the classifier, by their names in torch-fidelity."""

SPATIAL_LAYER = "Mixed_6d"
"""The block that TensorFlow calls mixed_6; its branch1x1 is mixed_6/conv, (N, 192, 17, 17)."""

SPATIAL_CHANNELS = 7


@frozen
class InceptionFeatures:
    """Inception `Features`: uint8 images (N, 1 or 3, H, W) of any size to float32 (N, 2048). Grey becomes RGB."""

    network: nn.Module
    device: torch.device
    fingerprint: str
    resize: Resize = "tensorflow"
    name: str = "inception-2015-tf"
    dim: int = 2048
    spatial_dim: int = 17 * 17 * SPATIAL_CHANNELS
    batches: FittingBatches = field(init=False, repr=False)
    spatial_batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        return FittingBatches(self._pooled, BATCH.get(self.device.type, BATCH["cuda"]))

    @spatial_batches.default
    def _spatial_batches(self) -> FittingBatches:
        return FittingBatches(self._located, BATCH.get(self.device.type, BATCH["cuda"]))

    @property
    def preprocessing(self) -> str:
        """How Inception's images are resized and normalised."""
        return PREPROCESSING[self.resize]

    def __call__(self, images: Tensor, /) -> Tensor:
        return self._in_batches(images, self.batches)

    def with_gradients(self, images: Tensor) -> Tensor:
        """Inception's features, with gradients, of float images (N, 1 or 3, H, W) in [-1, 1]: not rounded."""
        self._check(images)
        with full_precision(self.device):
            return self._through(LAYERS, (images + 1) * 127.5).flatten(1)

    def spatial(self, images: Tensor) -> Tensor:
        """Inception's spatial features, float32 (N, 17 * 17 * 7): what lies where, for sFID."""
        return self._in_batches(images, self.spatial_batches)

    def logits(self, images: Tensor) -> Tensor:
        """Inception's class logits (N, 1008) without the last layer's bias, as in published Inception Scores."""
        import torch

        last: Any = self.network.fc
        with torch.no_grad(), full_precision(self.device):
            logits: Tensor = self(images) @ last.weight.T
            return logits

    def _in_batches(self, images: Tensor, batches: FittingBatches) -> Tensor:
        import torch

        self._check(images)
        with torch.no_grad(), full_precision(self.device):
            return batches(images)

    def _check(self, images: Tensor) -> None:
        if images.shape[1] not in (1, 3):
            raise ComponentError(f"Inception takes images of 1 or 3 channels, got {images.shape[1]}")

    def _pooled(self, images: Tensor) -> Tensor:
        return self._through(LAYERS, images).flatten(1)

    def _located(self, images: Tensor) -> Tensor:
        found = self._through(LAYERS[: LAYERS.index(SPATIAL_LAYER)], images)
        mixed: Any = self.network.get_submodule(SPATIAL_LAYER)
        located: Tensor = mixed.branch1x1(found)[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return located

    def _through(self, layers: Sequence[str], images: Tensor) -> Tensor:
        """A batch of images, 0 to 255, resized, through layers of Inception."""
        import torch

        found = images.to(self.device).expand(-1, 3, -1, -1)
        if self.device.type == "cpu":
            found = found.contiguous(memory_format=torch.channels_last)
        found = resized(found.float(), self.resize)
        for name in layers:
            found = self.network.get_submodule(name)(found)
        return found


def resized(images: Tensor, resize: Resize) -> Tensor:
    """Images (N, 3, H, W) from 0 to 255, float32, as Inception takes them: (N, 3, 299, 299), about -1 to 1."""
    from torch.nn.functional import interpolate
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    size = (SIDE, SIDE)
    if resize == "pytorch-fid":
        return 2 * interpolate(images / 255, size, mode="bilinear", align_corners=False) - 1
    if resize == "clean-fid":
        return (interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 255) - 128) / 128
    found: Tensor = interpolate_bilinear_2d_like_tensorflow1x(images, size, align_corners=False)
    return (found - 128) / 128


@frozen
class Inception:
    """Inception of 2015, 2048 features.

    weights: a file of torch-fidelity's weights: .safetensors, or a .pth that contains only tensors. By default the
        published file (95 MB) is downloaded once into the cache.
    resize: how images of other sizes than 299x299 are resized: "tensorflow" as most published scores are computed,
        "clean-fid" or "pytorch-fid" as these tools do by default. Scores with another one are not comparable.
    """

    weights: str | None = location(default=None)
    resize: Resize = "tensorflow"

    def build(self, evaluation: Evaluation) -> InceptionFeatures:
        """Loads Inception onto the evaluation's device."""
        if self.weights is None:
            path = downloaded_weights(evaluation.places.cache / "weights")
        else:
            path = Path(os.path.expanduser(self.weights))
        network = inception_network(path).to(evaluation.device)
        return InceptionFeatures(network, evaluation.device, tensors_sha256(network.state_dict()), self.resize)


def inception_network(path: Path) -> nn.Module:
    """torch-fidelity's Inception with the weights of a file, in eval mode, without gradients, on the CPU."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    buffer = io.BytesIO()
    torch.save(read_weights(path), buffer)
    buffer.seek(0)
    try:
        # The constructor first draws initial weights from the global generator, which training noise depends on.
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], buffer)
    except RuntimeError as error:
        cause = one_line(error, limit=160)
        raise ComponentError(f"{path} does not hold the weights of torch-fidelity's Inception: {cause}") from error
    return network.to(memory_format=torch.channels_last)


def downloaded_weights(folder: Path) -> Path:
    """The path of Inception's published weights, downloaded into `folder` if the file is missing or damaged."""
    from torch.hub import download_url_to_file
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path: Path = folder / URL_INCEPTION_V3.rsplit("/", 1)[-1]
    if path.is_file():
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest().startswith(HASH_PREFIX):
                return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # It writes a temporary file, verifies the hash, and renames the file afterwards.
        download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=HASH_PREFIX, progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ComponentError(
            f"Inception's weights could not be downloaded ({one_line(error)}); download {URL_INCEPTION_V3} "
            'elsewhere, copy the file here, and set features = { name = "inception", weights = "FILE" }'
        ) from error
    return path


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("inception", Inception)
