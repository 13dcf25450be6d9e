"""A spiking network as a classifier of scikit-learn, which ``pip install dsr[sklearn]`` installs.

>>> from sklearn.model_selection import cross_val_score
>>> cross_val_score(dsr.SpikingClassifier(random_state=0), X, y).mean()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.containers import Sequential
from dsr.nn.convolution import Linear
from dsr.nn.layer import Layer
from dsr.nn.losses import cross_entropy
from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm
from dsr.nn.registry import SPIKING, kinds_with, make_neuron
from dsr.ops import Values
from dsr.optim.optimizers import SGD
from dsr.optim.schedule import cosine

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.validation import check_is_fitted

    from dsr.sklearn.inputs import as_classes, as_generator, as_samples, is_integer, require
except ImportError as error:
    raise ImportError(
        f"dsr.SpikingClassifier needs scikit-learn 1.6 or newer: pip install dsr[sklearn] ({error})"
    ) from None

Model = Callable[[Callable[[], Layer], tuple[int, ...], int], Layer]
"""Makes the layers of a network from ``make_neuron, sample_shape, classes``, as `dsr.models.digits` does."""

_BATCH = 256


class SpikingClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
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
    learning_rate, momentum, weight_decay : float
        Options of SGD; the learning rate is that of the first step.
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
    mean_, scale_ : ndarray, shape (n_features_in_,)
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

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (128,),
        *,
        model: Model | None = None,
        sample_shape: tuple[int, ...] | None = None,
        neuron: str = "if",
        timesteps: int = 5,
        v_threshold: float = 1.0,
        alpha: float = 0.5,
        tau: float = 1.0,
        delta_t: float = 0.1,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_layer_sizes, self.model, self.sample_shape = hidden_layer_sizes, model, sample_shape
        self.neuron, self.timesteps = neuron, timesteps
        self.v_threshold, self.alpha, self.tau, self.delta_t = v_threshold, alpha, tau, delta_t
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.momentum, self.weight_decay, self.random_state = momentum, weight_decay, random_state

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
        self.classes_, codes = as_classes(y, samples)
        for name in ("timesteps", "epochs", "batch_size"):
            require(name, getattr(self, name), lambda value: is_integer(value) and value >= 1, "an integer >= 1")
        self._set_scale(samples, spacing)
        rng = as_generator(self.random_state)
        network = Network(self._layers(len(self.classes_)), int(self.timesteps), seed=int(rng.integers(2**63)))
        self.loss_curve_ = self._train(network, self._standardised("fit", samples), codes, rng)
        self.network_ = network
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Softmax of the firing rates of the read-out, shape (samples, classes); columns as in `classes_`."""
        return self._probabilities("predict_proba", X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The label with the largest rate, the first of several equal ones, shape (samples,)."""
        largest = self._probabilities("predict", X).argmax(axis=1)
        return self.classes_[largest]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def _set_scale(self, samples: NDArray[np.float64], spacing: float) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            found = StandardScaler().fit(samples)
        if not np.isfinite(found.var_).all():
            raise ValueError("SpikingClassifier.fit: argument 'X': expected numbers whose squares are finite")
        deviation = np.sqrt(found.var_)
        # StandardScaler allows for the rounding of its sums in float64, but X may have been rounded to float32 before
        self._constant = (found.scale_ != deviation) | (deviation <= spacing * np.abs(found.mean_))
        self.mean_, self.scale_ = found.mean_, np.where(self._constant, 1, deviation)

    def _layers(self, classes: int) -> Layer:
        shape = (self.n_features_in_,) if self.sample_shape is None else tuple(self.sample_shape)
        good = len(shape) in (1, 3) and prod(shape) == self.n_features_in_
        require("sample_shape", shape, lambda _: good, f"(N,) or (C, H, W) of {self.n_features_in_} numbers")
        if self.model is not None:
            return self.model(self._make_neuron, shape, classes)
        sizes = self.hidden_layer_sizes
        good = isinstance(sizes, Sequence) and all(is_integer(size) and size >= 1 for size in sizes)
        require("hidden_layer_sizes", sizes, lambda _: good, "a sequence of integers >= 1")
        layers: list[Layer] = []
        before = self.n_features_in_
        for size in (*sizes, classes):
            layers += [Linear(before, int(size)), BatchNorm(int(size)), self._make_neuron()]
            before = int(size)
        return Sequential(*layers)

    def _make_neuron(self) -> Layer:
        require(
            "neuron", self.neuron, lambda kind: type(kind) is str and kind in SPIKING, " or ".join(map(repr, SPIKING))
        )
        height = self.v_threshold * (self.delta_t if self.neuron in kinds_with("delta_t") else 1)
        options = {"v_threshold": height, "alpha": self.alpha, "tau": self.tau, "delta_t": self.delta_t}
        return make_neuron(self.neuron, options)

    def _train(self, network: Network, samples: Values, codes: NDArray[Any], rng: np.random.Generator) -> list[float]:
        optimizer = SGD(network.parameters(), self.learning_rate, self.momentum, self.weight_decay)
        count, losses, step = len(samples), [], 0
        # batches of nearly the same size, because a last one of a single sample has no variance to normalise by
        batches = -(-count // min(self.batch_size, count))
        if count // batches < 2:
            batches = count // 2
        for epoch in range(self.epochs):
            total = 0.0
            for numbers in np.array_split(rng.permutation(count), batches):
                rates = network.forward(samples[numbers], training=True)
                loss, grad = cross_entropy(rates, codes[numbers])
                if not np.isfinite(loss):
                    raise FloatingPointError(f"SpikingClassifier.fit: the loss of step {step} is {loss}")
                network.backward(grad)
                optimizer.learning_rate = cosine(epoch, base=self.learning_rate, epochs=self.epochs)
                optimizer.step()
                total, step = total + loss * len(numbers), step + 1
            losses.append(total / count)
        return losses

    def _standardised(self, function: str, samples: NDArray[np.float64]) -> Values:
        with np.errstate(over="ignore"):
            values = ((samples - self.mean_) / self.scale_).astype(np.float32)
        values[:, self._constant] = 0
        if not np.isfinite(values).all():
            raise ValueError(
                f"SpikingClassifier.{function}: argument 'X': expected numbers like those of fit, got larger ones"
            )
        return values if self.sample_shape is None else values.reshape(-1, *self.sample_shape)

    def _probabilities(self, function: str, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        values = self._standardised(function, as_samples(function, self, X)[0])
        rates = [self.network_.forward(values[i : i + _BATCH]) for i in range(0, len(values), _BATCH)]
        exponentials = np.concatenate(rates).astype(np.float64)
        exponentials = np.exp(exponentials - exponentials.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)
