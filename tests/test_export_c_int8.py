"""Integer networks as plain C: bit for bit what the integer model computes."""

from __future__ import annotations

import numpy as np
import pytest
import test_export_c
import test_integer_model
from test_export_c import BUILDS, build_and_run, shaken

import dsr
from dsr import ops
from dsr.__main__ import main
from dsr.deploy import integer_steps as i
from dsr.deploy.c import export_c
from dsr.deploy.c.int8_twin import Int8Twin
from dsr.deploy.integer_binder import signal_of
from dsr.deploy.integer_model import IntegerModel, quantize
from dsr.deploy.integer_signals import as_data
from dsr.deploy.model_file import packed

OF_PAPERS = ("digits", "cifar_fast", "unet", "spiking_readout")
OWN = tuple(test_integer_model.NETWORKS)


def quantised(name):
    """A small integer network, and samples of it."""
    rng = np.random.default_rng(2)
    if name in OWN:
        network, features = test_integer_model.network(name, "lif" if name == "signals" else "if")
    else:
        make, features = test_export_c.NETWORKS[name]
        network = shaken(make())
    data = rng.normal(0.3, 1.5, (8, *features)).astype(np.float32)
    return quantize(network, data, 4 if name == "unet" else 8), data


@pytest.mark.parametrize("name", [*OF_PAPERS, *OWN])
def test_networks(name, tmp_path):
    """Compiled code has the spikes of the twin at each step, which has those of the model, and its rates."""
    model, data = quantised(name)
    frames = name in ("digits", "shortcuts")
    sample = data[: model.timesteps] if frames else data[0]
    exported = export_c(model, tmp_path, name="net", frames=frames, sample=sample)
    assert build_and_run(exported, "gcc", ["-O0"]) == (0, "net: spikes and rates of 4 steps are those of dsr\n")
    batch = sample[:, np.newaxis] if frames else sample[np.newaxis]
    np.testing.assert_array_equal(exported.rates[-1], model.run(batch).ravel())
    stream = model.start()
    for t, rates in enumerate(exported.rates):
        np.testing.assert_array_equal(stream.step(batch[t] if frames else batch).ravel(), rates)
    spikes, twin = spikes_of(model, batch), Int8Twin(model.steps)
    for t in range(model.timesteps):
        twin.step(sample[t] if frames else sample)
        assert twin.fired.keys() == spikes.keys()
        for number, fired in twin.fired.items():
            np.testing.assert_array_equal(fired, spikes[number][..., t])
    assert 0 < np.mean([each.mean() for each in spikes.values()]) < 1


def spikes_of(model, batch):
    """What the model's engine computes of one sample: spikes (C, H, W, T) of each layer of neurons."""
    engine, potentials = model._engine, {}
    signals = [as_data(batch, model.steps[0], batch.ndim == len(model.features) + 2)]
    for number in range(1, len(model.steps) - 1):
        signals.append(signal_of(engine, number, signals, model.timesteps, potentials))
    layers = [number for number, step in enumerate(model.steps) if isinstance(step, i.Neurons)]
    return {n: ops.unpack_words(*signals[n].planes, signals[n].channels)[..., 0] != 0 for n in layers}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model, _ = quantised("trains side by side, gates, maxima")
    return export_c(model, tmp_path_factory.mktemp("int8"), name="gates")


@pytest.mark.parametrize(("compiler", "flags"), BUILDS, ids=[f"{c} {' '.join(f)}" for c, f in BUILDS])
def test_every_compiler_gives_the_same_bits(exported, compiler, flags):
    assert build_and_run(exported, compiler, flags)[0] == 0


def test_digits_fits_a_small_processor(tmp_path):
    model, _ = quantised("digits")
    fast, small = export_c(model, tmp_path), export_c(model, tmp_path, frames=True)
    assert fast.flash < 64 << 10 and fast.ram < 16 << 10
    assert fast.ram - small.ram == 4 * 32 * 8 * 8 + 2 * 8 * 8  # the current of the first neurons and the frame are kept
    assert fast.flash == small.flash < 1.1 * sum(t.weight.size for s in model.steps for t in getattr(s, "terms", ()))


@pytest.mark.parametrize("most", [32767, 100])
def test_the_frame_is_rounded_as_dsr_rounds_it(most, tmp_path):
    """To the nearest, halves to even, and cut off: each value goes to neurons of its own."""
    values = [0.25, 0.75, 1.25, -0.25, -0.75, 1e-30, -1e-30, 2.0**-126, 50.2, 50.25, 1e9, -1e9, 3e38, -3e38, 16383.75]
    count = len(values)
    weight = np.eye(count, dtype=np.int8).reshape(count, count, 1, 1)
    taps = i.Taps(0, weight, dsr.ops.geometry.POINTWISE, 0)
    numbers = np.arange(1, count + 1, dtype=np.int32) * 7
    shape, zeros = (count, 1, 1), np.zeros(count, np.int32)
    steps = (
        i.Input(path="", features=shape, shift=1, most=most),
        i.Neurons(path="n", features=shape, terms=(taps,), bias=zeros, reset=numbers, fire=numbers, decay=30000),
        i.ReadCurrent(path="r", features=shape, terms=(taps,), bias=zeros, unit=np.ones(count, np.float32)),
    )
    model = IntegerModel(steps, 3, 8, (count,), (count,))
    exported = export_c(model, tmp_path, sample=values)
    assert build_and_run(exported, "gcc", ["-O0"])[0] == 0
    expected = np.clip(np.rint(2 * np.float32(values).astype(float)), -most, most)
    np.testing.assert_array_equal(exported.rates[-1], expected.astype(np.float32))


def test_a_file_of_quantize_is_exported(capsys, tmp_path):
    model, _ = quantised("vectors")
    model.save(tmp_path / "small.safetensors")
    words = ["export", tmp_path / "small.safetensors", "--format", "c", "--out", tmp_path / "c", "--name", "small"]
    assert main(list(map(str, words))) == 0
    assert "c: libsmall, " in capsys.readouterr().out
    assert (tmp_path / "c" / "small_int8.c").exists()
    words = [*words[:2], "--format", "libdsr", "--out", tmp_path / "small.dsrmodel"]
    assert main(list(map(str, words))) == 0
    content = packed(model)
    assert capsys.readouterr().out == f"{words[-1]}: weights of 8 bits, T = 4, {len(content):,} bytes\n"
    assert words[-1].read_bytes() == content
    assert main(list(map(str, [*words[:2], "--out", tmp_path / "x.nir"]))) == 1
    assert "export: expected a run folder with --format nir, got the file" in capsys.readouterr().err
