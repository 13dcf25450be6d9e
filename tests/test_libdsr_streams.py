"""libdsr, integers and streams: the bits of the integer model, however time is cut, on every level and thread."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import libdsr
import numpy as np
import pytest
from libdsr import BUILT, Exit, Library
from test_export_c import NETWORKS, shaken
from test_export_c_int8 import OF_PAPERS, OWN, quantised

import dsr
from dsr._core import levels
from dsr.deploy.early_exit import clearness
from dsr.deploy.lowering import lower
from dsr.deploy.model_file import packed


@pytest.fixture(scope="module")
def library():
    if not BUILT.is_file():
        pytest.skip("libdsr is not built: python setup.py build_libdsr")
    return Library(BUILT)


def loaded(library, content):
    status, message, model = library.read(content)
    assert (status, message) == (libdsr.OK, "")
    return model


def started(library, model, batch):
    status, message, stream = library.start(model, batch)
    assert (status, message) == (libdsr.OK, "")
    return stream


def stepped(stream, frames):
    """Rates after each frame."""
    rates = []
    for frame in frames:
        status, message, so_far = stream.step(frame)
        assert (status, message) == (libdsr.OK, "")
        rates.append(so_far)
    return np.array(rates)


def frames_of(features, timesteps, batch, seed=2):
    return np.random.default_rng(seed).normal(0.3, 1.5, (timesteps, batch, *features)).astype(np.float32)


# ---- integers


@pytest.mark.parametrize("name", [*OF_PAPERS, *OWN])
def test_integers_have_the_bits_of_dsr(library, name):
    """Of static samples and of frames, after every step, at several batches and numbers of threads."""
    integer, _ = quantised(name)
    frames = frames_of(integer.features, 5, 5)
    model = loaded(library, packed(integer))
    stream, reference = started(library, model, 5), integer.start(5)
    expected = np.array([reference.step(frame).reshape(5, -1) for frame in frames])
    assert len(np.unique(expected)) > 4
    for threads in (1, 3):
        assert library.c.dsr_model_set_threads(threads) == libdsr.OK
        np.testing.assert_array_equal(stepped(stream, frames), expected)
        assert stream.reset() == (libdsr.OK, "")
        np.testing.assert_array_equal(stream.run(frames, True, 5, 5)[2], expected[-1])
    one = started(library, model, 1)
    np.testing.assert_array_equal(stepped(one, frames[:, 3:4])[:, 0], expected[:, 3])
    static = integer.run(frames[0]).reshape(5, -1)
    np.testing.assert_array_equal(library.run(model, frames[0], False, integer.timesteps, 5)[2], static)
    np.testing.assert_array_equal(stream.run(frames[0, :2], False, integer.timesteps, 2)[2], static[:2])
    for each in (stream, one):
        each.free()
    library.free(model)


ON_A_LEVEL = """
import sys
import numpy as np
from libdsr import BUILT, Library
library = Library(BUILT)
for name in sys.argv[2:]:
    status, message, model = library.load(f"{sys.argv[1]}/{name}.dsrmodel")
    assert status == 0, message
    data = np.load(f"{sys.argv[1]}/{name}.npy")
    status, message, rates = library.run(model, data, True, *data.shape[:2])
    assert status == 0, message
    np.save(f"{sys.argv[1]}/{name}-rates.npy", rates)
"""


def test_integers_on_every_level(library, tmp_path):
    """The level of libdsr is that of DSR_LEVEL, or the best."""
    names, expected = ("digits", "cifar_fast"), {}
    for name in names:
        integer, _ = quantised(name)
        frames = frames_of(integer.features, 3, 4)
        np.save(tmp_path / f"{name}.npy", frames)
        (tmp_path / f"{name}.dsrmodel").write_bytes(packed(integer))
        expected[name] = integer.run(frames).reshape(4, -1)
    here = os.environ | {"PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    for level in levels():
        command = [sys.executable, "-P", "-c", ON_A_LEVEL, str(tmp_path), *names]
        ran = subprocess.run(command, env=here | {"DSR_LEVEL": level}, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        for name in names:
            np.testing.assert_array_equal(np.load(tmp_path / f"{name}-rates.npy"), expected[name])
    ran = subprocess.run(command, env=here | {"DSR_LEVEL": "nonsense"}, capture_output=True, text=True)
    assert "AssertionError: DSR_LEVEL: there is no such level of instructions." in ran.stderr


# ---- streams


@pytest.mark.parametrize("name", ["geometry", "cifar_fast", "spiking_readout", "integer"])
def test_streams(library, name):
    """Rates after t steps are those of a run of t steps, bit for bit; samples that begin anew are like new ones."""
    if name == "integer":
        integer, _ = quantised("trains side by side, gates, maxima")
        content, features = packed(integer), integer.features
    else:
        make, features = NETWORKS[name]
        content = packed(lower(shaken(make()), features))
    model, frames = loaded(library, content), frames_of(features, 6, 3)
    stream = started(library, model, 3)
    so_far = stepped(stream, frames)
    for t in (1, 4, 6):
        np.testing.assert_array_equal(library.run(model, frames[:t], True, t, 3)[2], so_far[t - 1])
    assert stream.reset([0, 2]) == (libdsr.OK, "")
    later = stepped(stream, frames[:3])
    np.testing.assert_array_equal(later[:, [0, 2]], so_far[:3, [0, 2]])
    whole = np.concatenate([frames, frames[:3]])
    np.testing.assert_array_equal(later[-1, 1], library.run(model, whole, True, 9, 3)[2][1])
    stream.free()
    library.free(model)


def skip_of_the_data():
    """A convolution of the data is added behind neurons."""
    body = dsr.Sequential(dsr.Conv2d(2, 4, 3, padding=1), dsr.IF(0.3))
    return dsr.Sequential(dsr.Residual(body, dsr.Conv2d(2, 4, 1)), dsr.IF(0.7), dsr.Flatten(), dsr.Linear(144, 3))


def values_side_by_side():
    """Values beside spikes, pooled, and convolved as values."""
    return dsr.Sequential(
        dsr.Conv2d(2, 4, 3, padding=1),
        dsr.IF(0.7),
        dsr.Conv2d(4, 2, 3, padding=1),
        dsr.Concat(dsr.Identity(), dsr.IF(0.3)),
        dsr.AvgPool2d(2),
        dsr.Conv2d(4, 3, 2),
        dsr.IF(0.5),
        dsr.Flatten(),
        dsr.Linear(12, 3),
    )


OF_INTEGERS = "cifar_fast", "shortcuts", "signals", "trains side by side, gates, maxima", "skip"
MORE = {"skip": (skip_of_the_data, (2, 6, 6)), "values": (values_side_by_side, (2, 6, 6))}


SILENT = {"sew_and"}  # of these samples


@pytest.mark.parametrize("name", [*sorted({*NETWORKS, *MORE} - SILENT), *(f"integers: {name}" for name in OF_INTEGERS)])
def test_time_steps_that_are_done_at_once(library, name):
    """A run does all of its time steps in one pass over the layers, with the bits of the steps one by one."""
    kind, own = "integers: " in name, name.removeprefix("integers: ")
    if own in NETWORKS | MORE:
        make, features = (NETWORKS | MORE)[own]
        network = shaken(make())
        model = dsr.quantize(network, frames_of(features, 1, 20)[0]) if kind else lower(network, features)
    else:
        model, _ = quantised(own)
        features = model.features
    content = packed(model)
    model, frames = loaded(library, content), frames_of(features, 5, 3)
    stream = started(library, model, 4)
    one_by_one = started(library, model, 3)
    for moves in (False, True):
        data = frames if moves else frames[0]
        so_far = stepped(one_by_one, frames if moves else [data] * 5)
        assert len(np.unique(so_far)) > 2
        np.testing.assert_array_equal(stream.run(data, moves, 5, 3)[2], so_far[-1])
        # frames are looked at ahead of time unless something but neurons reads them too
        assert stream.passes() == (5 if moves and own == "skip" else 1)
        np.testing.assert_array_equal(stream.run(data, moves, 2, 3)[2], so_far[1])
        assert one_by_one.reset() == (libdsr.OK, "")
    for each in (stream, one_by_one):
        each.free()
    library.free(model)


def test_a_static_sample_is_a_stream_of_equal_frames(library):
    """At any number of steps at once, of which there are 32 at most, and 256 of all samples."""
    make, features = NETWORKS["digits"]
    model = loaded(library, packed(lower(shaken(make()), features)))
    frame, stream = frames_of(features, 1, 4)[0], started(library, model, 4)
    so_far = stepped(stream, [frame] * 70)
    for t, passes in ((1, 1), (3, 1), (4, 1), (32, 1), (33, 2), (70, 3), (5, 1)):
        np.testing.assert_array_equal(stream.run(frame, False, t, 4)[2], so_far[t - 1])
        assert stream.passes() == passes
    np.testing.assert_array_equal(stream.run(np.array([frame] * 70), True, 70, 4)[2], so_far[-1])
    many = started(library, model, 50)
    np.testing.assert_array_equal(many.run(frame, False, 12, 4)[2], so_far[11])
    assert many.passes() == 3
    assert stream.leave(frame, False, 6, 4, Exit(libdsr.MARGIN, np.inf, 1))[3] == [6] * 4 and stream.passes() == 6
    stream.free()
    many.free()
    library.free(model)


def test_threads_have_streams_of_their_own(library):
    integer, _ = quantised("digits")
    model, frames = loaded(library, packed(integer)), frames_of(integer.features, 4, 6)
    expected = library.run(model, frames, True, 4, 6)[2]

    def alone(sample):
        stream = started(library, model, 1)
        rates = stepped(stream, frames[:, sample : sample + 1])[-1, 0]
        stream.free()
        return rates

    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(alone, [*range(6)] * 4)), np.tile(expected, (4, 1)))
    library.free(model)


# ---- early exit


def exits_of(clear, threshold, least):
    passed = clear >= threshold
    passed[: least - 1], passed[-1] = False, True
    return passed.argmax(axis=0) + 1


@pytest.mark.parametrize("moves", [False, True], ids=["static", "frames"])
@pytest.mark.parametrize("by", ["probability", "margin"])
@pytest.mark.parametrize("name", ["digits", "integer"])
def test_early_exit(library, name, by, moves):
    """Each sample leaves at the first step at which dsr's measure of its rates so far passes the threshold."""
    integer, _ = quantised("digits")
    make, features = NETWORKS["digits"]
    content = packed(integer if name == "integer" else lower(shaken(make()), features))
    model, frames = loaded(library, content), frames_of(features, 8, 20)
    data = frames if moves else frames[0]
    stream = started(library, model, 20)
    so_far = stepped(stream, frames if moves else [data] * 8)
    clear = clearness(so_far, by)
    # between the values that there are, so that the last bit of exp() decides nothing
    found = np.unique(clear.round(6))
    threshold = max(((found[1:] + found[:-1]) / 2).tolist(), key=lambda each: len(set(exits_of(clear, each, 1))))
    for least in (1, 3):
        expected = exits_of(clear, threshold, least)
        rule = Exit({"probability": libdsr.PROBABILITY, "margin": libdsr.MARGIN}[by], threshold, least)
        status, message, rates, steps = stream.leave(data, moves, 8, 20, rule)
        assert (status, message, steps) == (libdsr.OK, "", expected.tolist())
        assert len(set(steps)) > 1 or least > 1, "a threshold that tells nothing"
        chosen = so_far[expected - 1, np.arange(20)]
        if name == "integer" or not moves:  # convolutions of float frames are rounded as their number wants it
            np.testing.assert_array_equal(rates, chosen)
        np.testing.assert_allclose(rates, chosen, rtol=1e-5, atol=1e-6)
    assert stream.leave(data, moves, 8, 20, Exit(libdsr.PROBABILITY, np.inf, 1))[3] == [8] * 20
    np.testing.assert_array_equal(stepped(stream, [data[0]] if moves else [data]), so_far[:1], "it is at its beginning")
    stream.free()
    library.free(model)


# ---- what is wrong


def test_bad_arguments(library):
    integer, _ = quantised("digits")
    model = loaded(library, packed(integer))
    assert library.start(None, 1)[:2] == (libdsr.BAD_ARGUMENT, "An argument of dsr_stream_start is NULL.")
    assert library.start(model, 0)[:2] == (libdsr.BAD_ARGUMENT, "Expected at least one sample.")
    wanted = libdsr.TOO_LARGE, "There are too many samples; give fewer at a time."
    for batch in (2**28, 2**31, 2**61, 2**64 - 1):
        assert library.start(model, batch)[:2] == wanted
    stream, frames = started(library, model, 2), frames_of(integer.features, 3, 2)
    before = stepped(stream, frames[:1])
    frames[1, 1, 0, 7, 7] = np.nan
    status, message, rates = stream.step(frames[1])
    assert (status, message) == (libdsr.NOT_FINITE, "Value 127 of the data is infinite or not a number.")
    assert np.isnan(rates).all()
    assert stream.reset([2]) == (
        libdsr.BAD_ARGUMENT,
        "Sample 2 does not exist; the stream has 2, the first of them 0.",
    )
    after = stepped(stream, frames[2:])
    assert stream.reset() == (libdsr.OK, "")
    np.testing.assert_array_equal(stepped(stream, frames[[0, 2]]), [before[0], after[0]], "bad calls change nothing")
    assert stream.run(frames[2], False, 4, 3)[:2] == (libdsr.BAD_ARGUMENT, "Expected at most 2 samples, got 3.")
    for rule in (Exit(2, 0.5, 1), Exit(0, 0, 1), Exit(0, -1, 1), Exit(0, np.nan, 1)):
        wanted = libdsr.BAD_ARGUMENT, "Expected a threshold above 0 of probability or margin."
        assert stream.leave(frames[2], False, 4, 2, rule)[:2] == wanted
    stream.free()
    library.free(model)


def test_one_output_has_no_early_exit(library):
    model = loaded(library, packed(lower(dsr.Network(dsr.Sequential(dsr.Linear(3, 1), dsr.IF(1.0)), 2), (3,))))
    stream = started(library, model, 1)
    status, message, *_ = stream.leave(np.ones(3), False, 2, 1, Exit(libdsr.MARGIN, 0.5, 1))
    assert (status, message) == (libdsr.BAD_ARGUMENT, "Early exit is for two or more classes, not one output.")
    stream.free()
    library.free(model)
