"""timm features: networks of the package timm, DINOv2, CLIP and any other by its name.

Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion
models" (arXiv:2306.04675), asked people how real images look: FID in Inception's features does not rank generators as
people do; FID in those of DINOv2 ViT-L/14 (Oquab et al. 2023, arXiv:2304.07193) comes closer.

Decisions:
- Images are resized without a crop, as PIL does: antialiased, horizontally and then vertically, each time clipped and
  rounded to 256 levels. The paper's code (dgm-eval) does this by default, and timm's transforms do; on noise fewer than
  8% of the pixels differ from PIL's, by one or two levels. (Pillow 13 may resize the height first if an image is not
  square.)
- DINOv2's input is 224x224 pixels, as in that paper. Its position embedding is for 518x518; timm resamples it when it
  loads the weights, differently from torch.hub's DINOv2, so scores may differ slightly from dgm-eval's. They have not
  been compared.
- CLIP's features are those that it compares with texts: after the projection, which is the classifier in timm.
- Weights are passed to timm as tensors in memory, by its own `pretrained_cfg_overlay`: so its conversion of names and
  sizes applies, and no third-party file is opened by code that may execute it.
- A network with some random weights would be scored without an error, and timm ignores tensors that a file lacks if it
  is asked for a feature extractor directly. So a network is loaded with the classifier of its file, which is then
  removed; and if tensor names do not settle it, a second network is loaded: random weights differ between the two.
- A downloaded file is used from then on without checking for a newer one: weights must not change during a run.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import os
import pickle
from collections.abc import Mapping
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
    from timm.models import PretrainedCfg
    from torch import Tensor, nn

BATCH = {"cpu": 64, "cuda": 512}
"""Batch size on the CPU and on other devices, reduced if memory runs out."""

DINOV2_SIZE = (224, 224)

HUB_FILE = "model.safetensors"
"""File name of the weights in timm's repositories on the Hugging Face hub."""

HUB_TIMEOUT = 10
"""Seconds after which a hub that does not answer counts as unreachable; its client retries for most of a minute."""

UNFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""Exceptions that timm's conversion and loading may raise for tensors of another network."""


@frozen
class Preprocessing:
    """Preprocessing of a timm network: uint8 images (N, 1 or 3, H, W) to float32 (N, 3, *size). Grey becomes RGB."""

    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"uint8, resized to {self.size[0]}x{self.size[1]} by antialiased {self.interpolation} (across, then down, "
            f"each rounded to uint8, as PIL does), / 255, (x - {list(self.mean)}) / {list(self.std)}"
        )

    def __call__(self, images: Tensor, rounds: bool = True) -> Tensor:
        from torch.nn.functional import interpolate

        pixels = images.expand(-1, 3, -1, -1).float()
        for size in ((pixels.shape[2], self.size[1]), self.size):
            pixels = interpolate(pixels, size, mode=self.interpolation, antialias=True).clamp(0, 255)
            pixels = pixels.round() if rounds else pixels
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std


@frozen
class TimmFeatures:
    """timm `Features`: uint8 images (N, 1 or 3, H, W) of any size to float32 (N, dim). Grey becomes RGB."""

    network: nn.Module
    prepared: Preprocessing
    device: torch.device
    fingerprint: str
    name: str
    dim: int
    preprocessing: str
    batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        size = BATCH.get(self.device.type, BATCH["cuda"])
        return FittingBatches(lambda part: self.network(self.prepared(part.to(self.device))), size)

    def __call__(self, images: Tensor, /) -> Tensor:
        import torch

        if images.shape[1] not in (1, 3):
            raise ComponentError(f"{self.name} takes images of 1 or 3 channels, got {images.shape[1]}")
        with torch.no_grad(), full_precision(self.device):
            return self.batches(images)

    def with_gradients(self, images: Tensor) -> Tensor:
        """The timm network's features, with gradients, of float images (N, 1 or 3, H, W) in [-1, 1]: not rounded."""
        if images.shape[1] not in (1, 3):
            raise ComponentError(f"{self.name} takes images of 1 or 3 channels, got {images.shape[1]}")
        features: Tensor = self.network(self.prepared((images.to(self.device) + 1) * 127.5, rounds=False))
        return features


@frozen
class DINOv2:
    """DINOv2 with patches of 14 pixels, at 224x224: its class token after the last norm. Needs `ganlab[timm]`.

    size: 384, 768, 1024 or 1536 features; the paper uses large.
    weights: a file of its weights, timm's or Meta's: .safetensors, or a .pth that contains only tensors. By default the
        published file (90 MB, 350 MB, 1.2 GB or 4.5 GB) is downloaded once into the cache.
    """

    size: Literal["small", "base", "large", "giant"] = "large"
    weights: str | None = location(default=None)

    def build(self, evaluation: Evaluation) -> TimmFeatures:
        """Loads the timm network onto the evaluation's device."""
        model, table = f"vit_{self.size}_patch14_dinov2.lvd142m", f'name = "dinov2", size = "{self.size}"'
        network, cfg = loaded_network(model, self.weights, table, evaluation, img_size=DINOV2_SIZE)
        cfg["input_size"] = (3, *DINOV2_SIZE)
        return timm_features(network, f"dinov2-{self.size}", evaluation.device, cfg)


@frozen
class CLIP:
    """CLIP's image embedding, at 336x336 in CMMD's paper (arXiv:2401.09603). Needs `ganlab[timm]`.

    model: the network's name in timm, with the tag of its weights; by default OpenAI's ViT-L/14 at 336x336, of 768
        features.
    weights: a file of its weights, timm's, OpenAI's (as a state_dict) or OpenCLIP's: .safetensors, or a .pth that
        contains only tensors. By default the published file (1.7 GB) is downloaded once into the cache.
    """

    model: str = "vit_large_patch14_clip_quickgelu_336.openai"
    weights: str | None = location(default=None)

    def build(self, evaluation: Evaluation) -> TimmFeatures:
        """Loads the timm network onto the evaluation's device."""
        table = f'name = "clip", model = "{self.model}"'
        network, cfg = loaded_network(self.model, self.weights, table, evaluation, projects=True)
        name = ".".join(part for part in (cfg["architecture"], cfg.get("tag")) if part)
        return timm_features(network, f"{name} (projected)", evaluation.device, cfg)


@frozen
class Timm:
    """The pooled features of any network of timm, at its own input size. Needs `ganlab[timm]`.

    model: the network's name in timm, with the tag of its weights: see `timm.list_pretrained()`.
    weights: a file of its weights: .safetensors, or a .pth that contains only tensors. By default the published file is
        downloaded once into the cache.
    """

    model: str
    weights: str | None = location(default=None)

    def build(self, evaluation: Evaluation) -> TimmFeatures:
        """Loads the timm network onto the evaluation's device."""
        table = f'name = "timm", model = "{self.model}"'
        network, cfg = loaded_network(self.model, self.weights, table, evaluation)
        name = ".".join(part for part in (cfg["architecture"], cfg.get("tag")) if part)
        return timm_features(network, name, evaluation.device, cfg)


def timm_features(network: nn.Module, name: str, device: torch.device, cfg: Mapping[str, Any]) -> TimmFeatures:
    """The features of a loaded timm network, with the preprocessing of its timm configuration."""
    import timm
    import torch

    data = timm.data.resolve_data_config(pretrained_cfg=cfg)
    _, *size = data["input_size"]
    prepared = Preprocessing((size[0], size[1]), data["interpolation"], tuple(data["mean"]), tuple(data["std"]))
    fingerprint = tensors_sha256(network.state_dict())
    network.to(device)
    with torch.no_grad(), full_precision(device):
        found = network(prepared(torch.zeros(1, 3, *size, dtype=torch.uint8, device=device)))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ComponentError(f"{name} has no pooled features: its output for one image is {got}, wanted (1, dim)")
    preprocessing = f"{prepared}; network of timm {timm.__version__}"
    return TimmFeatures(network, prepared, device, fingerprint, name, found.shape[1], preprocessing)


def loaded_network(
    model: str, weights: str | None, table: str, evaluation: Evaluation, projects: bool = False, **options: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A timm network with the weights of a file, or the published ones, and its timm configuration.

    The network is in eval mode, without gradients, and on the CPU. It has no classifier, unless it `projects` by that.
    `table` is the experiment's table that selects it, for error messages; `options` are for its constructor.
    """
    import torch

    published = published_network(model)
    if weights is None:
        source = "the published file"
        tensors = published_tensors(published, model, table, evaluation.places.cache / "weights")
    else:
        source = weights
        tensors = read_weights(Path(os.path.expanduser(weights)))
    # The constructor first draws initial weights from the global generator, which training noise depends on.
    with torch.random.fork_rng(devices=[]):
        network = fitted_network(model, published, tensors, source, options, projects)
        if network.state_dict().keys() - tensors.keys():
            again = fitted_network(model, published, tensors, source, options, projects).state_dict()
            random = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, again[name])]
            if random:
                raise ComponentError(misfit(source, model, f"it lacks {len(random)} tensors, such as {random[0]}"))
    cfg = {name: value for name, value in network.pretrained_cfg.items() if name != "state_dict"}
    network.pretrained_cfg = network.default_cfg = cfg  # timm's would contain a second copy of all weights
    return network.eval().requires_grad_(False), cfg


def published_network(model: str) -> PretrainedCfg:
    """timm's configuration of a network and of its published weights. Raises `ComponentError` for an unknown name."""
    try:
        import timm
    except ImportError as error:
        cause = one_line(error, limit=100)
        raise ComponentError(f"networks of timm need another package ({cause}): pip install 'ganlab[timm]'") from error
    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    published = timm.get_pretrained_cfg(model) if model in known else None
    if published is None:
        # For a wrong tag, the tags of the same network are suggested.
        among = [name for name in known if name.startswith(model.split(".", 1)[0] + ".")] or known
        near = difflib.get_close_matches(model, sorted(among), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_pretrained() has the names"
        raise ComponentError(f"timm has no network {one_line(repr(model), 60)}; {hint}")
    return published


def fitted_network(
    model: str,
    published: PretrainedCfg,
    tensors: dict[str, Tensor],
    source: str,
    options: Mapping[str, Any],
    projects: bool = False,
) -> Any:
    """A timm network with these weights, without the classifier that they may include, unless it `projects` by that."""
    import timm

    if projects and not published.num_classes:
        raise ComponentError(f'timm\'s {model} has no projection; wanted a CLIP network, or features = "timm"')
    names = [published.classifier] if isinstance(published.classifier, str) else published.classifier or []
    last = [tensors[f"{name}.weight"] for name in names if f"{name}.weight" in tensors]
    # If no tensor has timm's name of the classifier, either the names are not timm's or there is no classifier.
    for classes in [last[0].shape[0]] if last and last[0].ndim else dict.fromkeys((published.num_classes, 0)):
        # If these numbers of classes are equal, timm requires, for most networks, that all names and shapes match.
        overlay = {"state_dict": tensors, "num_classes": classes}
        try:
            network: Any = timm.create_model(
                model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **options
            )
        except UNFIT as error:
            cause: Exception = error
            continue
        if projects and not network.num_classes:
            cause = RuntimeError("it has no projection")
            continue
        if hasattr(network, "reset_classifier") and not projects:
            network.reset_classifier(0)
        return network
    raise ComponentError(misfit(source, model, one_line(cause, limit=160))) from cause


def misfit(source: str, model: str, why: str) -> str:
    return f"{source} does not hold the weights of timm's {model}: {why}"


def published_tensors(published: PretrainedCfg, model: str, table: str, folder: Path) -> dict[str, Tensor]:
    """The published weights of a timm network, downloaded into `folder` if they are not there yet."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    from safetensors import SafetensorError
    from timm.models import load_state_dict_from_hf
    from torch.hub import load_state_dict_from_url

    to_set = f'set features = {{ {table}, weights = "FILE" }}'
    if not published.has_weights:
        raise ComponentError(f"there are no published weights of {model}; {to_set}")
    repository = published.hf_hub_id
    url: Any = huggingface_hub.hf_hub_url(repository, HUB_FILE) if repository else published.url
    if repository:
        kept = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE, cache_dir=folder)
        if isinstance(kept, str):
            return read_weights(Path(kept))
    # Its bases include the root of the HTTP library's exceptions; the hub's client has changed that library twice.
    http_errors: Any = HfHubHTTPError.__bases__
    try:
        tensors: dict[str, Tensor]
        if repository:
            # A repository without this file is reachable too, and timm knows other names of the file.
            with contextlib.suppress(EntryNotFoundError):
                huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
            tensors = load_state_dict_from_hf(repository, weights_only=True, cache_dir=folder)
        else:
            tensors = load_state_dict_from_url(url, str(folder), "cpu", progress=False, weights_only=True)
        return tensors
    except (
        *(OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError, SafetensorError),
        *http_errors,
    ) as error:
        raise ComponentError(
            f"the weights of {model} could not be downloaded ({one_line(error)}); download {url} elsewhere, copy the "
            f"file here, and {to_set}"
        ) from error


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("clip", CLIP)
    register("dinov2", DINOv2)
    register("timm", Timm)
