"""SpikeTrain: bits in, the same train out."""

import numpy as np
import pytest

import dsr
from dsr.nn.spikes import decaying_weights


def random_train(shape, density=0.3, seed=0):
    return (np.random.default_rng(seed).random(shape) < density).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 33), (4, 2, 64), (2, 3, 5, 4, 3), (3, 1, 40, 1, 1), (2, 0, 3)])
def test_pack_then_unpack_is_the_identity(shape):
    dense = random_train(shape)
    train = dsr.SpikeTrain.from_dense(dense, amplitude=0.75)
    assert train.shape == shape
    np.testing.assert_array_equal(train.dense(), 0.75 * dense)


def test_bits_beyond_the_channels_are_zero():
    train = dsr.SpikeTrain.from_dense(np.ones((2, 3, 33)))
    assert train.words.shape == (2, 1, 1, 2, 3)
    assert (train.words[1] == 1).all()


def test_counts_and_firing_rate_are_those_of_the_dense_train():
    dense = random_train((6, 4, 35, 3, 2))
    train = dsr.SpikeTrain.from_dense(dense)
    np.testing.assert_array_equal(train.counts(), dense.sum(axis=(0, 1, 3, 4)))
    assert train.firing_rate() == dense.mean(dtype=np.float64)


def test_slices_along_time():
    dense = random_train((6, 2, 34))
    train = dsr.SpikeTrain.from_dense(dense)
    np.testing.assert_array_equal(train[1:4].dense(), dense[1:4])
    np.testing.assert_array_equal(train[::2].dense(), dense[::2])
    with pytest.raises(ValueError, match="at least one time step"):
        train[6:]
    with pytest.raises(TypeError, match="slice"):
        train[0]


def test_rate_is_the_weighted_mean():
    dense = random_train((20, 3, 7))
    weights = decaying_weights(20, tau=1.0, delta_t=0.05)
    train = dsr.SpikeTrain.from_dense(dense, amplitude=2.0, time_weights=weights)
    expected = dsr.functional.weighted_firing_rate(2.0 * dense.astype(np.float64), 1.0, 0.05)
    # 20 products and sums of values up to 2 with weights that sum to one: (20 + 3) eps
    np.testing.assert_allclose(train.rate(), expected, atol=2 * 23 * 2.0**-24, rtol=0)


def test_repr_tells_shape_rate_and_bytes():
    text = repr(dsr.SpikeTrain.from_dense(np.ones((5, 2, 32))))
    assert "(5, 2, 32)" in text
    assert "firing_rate=1.0000" in text
    assert "40 bytes" in text


@pytest.mark.parametrize("bad", [np.ones((2, 3)), np.ones((0, 2, 3)), np.ones((1, 2, 3, 4, 5, 6))])
def test_wrong_shapes_are_named(bad):
    with pytest.raises(ValueError, match=r"SpikeTrain.from_dense: argument 'train'"):
        dsr.SpikeTrain.from_dense(bad)
