"""Tensors of every dtype and layout: read with the right values, or refused by a sentence that names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_foreign import archive, plain, read, tensor

import dsr
from dsr.weights.formats import Unreadable, as_float32
from dsr.weights.loading import load_state
from dsr.weights.reading import read_arrays

FORMATS = Path(__file__).parent / "data" / "formats.pth"
"""Written by PyTorch 2.13, see make_formats.py next to it."""
NUMBERS = [0.5, -1.25, 3.0, 448.0]
VALUES = {
    "negative": NUMBERS,
    "expanded": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]],
    "windows": [[0.5, -1.25, 3.0], [-1.25, 3.0, 448.0]],
    "bfloat16": NUMBERS,
    "float16": NUMBERS,
    "float64": NUMBERS,
    "float8_e4m3fn": NUMBERS,
    "float8_e5m2": NUMBERS,
    "int8": [-128, 127],
    "uint16": [0, 65535],
    "bool": [True, False],
    "parameter": NUMBERS,
}
REASONS = {
    "float8_e4m3fnuz": "of dtype float8_e4m3fnuz",
    "conjugate": "of dtype complex64",
    "sparse": "a sparse tensor; save tensor.to_dense() in its place",
    "csr": "a sparse tensor; save tensor.to_dense() in its place",
    "quantised": "a quantised tensor; save tensor.dequantize() in its place",
    "meta": "a tensor of the meta device, which has no numbers",
    "nested": "a nested tensor",
}


def linear(count=4):
    """A network whose only array is "w.weight", (count, 1, 1, 1)."""
    return dsr.Network(dsr.Sequential(w=dsr.Linear(1, count, bias=False)), 1)


def loaded(value):
    network = linear()
    load_state(network, {"w.weight": value})
    return network.state()["w.weight"].reshape(-1).tolist()


def safetensors(**tensors):
    """A file of tensors given as their dtype, shape and bytes."""
    header, content = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


# ------------------------------------------------------------------------------------------------ files of PyTorch


def test_tensors_of_pytorch():
    found = dict(read_arrays("load_state", FORMATS))
    assert {name: value.why for name, value in found.items() if isinstance(value, Unreadable)} == REASONS
    assert {name: found[name].tolist() for name in found.keys() - REASONS.keys()} == VALUES


@pytest.mark.parametrize("name", REASONS)
def test_a_tensor_that_is_not_read_is_named_where_it_is_needed(name):
    found = read_arrays("load_state", FORMATS)
    with pytest.raises(ValueError, match="load_state") as caught:
        load_state(linear(), {"w.weight": found[name]})
    assert str(caught.value) == (
        f"load_state: the mapping does not fit the network; not of real numbers: w.weight ({REASONS[name]})"
    )


def test_tensors_that_are_not_read_do_no_harm_elsewhere(tmp_path):
    """Such as in the state of an optimiser."""
    meta = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R"
    weights = b"}(" + plain("w.weight") + tensor(shape=(4, 1), strides=(1, 1)) + b"u"
    items = plain("net") + weights + plain("optimizer") + b"}(" + plain("m") + meta + b"u"
    (tmp_path / "w.pth").write_bytes(archive(items, data={"0": np.array(NUMBERS, "<f4").tobytes()}))
    network = linear()
    load_state(network, tmp_path / "w.pth")
    assert network.state()["w.weight"].reshape(-1).tolist() == NUMBERS


@pytest.mark.parametrize(("byteorder", "mark"), [(b"little", "<"), (b"big", ">")])
def test_negative_views_in_both_byte_orders(tmp_path, byteorder, mark):
    items = plain("minus") + tensor(metadata={"neg": True}) + plain("plus") + tensor(metadata={"neg": False})
    found = read(tmp_path, archive(items, data={"0": np.array(NUMBERS, f"{mark}f4").tobytes()}, byteorder=byteorder))
    assert (-found["minus"]).tolist() == found["plus"].tolist() == NUMBERS


@pytest.mark.parametrize(("metadata", "words"), [({"conj": True}, "conj"), ({"neg": True, "new": 1}, "neg, new")])
def test_metadata_that_is_not_understood(tmp_path, metadata, words):
    found = read(tmp_path, archive(plain("w") + tensor(metadata=metadata)))
    assert found["w"] == Unreadable(f"with the metadata {words}, which is not understood")


def test_negative_views_of_one_storage_share_memory(tmp_path):
    items = b"".join(plain(f"w{number}") + tensor(metadata={"neg": True}) for number in range(3))
    arrays = list(read(tmp_path, archive(items)).values())
    assert all(np.shares_memory(arrays[0], array) for array in arrays)


def test_a_view_of_any_size_takes_no_memory(tmp_path):
    """Also as a weight of another shape: its numbers are not looked at."""
    content = archive(plain("w.weight") + tensor(shape=(10**8, 10**8), strides=(0, 0)))
    assert read(tmp_path, content)["w.weight"].shape == (10**8, 10**8)
    with pytest.raises(ValueError, match=r"of another shape: w\.weight \(expected \(4, 1, 1, 1\), got \(100000000, 1"):
        load_state(linear(), tmp_path / "file.pth")


# ------------------------------------------------------------------------------------------- mappings and safetensors


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u1", "i8", np.longdouble])
def test_mappings_of_real_numbers(dtype):
    numbers = [0, 1, 3, 100]
    assert loaded(np.array(numbers, dtype)) == numbers


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.ones(4, bool), "of dtype bool"),
        (np.ones(4, complex), "of dtype complex128"),
        (np.array(["1"] * 4), "of dtype <U1"),
        (None, "of dtype object"),
        ([[1, 2], [3]], r"of type list: .*inhomogeneous"),
    ],
)
def test_mappings_of_other_things(value, why):
    with pytest.raises(ValueError, match=rf"not of real numbers: w\.weight \({why}"):
        loaded(value)


class Torch:
    """A tensor of PyTorch, as far as its conversions: NumPy's is refused where PyTorch refuses it."""

    def __init__(self, values, refusal):
        self.values, self.refusal = np.asarray(values), refusal

    def __array__(self, dtype=None, copy=None):
        if self.refusal is not None:
            raise self.refusal
        return self.values

    def detach(self):
        return self

    cpu = detach

    def double(self):
        return Torch(self.values.astype(np.float64), None)


@pytest.mark.parametrize(
    "refusal", [TypeError("Got unsupported ScalarType BFloat16"), RuntimeError("negative bit"), None], ids=str
)
def test_tensors_of_pytorch_in_a_mapping(refusal):
    assert loaded(Torch(NUMBERS, refusal)) == NUMBERS


def test_a_tensor_that_pytorch_converts_in_no_way():
    class Sparse(Torch):
        def double(self):
            return self

    with pytest.raises(ValueError, match=r"w\.weight \(of type Sparse: Use Tensor\.to_dense\(\) first"):
        loaded(Sparse(NUMBERS, TypeError("Use Tensor.to_dense() first")))


def test_arrays_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        kind = getattr(ml_dtypes, name)
        assert loaded(np.array(NUMBERS, kind)) == NUMBERS
        assert loaded(np.array([NUMBERS, NUMBERS], kind)[:, ::-1][0]) == NUMBERS[::-1]
        bits = np.arange(1 << 8 * np.dtype(kind).itemsize).astype(f"u{np.dtype(kind).itemsize}")
        np.testing.assert_array_equal(as_float32(name, bits), bits.view(kind).astype(np.float32))
    with pytest.raises(ValueError, match=r"w\.weight \(of dtype float8_e4m3fnuz\)"):
        loaded(np.array(NUMBERS, ml_dtypes.float8_e4m3fnuz))


BITS = {
    "BF16": np.array([0x3F00, 0xBFA0, 0x4040, 0x43E0], "<u2"),
    "F8_E4M3": np.array([0x30, 0xBA, 0x44, 0x7E], "u1"),
    "F8_E5M2": np.array([0x38, 0xBD, 0x42, 0x5F], "u1"),
    "F16": np.array(NUMBERS, "<f2"),
    "F64": np.array(NUMBERS, "<f8"),
}


@pytest.mark.parametrize("dtype", BITS)
def test_safetensors(tmp_path, dtype):
    (tmp_path / "w").write_bytes(
        safetensors(a=("F32", [1], b"0123"), **{"w.weight": (dtype, [4, 1], BITS[dtype].tobytes())})
    )
    found = read_arrays("load_state", tmp_path / "w")
    assert found["w.weight"].tolist() == [[number] for number in NUMBERS]


@pytest.mark.parametrize(("dtype", "count"), [("F8_E8M0", 4), ("F8_E4M3FNUZ", 4), ("C64", 32), ("BOOL", 4)])
def test_safetensors_of_other_dtypes(tmp_path, dtype, count):
    (tmp_path / "w").write_bytes(safetensors(**{"w.weight": (dtype, [4], bytes(count))}))
    why = {"C64": "complex64", "BOOL": "bool"}.get(dtype, dtype)
    with pytest.raises(ValueError, match=rf"not of real numbers: w\.weight \(of dtype {why}\)"):
        load_state(linear(), tmp_path / "w")


def test_every_float8():
    """Against the definitions: sign, exponent and fraction; e4m3fn has no infinity, and NaN is all ones alone."""
    for name, exponent_bits, bias in (("float8_e4m3fn", 4, 7), ("float8_e5m2", 5, 15)):
        fraction_bits = 7 - exponent_bits
        for bits, found in enumerate(as_float32(name, np.arange(256, dtype=np.uint8)).tolist()):
            sign, rest = (-1) ** (bits >> 7), bits & 0x7F
            exponent, fraction = rest >> fraction_bits, (rest & (1 << fraction_bits) - 1) / (1 << fraction_bits)
            value = (fraction * 2 ** (1 - bias)) if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - bias)
            if name == "float8_e4m3fn" and rest == 0x7F:
                value = np.nan
            elif name == "float8_e5m2" and exponent == 31:
                value = np.nan if fraction else np.inf
            np.testing.assert_equal(found, sign * value)


def test_variances_have_to_be_positive():
    network = dsr.Network(dsr.Sequential(bn=dsr.BatchNorm(2)), 1)
    state = network.state()
    load_state(network, state | {"bn.running_var": np.array([-9e-6, 0])})  # as those of a folded VGG may be
    with pytest.raises(ValueError, match=r"; not positive with eps added: bn\.running_var$"):
        load_state(network, state | {"bn.running_var": np.array([1, -2e-5])})
    assert network.state()["bn.running_var"].tolist() == [np.float32(-9e-6), 0]
