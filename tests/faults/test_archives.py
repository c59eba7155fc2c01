"""Archives that would write elsewhere, put where a data set unpacks one: refused, and nothing is written outside.

And zip files of images whose members have names that are damaged, in another form, or without an extension.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from ganlab import ComponentError, Places, open_images
from ganlab.data.image_archive import ImageArchive
from ganlab.utils.progress import no_progress
from ganlab_plugins.datasets.celeba import CelebA
from ganlab_plugins.datasets.cifar10 import CIFAR10
from ganlab_plugins.datasets.image_folder import ImageFolder
from ganlab_plugins.datasets.mnist import MNIST
from image_files import save


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "inside" / "data").mkdir(parents=True)
    return Places(tmp_path / "inside" / "data", tmp_path / "inside" / "cache")


def outside(places: Places) -> list[str]:
    """What lies beside the folder that everything should stay in."""
    return [path.name for path in places.data.parent.parent.iterdir() if path.name != "inside"]


def malicious_tar(path: Path) -> None:
    """Members that climb out, by their names and by links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../escaped", "../../escaped", "/tmp/ganlab-escaped", "cifar-10-batches-py/../../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"gotya"))
        link = tarfile.TarInfo("cifar-10-batches-py")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        archive.addfile(link)
        through = tarfile.TarInfo("cifar-10-batches-py/escaped")
        through.size = 5
        archive.addfile(through, io.BytesIO(b"gotya"))


def malicious_gz(path: Path) -> None:
    """A gzip file that says that its content is called something else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, gzip.GzipFile("../../../escaped", "wb", fileobj=stream) as packed:
        packed.write(b"gotya")


def test_archives_that_lie_there_are_not_unpacked(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision asks for their MD5 first, and would download them anew."""

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", no_network)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    malicious_tar(places.data / "cifar-10-python.tar.gz")
    with pytest.raises(ComponentError, match="cifar10: could not be downloaded"):
        CIFAR10().build(places, "train")
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        malicious_gz(places.data / "MNIST" / "raw" / f"{part}-ubyte.gz")
    with pytest.raises(ComponentError, match="mnist: could not be downloaded"):
        MNIST().build(places, "train")
    assert outside(places) == []
    assert not Path("/tmp/ganlab-escaped").exists()


@pytest.mark.parametrize(("reader", "write"), [(CIFAR10, malicious_tar), (MNIST, malicious_gz)])
def test_archives_that_are_served_in_place_of_the_published_are_not_unpacked(
    reader: Callable[[], CIFAR10 | MNIST],
    write: Callable[[Path], None],
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = []

    def serve(url: str, path: str | Path, *_: object, **__: object) -> None:
        write(Path(path))
        served.append(url)

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", serve)
    for _ in range(2):  # what was served lies there the second time
        with pytest.raises(ComponentError, match="could not be downloaded"):
            reader().build(places, "train")
    assert served
    assert outside(places) == []
    assert not Path("/tmp/ganlab-escaped").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_celeba_takes_no_link_from_its_archive(kind: str, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    (places.data.parent / "secret.jpg").write_bytes(b"secret")

    def serve(file_id: str, root: str, filename: str, md5: str) -> None:
        with zipfile.ZipFile(Path(root) / filename, "w") as archive:
            member = zipfile.ZipInfo("img_align_celeba/000001.jpg")
            bits = {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR}[kind]
            member.create_system, member.external_attr = 3, (bits | 0o777) << 16
            archive.writestr(member, "../../../secret.jpg")

    monkeypatch.setattr("torchvision.datasets.utils.download_file_from_google_drive", serve)
    with pytest.raises(ComponentError, match=r"holds 'img_align_celeba/000001\.jpg'; wanted only .*; remove it"):
        CelebA().build(places, "train")
    assert not (places.data / "celeba" / "img_align_celeba").exists()
    assert [path for path in places.data.rglob("*") if path.is_symlink()] == []


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_name_in_a_zip_file_that_is_marked_as_utf_8_and_is_not(tmp_path: Path) -> None:
    """In the list of members the whole file is refused; where only the member itself has it, that one is."""
    save(tmp_path / "a.png")
    path, picture = tmp_path / "a.zip", (tmp_path / "a.png").read_bytes()
    content = zipped(path, {"\u00e4.png": picture, "b.png": picture}).read_bytes()
    name = "\u00e4.png".encode()
    first = content.index(name)
    path.write_bytes(content.replace(name, b"\xff\xfe.png"))
    with pytest.raises(ComponentError) as caught:
        open_images(path, no_progress)
    expected = "cannot be read as a zip file: a member's name is marked as UTF-8 and is not"
    assert str(caught.value) == f"{path}: {expected}"
    path.write_bytes(content[:first] + b"\xff\xfe" + content[first + 2 :])
    places = Places(tmp_path, tmp_path / "cache")
    with pytest.raises(ComponentError, match=r"a\.zip/\u00e4\.png: cannot be read as an image \('utf-8' codec"):
        ImageFolder(path=str(path)).build(places, "train")
    with pytest.warns(UserWarning, match="left out 1 of 2 files"):
        assert len(ImageFolder(path=str(path), skip_unreadable=True).build(places, "train").images) == 1
    with pytest.raises(OSError, match="utf-8"):
        open_images(path, no_progress).read("\u00e4.png")


def same_as_folder(archive: ImageArchive, folder: Path) -> None:
    unpacked = open_images(folder, no_progress)
    assert (archive.names, archive.left_out) == (unpacked.names, unpacked.left_out)
    for name in unpacked.names:
        assert archive.read(name) == (folder / name).read_bytes()


def test_members_that_begin_with_a_dot_and_a_slash_are_not_hidden(tmp_path: Path) -> None:
    """As bsdtar writes them; held against what `ZipFile.extractall` makes of the file."""
    folder = tmp_path / "folder"
    for name in ("cats/a.png", "dogs/b.png", "c.png", "labels.csv"):
        save(folder / f"{name}.png").tofile(folder / name)
    members = {f"./{name}": (folder / name).read_bytes() for name in ("cats/a.png", "dogs/b.png", "labels.csv")}
    path = zipped(tmp_path / "a.zip", {**members, "c.png": (folder / "c.png").read_bytes(), "./.hidden.png": b"x"})
    archive = open_images(path, no_progress)
    with zipfile.ZipFile(path) as opened:
        opened.extractall(tmp_path / "unpacked")
    same_as_folder(archive, tmp_path / "unpacked")
    assert archive.names == ["c.png", "cats/a.png", "dogs/b.png"]
    assert archive.has("labels.csv")
    assert not archive.has("./labels.csv")
    below = open_images(zipped(path, {"./set/a/1.png": b"1", "./set/b/2.png": b"2"}), no_progress)
    assert (below.names, below.prefix, below.read("b/2.png")) == (["a/1.png", "b/2.png"], "set/", b"2")


def test_pictures_without_an_extension_in_a_zip_file(tmp_path: Path) -> None:
    """Known by their headers; a decompression bomb and one with a broken end are pictures too, and others are not."""
    folder = tmp_path / "folder"
    for name in ("a.png", "in/b.jpg", "c.bmp", "d.tif", "broken.png"):
        save(folder / name)
        (folder / name).rename(folder / Path(name).with_suffix(""))
    (folder / "broken").write_bytes((folder / "broken").read_bytes()[:60])
    bomb = bytearray((folder / "a").read_bytes())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (folder / "bomb").write_bytes(bomb)
    for name, content in (("notes", b"BM is no bitmap"), ("empty", b""), ("P1", b"P1 of a list")):
        (folder / name).write_bytes(content)
    members = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    archive = open_images(zipped(tmp_path / "a.zip", members), no_progress)
    same_as_folder(archive, folder)
    assert archive.names == ["a", "bomb", "broken", "c", "d", "in/b"]
    assert archive.left_out == {"no ending": 3}
