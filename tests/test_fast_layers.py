"""The pooled convolution is the two layers it stands for; the whitening whitens."""

from __future__ import annotations

import numpy as np
import pytest

import dsr
from dsr.currents import Gradient
from dsr.fast_layers import PooledConv2d, Whitening


def dyadic(rng, shape, most=64):
    return (rng.integers(-most, most, size=shape) / 64).astype(np.float32)


@pytest.mark.parametrize("size", [4, 7, 8, 31])
@pytest.mark.parametrize("spiking", [True, False])
def test_pooled_convolution(size, spiking):
    """Outputs and all gradients, with array_equal: weights, spikes and gradients are small dyadic fractions."""
    rng = np.random.default_rng(0)
    dense = (rng.random((3, 4, 5, size, size)) < 0.4).astype(np.float32)
    signal = dsr.SpikeTrain.from_dense(dense) if spiking else dsr.layer.Current.from_dense(dense)
    one, conv, pool = PooledConv2d(5, 6, 3, 1), dsr.Conv2d(5, 6, 3, padding=1), dsr.AvgPool2d(2)
    one.weight.value[...] = conv.weight.value[...] = dyadic(rng, (6, 5, 3, 3))
    one.bias.value[...] = conv.bias.value[...] = dyadic(rng, 6)
    run = dsr.Run(training=True)
    out, expected = one.forward(signal, run), pool.forward(conv.forward(signal, run), run)
    np.testing.assert_array_equal(out.final_values(), expected.final_values())
    assert out.features == expected.features == (6, size // 2, size // 2)
    grad = dyadic(rng, out.store.shape)
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


def test_whitened_patches_are_uncorrelated():
    rng = np.random.default_rng(1)
    mixed = np.einsum("dc,nchw->ndhw", rng.normal(size=(3, 3)), rng.normal(size=(200, 3, 9, 9))).astype(np.float32)
    mixed[:, :, 1:] += mixed[:, :, :-1]  # neighbours are correlated too
    layer = Whitening(3, 2, eps=1e-9)
    layer.calibrate(mixed)
    out = layer.forward(dsr.layer.Current.from_static(mixed, 4), dsr.Run()).values.reshape(24, -1).astype(np.float64)
    np.testing.assert_array_equal(out[12:], -out[:12])
    second = out[:12] @ out[:12].T / out.shape[1]
    assert np.abs(second - np.eye(12)).max() < 1e-4
    assert layer.parameters() == {}


def test_the_weight_of_a_whitening_is_kept_in_checkpoints():
    body = dsr.Sequential(whiten=Whitening(1), bn=dsr.BatchNorm(8), neuron=dsr.IF(1.0))
    network = dsr.Network(body, timesteps=2)
    assert "whiten.weight" in network.state()
    assert "whiten.weight" not in dict(network.parameters())


def test_the_way_back_ends_above_a_whitening():
    conv, whiten = dsr.Conv2d(8, 3, 3, bias=False), Whitening(1)
    network = dsr.Network(dsr.Sequential(whiten=whiten, conv=conv, neuron=dsr.IF(1.0), flatten=dsr.Flatten()), 2)
    rates = network.forward(np.random.default_rng(1).normal(size=(4, 1, 4, 4)).astype(np.float32), training=True)
    network.backward(np.ones_like(rates))
    assert conv.weight.grad is not None and conv.weight.grad.any()
    assert whiten.weight.grad is None


def test_dirac_starts_as_a_copy():
    conv = dsr.Conv2d(3, 5, 3, padding=1, bias=False, dirac=True)
    conv.initialise(np.random.default_rng(0))
    images = np.random.default_rng(1).normal(size=(2, 3, 6, 6)).astype(np.float32)
    out = conv.forward(dsr.layer.Current.from_static(images, 1), dsr.Run()).rate()
    np.testing.assert_array_equal(out[:, :3], images)
    assert np.abs(out[:, 3:]).min() > 0


def test_normalisation_without_gain():
    norm = dsr.BatchNorm(4, gain=False)
    assert list(norm.parameters()) == ["bias"]
