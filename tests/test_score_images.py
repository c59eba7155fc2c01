"""`ganlab score`: images of other tools under a run's protocol, beside runs, and shared out between processes.

tests/plugins/metrics/test_parity.py holds the command against torch-fidelity on the same folders.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import children
from ganlab import UserError, load_run
from ganlab.data.npz import read_npz
from ganlab.report.collect_runs import SCORES
from ganlab.run.records import read_records
from ganlab.viz.image_grid import encode_png
from test_distributed import environments

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
QUICK = ("--features", "classifier", "--set", "features.updates=20")


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Command) -> Path:
    """A finished run whose final FID is of 40 images."""
    table["metric"] = [{"name": "fid", "samples": 40, "features": {"name": "classifier", "updates": 20}}]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    return Path("r")


def write_npz(path: Path, images: torch.Tensor, name: str = "images") -> Path:
    np.savez(path, **{name: images.permute(0, 2, 3, 1).numpy()})
    return path


def write_folder(path: Path, images: torch.Tensor) -> Path:
    path.mkdir()
    for index, image in enumerate(images):
        (path / f"{index:04}.png").write_bytes(encode_png(image))
    return path


def noise(count: int, size: int = 8, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def scored(ganlab: Command, *arguments: object) -> list[dict[str, Any]]:
    code, out, err = ganlab("score", *arguments, "--json")
    assert code == 0, err
    records: list[dict[str, Any]] = json.loads(out)
    return records


def test_a_runs_own_images_score_what_the_run_scored(run: Path, ganlab: Command) -> None:
    """The metric's latents are the stream "metric", so the images are drawn by it here."""
    from ganlab.evaluation import sampling

    images = torch.cat(
        [i for i, _ in sampling.sample(load_run(run).generator, 40, 0, torch.device("cpu"), label="metric")]
    )
    own = read_records(run / "metrics.jsonl")[-1]
    for path in (write_npz(Path("a.npz"), images), write_folder(Path("a"), images)):
        (record,) = scored(ganlab, path, "--against", "digits", *QUICK)
        assert record["value"] == pytest.approx(own["value"], rel=1e-6)
        assert record["protocol"] == own["protocol"] | {"weights": "given"}
        assert record["floor"] == own["floor"]
        assert record["images"]["count"] == 40


def test_given_images_stand_in_a_table_with_runs(run: Path, ganlab: Command, tmp_path: Path) -> None:
    write_npz(Path("noise.npz"), noise(40))
    Path("stylegan.json").write_text(json.dumps(scored(ganlab, "noise.npz", "--against", "digits", *QUICK)))
    code, out, err = ganlab("compare", run, "stylegan.json", "--html", "page.html")
    assert code == 0, err
    assert "tiny" in out
    assert "stylegan" in out
    assert "whether EMA or plain weights generated these images is not recorded: stylegan" in out
    assert "floor, what real images score" in out
    assert "stylegan" in Path("page.html").read_text()
    rows = json.loads(ganlab("compare", "stylegan.json", run, "--json")[1])[0]["rows"]
    assert {row["verdict"] for row in rows} == {"baseline", "cannot tell"}

    fewer = scored(ganlab, "noise.npz", "--against", "digits", *QUICK, "--set", "metric.0.samples=30")
    Path("fewer.json").write_text(json.dumps(fewer))
    code, _, err = ganlab("compare", run, "fewer.json")
    assert code == 2
    assert "protocol.generated differs: 40 (tiny) against 30 (fewer)" in err
    assert "weights" not in err
    Path("twice").mkdir()
    Path("twice/stylegan.json").write_text(Path("stylegan.json").read_text())
    code, _, err = ganlab("compare", "stylegan.json", "twice/stylegan.json")
    assert (code, err.strip()) == (2, "'stylegan' is twice: stylegan.json and twice/stylegan.json")
    for wrong in ("[1]", "[]", "{}", '[{"name": "fid", "value": null, "protocol": {}}]'):
        Path("other.json").write_text(wrong)
        code, _, err = ganlab("compare", run, "other.json")
        assert (code, err.strip()) == (2, f"other.json: expected the list of records that {SCORES} writes")
    Path("tiny.json").write_text(Path("stylegan.json").read_text())
    code, _, err = ganlab("compare", run, "tiny.json")
    assert (code, err.strip()) == (2, "r and tiny.json: a file and runs are both called 'tiny'; rename it")


def test_a_folder_is_a_reference_too(ganlab: Command) -> None:
    """Equal sets have precision and recall 1; a random half of them is chosen by the seed."""
    images = write_folder(Path("real"), noise(24, channels=3))
    metric = ("--metric", "precision_recall", "--features", "shades", "--plugin", "shades.py")
    Path("shades.py").write_text(SHADES)
    values = {r["name"]: r["value"] for r in scored(ganlab, images, "--against", images, *metric)}
    assert values["precision"] == values["recall"] == values["coverage"] == 1
    half = ("--set", "metric.0.samples=12")
    one, same = (scored(ganlab, images, "--against", images, *metric, *half)[0] for _ in range(2))
    assert one["protocol"]["generated"] == 12
    assert one["value"] == same["value"]
    assert "floor" not in one  # a folder without a test split has no other real images


SHADES = """
from attrs import frozen
from ganlab import hookimpl

class Shades:
    name, dim, fingerprint, preprocessing = "shades", 4, "none", "none"
    def __call__(self, images): return images.flatten(1)[:, :4].float()

@frozen
class Config:
    def build(self, evaluation): return Shades()

@hookimpl
def register_features(register): register("shades", Config)
"""


def test_lines_for_people(ganlab: Command) -> None:
    write_npz(Path("a.npz"), noise(30))
    code, out, _ = ganlab("score", "a.npz", "--against", "digits", *QUICK)
    assert code == 0
    assert out.startswith("fid ")
    assert "(classifier features), floor " in out
    assert out.rstrip().endswith("30 images")
    assert "floor" not in ganlab("score", "a.npz", "--against", "digits", *QUICK, "--no-floor")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.npz", "--against", "digit"], "--against digit: neither a data set nor a folder; did you mean 'digits'?"),
        (["nothing", "--against", "digits"], "nothing: expected a folder of images or an .npz file"),
        (["nothing.npz", "--against", "digits"], "nothing.npz: no such file"),
        (["broken.npz", "--against", "digits"], "broken.npz: is not a whole .npz file"),
        (["text.npz", "--against", "digits"], "text.npz: is not a whole .npz file; write one with numpy.savez"),
        (["floats.npz", "--against", "digits"], "floats.npz: images is float64 (4, 8, 8, 1) from 0 to 25"),
        (["one.npz", "--against", "digits"], "one.npz: a score needs at least 2 images, and this has 1"),
        (["empty", "--against", "digits"], "contains no images"),
        (["mixed", "--against", "digits"], "1.png: 9x9 pixels, but 0.png has 8x8"),
        (["a.npz", "--against", "digits", "--metric", "fidd"], "unknown metric 'fidd'; did you mean 'fid'?"),
        (["a.npz", "--against", "digits", "--features", "classifer"], "did you mean 'classifier'?"),
        (["a.npz", "--against", "digits", "--set", "features.weights=no.pth"], "there is no weights file no.pth"),
        (
            ["a.npz", "--against", "digits", "--set", "dataset.sise=9"],
            "dataset.sise: unknown key; did you mean 'size'?",
        ),
        (
            ["a.npz", "--against", "digits", "--set", "dataset.size=9"],
            "a.npz: images of 1x8x8 do not compare with those of 1x9x9 in digits; --set dataset.size=8 resizes",
        ),
        (["a.npz", "--against", "digits", "--set", "metric.0.samples=31"], "metric.0.samples: 31, but a.npz has 30"),
        (["a.npz", "--against", "digits", "--plugin", "no.py"], "no.py"),
        (["a.npz", "--against", "digits", "--set", "metric=[]"], "score: metric: is empty; name one with --metric"),
    ],
)
def test_refusals(arguments: list[str], said: str, ganlab: Command) -> None:
    write_npz(Path("a.npz"), noise(30))
    write_npz(Path("one.npz"), noise(1))
    write_npz(Path("floats.npz"), noise(4).double())
    Path("broken.npz").write_bytes(Path("a.npz").read_bytes()[:700])
    Path("text.npz").write_text("images")
    Path("empty").mkdir()
    Path("mixed").mkdir()
    for index, size in enumerate((8, 9)):
        Path(f"mixed/{index}.png").write_bytes(encode_png(noise(1, size)[0]))
    code, out, err = ganlab("score", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_metric_that_is_given_as_a_text_has_the_common_features(ganlab: Command) -> None:
    write_npz(Path("a.npz"), noise(30))
    common = ("--against", "digits", "--features", "pixels", "--no-floor")
    (wanted,) = scored(ganlab, "a.npz", *common, "--set", "metric=[{name='fid',features='pixels'}]")
    for setting in ("metric.0=fid", "metric=['fid']"):
        (found,) = scored(ganlab, "a.npz", *common, "--set", setting)
        assert (found["value"], found["protocol"]) == (wanted["value"], wanted["protocol"])
    code, out, err = ganlab("score", "a.npz", *common, "--set", "metric.0=3")
    assert (code, out, err) == (2, "", "score: metric[0]: expected the name of a metric or a table, got 3\n")


def test_an_array_of_objects_is_not_unpickled(ganlab: Command) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path("executed").touch, ())

    np.savez("a.npz", images=np.array([Bomb()], dtype=object))
    code, _, err = ganlab("score", "a.npz", "--against", "digits")
    assert code == 2
    assert "a.npz: cannot be read" in err
    assert not Path("executed").exists()


@pytest.mark.extended
@pytest.mark.torchrun
def test_many_processes_score_what_one_does(ganlab: Command) -> None:
    """31 images over 3 processes: shares of 10, 10 and 11; KID's subsets depend on the images' order."""
    write_npz(Path("a.npz"), noise(31))
    metrics = ["--metric", "fid", "--metric", "kid", "--metric", "inception_score", "--set", "metric.1.subset_size=9"]
    arguments = ["score", "a.npz", "--against", "digits", *QUICK, *metrics]
    alone = scored(ganlab, *arguments[1:])
    processes = [
        children.Child(
            children.Command(*arguments, "--json", before=partial(children.set_environment, environment)),
            Path(f"rank{rank}.log"),
        )
        for rank, environment in enumerate(environments(3))
    ]
    assert [process.ended() for process in processes] == [0, 0, 0], [process.said for process in processes]
    found = re.search(r"^\[$.*", processes[0].said, re.MULTILINE | re.DOTALL)  # after lines on its progress
    assert found is not None
    together = json.loads(found[0])
    assert [process.said for process in processes[1:]] == ["", ""]
    for one, other in zip(alone, together, strict=True):
        assert other["value"] == pytest.approx(one["value"], rel=1e-5, abs=1e-7)
        assert other["protocol"] == one["protocol"]
    assert [r["protocol"]["generated"] for r in together] == [31] * len(together)


def test_an_archive_with_channels_first_is_understood(ganlab: Command) -> None:
    images = noise(30, channels=3, size=16)
    write_folder(Path("real"), noise(24, channels=3, size=16))
    write_npz(Path("last.npz"), images)
    np.savez("first.npz", images=images.numpy())
    of = ("--against", "real", "--metric", "fid", "--features", "pixels")
    last, first = (scored(ganlab, path, *of)[0] for path in ("last.npz", "first.npz"))
    assert last["value"] == first["value"]
    assert last["images"]["fingerprint"] == first["images"]["fingerprint"]


@pytest.mark.parametrize(
    ("shape", "reference", "wanted"),
    [
        ((4, 3, 8, 8), None, (3, 8, 8)),
        ((4, 1, 8, 9), None, (1, 8, 9)),
        ((4, 2, 8, 9), None, (2, 8, 9)),
        ((4, 4, 8, 8), None, (4, 8, 8)),
        ((4, 8, 9, 3), None, (3, 8, 9)),
        ((4, 8, 8, 4), None, (4, 8, 8)),
        ((4, 4, 8, 8), (3, 8, 8), (4, 8, 8)),
        ((4, 1, 1, 1), None, (1, 1, 1)),
        ((4, 2, 1, 1), (2, 1, 1), (2, 1, 1)),  # points
        ((4, 1, 1, 2), (2, 1, 1), (2, 1, 1)),
        ((4, 3, 8, 1), (1, 3, 8), (1, 3, 8)),
        ((4, 3, 8, 1), (3, 8, 1), (3, 8, 1)),
        ((4, 6, 8, 8), (6, 8, 8), (6, 8, 8)),
        ((4, 8, 8, 6), (6, 8, 8), (6, 8, 8)),
        ((4, 3, 8, 1), None, "channels first they are 3 channels of 8x1, channels last 1 channels of 3x8; write"),
        ((4, 3, 8, 4), (3, 8, 8), "channels last 4 channels of 3x8, wanted 3 of 8x8; write them as (N, height, width"),
        ((4, 4, 8, 4), (4, 9, 9), "(4, 4, 8, 4) can be read in two layouts"),
        ((4, 5, 8, 7), None, "channels first they are 5 channels of 8x7, channels last 7 channels of 5x8"),
        ((4, 3, 3, 3), (3, 3, 3), "channels last 3 channels of 3x3; write them as PNG files into a folder"),
    ],
)
def test_the_layout_of_an_archive_is_known_or_refused(
    shape: tuple[int, ...], reference: tuple[int, ...] | None, wanted: tuple[int, ...] | str
) -> None:
    """What it is read as is held against the pixels themselves, each of which has a value of its own."""
    pixels = np.arange(math.prod(shape)).astype(np.uint8).reshape(shape)
    np.savez("a.npz", images=pixels)
    if isinstance(wanted, str):
        with pytest.raises(UserError, match=re.escape(wanted)):
            read_npz(Path("a.npz"), reference)
        return
    found, _ = read_npz(Path("a.npz"), reference)
    assert tuple(found.shape[1:]) == wanted
    assert np.array_equal(found.numpy(), pixels if shape[1:] == wanted else pixels.transpose(0, 3, 1, 2))


def test_four_channels_first_are_no_images_of_eight_channels(ganlab: Command) -> None:
    write_folder(Path("real"), noise(24, channels=3))
    np.savez("a.npz", images=noise(30, channels=4).numpy())
    code, _, err = ganlab("score", "a.npz", "--against", "real", "--metric", "fid", "--features", "pixels")
    assert code == 2
    assert err.startswith("a.npz: images of 4x8x8 do not compare with those of 3x8x8 in image_folder:real")
    np.savez("a.npz", images=np.zeros((30, 4, 8, 4), np.uint8))
    code, _, err = ganlab("score", "a.npz", "--against", "real", "--metric", "fid", "--features", "pixels")
    assert code == 2
    assert err.startswith("a.npz: images of (30, 4, 8, 4) can be read in two layouts: channels first they are 4")


@pytest.mark.parametrize(
    ("shape", "against", "advice"),
    [
        ((30, 3, 16, 16), "real", ""),  # of 16 pixels, as the reference
        ((30, 3, 9, 9), "real", "; --set dataset.size=9 resizes the reference"),
        ((30, 1, 16, 16), "real", "; --set dataset.channels=1 gives the reference this shape"),
        ((30, 1, 9, 9), "real", "; --set dataset.channels=1 --set dataset.size=9 gives the reference this shape"),
        ((30, 3, 9, 12), "real", "; --set dataset.size=[9,12] resizes the reference"),
        ((30, 16, 16, 4), "real", "; --set dataset.channels=4 gives the reference this shape"),  # with opacity
        ((30, 3, 8, 8), "digits", None),  # digits are grey, and have no such option
    ],
)
def test_advice_is_what_would_be_accepted(
    shape: tuple[int, ...], against: str, advice: str | None, ganlab: Command
) -> None:
    """Each piece of advice is followed."""
    write_folder(Path("real"), noise(24, channels=3, size=16))
    np.savez("a.npz", images=np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    arguments = ["score", "a.npz", "--against", against, "--metric", "fid", "--features", "pixels"]
    code, _, said = ganlab(*arguments)
    assert "dataset.channels=16" not in said
    if advice == "":
        assert code == 0, said
        return
    assert code == 2
    (line,) = said.splitlines()
    assert line.partition("; ")[2] == ("" if advice is None else advice[2:])
    if advice is not None:
        assert ganlab(*arguments, *advice[2:].split(" ")[: 2 * advice.count("--set")])[0] == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_score_file_as_powershell_redirects_it_can_be_compared(encoding: str, ganlab: Command) -> None:
    write_npz(Path("a.npz"), noise(30))
    records = scored(ganlab, "a.npz", "--against", "digits", *QUICK)
    Path("a.json").write_bytes(json.dumps(records).encode(encoding))
    code, out, said = ganlab("compare", "a.json", "--json")
    assert code == 0, said
    assert f"{records[0]['value']}" in out


def test_an_archive_is_read_with_its_conditions() -> None:
    """What `ganlab sample` writes beside the images; a metric is given it, and what is no condition is refused."""
    images, labels = noise(4), np.array([3, 0, 1, 2], np.int32)
    pixels = images.permute(0, 2, 3, 1).numpy()
    np.savez("labels.npz", images=pixels, labels=labels)
    read, condition = read_npz(Path("labels.npz"))
    assert torch.equal(read, images)
    assert condition is not None
    assert (condition.dtype, condition.tolist()) == (torch.int64, labels.tolist())
    np.savez("pairs.npz", images=pixels, condition=pixels[:, ::2])
    _, condition = read_npz(Path("pairs.npz"))
    assert condition is not None
    assert torch.equal(condition, images[:, :, ::2])
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.savez("rows.npz", images=pixels, condition=rows.astype(">f4"))
    _, condition = read_npz(Path("rows.npz"))
    assert condition is not None
    assert (condition.dtype, condition.tolist()) == (torch.float32, rows.tolist())
    bad: dict[str, dict[str, np.ndarray[Any, Any]]] = {
        str(np.dtype(np.longdouble)): {"condition": rows.astype(np.longdouble)},
        "float64 (4,) from 0 to 3": {"labels": labels.astype(float)},
        "3 entries for 4 images": {"labels": labels[:3]},
        "class labels from -1": {"labels": labels - 1},
        "float64 (4, 8, 8, 1) from": {"condition": pixels.astype(np.float64)},
        "wanted integers (N,)": {"labels": np.array(list("abcd"))},
    }
    for line, arrays in bad.items():
        np.savez("bad.npz", images=pixels, **arrays)
        with pytest.raises(UserError) as caught:
            read_npz(Path("bad.npz"))
        assert str(caught.value).startswith(f"bad.npz: {next(iter(arrays))} is no")
        assert line in str(caught.value)
