"""Image files as uint8 arrays of one size: decoding, random crop or middle crop, resizing. Needs Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dsr.data.augment import LEAST_AREA, Bytes, resized_crop
from dsr.data.colours import Colours
from dsr.data.samples import Draws
from dsr.data.tars import Member, content
from dsr.files.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Taken = TypeVar("Taken")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
LARGEST = 100_000_000
"""Most pixels of an image; a file of a few bytes may claim any number of them."""
REDUCED = 2
"""A JPEG picture is decoded smaller only where this many times the side that is wanted is left."""
PNG_PIXELS = 8 * 1032
"""Most pixels that a byte of a PNG file can hold: deflate expands a byte to at most 1,032."""


def need_pillow(function: str) -> None:
    """Raise an ImportError that says what to install if Pillow is missing."""
    if find_spec("PIL") is None:
        raise ImportError(f"{function}: Pillow is not installed; pip install dsr[images]")


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to batches of uint8 ``(B, 3, H, W)``, red, green and blue.

    Files are decoded as they are stored: like the usual loaders (torchvision), it ignores the EXIF orientation and
    drops transparency. From 16-bit grey images it takes the upper 8 bits.

    Attributes
    ----------
    image_size : int
        Side of the result. 0: the size of the files, which must all be of `size`.
    random_resized_crop : bool
        With draws: resize the crop that `dsr.data.augment.resized_crop` chooses. Without: resize the shorter side to
        8/7 of `image_size` (256 for 224) and take the middle.
    size : tuple of int, optional
        Height and width that all files must have if `image_size` is 0.
    colours : Colours, optional
        With draws: what is done to a picture of the final size.
    same_size : {"scale", "keep"}
        Whether pictures that are of `image_size` already are scaled and cut as well, or taken as they are; those of
        which a random crop is taken never are.
    crop_area : float
        Least share of a picture's area that a random crop takes.
    draft_for : int
        An image size for which JPEG pictures are decoded at 1/2, 1/4 or 1/8 of their size where both sides keep
        `REDUCED` times the pixels that the shorter one would be scaled to: for 224, from 1024 pixels on, to 512 or
        more; 0: all are decoded whole. Pictures of 1120 to 4480 pixels took 0.5 to 0.25 times as long so. The scaled
        pictures differ by 1.0 to 1.6 grey levels (rms, at most 13; mosaics of photographs), and a random part of them
        has fewer pixels, as of pictures stored in this size.
    """

    image_size: int = 0
    random_resized_crop: bool = False
    size: tuple[int, int] | None = None
    colours: Colours | None = None
    same_size: Literal["scale", "keep"] = "scale"
    crop_area: float = LEAST_AREA
    draft_for: int = 0

    def batch(self, task: tuple[Sequence[str | Member], Draws | None]) -> Bytes:
        """The images of some files, given with the draws of each."""
        files, draws = task
        return np.stack([self.one(file, None if draws is None else draws[row]) for row, file in enumerate(files)])

    def one(self, file: str | Member, draws: NDArray[np.float64] | None = None) -> Bytes:
        """The image of a file, ``(3, H, W)``.

        Raises
        ------
        DataError
            The file is not an image of one of the `FORMATS`, cut short, damaged, too large, or not of `size`.
        OSError
            The file cannot be read.
        """
        return self.finished(self.coloured(self.resized(self.opened(file), file, draws), draws))

    def opened(self, file: str | Member) -> Picture:
        """The first step: a file, decoded; errors as of `one`, but for its size."""
        return open_image(file, self.least)

    def resized(self, picture: Picture, file: str | Member, draws: NDArray[np.float64] | None = None) -> Picture:
        """The second step: at its final size, or a DataError that names `file`."""
        if self.image_size:
            return self._resized(picture, draws)
        if self.size is not None and (picture.height, picture.width) != self.size:
            raise DataError(
                f"{file}: {picture.height}x{picture.width} pixels, but the first image has {self.size[0]}x"
                f"{self.size[1]}; set image_size to resize all images to one size"
            )
        return picture

    def coloured(self, picture: Picture, draws: NDArray[np.float64] | None = None) -> Picture:
        """The third step: with draws, in other colours."""
        return picture if draws is None or self.colours is None else self.colours(picture, draws)

    @staticmethod
    def finished(picture: Picture) -> Bytes:
        """The last step: channels first."""
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))

    @property
    def least(self) -> int:
        """Pixels that a picture of JPEG must have left on each side if it is decoded smaller; 0: it never is."""
        return REDUCED * _shorter(self.draft_for)

    def _resized(self, picture: Picture, draws: NDArray[np.float64] | None) -> Picture:
        from PIL.Image import Resampling

        side, height, width = self.image_size, picture.height, picture.width
        if self.random_resized_crop and draws is not None:
            row, column, rows, columns = resized_crop(height, width, draws, self.crop_area)
            part = picture.crop((column, row, column + columns, row + rows))
            return part.resize((side, side), Resampling.BILINEAR)
        if self.same_size == "keep" and (height, width) == (side, side):
            return picture
        shorter = _shorter(side)
        scaled = (shorter * width // height, shorter) if height <= width else (shorter, shorter * height // width)
        left, top = round((scaled[0] - side) / 2), round((scaled[1] - side) / 2)
        if scaled[0] * scaled[1] <= LARGEST:
            whole = picture.resize(scaled, Resampling.BILINEAR)
            return whole.crop((left, top, left + side, top + side))
        # of a long strip, only the middle is resized; for all other images the usual order of steps decides the bits
        across, down = width / scaled[0], height / scaled[1]
        middle = (left * across, top * down, (left + side) * across, (top + side) * down)
        return picture.resize((side, side), Resampling.BILINEAR, box=middle)


def _shorter(side: int) -> int:
    """What the shorter side of a picture is scaled to before its middle is taken."""
    return round(side * 8 / 7)


@dataclass(frozen=True)
class Reader:
    """Decodes batches of files of which some may be damaged.

    Attributes
    ----------
    decoder : Decoder
        With `size`, which may also be that of `image_size`.
    skip : bool
        Whether damaged files are left out; else they raise what `Decoder.one` does.
    """

    decoder: Decoder
    skip: bool = False

    def __call__(self, task: tuple[Sequence[str | Member], Draws | None]) -> tuple[Bytes, dict[int, str]]:
        """The images of some files, and what is wrong with those that are damaged, by row; these are black."""
        if not self.skip:
            return self.decoder.batch(task), {}
        files, draws = task
        images, damaged = np.zeros((len(files), 3, *(self.decoder.size or ())), np.uint8), dict[int, str]()
        for row, file in enumerate(files):
            try:
                images[row] = self.decoder.one(file, None if draws is None else draws[row])
            except DataError as error:
                damaged[row] = str(error)
        return images, damaged


def open_image(file: str | Member, least: int = 0) -> Picture:
    """An image file, or one in an archive, decoded to RGB; it raises what `Decoder.one` raises.

    JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that leaves both sides with `least` pixels; 0: 1.
    """
    return _read(file, least, _to_rgb)


def size_of(file: str | Member, least: int = 0) -> tuple[int, int]:
    """Width and height that `open_image` would give, without decoding; errors as of it."""
    return _read(file, least, lambda picture: picture.size)


def _read(file: str | Member, least: int, take: Callable[[Picture], Taken]) -> Taken:
    from PIL import Image

    # decoded from memory: from a file, Pillow would allocate as many bytes as a chunk claims to have
    found = content(file)
    stream = io.BytesIO(found)
    with warnings.catch_warnings():
        # Pillow warns about odd EXIF data, dropped transparency, and large sizes, which are checked here
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=FORMATS) as picture:
                _check_size(file, picture.width, picture.height)
                if picture.format == "PNG" and picture.width * picture.height > PNG_PIXELS * len(found):
                    raise DataError(
                        f"{file}: cut short or damaged: {len(found):,} bytes cannot hold the "
                        f"{picture.width}x{picture.height} pixels they claim"
                    )
                if least and picture.format == "JPEG":
                    picture.draft(None, (least, least))
                return take(picture)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise nearly every kind on damaged files
            if not found:
                raise DataError(f"{file}: the file is empty") from None
            reason = str(error).replace(f"{stream!r}", "the content")
            raise DataError(f"{file}: not a complete image in {', '.join(FORMATS)} format ({reason})") from None


def _check_size(file: str | Member, width: int, height: int) -> None:
    if width * height > LARGEST:
        raise DataError(f"{file}: {width}x{height} pixels, expected no more than {LARGEST:,}")


def _to_rgb(picture: Picture) -> Picture:
    from PIL import Image

    if picture.mode.startswith("I"):
        values: NDArray[Any] = np.asarray(picture)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")
