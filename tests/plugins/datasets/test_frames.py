"""Videos and DICOM files in an image folder, held against what PyAV and pydicom wrote, frame by frame.

Where one of these packages is not installed, its tests are skipped and say so.
"""

from __future__ import annotations

import io
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
from ganlab.data.dicom import dicom_frames
from ganlab.data.image_file import UnreadableImage, naming_image
from ganlab.data.image_values import read_samples
from ganlab.data.inspect_images import inspect_images
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


def test_a_number_sign_in_a_path_is_no_frames(pydicom: Any, places: Places) -> None:
    """Of files below `study #2` the cache looks at the files themselves, a table finds them, and frames are counted."""
    folder = places.data / "folder"
    (folder / "study #2").mkdir()
    path = folder / "study #2" / "a.dcm"
    write_dicom(pydicom, path, VALUES)
    options = {"channels": 1, "dtype": "uint16", "table": "labels.csv", "classes": "kind"}
    (folder / "labels.csv").write_text("file,kind\nstudy #2/a.dcm,cat\nstudy #2/b #1.dcm,dog\n")
    write_dicom(pydicom, folder / "study #2" / "b #1.dcm", np.stack([VALUES, VALUES]))
    source = open_images(folder, no_progress)
    assert source.names == ["study #2/a.dcm", "study #2/b #1.dcm#0", "study #2/b #1.dcm#1"]
    assert source.file_names == ["study #2/a.dcm", *["study #2/b #1.dcm"] * 2]
    dataset = build(places, **options)
    assert (dataset.classes, dataset.condition.tolist()) == (("cat", "dog"), [0, 1, 1])
    assert "2 frames of 1 file; frame_step = k takes every k-th" in inspect_images(source, no_progress).notes
    write_dicom(pydicom, path, 4095 - VALUES, Modality="ANOTHER LENGTH")
    image = np.asarray(build(places, **options).images[0])
    assert np.array_equal(image[0], np.rint((4095 - VALUES) * (65535 / 4095)))


def rescale(pydicom: Any, slope: float, intercept: float) -> Any:
    made = pydicom.Dataset()
    made.RescaleSlope, made.RescaleIntercept = slope, intercept
    return made


def test_the_rescale_of_functional_groups_is_that_of_each_frame(pydicom: Any, places: Places) -> None:
    """Enhanced CT has it in these, of all frames or of each; pydicom applies it only where it is in the header."""

    def group(slope: float, intercept: float) -> Any:
        made = pydicom.Dataset()
        made.PixelValueTransformationSequence = [rescale(pydicom, slope, intercept)]
        return made

    folder, frames = places.data / "folder", np.stack([VALUES, VALUES + 5])
    shared, each = [group(1, -1024)], [group(0.5, -1000), group(2, 7)]
    write_dicom(pydicom, folder / "a.dcm", frames, SharedFunctionalGroupsSequence=shared)
    more = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": each}
    write_dicom(pydicom, folder / "b.dcm", frames, **more)
    write_dicom(pydicom, folder / "c.dcm", frames, PerFrameFunctionalGroupsSequence=[pydicom.Dataset()] * 2)
    made = [read_samples(file) for file in open_images(folder, no_progress).files()]
    for sample, frame, one in zip(made, [*frames, *frames], [(1, -1024)] * 2 + [(0.5, -1000), (2, 7)], strict=False):
        wanted = pydicom.pixels.apply_modality_lut(frame, rescale(pydicom, *one))
        assert np.array_equal(sample.values[:, :, 0], wanted)
        assert sample.white is None
    assert np.array_equal(made[4].values[:, :, 0], VALUES), "none in them, and none in the header"
    assert made[4].white == 4095
    write_dicom(pydicom, folder / "a.dcm", frames, PerFrameFunctionalGroupsSequence=each[:1])
    with pytest.raises(ComponentError, match=r"a\.dcm#1: .*functional groups for 1 frames, and none for frame 1"):
        build(places, channels=1, dtype="float32")


def test_whether_values_have_a_unit_is_not_guessed_from_them(pydicom: Any, places: Places) -> None:
    """A slice of a PET scan that is empty has the unit of the others; slope 1 and intercept 0 are no unit."""
    folder = places.data / "folder"
    for name, values in (("a", VALUES * 0), ("b", VALUES)):
        write_dicom(pydicom, folder / f"{name}.dcm", values, RescaleSlope=2.37, RescaleIntercept=0, Modality="PT")
    images = np.asarray(build(places, channels=1, dtype="float32").images)
    wanted = pydicom.pixels.apply_modality_lut(VALUES, rescale(pydicom, 2.37, 0))
    assert np.allclose(images[:, 0], [VALUES * 0, wanted])
    for name in ("a", "b"):
        write_dicom(pydicom, folder / f"{name}.dcm", VALUES, RescaleSlope=1, RescaleIntercept=0)
    assert build(places, channels=1, dtype="uint16").images.numpy().max() == round(4089 * 65535 / 4095)
    write_dicom(pydicom, folder / "a.dcm", VALUES, RescaleIntercept=-1024)
    with pytest.raises(ComponentError, match=r"a\.dcm: has a rescale slope without an intercept, or an intercept"):
        build(places, channels=1, dtype="uint16")


@pytest.mark.parametrize("first", [0, 1000, -300])
def test_a_modality_lookup_table_is_applied(first: int, pydicom: Any, places: Places) -> None:
    """As pydicom does; from values of 8 bits too, for which its own arithmetic has no place."""
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "SS", [512, first, 16])
    table.add_new("LUTData", "OW", (np.arange(512)[::-1] * 100).astype("<u2").tobytes())
    table.ModalityLUTType = "OD"
    small = (np.arange(48).reshape(6, 8) * 5).astype(np.uint8)
    write_dicom(pydicom, places.data / "folder" / "a.dcm", VALUES, ModalityLUTSequence=[table])
    write_dicom(pydicom, places.data / "folder" / "b.dcm", small, bits=8, ModalityLUTSequence=[table])
    images = np.asarray(build(places, channels=1, dtype="uint16", range=[0.0, 65535.0]).images)[:, 0]
    header = pydicom.dcmread(places.data / "folder" / "a.dcm")
    assert np.array_equal(images[0], pydicom.pixels.apply_modality_lut(VALUES.astype(np.int32), header))
    assert np.array_equal(images[1], (511 - (small.astype(int) - first).clip(0, 511)) * 100)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # of pydicom, where a UID is cut off
def test_a_dicom_file_that_is_cut_off_is_named(pydicom: Any, places: Places) -> None:
    """Wherever it ends, and where an element has a length that its type cannot have, or what is deflated is not."""
    folder = places.data / "folder"
    write_dicom(pydicom, folder / "a.dcm", np.stack([VALUES] * 2))
    whole = (folder / "a.dcm").read_bytes()
    assert whole.count(b"UL\x04\x00") == 1
    damaged = {f"b{end}.dcm": whole[:end] for end in (132, 140, 152, 154, 180, 290, 302, 310)}
    damaged["c.dcm"] = whole.replace(b"UL\x04\x00", b"UL\x03\x00")
    header = pydicom.dcmread(folder / "a.dcm")
    header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    header.save_as(folder / "a.dcm")
    deflated = (folder / "a.dcm").read_bytes()
    damaged |= {"d.dcm": deflated[:-40], "e.dcm": deflated[:-40] + b"\xff" * 40}
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ComponentError) as caught:
        build(places, channels=1)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines[:10]] == [f"{folder}/{name}" for name in sorted(damaged)[:10]]
    assert all(": cannot be read as an image (" in line for line in lines[:10])
    with pytest.warns(UserWarning, match=f"left out {len(damaged)} of {len(damaged) + 2} files"):
        images = build(places, channels=1, dtype="uint16", skip_unreadable=True).images
    assert np.array_equal(np.asarray(images), np.stack([np.rint(VALUES * (65535 / 4095))[None]] * 2))
    for end in range(132, len(whole) - VALUES.nbytes, 5):
        for frame in dicom_frames(lambda end=end: io.BytesIO(whole[:end]), "a")[:1]:  # type: ignore[misc]
            with pytest.raises(UnreadableImage, match=r"^a(#0)?: cannot be read"), naming_image(frame):
                read_samples(frame)


@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "RLELossless"])
def test_a_frame_costs_the_reading_of_its_own_bytes(syntax: str, pydicom: Any, places: Places) -> None:
    """The header is read twice, to list the frames and to decode them, and then each frame; whole only if deflated."""
    frames = np.random.default_rng(0).integers(0, 4096, (12, 40, 50), dtype=np.uint16)
    path = places.data / "folder" / "a.dcm"
    write_dicom(pydicom, path, frames, Modality="C" * 16)
    header = pydicom.dcmread(path)
    if syntax == "RLELossless":
        header.compress(pydicom.uid.RLELossless)
        frames = header.pixel_array
    else:
        header.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    header.save_as(path)
    content, opened, count = path.read_bytes(), [], 0

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal count
            found = super().read(size)
            count += len(found)
            return found

    def opens() -> io.BytesIO:
        opened.append(Counting(content))
        return opened[-1]

    made = [read_samples(frame).values[:, :, 0] for frame in dicom_frames(opens, "a")]
    assert np.array_equal(np.stack(made), frames)
    assert count < len(content) * 1.3
    assert [stream.closed for stream in opened] == [True, True]


def test_dicom_files_without_an_ending_are_known_by_their_content(pydicom: Any, places: Places) -> None:
    """By a UID, whose last number is no ending, or IM0001; in a zip file, of which only the first bytes are read."""
    folder, path = places.data / "folder", places.data / "a.zip"
    for index, name in enumerate(["1.2.840.113619.2.55.3.1", "1.2.840.113619.2.55.3.12", "IM0001", "in/IM0001"]):
        (folder / name).parent.mkdir(exist_ok=True)
        write_dicom(pydicom, folder / name, VALUES - index)
    write_dicom(pydicom, folder / "DICOMDIR", VALUES)
    for name in ("server.log.1", "notes"):
        (folder / name).write_text("no image")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    source, zipped = open_images(folder, no_progress), open_images(path, no_progress)
    assert zipped.names == source.names == zipped.file_names
    assert zipped.left_out == source.left_out == {".1": 1, "no ending": 2}
    for one, other in zip(source.files(), zipped.files(), strict=True):
        assert np.array_equal(read_samples(one).values, read_samples(other).values)
    assert len(read_samples(source.files()[3]).values) == len(VALUES)
    save(folder / "a.png")
    assert open_images(folder, no_progress).left_out == {".1": 1, "no ending": 6}


def test_a_dicom_file_in_a_zip_file_is_known_by_its_first_bytes(pydicom: Any, places: Places) -> None:
    """Its end is damaged, which is found when all of it is read."""
    folder, path = places.data / "folder", places.data / "a.zip"
    write_dicom(pydicom, folder / "IM0001", np.full((64, 64), 7, np.uint16))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "IM0001", "IM0001")
    content = path.read_bytes()
    end = content.rindex(b"\7\0\7\0") + 2
    path.write_bytes(content[:end] + b"\1" + content[end + 1 :])
    (file,) = open_images(path, no_progress).files()
    with pytest.raises(UnreadableImage, match=r"IM0001: cannot be read as an image \(Bad CRC-32"), naming_image(file):
        read_samples(file)
