"""Checkpoints come back as they were, or not at all."""

import os

import numpy as np
import pytest

from dsr.files import checkpoint

ARRAYS = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4), "scalar": np.array(2.5, np.float32),
          "count": np.array([1, 2], np.uint32), "empty": np.empty((0, 3))}  # fmt: skip
METADATA = {"recipe": {"epochs": 3, "name": "später"}, "step": 7}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, ARRAYS, METADATA)
    arrays, metadata = checkpoint.load(path)
    assert metadata == METADATA
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_any_changed_byte_is_found(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(len(whole), size=300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            arrays, metadata = checkpoint.load(path)
        except checkpoint.CheckpointError as error:
            assert str(path) in str(error)
        else:  # a flip in the header's white space or the like
            assert metadata == METADATA
            assert all(np.array_equal(arrays[name], array) for name, array in ARRAYS.items())


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, ARRAYS, METADATA)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, ARRAYS, METADATA)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        checkpoint.save(path, {"weight": np.zeros(3)}, {})
    assert checkpoint.load(path)[1] == METADATA
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_other_safetensors_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(checkpoint.CheckpointError, match=r"other.safetensors"):
        checkpoint.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "expected a run folder, found no checkpoint.safetensors in it"),
        ("nothere", "nothere: expected a run folder, found nothing"),
        ("weights.safetensors", "weights.safetensors: expected a run folder or a file of weights, found nothing"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, path, words):
    file = tmp_path / path / checkpoint.LAST if path != "weights.safetensors" else tmp_path / path
    with pytest.raises(FileNotFoundError) as caught:
        checkpoint.load(file)
    assert str(caught.value).endswith(words) and str(tmp_path) in str(caught.value)
