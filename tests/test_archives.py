"""Pictures in ImageNet's archives, Kaggle's layout and shards: read in place, indexed once, faults named."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
import pytest

import dsr
from dsr import train
from dsr.data import ArraySamples, DataSet, Preparation, Preprocessing, load
from dsr.data import tars as tars_module
from dsr.data.samples import epoch_draws
from dsr.data.tars import Member, index_of
from dsr.files.errors import DataError
from dsr.metrics import top_k_accuracy
from dsr.train import recipe
from dsr.train.metrics import TOP5_ACCURACY

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
CLASSES = ("n01440764", "n02119789", "n02012849", "n03126707")
NUMBERS = {"n02119789": 1, "n01440764": 2, "n03126707": 3, "n02012849": 4}
MAPPING = "n01440764 tench, Tinca tinca\nn02012849 crane\nn02119789 kit fox, Vulpes macrotis\nn03126707 crane\n"
READABLE = ("tench", "crane (n02012849)", "kit fox", "crane (n03126707)")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DSR_CACHE", str(tmp_path / "cache"))


def encoded(shade, side=8, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), shade % 256, np.uint8)).save(stream, kind)
    return stream.getvalue()


def archive(members, file=None, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stream.getvalue())
    return stream.getvalue()


def shades(samples):
    """The grey of each picture, whatever the normalisation."""
    batch = samples.batch(np.arange(len(samples)))
    return np.rint(batch[:, 0, 0, 0] * 255).astype(int).tolist()


def stem(number):
    return f"ILSVRC2012_val_{number:08d}"


def training(classes=CLASSES, each=2):
    return [
        (f"{name}.tar", archive((f"{name}_{i}.JPEG", encoded(10 * number + i)) for i in range(each)))
        for number, name in enumerate(classes)
    ]


VAL = ["n02119789", "n03126707", "n01440764", "n02012849", "n02119789"]


def official(path, val=VAL, names=None):
    archive(training(), path / "ILSVRC2012_img_train.tar")
    pictures = [(f"{stem(n)}.JPEG", encoded(100 + n)) for n in names or range(1, len(val) + 1)]
    archive(pictures[::-1], path / "ILSVRC2012_img_val.tar")
    (path / "LOC_synset_mapping.txt").write_text(MAPPING)
    return path


def solution(path, val=VAL):
    rows = [f"{stem(n)},{name} 85 1 499 272 {name} 1 2 3 4" for n, name in enumerate(val, 1)]
    (path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows) + "\n")
    return path


PLAIN = Preparation(normalisation="none")


def check(found):
    assert found.classes == READABLE
    assert found.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert shades(found.train) == [0, 1, 20, 21, 10, 11, 30, 31]
    by_shade = dict(zip(shades(found.test), found.test.labels.tolist(), strict=True))
    assert by_shade == {101: 2, 102: 3, 103: 0, 104: 1, 105: 2}


@pytest.mark.parametrize("truth", ["csv", "map", "kit", "kit.tar.gz"])
def test_official_archives(tmp_path, truth):
    path = official(tmp_path / "set")
    ground = "\n".join(str(NUMBERS[name]) for name in VAL).encode()
    if truth == "csv":
        solution(path)
    elif truth == "map":
        (path / "ILSVRC2012_validation_ground_truth.txt").write_bytes(ground)
        (path / "map_clsloc.txt").write_text("".join(f"{name} {k} some_name\n" for name, k in NUMBERS.items()))
    else:
        savemat = pytest.importorskip("scipy.io", reason="meta.mat is a file of MATLAB").savemat
        rows = np.array(
            [(k, name, "words") for name, k in NUMBERS.items()],
            dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)],
        )
        meta = io.BytesIO()
        savemat(meta, {"synsets": rows})
        inner = "ILSVRC2012_devkit_t12/data"
        files = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": ground}
        if truth == "kit":
            (path / inner).mkdir(parents=True)
            for name, content in files.items():
                (path / inner / name).write_bytes(content)
        else:
            members = [(f"{inner}/{name}", content) for name, content in files.items()]
            archive(members, path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz")
    check(load("folder", path, PLAIN))


def test_the_numbers_of_the_kit_need_a_list(tmp_path, monkeypatch):
    path = official(tmp_path / "set")
    with pytest.raises(
        DataError, match=r"set: expected the classes of the validation pictures: LOC_val_solution\.csv,"
    ):
        load("folder", path, PLAIN)
    (path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n3\n2\n4\n1\n")
    with pytest.raises(DataError, match=r"what its numbers mean is in meta\.mat or map_clsloc\.txt, which are missing"):
        load("folder", path, PLAIN)
    (path / "meta.mat").write_bytes(b"MATLAB")
    monkeypatch.setattr("dsr.data.imagenet.find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"meta\.mat: a file of MATLAB, which needs scipy: pip install scipy, or put map_"
    ):
        load("folder", path, PLAIN)
    (path / "map_clsloc.txt").write_text("n02119789 1 kit_fox\n")
    with pytest.raises(DataError, match=r"ground_truth\.txt: line 2: expected the number of a class, got '3'"):
        load("folder", path, PLAIN)


@pytest.mark.parametrize("inner", ["", "ILSVRC/Data/CLS-LOC"])
def test_the_layout_of_kaggle(tmp_path, inner):
    path = tmp_path / "set"
    for number, name in enumerate(CLASSES):
        (path / inner / "train" / name).mkdir(parents=True)
        for i in range(2):
            (path / inner / "train" / name / f"{name}_{i}.JPEG").write_bytes(encoded(10 * number + i))
    (path / inner / "val").mkdir()
    for n in range(1, 6):
        (path / inner / "val" / f"{stem(n)}.JPEG").write_bytes(encoded(100 + n))
    (path / "LOC_synset_mapping.txt").write_text(MAPPING)
    check(load("folder", solution(path), PLAIN))
    (path / inner / "val" / "x.exe").write_bytes(b"")
    with pytest.raises(DataError, match=r"val/x\.exe: expected a picture, a file ending in \.jpg"):
        load("folder", path, PLAIN)
    (path / inner / "val" / "x.exe").rename(path / inner / "val" / f"{stem(9)}.JPEG")
    with pytest.raises(DataError, match=r"solution\.csv: no line for ILSVRC2012_val_00000009, which .*val has"):
        load("folder", path, PLAIN)


def test_shards(tmp_path):
    def shard(name, samples):
        members = [
            entry
            for number, (key, label) in enumerate(samples)
            for entry in [(f"{key}.cls", str(label).encode()), (f"{key}.json", b"{}"), (f"{key}.png", encoded(number))]
        ]
        return archive(members, tmp_path / "set" / name)

    shard("x-train-000000.tar", [("a/0", 1), ("a/1", 0)])
    shard("x-train-000001.tar", [("a/2", 2)])
    shard("x-val-000000.tar", [("0", 2), ("1", 2)])
    found = load("folder", tmp_path / "set", PLAIN)
    assert found.classes == ("0", "1", "2") and found.train.labels.tolist() == [1, 0, 2]
    assert shades(found.train) == [0, 1, 0] and found.test.labels.tolist() == [2, 2]
    shard("x-train-000001.tar", [("a/2", "two")])
    with pytest.raises(DataError, match=r"x-train-000001\.tar: a/2\.cls: expected a class number >= 0 as text"):
        load("folder", tmp_path / "set", PLAIN)
    shard("x-train-000001.tar", [("a/1", 2)])
    with pytest.raises(DataError, match=r"000001\.tar: a/1\.png: a picture of this name is in .*000000\.tar as well"):
        load("folder", tmp_path / "set", PLAIN)
    archive([("b.jpg", encoded(1))], tmp_path / "set" / "x-train-000001.tar")
    with pytest.raises(DataError, match=r"x-train-000001\.tar: b: expected a class, b\.cls, found none"):
        load("folder", tmp_path / "set", PLAIN)
    archive([("b.cls", b"1")], tmp_path / "set" / "x-train-000001.tar")
    with pytest.raises(DataError, match=r"x-train-000001\.tar: b: expected a picture, b\.jpg, found none"):
        load("folder", tmp_path / "set", PLAIN)


def test_a_thousand_classes_and_the_index_is_made_once(tmp_path, monkeypatch):
    classes = [f"n{number:08d}" for number in range(1000)]
    path = tmp_path / "set"
    archive(training(classes, 1), path / "ILSVRC2012_img_train.tar")
    archive([(f"{stem(n)}.JPEG", encoded(n)) for n in range(1, 1001)], path / "ILSVRC2012_img_val.tar")
    found = load("folder", solution(path, classes[::-1]), PLAIN)
    assert len(found.classes) == 1000 and found.test.labels.tolist() == list(range(999, -1, -1))
    assert found.train.files[998].name == "n00000998.tar/n00000998_0.JPEG"
    made = []
    scanned = tars_module._scanned
    monkeypatch.setattr(tars_module, "_scanned", lambda path: made.append(path) or scanned(path))
    again = load("folder", path, PLAIN)
    assert made == [] and again.train.files[998] == found.train.files[998]
    archive(training(classes[::-1], 1), path / "ILSVRC2012_img_train.tar")  # as long as before
    changed = load("folder", path, PLAIN)
    assert made == [path / "ILSVRC2012_img_train.tar"] and shades(changed.train)[:2] == [999 * 10 % 256, 998 * 10 % 256]


def test_an_archive_of_folders_gives_what_its_folders_give(tmp_path, shared):
    source = shared / "data" / "imagenette-224.tar"
    if not source.is_file():
        pytest.skip("no imagenette")
    with tarfile.open(source) as unpacked:
        # Python before 3.11.4 has no filters.
        unpacked.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    one, two = load("folder", source), load("folder", tmp_path / "imagenette-224", Preparation(workers=2))
    assert one.classes == two.classes and one.classes[0] == "tench"
    assert one.train.labels.tolist() == two.train.labels.tolist() and len(one.test) == len(two.test) == 160
    assert (
        sorted(file.name for file in one.train.files)[0]
        == "imagenette-224/train/n01440764/"
        + sorted(os.listdir(tmp_path / "imagenette-224" / "train" / "n01440764"))[0]
    )
    for number in (0, 77):
        name = two.test.files[number].rpartition("imagenette-224/")[2]
        place = next(i for i in range(160) if one.test.files[i].name.endswith(name))
        assert np.array_equal(one.test.batch(np.array([place])), two.test.batch(np.array([number])))


def test_damaged_archives_are_named_before_training(tmp_path):
    good = archive([(f"a{n}.png", encoded(n)) for n in range(3)])
    file = tmp_path / "x.tar"

    def words(content):
        file.write_bytes(content)
        with pytest.raises(DataError) as caught:
            index_of(file)
        return str(caught.value).removeprefix(f"{file}: ")

    assert words(good[:1600]).startswith("a1.png: cut short") or "cut short after a" in words(good[:1600])
    assert "cut short after a2.png" in words(good[: 3 * 1024])
    assert "after a0.png" in words(good[:1024] + b"x" * 512 + good[1536:])
    assert words(b"").startswith("no tar archive") and words(b"plain text" * 200).startswith("no tar archive")
    assert words(archive([], mode="w:gz")).startswith("compressed: expected a plain tar")
    assert words(archive([])) == "the archive is empty"
    assert words(archive([("a", b"1"), ("a", b"2")])).startswith("a: expected one member of this name")
    inner = archive([("a.png", encoded(1))])
    assert words(archive([("n1.tar", inner[:1024])])).startswith("n1.tar: damaged or cut short after a.png")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        link = tarfile.TarInfo("l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    assert words(stream.getvalue()) == "l.png: expected a file, found a link or a device"
    file.write_bytes(good)
    index = index_of(file)
    member = Member(str(file), index.names[2], int(index.offsets[2]), int(index.sizes[2]))
    assert tars_module.content(member) == encoded(2)
    file.write_bytes(good[: member.offset + 5])
    with pytest.raises(DataError, match=r"x\.tar: a2\.png: cut short: the archive ends after 5 of its"):
        tars_module.content(member)


def test_lists_that_do_not_fit_are_refused(tmp_path):
    path = official(tmp_path / "set")
    solution(path, VAL[:4])
    with pytest.raises(
        DataError, match=r"LOC_val_solution\.csv: no line for ILSVRC2012_val_00000005, which .*val\.tar"
    ):
        load("folder", path, PLAIN)
    solution(path, [*VAL, VAL[0]])
    with pytest.raises(
        DataError, match=r"img_val\.tar: no picture ILSVRC2012_val_00000006, which .*solution\.csv lists"
    ):
        load("folder", path, PLAIN)
    solution(path, [*VAL[:4], "n99999999"])
    with pytest.raises(DataError, match=r"00000005: the class n99999999 is not among those to train"):
        load("folder", path, PLAIN)
    (path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001\n")
    with pytest.raises(
        DataError, match=r"solution\.csv: line 2: expected the name of a picture, a comma, and its class"
    ):
        load("folder", path, PLAIN)
    archive([*training(), ("readme.bin", b"x")], path / "ILSVRC2012_img_train.tar")
    with pytest.raises(DataError, match=r"img_train\.tar: readme\.bin: expected only archives of classes"):
        load("folder", path, PLAIN)
    archive([("train/a/1.png", b""), ("val/a/1.png", b"")], tmp_path / "y.tar")
    with pytest.raises(DataError, match="expected two classes or more, found only 'a'"):
        load("folder", tmp_path / "y.tar", PLAIN)
    archive([("train/a/1.png", b""), ("train/b/1.png", b""), ("val/a/1.png", b"")], tmp_path / "y.tar")
    with pytest.raises(DataError, match="train and val differ in classes: only one has b"):
        load("folder", tmp_path / "y.tar", PLAIN)
    archive([("train/a/1.exe", b"")], tmp_path / "y.tar")
    with pytest.raises(DataError, match=r"y\.tar: train/a/1\.exe: expected a picture, a member ending in \.jpg"):
        load("folder", tmp_path / "y.tar", PLAIN)


def test_top_5_beside_top_1_of_more_than_10_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    outputs, labels = rng.integers(0, 4, (500, 12)).astype(np.float32), rng.integers(0, 12, 500)
    assert TOP5_ACCURACY.total(outputs, labels) / 500 == top_k_accuracy(outputs, labels, 5)
    assert TOP5_ACCURACY.total(np.zeros((12, 12)), np.arange(12)) == 5  # of equal outputs the first count
    x = rng.random((48, 1, 4, 4), np.float32)
    for classes in (12, 10):
        samples = ArraySamples(x, np.arange(48) % classes)
        network = dsr.Network(dsr.Sequential(dsr.Flatten(), dsr.Linear(16, classes)), timesteps=1)
        kind = DataSet("own", [str(i) for i in range(classes)], (1, 4, 4), samples, samples)
        metrics = train.Trainer(network, kind, tmp_path / str(classes), epochs=1, batch_size=8).fit()
        line = capsys.readouterr().out
        if classes == 10:
            assert "test_top5_accuracy" not in metrics and "top 5" not in line
        else:
            expected = top_k_accuracy(network.forward(x), samples.labels, 5)
            assert metrics["test_top5_accuracy"] == expected > metrics["test_accuracy"]
            assert f"(top 5 {100 * expected:.2f} %)" in line


def test_pictures_that_have_the_size_are_kept_or_scaled(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "set" / place).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "set" / place / "1.png")
    one = np.array([0])
    kept, scaled = (
        load("folder", tmp_path / "set", Preparation(image_size=16, normalisation="none", **changes))
        for changes in ({}, {"same_size": "scale"})
    )
    expected = Image.fromarray(pixels).resize((18, 18), Image.Resampling.BILINEAR).crop((1, 1, 17, 17))
    file = str(tmp_path / "set" / "val" / "a" / "1.png")
    for found, wanted in ((kept, pixels), (scaled, np.asarray(expected))):
        assert np.array_equal(np.rint(found.test.batch(one)[0].transpose(1, 2, 0) * 255), wanted)
        assert np.array_equal(found.preprocessing.files([file]), found.test.batch(one))  # dsr predict
    old = {name: value for name, value in scaled.preprocessing.to_dict().items() if name != "same_size"}
    assert Preprocessing.from_dict(old) == scaled.preprocessing
    values = {"data": "folder", "model": "digits", "image_size": 16}
    assert recipe.of_checkpoint(values).same_size == "scale" and recipe.from_dict(values).same_size == "keep"
    assert recipe.of_checkpoint({"data": "digits", "model": "digits"}) == recipe.from_dict(
        {"data": "digits", "model": "digits"}
    )


def test_damaged_pictures_stop_a_run_or_are_skipped_and_counted(tmp_path):
    pictures = [
        (f"{split}/{name}/{n}.png", encoded(40 * n + (name == "b")))
        for split, count in (("train", 4), ("val", 2))
        for name in "ab"
        for n in range(count)
    ]
    damaged = {"train/a/1.png", "train/a/2.png", "train/b/3.png"}
    file = tmp_path / "set.tar"
    archive([(name, data[:-30] if name in damaged else data) for name, data in pictures], file)
    with pytest.raises(DataError, match=r"set\.tar: train/a/1\.png: not a complete image"):
        load("folder", file, PLAIN).train.batch(np.arange(8))
    plan = [(np.array([5, 1]), None), (np.array([0, 2]), None), (np.array([7, 1]), epoch_draws(2, 0, 0))]
    for workers in (0, 2):
        samples = load("folder", file, Preparation(normalisation="none", on_error="skip", workers=workers)).train
        with pytest.warns(RuntimeWarning, match="takes its place") as caught:
            batches = [np.rint(batch[:, 0, 0, 0] * 255).astype(int).tolist() for batch in samples.batches(plan)]
        assert batches == [[41, 120], [0, 120], [1, 120]]  # the next that can be read, of the same class
        assert [str(warning.message).split(" pictures")[0] for warning in caught] == [
            f"skipped {count} of 8" for count in (1, 2, 3)
        ]
        assert "set.tar: train/a/1.png: not a complete image" in str(caught[0].message)
        assert {name.partition(": ")[2] for name in samples.skipped} == damaged
    archive([(name, data[:-30] if "train/a" in name else data) for name, data in pictures], file)
    samples = load("folder", file, Preparation(normalisation="none", image_size=8, on_error="skip")).train
    with pytest.raises(DataError, match=r"train/a/1\.png: not .*; no other picture of its class can be read"):
        samples.batch(np.array([1]))
    both = load("folder", file, Preparation(normalisation="data", image_size=8, on_error="skip"))
    assert both.preprocessing.mean == pytest.approx([(60 + 1) / 255] * 3)
    with pytest.raises(DataError, match=r"set\.tar: train/a/.\.png: not a complete image"):
        load("folder", file, Preparation(normalisation="data", image_size=8))
