"""Rounded weights: how they are chosen, training with them, and ``dsr quantize``."""

from __future__ import annotations

import numpy as np
import program_interpreter
import pytest
from test_commands import error_of, run  # noqa: F401 - a fixture

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.data.preprocessing import Preprocessing
from dsr.deploy.lowering import lower
from dsr.nn.fast_layers import PooledConv2d
from dsr.nn.rounding import integers_of, rounded, shifts_sum, summand, weight_scales
from dsr.train import run_folder


def test_scales_of_the_least_squared_error():
    """By hand: of 2 bits, -1, 0 and 1; one large weight is not worth the loss of the others."""
    weight = np.array([[1.0, 0.5, -1.0, 0.1], [0, 0, 0, 0], [1.0, 0.31, -0.31, 0.31], [3.0, 1.0, 1.0, 1.0]])
    scales = weight_scales(weight, 2)
    assert scales[1] == 0 and scales[0] == pytest.approx(0.85)
    for row, scale in zip(weight, scales, strict=True):
        errors = [
            ((np.clip(np.rint(row / s), -1, 1) * s - row) ** 2).sum()
            for s in row.max() * np.linspace(0.3, 1, 15) + 1e-9
        ]
        found = ((np.clip(np.rint(row / (scale or 1)), -1, 1) * scale - row) ** 2).sum()
        assert found <= min(errors) + 1e-6


def test_rounded_weights_are_few_and_near():
    weight = np.random.default_rng(0).normal(size=(5, 40, 3, 3)).astype(np.float32)
    for bits in (2, 4, 8):
        near = rounded(weight, bits)
        for channel in near:
            assert len(np.unique(channel)) <= 2**bits - 1
        assert np.abs(near - weight).max() <= 0.71 * np.abs(weight).max()
    np.testing.assert_allclose(rounded(weight, 8), weight, atol=0.51 * np.abs(weight).max() / 127)


def test_kernels_that_pool_are_sums_of_rounded_ones():
    """Of so many bits, which are what files store; their sums have 8. The scale is that of the least squared error."""
    rng = np.random.default_rng(0)
    layer = PooledConv2d(5, 6, 3)
    layer.weight.value[:] = rng.normal(size=(6, 5, 3, 3)) * rng.uniform(0.1, 10, (6, 1, 1, 1))
    kernel = layer.kernel()
    np.testing.assert_allclose(summand(4 * kernel), layer.weight.value, atol=1e-5)
    assert summand(rng.normal(size=(6, 5, 4, 4))) is None and summand(layer.weight.value) is None
    for bits in (2, 4, 8):
        scale, near = weight_scales(kernel, bits), rounded(kernel, bits)
        integers = integers_of(kernel, scale, bits)
        part = summand(integers)
        np.testing.assert_array_equal(part, np.rint(part))
        np.testing.assert_array_equal(shifts_sum(part), integers)
        assert np.abs(part).max() <= 2 ** (bits - 1) - 1 and np.abs(integers).max() <= 127
        np.testing.assert_allclose(near, integers * scale.reshape(-1, 1, 1, 1), rtol=1e-6)
        np.testing.assert_array_equal(
            integers_of(near, weight_scales(near, bits), bits), integers, "it is rounded once"
        )
    np.testing.assert_allclose(near, kernel, atol=0.04 * np.abs(kernel).max())
    few = np.abs(rounded(kernel, 4) - kernel).mean()
    plain = kernel / (np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 7)
    assert few < np.abs((np.rint(plain) - plain) * kernel / plain).mean(), "better than sums of so many bits"


def small(weight_bits):
    body = dsr.Sequential(
        dsr.Conv2d(1, 4, 3),
        dsr.BatchNorm(4),
        dsr.IF(1.0),
        dsr.AvgPool2d(2),
        dsr.Flatten(),
        dsr.Linear(36, 3),
        dsr.IF(1.0),
    )
    return dsr.Network(body, 4, seed=1, weight_bits=weight_bits)


def test_a_pass_with_rounded_weights_is_one_of_a_network_that_has_them():
    """Forward and gradients, to the bit; the data are read with 8 bits."""
    net, twin = small(3), small(0)
    images = np.random.default_rng(0).normal(size=(6, 1, 8, 8))
    twin.body.layers["0"].weight.value[...] = rounded(net.body.layers["0"].weight.value, 8)
    linear = rounded(net.body.layers["5"].weight.value, 3)
    assert len(np.unique(linear[0])) == 7
    twin.body.layers["5"].weight.value[...] = linear
    for training in (False, True):
        np.testing.assert_array_equal(net.forward(images, training=training), twin.forward(images, training=training))
    net.backward(np.ones((6, 3)))
    twin.backward(np.ones((6, 3)))
    for (name, a), (_, b) in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad, err_msg=name)
    assert any(np.abs(a.grad).max() > 0 for _, a in net.parameters())


def test_the_integer_network_rounds_as_the_pass_does():
    net = small(4)
    images = np.random.default_rng(0).normal(size=(200, 1, 8, 8)).astype(np.float32)
    net.forward(images, training=True)
    model = dsr.quantize(net, images)
    assert model.bits == 4
    error = np.abs(model.run(images) - net.forward(images))
    assert error.mean() < 0.03 * net.forward(images).std()  # against 0.1 of a network whose weights are not rounded
    net.weight_bits = 0
    assert np.abs(model.run(images) - net.forward(images)).mean() > 2 * error.mean()


def test_programs_have_the_rounded_weights():
    """So that what is compiled, exported as C or quantised is the network that was trained and measured."""
    net = small(3)
    images = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    net.forward(images, training=True)
    found = program_interpreter.run(lower(net, (1, 8, 8)), images).rates
    assert np.abs(found - net.forward(images)).mean() < 1e-3
    net.weight_bits = 0
    assert np.abs(found - net.forward(images)).mean() > 1e-2


@pytest.mark.parametrize("wrong", [1, 9, -1, 2.5, "4"])
def test_bits_that_there_are_not(wrong):
    with pytest.raises((TypeError, ValueError), match="Network: argument 'weight_bits': expected"):
        small(wrong)


def test_models_keep_the_bits(tmp_path):
    dsr.save(small(5), tmp_path / "a.safetensors")
    assert dsr.load(tmp_path / "a.safetensors").network.weight_bits == 5


def test_command(run, capsys, tmp_path):  # noqa: F811
    """The file next to the run, its accuracy as printed; further training changes the weights."""
    before = (run / run_folder.CHECKPOINT).read_bytes()
    assert main(["quantize", str(run)]) == 0
    printed = capsys.readouterr().out
    model = dsr.IntegerModel.load(run / "integer-8.safetensors")
    digits = data.load("digits")
    found = np.array(model.classes)[model.run(digits.test.batch(np.arange(360))).argmax(axis=1)]
    reached = (found == np.array(model.classes)[digits.test.labels]).mean()
    assert f"test accuracy {100 * reached:.2f} % with weights of 8 bits" in printed
    out = tmp_path / "three.safetensors"
    assert main(["quantize", str(run), "--bits", "3", "--epochs", "1", "--out", str(out)]) == 0
    assert "epoch 1/1" in capsys.readouterr().out
    few = dsr.IntegerModel.load(out)
    weights = [t.weight for s in few.steps if hasattr(s, "terms") for t in s.terms]
    assert few.bits == 3 and np.abs(weights[1]).max() == 3 and np.abs(weights[0]).max() > 50
    assert (run / run_folder.CHECKPOINT).read_bytes() == before


def test_a_run_with_rounded_weights(tmp_path):
    """The key of a recipe; what is loaded rounds too."""
    chosen = train.recipe.load("digits", ["epochs=1", "width=4", "weight_bits=3"])
    train.Trainer(chosen, data.load("digits"), tmp_path, str).fit()
    model = dsr.load(tmp_path)
    assert model.network.weight_bits == 3
    assert dsr.quantize(model, data.load("digits").test.batch(np.arange(50))).bits == 3


def test_images_of_bytes_are_not_cut_off():
    """Calibrated by grey ones: black and white are known all the same."""
    net = small(0)
    about = Preprocessing("images", (1, 8, 8), mean=(0.3,), deviation=(0.01,))
    grey = np.full((4, 1, 8, 8), 90, np.uint8)
    model = dsr.quantize(dsr.Model(net, preprocessing=about), grey)
    source = model.steps[0]
    assert 35 < 70 * 2.0**source.shift * 1.0001 <= source.most
    assert dsr.quantize(net, about.batch(grey)).steps[0].shift > source.shift


def test_what_the_command_refuses(run, capsys):  # noqa: F811
    assert "--bits: expected an integer from 2 to 8, got '9'" in error_of(capsys, "quantize", run, "--bits", "9")
    words = error_of(capsys, "quantize", run, "--learning-rate", "0.1")
    assert "--learning-rate: expected --epochs with it, got none" in words
    for out in (run, run / "nowhere" / "a.safetensors"):  # told before anything is trained
        words = error_of(capsys, "quantize", run, "--epochs", "1000", "--out", out)
        assert f"--out: expected a file in a folder that exists, got '{out}'" in words


def by_channel(weight_bits):
    """Thresholds of each channel, which go into the weights above: of spikes, groups of them, sums, pooled and flat."""
    rng = np.random.default_rng(3)

    def fire(channels):
        return dsr.IF(rng.uniform(0.05, 0.4, channels).astype(np.float32))

    body = dsr.Sequential(
        dsr.Conv2d(1, 6, 3),
        fire(6),
        dsr.Conv2d(6, 6, 3, padding=1, groups=3, bias=False),
        dsr.BatchNorm(6),
        fire(6),
        dsr.Concat(dsr.Identity(), dsr.Sequential(dsr.Conv2d(6, 2, 1), fire(2))),
        dsr.Conv2d(8, 5, 1),
        fire(5),
        dsr.AvgPool2d(3),
        dsr.Flatten(),
        dsr.Linear(20, 7),
        fire(7),
        dsr.Residual(dsr.Identity(), dsr.Identity()),
        dsr.Linear(7, 3),
    )
    return dsr.Network(body, 4, seed=1, weight_bits=weight_bits)


def test_thresholds_of_channels_are_rounded_once():
    """The integers of training are those of the integer network, whose spikes are those of the network's passes."""
    net = by_channel(3)
    for path, parameter in net.parameters():
        parameter.value[...] *= 5 if path.endswith("weight") else 1  # so that neurons fire
    images = np.random.default_rng(0).normal(size=(300, 1, 8, 8)).astype(np.float32)
    for _ in range(20):
        net.forward(images, training=True)
    model = dsr.quantize(net, images)
    taps = [t.weight for s in model.steps for t in getattr(s, "terms", ())]
    layers = dict(net.body.walk())
    worth = {path: layer.v_threshold.value for path, layer in layers.items() if isinstance(layer, dsr.IF)}
    units = {
        "2": worth["1"].reshape(3, 1, 2).repeat(2, axis=1).reshape(6, 2),
        "5.1.0": worth["4"],
        "6": np.concatenate([worth["4"], worth["5.1.1"]]),
        "10": worth["7"].repeat(4),
        "13": worth["11"],
    }
    for found, (path, unit) in zip(taps[1:], [*units.items(), ("13", worth["11"])], strict=True):
        weight = layers[path].weight.value
        product = weight.reshape(*found.shape) * unit.reshape(-1, found.shape[1], 1, 1).astype(np.float64)
        scale = weight_scales(product, 3).reshape(-1, 1, 1, 1)
        np.testing.assert_array_equal(found, np.clip(np.rint(product / scale), -3, 3), err_msg=path)
        np.testing.assert_array_equal(np.abs(found).max(axis=(1, 2, 3)), 3, err_msg=path)
    rates, expected = model.run(images), net.forward(images)
    assert expected.std() > 0.1
    assert (np.abs(rates - expected) > 1e-3).mean() < 0.05 and np.abs(rates - expected).mean() < 0.02 * expected.std()
