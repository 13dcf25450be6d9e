"""Preprocessing: how raw samples and files become what a network gets, as plain values that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.files.archive import Archive, read_npy
from dsr.files.errors import DataError
from dsr.ops import Values
from dsr.ops.arguments import as_array, require_finite

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Endings of image files."""


def normalise(images: NDArray[Any], mean: Sequence[float], deviation: Sequence[float]) -> Values:
    """``(images / 255 - mean) / deviation`` of each channel of bytes, in float32 and in this order."""
    out: Values = np.divide(images, np.float32(255), dtype=np.float32)
    out -= np.asarray(mean, np.float32)[:, np.newaxis, np.newaxis]
    out /= np.asarray(deviation, np.float32)[:, np.newaxis, np.newaxis]
    return out


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a raw sample before a network gets it.

    Attributes
    ----------
    kind : {"images", "values", "recordings"}
        Images as bytes, which are normalised after division by 255; arrays of numbers; or recordings of events.
    features : tuple of int
        Shape of a sample as the network gets it, without T.
    mean, deviation : tuple of float
        Of each channel (the first axis of `features`); none: the numbers are taken as they are.
    axes : str
        Of a raw sample of an array, a letter each, see `dsr.data.arrays`; none: those of the network.
    image_size : int
        Image files, and frames of recordings, are resized to this side; 0: they must have the size of `features`.
    random_resized_crop : bool
        Whether training took random parts of the images, see `dsr.data.images.Decoder`.
    same_size : {"scale", "keep"}
        Whether image files that have this side already are scaled by 8/7 and cut like others, as older versions did.
    jpeg_draft : bool
        Whether large JPEG pictures are decoded at a part of their size, see `dsr.data.images.Decoder`.
    timesteps : int
        T of samples with a time axis.
    frames_by : {"number", "time"}
        How recordings are cut into frames.
    sensor_size : tuple of int
        Columns and rows, for recordings that do not say it.
    """

    kind: Literal["images", "values", "recordings"]
    features: tuple[int, ...]
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    axes: str = ""
    image_size: int = 0
    random_resized_crop: bool = False
    same_size: Literal["scale", "keep"] = "scale"
    jpeg_draft: bool = False
    timesteps: int = 1
    frames_by: Literal["number", "time"] = "number"
    sensor_size: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """What `to_dict` gave; JSON has no tuples."""
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**plain)

    def with_timesteps(self, timesteps: int) -> Preprocessing:
        """With another T, which recordings are cut into."""
        return replace(self, timesteps=timesteps)

    def batch(self, samples: ArrayLike, function: str = "Preprocessing.batch") -> Values:
        """Raw samples as a network gets them.

        Parameters
        ----------
        samples : array_like, shape (B, ...)
            For images: bytes (uint8), (B, C, H, W), which are normalised; other numbers are taken as they are. For
            values: (B, ...) with the axes of the data set. For recordings: frames, (T, B, 2, H, W), as they are.
        function : str
            For errors.

        Returns
        -------
        ndarray of float32, shape (B, ...) or (T, B, ...)

        Raises
        ------
        TypeError, ValueError
            `samples` are not such numbers, not finite, or of another shape.
        """
        array = as_array(function, "x", samples)
        found = self.ordered(array) if array.ndim == 1 + self._raw_axes() else array
        lead = 1 + self.has_time
        if found.ndim != lead + len(self.features) or found.shape[lead:] != self.features:
            shape = ", ".join(["B", *(f"{self.axes[i]}" for i in range(len(self.axes)))]) if self.axes else None
            expected = shape or ", ".join([*("T" * self.has_time), "B", *map(str, self.features)])
            raise ValueError(
                f"{function}: argument 'x': expected samples of shape ({expected}) with features {self.features}, got "
                f"{array.shape}"
            )
        require_finite(function, "x", found)
        return self.normalised(found)

    @property
    def has_time(self) -> bool:
        """Whether a batch has a time axis in front."""
        return self.kind == "recordings" or "T" in self.axes

    def ordered(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Raw samples (B, ...) with the axes of a network: channels first, time in front of all; a view."""
        if not self.axes:
            return samples
        names = "B" + self.axes
        if "H" in names and "C" not in names:
            samples, names = samples[..., np.newaxis], names + "C"
        wanted = ("T" if "T" in names else "") + "B" + "".join(axis for axis in "FCHW" if axis in names)
        return samples.transpose([names.index(axis) for axis in wanted])

    def normalised(self, samples: NDArray[Any]) -> Values:
        """Samples in the network's order of axes, in float32."""
        if not self.mean or (self.kind == "images" and samples.dtype != np.uint8):
            return np.ascontiguousarray(samples, np.float32)
        if self.kind == "images":
            return normalise(samples, self.mean, self.deviation)
        shape = (-1,) + (1,) * (len(self.features) - 1)
        out = samples - np.asarray(self.mean).reshape(shape)
        return np.ascontiguousarray(out / np.asarray(self.deviation).reshape(shape), np.float32)

    def files(self, paths: Sequence[str | Path]) -> Values:
        """The samples of some files as one batch: an image, a recording, or one or more samples of an array each.

        Raises
        ------
        DataError
            A file is damaged, of another kind or size; the message names it.
        OSError
            A file cannot be read.
        """
        axis = int(self.has_time)
        return np.concatenate([self.file(path) for path in paths], axis)

    def file(self, path: str | Path) -> Values:
        """The samples of one file, as a batch."""
        suffix = Path(path).suffix.lower()
        if self.kind == "recordings":
            return self._recording(path)
        if suffix in PICTURES:
            return self._picture(path)
        if suffix not in (".npy", ".npz"):
            raise DataError(f"{path}: expected an image ({', '.join(PICTURES)}) or an array (.npy, .npz)")
        content = Path(path).read_bytes()
        if suffix == ".npy":
            array = read_npy(content, str(path))
        else:
            archive = Archive(content, str(path))
            name = next((name for name in ("x.npy", "x_test.npy", "arr_0.npy") if name in archive.files), None)
            if name is None:
                raise DataError(f"{path}: expected an array 'x' (or 'x_test') in it, got {', '.join(archive.files)}")
            array = read_npy(archive.read(name), f"{path}: {name}")
        one = array.ndim == self._raw_axes()
        try:
            return self.batch(array[np.newaxis] if one else array, str(path))
        except (TypeError, ValueError) as error:
            raise DataError(str(error)) from None

    def _raw_axes(self) -> int:
        return len(self.axes) or len(self.features) + self.has_time

    def _picture(self, path: str | Path) -> Values:
        from dsr.data.images import Decoder, need_pillow

        need_pillow("predict")
        if len(self.features) != 3 or self.features[0] not in (1, 3) or self.kind != "images":
            raise DataError(f"{path}: the network takes samples of shape {self.features}, not images")
        channels, height, width = self.features
        decoder = Decoder(
            self.image_size,
            self.random_resized_crop,
            (height, width),
            same_size=self.same_size,
            draft_for=self.image_size if self.jpeg_draft else 0,
        )
        images = decoder.batch(([str(path)], None))
        if channels == 1:  # the usual weights of red, green and blue in grey, as Pillow has them
            grey = images.transpose(0, 2, 3, 1) @ np.array([299, 587, 114]) / 1000
            images = np.rint(grey)[:, np.newaxis].astype(np.uint8)
        return self.normalised(images)

    def _recording(self, path: str | Path) -> Values:
        from dsr.data.events.frames import resize_exactly, to_frames
        from dsr.data.events.reading import read_events

        recording = read_events(path, self.sensor_size or None)
        frames: NDArray[Any] = to_frames(recording, self.timesteps, by=self.frames_by)
        divisor = 1
        if self.image_size:
            frames, divisor = resize_exactly(frames, self.image_size)
        if frames.shape[1:] != self.features:
            raise DataError(f"{path}: expected frames of shape {self.features}, got {frames.shape[1:]}")
        return np.divide(frames[:, np.newaxis], np.float32(divisor)).astype(np.float32)
