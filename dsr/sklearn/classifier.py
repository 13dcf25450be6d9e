"""A spiking network as a classifier in the manner of scikit-learn, which need not be installed.

>>> from sklearn.model_selection import cross_val_score
>>> cross_val_score(dsr.SpikingClassifier(random_state=0), X, y).mean()

Nothing is inherited from scikit-learn, so that importing dsr does not import it; what it asks of an estimator is here,
and its classes of errors and tags are used where it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from math import prod
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.containers import Sequential
from dsr.nn.convolution import Linear
from dsr.nn.layer import Layer
from dsr.nn.losses import cross_entropy
from dsr.nn.network import Network
from dsr.nn.neurons import IF, LIF
from dsr.nn.norm import BatchNorm
from dsr.ops import Values
from dsr.optim.optimizers import SGD
from dsr.optim.schedule import cosine
from dsr.sklearn.inputs import as_generator, as_labels, as_samples, column_names, is_whole, of_sklearn, require

Model = Callable[[Callable[[], Layer], tuple[int, ...], int], Layer]
"""Gives the layers of a network for ``make_neuron, sample_shape, classes``, as `dsr.models.digits` does."""

_BATCH = 256


class SpikingClassifier:
    """Classify vectors by a network of spiking neurons.

    By default the network is ``Linear, BatchNorm, neurons`` for each hidden layer and for the read-out, whose firing
    rates are the scores of the classes. Features are standardised first, by means and deviations of the training set,
    and given as the same current at every time step. Training is SGD with a cosine learning rate.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        Neurons of each hidden layer.
    model : callable, optional
        Makes other layers, ``model(make_neuron, sample_shape, classes)``, such as `dsr.models.digits` or one of your
        own; then `hidden_layer_sizes` is not used.
    sample_shape : tuple of int, optional
        ``(C, H, W)``, what a row of X is reshaped to for `model`, such as ``(1, 8, 8)``.
    neuron : {"if", "lif"}
        Kind of the neurons.
    timesteps : int
        T.
    v_threshold : float
        Threshold that neurons start with; it is trained. For LIF it is multiplied with `delta_t`, which makes outputs
        as large as those of IF.
    alpha : float
        Firing threshold as a share of `v_threshold`.
    tau, delta_t : float
        Time constant and step of LIF.
    epochs : int
        Passes over the training set.
    batch_size : int
        Samples of a step, at most; but always at least 2.
    learning_rate, momentum, weight_decay : float
        Of SGD.
    random_state : int, Generator, RandomState or None
        Of initial weights, dropout and the order of samples; an integer gives the same network each time.

    Attributes
    ----------
    classes_ : ndarray, shape (classes,)
        The labels, sorted.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X was a table whose columns all have one.
    mean_, scale_ : ndarray, shape (n_features_in_,)
        What features are standardised by.
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

    _estimator_type = "classifier"  # for scikit-learn before 1.6

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (128,),
        *,
        model: Model | None = None,
        sample_shape: tuple[int, ...] | None = None,
        neuron: Literal["if", "lif"] = "if",
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
            Real numbers.
        y : array_like, shape (samples,)
            Labels: integers, strings or other values that can be sorted.

        Returns
        -------
        SpikingClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            X or y are not such arrays, there are less than two samples or classes, or a parameter is out of range.
        FloatingPointError
            The loss is not finite.
        """
        names = column_names(X)
        samples = as_samples("fit", X)
        labels = as_labels(y, len(samples))
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"SpikingClassifier.fit: argument 'y': expected at least 2 classes, got 1 class: {classes}"
            )
        for name in ("timesteps", "epochs", "batch_size"):
            require(name, getattr(self, name), lambda value: is_whole(value) and value >= 1, "an integer >= 1")
        vars(self).pop("network_", None)  # a fit that fails leaves no network of an earlier one
        self.n_features_in_, self.classes_ = samples.shape[1], classes
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        with np.errstate(over="ignore", invalid="ignore"):
            self.mean_, deviation = samples.mean(axis=0), samples.std(axis=0)
        if not np.isfinite(deviation).all():
            raise ValueError("SpikingClassifier.fit: argument 'X': expected numbers whose squares are finite")
        self.scale_: NDArray[np.float64] = np.where(deviation > 0, deviation, 1)
        rng = as_generator(self.random_state)
        network = Network(self._layers(len(classes)), int(self.timesteps), seed=int(rng.integers(2**63)))
        self.loss_curve_ = self._train(network, self._standardised("fit", samples), codes.reshape(-1), rng)
        self.network_ = network
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Softmax of the firing rates of the read-out, shape (samples, classes); columns as in `classes_`."""
        self._require_fitted("predict_proba")
        return self._probabilities("predict_proba", X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The label of the largest rate, of several equal ones the first, shape (samples,)."""
        self._require_fitted("predict")
        return self.classes_[self._probabilities("predict", X).argmax(axis=1)]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of samples whose label is predicted, weighted by `sample_weight`."""
        self._require_fitted("score")
        right = self.classes_[self._probabilities("score", X).argmax(axis=1)]
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        return float(np.average(right == as_labels(y, len(right), "score"), weights=weights))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; `deep` is for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in signature(type(self).__init__).parameters if name != "self"}

    def set_params(self, **params: Any) -> Self:
        """Change parameters, for the next `fit`."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"SpikingClassifier.set_params: expected one of {', '.join(known)}, got {name!r}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = signature(type(self).__init__).parameters
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(defaults[k].default)]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        # only scikit-learn asks
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags  # type: ignore[import-untyped, import-not-found, unused-ignore]

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(),
        )

    def _layers(self, classes: int) -> Layer:
        shape = (self.n_features_in_,) if self.sample_shape is None else tuple(self.sample_shape)
        good = len(shape) in (1, 3) and prod(shape) == self.n_features_in_
        require("sample_shape", shape, lambda _: good, f"(N,) or (C, H, W) of {self.n_features_in_} numbers")
        if self.model is not None:
            return self.model(self._make_neuron, shape, classes)
        sizes = self.hidden_layer_sizes
        whole = isinstance(sizes, Sequence) and all(is_whole(size) and size >= 1 for size in sizes)
        require("hidden_layer_sizes", sizes, lambda _: whole, "a sequence of integers >= 1")
        layers: list[Layer] = []
        before = self.n_features_in_
        for size in (*sizes, classes):
            layers += [Linear(before, int(size)), BatchNorm(int(size)), self._make_neuron()]
            before = int(size)
        return Sequential(*layers)

    def _make_neuron(self) -> Layer:
        require("neuron", self.neuron, lambda kind: type(kind) is str and kind in ("if", "lif"), "'if' or 'lif'")
        if self.neuron == "if":
            return IF(self.v_threshold, self.alpha)
        return LIF(self.v_threshold * self.delta_t, self.tau, self.delta_t, self.alpha)

    def _train(self, network: Network, samples: Values, codes: NDArray[Any], rng: np.random.Generator) -> list[float]:
        optimizer = SGD(network.parameters(), self.learning_rate, self.momentum, self.weight_decay)
        count, losses, step = len(samples), [], 0
        # batches of nearly the same size: a last one of one sample has no variance to normalise by
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
        if not np.isfinite(values).all():
            raise ValueError(f"SpikingClassifier.{function}: argument 'X': a number is too far from those of fit")
        return values if self.sample_shape is None else values.reshape(-1, *self.sample_shape)

    def _probabilities(self, function: str, X: ArrayLike) -> NDArray[np.float64]:
        names, seen = column_names(X), getattr(self, "feature_names_in_", None)
        samples = as_samples(function, X)
        if samples.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {samples.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input"
            )
        if names is not None and seen is not None and list(names) != list(seen):
            raise ValueError(
                f"SpikingClassifier.{function}: argument 'X': expected the columns {', '.join(seen)}, "
                f"got {', '.join(names)}"
            )
        values = self._standardised(function, samples)
        rates = [self.network_.forward(values[i : i + _BATCH]) for i in range(0, len(values), _BATCH)]
        exponentials = np.concatenate(rates).astype(np.float64)
        exponentials = np.exp(exponentials - exponentials.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def _require_fitted(self, function: str) -> None:
        if not self.__sklearn_is_fitted__():
            error = of_sklearn("NotFittedError", ValueError)
            raise error(f"SpikingClassifier.{function}: expected a call of fit before it")
