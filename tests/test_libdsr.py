"""The file of libdsr and the C that reads and runs it: bits of dsr, and a status and a sentence for what is damaged.

The reader is compiled here; the whole library where ``python setup.py build_libdsr`` has built it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from zlib import crc32

import libdsr
import numpy as np
import pytest
from libdsr import BUILT, FLAGS, READER, ROOT, Library, build_reader
from test_export_c import NETWORKS, shaken
from test_export_c_int8 import quantised

import dsr
from dsr.deploy import integer_steps as i
from dsr.deploy.integer_model import IntegerModel
from dsr.deploy.lowering import lower
from dsr.deploy.model_file import packed, save_model

SOURCES = [str(ROOT / "csrc" / "fuzz" / "fuzz_read.c"), *READER]
UNCHECKED = "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"

# Gives each of many inputs in a file, each with its length before it, to the harness.
DRIVER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int main(int count, char **arguments) {
    FILE *file = count > 1 ? fopen(arguments[1], "rb") : NULL;
    uint32_t length, inputs = 0;
    while (file && fread(&length, 4, 1, file) == 1) {
        uint8_t *bytes = malloc(length ? length : 1); /* of this size, so that reading beyond it is seen */
        if (!bytes || fread(bytes, 1, length, file) != length)
            return 2;
        LLVMFuzzerTestOneInput(bytes, length);
        free(bytes);
        inputs++;
    }
    printf("%u\\n", inputs);
    return file ? fclose(file) : 2;
}
"""


def all_kinds():
    """Every kind of step in few bytes."""
    branch = dsr.Sequential(dsr.Conv2d(4, 2, 1), dsr.LIF(0.1))
    return dsr.Sequential(
        dsr.BatchNorm(2),
        dsr.Conv2d(2, 4, 3, 1, 1, groups=2),
        dsr.IF([0.1, 0.2, 0.3, 0.4]),
        dsr.MaxPool2d(2),
        dsr.Concat(dsr.Identity(), branch),
        dsr.SpikeResidual(dsr.Sequential(dsr.Conv2d(6, 6, 1), dsr.IF(0.1)), "and"),
        dsr.Upsample(2),
        dsr.AvgPool2d(2),
        dsr.Residual(dsr.ConvTranspose2d(6, 6, 3, 1, 1)),
        dsr.Flatten(),
        dsr.Linear(24, 2),
        dsr.LIF(0.1),
    )


SAID_OF_ALL = {
    "is of an unknown kind.",
    "has a wrong number of inputs.",
    "reads a step that does not come before it.",
    "has a shape out of range.",
    "does not give the shape that it says.",
    "has groups that do not divide.",
    "confuses values and spikes.",
}
SAID_OF = {
    "floats": {
        "has weights that are not finite.",
        "has an amplitude that is not above 0.",
        "has a threshold that is not above 0.",
    },
    "integers": {
        "has a current that could leave 32 bits.",
        "has a shift out of range.",
        "has a threshold out of range.",
        "has a decay out of range.",
        "has a unit that is not finite.",
    },
}


def integer_content():
    """A network of integers with counts, gates, trains side by side, and rates of spikes."""
    return packed(quantised("trains side by side, gates, maxima")[0])


@pytest.fixture(scope="module")
def content():
    return packed(lower(dsr.Network(all_kinds(), 2), (2, 4, 4)))


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    return Library(build_reader(tmp_path_factory.mktemp("reader")))


def with_body(content, body):
    """A file with another body, whose header fits it."""
    return content[:20] + struct.pack("<IQ", crc32(body), len(body)) + body


def test_a_model_is_read(reader, content, tmp_path):
    save_model(lower(dsr.Network(all_kinds(), 2), (2, 4, 4)), tmp_path / "a.dsrmodel")
    assert (tmp_path / "a.dsrmodel").read_bytes() == content
    for status, message, model in (reader.read(content), reader.load(tmp_path / "a.dsrmodel")):
        assert (status, message) == (libdsr.OK, "")
        sizes = [getattr(reader.c, f"dsr_model_{name}")(model) for name in ("inputs", "outputs", "timesteps")]
        assert sizes == [32, 2, 2]
        reader.free(model)


def test_other_files_are_told_apart(reader, content, tmp_path):
    changed = bytearray(content)
    changed[100] ^= 1
    rest = content[32:]
    for given, status, said in [
        (b"", libdsr.OTHER_FILE, "This is not a model that dsr exported."),
        (b"PK\3\4" + content[4:], libdsr.OTHER_FILE, "This is not a model that dsr exported."),
        (content[:20], libdsr.DAMAGED, "The model is damaged: its header is cut short."),
        (
            content[:8] + b"\3\0\0\0" + content[12:],
            libdsr.OTHER_VERSION,
            "The model is of version 3 of the format; this library reads version 2.",
        ),
        (content[:-1], libdsr.DAMAGED, f"The model is damaged: expected {len(content)} bytes, got {len(content) - 1}."),
        (bytes(changed), libdsr.DAMAGED, "The model is damaged: its checksum does not match."),
        (with_body(content, rest[:-4]), libdsr.DAMAGED, "The model is damaged: step 17 is cut short."),
        (with_body(content, rest + bytes(4)), libdsr.DAMAGED, "its description is longer than its steps."),
        (content[:16] + bytes(4) + content[20:], libdsr.DAMAGED, "The model is damaged: its header makes no sense."),
        (with_body(content, struct.pack("<I", 4) + rest[4:]), libdsr.DAMAGED, "features that are not of 1 to 3 axes."),
        (
            content[:12] + b"\xff\xff\0\0" + content[16:],  # would be 18 MB of steps
            libdsr.DAMAGED,
            "The model is damaged: its header makes no sense.",
        ),
    ]:
        found, message, model = reader.read(given)
        assert (found, model) == (status, None)
        assert message.endswith(said), message
    assert reader.load(tmp_path / "none")[:2] == (libdsr.NO_FILE, f"The file {tmp_path / 'none'} cannot be opened.")
    assert reader.load(tmp_path)[0] == libdsr.NO_FILE


@pytest.mark.parametrize("numbers", ["floats", "integers"])
def test_what_makes_no_sense_is_refused_with_a_sentence(reader, content, numbers):
    """Each word of the file as another number: it is a model of other numbers, or it is refused."""
    if numbers == "integers":
        content = integer_content()
    body, said, accepted = bytearray(content[32:]), set(), 0
    for at in range(0, len(body), 4):
        kept = bytes(body[at : at + 4])
        for number in (0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000):
            body[at : at + 4] = struct.pack("<I", number)
            status, message, model = reader.read(with_body(content, bytes(body)))
            assert status in (libdsr.OK, libdsr.DAMAGED)
            assert bool(model) == (status == libdsr.OK) == (message == "")
            said.add(message.partition(": ")[2].lstrip("step 0123456789").strip())
            accepted += status == libdsr.OK
            reader.free(model)
        body[at : at + 4] = kept
    assert accepted > 100, "weights may be other numbers"
    assert said >= SAID_OF_ALL | SAID_OF[numbers], said


def test_steps_that_no_network_has(reader):
    """Sound steps, one of them changed: what is wrong with it is told."""
    model, _ = quantised("trains side by side, gates, maxima")
    counts = next(k for k, step in enumerate(model.steps) if isinstance(step, i.Pool) and not step.largest)
    largest = next(k for k, step in enumerate(model.steps) if isinstance(step, i.Pool) and step.largest)
    gate = next(k for k, step in enumerate(model.steps) if isinstance(step, i.Gate))
    fires = next(k for k, step in enumerate(model.steps) if isinstance(step, i.Neurons))
    for number, changes, said in [
        (counts, {"kernel_size": (50000, 50000)}, "does not give the shape that it says."),  # 2^31 and more
        (counts, {"source": 0, "features": model.steps[0].features}, "pools what is not spikes."),
        (largest, {"source": 0, "features": model.steps[0].features}, "confuses values and spikes."),
        (gate, {"sources": (0, 0)}, "reads signals of another shape."),
        (fires, {"fire": model.steps[fires].reset + 1}, "fires above its threshold."),
        (fires, {"decay": 2**15 + 1}, "has a decay out of range."),
        (fires, {"bias": np.full_like(model.steps[fires].bias, 2**30 - 1)}, "has a current that could leave 32 bits."),
    ]:
        steps = list(model.steps)
        steps[number] = replace(steps[number], **changes)
        wrong = IntegerModel(steps, model.timesteps, model.bits, model.features, model.output_features)
        status, message, _ = reader.read(packed(wrong))
        assert (status, message) == (libdsr.DAMAGED, f"The model is damaged: step {number} {said}")


def test_damaged_models_under_sanitizers(content, tmp_path):
    """Cut short anywhere, and changed at random, with a header that fits: nothing is read that is not there."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    (tmp_path / "driver.c").write_text(DRIVER)
    flags = [*FLAGS, UNCHECKED, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = subprocess.run(
        ["gcc", *flags, "driver.c", *SOURCES, "-o", "driver"], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    rng, cases, contents = np.random.default_rng(0), [], (content, integer_content())
    for each in contents:
        cases += [each[:end] for end in range(0, len(each), 5)]
        cases += [with_body(each, each[32:end]) for end in range(32, len(each), 4)]
    for k in range(4000):
        content = contents[k % 2]
        body = np.frombuffer(content[32:], np.uint32).copy()
        for _ in range(rng.integers(1, 4)):
            body[rng.integers(len(body))] = rng.choice([rng.integers(64), rng.integers(2**32)])
        cases.append(with_body(content, body.tobytes()))
    (tmp_path / "cases").write_bytes(b"".join(struct.pack("<I", len(case)) + case for case in cases))
    ran = subprocess.run([tmp_path / "driver", tmp_path / "cases"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, f"{len(cases)}\n"), ran.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_sanitizer_sees_memory_come_and_go(compiler, tmp_path):
    """Else what reads released memory would find that of the next operation, and nothing would be said."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    ops, source = libdsr.ROOT / "csrc" / "ops", tmp_path / "late.c"
    source.write_text(
        f'#include "{ops / "ops.h"}"\n'
        "int main(int count, char **unused) {\n"
        "    (void)unused;\n"
        "    float *numbers = dsr_scratch(100, sizeof *numbers);\n"
        "    dsr_release(numbers);\n"
        "    return (int)numbers[count];\n"
        "}\n"
    )
    command = [compiler, *FLAGS, "-fsanitize=address", source, ops / "scratch.c", "-o", tmp_path / "late"]
    subprocess.run(command, check=True)
    ran = subprocess.run([tmp_path / "late"], capture_output=True, text=True)
    assert ran.returncode != 0 and "heap-use-after-free" in ran.stderr


def test_fuzz_the_reader(content, tmp_path):
    if shutil.which("clang") is None:
        pytest.skip("no clang here")
    flags = ["-g", "-O1", UNCHECKED, "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
    built = subprocess.run(["clang", *flags, *SOURCES, "-o", tmp_path / "fuzz"], capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip("this clang comes without libFuzzer")
    assert built.returncode == 0, built.stderr
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "floats").write_bytes(content)
    (tmp_path / "seeds" / "integers").write_bytes(integer_content())
    command = [tmp_path / "fuzz", "-runs=20000", "-seed=1", "-max_len=8192", tmp_path / "seeds"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]


# ---- the whole library


@pytest.fixture(scope="module")
def library():
    if not BUILT.is_file():
        pytest.skip("libdsr is not built: python setup.py build_libdsr")
    return Library(BUILT)


@pytest.mark.parametrize("moves", [False, True], ids=["static", "frames"])
@pytest.mark.parametrize("name", NETWORKS)
def test_rates_are_those_of_dsr(library, name, moves):
    make, features = NETWORKS[name]
    network = shaken(make())
    shape = (4, 3, *features) if moves else (3, *features)
    data = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    status, message, model = library.read(packed(lower(network, features)))
    assert (status, message) == (libdsr.OK, "")
    status, message, rates = library.run(model, data, moves, 4, 3)
    assert (status, message) == (libdsr.OK, "")
    np.testing.assert_allclose(rates, network.forward(data).reshape(3, -1), rtol=1e-5, atol=1e-6)
    # the same bits for any number of threads and at any place in a batch
    for threads in (1, 3):
        assert library.c.dsr_model_set_threads(threads) == libdsr.OK
        np.testing.assert_array_equal(library.run(model, data, moves, 4, 3)[2], rates)
    one = data[:, 1:2] if moves else data[1:2]
    np.testing.assert_allclose(library.run(model, one, moves, 4, 1)[2], rates[1:2], rtol=1e-5, atol=1e-6)
    library.free(model)


def test_threads_may_share_a_model(library):
    make, features = NETWORKS["geometry"]
    _, _, model = library.read(packed(lower(shaken(make()), features)))
    data = np.random.default_rng(3).normal(size=(8, 5, *features)).astype(np.float32)
    expected = [library.run(model, batch, False, 4, 5)[2] for batch in data]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: library.run(model, batch, False, 4, 5)[2], [*data] * 5))
    np.testing.assert_array_equal(found, expected * 5)
    library.free(model)


def test_bad_runs_are_refused(library, content):
    _, _, model = library.read(content)
    data = np.ones((1, 32), np.float32)
    for value in (np.nan, np.inf):
        data[0, 31] = value
        status, message, rates = library.run(model, data, False, 2, 1)
        assert (status, message) == (libdsr.NOT_FINITE, "Value 31 of the data is infinite or not a number.")
        assert np.isnan(rates).all(), "nothing is written"
    data[0, 31] = 1
    status, message, _ = library.run(model, data, False, 0, 1)
    assert (status, message) == (libdsr.BAD_ARGUMENT, "Expected at least one time step and one sample.")
    status, message, _ = library.run(model, data, False, 2**40, 1)
    assert (status, message) == (libdsr.TOO_LARGE, "Expected at most 2147483647 time steps.")
    assert library.run(None, data, False, 2, 1)[0] == libdsr.BAD_ARGUMENT
    for threads in (0, -1, 1025):
        assert library.c.dsr_model_set_threads(threads) == libdsr.BAD_ARGUMENT
    library.free(model)
    library.free(None)


def test_the_example_runs(library, tmp_path):
    network = shaken(NETWORKS["digits"][0]())
    save_model(lower(network, (1, 8, 8)), tmp_path / "digits.dsrmodel")
    images = np.random.default_rng(0).normal(size=(70, 1, 8, 8)).astype(np.float32)
    images.tofile(tmp_path / "samples")
    folder = BUILT.parent.resolve()
    command = ["cc", str(folder / "example.c"), f"-L{folder}", "-ldsr", f"-Wl,-rpath,{folder}", "-o", "example"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ran = subprocess.run(["./example", "digits.dsrmodel", "samples", "2"], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert list(map(int, ran.stdout.split())) == network.predict(images).tolist()
    ran = subprocess.run(["./example", "samples", "samples"], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, "This is not a model that dsr exported.\n")
