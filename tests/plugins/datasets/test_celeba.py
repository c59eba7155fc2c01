"""CelebA, held against Pillow on a small folder of its shape, and against archives that are not what they should be."""

from __future__ import annotations

import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.celeba import CelebA

PARTITION = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n000004.jpg 0\n"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data", tmp_path / "cache")


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        coarse = Image.fromarray(rng.integers(0, 256, (11, 9, 3), dtype=np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(folder / f"{number:06}.jpg", quality=95)


@pytest.fixture
def small(places: Places) -> Places:
    write_images(places.data / "celeba" / "img_align_celeba")
    (places.data / "celeba" / "list_eval_partition.txt").write_text(PARTITION)
    return places


def by_pillow(path: Path, crop: int, size: int) -> np.ndarray:
    left, top = (178 - crop) // 2, (218 - crop) // 2
    square = Image.open(path).crop((left, top, left + crop, top + crop))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


@pytest.mark.parametrize(("split", "numbers"), [("train", [1, 4]), ("test", [3])])
@pytest.mark.parametrize(("crop", "size"), [(178, 64), (108, 32)])
def test_a_split_is_its_files_cropped_and_resized(
    split: str, numbers: list[int], crop: int, size: int, small: Places
) -> None:
    dataset = CelebA(crop=crop, size=size).build(small, split)
    folder = small.data / "celeba" / "img_align_celeba"
    expected = np.stack([by_pillow(folder / f"{number:06}.jpg", crop, size) for number in numbers])
    assert np.array_equal(dataset.images.numpy(), expected)
    assert dataset.condition is None
    assert (dataset.name, dataset.split) == ("celeba", split)


def test_the_whole_photograph_in_grey(small: Places) -> None:
    image = CelebA(crop="none", size=(109, 89), channels=1).build(small, "test").images[0, 0]
    photograph = Image.open(small.data / "celeba" / "img_align_celeba" / "000003.jpg").convert("L")
    assert np.array_equal(np.asarray(image), np.asarray(photograph.resize((89, 109), Image.Resampling.LANCZOS)))


def test_the_default_is_64_pixels(small: Places) -> None:
    assert CelebA().build(small, "test").images.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("line", ["000005.jpg", "../../secret.jpg 0", "000005.jpg 7"])
def test_a_line_of_another_form_is_named(line: str, small: Places) -> None:
    (small.data / "celeba" / "list_eval_partition.txt").write_text(f"{PARTITION}{line}\n")
    with pytest.raises(ComponentError, match="line 5 is"):
        CelebA().build(small, "train")


def test_a_listed_image_that_is_missing_is_named(small: Places) -> None:
    (small.data / "celeba" / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(ComponentError, match=r"000004\.jpg: there is no such file"):
        CelebA().build(small, "train")


def test_a_failed_download_says_where_the_files_belong(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_file_from_google_drive", no_network)
    with pytest.raises(ComponentError) as caught:
        CelebA().build(places, "train")
    assert str(caught.value) == (
        f"celeba: could not be downloaded to {places.data / 'celeba'} (<urlopen error no route to host>); "
        "its files can be put there by hand: img_align_celeba/*.jpg and list_eval_partition.txt"
    )


def serve(monkeypatch: pytest.MonkeyPatch, archive: Path) -> list[str]:
    """Stands in for the download; returns the list of the files that are asked for."""
    asked: list[str] = []

    def download(file_id: str, root: str, filename: str, md5: str) -> None:
        assert len(md5) == 32
        asked.append(filename)
        content = archive.read_bytes() if filename.endswith(".zip") else PARTITION.encode()
        (Path(root) / filename).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.utils.download_file_from_google_drive", download)
    return asked


def test_what_is_missing_is_downloaded_once(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "img_align_celeba")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("img_align_celeba/", "")
        for file in (tmp_path / "img_align_celeba").iterdir():
            archive.write(file, f"img_align_celeba/{file.name}")
    asked = serve(monkeypatch, tmp_path / "archive.zip")

    first = CelebA().build(places, "train")
    assert first.images.shape == (2, 3, 64, 64)
    assert asked == ["img_align_celeba.zip", "list_eval_partition.txt"]
    CelebA().build(places, "test")
    assert len(asked) == 2

    (places.data / "celeba" / "list_eval_partition.txt").unlink()
    CelebA().build(places, "test")
    assert asked[2:] == ["list_eval_partition.txt"]


@pytest.mark.parametrize("name", ["../escaped.jpg", "/escaped.jpg", "img_align_celeba/../../escaped.jpg", "run.sh"])
def test_an_archive_with_other_names_is_not_unpacked(
    name: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("img_align_celeba/000001.jpg", b"")
        archive.writestr(name, b"")
    serve(monkeypatch, tmp_path / "archive.zip")
    with pytest.raises(ComponentError, match=r"wanted only img_align_celeba/\*\.jpg"):
        CelebA().build(places, "train")
    assert [path.name for path in places.data.rglob("*.jpg")] == []
    assert not (places.data / "celeba" / "img_align_celeba").exists()


def test_a_damaged_archive_is_refused(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "archive.zip").write_bytes(b"no archive")
    serve(monkeypatch, tmp_path / "archive.zip")
    with pytest.raises(ComponentError, match=r"img_align_celeba\.zip: is damaged"):
        CelebA().build(places, "train")


@pytest.mark.parametrize("crop", [0, 179])
def test_a_crop_that_no_image_has_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match="crop"):
        CelebA(crop=crop)


def test_there_is_no_validation_split_here(small: Places) -> None:
    with pytest.raises(ComponentError, match="celeba: no split 'valid'"):
        CelebA().build(small, "valid")
