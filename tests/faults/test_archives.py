"""Archives that would write elsewhere, put where a data set unpacks one: refused, and nothing is written outside."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.celeba import CelebA
from ganlab_plugins.datasets.cifar10 import CIFAR10
from ganlab_plugins.datasets.mnist import MNIST


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
