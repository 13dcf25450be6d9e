"""Decoded pictures that are kept: the bits of those that are not, a file that is believed only whole; JPEG drafts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest

from dsr import system
from dsr.__main__ import main
from dsr.bench import data as bench
from dsr.data import Preparation, kept, load, workers
from dsr.data.images import Decoder
from dsr.data.samples import epoch_draws
from dsr.data.workers import AUTO, call_ahead
from dsr.files.errors import DataError
from dsr.train import run_folder
from dsr.train.recipe import Recipe, of_checkpoint

Image = pytest.importorskip("PIL.Image", reason="images of folders need Pillow")

SIZES = ((40, 50), (64, 48), (32, 32), (33, 70))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the cache, which no other test has."""
    monkeypatch.setenv("DSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path, cache, rng):
    """Two classes, 12 training and 4 test pictures of several sizes, as BMP and JPEG."""
    for number in range(16):
        split, place = ("train", number) if number < 12 else ("val", number)
        file = tmp_path / "set" / split / "ab"[number % 2] / f"{place:02d}.{('bmp', 'jpg')[number // 2 % 2]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        height, width = SIZES[number % 4]
        Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(file)
    return tmp_path / "set"


def batches(path, **options):
    """Two epochs of training batches, and those that are measured."""
    found = load("folder", path, Preparation(image_size=24, flip=True, normalisation="none", **options))
    plan = [(part, epoch_draws(12, 5, epoch)[part]) for epoch in range(2) for part in np.split(np.arange(12), 3)]
    one, two = np.arange(4), epoch_draws(4, 1, 0)
    return [*found.train.batches([*plan, (one, None)]), *found.test.batches([(one, None), (one, two)])]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


KINDS = (
    {"random_resized_crop": True},
    {"random_resized_crop": True, "colour_jitter": 0.4},
    {"crop_padding": 2, "trivial_augment": True},
    {"crop_padding": 2, "rand_augment": 2, "rand_magnitude": 20},
    {"crop_padding": 2},
)


@pytest.mark.parametrize("options", KINDS, ids=lambda options: "-".join(options))
def test_the_bits_of_pictures_that_are_not_kept(pictures, cache, options, monkeypatch):
    expected = batches(pictures, **options)
    assert equal(batches(pictures, cache="memory", **options), expected)
    assert not list(cache.glob("*.kept"))
    assert equal(batches(pictures, cache="disk", **options), expected)
    assert len(list(cache.iterdir())) == 2

    def never(*arguments):
        raise AssertionError("decoded again")

    if "random_resized_crop" not in options:  # whose test pictures are kept for other batches than those with draws
        monkeypatch.setattr(Decoder, "opened", never)
    assert equal(batches(pictures, cache="disk", **options), expected)


def test_pictures_in_archives_are_kept_too(pictures, cache):
    expected = batches(pictures, random_resized_crop=True)
    with tarfile.open(pictures.with_suffix(".tar"), "w") as tar:
        tar.add(pictures, "set")
    archive = pictures.with_suffix(".tar")
    assert equal(batches(archive, random_resized_crop=True, cache="disk", workers=1), expected)
    before = {file.name: file.stat().st_ino for file in cache.glob("*.kept")}
    batches(archive, random_resized_crop=True, cache="disk")
    assert {file.name: file.stat().st_ino for file in cache.glob("*.kept")} == before
    archive.touch()
    batches(archive, random_resized_crop=True, cache="disk")
    after = {file.name: file.stat().st_ino for file in cache.glob("*.kept")}
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in after)


def test_a_picture_that_changes_is_noticed(pictures, cache):
    """Size and time of its file stay."""
    before = batches(pictures, cache="disk")
    file, other = (pictures / "train" / "a" / name for name in ("00.bmp", "04.bmp"))
    stat = file.stat()
    file.write_bytes(other.read_bytes())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size and file.stat().st_mtime_ns == stat.st_mtime_ns
    found = batches(pictures, cache="disk")
    assert equal(found, batches(pictures)) and not equal(found, before)
    shutil.copy(other, pictures / "train" / "b" / "99.bmp")
    assert len(load("folder", pictures, Preparation(image_size=24, cache="disk")).train.kept.pictures) == 13


def test_other_settings_have_other_pictures(pictures, cache):
    for size in (16, 24):
        for same in ("keep", "scale"):
            wanted = Preparation(image_size=size, same_size=same, normalisation="none")
            numbers = np.arange(12)
            found = load("folder", pictures, replace(wanted, cache="disk")).train.batch(numbers)
            assert np.array_equal(found, load("folder", pictures, wanted).train.batch(numbers))


@pytest.mark.parametrize("where", ["start", "pixels", "table", "key", "end"])
def test_damage_is_not_believed(pictures, cache, where):
    expected = batches(pictures)
    batches(pictures, cache="disk")
    file = next(cache.glob("*train*.kept"))
    whole = file.read_bytes()
    place = {"start": 2, "pixels": 20, "table": len(whole) - 420, "key": len(whole) - 60, "end": len(whole) - 3}[where]
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    if where == "pixels":
        with pytest.warns(RuntimeWarning, match=r"train.*\.kept: picture 0 is damaged, and is decoded from its source"):
            assert equal(batches(pictures, cache="disk"), expected)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert equal(batches(pictures, cache="disk"), expected)
        assert file.read_bytes() == whole  # made anew
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert equal(batches(pictures, cache="disk"), expected)
        assert file.read_bytes() == whole


SCRIPT = """
import sys
from pathlib import Path
from dsr.data import Preparation, load
from dsr.data.kept import _Decode
from dsr.data import kept
original = kept._Decode.__call__
def slow(self, files):
    print("decoding", flush=True)
    import time
    time.sleep(float(sys.argv[2]))
    return original(self, files)
kept._Decode.__call__, kept._AT_ONCE = slow, 4
found = load("folder", Path(sys.argv[1]), Preparation(image_size=24, cache="disk", normalisation="none"))
import numpy as np
print("mean", found.train.batch(np.arange(12)).sum(dtype=float), flush=True)
"""


def test_a_kill_leaves_nothing_that_is_believed(pictures, cache):
    """It is killed with most of the pictures written; what comes next begins anew, and removes what was left."""
    words = [sys.executable, "-P", "-c", SCRIPT, str(pictures)]
    with subprocess.Popen([*words, "0.2"], stdout=subprocess.PIPE, text=True) as program:
        for _ in range(4):
            while "decoding" not in (line := program.stdout.readline()) or "to keep" in line:
                assert line
        program.send_signal(signal.SIGKILL)
    left = [file.name for file in cache.iterdir()]
    assert [name for name in left if name.endswith(".tmp")] and len(list(cache.glob("*train*.kept"))) <= 1
    assert equal(batches(pictures, cache="disk"), batches(pictures))
    assert sorted(file.suffix for file in cache.iterdir()) == [".kept", ".kept"]


def test_processes_share_the_file(pictures, cache):
    """Two that begin at the same time both succeed; a third one decodes nothing."""
    words = [sys.executable, "-P", "-c", SCRIPT, str(pictures)]
    both = [subprocess.Popen([*words, "0.05"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    output = [program.communicate(timeout=60)[0] for program in both]
    output.append(subprocess.run([*words, "0"], capture_output=True, text=True, check=True).stdout)
    sums = [text.rpartition("mean ")[2] for text in output]
    assert sums[0] == sums[1] == sums[2] != ""
    assert "decoding" in output[0] and "decoding" not in output[2]


def test_damaged_pictures(pictures, cache):
    """They are named before training begins; or skipped, as those that are not kept are."""
    (pictures / "train" / "a" / "04.bmp").write_bytes(b"no picture")
    for where in ("memory", "disk"):
        with pytest.raises(DataError, match=r"a/04\.bmp: not a complete image"):
            load("folder", pictures, Preparation(image_size=24, cache=where))
        assert not list(cache.glob("*")) if cache.exists() else True
    with pytest.warns(RuntimeWarning, match=r"skipped 1 of 12 pictures so far, last: .*04\.bmp"):
        expected = batches(pictures, on_error="skip")
    for where in ("memory", "disk"):
        with pytest.warns(RuntimeWarning, match=r"skipped 1 of 12 pictures so far, last: .*04\.bmp"):
            assert equal(batches(pictures, on_error="skip", cache=where), expected)


def test_too_little_room(pictures, cache, monkeypatch):
    monkeypatch.setattr(system, "memory_limit", lambda: system.resident_memory() + 0.01)
    words = (
        r"cache: the decoded pictures of set train need about 0 MB, but there is room for 0 MB in memory; cache = \"di"
    )
    with pytest.raises(ValueError, match=words):
        load("folder", pictures, Preparation(image_size=24, cache="memory"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"room for 0 MB in .*cache; DSR_CACHE names a folder on another disk"):
        load("folder", pictures, Preparation(image_size=24, cache="disk"))


def test_expected_bytes(pictures):
    """Of whole pictures from the sizes in their files, of others from `image_size`."""
    samples = load("folder", pictures, Preparation(image_size=24)).train
    pixels = sum(height * width for height, width in (SIZES[number % 4] for number in range(12)))
    assert kept.expected_bytes(samples.files, samples.decoder, True) == pytest.approx(3 * pixels)
    assert kept.expected_bytes(samples.files, samples.decoder, False) == 12 * 3 * 24 * 24


def test_commands_that_pass_once_keep_nothing(pictures, cache, tmp_path):
    """Only training does, and a run that goes on."""
    out = tmp_path / "run"
    words = ["--set", "model=digits", "--set", "epochs=1", "--set", "width=4", "--set", "batch_size=6"]
    assert main(["train", "images", "--data", str(pictures), "--out", str(out), *words, "--set", "cache=disk"]) == 0
    assert len(list(cache.glob("*.kept"))) == 2
    shutil.rmtree(cache)
    assert main(["evaluate", str(out)]) == 0
    assert not cache.exists()
    assert main(["train", "--resume", str(out), "--set", "epochs=2"]) == 0
    assert len(list(cache.glob("*.kept"))) == 2
    assert run_folder.load_run(out)[1].cache == "disk"


# ------------------------------------------------------------------------------------------------------ JPEG drafts


def photograph(rng, side, file):
    """Smooth colours with structure of several sizes, as JPEG."""
    small = [Image.fromarray(rng.integers(256, size=(n, n, 3), dtype=np.uint8)) for n in (4, 16, 64)]
    layers = [np.asarray(picture.resize((side, side * 3 // 2), Image.Resampling.BICUBIC), float) for picture in small]
    Image.fromarray((sum(w * layer for w, layer in zip((0.6, 0.3, 0.1), layers, strict=True))).astype(np.uint8)).save(
        file, quality=90
    )
    return str(file)


def test_large_jpeg_pictures_are_decoded_smaller(tmp_path, rng):
    """Both sides keep twice the pixels that are needed, and the result differs by little."""
    file = photograph(rng, 480, tmp_path / "a.jpg")
    assert Decoder(56).opened(file).size == (480, 720)
    for size, part in ((106, 1), (105, 2), (53, 2), (52, 4), (26, 8), (4, 8)):
        decoder = Decoder(size, draft_for=size)
        assert decoder.least == 2 * round(size * 8 / 7)
        assert decoder.opened(file).size == (480 // part, 720 // part), size
        difference = decoder.one(file).astype(int) - Decoder(size).one(file)
        assert (np.abs(difference).max() == 0) == (part == 1)
        assert np.sqrt((difference**2.0).mean()) < 2
    Image.open(file).save(tmp_path / "a.png")
    assert np.array_equal(Decoder(26, draft_for=26).one(str(tmp_path / "a.png")), Decoder(26).one(tmp_path / "a.png"))


def test_drafts_are_a_setting_that_predictions_share(tmp_path, rng, cache):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "set" / split / name).mkdir(parents=True)
            photograph(rng, 320, tmp_path / "set" / split / name / "1.jpg")
    found = load("folder", tmp_path / "set", Preparation(image_size=32, jpeg_draft=True))
    exact = load("folder", tmp_path / "set", Preparation(image_size=32, jpeg_draft=False))
    file = tmp_path / "set" / "val" / "a" / "1.jpg"
    first = np.arange(1)
    assert not np.array_equal(found.test.batch(first), exact.test.batch(first))
    assert np.array_equal(found.preprocessing.file(file), found.test.batch(first))
    assert np.array_equal(exact.preprocessing.file(file), exact.test.batch(first))
    # parts of whole pictures, kept at the size at which they are decoded
    plan = [(np.arange(2), epoch_draws(2, 0, 0))]
    ways = [
        load("folder", tmp_path / "set", Preparation(image_size=32, random_resized_crop=True, cache=where))
        for where in ("none", "memory", "disk")
    ]
    assert equal(list(ways[0].train.batches(plan)), list(ways[1].train.batches(plan)))
    assert equal(list(ways[0].train.batches(plan)), list(ways[2].train.batches(plan)))
    assert ways[1].train.kept.pictures[0].shape == (120, 80, 3)
    # at the sizes of other epochs the pictures are the same ones, decoded for 32
    smaller = [list(way.train.at_size(12).batches(plan)) for way in ways]
    assert smaller[0][0].shape == (2, 3, 12, 12) and equal(smaller[0], smaller[1]) and equal(smaller[0], smaller[2])


@pytest.mark.parametrize("options", KINDS)
def test_pictures_that_are_kept_at_other_sizes(pictures, options):
    """Whole ones are used there as well; those of the final size are not, and files are decoded."""

    def at(side, where):
        found = load("folder", pictures, Preparation(image_size=24, flip=True, cache=where, **options))
        samples = found.train.at_size(side)
        return samples, list(samples.batches([(np.arange(12), epoch_draws(12, 5, 0))]))

    (plain, expected), (used, smaller) = at(16, "none"), at(16, "memory")
    assert equal(expected, smaller) and expected[0].shape == (12, 3, 16, 16) and plain.kept is None
    assert (used.kept is not None) == options.get("random_resized_crop", False)
    assert at(24, "memory")[0].kept is not None


def test_runs_of_older_versions_decode_whole_pictures():
    values = {"data": "folder", "model": "resnet18", "image_size": 64}
    assert not of_checkpoint(values).jpeg_draft
    assert of_checkpoint({**values, "jpeg_draft": True}).jpeg_draft
    assert Recipe(**values).jpeg_draft and of_checkpoint({**values, "same_size": "keep"}).same_size == "keep"


# --------------------------------------------------------------------------------------- as many workers as help


def slow(seconds):
    time.sleep(seconds)
    return os.getpid()


@pytest.fixture
def quick(monkeypatch):
    """Rounds of a tenth of a second; four processors."""
    monkeypatch.setattr(workers, "START", 0.1)
    monkeypatch.setattr(workers, "ROUND", 0.1)
    monkeypatch.setattr(workers, "most_workers", lambda: 3)


def test_short_passes_start_no_process(quick, monkeypatch):
    monkeypatch.setattr(workers, "START", 30.0)
    assert set(call_ahead(slow, [0.0] * 20, AUTO)) == {os.getpid()}


def test_processes_are_added_until_nobody_waits(quick, monkeypatch):
    """The taker is fast at first, so that all help; a slow one needs a single process."""
    found = list(call_ahead(slow, [0.06] * 40, AUTO))
    assert found[0] == os.getpid() and len(set(found)) == 4 and found[-1] != os.getpid()
    monkeypatch.setattr(workers, "WAITING", 0.5)  # on a busy machine a result may be late
    taken = []
    for pid in call_ahead(slow, [0.06] * 14, AUTO):
        taken.append(pid)
        time.sleep(0.2)
    assert len(set(taken)) == 2


def test_on_one_processor_there_are_none(monkeypatch):
    monkeypatch.setattr(system, "processors", lambda: {0})
    assert workers.most_workers() == 0
    monkeypatch.setattr(workers, "START", 0.0)
    assert set(call_ahead(slow, [0.0] * 3, AUTO)) == {os.getpid()}


def test_the_number_changes_no_bits(pictures, quick, monkeypatch):
    monkeypatch.setattr(workers, "START", 0.0)
    assert equal(batches(pictures, random_resized_crop=True, workers=AUTO), batches(pictures, random_resized_crop=True))


# ------------------------------------------------------------------------------------------------------------ bench


def test_bench_data(pictures, capsys):
    words = ["bench", "data", str(pictures), "--set", "model=digits", "--set", "width=4", "--repeats", "1"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "set: 12 training pictures, 32 pixels; digits, T = 5" in output
    assert all(word in output for word in ("read from its file", "made ready by one process", "from the cache"))
    assert main(["bench", "data", str(pictures), "--recipe", "digits"]) == 1
    assert "digits" in capsys.readouterr().err


def test_advice():
    """Of 10 ms a picture beside steps of 1 s, 50 ms and 5 ms."""
    found = {
        "read_seconds": 0.001,
        "ready_seconds": 0.010,
        "kept_seconds": 0.0005,
        "cache": "none",
        "processors": 4,
        "kept_bytes": 1e9,
        "memory_bytes": 3e9,
    }
    assert bench.advice({**found, "step_seconds": 1.0}) == [
        "Loading takes 1.0 % of a step if one process does it all: there is nothing to gain."
    ]
    some = " ".join(bench.advice({**found, "step_seconds": 0.05}))
    assert "20 % of a step" in some and "1 process can do" in some and ", 5 % remain" in some
    assert 'cache = "memory" keeps the decoded pictures (1,000 MB): then it is 1.0 %' in some
    more = " ".join(bench.advice({**found, "step_seconds": 0.005, "kept_bytes": 2e9, "read_seconds": 0.006}))
    assert "2 processes can" in more and 'cache = "disk"' in more and "a faster disk" in more
    assert "no other processor" in bench.advice({**found, "step_seconds": 0.05, "processors": 1})[0]
    kept_already = bench.advice({**found, "step_seconds": 0.005, "cache": "memory"})
    assert kept_already == ["Loading from the cache takes 10 % of a step: what is left is augmentation."]
