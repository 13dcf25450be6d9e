"""What coverage-guided fuzzing (fuzz.py) and damaged files (test_mutations.py) found, input by input.

Pointers that were computed, though not used, outside their arrays (conv2d_spikes at the edge of an image, tables of
sums) show only under UndefinedBehaviorSanitizer: test_races.py calls both.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from hashlib import sha256
from itertools import pairwise
from zlib import crc32

import numpy as np
import pytest
from patience import patiently
from test_data_cifar import pickled

import dsr
from dsr import data
from dsr.data import cifar
from dsr.files import checkpoint
from dsr.files.archive import read_npy
from dsr.files.errors import DataError
from dsr.files.pickles import read_dict
from dsr.train import recipe
from dsr.weights.reading import read_arrays

LONG = 2**31 - 1


@pytest.mark.parametrize(
    "call",
    [
        "_core.firing_rate(np.zeros((LONG, 0)), None, np.zeros(0))",
        "_core.backward(np.zeros((LONG, 0)), np.zeros((LONG, 0)), None, dsr.ops.if_model(1), np.zeros((LONG, 0)))",
        "functional.weighted_firing_rate(np.zeros((LONG, 0)), 2, 1)",
        "functional.lif_backward(np.zeros((LONG, 0)), np.zeros((LONG, 0)), 1, 2, 1)",
        "_core.weighted_sum(np.zeros((LONG, 3, 1, 0), 'f4'), np.zeros(1, 'f4'), np.zeros((LONG, 3, 0), 'f4'))",
    ],
)
def test_arrays_without_elements_cost_no_memory_and_no_time(call):
    """2**31 time steps of no neurons had 16 GB of weights."""
    lines = [
        "import resource, numpy as np, dsr",
        "from dsr import _core, functional",
        f"LONG = {LONG}",
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss",
        f"{call}",
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 50_000",
    ]
    subprocess.run([sys.executable, "-P", "-c", "\n".join(lines)], check=True, timeout=patiently(60))


def test_a_chunk_of_a_png_that_claims_gigabytes(tmp_path):
    """Pillow reads as many bytes of a file as the last chunk says it has, 3.7 GB of 60."""
    image = pytest.importorskip("PIL.Image")
    from dsr.data.images import Decoder

    buffer = io.BytesIO()
    image.new("I;16", (5, 9)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    at = content.index(b"IDAT") - 4
    content[at : at + 4] = struct.pack(">I", 0xDD00000C)
    (tmp_path / "a.png").write_bytes(content)
    tracemalloc.start()
    try:
        Decoder(image_size=8).one(str(tmp_path / "a.png"))
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100_000_000


def test_an_escape_sequence_that_is_none_warns_nobody():
    """pickletools has a DeprecationWarning for it, which a program's user would see."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="not a readable pickle"):
            read_dict(b"\x80\x02}c\\e\nname\n.", "file")


@pytest.mark.parametrize("text", ['{"epoch": ', "[1, 2]", "[" * 100_000])
def test_metadata_of_a_checkpoint_that_are_no_json(tmp_path, text):
    about = {"format": "dsr-checkpoint", "version": "1", "metadata": text, "sha256": sha256(text.encode()).hexdigest()}
    header = json.dumps({"__metadata__": about}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(checkpoint.CheckpointError, match=r"a\.safetensors"):
        checkpoint.load(tmp_path / "a.safetensors")


def test_an_npz_whose_table_points_before_its_start(tmp_path):
    """It was an OSError, "Invalid argument", without the file's name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        array = io.BytesIO()
        np.save(array, np.zeros(3, np.float32))
        archive.writestr("w.npy", array.getvalue())
    content = buffer.getvalue()
    end = content.index(b"PK\x05\x06")
    size, offset = struct.unpack_from("<II", content, end + 12)
    moved = content[: end + 12] + struct.pack("<II", size, offset + 100) + content[end + 20 :]
    (tmp_path / "a.npz").write_bytes(moved)
    with pytest.raises(ValueError, match=r"load_state: .*a\.npz"):
        read_arrays("load_state", tmp_path / "a.npz")


def test_an_integer_of_a_recipe_that_is_no_float(tmp_path):
    (tmp_path / "a.toml").write_text(f'data = "digits"\nmodel = "vgg11"\nlearning_rate = 1{"0" * 400}\n')
    with pytest.raises(ValueError, match="learning_rate"):
        recipe.load(str(tmp_path / "a.toml"))


def nir_chain(**nodes):
    """A graph of an input of shape (2, 4, 4), nodes one after the other, and an output."""
    nir = pytest.importorskip("nir")
    whole = {
        "in": nir.Input({"input": np.array([2, 4, 4])}),
        **nodes,
        "out": nir.Output({"output": np.array([2, 4, 4])}),
    }
    names = list(whole)
    about = {"timesteps": 2, "dt": 1.0, "reset": "subtract"}
    edges = list(pairwise(names))
    return nir.NIRGraph(whole, edges, metadata=about, type_check=False)


def nir_conv(weight=1.0, bias=0.0):
    nir = pytest.importorskip("nir")
    return nir.Conv2d(None, np.full((2, 2, 3, 3), weight), 1, 1, 1, 1, np.full(2, bias))


def test_complex_numbers_in_a_nir_graph_are_refused():
    """Their imaginary part was dropped."""
    nir = pytest.importorskip("nir")
    from dsr.nir import from_nir

    ones = np.ones((2, 4, 4))
    for node in (
        nir_conv(weight=1 + 1j),
        nir_conv(bias=1j),
        nir.Scale(ones * 1j),
        nir.IF(ones * (1 + 1j), ones, 0 * ones),
    ):
        with pytest.raises(ValueError, match="node 'a'"):
            from_nir(nir_chain(a=node))


def test_a_stride_of_nothing_in_a_nir_graph():
    nir = pytest.importorskip("nir")
    from dsr.nir import from_nir

    with pytest.raises(ValueError, match="node 'a'"):
        from_nir(nir_chain(a=nir.AvgPool2d(1, 0, 0)))


def test_a_threshold_beyond_float32_in_a_nir_graph():
    nir = pytest.importorskip("nir")
    from dsr.nir import from_nir

    ones = np.ones((2, 4, 4))
    with pytest.raises(ValueError, match="node 'a'"):
        from_nir(nir_chain(a=nir.IF(ones, ones * 1e300, 0 * ones)))


@pytest.mark.parametrize("count", [1, 3])
def test_a_bias_of_another_length_in_a_nir_graph(count):
    nir = pytest.importorskip("nir")
    from dsr.nir import from_nir

    conv = nir.Conv2d(None, np.ones((2, 2, 3, 3)), 1, 1, 1, 1, np.ones(count))
    with pytest.raises(ValueError, match="node 'a'"):
        from_nir(nir_chain(a=conv))


def test_a_png_that_claims_more_pixels_than_its_bytes_can_hold(tmp_path):
    """440 bytes took a gigabyte, and then a MemoryError."""
    image = pytest.importorskip("PIL.Image")
    from dsr.data.images import Decoder

    buffer = io.BytesIO()
    image.new("1", (9, 5)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", 9999, 9999)
    content[29:33] = struct.pack(">I", crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: .*cannot hold the 9999x9999 pixels"):
        Decoder(image_size=8).one(str(tmp_path / "a.png"))
    image.new("1", (9999, 9999)).save(tmp_path / "b.png", "PNG")  # of one colour, nothing is smaller
    assert Decoder(image_size=8).one(str(tmp_path / "b.png")).shape == (3, 8, 8)


def test_sides_of_an_array_that_are_true():
    """NumPy's parser of headers takes them; it was a TypeError."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1, np.float32))
    content = buffer.getvalue().replace(b"(1,), }   ", b"(True,), }")
    with pytest.raises(DataError, match=r"w\.npy: not a shape of an array: \(True,\)"):
        read_npy(content, "w.npy")


def test_a_sensor_larger_than_any(tmp_path):
    """The message did not name the file."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "sensor_size.txt").write_text("9128 198")
    with pytest.raises(DataError, match=r"sensor_size\.txt: expected two numbers of 1 to 4096"):
        data.load("events", tmp_path)


NESTED = b")" + b"\x85" * 5000
"""A tuple of a tuple of a tuple: its text is a RecursionError."""


def test_names_of_classes_nested_deeply():
    content = b"\x80\x02}(U\x0blabel_names](" + NESTED + b"eu."
    with pytest.raises(DataError, match=r"meta: 'label_names': expected a list of names"):
        cifar._names(cifar._CIFAR10, cifar._CIFAR10.python, content, "meta")


def test_a_label_nested_deeply():
    whole = pickled({"data": np.zeros((1, 3072), np.uint8), "labels": ["here"]})
    here = b"U\x04here"
    assert whole.count(here) == 1
    with pytest.raises(DataError, match=r"batch: 'labels': entry 0: expected 0 to 9, got tuple"):
        cifar._pickled(cifar._CIFAR10, whole.replace(here, NESTED), "batch", 1)


def test_strings_of_a_nir_file_in_a_heap_without_an_end(tmp_path):
    """HDF5 never got past an object of no bytes."""
    pytest.importorskip("nir")
    network = dsr.Network(dsr.Sequential(dsr.Linear(3, 2), dsr.BatchNorm(2), dsr.IF()), 2)
    dsr.nir.save(network, (3,), tmp_path / "a.nir")
    content = bytearray((tmp_path / "a.nir").read_bytes())
    heap = content.index(b"GCOL")
    end = heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
    free = heap + 16
    while content[free : free + 2] != b"\0\0":
        free += 16 + (int.from_bytes(content[free + 8 : free + 16], "little") + 7) // 8 * 8
    assert int.from_bytes(content[free + 8 : free + 16], "little") == end - free
    content[free + 8 : free + 16] = bytes(8)
    (tmp_path / "a.nir").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.nir: .*a string that is not in the file"):
        dsr.nir.load(tmp_path / "a.nir")


def test_metadata_of_a_nir_graph_beyond_float32():
    """NumPy warned of a cast."""
    pytest.importorskip("nir")
    network = dsr.Network(dsr.Sequential(dsr.Linear(3, 2), dsr.BatchNorm(2), dsr.IF(1.5, 0.25)), 2)
    graph = dsr.nir.to_nir(network, (3,))
    graph.metadata["alpha"] = dict.fromkeys(graph.metadata["alpha"], 1e300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, neuron),) = dsr.nir.from_nir(graph).neurons()
    assert (neuron.effective_threshold(), neuron.alpha) == (1.5, 0.25)


def test_infinite_factors_in_a_nir_graph():
    """NumPy warned of infinity times zero."""
    nir = pytest.importorskip("nir")
    from dsr.nir import from_nir

    scale = nir.Scale(np.full((2, 4, 4), np.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FloatingPointError, match=r"^from_nir: weights of layer 'b' are not finite in float32"):
            from_nir(nir_chain(a=scale, b=nir_conv(weight=0.0)))
        with pytest.raises(FloatingPointError, match=r"^from_nir: weights of layer 'c' are not finite in float32"):
            from_nir(nir_chain(a=scale, b=nir.Scale(np.zeros((2, 4, 4))), c=nir_conv()))


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "HDF5 crashed on it, exit status -11"),
        ("raise MemoryError('none left')", "HDF5 crashed on it, exit status 1: MemoryError: none left"),
        ("import time; time.sleep(100)", "HDF5 did not end in 1 seconds"),
    ],
)
def test_nir_files_on_which_hdf5_crashes_or_never_ends(tmp_path, monkeypatch, program, words):
    """Damaged ones, of which HDF5 is not to take the interpreter with it."""
    pytest.importorskip("nir")
    from dsr.nir import hdf5

    (tmp_path / "program.py").write_text(program)
    (tmp_path / "a.nir").write_bytes(b"")
    monkeypatch.setattr(hdf5, "_PROGRAM", tmp_path / "program.py")
    monkeypatch.setattr(hdf5, "_SECONDS", 1)
    with pytest.raises(DataError, match=rf"a\.nir: not a readable NIR graph \({words}"):
        dsr.nir.load(tmp_path / "a.nir")


def test_values_come_back_from_the_process_as_they_were(tmp_path):
    """Numbers of all kinds, with and without elements, and strings alone and in arrays."""
    h5py = pytest.importorskip("h5py")
    from dsr.nir import hdf5

    values = {
        "weight": np.arange(6, dtype=">f4").reshape(2, 3),
        "empty": np.empty((0, 3), np.int64),
        "flag": np.bool_(True),
        "one": np.float64(0.5),
        "complex": np.array([1j]),
        "type": "Affine \u00e4",
        "edges": np.array([["a", "b\u00e4"]], object),
    }
    with h5py.File(tmp_path / "a.nir", "w") as file:
        for name, value in values.items():
            file.create_dataset(f"node/inner/{name}", data=value)
    found = hdf5._read(str(tmp_path / "a.nir"), 30)["inner"]
    assert found.keys() == values.keys()
    assert found.pop("type") == values.pop("type")
    assert found.pop("edges").tolist() == [[b"a", "b\u00e4".encode()]]
    del values["edges"]
    for name, value in values.items():
        assert found[name].dtype == value.dtype and type(found[name]) is type(value)
        np.testing.assert_array_equal(found[name], value)
