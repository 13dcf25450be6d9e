"""UCI handwritten digits: 1,797 real images of 8x8 pixels, shipped with the package.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0. The part that scikit-learn distributes (the repository's test set),
values 0 to 16, drawn once into 1,437 training and 360 test images.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np

from dsr.data.preprocessing import Preprocessing
from dsr.data.samples import ArraySamples, DataSet, Preparation


def load_digits(path: Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """Normalised to mean 0 and standard deviation 1 of the training pixels; in memory as ``train.arrays``.

    Image files, which `dsr.load` and ``dsr predict`` read, have white strokes on black.
    """
    with files("dsr.data").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        raw = {name: arrays[name] for name in arrays.files}
    mean, deviation = raw["train_images"].mean(), raw["train_images"].std()

    def samples(split: str) -> ArraySamples:
        images = (raw[f"{split}_images"][:, np.newaxis] - mean) / deviation
        return ArraySamples(images.astype(np.float32), raw[f"{split}_labels"])

    # a byte of 255 is a value of 16
    preprocessing = Preprocessing("images", (1, 8, 8), (float(mean) / 16,), (float(deviation) / 16,))
    return DataSet("digits", tuple("0123456789"), (1, 8, 8), samples("train"), samples("test"), preprocessing)
