"""Networks of timm as features, held against timm's own networks on images that went through PIL and timm's transform.

No weights are downloaded: files hold random ones. The hub is a local server that speaks as much of its protocol as a
client of it needs.
"""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import scipy.linalg
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ganlab import ComponentError
from ganlab.config.load import load_experiment
from ganlab_plugins.features.timm import CLIP, DINOv2, Preprocessing, Timm, TimmFeatures, timm_features
from stubs import CPU, an_evaluation, photos


def random_network(model: str, seed: int = 0, **options: Any) -> Any:
    """A network whose random weights are large enough that images differ in their features."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(model, **options).eval().requires_grad_(False)
        for name, tensor in network.state_dict().items():
            if name.endswith("gamma"):
                tensor.fill_(0.3)
            elif tensor.ndim > 1 and not name.startswith("head"):
                tensor.mul_(3)
            elif tensor.ndim == 1 and name.endswith("bias"):
                tensor.normal_(std=0.1)
    return network


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def vit() -> Any:
    return random_network("test_vit")


@pytest.fixture(scope="module")
def vit_file(vit: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(tensors_of(vit), path)
    return path


@pytest.fixture(scope="module")
def features(vit_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TimmFeatures:
    return Timm("test_vit", str(vit_file)).build(an_evaluation(tmp_path_factory.mktemp("places")))


def by_timm(network: Any, images: Tensor, size: tuple[int, int]) -> Tensor:
    """What a user of timm would compute: PIL images, its own evaluation transform without a crop, its own network."""
    data = timm.data.resolve_model_data_config(network)
    options = {**data, "input_size": (3, *size), "crop_pct": 1, "crop_mode": "squash"}
    transform = timm.data.create_transform(**options, is_training=False)
    return network(torch.stack([transform(to_pil_image(image)) for image in images]))


# ---------------------------------------------------------------------------------------------------------------------
# Against timm and PIL
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["test_vit", "test_vit3", "test_resnet", "test_convnext"])
def test_features_are_timms(model: str, tmp_path: Path) -> None:
    """Class token, attention pooling, averages; bicubic and bilinear; larger and smaller images, not only square."""
    save_file(tensors_of(random_network(model)), tmp_path / "w.safetensors")
    ours = Timm(model, str(tmp_path / "w.safetensors")).build(an_evaluation(tmp_path))
    theirs = random_network(model, num_classes=0)
    theirs.load_state_dict(ours.network.state_dict())
    large = torch.nn.functional.interpolate(photos(2, 1).float(), (210, 180), mode="bicubic").clamp(0, 255)
    for images in (photos(3, 0), large.to(torch.uint8)):
        found, wanted = ours(images), by_timm(theirs, images, (160, 160))
        assert found.dtype == torch.float32
        assert found.shape == (len(images), ours.dim)
        assert not found.requires_grad
        assert found.std(0).mean() > 0.01  # otherwise the comparison could not fail
        # A level of 256 in some pixels, by which the resize differs from PIL's, moves features by 1% of what separates
        # images.
        assert (found - wanted).abs().max() < 0.02 * found.std(0).mean()


def test_clip_keeps_its_projection(vit: Any, vit_file: Path, tmp_path: Path) -> None:
    """The network's own classifier stands for the projection, of OpenAI's names as timm converts them."""
    ours = CLIP("test_vit", str(vit_file)).build(an_evaluation(tmp_path))
    images = photos(2, 0)
    assert ours.dim == vit.num_classes
    torch.testing.assert_close(ours(images), vit(ours.prepared(images)))
    assert ours.name == "test_vit.r160_in1k (projected)"
    save_file(
        {name: value for name, value in tensors_of(vit).items() if "head" not in name}, tmp_path / "w.safetensors"
    )
    with pytest.raises(ComponentError, match=r"w\.safetensors does not hold the weights of timm's test_vit"):
        CLIP("test_vit", str(tmp_path / "w.safetensors")).build(an_evaluation(tmp_path))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(50, 50), (41, 20), (9, 7)])
def test_pixels_are_pils(interpolation: str, size: tuple[int, int]) -> None:
    """To a level or two in few pixels. (For a size that is higher than wide; of others Pillow 13 does height first.)"""
    noise = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepared = Preprocessing(size, interpolation, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (prepared.mean, prepared.std))
    levels = (prepared(noise) * std + mean) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    resized = [to_pil_image(image).resize(size[::-1], filters[interpolation]) for image in noise]
    difference = (levels - torch.stack([pil_to_tensor(image) for image in resized])).abs().round()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.1


def test_images_of_the_right_size_are_not_touched() -> None:
    images = photos(2, 0)
    prepared = Preprocessing((32, 32), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert torch.equal((prepared(images) * 255).round().to(torch.uint8), images)


def test_the_protocol_says_what_is_done_to_images(features: TimmFeatures) -> None:
    assert features.preprocessing == (
        "uint8, resized to 160x160 by antialiased bicubic (across, then down, each rounded to uint8, as PIL does), "
        f"/ 255, (x - [0.5, 0.5, 0.5]) / [0.5, 0.5, 0.5]; network of timm {timm.__version__}"
    )
    assert features.name == "test_vit.r160_in1k"


def test_grey_images_are_three_equal_channels(features: TimmFeatures) -> None:
    grey = photos(2, 0, channels=1)
    torch.testing.assert_close(features(grey), features(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ComponentError, match="takes images of 1 or 3 channels, got 4"):
        features(photos(1, 0, channels=4))


def test_features_with_gradients_are_those_without(features: TimmFeatures) -> None:
    """Of images of the network's own size, which nothing rounds."""
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = (images.float() / 127.5 - 1).requires_grad_(True)
    found = features.with_gradients(pixels)
    torch.testing.assert_close(found, features(images), rtol=1e-3, atol=1e-4)
    found.square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_features_do_not_depend_on_the_batch(features: TimmFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos(5, 0)
    together = features(images)
    monkeypatch.setattr("ganlab_plugins.features.timm.BATCH", 2)
    torch.testing.assert_close(features(images), together, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# DINOv2
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.extended
@pytest.mark.slow
def test_dinov2_is_the_class_token_of_a_file_with_metas_names(tmp_path: Path) -> None:
    """Meta's file has a mask token and a position embedding for 518 pixels; nothing else tells it from timm's."""
    meta = tensors_of(random_network("vit_small_patch14_dinov2"))
    assert meta["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    torch.save({"mask_token": torch.zeros(1, 384), **meta}, tmp_path / "dinov2_vits14_pretrain.pth")
    features = DINOv2("small", str(tmp_path / "dinov2_vits14_pretrain.pth")).build(an_evaluation(tmp_path))
    assert (features.name, features.dim) == ("dinov2-small", 384)
    assert "resized to 224x224 by antialiased bicubic" in features.preprocessing
    assert "(x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]" in features.preprocessing

    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=224).eval()
    token, grid = meta["pos_embed"][:, :1], meta["pos_embed"][:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (16, 16), mode="bicubic", antialias=True)
    theirs.load_state_dict({**meta, "pos_embed": torch.cat([token, grid.flatten(2).transpose(1, 2)], 1)})
    torch.testing.assert_close(features.network.state_dict()["pos_embed"], theirs.pos_embed.data)
    images = photos(2, 0)
    with torch.no_grad():
        tokens = theirs.forward_features(features.prepared(images))
        assert tokens.shape == (2, 1 + 16 * 16, 384)
        torch.testing.assert_close(features(images), tokens[:, 0], rtol=1e-4, atol=1e-4)
        assert (features(images) - by_timm(theirs, images, (224, 224))).abs().max() < 0.05
    assert tokens[:, 0].std(0).mean() > 0.1


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


def test_the_same_weights_in_any_file_give_the_same_features(vit: Any, features: TimmFeatures, tmp_path: Path) -> None:
    """Either format; with the published classifier, one of another number of classes, or none."""
    state = tensors_of(vit)
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    torch.save(state, tmp_path / "full.pth")
    torch.save({**trunk, "head.weight": torch.ones(7, 64), "head.bias": torch.ones(7)}, tmp_path / "seven.pth")
    wanted = features(photos(2, 0))
    for name in ("trunk.safetensors", "full.pth", "seven.pth"):
        same = Timm("test_vit.r160_in1k", str(tmp_path / name)).build(an_evaluation(tmp_path))
        assert same.fingerprint == features.fingerprint
        assert same.name == features.name
        assert torch.equal(same(photos(2, 0)), wanted)
    trunk["norm.bias"][0] += 1
    save_file(trunk, tmp_path / "other.safetensors")
    other = Timm("test_vit", str(tmp_path / "other.safetensors")).build(an_evaluation(tmp_path))
    assert other.fingerprint != features.fingerprint


def test_a_position_embedding_of_another_size_is_resampled(vit: Any, features: TimmFeatures, tmp_path: Path) -> None:
    larger = random_network("test_vit", img_size=224)
    assert larger.pos_embed.shape[1] > vit.pos_embed.shape[1]
    save_file(tensors_of(larger), tmp_path / "larger.safetensors")
    resampled = Timm("test_vit", str(tmp_path / "larger.safetensors")).build(an_evaluation(tmp_path))
    assert resampled.prepared.size == (160, 160)
    assert resampled.network.state_dict()["pos_embed"].shape == vit.pos_embed.shape
    assert resampled(photos(2, 0)).isfinite().all()


def test_only_the_network_keeps_the_weights(features: TimmFeatures) -> None:
    network: Any = features.network
    assert "state_dict" not in network.pretrained_cfg
    assert "state_dict" not in network.default_cfg
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_files_of_other_networks_are_refused_in_one_line(vit: Any, tmp_path: Path) -> None:
    state = tensors_of(vit)
    deeper = {f"blocks.6{name[8:]}": tensor.clone() for name, tensor in state.items() if name.startswith("blocks.5")}
    files = {
        "foreign": tensors_of(random_network("test_resnet")),
        "similar": tensors_of(random_network("test_vit2")),
        "deeper": {**state, **deeper},
        "missing": {name: tensor for name, tensor in state.items() if name != "blocks.3.mlp.fc1.weight"},
        "norm": {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "norm."))},
        "shape": {**state, "cls_token": torch.zeros(1, 1, 65)},
        "position": {**state, "pos_embed": torch.zeros(3)},
        "clip": {"visual.class_embedding": torch.zeros(64)},
        "scalar": {**state, "head.weight": torch.tensor(1.0)},
    }
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        with pytest.raises(ComponentError, match=rf"{name}\.safetensors does not hold the weights of timm's") as caught:
            Timm("test_vit", str(tmp_path / f"{name}.safetensors")).build(an_evaluation(tmp_path))
        assert "\n" not in str(caught.value)
        assert "test_vit:" in str(caught.value)
    with pytest.raises(ComponentError, match=r"does not hold the weights of timm's vit_small_patch14_dinov2\.lvd142m:"):
        DINOv2("small", str(tmp_path / "foreign.safetensors")).build(an_evaluation(tmp_path))


def test_what_a_file_lacks_is_not_left_to_chance(tmp_path: Path) -> None:
    """timm loads these two without a word about what is missing; of the second only a norm is, as published."""
    save_file({"other": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(
        ComponentError, match=r"does not hold the weights of timm's dla46x_c: it lacks \d+ tensors, such as"
    ):
        Timm("dla46x_c", str(tmp_path / "foreign.safetensors")).build(an_evaluation(tmp_path))
    state = tensors_of(random_network("convnextv2_atto"))
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    Timm("convnextv2_atto.fcmae", str(tmp_path / "trunk.safetensors")).build(an_evaluation(tmp_path))


def test_names_that_timm_converts_are_loaded(vit: Any, features: TimmFeatures, tmp_path: Path) -> None:
    """As in a file of OpenCLIP's, whose network holds timm's."""
    state = {f"visual.trunk.{name}": tensor for name, tensor in tensors_of(vit).items() if not name.startswith("head.")}
    save_file({**state, "logit_scale": torch.ones(1)}, tmp_path / "clip.safetensors")
    converted = Timm("test_vit", str(tmp_path / "clip.safetensors")).build(an_evaluation(tmp_path))
    assert converted.fingerprint == features.fingerprint


def test_building_leaves_the_global_generator_and_settings_alone(vit_file: Path, tmp_path: Path) -> None:
    generator, precision = torch.get_rng_state(), torch.backends.cudnn.conv.fp32_precision
    Timm("test_vit", str(vit_file)).build(an_evaluation(tmp_path))(photos(1, 0))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.backends.cudnn.conv.fp32_precision == precision
    assert torch.is_grad_enabled()


def test_it_can_be_built_where_inference_mode_is_on(vit_file: Path, features: TimmFeatures, tmp_path: Path) -> None:
    with torch.inference_mode():
        inside = Timm("test_vit", str(vit_file)).build(an_evaluation(tmp_path))
        assert torch.equal(inside(photos(2, 0)), features(photos(2, 0)))
    assert inside.fingerprint == features.fingerprint


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be had
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "vit_large_patch14_dinov2.lvd142",
            r"timm has no network .*; did you mean 'vit_large_patch14_dinov2.lvd142m'\?",
        ),
        ("test_vit.r160", "timm has no network 'test_vit.r160'; did you mean 'test_vit.r160_in1k'"),
        ("hf-hub:timm/test_vit.r160_in1k", "timm has no network 'hf-hub:timm/test_vit.r160_in1k'; did you mean"),
        ("-", r"timm has no network '-'; timm.list_pretrained\(\) has the names"),
        (
            "test_vit4.r160_in1k",
            'no published weights of test_vit4.r160_in1k; set .* name = "timm", .*weights = "FILE"',
        ),
    ],
)
def test_networks_that_cannot_be_had(model: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=message) as caught:
        Timm(model).build(an_evaluation(tmp_path))
    assert "\n" not in str(caught.value)


def test_where_timm_is_not_installed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for config in (DINOv2(), Timm("test_vit")):
        with pytest.raises(ComponentError, match=r"need another package .*: pip install 'ganlab\[timm\]'$") as caught:
            config.build(an_evaluation(tmp_path))
        assert "\n" not in str(caught.value)


def test_networks_without_pooled_features_are_refused() -> None:
    with pytest.raises(
        ComponentError, match=r"conv has no pooled features: its output for one image is \(1, 4, 2, 2\), wanted"
    ):
        timm_features(nn.Conv2d(3, 4, 16, stride=16), "conv", CPU, {"input_size": (3, 32, 32)})


# ---------------------------------------------------------------------------------------------------------------------
# The hub
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A local Hugging Face hub: `files` by their paths, and the `asked` requests."""
    state: dict[str, Any] = {"files": {}, "asked": []}

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(send=False)

        def do_GET(self) -> None:
            self.answer(send=True)

        def answer(self, send: bool) -> None:
            state["asked"].append(self.path)
            found = state["files"].get(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", '"e"')
            if found is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            if send:
                self.wfile.write(found or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this address the hub's, whatever the environment says about the real one."""
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_published_weights_are_downloaded_once(
    hub: dict[str, Any], vit: Any, vit_file: Path, features: TimmFeatures, tmp_path: Path
) -> None:
    hub["files"]["/timm/test_vit.r160_in1k/resolve/main/model.safetensors"] = vit_file.read_bytes()
    evaluation = an_evaluation(tmp_path)
    first = Timm("test_vit").build(evaluation)
    assert first.fingerprint == features.fingerprint
    asked = len(hub["asked"])
    assert asked
    (file,) = (tmp_path / "cache" / "weights").rglob("model.safetensors")
    assert Timm("test_vit").build(evaluation).fingerprint == features.fingerprint
    assert len(hub["asked"]) == asked, "the second time nobody is asked"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ComponentError, match=r"model\.safetensors cannot be read as a weights file"):
        Timm("test_vit").build(evaluation)


def test_what_the_hub_lacks_is_said_with_what_to_do(hub: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ComponentError, match=r"weights of test_vit could not be downloaded .*; download http.*/model\."
    ) as caught:
        Timm("test_vit").build(an_evaluation(tmp_path))
    assert "\n" not in str(caught.value)
    assert hub["asked"]


def test_a_hub_out_of_reach_is_said_at_once_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)  # where nothing listens
    for config, table in (
        (DINOv2(), 'name = "dinov2", size = "large"'),
        (Timm("test_vit"), 'name = "timm", model = "test_vit"'),
    ):
        with pytest.raises(
            ComponentError, match=r"could not be downloaded \(.+\); download http://.*\.safetensors"
        ) as caught:
            config.build(an_evaluation(tmp_path))
        assert str(caught.value).endswith(f'copy the file here, and set features = {{ {table}, weights = "FILE" }}')
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# A score
# ---------------------------------------------------------------------------------------------------------------------


def test_fid_in_features_of_a_network_named_by_an_experiment(
    table: dict[str, Any], write: Callable[..., Path], vit_file: Path, features: TimmFeatures, tmp_path: Path
) -> None:
    table["metric"] = [
        {
            "name": "fid",
            "samples": 80,
            "features": {"name": "timm", "model": "test_vit.r160_in1k", "weights": str(vit_file)},
        }
    ]
    experiment, _ = load_experiment(write(table))
    (metric,) = experiment.metric
    real, fake = photos(80, 1), photos(80, 2) // 2
    scores = metric.evaluate(an_evaluation(tmp_path, real, fake))
    a, b = (features(images).double() for images in (real, fake))
    root = scipy.linalg.sqrtm((a.T.cov() @ b.T.cov()).numpy()).real
    wanted = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root.trace()
    assert scores.values["fid"] == pytest.approx(float(wanted), rel=1e-3)
    assert scores.protocol["features"] == {
        "name": "test_vit.r160_in1k",
        "sha256": features.fingerprint,
        "preprocessing": features.preprocessing,
    }
