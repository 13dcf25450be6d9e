"""Images in folders: which are found, what becomes of their pixels, and the processes that decode them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import patiently

from dsr.data import Preparation, load
from dsr.data.augment import resized_crop
from dsr.data.folder import DEVIATION, MEAN
from dsr.data.images import Decoder
from dsr.data.samples import epoch_draws
from dsr.data.workers import call_ahead
from dsr.files.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="images of folders need Pillow")


def smooth(height: int, width: int, shift: int = 0) -> np.ndarray:
    """An image without sharp edges, which survives JPEG."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 200 // height, columns * 200 // width, np.full_like(rows, 40 + shift)], -1).astype(np.uint8)


def save(file: Path, image: np.ndarray, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, **options)
    return file


def denormalised(batch: np.ndarray) -> np.ndarray:
    """Bytes of a batch, (B, H, W, C)."""
    pixels = batch.transpose(0, 2, 3, 1) * np.array(DEVIATION) + np.array(MEAN)
    return np.rint(pixels * 255).astype(np.uint8)


@pytest.fixture
def small(tmp_path):
    """Two classes, 5 training and 2 test images of 8x6 pixels, of different kinds of files."""
    for number, name in enumerate(["a/1.png", "a/2.BMP", "a/deeper/3.webp", "b/x.JPEG", "b/y.jpg"]):
        save(tmp_path / "train" / name, smooth(8, 6, number), **({"lossless": True} if "webp" in name else {}))
    for name in ("a/t.png", "b/t.png"):
        save(tmp_path / "val" / name, smooth(8, 6, 9))
    return tmp_path


# --------------------------------------------------------------------------------------------- which images are found


def test_classes_files_and_pixels(small):
    (small / "train" / "a" / ".hidden").write_text("")
    (small / "train" / "a" / "boxes.txt").write_text("notes")
    found = load("folder", small)
    assert (found.classes, found.features, found.name) == (("a", "b"), (3, 8, 6), small.name)
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1] and found.test.labels.tolist() == [0, 1]
    batch = found.train.batch(np.array([2, 0, 1]))
    assert batch.shape == (3, 3, 8, 6) and batch.dtype == np.float32
    assert np.array_equal(denormalised(batch), [smooth(8, 6, number) for number in (2, 0, 1)])
    jpeg = denormalised(found.train.batch(np.array([3])))[0].astype(int)
    assert abs(jpeg - smooth(8, 6, 3)).mean() < 8


def test_names_for_people(small):
    (small / "classes.txt").write_text("b big dog\nc not there\na\n")
    assert load("folder", small).classes == ("a", "big dog")
    (small / "classes.txt").write_text("b big dog\n")
    with pytest.raises(DataError, match=r"classes\.txt: no line begins with a"):
        load("folder", small)
    (small / "classes.txt").write_text("a\nb big dog\nb small dog\n")
    with pytest.raises(DataError, match=r"classes\.txt: two names of the folder 'b': 'big dog' and 'small dog'"):
        load("folder", small)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("separator", [" ", "\t", "   ", "\t\t"])
def test_names_of_folders_with_spaces(tmp_path, separator, encoding):
    """Some begin like others; and the separator may be a tab."""
    names = {"sea": "water", "sea lion": "Zalophus californianus", "sea lion  2": "", "Größe": "ümlaut"}
    for split in ("train", "val"):
        for folder in names:
            save(tmp_path / split / folder / "1.png", smooth(8, 6))
    text = "".join(f"{folder}{separator if name else ''}{name}\r\n" for folder, name in names.items())
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "classes.txt").write_bytes(mark + text.encode(encoding))
    found = load("folder", tmp_path)
    assert found.classes == ("ümlaut", "water", "Zalophus californianus", "sea lion  2")


def test_names_in_no_unicode(small):
    (small / "classes.txt").write_bytes(b"a caf\xe9\nb\n")
    with pytest.raises(DataError, match=r"classes\.txt: not a text in UTF-8 \(.*position 5"):
        load("folder", small)


def test_val_is_preferred_to_test_and_test_will_do(small):
    save(small / "test" / "a" / "only.png", smooth(8, 6))
    assert len(load("folder", small).test) == 2
    (small / "val").rename(small / "unused")
    with pytest.raises(DataError, match="train and test differ in classes: only one has b"):
        load("folder", small)


def one_class(path: Path, name: str) -> None:
    for folder in path.glob("*/*"):
        if folder.name != name:
            shutil.rmtree(folder)


def one_level_more(split: Path) -> None:
    split.rename(split.with_name("images"))
    split.mkdir()
    split.with_name("images").rename(split / "images")


@pytest.mark.parametrize("names", [("Train", "VAL"), ("TRAIN", "Test"), ("train", "test")])
def test_names_of_splits_in_upper_and_lower_case(small, names):
    (small / "train").rename(small / names[0])
    (small / "val").rename(small / names[1])
    found = load("folder", small)
    assert (found.classes, len(found.train), len(found.test)) == (("a", "b"), 5, 2)


def test_what_may_lie_beside_classes(small):
    """Notes, archives that were unpacked, and what file managers leave behind."""
    for name in ("notes.txt", "labels.CSV", "a.tar.gz", "b.zip", "Thumbs.db", ".DS_Store"):
        (small / name).touch()
        (small / "train" / name).touch()
    (small / "train" / "__MACOSX").mkdir()
    assert load("folder", small).classes == ("a", "b")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda path: (path / "val").rename(path / "other"),
            r"'val' \(or 'test'\), found only train",
        ),
        (
            lambda path: [(path / s).rename(path / f"{s}s") for s in ("train", "val")],
            "expected folders of classes, or 'train' and 'val', found trains, vals",
        ),
        (lambda path: (path / "Train").mkdir(), "expected one folder 'train', found Train and train"),
        (lambda path: (path / "train" / "c").mkdir(), "differ in classes: only one has c"),
        (lambda path: [(path / s / "c").mkdir() for s in ("train", "val")], "train/c: no images in it"),
        (lambda path: (path / "train" / "a" / "scan.tif").write_bytes(b"II"), "scan.tif: expected an image"),
        (lambda path: save(path / "train" / "2.png", smooth(8, 6)), "train/2.png: expected only folders of classes"),
        (lambda path: save(path / "val" / "2.JPG", smooth(8, 6)), "val/2.JPG: expected only folders of classes"),
        (lambda path: (path / "val" / "film.gif").touch(), "val/film.gif: expected only folders of classes"),
        (lambda path: save(path / "2.webp", smooth(8, 6)), "2.webp: expected it in the folder of a class"),
        (lambda path: one_class(path, "b"), r"train: expected two classes or more, found only 'b'$"),
        (
            lambda path: [one_level_more(path / split) for split in ("train", "val")],
            "train: .*, found only 'images'; perhaps the classes are the folders in it, such as a$",
        ),
    ],
)
def test_layouts_that_are_refused(small, change, words):
    change(small)
    with pytest.raises(DataError, match=words):
        load("folder", small)


@pytest.mark.parametrize(
    ("preparation", "words"),
    [
        (Preparation(random_resized_crop=True), "random_resized_crop needs image_size"),
        (Preparation(random_resized_crop=True, image_size=8, crop_padding=4), "crop_padding 0 with"),
    ],
)
def test_preparations_that_are_refused(small, preparation, words):
    with pytest.raises(ValueError, match=f"load_folder: .*{words}"):
        load("folder", small, preparation)


def test_paths(tmp_path):
    with pytest.raises(ValueError, match="load_folder: argument 'path'"):
        load("folder")
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor an archive"):
        load("folder", tmp_path / "nowhere")


def test_without_pillow(small, monkeypatch):
    monkeypatch.setattr("dsr.data.images.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"load_folder: Pillow is not installed; pip install dsr\[images\]"):
        load("folder", small)


# ------------------------------------------------------------------------------------------------------- one image


@pytest.mark.parametrize(
    ("height", "width", "scaled", "left", "top"),
    [(375, 500, (341, 256), 58, 16), (375, 503, (343, 256), 60, 16), (500, 333, (256, 384), 16, 80)],
)
def test_middle_part_as_for_imagenet(tmp_path, rng, height, width, scaled, left, top):
    """Shorter side to 256, the middle 224: sizes and corners as torchvision has them."""
    image = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    file = save(tmp_path / "a.png", image)
    resized = np.asarray(Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR))
    expected = resized[top : top + 224, left : left + 224]
    assert np.array_equal(Decoder(224).one(str(file)).transpose(1, 2, 0), expected)
    draws = np.full(8, 0.3)
    assert np.array_equal(Decoder(224).one(str(file), draws), Decoder(224).one(str(file)))


def test_random_part(tmp_path, rng):
    image = rng.integers(256, size=(60, 90, 3), dtype=np.uint8)
    file = str(save(tmp_path / "a.png", image))
    decoder = Decoder(16, random_resized_crop=True)
    for draws in epoch_draws(20, 3, 0):
        row, column, rows, columns = resized_crop(60, 90, draws)
        part = Image.fromarray(image[row : row + rows, column : column + columns])
        expected = np.asarray(part.resize((16, 16), Image.Resampling.BILINEAR))
        assert np.array_equal(decoder.one(file, draws).transpose(1, 2, 0), expected)
    assert np.array_equal(decoder.one(file), Decoder(16).one(file))


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 10**6))
def test_parts_lie_in_the_image(height, width, seed):
    draws = np.random.default_rng(seed).random(8)
    row, column, rows, columns = resized_crop(height, width, draws)
    assert 0 <= row <= row + rows <= height and 0 <= column <= column + columns <= width
    assert rows > 0 and columns > 0
    assert resized_crop(height, width, draws) == (row, column, rows, columns)


def torchvision_part(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """The published algorithm of RandomResizedCrop with its default arguments, for images that are nearly square."""
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = exp(rng.uniform(log(3 / 4), log(4 / 3)))
        columns, rows = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
    return 0, 0, height, width


def test_parts_are_distributed_as_the_published_ones(rng):
    """Means and deviations over 20,000 images; a mean is good to 1.4 pixels at 4 standard errors."""
    ours = np.array([resized_crop(224, 224, draws) for draws in rng.random((20_000, 8))])
    theirs = np.array([torchvision_part(224, 224, rng) for _ in range(20_000)])
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=2.0)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=1.5)
    shapes = [abs(np.log(part[:, 3] / part[:, 2])).mean() for part in (ours, theirs)]
    assert abs(shapes[0] - shapes[1]) < 0.0035  # 4 standard errors
    area = ours[:, 2] * ours[:, 3] / 224**2
    assert 0.075 < area.min() < 0.09 and area.max() > 0.97


GREY = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK", "turned"])
def test_kinds_of_pixels(tmp_path, mode):
    """Everything becomes red, green and blue of 8 bits; transparency and orientation are ignored."""
    file, grey = tmp_path / f"a.{'jpg' if mode in ('CMYK', 'turned') else 'png'}", Image.fromarray(GREY)
    expected, tolerance = np.stack([GREY] * 3), 0
    if mode == "I;16":
        Image.fromarray(GREY.astype(np.uint16) << 8 | 0x7F).save(file)
    elif mode in ("LA", "RGBA"):
        picture = grey.convert(mode)
        picture.putalpha(7)
        picture.save(file)
    elif mode == "P":
        picture = grey.convert("P")
        picture.save(file, transparency=bytes(range(200)))
    elif mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        grey.convert("RGB").save(file, exif=exif, quality=100)
        tolerance = 3
    elif mode == "CMYK":
        grey.convert("RGB").convert("CMYK").save(file, quality=100)
        tolerance = 8
    else:
        grey.convert(mode).save(file)
    if mode == "1":
        expected = np.stack([np.asarray(grey.convert("1")).astype(np.uint8) * 255] * 3)
    found = Decoder(size=(8, 8)).one(str(file))
    assert found.dtype == np.uint8 and found.shape == (3, 8, 8)
    assert abs(found.astype(int) - expected).max() <= tolerance


def damaged(kind: str, file: Path) -> None:
    whole = save(file.with_suffix(".png"), np.random.default_rng(1).integers(256, size=(40, 40, 3), dtype=np.uint8))
    jpeg = save(file.with_suffix(".tmp.jpeg"), smooth(400, 400), quality=95)
    content = {
        "nothing": b"",
        "text": b"<html>404</html>",
        "cut jpeg": jpeg.read_bytes()[:3000],
        "cut png": whole.read_bytes()[:2000],
        "changed png": whole.read_bytes().replace(b"IDAT", b"IDAX"),
        "gif": b"GIF89a" + bytes(100),
    }[kind]
    whole.unlink()
    jpeg.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize("kind", ["nothing", "text", "cut jpeg", "cut png", "changed png", "gif"])
def test_damaged_files_are_named(small, kind):
    file = small / "train" / "b" / "x.JPEG"
    damaged(kind, file)
    samples = load("folder", small).train
    samples.batch(np.array([0, 4]))
    with pytest.raises(DataError, match=r"train/b/x\.JPEG: (not a complete image|the file is empty)") as caught:
        samples.batch(np.array([0, 3]))
    assert "BufferedReader" not in str(caught.value)


def test_files_of_other_sizes_are_named(small):
    save(small / "train" / "b" / "x.JPEG", smooth(6, 8))
    with pytest.raises(DataError, match=r"x\.JPEG: 6x8 pixels, but the first image has 8x6; set image_size"):
        load("folder", small).train.batch(np.arange(5))
    assert load("folder", small, Preparation(image_size=5)).train.batch(np.arange(5)).shape == (5, 3, 5, 5)


def test_decompression_bombs(tmp_path):
    """A small file that claims many pixels."""
    file = tmp_path / "a.png"
    Image.new("1", (5_001, 20_000)).save(file)
    assert file.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"a\.png: 5001x20000 pixels, expected no more than 100,000,000"):
        Decoder(224).one(str(file))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("length", "breadth"), [(3_000, 1), (60_000, 1), (20_000, 7)])
def test_the_middle_of_a_long_strip(tmp_path, length, breadth, turned):
    """Resized as a whole it would have 196 million pixels and more; only its middle is needed."""
    strip = np.zeros((breadth, length, 3), np.uint8)
    middle = np.arange(length // 2 - 200, length // 2 + 200)
    strip[:, middle, 0] = np.arange(400) % 256
    strip[:, :, 1] = 77
    image = np.ascontiguousarray(strip.transpose(1, 0, 2) if turned else strip)
    found = Decoder(224).one(str(save(tmp_path / "a.png", image))).transpose(1, 2, 0)
    # the part of 400 around it, resized as a whole, in which the middle is the same
    part = Image.fromarray(np.ascontiguousarray(strip[:, middle]))
    whole = np.asarray(part.resize((400 * 256 // breadth, 256), Image.Resampling.BILINEAR))
    left = (whole.shape[1] - 224) // 2
    expected = whole[16:240, left : left + 224]
    assert abs(found.astype(int) - (expected.transpose(1, 0, 2) if turned else expected)).max() <= 1
    assert (found[..., 1] == 77).all() and found[..., 0].any()


# ------------------------------------------------------------------------------------------------ worker processes


def plan(count: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draws, order = epoch_draws(count, 7, 0), np.random.default_rng(7).permutation(count)
    return [(order[start : start + size], draws[order[start : start + size]]) for start in range(0, count, size)]


@pytest.fixture
def real(shared, tmp_path):
    """Some real JPEG files: 2 classes, 12 and 6 images."""
    with tarfile.open(shared / "data" / "imagenette-224.tar") as tar:
        for split, count in (("train", 6), ("val", 3)):
            for folder in ("n01440764", "n03888257"):
                start = f"imagenette-224/{split}/{folder}/"
                for name in sorted(name for name in tar.getnames() if name.startswith(start))[:count]:
                    file = tar.extractfile(name)
                    target = tmp_path / name.removeprefix("imagenette-224/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read())
        (tmp_path / "classes.txt").write_bytes(tar.extractfile("imagenette-224/classes.txt").read())
    return tmp_path


def test_the_same_pixels_for_any_number_of_workers(real):
    epochs = {}
    for workers in (0, 3):
        found = load("folder", real, Preparation(image_size=64, random_resized_crop=True, flip=True, workers=workers))
        assert found.classes == ("tench", "parachute")
        epochs[workers] = list(found.train.batches(plan(12, 5)))
    assert [len(batch) for batch in epochs[0]] == [5, 5, 2]
    assert all(np.array_equal(a, b) for a, b in zip(epochs[0], epochs[3], strict=True))
    middle = found.test.batch(np.arange(6))
    assert middle.shape == (6, 3, 64, 64) and 0.3 < middle.std() < 2
    for number, (numbers, draws) in enumerate(plan(12, 5)):
        assert np.array_equal(found.train.batch(numbers, draws), epochs[0][number])
    assert multiprocessing.active_children() == []


def test_errors_of_workers_reach_the_caller(small):
    damaged("text", small / "train" / "b" / "x.JPEG")
    samples = load("folder", small, Preparation(workers=2)).train
    batches = samples.batches([(np.array([0]), None), (np.array([3]), None), (np.array([1]), None)])
    next(batches)
    with pytest.raises(DataError, match=r"b/x\.JPEG: not a complete image"):
        next(batches)
    assert multiprocessing.active_children() == []


def test_results_come_in_order_and_no_more_than_one_a_process_ahead():
    taken = []

    def tasks():
        for number in range(7):
            taken.append(number)
            yield -number

    results = call_ahead(abs, tasks(), 2)
    for number in range(4):
        assert next(results) == number
        assert len(taken) <= number + 3
    results.close()
    assert multiprocessing.active_children() == []
    assert list(call_ahead(abs, [-1], 4)) == [1]
    assert list(call_ahead(abs, [], 4)) == []


@pytest.mark.parametrize(
    ("function", "task", "words"),
    [
        (os._exit, 3, "a worker process died: exit status 3"),
        (signal.raise_signal, int(signal.SIGKILL), r"killed by signal 9 \(Killed\); perhaps memory ran out"),
    ],
)
def test_the_death_of_a_worker_is_an_error(function, task, words):
    with pytest.raises(ChildProcessError, match=words):
        list(call_ahead(function, [task, task], 1))
    assert multiprocessing.active_children() == []


def test_unexpected_errors_bring_their_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)worker process.*Traceback.*ValueError: invalid literal"):
        list(call_ahead(int, ["x"], 1))


SCRIPT = """
import multiprocessing, sys, time
from dsr.data.workers import call_ahead
def run():
    results = call_ahead(time.sleep, [0, 0, 0, {seconds}, {seconds}, {seconds}], 3)
    next(results)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    {action}
"""


def start_script(
    tmp_path: Path, action: str, seconds: int = 300, guard: str = "if __name__ == '__main__': run()"
) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(action=action, seconds=seconds) + guard)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, script], stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + patiently(10)
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["interrupt", "kill", "exit"])
def test_workers_end_with_the_program(tmp_path, how):
    """Ctrl-C reaches the whole group of processes; only the program itself may say so.

    A worker whose program was killed ends once it has finished its task.
    """
    action = "sys.exit(0)" if how == "exit" else "list(results)"
    with start_script(tmp_path, action, seconds=1 if how == "kill" else 300) as program:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 3
        if how == "interrupt":
            for pid in pids:
                os.kill(pid, signal.SIGINT)
            time.sleep(0.2)
            assert all(map(alive, pids))
            os.killpg(program.pid, signal.SIGINT)
        elif how == "kill":
            program.kill()
        errors = program.communicate(timeout=patiently(20))[1]
    wait_until_dead(pids)
    if how == "interrupt":
        assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1, errors
    else:
        assert errors == ""


@pytest.mark.parametrize("seconds", [0.005, 0.2])
def test_an_interrupt_while_workers_start(tmp_path, seconds):
    """When they are being started, and when they import what they need."""
    guard = (
        "if __name__ == '__main__':\n"
        "    import os, signal, threading\n"
        f"    threading.Timer({seconds}, os.killpg, (os.getpgrp(), signal.SIGINT)).start()\n"
        "    run()\n"
    )
    with start_script(tmp_path, "list(results)", guard=guard) as program:
        errors = program.communicate(timeout=patiently(20))[1]
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1, errors


def test_a_script_without_a_guard_is_told_so(tmp_path):
    with start_script(tmp_path, "list(results)", guard="run()") as program:
        errors = program.communicate(timeout=patiently(30))[1]
    last = errors.strip().splitlines()[-1]
    assert "ChildProcessError: a worker process died: exit status 1; a script" in last and "__main__" in last
