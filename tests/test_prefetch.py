"""Images that do not fit where they are used: held against the same images resident, bit for bit, and against a bar.

The bar is on memory: a data set of 4 times what may be resident takes less than 1.2 times that, in all of a run.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from children import Child, Command
from ganlab import GanlabError, ImageDataset, MappedImages
from ganlab.config.differing_options import differing_options
from ganlab.config.load import convert_experiment
from ganlab.config.toml import read_toml
from ganlab.data.loader import BatchLoader
from ganlab.data.prefetch import Prefetcher
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Places
from ganlab.training.build import build
from ganlab.training.loop import train
from ganlab.utils import distributed
from ganlab.utils.memory import free_memory
from support import REPOSITORY, until

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (103, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mapped(tmp_path: Path) -> ImageDataset:
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    return ImageDataset(MappedImages.open(tmp_path / "images.npy"), "mapped")


def streamed(dataset: ImageDataset, batch_size: int = 10, device: torch.device = CPU) -> BatchLoader:
    loader = BatchLoader.for_dataset(dataset, batch_size, 3, device, resident_gb=0)
    assert loader.prefetches
    return loader


def readers() -> list[str]:
    """The threads that read ahead now."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ganlab-reader")]


def test_what_fits_is_resident(mapped: ImageDataset) -> None:
    size = mapped.images.nbytes
    for allowed in (None, 1, size / 1e9):
        loader = BatchLoader.for_dataset(mapped, 10, 3, CPU, allowed)
        assert not loader.prefetches
        assert type(loader.images) is Tensor
        assert torch.equal(loader.images, IMAGES)
    assert BatchLoader.for_dataset(mapped, 10, 3, CPU, (size - 1) / 1e9).prefetches


def test_a_tensor_in_memory_stays_where_it_is() -> None:
    loader = BatchLoader.for_dataset(ImageDataset(IMAGES, "plain"), 10, 3, CPU, resident_gb=0)
    assert not loader.prefetches
    assert loader.images is IMAGES


@pytest.mark.parametrize("batch_size", [1, 7, 10, 103])
def test_streamed_equals_resident(batch_size: int, mapped: ImageDataset) -> None:
    """Three epochs and a bit, of batches that leave some images over."""
    resident, streaming = BatchLoader(IMAGES, batch_size, 3, CPU), streamed(mapped, batch_size)
    for number in range(3 * resident.batches_per_epoch + 2):
        batch = streaming.batch(number).images
        assert batch.dtype == torch.float32
        assert torch.equal(batch, resident.batch(number).images), number


def test_batches_are_the_same_in_any_order_and_stay_as_they_are(mapped: ImageDataset) -> None:
    resident, streaming = BatchLoader(IMAGES, 10, 3, CPU), streamed(mapped)
    numbers = [5, 6, 6, 7, 0, 25, 24, 25, 26, 9, 10, 11, 0, 1]
    batches = [streaming.batch(number).images for number in numbers]
    for number, batch in zip(numbers, batches, strict=True):
        assert torch.equal(batch, resident.batch(number).images), number


def test_conditions_are_read_ahead_with_the_images(tmp_path: Path) -> None:
    """Labels, attributes and images of a file; each batch stays as it is when others have been read."""
    np.save(tmp_path / "depth.npy", IMAGES[:, :1].numpy())
    mapped_too = MappedImages.open(tmp_path / "depth.npy")
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    images = MappedImages.open(tmp_path / "images.npy")
    labels, attributes = torch.arange(103) % 7, torch.rand(103, 5)
    deep = IMAGES[:, :2].to(torch.uint16) * 257
    conditions: list[Any] = [labels, attributes, {"kind": labels, "depth": mapped_too, "deep": deep}]
    for condition in conditions:
        resident = BatchLoader(IMAGES, 10, 3, CPU, condition)
        streaming = streamed(ImageDataset(images, "mapped", condition=condition))
        batches = [streaming.batch(number) for number in range(25)]
        streaming.close()
        for number, batch in enumerate(batches):
            expected = resident.batch(number)
            assert all(map(torch.equal, batch.tensors, expected.tensors)), number
            assert len(batch.tensors) == len(expected.tensors)


def test_all_that_is_streamed_to_cuda_comes_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned, empty = [], torch.empty

    def noting(*shape: Any, pin_memory: bool, **options: Any) -> Tensor:
        pinned.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", noting)
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: None)
    Prefetcher([IMAGES, torch.arange(103)], 10, torch.device("cuda"))
    assert pinned == [True] * 4
    Prefetcher([IMAGES, torch.arange(103)], 10, CPU)
    assert pinned[4:] == [False] * 4


def test_views_of_a_map_are_streamed_too(mapped: ImageDataset) -> None:
    for images in (mapped.images[5:95:2], mapped.images[:, 1:], mapped.images.permute(0, 2, 3, 1)):
        resident = BatchLoader(images.clone(), 10, 3, CPU)
        streaming = streamed(ImageDataset(images, "view"))
        assert all(torch.equal(streaming.batch(number).images, resident.batch(number).images) for number in range(6))


def test_systems_that_take_no_advice_are_served_too(mapped: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganlab.data.memmap.WINDOW", 1)
    monkeypatch.delattr("mmap.MADV_DONTNEED", raising=False)
    monkeypatch.delattr("os.posix_fadvise", raising=False)
    monkeypatch.delattr("os.preadv", raising=False)
    assert torch.equal(streamed(mapped).batch(4).images, BatchLoader(IMAGES, 10, 3, CPU).batch(4).images)
    assert torch.equal(torch.cat(mapped.images.split(5)), IMAGES)
    assert mapped.fingerprint == ImageDataset(IMAGES, "plain").fingerprint


def test_each_process_streams_its_share(mapped: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [BatchLoader(IMAGES, 12, 3, CPU).batch(number).images for number in range(10)]
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        loader = streamed(mapped, 12)
        parts.append([loader.batch(number).images for number in range(10)])
        loader.close()
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(shares), batch)


FROM_FILE = """
from pathlib import Path
from attrs import frozen
from ganlab import ImageDataset, MappedImages, hookimpl

@frozen
class FromFile:
    path: str
    def build(self, places, split): return ImageDataset(MappedImages.open(Path(self.path)), "file")

@hookimpl
def register_datasets(register): register("from_file", FromFile)
"""


@pytest.fixture
def streaming_table(table: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The small experiment on images in a file, which may not be resident."""
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    (tmp_path / "from_file.py").write_text(FROM_FILE)
    table["dataset"] = {"name": "from_file", "path": str(tmp_path / "images.npy")}
    table["plugins"] = [str(tmp_path / "from_file.py")]
    table["train"] |= {"steps": 12, "resident_gb": 0, "discriminator_steps": 2}
    return table


def trained(table: dict[str, Any], places: Path, device: torch.device) -> dict[str, Tensor]:
    plugins = load_plugins([Path(file) for file in table["plugins"]])
    training = build(convert_experiment(table, plugins), plugins.registry, Places(places, places), device)
    assert training.loader.main.prefetches == (table["train"].get("resident_gb") == 0)
    train(training, 0, lambda step: None)
    training.loader.close()
    return {
        f"{player.name}.{name}": value
        for player in training.game.players.values()
        for name, value in player.network.state_dict().items()
    }


def test_training_streamed_equals_training_resident(streaming_table: dict[str, Any], tmp_path: Path) -> None:
    streamed = trained(streaming_table, tmp_path, CPU)
    del streaming_table["train"]["resident_gb"]
    resident = trained(streaming_table, tmp_path, CPU)
    assert streamed.keys() == resident.keys()
    assert all(torch.equal(streamed[name], resident[name]) for name in resident)


@pytest.mark.cuda
def test_on_cuda_through_pinned_buffers(streaming_table: dict[str, Any], mapped: ImageDataset, tmp_path: Path) -> None:
    """Many batches without a pause, while the device is kept busy: a buffer overwritten too early would show."""
    cuda = torch.device("cuda")
    resident = BatchLoader(IMAGES.to(cuda), 50, 3, cuda)
    for dataset in (mapped, ImageDataset(IMAGES, "plain")):
        streaming = streamed(dataset, 50, cuda)
        busy = torch.rand(4096, 4096, device=cuda)
        batches = []
        for number in range(60):
            busy = (busy @ busy).clamp_(-1, 1)
            batches.append(streaming.batch(number).images)
        assert all(torch.equal(batch, resident.batch(number).images) for number, batch in enumerate(batches))
    streamed_weights = trained(streaming_table, tmp_path, cuda)
    del streaming_table["train"]["resident_gb"]
    resident_weights = trained(streaming_table, tmp_path, cuda)
    assert all(torch.equal(value, resident_weights[name]) for name, value in streamed_weights.items())


def test_resuming_with_another_limit_ends_with_the_same_bits(
    streaming_table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    path = write(streaming_table)
    assert ganlab("run", path, "--out", "whole")[0] == 0
    assert ganlab("run", path, "--out", "parts", "--set", "train.steps=5")[0] == 0
    code, _, err = ganlab("run", path, "--out", "parts", "--resume", "--set", "train.resident_gb=1")
    assert code == 0, err
    last = Path("checkpoints/step-00000012")
    files = sorted(file.name for file in ("whole" / last).glob("*.safetensors"))
    assert files
    assert all(("whole" / last / file).read_bytes() == ("parts" / last / file).read_bytes() for file in files)
    infos = [json.loads((Path(run) / "run.json").read_text()) for run in ("whole", "parts")]
    assert [info["resident"] for info in infos] == [False, True]
    tables = [read_toml(Path(run) / "experiment.toml") for run in ("whole", "parts")]
    assert [table["train"]["resident_gb"] for table in tables] == [0, 1]
    assert differing_options(*tables) == [], "compare takes them for one experiment"
    assert readers() == []


def test_an_error_of_the_reader_reaches_who_asks_for_the_batch(mapped: ImageDataset, tmp_path: Path) -> None:
    loader = streamed(mapped)
    good = loader.batch(0).images
    os.truncate(tmp_path / "images.npy", 200)
    for _ in range(2):
        with pytest.raises(GanlabError, match=r"images\.npy: has been cut short"):
            loader.batch(2)
    assert torch.equal(good, BatchLoader(IMAGES, 10, 3, CPU).batch(0).images)
    loader.close()


def test_a_disk_that_fails_ends_a_run_in_one_line(
    streaming_table: dict[str, Any],
    write: Callable[..., Path],
    ganlab: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = os.preadv
    count = 0

    def failing(*arguments: Any) -> int:
        nonlocal count
        count += 1
        if count > 150:
            raise OSError(5, "Input/output error")
        return original(*arguments)

    monkeypatch.setattr(os, "preadv", failing)
    code, _, err = ganlab("run", write(streaming_table), "--out", "r")
    assert code == 1
    assert [line for line in err.splitlines() if "Traceback" in line] == []
    assert "images.npy: cannot be read (Input/output error)" in err
    assert json.loads(Path("r/run.json").read_text())["status"] == "failed"
    assert readers() == []


CUTTING = """
import os
from ganlab import hookimpl

@hookimpl
def tick_finished(run, record):
    os.truncate("images.npy", 1000)
"""


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_a_file_that_is_cut_short_ends_a_streamed_run_with_an_error_and_a_resident_one_not_at_all(
    limit: float, streaming_table: dict[str, Any], write: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own: reading a map beyond the file's end would end it with a signal."""
    (tmp_path / "cutting.py").write_text(CUTTING)
    streaming_table["train"] |= {"resident_gb": limit, "log_every": 2, "steps": 40}
    command = Command("run", write(streaming_table), "--out", "cut", "--plugin", "cutting.py")
    ended = Child(command, tmp_path / "log")
    code = ended.ended()
    info = json.loads(Path("cut/run.json").read_text())
    if limit:
        assert (code, info["status"], info["error"]) == (0, "finished", None), ended.said
    else:
        assert (code, info["status"]) == (1, "failed"), ended.said
        assert "images.npy: has been cut short" in ended.said


def test_the_reader_ends_with_its_loader(mapped: ImageDataset) -> None:
    loader = streamed(mapped)
    assert readers() == []
    first = loader.batch(0).images
    assert len(readers()) == 1
    loader.close()
    assert readers() == []
    assert torch.equal(loader.batch(0).images, first)
    del loader
    gc.collect()
    until(lambda: readers() == [], seconds=10)


def python(script: str, *arguments: object) -> str:
    """What a script prints that another Python process runs."""
    path = os.pathsep.join(str(REPOSITORY / part) for part in (".", "plugins"))
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.extended
@pytest.mark.slow
def test_the_interpreter_exits_with_a_batch_read_ahead(mapped: ImageDataset, tmp_path: Path) -> None:
    script = """
import sys, torch
from pathlib import Path
from ganlab import ImageDataset, MappedImages
from ganlab.data.loader import BatchLoader
from ganlab.data.prefetch import Prefetcher
data = ImageDataset(MappedImages.open(Path(sys.argv[1])), "x")
loader = BatchLoader.for_dataset(data, 10, 3, torch.device("cpu"), 0)
print(loader.batch(0).images.shape)
"""
    assert "10, 3, 8, 8" in python(script, tmp_path / "images.npy")


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"proc/self/cgroup": "0::/a/b\n"}, 8_000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "cgroup/a/memory.max": "3000000\n",
                "cgroup/a/memory.current": "1000000\n",
                "cgroup/a/memory.stat": "anon 5\ninactive_file 200000\nactive_file 100000\n",
                "cgroup/a/b/memory.max": "max\n",
                "cgroup/a/b/memory.current": "1000000\n",
                "cgroup/a/b/memory.stat": "anon 5\n",
            },
            2_300_000,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/docker/xyz\n1:pids:/\n",
                "cgroup/memory/memory.limit_in_bytes": "5000000\n",
                "cgroup/memory/memory.usage_in_bytes": "4000000\n",
                "cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 500000\ntotal_active_file 0\n",
            },
            1_500_000,
        ),
    ],
    ids=["no limit", "version 2", "version 1, in a container"],
)
def test_free_memory_is_what_is_available_within_the_limits(
    files: dict[str, str], wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files["proc/meminfo"] = "MemTotal: 99999 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("ganlab.utils.memory.PROC", tmp_path / "proc")
    monkeypatch.setattr("ganlab.utils.memory.CGROUPS", tmp_path / "cgroup")
    assert free_memory(CPU) == wanted


def test_a_machine_shares_its_free_memory_among_its_processes(
    mapped: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = mapped.images.nbytes
    monkeypatch.setattr("ganlab.data.loader.free_memory", lambda device: 8 * size)
    for processes, streams in ((1, False), (4, False), (5, True)):
        monkeypatch.setattr(distributed, "local_world_size", lambda processes=processes: processes)
        assert BatchLoader.for_dataset(mapped, 10, 3, CPU).prefetches is streams


MEASURED = """
import json, sys
from pathlib import Path
import torch
from ganlab.training.build import build
from ganlab.utils.paths import places
from ganlab.config.load import load_experiment
from ganlab.evaluation.evaluator import Evaluator
from ganlab.training.loop import train

def peak():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

torch.set_num_threads(1)  # threads that wait for each other are slow on a machine that does other things too
for name, folder, limit in json.loads(sys.argv[1]):
    Path("/proc/self/clear_refs").write_text("5")
    options = [f"dataset.path={folder}", f"train.resident_gb={limit}"]
    experiment, plugins = load_experiment(Path("big.toml"), options)
    training = build(experiment, plugins.registry, places(), torch.device("cpu"))
    train(training, 0, lambda step: None)
    for number in range(training.loader.batches_per_epoch):
        training.loader.batch(number).images
    evaluator = Evaluator(experiment.dataset, training.dataset, places(), torch.device("cpu"), floors=False)
    scores = evaluator.for_network(training.evaluated_networks, "plain").score(experiment.metric[0])
    found = training.dataset.fingerprint, len(training.dataset.images), scores[0]["value"]
    print(json.dumps({"name": name, "found": found, "streams": training.loader.main.prefetches, "peak": peak()}))
    del training, evaluator
"""

WALKING = """
from attrs import frozen
from ganlab import Interval, Scores, hookimpl

@frozen
class Walking:
    every: Interval = Interval()
    def evaluate(self, evaluation):
        data = evaluation.dataset("train")
        means = [float(part.float().mean()) for part in data.images.split(8)]
        return Scores({"brightness": sum(means) / len(means)}, {"metric": "walking"}, {})

@hookimpl
def register_metrics(register): register("walking", Walking)
"""


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux tells the peak of memory")
def test_a_data_set_of_four_times_the_limit_takes_less_than_1_2_times_the_limit(
    table: dict[str, Any], write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, beyond what few images take: decoding, steps, every batch, a metric over all, the fingerprint."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    limit, few, side = 64_000_000, 16, 192
    many = 4 * limit // (3 * side * side) + 1
    for folder, count in (("few", few), ("many", many)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            first = tmp_path / "few" / f"{number % few}.ppm"
            if first.exists():
                (tmp_path / folder / f"{number}.ppm").hardlink_to(first)
            else:
                pixels = np.random.RandomState(number).bytes(3 * side * side)
                first.write_bytes(b"P6 %d %d 255\n" % (side, side) + pixels)
    (tmp_path / "walking.py").write_text(WALKING)
    table |= {"dataset": {"name": "image_folder", "path": "few", "size": side}, "plugins": ["walking.py"]}
    table |= {"metric": [{"name": "walking"}]}
    table["generator"]["hidden"] = table["discriminator"]["hidden"] = [2]
    table["train"] |= {"steps": 4, "batch_size": 8}
    write(table, "big.toml")
    takes = [("warm", "few", 1), ("base", "few", 1), ("streamed", "many", limit / 1e9), ("resident", "many", 1)]
    printed = python(MEASURED, json.dumps([(name, str(tmp_path / folder), gb) for name, folder, gb in takes]))
    taken = {line["name"]: line for line in map(json.loads, printed.splitlines())}
    assert [line["streams"] for line in taken.values()] == [False, False, True, False]
    grown = {name: line["peak"] - taken["base"]["peak"] for name, line in taken.items()}
    assert grown["streamed"] < 1.2 * limit, grown
    assert grown["resident"] > 3.8 * limit, f"what counts would be seen: {grown}"
    assert taken["streamed"]["found"] == taken["resident"]["found"]
    assert taken["streamed"]["found"][1] == many
