"""CIFAR loaders: each official form gives the same images, and nothing that is not whole is read."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_cifar import write

from dsr.data import Preparation, augment, cifar, load
from dsr.data.samples import epoch_draws
from dsr.files.errors import DataError
from dsr.files.pickles import read_dict

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAMES100 = [f"class{number}" for number in range(100)]


@pytest.fixture
def small(monkeypatch):
    """Loaders that expect a hundredth of the images, so that made-up files are small; `test_real_images` reads all."""
    for name in ("_CIFAR10", "_CIFAR100"):
        kind = getattr(cifar, name)
        batches = {batch: (split, first // 100, count // 100) for batch, (split, first, count) in kind.batches.items()}
        monkeypatch.setattr(cifar, name, replace(kind, batches=batches))


# ------------------------------------------------------------------------------------ files in the official forms


def made_up(count: int, classes: tuple[int, ...], seed: int) -> np.ndarray:
    """Records of labels and pixels."""
    rng = np.random.default_rng(seed)
    records = rng.integers(256, size=(count, len(classes) + 3072), dtype=np.uint8)
    records[:, : len(classes)] %= np.array(classes, np.uint8)
    return records


def python2(value: object) -> bytes:
    """Opcodes as Python 2 with NumPy of its time wrote them, protocol 2: the form of the official files."""
    if isinstance(value, str):
        text = value.encode("latin-1")
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"u"
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8
    new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(python2(length) for length in value.shape) + b"t"
    return new + b"(K\x01" + shape + dtype + b"\x89" + python2(value.tobytes().decode("latin-1")) + b"tb"


def pickled(value: object) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def batch10(records: np.ndarray) -> dict[str, object]:
    names = [f"image_{number}.png" for number in range(len(records))]
    return {"batch_label": "a", "labels": records[:, 0].tolist(), "data": records[:, 1:].copy(), "filenames": names}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Folder of whole files with made-up images in all forms, and the records: `name, split -> records`."""
    root = tmp_path_factory.mktemp("official")
    ten = {f"data_batch_{number}": made_up(100, (10,), number) for number in range(1, 6)}
    ten["test_batch"] = made_up(100, (10,), 0)
    hundred = {"train": made_up(500, (20, 100), 1), "test": made_up(100, (20, 100), 0)}
    bin10, py10 = root / "cifar-10-batches-bin", root / "cifar-10-batches-py"
    bin100, py100 = root / "cifar-100-binary", root / "cifar-100-python"
    for folder in (bin10, py10, bin100, py100):
        folder.mkdir()
    for name, records in ten.items():
        (bin10 / f"{name}.bin").write_bytes(records.tobytes())
        (py10 / name).write_bytes(pickled(batch10(records)))
    (bin10 / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    (py10 / "batches.meta").write_bytes(pickled({"num_vis": 3072, "label_names": NAMES10}))
    for name, records in hundred.items():
        (bin100 / f"{name}.bin").write_bytes(records.tobytes())
        content = {"coarse_labels": records[:, 0].tolist(), "fine_labels": records[:, 1].tolist()}
        (py100 / name).write_bytes(pickled(content | {"data": records[:, 2:].copy()}))
    (bin100 / "fine_label_names.txt").write_text("\n".join(NAMES100) + "\n")
    (py100 / "meta").write_bytes(pickled({"coarse_label_names": ["c"], "fine_label_names": NAMES100}))
    for folder, archive in ((bin10, "10b"), (py10, "10p"), (py100, "100p")):
        with tarfile.open(root / f"{archive}.tar.gz", "w:gz") as tar:
            tar.add(folder, folder.name)
    records = {
        ("cifar10", "train"): np.concatenate([ten[f"data_batch_{number}"] for number in range(1, 6)]),
        ("cifar10", "test"): ten["test_batch"],
        ("cifar100", "train"): hundred["train"],
        ("cifar100", "test"): hundred["test"],
    }
    return root, records


@pytest.mark.parametrize(
    ("name", "place", "classes"),
    [
        ("cifar10", "cifar-10-batches-bin", NAMES10),
        ("cifar10", "", NAMES10),
        ("cifar10", "cifar-10-batches-py", NAMES10),
        ("cifar10", "10b.tar.gz", NAMES10),
        ("cifar10", "10p.tar.gz", NAMES10),
        ("cifar100", "", NAMES100),
        ("cifar100", "100p.tar.gz", NAMES100),
    ],
)
@pytest.mark.usefixtures("small")
def test_each_form_gives_the_same_images(official, name, place, classes):
    root, records = official
    found = load(name, root / place)
    assert (found.name, list(found.classes), found.features) == (name, classes, (3, 32, 32))
    for split, samples in (("train", found.train), ("test", found.test)):
        written = records[name, split]
        assert samples.arrays.dtype == np.uint8
        assert np.array_equal(samples.arrays.reshape(len(written), -1), written[:, -3072:])
        assert np.array_equal(samples.labels, written[:, -3073])


@pytest.fixture
def copy(official, small, tmp_path):
    """A copy of one of the folders, with other content (or none) in some of its files."""

    def make(name: str, changed: dict[str, bytes | None]) -> Path:
        folder = shutil.copytree(official[0] / name, tmp_path / name)
        for file, content in changed.items():
            (folder / file).unlink()
            if content is not None:
                (folder / file).write_bytes(content)
        return folder

    return make


def with_byte(records: np.ndarray, position: int, value: int) -> bytes:
    content = bytearray(records.tobytes())
    content[position] = value
    return bytes(content)


GOOD10, GOOD100 = made_up(100, (10,), 3), made_up(100, (20, 100), 3)


@pytest.mark.parametrize(
    ("folder", "file", "content", "words"),
    [
        ("10-batches-bin", "data_batch_2.bin", GOOD10[:90].tobytes(), ["307,300 bytes", "got 276,570"]),
        ("10-batches-bin", "data_batch_2.bin", GOOD10.tobytes()[:-1], ["record 99 is cut", "byte 304,227"]),
        ("10-batches-bin", "data_batch_2.bin", GOOD10.tobytes() + b"x", ["got 307,301"]),
        ("10-batches-bin", "data_batch_2.bin", b"", ["got 0"]),
        ("10-batches-bin", "data_batch_2.bin", None, ["files of cifar10 are missing: data_batch_2"]),
        ("10-batches-bin", "data_batch_2.bin", with_byte(GOOD10, 7 * 3073, 10), ["byte 21,511", "label 10", "0 to 9"]),
        ("10-batches-bin", "batches.meta.txt", b"cat dog", ["10 classes, got 2"]),
        ("100-binary", "test.bin", with_byte(GOOD100, 3074, 20), ["byte 3,074", "coarse_label 20", "0 to 19"]),
        ("100-binary", "test.bin", with_byte(GOOD100, 3075, 100), ["byte 3,075", "fine_label 100", "0 to 99"]),
        ("10-batches-py", "data_batch_2", pickled(batch10(GOOD10))[:-1000], ["byte", "not a readable pickle"]),
        ("10-batches-py", "data_batch_2", pickled(batch10(GOOD10[:9])), ["(100, 3072)", "(9, 3072)"]),
        ("10-batches-py", "data_batch_2", pickled(batch10(GOOD10) | {"labels": [10] * 100}), ["entry 0", "got 10"]),
        ("10-batches-py", "data_batch_2", pickled(batch10(GOOD10) | {"labels": [1] * 9}), ["list of 100", "got 9"]),
        ("10-batches-py", "data_batch_2", pickled({"labels": []}), ["'data'", "NoneType"]),
        ("10-batches-py", "data_batch_2", b"<!DOCTYPE html>", ["not a readable pickle"]),
        ("10-batches-py", "batches.meta", pickled({"label_names": NAMES10[:9]}), ["10 classes, got 9"]),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_is_not_whole_is_an_error_that_names_the_file(copy, folder, file, content, words):
    name = "cifar10" if folder.startswith("10-") else "cifar100"
    with pytest.raises(DataError) as caught:
        load(name, copy(f"cifar-{folder}", {file: content}))
    for word in [*words, file.removesuffix(".bin")]:
        assert word in str(caught.value)


def test_names_are_built_in_where_their_file_is_missing(copy):
    assert list(load("cifar10", copy("cifar-10-batches-bin", {"batches.meta.txt": None})).classes) == NAMES10
    assert len(set(cifar._CIFAR100.classes)) == 100


def test_names_behind_a_byte_order_mark(copy):
    names = "\n".join(reversed(NAMES10)).encode("utf-8-sig")
    assert list(load("cifar10", copy("cifar-10-batches-bin", {"batches.meta.txt": names})).classes) == NAMES10[::-1]


@pytest.mark.parametrize("damage", ["cut", "bit", "text", "tar cut", "other data"])
@pytest.mark.usefixtures("small")
def test_damaged_archives(official, tmp_path, damage):
    content = bytearray((official[0] / "10b.tar.gz").read_bytes())
    if damage == "cut":
        content = content[:-8]
    elif damage == "bit":
        content[len(content) // 2] ^= 4
    elif damage == "text":
        content = bytearray(b"404 not found")
    elif damage == "tar cut":
        content = bytearray(gzip.compress(gzip.decompress(content)[:-400_000]))
    else:
        content = bytearray((official[0] / "100p.tar.gz").read_bytes())
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz.*" + ("missing" if damage == "other data" else "")):
        load("cifar10", tmp_path)


def test_paths(tmp_path):
    with pytest.raises(ValueError, match="load_cifar10: argument 'path'"):
        load("cifar10")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load("cifar100", tmp_path / "nowhere")
    with pytest.raises(DataError, match="cifar10 not found there"):
        load("cifar10", tmp_path)


# ------------------------------------------------------------------------------------------------------- pickles


class Hostile:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_run_nothing(tmp_path, protocol):
    mark = tmp_path / "mark"
    content = pickle.dumps({"data": Hostile(mark)}, protocol)
    with pytest.raises(DataError, match=r"evil: .*byte \d+ of .*posix\.mkdir"):
        read_dict(content, "evil")
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # what the standard reader would have done


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(rng, protocol):
    value = {
        "data": np.asfortranarray(rng.integers(256, size=(3, 4), dtype=np.uint8)),
        "numbers": [0, 255, 65536, -1, 2**40],
        "names": ["a", "é"],
        "wide": np.array([1.5, 2.5], ">f8"),
        "long": rng.integers(256, size=(1 << 20) + 1, dtype=np.uint8),  # from 1 MiB on, content is not copied
        "parts": rng.integers(256, size=(3, 4), dtype=np.uint8)[:, ::2],
    }
    found = read_dict(pickle.dumps(value, protocol), "file")
    assert found.keys() == value.keys()
    for key, item in value.items():
        if isinstance(item, np.ndarray):
            assert found[key].dtype == item.dtype and np.array_equal(found[key], item)
        else:
            assert found[key] == item


SMALL = pickled(batch10(made_up(3, (10,), 1)[:, :12]))


def test_python2_form_is_what_python_reads_too():
    expected = pickle.loads(SMALL, encoding="latin1")
    found = read_dict(SMALL, "file")
    assert np.array_equal(found.pop("data"), expected.pop("data")) and found == expected


def test_pickles_that_are_too_short_or_too_long():
    with pytest.raises(DataError, match="1 bytes follow the end"):
        read_dict(SMALL + b"x", "file")
    for length in range(len(SMALL)):
        with pytest.raises(DataError):
            read_dict(SMALL[:length], "file")


@given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=4))
def test_changed_pickles_give_a_dict_or_a_data_error(position, content):
    changed = SMALL[:position] + content + SMALL[position + len(content) :]
    with suppress(DataError):
        assert isinstance(read_dict(changed, "file"), dict)


# ------------------------------------------------------------------------------------------------------ transform


@pytest.mark.parametrize("reflect", [False, True])
def test_transform_crops_with_a_border_then_mirrors_then_normalises(rng, reflect):
    images = rng.integers(1, 256, size=(64, 3, 32, 32), dtype=np.uint8)
    kind = cifar._CIFAR10
    transform = augment.ImageTransform(
        kind.mean, kind.deviation, Preparation(crop_padding=4, flip=True, crop_reflect=reflect)
    )
    draws = epoch_draws(64, 5, 0)
    draws[0, :3], draws[1, :3] = (0.5, 0, 0), (0.4999, 0.99999, 0.99999)
    before = images.copy()
    out = transform(images, draws)
    assert out.dtype == np.float32 and np.array_equal(images, before)
    seen = set()
    for image, draw, got in zip(images, draws, out, strict=True):
        row, column = int(draw[1] * 9), int(draw[2] * 9)
        seen.add((row, column))
        bordered = np.zeros((3, 40, 40))
        bordered[:, 4:36, 4:36] = image
        if reflect:  # the pixel at the edge comes once
            bordered[:, :4], bordered[:, 36:] = bordered[:, 8:4:-1], bordered[:, 34:30:-1]
            bordered[:, :, :4], bordered[:, :, 36:] = bordered[:, :, 8:4:-1], bordered[:, :, 34:30:-1]
        expected = bordered[:, row : row + 32, column : column + 32]
        if draw[0] < 0.5:
            expected = expected[:, :, ::-1]
        for channel in range(3):
            wanted = (expected[channel] / 255 - kind.mean[channel]) / kind.deviation[channel]
            np.testing.assert_allclose(got[channel], wanted, rtol=1e-5, atol=1e-6)
    assert (0, 0) in seen and (8, 8) in seen and len(seen) > 30
    plain = transform(images, None)
    assert np.array_equal(plain, augment.normalise(images, kind.mean, kind.deviation))
    no_flip = augment.ImageTransform(kind.mean, kind.deviation, Preparation())(images, draws)
    assert np.array_equal(no_flip, plain)


def test_cutout_comes_last_and_leaves_the_mean_colour(rng):
    images = rng.integers(0, 256, size=(40, 3, 32, 32), dtype=np.uint8)
    kind, draws = cifar._CIFAR10, epoch_draws(40, 5, 0)
    draws[0, 5:7], draws[1, 5:7] = 0, (0.5, 0.99999)
    whole = augment.ImageTransform(kind.mean, kind.deviation, Preparation(crop_padding=2, flip=True))
    holed = augment.ImageTransform(kind.mean, kind.deviation, Preparation(crop_padding=2, flip=True, cutout=6))
    expected = whole(images, draws)
    for image, draw in zip(expected, draws, strict=True):
        row, column = int(draw[5] * 32), int(draw[6] * 32)
        image[:, max(row - 3, 0) : row + 3, max(column - 3, 0) : column + 3] = 0
    assert np.array_equal(holed(images, draws), expected)
    assert (expected[0, :, :3, :3] == 0).all() and (expected[1, :, 13:19, 28:] == 0).all()
    assert np.array_equal(holed(images, None), whole(images, None))


def test_real_images(shared, tmp_path):
    """Order of planes and labels: as many images of each class, and the published means and deviations of channels."""
    pytest.importorskip("PIL", reason="the shared images are in WebP files")
    folder = write("cifar10", shared / "data" / "cifar10.tar", tmp_path)
    found = load("cifar10", folder, Preparation(crop_padding=4, flip=True))
    shutil.rmtree(folder)
    assert np.bincount(found.train.labels).tolist() == [5000] * 10
    assert np.bincount(found.test.labels).tolist() == [1000] * 10
    planes = [np.ascontiguousarray(found.train.arrays[:, channel]) for channel in range(3)]
    mean = np.array([plane.mean() for plane in planes]) / 255
    squares = np.array([np.square(plane, dtype=np.uint16).mean() for plane in planes]) / 255**2
    np.testing.assert_array_equal(mean.round(4), cifar._CIFAR10.mean)
    np.testing.assert_array_equal(np.sqrt(squares - mean**2).round(4), (0.2470, 0.2435, 0.2616))
    batch = found.test.batch(np.arange(256))
    assert batch.shape == (256, 3, 32, 32) and abs(float(batch.mean())) < 0.1


def test_an_archive_member_that_claims_to_be_huge(tmp_path):
    header = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    header.size = 10**12
    with gzip.open(tmp_path / "cifar-10-binary.tar.gz", "wb") as file:
        file.write(header.tobuf() + io.BytesIO(bytes(2048)).getvalue())
    with pytest.raises(DataError, match=r"data_batch_1\.bin: expected no more than"):
        load("cifar10", tmp_path)
