"""What the estimators have in common: parameters, standardised features, layers and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.containers import Sequential
from dsr.nn.convolution import Linear
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm
from dsr.nn.registry import SPIKING, kinds_with, make_neuron
from dsr.ops import Values
from dsr.ops.arguments import as_positive
from dsr.ops.batches import batches_of
from dsr.optim.optimizers import SGD
from dsr.optim.schedule import cosine

try:
    from sklearn.base import BaseEstimator
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.validation import check_is_fitted

    from dsr.sklearn.inputs import as_generator, as_samples, is_integer, require
except ImportError as error:
    raise ImportError(
        "dsr.SpikingClassifier and dsr.SpikingRegressor need scikit-learn 1.6 or newer: pip install dsr[sklearn] "
        f"({error})"
    ) from None

Model = Callable[[Callable[[], Layer], tuple[int, ...], int], Layer]
"""Makes the layers of a network from ``make_neuron, sample_shape, outputs``, as `dsr.models.digits` does."""

Loss = Callable[[Values, NDArray[Any]], tuple[float, Values]]

_BATCH = 256


class SpikingEstimator(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Base of `SpikingClassifier`, which says what the parameters mean, and `SpikingRegressor`."""

    _typical_learning_rate: ClassVar[float]

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
        learning_rate: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_layer_sizes, self.model, self.sample_shape = hidden_layer_sizes, model, sample_shape
        self.neuron, self.timesteps = neuron, timesteps
        self.v_threshold, self.alpha, self.tau, self.delta_t = v_threshold, alpha, tau, delta_t
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.momentum, self.weight_decay, self.random_state = momentum, weight_decay, random_state

    def _fit(
        self, samples: NDArray[np.float64], spacing: float, targets: NDArray[Any], outputs: int, loss: Loss
    ) -> None:
        """Train a new network; the samples are those of `as_samples`, the targets what the loss takes."""
        for name in ("timesteps", "epochs", "batch_size"):
            require(self, name, getattr(self, name), lambda value: is_integer(value) and value >= 1, "an integer >= 1")
        self._set_scale(samples, spacing)
        rng = as_generator(self)
        network = Network(self._layers(outputs), int(self.timesteps), seed=int(rng.integers(2**63)))
        self.loss_curve_ = self._train(network, self._standardised("fit", samples), targets, loss, rng)
        self.network_ = network

    def _rates(self, function: str, X: ArrayLike) -> NDArray[np.float64]:
        """Output of the network for X, (samples, outputs)."""
        check_is_fitted(self)
        values = self._standardised(function, as_samples(function, self, X)[0])
        rates = [self.network_.forward(part) for part in batches_of(values, 0, _BATCH)]
        return np.concatenate(rates).astype(np.float64)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def _set_scale(self, samples: NDArray[np.float64], spacing: float) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            found = StandardScaler().fit(samples)
        if not np.isfinite(found.var_).all():
            raise ValueError(f"{self._name}.fit: argument 'X': expected numbers whose squares are finite")
        deviation = np.sqrt(found.var_)
        # StandardScaler allows for the rounding of its sums in float64, but X may have been rounded to float32 before
        self._constant = (found.scale_ != deviation) | (deviation <= spacing * np.abs(found.mean_))
        self.mean_, self.scale_ = found.mean_, np.where(self._constant, 1, deviation)

    def _layers(self, outputs: int) -> Layer:
        shape = (self.n_features_in_,) if self.sample_shape is None else tuple(self.sample_shape)
        good = len(shape) in (1, 3) and prod(shape) == self.n_features_in_
        require(self, "sample_shape", shape, lambda _: good, f"(N,) or (C, H, W) of {self.n_features_in_} numbers")
        if self.model is not None:
            return self.model(self._make_neuron, shape, outputs)
        sizes = self.hidden_layer_sizes
        good = isinstance(sizes, Sequence) and all(is_integer(size) and size >= 1 for size in sizes)
        require(self, "hidden_layer_sizes", sizes, lambda _: good, "a sequence of integers >= 1")
        layers: list[Layer] = []
        before = self.n_features_in_
        for size in (int(size) for size in sizes):
            layers += [Linear(before, size), BatchNorm(size), self._make_neuron()]
            before = size
        return Sequential(*layers, *self._read_out(before, outputs))

    def _read_out(self, before: int, outputs: int) -> list[Layer]:
        """The layers between the last hidden ones and the output."""
        raise NotImplementedError

    def _make_neuron(self) -> Layer:
        kinds = " or ".join(map(repr, SPIKING))
        require(self, "neuron", self.neuron, lambda kind: type(kind) is str and kind in SPIKING, kinds)
        options = {"v_threshold": self.v_threshold, "alpha": self.alpha, "tau": self.tau, "delta_t": self.delta_t}
        if self.neuron in kinds_with("delta_t"):  # spikes of the height v_threshold, as those of IF
            name = f"{type(self).__name__}.fit"
            height, step = (as_positive(name, key, options[key]) for key in ("v_threshold", "delta_t"))
            options["v_threshold"] = height * step
        return make_neuron(self.neuron, options)

    def _train(
        self, network: Network, samples: Values, targets: NDArray[Any], loss: Loss, rng: np.random.Generator
    ) -> list[float]:
        base = self._typical_learning_rate if self.learning_rate is None else self.learning_rate
        optimizer = SGD(network.parameters(), base, self.momentum, self.weight_decay)
        count, losses, step = len(samples), [], 0
        # batches of nearly the same size, because a last one of a single sample has no variance to normalise by
        batches = -(-count // min(self.batch_size, count))
        if count // batches < 2:
            batches = count // 2
        for epoch in range(self.epochs):
            total = 0.0
            for numbers in np.array_split(rng.permutation(count), batches):
                rates = network.forward(samples[numbers], training=True)
                value, grad = loss(rates, targets[numbers])
                if not np.isfinite(value):
                    raise FloatingPointError(f"{self._name}.fit: the loss of step {step} is {value}")
                network.backward(grad)
                optimizer.learning_rate = cosine(epoch, base=base, epochs=self.epochs)
                optimizer.step()
                total, step = total + value * len(numbers), step + 1
            losses.append(total / count)
        return losses

    def _standardised(self, function: str, samples: NDArray[np.float64]) -> Values:
        with np.errstate(over="ignore"):
            values = ((samples - self.mean_) / self.scale_).astype(np.float32)
        values[:, self._constant] = 0
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self._name}.{function}: argument 'X': expected numbers like those of fit, got larger ones"
            )
        return values if self.sample_shape is None else values.reshape(-1, *self.sample_shape)
