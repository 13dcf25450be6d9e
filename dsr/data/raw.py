"""Raw samples and files as a trained model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dsr.data.preprocessing import Preprocessing
from dsr.ops.arguments import as_array, require_finite


def raw_batches(function: str, x: Any, preprocessing: Preprocessing | None, batch_size: int) -> Iterator[NDArray[Any]]:
    """Samples as a network takes them: of `batch_size` files at a time, or all of an array.

    Parameters
    ----------
    function : str
        For errors, which call the samples 'x'.
    x : array_like, path, or sequence of path
        Raw samples, see `Preprocessing.batch`; or files of them.
    preprocessing : Preprocessing or None
        Of the model; None: samples are given as the network takes them.
    batch_size : int
        Files at a time.

    Raises
    ------
    TypeError, ValueError
        These are no such samples, or files without a preprocessing.
    OSError
        A file cannot be read.
    """
    if isinstance(x, str | Path):
        x = [x]
    if isinstance(x, Sequence) and len(x) and all(isinstance(item, str | Path) for item in x):
        if preprocessing is None:
            raise ValueError(
                f"{function}: argument 'x': expected an array, as the network takes it: the model does not know how "
                "files become samples"
            )
        for first in range(0, len(x), batch_size):
            yield preprocessing.files(x[first : first + batch_size])
    elif preprocessing is not None:
        yield preprocessing.batch(x, function)
    else:
        array = as_array(function, "x", x, least_axes=2)
        require_finite(function, "x", array)
        yield array
