"""Weights, files and arrays of other libraries: read as they are, by any of their names, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from test_mini_networks import RUN, make_network

import dsr
from dsr import functional, models
from dsr.data.events.frames import to_frames
from dsr.data.events.reading import EVENT, as_events
from dsr.files.archive import Archive
from dsr.files.errors import DataError
from dsr.files.pickles import read_dict
from dsr.weights.foreign import own_names
from dsr.weights.loading import load_state
from dsr.weights.reading import read_arrays
from dsr.weights.torch_file import read_torch

DATA = Path(__file__).parent / "data"
SMALL = DATA / "small.pth"
"""A checkpoint as the authors' training script saves it, by PyTorch 2.13; what is in it: `test_a_file_of_pytorch`."""


def published_layout():
    body = dsr.Sequential(
        conv1=dsr.Conv2d(2, 4, 3, 1, 1), bn2=dsr.BatchNorm(4), neuron2=dsr.IF(), conv2=dsr.Conv2d(4, 4, 3, 1, 1)
    )
    residual = dsr.Residual(body, dsr.Conv2d(2, 4, 1))
    return dsr.Network(
        dsr.Sequential(
            conv1=dsr.Conv2d(3, 2, 3, 1, 1, bias=False),
            layer1_0=dsr.Sequential(bn1=dsr.BatchNorm(2), neuron1=dsr.IF(), residual=residual),
            bn1=dsr.BatchNorm(4),
            neuron1=dsr.IF(),
            pool=dsr.AvgPool2d(4),
            flatten=dsr.Flatten(),
            linear=dsr.Linear(4, 3),
            bn2=dsr.BatchNorm(3),
            neuron2=dsr.IF(),
        ),
        timesteps=2,
    )


# the arrays of SMALL in the order of their numbers
PATHS = """
conv1.weight layer1_0.bn1.weight layer1_0.bn1.bias layer1_0.bn1.running_mean layer1_0.bn1.running_var
layer1_0.residual.body.conv1.weight layer1_0.residual.body.conv1.bias layer1_0.residual.body.conv2.bias
layer1_0.residual.body.bn2.weight layer1_0.residual.body.bn2.bias layer1_0.residual.body.bn2.running_mean
layer1_0.residual.body.bn2.running_var layer1_0.residual.body.conv2.weight layer1_0.residual.shortcut.weight
layer1_0.residual.shortcut.bias layer1_0.neuron1.v_threshold layer1_0.residual.body.neuron2.v_threshold
bn1.weight bn1.bias bn1.running_mean bn1.running_var neuron1.v_threshold linear.weight linear.bias
bn2.weight bn2.bias bn2.running_mean bn2.running_var neuron2.v_threshold
"""


def expected_state(network):
    """What SMALL holds: 1/8, 2/8, 3/8, ... through all arrays."""
    shapes, count, expected = {name: array.shape for name, array in network.arrays()}, 0, {}
    for name in PATHS.split():
        size = int(np.prod(shapes[name]))
        expected[name] = (np.arange(size, dtype=np.float32) + np.float32(count + 1)).reshape(shapes[name]) / 8
        count += size
    # 43.25, 43.375, 43.5, which were saved as bfloat16: 8 bits, rounded to even
    expected["linear.bias"] = np.array([43.25, 43.5, 43.5], np.float32)
    return expected


def assert_state(network, expected):
    assert network.state().keys() == expected.keys()
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


# ------------------------------------------------------------------------------------------------ files of PyTorch


def test_a_file_of_pytorch(tmp_path):
    """In it: DataParallel's names, an optimiser, a channels_last tensor, two tensors in one storage, a Parameter, and
    tensors of float64, float16 and bfloat16.
    """
    network = published_layout()
    load_state(network, SMALL)
    assert_state(network, expected_state(network))
    for name in ("weights.pt", "model_best.pth.tar", "last.ckpt", "pytorch_model.bin", "weights.npz", "weights"):
        renamed = tmp_path / name
        renamed.write_bytes(SMALL.read_bytes())
        again = published_layout()
        load_state(again, str(renamed))
        assert_state(again, network.state())
    found = read_torch(Archive(SMALL.read_bytes(), "small.pth"))
    assert (found["epoch"], found["acc"], float(np.asarray(found["best_acc"]))) == (3, 91.5, 92.0)
    assert found["optimizer"]["param_groups"][0]["momentum"] == 0.9


def plain(value):
    """Opcodes of a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def storage(key="0", count=4, kind="torch\nFloatStorage", mark="storage"):
    return b"(" + plain(mark) + b"c" + kind.encode() + b"\n" + plain(key) + plain("cpu") + plain(count) + b"tQ"


def tensor(offset=0, shape=(4,), strides=(1,), dtype=None, metadata=None, **of_storage):
    """The opcodes of a tensor; with a dtype, of one that PyTorch has no kind of storage for."""
    version, more = b"2", b""
    if dtype is not None:
        version, more = b"3", b"ctorch\n" + dtype.encode() + b"\n"
        of_storage = {"kind": "torch.storage\nUntypedStorage", "count": 16} | of_storage
    more += b"" if metadata is None else plain(metadata)
    arguments = storage(**of_storage) + plain(offset) + plain(shape) + plain(strides) + b"\x89}" + more
    return b"ctorch._utils\n_rebuild_tensor_v" + version + b"\n(" + arguments + b"tR"


def archive(items=b"", *, program=None, data=None, byteorder=b"little", compression=zipfile.ZIP_STORED):
    """A file as torch.save writes it; `items` are opcodes of keys and values in turn."""
    files = {f"data/{key}": content for key, content in (data or {"0": bytes(16)}).items()}
    files |= {"data.pkl": program or b"\x80\x02}(" + items + b"u."}
    files |= {} if byteorder is None else {"byteorder": byteorder}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in files.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def read(tmp_path, content):
    (tmp_path / "file.pth").write_bytes(content)
    return read_arrays("load_state", tmp_path / "file.pth")


@pytest.mark.parametrize(("byteorder", "mark"), [(b"little", "<"), (b"big", ">"), (None, "<")])
def test_views_and_byte_orders(tmp_path, byteorder, mark):
    numbers = np.arange(24, dtype=f"{mark}f4")
    items = plain("view") + tensor(offset=1, shape=(3, 2), strides=(1, 6), count=24)
    items += plain("none") + tensor(offset=24, shape=(0, 5), strides=(5, 1), count=24)
    items += plain("bits") + tensor(key="1", shape=(3,), count=3, kind="torch\nBFloat16Storage")
    bits = np.array([0x3F80, 0xC049, 0x7F80], f"{mark}u2")
    found = read(tmp_path, archive(items, data={"0": numbers.tobytes(), "1": bits.tobytes()}, byteorder=byteorder))
    np.testing.assert_array_equal(np.asarray(found["view"]), [[1, 7], [2, 8], [3, 9]])
    assert np.asarray(found["none"]).shape == (0, 5)
    np.testing.assert_array_equal(np.asarray(found["bits"]), np.array([1, -3.140625, np.inf], np.float32))


def test_tensors_that_share_numbers_share_memory(tmp_path):
    """A small file cannot ask for a large memory by naming one storage many times."""
    items = b"".join(plain(f"w{number}") + tensor() for number in range(3))
    arrays = [np.asarray(found) for found in read(tmp_path, archive(items)).values()]
    assert all(np.shares_memory(arrays[0], array) and not array.flags.writeable for array in arrays)


def test_numpy_scalars_among_the_values(tmp_path):
    """An accuracy often is one. As PyTorch pickles it: protocol 2."""
    assert read(tmp_path, archive(plain("acc") + plain(np.float64(91.5)))) == {"acc": 91.5}


NESTED = b")" + b"\x85" * 200_000
"""A tuple in a tuple in a tuple, ...: hashing it overflows the stack of Python itself."""
LAUGHS = b"(" * 12 + b"K\x01" + (b"q\x00" + b"h\x00" * 9 + b"t") * 12
"""A tuple of 10 tuples of 10 tuples ...: 20 bytes each, and 10**12 characters to whoever shows it."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"",
            r"expected a file of safetensors, NumPy \(\.npz\) or PyTorch \(torch\.save\), got one that begins with b''",
        ),
        (b"<html>404", "got one that begins with b'<html>404'"),
        (pickle.dumps({"w": 1}, 2), "got one that begins with b'"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", r"before 1\.6; .*torch\.save\(torch\.load"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 4), r"before 1\.6; .*torch\.save\(torch\.load"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS.*git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "expected a file of .*, got HDF5"),
        (b"\x93NUMPY\1\0" + bytes(99), "a single array without a name"),
        (bytes(8) + b"{" + bytes(99), "not a readable safetensors file"),
        (b"PK\x03\x04" + bytes(99), "damaged or cut short"),
        (b"PK\x05\x06" + bytes(18), r"expected files NAME\.npy, or one file NAME/data\.pkl"),
        (archive(plain("w") + tensor(count=2**40)), r"data/0: expected 1099511627776 values of 4 bytes, got 16 bytes"),
        (archive(plain("w") + tensor(count=-4)), "expected -4 values"),
        (archive(plain("w") + tensor(count="4")), "expected a int, got a str"),
        (archive(plain("w") + tensor(offset=1)), "does not lie within its storage of 4 values"),
        (archive(plain("w") + tensor(offset=-1)), "expected offset"),
        (archive(plain("w") + tensor(offset=5, shape=(0,))), "does not lie within"),
        (archive(plain("w") + tensor(shape=(2, 2), strides=(3, 1))), "does not lie within"),
        (archive(plain("w") + tensor(shape=(10**6, 10**6), strides=(1, 0))), "does not lie within"),
        (archive(plain("w") + tensor(shape=(2**30, 2**30), strides=(0, 0))), "expected a shape of at most"),
        (archive(plain("w") + tensor(shape=(0, 2**60), strides=(0, 0))), "expected a shape of at most"),
        (archive(plain("w") + tensor(shape=(2**61, 2**61), strides=(2**61, 1))), "expected a shape of at most"),
        (archive(plain("w") + tensor(shape=(17,), dtype="float8_e5m2")), "within its storage of 16 values"),
        (archive(plain("w") + tensor(metadata=[])), "expected a dict, got a list"),
        (archive(plain("w") + tensor(shape=(2,), strides=(-1,), offset=1)), "expected strides"),
        (archive(plain("w") + tensor(shape=(2.0,))), "expected shape"),
        (archive(plain("w") + tensor(shape=(1,) * 99, strides=(1,) * 99)), "expected shape of at most 32"),
        (archive(plain("w") + tensor(strides=())), "as many strides as axes"),
        (archive(plain("w") + tensor(key="1")), "the archive has no data/1"),
        (archive(plain("w") + tensor(key="../data.pkl")), "the archive has no"),
        (archive(plain("w") + tensor(kind="os\nsystem")), "expected a storage of numbers, got storage os system"),
        (archive(plain("w") + tensor(mark="module")), "got module"),
        (
            archive(plain("w") + tensor() + plain("v") + tensor(kind="torch\nIntStorage")),
            "data/0: described in two ways",
        ),
        (archive(plain("w") + tensor(), compression=zipfile.ZIP_DEFLATED), "not compressed"),
        (archive(byteorder=b"middle"), "byteorder"),
        (archive(NESTED + b"K\x01"), "expected a plain key of a dict, got a tuple"),
        (archive(LAUGHS + b"K\x01"), "expected a plain key of a dict, got a tuple"),
        (archive(plain("w") + b"cnumpy\ndtype\n(" + LAUGHS + b"tR"), "expected a str, got a tuple"),
        (archive(program=b"\x80\x04" + LAUGHS + b"\x8c\x06system\x93."), "expected a str, got a tuple"),
        (archive(plain("w") + b"ccollections\nOrderedDict\n](" + NESTED + b"K\x01\x86e\x85R"), "not a readable pickle"),
        (archive(program=b"\x80\x02(ios\nsystem\n."), "opcode INST"),
        (archive(program=b"\x80\x02(cos\nsystem\nX\x02\0\0\0lso."), "opcode OBJ"),
        (archive(program=b"\x80\x02cos\nsystem\n(X\x02\0\0\0lst\x81."), r"would call 'os\.system'.*state_dict"),
        (archive(program=b"\x80\x04\x8c\x02os\x8c\x06system\x93(X\x02\0\0\0lst\x52."), r"would call 'os\.system'"),
        (archive(program=b"\x80\x02cbuiltins\neval\n(X\x01\0\0\x001tR."), r"would call 'builtins\.eval'"),
        (archive(program=b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."), "not a readable pickle"),
        (archive(program=b"\x80\x02}"), "not a readable pickle"),
        (archive(program=b"\x80\x02}.}."), "follow the end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_and_damaged_files_end_in_one_error(tmp_path, content, words):
    with pytest.raises(DataError, match=f"file.pth.*{words}"):
        read(tmp_path, content)
    with pytest.raises(ValueError, match=f"load_state: .*file.pth.*{words}"):
        load_state(published_layout(), tmp_path / "file.pth")


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("protocol", range(5))
def test_nothing_in_a_file_is_run(tmp_path, protocol):
    program = pickle.dumps({"w": Hostile(tmp_path / "mark")}, protocol)
    with pytest.raises(DataError, match=r"would call 'posix\.mkdir'"):
        read(tmp_path, archive(program=program))
    assert not (tmp_path / "mark").exists()
    pickle.loads(program)
    assert (tmp_path / "mark").exists()  # what the standard reader would have done


def test_a_program_of_torchscript_is_named(tmp_path):
    buffer = io.BytesIO(archive())
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("archive/constants.pkl", b"")
    with pytest.raises(DataError, match="TorchScript program; save its weights"):
        read(tmp_path, buffer.getvalue())


def test_a_file_that_is_cut_anywhere(tmp_path):
    whole = SMALL.read_bytes()
    for length in range(0, len(whole), 97):
        with pytest.raises(DataError):
            read(tmp_path, whole[:length])


@given(st.integers(0, SMALL.stat().st_size - 1), st.integers(1, 255))
def test_a_changed_byte_is_an_error_or_changes_nothing(tmp_path_factory, position, change):
    content = bytearray(SMALL.read_bytes())
    content[position] ^= change
    path = tmp_path_factory.getbasetemp() / "changed.pth"
    path.write_bytes(content)
    network = published_layout()
    with suppress(ValueError):
        load_state(network, path)
        assert_state(network, expected_state(network))


def test_a_pickle_whose_keys_are_nested_too_deep_for_python():
    with pytest.raises(DataError, match="plain key"):
        read_dict(b"\x80\x02}" + NESTED + b"K\x01s.", "file")


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("model", "features", "pairs"),
    [
        (
            models.preact_resnet,
            (3, 32, 32),
            """
            module.conv1.weight conv1.weight
            layer1.0.bn1.running_var layer1_0.bn1.running_var
            layer2.0.relu1.Vth layer2_0.neuron1.v_threshold
            layer2.0.conv1.bias layer2_0.residual.body.conv1.bias
            layer4.1.bn2.weight layer4_1.residual.body.bn2.weight
            layer4.1.relu2.Vth layer4_1.residual.body.neuron2.v_threshold
            layer3.0.shortcut.bias layer3_0.residual.shortcut.bias
            relu3.Vth neuron3.v_threshold
            """,
        ),
        (
            models.imagenet_resnet,
            (3, 32, 32),
            """
            module.module.layer2.0.downsample.0.weight layer2_0.residual.shortcut.conv.weight
            layer2.0.downsample.1.running_mean layer2_0.residual.shortcut.bn.running_mean
            fc.bias linear.bias
            relu4.Vth neuron4.v_threshold
            """,
        ),
        (
            models.vgg,
            (2, 32, 32),
            """
            layer1.0.weight stage1.conv1.weight
            layer3.1.running_var stage3.bn1.running_var
            layer5.2.Vth stage5.neuron1.v_threshold
            layer5.4.bias stage5.conv2.bias
            layer5.5.weight stage5.bn2.weight
            layer5.6.Vth stage5.neuron2.v_threshold
            classifier.1.bias linear.bias
            classifier.2.running_mean bn.running_mean
            classifier.3.Vth neuron.v_threshold
            """,
        ),
    ],
    ids=["preact_resnet", "imagenet_resnet", "vgg"],
)
def test_the_authors_names(model, features, pairs):
    network = dsr.Network(model(dsr.IF, features, 4, width=2), 1)
    known = [name for name, _ in network.arrays()]
    expected = dict(line.split() for line in pairs.split("\n") if line.strip())
    assert own_names(expected, known) == expected
    assert own_names(known, known) == {name: name for name in known}
    assert set(expected.values()) <= set(known)


@pytest.mark.parametrize("name", ["mini_preact_if_T5", "mini_preact_lif_T6"])
def test_a_state_dict_of_the_authors(shared, name):
    """Their names as they are, with num_batches_tracked; their outputs."""
    golden = np.load(shared / "golden" / f"{name}.npz")
    state = {f"module.{key.removeprefix('final.')}": golden[key] for key in golden.files if key.startswith("final.")}
    assert any(key.endswith("num_batches_tracked") for key in state)
    network = make_network(golden)
    load_state(network, {"epoch": 3, "net": state})
    np.testing.assert_allclose(network.forward(golden["inputs"][0]), golden["eval_output"], atol=RUN, rtol=0)


def test_vgg_folds_the_49_copies_of_a_pixel(rng):
    """Linear layer and normalisation as theirs compute them, in NumPy, on an image of one pixel enlarged to 7x7."""
    network = dsr.Network(models.vgg(dsr.IF, (2, 32, 32), 4, width=2), 1)
    channels = 16
    theirs = {
        "module.classifier.1.weight": rng.normal(size=(4, channels * 49)),
        "module.classifier.1.bias": rng.normal(size=4),
        "module.classifier.2.running_mean": rng.normal(size=4),
        "module.classifier.2.running_var": np.array([1e-5, 1e-3, 0.5, 20]),
    }
    state = {key: value for key, value in network.state().items() if key.split(".")[0] not in ("linear", "bn")}
    state |= theirs | {"classifier.2.weight": np.ones(4), "classifier.2.bias": np.zeros(4)}
    before = network.state()
    wrapped = {name.replace("module.classifier.1", "module._orig_mod.classifier.1"): a for name, a in state.items()}
    load_state(network, wrapped)
    compiled = network.state()
    network.load_state(before)
    load_state(network, state)
    assert_state(network, compiled)
    huge = np.broadcast_to(np.float64(1), (1 << 40,))
    with pytest.raises(
        ValueError, match=r"of another shape: linear\.bias \(expected \(4,\), got \(1099511627776,\)\)$"
    ):
        load_state(network, state | {"module.classifier.1.bias": huge})
    pixels = rng.random((5, channels))
    copies = np.repeat(pixels, 49, axis=1)
    current = copies @ theirs["module.classifier.1.weight"].T + theirs["module.classifier.1.bias"]
    spread = np.sqrt(theirs["module.classifier.2.running_var"] + 1e-5)
    wanted = (current - theirs["module.classifier.2.running_mean"]) / spread
    ours = {key: value.astype(np.float64) for key, value in network.state().items()}
    current = pixels @ ours["linear.weight"][:, :, 0, 0].T + ours["linear.bias"]
    got = (current - ours["bn.running_mean"]) / np.sqrt(ours["bn.running_var"] + 1e-5)
    # float32 rounds the new arrays: 2**-24 of sums of 16 products, and of eps = 1e-5 in a variance of 4e-7 and eps
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(
        ours["linear.weight"][:, :, 0, 0],
        theirs["module.classifier.1.weight"].reshape(4, channels, 49).sum(2) / 7,
        rtol=1e-6,
        atol=1e-6,
    )


def test_all_that_does_not_fit_is_listed_and_nothing_is_changed():
    network = published_layout()
    before = network.state()
    given = {f"module.{name}": array for name, array in before.items()}
    given["layer1.0.conv2.weight"] = given.pop("module.layer1_0.residual.body.conv2.weight")[:, :, :, :1]
    given["fc.weight"], given["fc.weights"] = before["linear.weight"], None
    given["linear.bias"], given["module.linear.bias"] = np.array([1, np.nan, 3]), before["linear.bias"]
    del given["module.bn1.bias"], given["module.neuron2.v_threshold"]
    with pytest.raises(ValueError, match="load_state: the mapping does not fit the network") as caught:
        load_state(network, {"state_dict": given})
    assert str(caught.value).split("; ")[1:] == [
        "missing: bn1.bias, neuron2.v_threshold",
        "unknown: fc.weights, module.linear.bias",
        "given by two names: linear.weight",
        "of another shape: layer1_0.residual.body.conv2.weight (expected (4, 4, 3, 3), got (4, 4, 3, 1))",
        "not of finite numbers: linear.bias",
    ]
    assert_state(network, before)


def test_thresholds_may_be_missing_where_that_is_asked_for():
    network = published_layout()
    state = {name: np.add(array, 1) for name, array in network.state().items() if not name.endswith("v_threshold")}
    with pytest.raises(ValueError, match=r"missing: layer1_0\.neuron1\.v_threshold"):
        load_state(network, state)
    load_state(network, state, optional_thresholds=True)
    assert_state(network, state | {k: v for k, v in published_layout().state().items() if k.endswith("v_threshold")})


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("_orig_mod.conv1.weight", "conv1.weight"),
        ("module._orig_mod.layer1.0.bn1.bias", "layer1_0.bn1.bias"),
        ("_orig_mod.module.layer1.0.relu1.Vth", "layer1_0.neuron1.v_threshold"),
        ("module.module._orig_mod.fc.bias", "linear.bias"),
        ("layer1._orig_mod.0._orig_mod.conv2.weight", "layer1_0.residual.body.conv2.weight"),
        ("_orig_mod.layer1_0._orig_mod.residual.body.conv2.weight", "layer1_0.residual.body.conv2.weight"),
        ("_fsdp_wrapped_module.layer1.0._fsdp_wrapped_module.conv2.bias", "layer1_0.residual.body.conv2.bias"),
        ("layer1.0._checkpoint_wrapped_module.conv2.bias", "layer1_0.residual.body.conv2.bias"),
        ("not_orig_mod.conv1.weight", None),
        ("_orig_mod_.conv1.weight", None),
    ],
)
def test_the_names_of_wrappers(name, own):
    """Of a whole network or of layers in it, by torch.compile, DataParallel, sharding and activation checkpoints."""
    known = [name for name, _ in published_layout().arrays()]
    assert own_names([name], known) == {name: own or name}


def test_a_state_dict_of_a_compiled_network():
    """Some names with one wrapper, some with two, as where layers are compiled in turn; and that of an average."""
    network = published_layout()
    wanted = {name: np.add(array, 1) for name, array in network.state().items()}
    prefixes = ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.", ""]
    given = {prefixes[number % 5] + name: array for number, (name, array) in enumerate(wanted.items())}
    load_state(network, {"state_dict": given | {"n_averaged": np.array(7)}})
    assert_state(network, wanted)
    both = {f"_orig_mod.{name}": array for name, array in wanted.items()} | {
        "module.linear.bias": wanted["linear.bias"]
    }
    with pytest.raises(ValueError, match=r"; given by two names: linear\.bias$"):
        load_state(network, both)


def test_names_that_would_fit_two_arrays_fit_none():
    body = dsr.Sequential(relu1=dsr.IF(1.0), neuron1=dsr.IF(2.0))
    network = dsr.Network(body, 1)
    load_state(network, {"relu1.v_threshold": np.array(3.0), "neuron1.v_threshold": np.array(4.0)})
    assert [float(array) for _, array in network.arrays()] == [3, 4]
    with pytest.raises(ValueError, match=r"unknown: relu1\.Vth"):
        load_state(network, {"relu1.Vth": np.array(3.0), "neuron1.v_threshold": np.array(4.0)})


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_other_files_by_the_authors_names(tmp_path, ending):
    network, path = published_layout(), tmp_path / f"weights.{ending}"
    wanted = {name: np.add(array, 1, out=array) for name, array in network.state().items()}
    theirs = {name.replace("layer1_0", "layer1.0").replace("residual.body.", ""): a for name, a in wanted.items()}
    assert wanted.keys() != theirs.keys()
    np.savez(path, **theirs) if ending == "npz" else save_file(theirs, path)
    load_state(network, path)
    assert_state(network, wanted)


def test_a_run_folder(tmp_path):
    from dsr.files import checkpoint

    network = published_layout()
    wanted = {name: np.add(array, 1, out=array) for name, array in network.state().items()}
    checkpoint.save(tmp_path / "best.safetensors", {f"network.{name}": a for name, a in wanted.items()}, {})
    load_state(network, tmp_path)
    assert_state(network, wanted)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 1, "weights": {"a": 1}}, "the mapping: expected arrays by their names, got others: weights"),
        ({"state_dict": {1: np.zeros(2)}}, "got others: 1"),
        ({}, "missing: bn1.bias, bn1.running_mean"),
    ],
)
def test_mappings_without_a_state_dict(content, words):
    with pytest.raises(ValueError, match=words):
        load_state(published_layout(), content)


def test_files_without_a_state_dict(tmp_path):
    for program, words in (
        (b"\x80\x02K\x01.", "expected a dict of arrays, got a int"),
        (b"\x80\x02}q\0X\3\0\0\0neth\0s.", "net"),
    ):
        (tmp_path / "w.pth").write_bytes(archive(program=program))
        with pytest.raises(ValueError, match=words):
            load_state(published_layout(), tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError):
        load_state(published_layout(), tmp_path / "nowhere.pth")


# -------------------------------------------------------------------------------------------------- arrays of others


class OnlyDLPack:
    """An array of a library that NumPy does not know, as far as DLPack."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        if self.device != (1, 0):
            raise BufferError("not on the CPU")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


def test_arrays_come_in_by_dlpack(rng):
    current = rng.normal(size=(5, 3, 4)).astype(np.float32)
    before = current.copy()
    np.testing.assert_array_equal(
        functional.if_forward(OnlyDLPack(current), v_threshold=1.0), functional.if_forward(current, v_threshold=1.0)
    )
    network = dsr.Network(dsr.Sequential(dsr.Linear(4, 3), dsr.IF()), 5)
    np.testing.assert_array_equal(network.forward(OnlyDLPack(current)), network.forward(current))
    np.testing.assert_array_equal(network.predict(OnlyDLPack(current)), network.predict(current))
    load_state(network, {name: OnlyDLPack(np.add(array, 1, out=array)) for name, array in network.state().items()})
    np.testing.assert_array_equal(current, before)


def test_arrays_on_other_devices_are_refused():
    with pytest.raises(TypeError, match="if_forward: argument 'current': expected an array of real numbers, got OnlyD"):
        functional.if_forward(OnlyDLPack(np.zeros(3, np.float32), device=(2, 0)), v_threshold=1.0)


class OnlyInterface:
    """An array of a library, as far as NumPy's array interface."""

    def __init__(self, array):
        self.array, self.__array_interface__ = array, array.__array_interface__


def test_arrays_go_out_and_in_without_a_copy():
    current = np.full((4, 2), 0.5, np.float32)
    spikes = functional.if_forward(OnlyInterface(current), v_threshold=1.0)
    assert spikes.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    rates = dsr.Network(dsr.Sequential(dsr.Linear(2, 3), dsr.IF()), 4).forward(current)
    for array in (spikes, rates):
        assert np.shares_memory(np.from_dlpack(array), array)


@pytest.mark.parametrize(
    "fields",
    [
        [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)],  # tonic.io
        [("x", np.int16), ("y", np.int16), ("p", bool), ("t", np.int64)],  # its DVSGesture
        [("x", int), ("y", int), ("t", int), ("p", int)],  # its NMNIST
        [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("p", bool)],  # its CIFAR10DVS
    ],
)
def test_arrays_of_tonic(fields):
    """As its data sets give them; the first without a copy."""
    values = {"x": [1, 0, 2], "y": [0, 1, 1], "t": [10, 20, 30], "p": [1, 0, 1]}
    array = np.empty(3, np.dtype(fields))
    for name, column in values.items():
        array[name] = column
    found = as_events(array, sensor_size=(3, 2, 2))
    assert found.events.dtype == EVENT
    assert {name: found.events[name].tolist() for name in values} == values
    assert np.shares_memory(found.events, array) == (array.dtype == EVENT)
    frames = to_frames(array, 3, sensor_size=(3, 2, 2))
    assert frames.sum() == 3
