"""Training and evaluation loops, and the run folder that they leave behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import checkpoint, data, models, recipe, schedule
from dsr.data import DataSet
from dsr.lanes import Values
from dsr.losses import cross_entropy
from dsr.network import Network, spike_rates
from dsr.optim import SGD, Adam, Optimizer
from dsr.progress import progress
from dsr.recipe import Recipe

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"


def train_step(
    network: Network, optimizer: Optimizer, images: Values, labels: NDArray[Any], label_smoothing: float = 0.0
) -> tuple[float, int]:
    """One step on one batch: loss, and the number of samples classified correctly.

    Raises
    ------
    FloatingPointError
        The loss is not finite.
    """
    rates = network.forward(images, training=True)
    loss, grad = cross_entropy(rates, labels, label_smoothing)
    if not np.isfinite(loss):
        raise FloatingPointError(f"train_step: the loss is {loss}")
    network.backward(grad)
    optimizer.step()
    return loss, int((rates.argmax(axis=1) == labels).sum())


def accuracy(network: Network, images: Values, labels: NDArray[Any], batch_size: int = 256) -> float:
    """Share of samples classified correctly, in [0, 1]."""
    if len(images) == 0:
        raise ValueError("accuracy: argument 'images': expected at least one sample, got none")
    return float((network.predict(images, batch_size) == labels).mean())


class Trainer:
    """Trains the network of a recipe and keeps a run folder.

    Parameters
    ----------
    run : Recipe
        What to train and how.
    samples : DataSet
        On what.
    folder : path
        Where checkpoint and metrics go; made if it does not exist.
    say : callable
        Gets the line of each epoch.
    """

    def __init__(self, run: Recipe, samples: DataSet, folder: str | Path, say: Callable[[str], object] = print) -> None:
        self.recipe, self.data, self.folder, self.say = run, samples, Path(folder), say
        self.network = models.build(run, samples.features, len(samples.classes))
        self.optimizer = make_optimizer(run, self.network)
        self.step = 0

    def fit(self) -> dict[str, Any]:
        """Train for all epochs; the metrics of the last one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        metrics: dict[str, Any] = {}
        with open(self.folder / METRICS, "w", encoding="utf-8") as log:
            for epoch in range(self.recipe.epochs):
                metrics = self._epoch(epoch)
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                self.say(describe(metrics, self.recipe.epochs))
                self._save(metrics)
        return metrics

    def _batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Sample numbers of each batch; the order follows from seed and epoch alone."""
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.data.train_images))
        size = self.recipe.batch_size
        # a last batch of one sample has no variance to normalise by
        for start in range(0, len(order), size):
            if len(order) - start > 1 or len(order) == 1:
                yield order[start : start + size]

    def _epoch(self, epoch: int) -> dict[str, Any]:
        started = time.perf_counter()
        batches = list(self._batches(epoch))
        losses, correct, seen = 0.0, 0, 0
        for batch in progress(batches, f"epoch {epoch + 1}/{self.recipe.epochs}"):
            self.optimizer.learning_rate = schedule.cosine(
                self.step,
                base=self.recipe.learning_rate,
                epochs=self.recipe.epochs,
                steps_per_epoch=len(batches),
                warmup_steps=self.recipe.warmup_steps,
            )
            try:
                loss, right = train_step(
                    self.network,
                    self.optimizer,
                    self.data.train_images[batch],
                    self.data.train_labels[batch],
                    self.recipe.label_smoothing,
                )
            except FloatingPointError as error:
                raise FloatingPointError(f"epoch {epoch + 1}, step {self.step}: {error}") from None
            self.step += 1
            losses, correct, seen = losses + loss * len(batch), correct + right, seen + len(batch)
        trained = time.perf_counter() - started
        return {
            "epoch": epoch + 1,
            "loss": losses / seen,
            "train_accuracy": correct / seen,
            "test_accuracy": accuracy(self.network, self.data.test_images, self.data.test_labels),
            "learning_rate": self.optimizer.learning_rate,
            "seconds": trained,
            "firing_rate": spike_rates(self.network, self.data.test_images[:256]),
            "v_threshold": {path: neuron.effective_threshold() for path, neuron in self.network.neurons()},
        }

    def _save(self, metrics: dict[str, Any]) -> None:
        arrays = {f"network.{name}": array for name, array in self.network.state().items()}
        arrays |= {f"optimizer.{name}": array for name, array in self.optimizer.state().items()}
        checkpoint.save(
            self.folder / CHECKPOINT,
            arrays,
            {
                "recipe": self.recipe.to_dict(),
                "features": list(self.data.features),
                "classes": list(self.data.classes),
                "step": self.step,
                "metrics": metrics,
            },
        )


def make_optimizer(run: Recipe, network: Network) -> Optimizer:
    """The optimiser of a recipe."""
    if run.optimizer == "adam":
        return Adam(network.parameters(), run.learning_rate, weight_decay=run.weight_decay)
    return SGD(network.parameters(), run.learning_rate, run.momentum, run.weight_decay, run.nesterov)


def load_run(folder: str | Path) -> tuple[Network, Recipe, dict[str, Any]]:
    """Network, recipe and metadata of a run folder.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged or not of dsr.
    OSError
        There is none.
    """
    arrays, metadata = checkpoint.load(Path(folder) / CHECKPOINT)
    try:
        run = recipe.from_dict(metadata["recipe"])
        network = models.build(run, tuple(metadata["features"]), len(metadata["classes"]))
        prefix = "network."
        network.load_state({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{Path(folder) / CHECKPOINT}: {error}") from None
    return network, run, metadata


def load_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Metrics of each epoch of a run."""
    with open(Path(folder) / METRICS, encoding="utf-8") as log:
        return [json.loads(line) for line in log]


def evaluate_run(folder: str | Path) -> float:
    """Test accuracy of a run, computed anew from its checkpoint."""
    network, run, _ = load_run(folder)
    samples = data.load(run.data)
    return accuracy(network, samples.test_images, samples.test_labels)


def describe(metrics: dict[str, Any], epochs: int) -> str:
    """One line for people: loss, accuracies, firing rate and threshold of each spiking layer."""
    rates = " ".join(f"{rate:.3f}" for rate in metrics["firing_rate"].values())
    thresholds = " ".join(f"{value:.3f}" for value in metrics["v_threshold"].values())
    return (
        f"epoch {metrics['epoch']:{len(str(epochs))}}/{epochs}  loss {metrics['loss']:.4f}  "
        f"train {100 * metrics['train_accuracy']:6.2f} %  test {100 * metrics['test_accuracy']:6.2f} %  "
        f"firing rate {rates}  v_threshold {thresholds}  {metrics['seconds']:.1f} s"
    )
