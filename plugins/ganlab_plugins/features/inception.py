"""Inception features: the network of 2015 that published FIDs use, in torch-fidelity's port from TensorFlow.

Szegedy et al. 2015, "Rethinking the Inception Architecture" (arXiv:1512.00567); Heusel et al. 2017 (arXiv:1706.08500)
use its 2048 features before the classifier. Published scores are computed with these weights and TensorFlow 1's
bilinear resize; torchvision's Inception has other values.

Decisions:
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@frozen
class InceptionFeatures:
    """Inception `Features`: uint8 images (N, 1 or 3, H, W) of any size to float32 (N, 2048). Grey becomes RGB."""

    network: nn.Module
    device: torch.device
    fingerprint: str
    name: str = "inception-2015-tf"
    dim: int = 2048
    preprocessing: str = "uint8, resized to 299x299 by TensorFlow 1's bilinear (no antialias), (x - 128) / 128"
    batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        return FittingBatches(self._batch, BATCH.get(self.device.type, BATCH["cuda"]))

    def __call__(self, images: Tensor, /) -> Tensor:
        import torch

        if images.shape[1] not in (1, 3):
            raise ComponentError(f"Inception takes images of 1 or 3 channels, got {images.shape[1]}")
        with torch.no_grad(), full_precision(self.device):
            return self.batches(images)

    def logits(self, images: Tensor) -> Tensor:
        """Inception's class logits (N, 1008) without the last layer's bias, as in published Inception Scores."""
        import torch

        last: Any = self.network.fc
        with torch.no_grad(), full_precision(self.device):
            logits: Tensor = self(images) @ last.weight.T
            return logits

    def _batch(self, images: Tensor) -> Tensor:
        import torch

        images = images.to(self.device).expand(-1, 3, -1, -1)
        if self.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network(images)[0]
        return features


@frozen
class Inception:
    """Inception of 2015, 2048 features.

    weights: a file of torch-fidelity's weights: .safetensors, or a .pth that contains only tensors. By default the
        published file (95 MB) is downloaded once into the cache.
    """

    weights: str | None = location(default=None)

    def build(self, evaluation: Evaluation) -> InceptionFeatures:
        """Loads Inception onto the evaluation's device."""
        if self.weights is None:
            path = downloaded_weights(evaluation.places.cache / "weights")
        else:
            path = Path(self.weights).expanduser()
        network = inception_network(path).to(evaluation.device)
        return InceptionFeatures(network, evaluation.device, tensors_sha256(network.state_dict()))


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
