"""Images in a file as a tensor: held against the same images in memory, and against what the system says is mapped."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlab import GanlabError, ImageDataset, MappedImages
from ganlab.data.memmap import WINDOW

IMAGES = torch.randint(0, 256, (300, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    return tmp_path / "images.npy"


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda images: images,
    "some": lambda images: images[7:31],
    "every third": lambda images: images[2::3],
    "one channel": lambda images: images[:, 1:2],
    "channels last": lambda images: images.permute(0, 2, 3, 1),
    "apart": lambda images: images.split(9)[4],
}


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_the_tensor_in_the_file(view: str, path: Path) -> None:
    mapped, plain = VIEWS[view](MappedImages.open(path)), VIEWS[view](IMAGES)
    assert isinstance(mapped, MappedImages)
    assert torch.equal(mapped, plain)
    assert (mapped.shape, len(mapped), mapped.dtype) == (plain.shape, len(plain), plain.dtype)
    index = torch.tensor([3, 0, 3])
    for computed, wanted in (
        (mapped[index], plain[index]),
        (mapped.float().mean(0), plain.float().mean(0)),
        (torch.cat([mapped, mapped[:1]]), torch.cat([plain, plain[:1]])),
        (mapped.max(dim=0).values, plain.max(dim=0).values),
        (mapped.clone(), plain),
        (copy.deepcopy(mapped), plain),
        (copy.copy(mapped), plain),
    ):
        assert type(computed) is Tensor
        assert torch.equal(computed, wanted)
    assert np.array_equal(mapped.numpy(), plain.numpy())


@pytest.mark.parametrize("view", VIEWS)
def test_fingerprints_are_those_of_images_in_memory(view: str, path: Path) -> None:
    mapped, plain = VIEWS[view](MappedImages.open(path)), VIEWS[view](IMAGES)
    assert ImageDataset(mapped, "x").fingerprint == ImageDataset(plain, "x").fingerprint


@pytest.mark.parametrize("view", ["all", "some", "every third", "apart"])
def test_rows_are_read_from_their_places(view: str, path: Path) -> None:
    mapped, plain = VIEWS[view](MappedImages.open(path)), VIEWS[view](IMAGES)
    assert isinstance(mapped, MappedImages)
    assert mapped.has_whole_rows
    out = np.zeros((4, 3, 4, 6), np.uint8)
    mapped.read_rows(torch.tensor([8, 0, 5, 8]), out)
    assert np.array_equal(out, plain[[8, 0, 5, 8]].numpy())


def test_writing_is_refused_and_never_reaches_the_file(path: Path) -> None:
    before = path.read_bytes()
    images = MappedImages.open(path)
    with pytest.raises(TypeError, match=r"clone\(\)"):
        images.fill_(5)
    with pytest.raises(TypeError, match=r"clone\(\)"):
        images[3] = 5
    with pytest.raises(TypeError, match=r"clone\(\)"):
        images[3:5] += 1
    with pytest.raises(TypeError, match=r"clone\(\)"):
        torch.add(IMAGES, 1, out=images)
    images.clone().fill_(5)
    assert torch.equal(images, IMAGES)
    assert path.read_bytes() == before


def test_what_is_no_file_of_images_is_refused(tmp_path: Path, path: Path) -> None:
    def refused(array: np.ndarray, message: str) -> None:  # type: ignore[type-arg]
        np.save(tmp_path / "other.npy", array)
        with pytest.raises(ValueError, match=message):
            MappedImages.open(tmp_path / "other.npy")

    refused(IMAGES.numpy().astype(np.int8), "holds int8")
    refused(IMAGES.numpy().astype(np.float64), "holds float64")
    refused(IMAGES.numpy().astype(">f4"), "holds >f4")
    refused(IMAGES.numpy()[0, 0, 0], r"holds uint8 \(6,\)")
    refused(IMAGES.numpy()[:0], r"holds uint8 \(0, 3, 4, 6\)")
    refused(np.asfortranarray(IMAGES.numpy()), "in Fortran order")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        MappedImages.open(path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="magic"):
        MappedImages.open(path)


def test_a_file_that_is_cut_short_later_is_an_error_with_its_name(path: Path) -> None:
    images = MappedImages.open(path)
    os.truncate(path, 4096)
    out = np.zeros((1, 3, 4, 6), np.uint8)
    with pytest.raises(GanlabError, match=r"images\.npy: has been cut short"):
        images.read_rows(torch.tensor([299]), out)
    with pytest.raises(GanlabError, match=r"images\.npy: has been cut short"):
        images[299].sum()  # through the map, where a read would end the process
    with pytest.raises(GanlabError, match=r"images\.npy: has been cut short"):
        _ = images.fingerprint


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="only Linux tells what is in memory")
def test_pages_are_given_back_whoever_reads(tmp_path: Path) -> None:
    """As much of the file as the system says is in this process's memory, after and during each way of reading it."""
    path = tmp_path / "images.npy"
    np.save(path, np.ones((4 * WINDOW // 16384, 1, 128, 128), np.uint8))
    images = MappedImages.open(path)
    walks: dict[str, Callable[[], object]] = {
        "split": lambda: [part.float().mean() for part in images.split(64)],
        "numpy": lambda: [part.numpy().mean() for part in images.split(64)],
        "copied": lambda: [torch.empty_like(part).copy_(part) for part in images.split(64)],
        "assigned": lambda: IMAGES.new_empty(64, 1, 128, 128).__setitem__(slice(None), images[64:128]),
        "index": lambda: [images[torch.randperm(len(images))[:64]] for _ in range(50)],
        "image by image": lambda: [image.sum() for image in images],
    }
    for name, walk in walks.items():
        walk()
        assert in_memory(path) <= 1.25 * WINDOW, name
    total = torch.frombuffer(images._file.map, dtype=torch.uint8).sum()
    assert int(total) > 0
    assert in_memory(path) > 3.9 * WINDOW, "what counts would be seen"


def in_memory(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        next(1024 * int(line.split()[1]) for line in lines if line.startswith("Rss:"))
        for head in lines
        if head.endswith(str(path))
    )


def test_a_file_larger_than_all_memory_is_opened(tmp_path: Path) -> None:
    """Sparse: nothing of it is on the disk. A private map of it would be refused."""
    count = 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3000
    path = tmp_path / "images.npy"
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 10, 100)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + count * 3000)
    images = MappedImages.open(path)
    assert images.shape == (count, 3, 10, 100)
    assert int(images[-1].sum()) == 0
