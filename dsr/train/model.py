"""A trained network with its preprocessing and the names of its classes: loaded from a run or a file, and saved.

>>> model = dsr.load("runs/digits")
>>> model.predict(["three.png", "seven.png"])
array(['3', '7'], dtype='<U1')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.data.preprocessing import Preprocessing
from dsr.data.raw import raw_batches
from dsr.data.targets import Task
from dsr.deploy.integer_file import KIND as INTEGER
from dsr.deploy.outputs import predictions, probabilities, require_probabilities
from dsr.files import checkpoint, reference
from dsr.nn.network import Network
from dsr.ops import Geometry, Values
from dsr.ops.arguments import as_count
from dsr.ops.batches import batches_of
from dsr.ops.sums import same_bits
from dsr.train import run_folder
from dsr.train.architecture import NotDescribedError, describe, make
from dsr.train.inference import Forward, inference

KIND = "model"
"""What the metadata of a file of `save` call it."""
BATCH = 256


class Model:
    """A network, how raw samples become what it gets, and what its outputs are called.

    Parameters
    ----------
    network : Network
        Trained.
    classes : sequence of str
        Names of its outputs.
    preprocessing : Preprocessing, optional
        Of raw samples; None: samples are given as the network takes them.
    task : {"classification", "multilabel", "regression", "other"}
        What the outputs are.
    about : mapping, optional
        Where it is from: the metadata of its checkpoint.
    """

    def __init__(
        self,
        network: Network,
        classes: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
        task: Task = "classification",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"Model: argument 'network': expected a Network, got {type(network).__name__}")
        self.network, self.classes, self.preprocessing = network, tuple(classes), preprocessing
        self.task, self.about = task, dict(about or {})
        self._compiled: _Compiled | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickled, and copied, without what is compiled."""
        return {**vars(self), "_compiled": None}

    def outputs(self, x: ArrayLike | str | Path | Sequence[str | Path], batch_size: int = BATCH) -> Values:
        """Output rates of raw samples.

        Parameters
        ----------
        x : array_like or path or sequence of path
            Raw samples as their data set has them, see `dsr.data.Preprocessing.batch`: images as bytes (uint8),
            (B, C, H, W), are normalised as in training. Or files: images, recordings, arrays (``.npy``, ``.npz``).
        batch_size : int
            Samples at a time.

        Returns
        -------
        ndarray of float32, shape (B, outputs)

        Raises
        ------
        TypeError, ValueError
            These are no such samples, or not of the shape that the network takes.
        OSError
            A file cannot be read.
        """
        function = "Model.predict"
        size = as_count(function, "batch_size", batch_size)
        batches = raw_batches(function, x, self.preprocessing, size)
        return np.concatenate([self._forward(function, batch, size) for batch in batches])

    def predict(self, x: ArrayLike | str | Path | Sequence[str | Path], batch_size: int = BATCH) -> NDArray[Any]:
        """The class of each sample, by its name; for several labels which are there; for real values these.

        Parameters and errors are those of `outputs`.

        Returns
        -------
        ndarray of str, shape (B,); of bool, (B, K); or of float32, (B, K)
            Class numbers, (B,), where the classes have no names.
        """
        return predictions(self.outputs(x, batch_size), self.task, self.classes)

    def predict_proba(
        self, x: ArrayLike | str | Path | Sequence[str | Path], batch_size: int = BATCH
    ) -> NDArray[np.float64]:
        """Probabilities of the classes: softmax of the output rates; of several labels: the logistic function.

        They are what cross-entropy trained them to be, which need not be calibrated. Parameters and errors are those of
        `outputs`.

        Returns
        -------
        ndarray of float64, shape (B, classes)
            Columns as in `classes`.

        Raises
        ------
        ValueError
            The outputs are real values, which have no probabilities.
        """
        require_probabilities("Model.predict_proba", self.task)
        return probabilities(self.outputs(x, batch_size), self.task)

    def __repr__(self) -> str:
        """What it is, how good it was in its run, and the network."""
        names = ", ".join(self.classes[:10]) + (", ..." if len(self.classes) > 10 else "")
        lines = [f"Model, {self.task}, {len(self.classes)} outputs: {names}", *self._history(), repr(self.network)]
        return "\n".join(lines)

    def _history(self) -> list[str]:
        metrics = self.about.get("metrics") or {}
        known = {k: v for k, v in metrics.items() if k.startswith(("test_", "validation_"))}
        lines = [f"epoch {metrics['epoch']}: {k.replace('_', ' ')} {v:.4f}" for k, v in known.items()]
        if self.about.get("best") and run_folder.optimistic(self.about):
            lines.append(run_folder.OPTIMISTIC)
        return lines

    def _forward(self, function: str, batch: Values, batch_size: int) -> Values:
        axis = self.network.batch_axis(batch, function, "x")
        count = batch.shape[axis]
        if count == 0:
            raise ValueError(f"{function}: argument 'x': expected at least one sample, got none")
        forward = self._inference(batch)
        if count <= batch_size:
            return forward(batch)
        return np.concatenate([forward(part) for part in batches_of(batch, axis, batch_size)])

    def _inference(self, images: Values) -> Forward:
        """The compiled network; compiled anew when its weights or settings are not those any more."""
        made, arrays = self._compiled, dict(self.network.arrays())
        fits = made is not None and made.fits(self.network, images)
        if made is not None and fits and all(same_bits(made.arrays[name], a) for name, a in arrays.items()):
            return made.forward
        axis = self.network.batch_axis(images)
        features, kept = images.shape[axis + 1 :], {name: array.copy() for name, array in arrays.items()}
        forward = inference(self.network, images)
        self._compiled = _Compiled(forward, _settings(self.network), features, kept)
        return forward


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A network compiled for samples of a shape, and the settings and weights that it had then."""

    forward: Forward
    settings: list[tuple[Any, ...]]
    features: tuple[int, ...]
    arrays: Mapping[str, NDArray[Any]]

    def fits(self, network: Network, images: Values) -> bool:
        """Whether it was compiled for these, weights aside."""
        return self.features == images.shape[-len(self.features) :] and self.settings == _settings(network)


def _settings(network: Network) -> list[tuple[Any, ...]]:
    """All that can be set of a network, and of each of its layers, but arrays."""
    of_layers = (
        (path, type(layer), {name: value for name, value in vars(layer).items() if name[0] != "_" and _is_plain(value)})
        for path, layer in network.body.walk()
    )
    return [(network.timesteps, network.weight_bits), *of_layers]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Geometry)


def load(
    source: str | Path,
    *,
    best: bool = False,
    timesteps: int | None = None,
    network: Network | None = None,
    run_code: bool = False,
) -> Model:
    """A trained model from a run folder, a checkpoint or a file of `save`.

    Parameters
    ----------
    source : path
        The run folder or the file.
    best : bool
        Of a run folder, the checkpoint of the best epoch, not of the last one. Unless the run held samples out for
        validation, it was chosen on the test samples, and its accuracy on them is too high an estimate.
    timesteps : int, optional
        Another T than trained with.
    network : Network, optional
        One that takes the weights, where the file does not describe one.
    run_code : bool
        Whether the code that a run refers to may be run. It is needed only where a network has layers of classes of
        your own; without it, nothing in a run folder or file is ever run.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        The file is damaged or not of dsr, or its network cannot be made; the message says what is missing.
    ValueError
        `timesteps` does not fit the network.
    OSError
        There is no such file.
    """
    path = Path(source)
    if path.is_dir():
        path = path / (run_folder.BEST if best else run_folder.CHECKPOINT)
    elif best:
        raise ValueError(f"load: argument 'best': expected a run folder with it, got the file {path}")
    arrays, metadata = checkpoint.load(path)
    if metadata.get("kind") == INTEGER:
        raise checkpoint.CheckpointError(f"{path}: an integer network; dsr.IntegerModel.load reads it")
    if metadata.get("kind") == KIND and metadata.get("recipe") is None:
        made = network or _described(path, metadata, timesteps)
        try:
            made.load_state(run_folder.part(arrays, "network"))
        except (TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path}: {error}") from None
    else:
        made, recipe, metadata = run_folder.load_checkpoint(path, timesteps, run_code, network=network)
        timesteps = recipe.timesteps
    about = {**metadata, "best": best or metadata.get("best", False)}
    return Model(
        made, metadata["classes"], _preprocessing(path, metadata, timesteps), metadata.get("task", TASK), about
    )


TASK: Task = "classification"
"""Of checkpoints from before there were others."""


def save(model: Model | Network, file: str | Path) -> None:
    """Write a whole model into one file: weights, layers, preprocessing and names of classes.

    `dsr.load` makes it again without any of your code, if its layers are of dsr.

    Parameters
    ----------
    model : Model or Network
        From `dsr.load`, or a network alone.
    file : path
        Such as ``model.safetensors``; an older one is replaced at the end, in one step.

    Raises
    ------
    TypeError
        It is neither.
    ValueError
        The network has layers of a class of your own, and no run says how to make them.
    OSError
        The file could not be written; an older one is as it was.
    """
    if isinstance(model, Network):
        model = Model(model)
    if not isinstance(model, Model):
        raise TypeError(f"save: argument 'model': expected a Model or a Network, got {type(model).__name__}")
    kept = ("recipe", "references", "features", "metrics", "best_chosen_on", "best")
    about = {name: model.about[name] for name in kept if name in model.about}
    if "recipe" in about:
        about["recipe"] = {**about["recipe"], "timesteps": model.network.timesteps}
        about["recipe"]["weight_bits"] = model.network.weight_bits
    try:
        network: dict[str, Any] = describe(model.network.body)
    except NotDescribedError as error:
        recipe = about.get("recipe") or {}
        if not reference.is_reference(recipe.get("model", "")):
            raise ValueError(
                f"save: argument 'model': {error}; only its arrays can be saved: network.state()"
            ) from None
        network = {"missing": str(error)}
    preprocessing = model.preprocessing and model.preprocessing.to_dict()
    arrays = {f"network.{name}": array for name, array in model.network.arrays()}
    metadata = {"kind": KIND, "network": network, "timesteps": model.network.timesteps, "classes": list(model.classes)}
    metadata["weight_bits"] = model.network.weight_bits
    checkpoint.save(file, arrays, {**metadata, "task": model.task, "preprocessing": preprocessing, **about})


def _described(path: Path, metadata: Mapping[str, Any], timesteps: int | None) -> Network:
    try:
        bits = metadata.get("weight_bits", 0)  # older files have none
        return Network(make(metadata["network"]), timesteps or metadata["timesteps"], weight_bits=bits)
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path}: {error}") from None


def _preprocessing(path: Path, metadata: Mapping[str, Any], timesteps: int | None) -> Preprocessing | None:
    values = metadata.get("preprocessing")
    if values is None:
        return None
    try:
        found = Preprocessing.from_dict(values)
    except (AttributeError, TypeError) as error:
        raise checkpoint.CheckpointError(f"{path}: its preprocessing cannot be read ({error})") from None
    if timesteps is None or not found.has_time:
        return found
    return found.with_timesteps(timesteps)
