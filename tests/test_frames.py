"""Frames: every event is counted once, in the frame of the published algorithm; sizes; augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_events import recordings

from dsr.data.events.augment import FrameTransform, cutout, roll
from dsr.data.events.frames import resize, resize_exactly, to_frames
from dsr.data.events.reading import EVENT, Events, as_events

SIZE = (7, 5)


@st.composite
def event_tables(draw, least=0):
    rows = draw(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 99), st.booleans()), min_size=least)
    )
    events = np.array(rows, EVENT)
    events["t"] = np.sort(events["t"]) * 17 + 1000
    return events


EVENTS, STEPS, BY = event_tables(), st.integers(1, 9), st.sampled_from(["number", "time"])


def published(events, timesteps, by):
    """The loops of the published code, which needs an event in each frame; an event at a time here."""
    frames = np.zeros((timesteps, 2, SIZE[1], SIZE[0]), int)
    for number, (x, y, t, p) in enumerate(events.tolist()):
        if by == "number":
            each, place = len(events) // timesteps, number
        else:
            each, place = (int(events["t"][-1]) - int(events["t"][0])) // timesteps, t - int(events["t"][0])
        step = min(place // each, timesteps - 1) if each else timesteps - 1
        frames[step, int(p), y, x] += 1
    return frames


# --- laws


@given(EVENTS, STEPS, BY)
def test_every_event_is_in_one_frame(events, timesteps, by):
    frames = to_frames(events, timesteps, SIZE, by)
    assert frames.shape == (timesteps, 2, 5, 7) and frames.dtype == np.int32
    assert frames.sum() == len(events)
    assert (frames.sum(axis=(0, 2, 3)) == [np.count_nonzero(~events["p"]), np.count_nonzero(events["p"])]).all()
    np.testing.assert_array_equal(frames.sum(axis=0), to_frames(events, 1, SIZE)[0])


@given(EVENTS, STEPS, BY)
def test_frames_are_those_of_the_published_code(events, timesteps, by):
    np.testing.assert_array_equal(to_frames(events, timesteps, SIZE, by), published(events, timesteps, by))


@given(EVENTS, STEPS, st.integers(-(10**15), 10**15))
def test_by_time_the_start_of_the_clock_does_not_matter(events, timesteps, shift):
    later = events.copy()
    later["t"] += shift
    np.testing.assert_array_equal(to_frames(later, timesteps, SIZE, "time"), to_frames(events, timesteps, SIZE, "time"))


@given(EVENTS, STEPS)
def test_by_number_only_the_order_matters(events, timesteps):
    other = events.copy()
    other["t"] = np.random.default_rng(0).permutation(len(events)) ** 2
    np.testing.assert_array_equal(to_frames(other, timesteps, SIZE), to_frames(events, timesteps, SIZE))


@given(event_tables(least=1), STEPS, BY, st.randoms(use_true_random=False))
def test_the_order_within_a_frame_does_not_matter(events, timesteps, by, random):
    if by == "number":
        each = len(events) // timesteps
        steps = np.minimum(np.arange(len(events)) // max(each, 1), timesteps - 1) if each else np.zeros(len(events))
    else:
        steps = events["t"]
    order = sorted(range(len(events)), key=lambda number: (steps[number], random.random()))
    np.testing.assert_array_equal(to_frames(events[order], timesteps, SIZE, by), to_frames(events, timesteps, SIZE, by))


# --- by hand


def test_by_number_the_last_frame_has_the_remainder():
    events = np.zeros(11, EVENT)
    events["x"] = np.arange(11) % 7
    assert to_frames(events, 3, SIZE).sum(axis=(1, 2, 3)).tolist() == [3, 3, 5]
    assert to_frames(events[:2], 3, SIZE).sum(axis=(1, 2, 3)).tolist() == [0, 0, 2]
    assert to_frames(events, 11, SIZE).sum(axis=(1, 2, 3)).tolist() == [1] * 11


def test_by_time_windows_are_equal_and_the_last_is_closed():
    events = np.zeros(6, EVENT)
    events["t"] = [100, 109, 110, 119, 120, 131]
    assert to_frames(events, 3, SIZE, "time").sum(axis=(1, 2, 3)).tolist() == [2, 2, 2]  # 10 us, 10 us, the rest
    events["t"] = [100, 100, 100, 101, 101, 101]  # less than 3 us in all
    assert to_frames(events, 3, SIZE, "time").sum(axis=(1, 2, 3)).tolist() == [0, 0, 6]


def test_off_is_channel_0_and_rows_are_y():
    frames = to_frames(np.array([(6, 1, 0, False), (2, 4, 1, True), (2, 4, 2, True)], EVENT), 1, SIZE)
    assert frames[0, 0, 1, 6] == 1 and frames[0, 1, 4, 2] == 2 and frames.sum() == 3


def test_other_kinds_of_events():
    events = np.array([(6, 1, 0, False), (2, 4, 1, True)], EVENT)
    expected = to_frames(events, 2, SIZE)
    np.testing.assert_array_equal(to_frames(as_events(events, SIZE), 2), expected)
    np.testing.assert_array_equal(to_frames({name: events[name] for name in "xytp"}, 2, (*SIZE, 2)), expected)
    assert to_frames(Events(events, (9, 9, 2)), 2).shape == (2, 2, 9, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timesteps": 0}, "argument 'timesteps': expected an integer >= 1, got 0"),
        ({"timesteps": 2.5}, "argument 'timesteps'"),
        ({"timesteps": 2, "by": "count"}, "argument 'by': expected 'number' or 'time', got 'count'"),
        ({"timesteps": 2, "by": "time"}, "time goes back at event 2; such events can be split by number only"),
    ],
)
def test_errors(arguments, message):
    events = np.zeros(3, EVENT)
    events["t"] = [4, 5, 3]
    with pytest.raises(ValueError, match=f"to_frames: {message}"):
        to_frames(events, sensor_size=SIZE, **arguments)


def test_frames_of_real_recordings(shared):
    events, label = next(recordings(shared / "data" / "nmnist-1100.tar", "nmnist/test"))
    frames = to_frames(events, 10, (34, 34))
    assert label == 7 and len(events) == frames.sum()
    assert (frames.sum(axis=(1, 2, 3))[:-1] == len(events) // 10).all()
    # a seven: its bar is brighter than the background left of its stem
    image = frames.sum(axis=(0, 1))
    assert image[8:12, 8:24].sum() > 3 * image[20:26, 5:12].sum()


# --- sizes


def test_resize_by_hand():
    exact = np.array([[0, 1.5, 4.5, 6], [1.5, 3, 6, 7.5], [4.5, 6, 9, 10.5], [6, 7.5, 10.5, 12]], np.float32)
    np.testing.assert_array_equal(resize(np.array([[0, 6], [6, 12]]), 4), exact)
    np.testing.assert_array_equal(resize(np.array([[1, 3, 5, 7]] * 4), 2), [[2, 6], [2, 6]])
    np.testing.assert_array_equal(resize(np.array([[3, 9]]), 1), [[6]])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resize_keeps_constants_range_and_symmetry(height, width, size):
    frames = np.random.default_rng(height).integers(9, size=(2, height, width))
    assert (resize(np.full((height, width), 7), size) == 7).all()
    np.testing.assert_array_equal(
        resize(frames[:, :1].repeat(width, axis=1), width), frames[:, :1].repeat(width, axis=1)
    )
    whole, divisor = resize_exactly(frames, size)
    assert whole.min() >= frames.min() * divisor and whole.max() <= frames.max() * divisor
    flipped, _ = resize_exactly(frames[:, ::-1, ::-1], size)
    np.testing.assert_array_equal(flipped[:, ::-1, ::-1], whole)


@pytest.mark.parametrize(("old", "new", "divisor"), [(128, 48, 36), (34, 28, 784), (128, 128, 1), (48, 96, 16)])
def test_resize_is_that_of_another_library(old, new, divisor):
    image = pytest.importorskip("PIL.Image", reason="the other library is Pillow")
    frames = np.random.default_rng(old).integers(50, size=(3, old, old))
    whole, found = resize_exactly(frames, new)
    assert found == divisor
    scale = old / new
    for frame, result in zip(frames, whole, strict=True):
        # its affine transform takes values between pixels, without smoothing; it leaves what is outside of all centres
        padded = np.pad(frame, 1, mode="edge").astype(np.float32)
        other = image.fromarray(padded).transform((new, new), 0, (scale, 0, 1, 0, scale, 1), resample=2)
        np.testing.assert_allclose(result / divisor, np.asarray(other), rtol=0, atol=50 * 2**-20)


# --- augmentation

BATCH = np.random.default_rng(5).integers(9, size=(4, 3, 2, 6, 6)).astype(np.uint8)


def draws(**columns):
    numbers = np.full((len(BATCH), 8), 0.75)
    for name, values in columns.items():
        numbers[:, int(name[1:])] = values
    return numbers


def test_without_draws_frames_are_only_converted():
    out = FrameTransform(divisor=4, crop_padding=2, flip=True, roll=2, cutout=3)(BATCH, None)
    assert out.shape == (3, 4, 2, 6, 6) and out.dtype == np.float32 and out.flags.c_contiguous
    np.testing.assert_array_equal(out, BATCH.swapaxes(0, 1) / np.float32(4))


def test_flip_mirrors_columns():
    out = FrameTransform(flip=True)(BATCH, draws(_0=[0.2, 0.49999, 0.5, 0.9])).swapaxes(0, 1)
    np.testing.assert_array_equal(out[:2], BATCH[:2, ..., ::-1])
    np.testing.assert_array_equal(out[2:], BATCH[2:])


def test_crop_shifts_rows_and_columns_and_fills_with_zeros():
    # 5 positions: 0 shifts down by 2, 2 not at all, 4 up by 2
    out = FrameTransform(crop_padding=2)(BATCH, draws(_1=[0, 0.41, 0.99, 0.41], _2=[0.41, 0.41, 0.41, 0.99]))
    out = out.swapaxes(0, 1)
    np.testing.assert_array_equal(out[0, :, :, 2:], BATCH[0, :, :, :4])
    assert not out[0, :, :, :2].any()
    np.testing.assert_array_equal(out[1], BATCH[1])
    np.testing.assert_array_equal(out[2, :, :, :4], BATCH[2, :, :, 2:])
    np.testing.assert_array_equal(out[3, ..., :4], BATCH[3, ..., 2:])


def test_roll_goes_around_the_edges():
    images = BATCH.reshape(4, 6, 6, 6)
    found = roll(images, 2, draws(_5=[0, 0.5, 0.5, 0.99], _6=[0.5, 0.5, 0, 0.99]))
    for image, result, shift in zip(images, found, [(0, 2), (0, 0), (2, 0), (-2, -2)], strict=True):
        np.testing.assert_array_equal(result, np.roll(image, shift, axis=(1, 2)))


def test_cutout_is_a_square_of_half_of_the_samples():
    images = np.ones((4, 6, 6, 6), np.uint16)
    found = cutout(images, 3, draws(_3=[0, 0.5, 0.5, 0.99], _4=[0, 0.5, 0.5, 0.2], _7=[0.1, 0.1, 0.5, 0.49]))
    expected = np.ones((4, 6, 6))
    expected[0, :2, :2] = 0
    expected[1, 2:5, 2:5] = 0
    expected[3, 4:, 0:3] = 0
    np.testing.assert_array_equal(found, np.broadcast_to(expected[:, np.newaxis], images.shape))
    assert found.dtype == np.uint16 and images.all()


def test_all_steps_of_a_sample_share_its_choice():
    batch = np.repeat(BATCH[:, :1], 3, axis=1)
    numbers = np.random.default_rng(0).random((4, 8))
    out = FrameTransform(1, 2, True, 2, 2)(batch, numbers)
    np.testing.assert_array_equal(out[0], out[1])
    np.testing.assert_array_equal(out[0], out[2])
    # and a sample gets the same, whatever else is in the batch
    np.testing.assert_array_equal(FrameTransform(1, 2, True, 2, 2)(batch[2:3], numbers[2:3])[:, 0], out[:, 2])
