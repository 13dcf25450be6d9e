"""A spiking network as a classifier of scikit-learn, which ``pip install dsr[sklearn]`` installs.

>>> from sklearn.model_selection import cross_val_score
>>> cross_val_score(dsr.SpikingClassifier(random_state=0), X, y).mean()
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.convolution import Linear
from dsr.nn.layer import Layer
from dsr.nn.losses import cross_entropy
from dsr.nn.norm import BatchNorm
from dsr.sklearn.estimator import SpikingEstimator  # first: it says what is missing

# isort: split
from sklearn.base import ClassifierMixin

from dsr.sklearn.inputs import as_classes, as_samples


class SpikingClassifier(ClassifierMixin, SpikingEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Classify vectors by a network of spiking neurons.

    By default the network is ``Linear, BatchNorm, neurons`` for each hidden layer and for the read-out, whose firing
    rates are the scores of the classes. Features are standardised first, by the means and standard deviations of the
    training set, and given as the same current at every time step. A feature that is constant there up to rounding is
    not used: a network cannot learn from it. Training is SGD with a cosine learning rate.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        Number of neurons of each hidden layer.
    model : callable, optional
        Makes other layers, ``model(make_neuron, sample_shape, classes)``, such as `dsr.models.digits` or one of your
        own; then `hidden_layer_sizes` is not used.
    sample_shape : tuple of int, optional
        ``(C, H, W)``, the shape that `model` expects of a sample, such as ``(1, 8, 8)``; rows of X are reshaped to it.
    neuron : str
        Kind of the neurons.
    timesteps : int
        Number of time steps, T.
    v_threshold : float
        Initial threshold of the neurons; it is trained. For LIF it is multiplied by `delta_t`, which makes outputs
        as large as those of IF.
    alpha : float
        Firing threshold as a share of `v_threshold`.
    tau, delta_t : float
        Time constant and time step of LIF neurons.
    epochs : int
        Number of passes over the training set.
    batch_size : int
        Largest number of samples per step; a step has at least 2.
    learning_rate : float, optional
        Learning rate of the first step; by default 0.1, and 0.02 for `SpikingRegressor`.
    momentum, weight_decay : float
        Options of SGD.
    random_state : int, Generator, RandomState or None
        Source of initial weights, dropout and the order of samples; an integer gives the same network each time.

    Attributes
    ----------
    classes_ : ndarray, shape (classes,)
        The labels, sorted.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X was a data frame whose columns all have one.
    mean_, scale_ : ndarray, shape (N,)
        Mean and standard deviation of each feature; `scale_` is 1 where the feature is constant up to rounding.
    network_ : Network
        The trained network.
    loss_curve_ : list of float
        Mean loss of each epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> dsr.SpikingClassifier(random_state=0).fit(X[:1437], y[:1437]).score(X[1437:], y[1437:]) > 0.9
    True
    """

    _typical_learning_rate = 0.1

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : array_like, shape (samples, features)
            Finite real numbers, of at least 2 samples.
        y : array_like, shape (samples,)
            Labels: integers, booleans or strings, of at least 2 classes.

        Returns
        -------
        SpikingClassifier
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
        self.classes_, codes = as_classes(self, y, samples)
        self._fit(samples, spacing, codes, len(self.classes_), cross_entropy)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Softmax of the firing rates of the read-out, shape (samples, classes); columns as in `classes_`."""
        return self._probabilities("predict_proba", X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The label with the largest rate, the first of several equal ones, shape (samples,)."""
        largest = self._probabilities("predict", X).argmax(axis=1)
        return self.classes_[largest]

    def _read_out(self, before: int, outputs: int) -> list[Layer]:
        return [Linear(before, outputs), BatchNorm(outputs), self._make_neuron()]

    def _probabilities(self, function: str, X: ArrayLike) -> NDArray[np.float64]:
        rates = self._rates(function, X)
        exponentials = np.exp(rates - rates.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
