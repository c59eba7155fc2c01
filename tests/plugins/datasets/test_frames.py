"""Videos and DICOM files in an image folder, held against what PyAV and pydicom wrote, frame by frame.

Where one of these packages is not installed, its tests are skipped and say so.
"""

from __future__ import annotations

import json
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganlab import ComponentError, ImageDataset, Places, open_images
from ganlab.data import image_archive
from ganlab.data.image_values import read_samples
from ganlab.utils.progress import no_progress
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import COUNT, HEIGHT, WIDTH, save, write_dicom, write_video


def build(places: Places, **options: Any) -> ImageDataset:
    return ImageFolder(path=str(places.data / "folder"), **{"size": "original", **options}).build(places, "train")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "folder").mkdir()
    return Places(data=tmp_path, cache=tmp_path / "cache")


# ---------------------------------------------------------------------------------------------------------------------
# Videos
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def av() -> Any:
    return pytest.importorskip("av", reason="PyAV is not installed: pip install 'ganlab[video]'")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_the_frames_of_a_video_are_images(ending: str, av: Any, places: Places) -> None:
    for name in ("cats", "dogs"):
        (places.data / "folder" / name).mkdir()
        write_video(av, places.data / "folder" / name / f"clip.{ending}")
    dataset = build(places)
    assert dataset.images.shape == (2 * COUNT, 3, HEIGHT, WIDTH)
    assert (dataset.classes, dataset.condition.tolist()) == (("cats", "dogs"), [0] * COUNT + [1] * COUNT)
    images = np.asarray(dataset.images)
    levels = images[:, :, 20:, 20:].mean((2, 3))
    assert np.abs(levels - np.tile(6 * np.arange(COUNT), 2)[:, None]).max() < 3, "the next frame is 6 brighter"
    assert np.abs(images[:, :, 2:12, 2:12].mean((2, 3)) - (255, 0, 0)).max() < 10
    every = build(places, frame_step=7)
    assert len(every.images) == 2 * len(range(0, COUNT, 7))
    assert np.array_equal(np.asarray(every.images[:6]), np.asarray(dataset.images[:COUNT:7]))


def test_videos_in_a_zip_file_are_those_of_the_folder(av: Any, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are unpacked in memory, and not once for each thread; one that is too large is named."""
    folder, path = places.data / "folder", places.data / "clips.zip"
    write_video(av, folder / "clip.mp4")
    (folder / "broken.mkv").write_bytes(b"x" * 100)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"clips/{file.name}")
    with pytest.warns(UserWarning, match=r"broken\.mkv"):
        wanted = np.asarray(build(places, skip_unreadable=True).images)
    zipped = ImageFolder(path=str(path), size="original", skip_unreadable=True)
    with pytest.warns(UserWarning, match=r"broken\.mkv"):
        assert np.array_equal(np.asarray(zipped.build(places, "train").images), wanted)
    video = archived_video(path)
    first, second = video(), video()
    assert first is not second
    assert first.getvalue() is second.getvalue()
    monkeypatch.setattr(image_archive, "LARGEST", 1000)
    with pytest.raises(ComponentError, match=r"clip\.mp4: .* at most 1,000 are read of a zip file; unpack it"):
        ImageFolder(path=str(path), size="original", frame_step=2).build(places, "train")


def archived_video(path: Path) -> Any:
    """What opens the first video of a zip file."""
    frames = open_images(path, no_progress).frames
    return next(frame.samples.args[1].source for name, frame in frames.items() if "#" in name)  # type: ignore[union-attr]


def test_frames_are_found_in_any_order(av: Any, places: Places) -> None:
    write_video(av, places.data / "folder" / "clip.mp4")
    files = open_images(places.data / "folder", no_progress).files()
    order = list(range(COUNT)) * 2
    random.Random(0).shuffle(order)
    for index in order:
        level = read_samples(files[index]).values[20:, 20:].mean()
        assert level == pytest.approx(6 * index, abs=2), index


def test_a_video_that_was_filmed_on_its_side_is_upright(av: Any, places: Places) -> None:
    """The display matrix of an .mp4 file, the track header's 36 bytes, becomes that of a quarter turn."""
    path = places.data / "folder" / "clip.mp4"
    write_video(av, path)
    content, one = bytearray(path.read_bytes()), 1 << 16
    at = content.index(b"tkhd") + 44
    assert content[at : at + 4] == one.to_bytes(4, "big")
    turned = (0, one, 0, -one, 0, 0, HEIGHT * one, 0, 1 << 30)  # clockwise: what was left comes to be above
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    path.write_bytes(content)
    image = np.asarray(build(places, frame_step=COUNT).images[0])
    assert image.shape == (3, WIDTH, HEIGHT)
    assert image[0, 4, -4] > 200, "the red corner, right above"
    assert image[0, -4, 4] < 50


def test_frames_that_were_trimmed_are_no_images(av: Any, places: Places) -> None:
    """The edit list of an .mp4 file begins five frames later, as trimming without encoding anew leaves it."""
    path = places.data / "folder" / "clip.mp4"
    write_video(av, path)
    whole = np.asarray(build(places).images)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 16
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks = round(1 / (stream.average_rate * stream.time_base))
    begins = int.from_bytes(content[at : at + 4], "big") + 5 * ticks
    content[at : at + 4] = begins.to_bytes(4, "big")
    path.write_bytes(content)
    assert np.array_equal(np.asarray(build(places).images), whole[5:])


def test_a_video_that_cannot_be_read_is_named(av: Any, places: Places, ganlab: Callable[..., Any]) -> None:
    folder = places.data / "folder"
    write_video(av, folder / "good.mp4")
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:500])
    (folder / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{folder / 'good.mp4'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(ComponentError) as caught:
        build(places)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{folder}/broken.mp4", f"{folder}/list.mp4"]
    with pytest.warns(UserWarning, match="broken.mp4, list.mp4"):
        assert len(build(places, skip_unreadable=True).images) == COUNT
    code, out, err = ganlab("data", folder, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["readable"], set(found["unreadable"])) == (COUNT, {"broken.mp4", "list.mp4"})
    assert found["formats"] == {"video (h264)": COUNT}
    assert f"{COUNT} frames of 1 file; frame_step = k takes every k-th" in found["notes"]


@pytest.mark.parametrize(("package", "name"), [("av", "clip.mp4"), ("pydicom", "scan.dcm")])
def test_the_extra_is_named_where_it_is_missing(
    package: str, name: str, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places.data / "folder" / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ComponentError, match=rf"{name}: .* are read by \w+; pip install 'ganlab\[\w+\]'"):
        build(places)


def test_a_folder_with_pictures_is_what_it_was(places: Places) -> None:
    save(places.data / "folder" / "a.png")
    (places.data / "folder" / "clip.mp4").write_bytes(b"x")
    (places.data / "folder" / "scan.dcm").write_bytes(b"x")
    with pytest.warns(UserWarning, match="left out 2 of 3 files"):
        assert len(build(places).images) == 1


# ---------------------------------------------------------------------------------------------------------------------
# DICOM
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pydicom() -> Any:
    return pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'ganlab[dicom]'")


VALUES = np.arange(48, dtype=np.uint16).reshape(6, 8) * 87  # up to 4089 of 4095


def test_all_stored_bits_are_kept(pydicom: Any, places: Places) -> None:
    """12 of 16, of which 4095 is white; bright and dark turned over; a file without an extension; several images."""
    folder = places.data / "folder"
    write_dicom(pydicom, folder / "a.dcm", VALUES)
    write_dicom(pydicom, folder / "b.dcm", 4095 - VALUES, "MONOCHROME1")
    write_dicom(pydicom, folder / "c", VALUES)
    write_dicom(pydicom, folder / "d.dcm", np.stack([VALUES, VALUES]))
    images = np.asarray(build(places, channels=1, dtype="uint16").images)
    assert np.array_equal(images, np.stack([np.rint(VALUES * (65535 / 4095))[None]] * 5))
    with zipfile.ZipFile(places.data / "a.zip", "w") as archive:
        for name in ("a.dcm", "d.dcm"):
            archive.write(folder / name, f"scans/{name}")
    zipped = ImageFolder(path=str(places.data / "a.zip"), size="original", channels=1, dtype="uint16")
    assert np.array_equal(np.asarray(zipped.build(places, "train").images), images[:3])
    assert build(places, channels=3).images.dtype.itemsize == 1


def test_values_in_a_unit_of_their_own_need_a_range(pydicom: Any, places: Places) -> None:
    folder = places.data / "folder"
    write_dicom(pydicom, folder / "ct.dcm", VALUES.astype(np.int16), bits=16, RescaleSlope=0.5, RescaleIntercept=-1024)
    units = VALUES * 0.5 - 1024
    assert np.allclose(np.asarray(build(places, channels=1, dtype="float32").images)[0, 0], units)
    made = np.asarray(build(places, channels=1, dtype="float32", range=[-1024.0, 1024.0]).images)[0, 0]
    assert np.allclose(made, units / 1024, atol=1e-6)
    dose = VALUES.astype(np.uint32) * 256 + 1
    write_dicom(pydicom, folder / "ct.dcm", dose, bits=32)
    made = np.asarray(build(places, channels=1, dtype="uint16", range=[0.0, 65535.0 * 16]).images)[0, 0]
    assert np.array_equal(made, np.rint(dose / 16))
    with pytest.raises(ComponentError, match=r"ct\.dcm: .* no value stands for white; set range"):
        build(places, channels=1)


def test_colour_and_what_is_no_dicom_file(pydicom: Any, places: Places, ganlab: Callable[..., Any]) -> None:
    folder = places.data / "folder"
    colour = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    write_dicom(pydicom, folder / "a.dcm", colour, "RGB", 8)
    (folder / "b.dcm").write_bytes(b"no header")
    (folder / "c.dcm").write_bytes((folder / "a.dcm").read_bytes()[:-20])
    with pytest.warns(UserWarning, match=r"b\.dcm, c\.dcm"):
        images = build(places, skip_unreadable=True).images
    assert np.array_equal(np.asarray(images)[0], colour.transpose(2, 0, 1))
    code, out, err = ganlab("data", folder)
    assert code == 0, err
    assert "1 DICOM (CT)" in out
    assert "unreadable  b.dcm: cannot be read as an image (it is no DICOM file)" in out
