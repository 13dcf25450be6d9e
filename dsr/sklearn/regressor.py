"""A spiking network as a regressor of scikit-learn, which ``pip install dsr[sklearn]`` installs.

>>> from sklearn.model_selection import cross_val_score
>>> cross_val_score(dsr.SpikingRegressor(random_state=0), X, y).mean()
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.convolution import Linear
from dsr.nn.layer import Layer
from dsr.nn.losses import mse
from dsr.sklearn.estimator import SpikingEstimator  # first: it says what is missing

# isort: split
from sklearn.base import RegressorMixin

from dsr.sklearn.inputs import as_reals, as_samples


class SpikingRegressor(RegressorMixin, SpikingEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Estimate real numbers by a network of spiking neurons.

    By default the network is ``Linear, BatchNorm, neurons`` for each hidden layer, and a ``Linear`` as the read-out:
    its mean current over time, which may be any number, is the answer. Features are standardised as by
    `SpikingClassifier`, targets are too, and the answers are scaled back. Training is SGD on the mean squared error
    with a cosine learning rate. All parameters are those of `SpikingClassifier`. A `model` of your own should end in a
    layer without neurons: their rates are never negative, but standardised targets are.

    Attributes
    ----------
    n_features_in_, feature_names_in_, mean_, scale_, network_, loss_curve_
        As of `SpikingClassifier`; the loss is that of standardised targets, 1 for the answer that is always the mean.
    target_mean_, target_scale_ : ndarray, shape (outputs,)
        Mean and standard deviation of each target; the second is 1 where the target is constant.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> dsr.SpikingRegressor(random_state=0).fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.3
    True
    """

    _typical_learning_rate = 0.02  # with 0.1 the loss, which is not bounded as cross-entropy's gradient is, may diverge

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : array_like, shape (samples, features)
            Finite real numbers, of at least 2 samples.
        y : array_like, shape (samples,) or (samples, outputs)
            Finite real numbers.

        Returns
        -------
        SpikingRegressor
            The fitted estimator itself.

        Raises
        ------
        TypeError, ValueError
            X or y are not such arrays, or a parameter is out of range.
        FloatingPointError
            The loss is not finite.
        """
        self.__dict__.pop("network_", None)  # a fit that fails leaves no network of an earlier one
        samples, spacing = as_samples("fit", self, X)
        targets = as_reals(self, y, samples)
        self._target_shape = targets.shape[1:]
        columns = targets.reshape(len(targets), -1)
        self.target_mean_, deviation = columns.mean(axis=0), columns.std(axis=0)
        # a constant column has the deviation that its own mean was rounded by
        constant = deviation <= np.finfo(np.float64).eps * len(columns) * np.abs(self.target_mean_)
        self.target_scale_ = np.where(constant, 1, deviation)
        standardised = (columns - self.target_mean_) / self.target_scale_
        self._fit(samples, spacing, standardised, columns.shape[1], mse)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """The estimated numbers, in the shape of the targets of `fit`."""
        answers = self._rates("predict", X) * self.target_scale_ + self.target_mean_
        return np.asarray(answers.reshape(len(answers), *self._target_shape))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _read_out(self, before: int, outputs: int) -> list[Layer]:
        return [Linear(before, outputs)]
