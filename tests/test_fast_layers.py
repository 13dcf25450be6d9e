"""The pooled and the whitened convolution are the two layers they stand for; the whitening whitens."""

from __future__ import annotations

import numpy as np
import pytest
from checks import dyadic

import dsr
from dsr.nn.currents import Current
from dsr.nn.fast_layers import PooledConv2d, WhitenedConv2d
from dsr.nn.gradients import Gradient


@pytest.mark.parametrize("size", [4, 7, 8, 31])
@pytest.mark.parametrize("spiking", [True, False])
def test_pooled_convolution(size, spiking):
    """Outputs and all gradients, with array_equal: weights, spikes and gradients are small dyadic fractions."""
    rng = np.random.default_rng(0)
    dense = (rng.random((3, 4, 5, size, size)) < 0.4).astype(np.float32)
    signal = dsr.SpikeTrain.from_dense(dense) if spiking else Current.from_dense(dense)
    one, conv, pool = PooledConv2d(5, 6, 3, 1), dsr.Conv2d(5, 6, 3, padding=1), dsr.AvgPool2d(2)
    one.weight.value[...] = conv.weight.value[...] = dyadic(rng, (6, 5, 3, 3))
    one.bias.value[...] = conv.bias.value[...] = dyadic(rng, 6)
    run = dsr.Run(training=True)
    out, expected = one.forward(signal, run), pool.forward(conv.forward(signal, run), run)
    np.testing.assert_array_equal(out.final_values(), expected.final_values())
    assert out.features == expected.features == (6, size // 2, size // 2)
    grad = dyadic(rng, out.shape)
    below, wanted = one.backward(Gradient.from_dense(grad)), pool.backward(Gradient.from_dense(grad))
    wanted = conv.backward(wanted)
    np.testing.assert_array_equal(one.weight.grad, conv.weight.grad)
    np.testing.assert_array_equal(one.bias.grad, conv.bias.grad)
    if spiking:
        np.testing.assert_array_equal(below, wanted)
    else:
        assert below is None  # data
    evaluated = one.forward(signal, dsr.Run())
    np.testing.assert_array_equal(evaluated.final_values(), out.final_values())


@pytest.fixture
def whitened(rng):
    """A calibrated layer, and correlated images."""
    images = np.einsum("dc,nchw->ndhw", rng.normal(size=(3, 3)), rng.normal(size=(200, 3, 9, 9))).astype(np.float32)
    images[:, :, 1:] += images[:, :, :-1]  # neighbours are correlated too
    layer = WhitenedConv2d(3, 40, 3, 1, eps=1e-9)
    layer.initialise(rng)
    layer.calibrate(np.array_split(images, 3))
    return layer, images


def test_whitened_patches_are_uncorrelated(whitened):
    layer, images = whitened
    whiten = dsr.Conv2d(3, 12, 2, bias=False)
    whiten.weight.value = layer.filters
    out = whiten.forward(Current.from_static(images, 4), dsr.Run()).values().reshape(12, -1).astype(np.float64)
    assert np.abs(out @ out.T / out.shape[1] - np.eye(12)).max() < 1e-4


def test_a_whitened_convolution_is_one_after_a_whitening(whitened, rng):
    layer, images = whitened
    layer.filters[...] = dyadic(rng, layer.filters.shape, 8)
    layer.weight.value[...] = dyadic(rng, layer.weight.value.shape, 8)
    signal = Current.from_static(dyadic(rng, images.shape, 8), 4)
    whiten, conv = dsr.Conv2d(3, 12, 2, padding=1, bias=False), dsr.Conv2d(12, 40, 3, bias=False)
    whiten.weight.value, conv.weight.value = layer.filters, layer.weight.value
    run = dsr.Run(training=True)
    out, expected = layer.forward(signal, run), conv.forward(whiten.forward(signal, run), run)
    assert out.is_static
    np.testing.assert_array_equal(out.values(), expected.values())
    grad = dyadic(rng, (*out.shape[:3], 4, 200), 8)
    assert layer.backward(Gradient.from_dense(grad)) is None
    conv.backward(Gradient.from_dense(grad))
    np.testing.assert_array_equal(layer.weight.grad, conv.weight.grad)


def test_a_whitened_convolution_of_stride_2_is_every_other_output(whitened, rng):
    one, images = whitened
    two = WhitenedConv2d(3, 40, 3, 1, stride=2)
    for layer in (one, two):
        layer.filters[...] = dyadic(np.random.default_rng(1), layer.filters.shape, 8)
        layer.weight.value[...] = dyadic(np.random.default_rng(2), layer.weight.value.shape, 8)
    signal, run = Current.from_static(dyadic(rng, images.shape, 8), 4), dsr.Run(training=True)
    out = two.forward(signal, run)
    assert out.features == two.output_features((3, 9, 9)) == (40, 4, 4)
    np.testing.assert_array_equal(out.values(), one.forward(signal, run).values()[:, ::2, ::2])
    grad = dyadic(rng, (40, 4, 4, 4, 200), 8)
    sparse = np.zeros((40, 8, 8, 4, 200), np.float32)
    sparse[:, ::2, ::2] = grad
    one.backward(Gradient.from_dense(sparse))
    two.backward(Gradient.from_dense(grad))
    np.testing.assert_array_equal(two.weight.grad, one.weight.grad)


def test_a_whitened_convolution_starts_as_the_whitened_image_and_its_negative(whitened):
    layer, images = whitened
    out = layer.forward(Current.from_static(images, 1), dsr.Run()).values()
    patches = np.lib.stride_tricks.sliding_window_view(images[:, :, 3:5, 5:7], (2, 2), axis=(2, 3))[:, :, 0, 0]
    np.testing.assert_allclose(out[:12, 3, 5, 0].T, np.einsum("ncuv,mcuv->nm", patches, layer.filters), atol=1e-4)
    np.testing.assert_array_equal(out[12:24], -out[:12])
    narrow = WhitenedConv2d(3, 8, 3)
    narrow.initialise(np.random.default_rng(0))
    np.testing.assert_array_equal(narrow.weight.value[:, :8, 1, 1], np.eye(8))


def test_the_filters_of_a_whitening_are_kept_in_checkpoints():
    network = dsr.Network(dsr.Sequential(conv=WhitenedConv2d(1, 8, 3), neuron=dsr.IF(1.0)), timesteps=2)
    assert {"conv.filters", "conv.weight"} <= set(network.state())
    assert "conv.filters" not in dict(network.parameters())


def test_dirac_starts_as_a_copy():
    conv = dsr.Conv2d(3, 5, 3, padding=1, bias=False, dirac=True)
    conv.initialise(np.random.default_rng(0))
    images = np.random.default_rng(1).normal(size=(2, 3, 6, 6)).astype(np.float32)
    out = conv.forward(Current.from_static(images, 1), dsr.Run()).rate()
    np.testing.assert_array_equal(out[:, :3], images)
    assert np.abs(out[:, 3:]).min() > 0


def test_normalisation_without_gain():
    norm = dsr.BatchNorm(4, gain=False)
    assert list(norm.parameters()) == ["bias"]


@pytest.mark.parametrize("make", [lambda: PooledConv2d(5, 4, 3), lambda: WhitenedConv2d(2, 8, 3)])
def test_kernels_are_made_once_in_evaluation(make, monkeypatch):
    layer = make()
    layer.initialise(np.random.default_rng(0))
    kept = layer.evaluation_kernel()
    np.testing.assert_array_equal(kept, layer.kernel())
    assert layer.evaluation_kernel() is kept
    for source in layer.sources():
        source[0, 0, 0, 0] += 1
        changed = layer.evaluation_kernel()
        assert (changed != kept).any()
        np.testing.assert_array_equal(changed, layer.kernel())
        assert layer.evaluation_kernel() is changed
        kept = changed


def test_the_pooled_kernel_is_the_mean_of_four_shifts():
    layer = PooledConv2d(5, 4, 3)
    layer.initialise(np.random.default_rng(0))
    padded = np.pad(layer.weight.value, ((0, 0), (0, 0), (1, 1), (1, 1)))
    first, *others = (padded[:, :, 1 - y : 5 - y, 1 - x : 5 - x] for y in range(2) for x in range(2))
    for other in others:
        first = first + other
    np.testing.assert_array_equal(layer.kernel(), first * np.float32(0.25))
