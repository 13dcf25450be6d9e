"""Integer models: networks whose weights, potentials and thresholds are integers, so that all machines agree.

>>> model = dsr.quantize(dsr.load("runs/digits"), images, bits=8)
>>> model.predict(images)
>>> model.save("digits-8bit.safetensors")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.data.preprocessing import Preprocessing
from dsr.data.raw import raw_batches
from dsr.deploy import integer_steps as i
from dsr.deploy.idle import PLANS_KEPT, Idle
from dsr.deploy.integer_engine import Engine
from dsr.deploy.integer_file import load_steps, save_steps
from dsr.deploy.integer_plan import IntegerPlan, Sums
from dsr.deploy.lowering import lower
from dsr.deploy.outputs import predictions, probabilities, require_probabilities
from dsr.deploy.quantization import quantize_program
from dsr.deploy.stream_calls import OneThread, frames_of, numbers_of
from dsr.files.checkpoint import CheckpointError
from dsr.nn.network import Network
from dsr.nn.spikes import image_shape
from dsr.ops import Potentials, Values
from dsr.ops.arguments import as_array, as_count, require_finite, shown
from dsr.ops.batches import batches_of

BATCH = 64
"""Samples at a time."""
CALIBRATION = 256
"""Samples by which `quantize` goes, at most."""


class HasNetwork(Protocol):
    """A `dsr.Model`."""

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None
    task: Any
    about: dict[str, Any]


class IntegerModel:
    """A network of integers, with the preprocessing of raw samples and the names of its classes; see `quantize`.

    Attributes
    ----------
    steps : tuple of Step
        What it does, see `dsr.deploy.integer_steps`.
    timesteps, bits : int
        T, and the bits of its weights.
    features, output_features : tuple of int
        Shapes of a sample, ``(N,)``, ``(C, L)`` or ``(C, H, W)``, and of its output.
    classes : tuple of str
        Names of the outputs.
    task : str
        As of `dsr.Model`.
    preprocessing : Preprocessing or None
        Of raw samples; None: samples are given as the network takes them.

    Notes
    -----
    Spikes, and everything else but the last division, are integers: EXACT, the same on each instruction level, for any
    number of threads, on every processor, and in C (``dsr export --format c``). Threads may share a model.
    """

    def __init__(
        self,
        steps: Sequence[i.Step],
        timesteps: int,
        bits: int,
        features: Sequence[int],
        output_features: Sequence[int],
        classes: Sequence[str] = (),
        task: str = "classification",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.steps, self.timesteps, self.bits = tuple(steps), timesteps, bits
        self.features, self.output_features = tuple(features), tuple(output_features)
        self.classes, self.task, self.preprocessing = tuple(classes), task, preprocessing
        self._engine = Engine(self.steps)
        self._runs, self._streams = Idle[IntegerPlan](), Idle[IntegerStream]()

    batch = BATCH
    """Samples that `run` and early exit compute together, at most."""

    def run(self, data: ArrayLike, timesteps: int | None = None) -> Values:
        """Output rates of samples as the network takes them.

        Parameters
        ----------
        data : array_like, shape ``(B, *features)`` or ``(T, B, *features)``
            Static samples, given to every step, or one frame a step.
        timesteps : int, optional
            Another T for static samples; for frames it is their number.

        Returns
        -------
        ndarray of float32, shape ``(B, *output_features)``

        Raises
        ------
        TypeError, ValueError
            `data` is not of one of these shapes, or has a value that is not finite.
        """
        array, axis = self.checked("IntegerModel.run", "data", data)
        steps = self.timesteps if timesteps is None else as_count("IntegerModel.run", "timesteps", timesteps)
        if axis == 1:
            if timesteps is not None and steps != len(array):
                raise ValueError(
                    f"IntegerModel.run: argument 'timesteps': expected {len(array)} as in 'data', got {steps}"
                )
            steps = len(array)
        if array.shape[axis] <= self.batch:
            return self._run(array, axis, steps)
        return np.concatenate([self._run(part, axis, steps) for part in batches_of(array, axis, self.batch)])

    __call__ = run

    def start(self, batch: int = 1) -> IntegerStream:
        """Begin a stream of so many samples, whose frames come one after the other."""
        return IntegerStream(self, as_count("IntegerModel.start", "batch", batch))

    def outputs(self, x: Any, batch_size: int = 256) -> Values:
        """Output rates of raw samples or files, (B, outputs); arguments and errors are those of `Model.outputs`."""
        function, size = "IntegerModel.predict", as_count("IntegerModel.predict", "batch_size", batch_size)
        return np.concatenate([self.run(batch) for batch in raw_batches(function, x, self.preprocessing, size)])

    def predict(self, x: Any, batch_size: int = 256) -> NDArray[Any]:
        """The class of each sample by its name or number, as `Model.predict`."""
        return predictions(self.outputs(x, batch_size), self.task, self.classes)

    def predict_proba(self, x: Any, batch_size: int = 256) -> NDArray[np.float64]:
        """Probabilities of the classes or labels, (B, classes), as `Model.predict_proba`.

        Computed in double from the rates, which are EXACT; exponentials are the machine's.
        """
        require_probabilities("IntegerModel.predict_proba", self.task)
        return probabilities(self.outputs(x, batch_size), self.task)

    def save(self, file: str | Path) -> None:
        """Write it into one file, which `IntegerModel.load` reads; OSError if that fails, an older one is as it was."""
        about = {"bits": self.bits, "timesteps": self.timesteps, "features": self.features}
        about |= {"output_features": self.output_features, "classes": self.classes, "task": self.task}
        preprocessing = self.preprocessing and self.preprocessing.to_dict()
        save_steps(file, self.steps, {**about, "preprocessing": preprocessing})

    @classmethod
    def load(cls, file: str | Path) -> IntegerModel:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            The file is damaged, of another kind, or of a version that is not known; the message says what.
        OSError
            The file cannot be read.
        """
        steps, about = load_steps(file)
        try:
            values = about["preprocessing"]
            taken, given = (
                tuple(as_count("file", name, n) for n in about[name]) for name in ("features", "output_features")
            )
            if image_shape(taken) != steps[0].features or image_shape(given) != steps[-1].features:
                raise ValueError(f"features {taken} and {given} are not those of its steps")
            classes = about["classes"]
            if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
                raise TypeError("'classes': expected names")
            return cls(
                steps,
                as_count("file", "timesteps", about["timesteps"]),
                as_count("file", "bits", about["bits"]),
                taken,
                given,
                classes,
                str(about["task"]),
                None if values is None else Preprocessing.from_dict(values),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: {error}") from None

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights, biases and thresholds, as in a file."""
        total = 0
        for step in self.steps:
            if isinstance(step, i.Neurons | i.ReadCurrent):
                total += sum(term.weight.nbytes for term in step.terms) + step.bias.nbytes
            if isinstance(step, i.Neurons):
                total += 4 * len(step.reset)
        return total

    def __repr__(self) -> str:
        """What it is, and its steps."""
        lines = [
            f"  {n}  {type(s).__name__}  {'x'.join(map(str, s.features))}  {s.path}" for n, s in enumerate(self.steps)
        ]
        head = f"IntegerModel, {self.bits} bits, T = {self.timesteps}, {self.weight_bytes:,} bytes"
        return "\n".join([head, *lines])

    def checked(self, function: str, name: str, data: ArrayLike) -> tuple[NDArray[Any], int]:
        """Static samples or frames, and the axis of the samples; or an error that names the argument."""
        array = as_array(function, name, data)
        axes = len(self.features)
        axis = array.ndim - axes - 1
        if axis not in (0, 1) or array.shape[axis + 1 :] != self.features:
            tail = ", ".join(map(str, self.features))
            raise ValueError(
                f"{function}: argument '{name}': expected shape (B, {tail}) or (T, B, {tail}), got {array.shape}"
            )
        if axis == 1 and len(array) == 0:
            raise ValueError(f"{function}: argument '{name}': expected at least one time step, got shape {array.shape}")
        require_finite(function, name, array)
        return array, axis

    def take(self, batch: int) -> IntegerStream:
        """A stream of so many samples, at its start, for calls inside of dsr; its `give_back` keeps the memory."""
        stream = self._streams.take(batch)
        if stream is None:
            return IntegerStream(self, batch)
        stream.restart()
        return stream

    def _run(self, array: NDArray[Any], axis: int, timesteps: int) -> Values:
        count = array.shape[axis]
        if count == 0:
            return np.empty((0, *self.output_features), np.float32)
        kind = count, timesteps, axis
        plan = self._runs.take(kind) or IntegerPlan(self._engine, timesteps, count, axis == 0, None)
        try:
            plan.run(array, changed=True)
            sums = Sums(self.steps[-1], count)
            plan.read(sums)
            return sums.rates().reshape(count, *self.output_features)
        finally:
            self._runs.give_back(kind, plan)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, and copied, it is its steps; memory stays behind."""
        about = self.classes, self.task, self.preprocessing
        numbers = self.timesteps, self.bits, self.features, self.output_features
        return IntegerModel, (self.steps, *numbers, *about), {"batch": self.batch}


class IntegerStream:
    """Frames one after the other: potentials are kept from each to the next. For one thread at a time.

    Any way of cutting time gives the bits of `IntegerModel.run` over the whole.
    """

    def __init__(self, model: IntegerModel, batch: int) -> None:
        self.model, self.batch = model, batch
        self._potentials: dict[int, Potentials] = {}
        self._plans: dict[tuple[int, bool], IntegerPlan] = {}
        self._held_by: IntegerPlan | None = None
        self._sums = Sums(model.steps[-1], batch)
        self._owner = OneThread("IntegerModel.start")

    def step(self, frame: ArrayLike) -> Values:
        """The rates so far, after one more frame: ``(B, *features)``, or ``(*features)`` for one sample.

        Raises
        ------
        TypeError, ValueError
            `frame` is not of this shape, or has a value that is not finite.
        RuntimeError
            Another thread uses the stream.
        """
        return self._step("IntegerStream.step", frame, several=False)

    def steps(self, frames: ArrayLike) -> Values:
        """Several steps at once, ``(S, B, *features)``, with the same bits as one by one; the rates behind the last.

        Errors are those of `step`.
        """
        return self._step("IntegerStream.steps", frames, several=True)

    def _step(self, function: str, frames: ArrayLike, several: bool) -> Values:
        array = frames_of(function, frames, self.batch, self.model.features, several)
        require_finite(function, "frames" if several else "frame", array)
        with self._owner.call(function):
            self.advance(array, len(array) if several else 1, held=not several)
            return self.rates()

    def advance(self, array: NDArray[Any], steps: int, held: bool, changed: bool = True) -> None:
        """Do steps, as ``Stream.advance`` of float networks."""
        key = steps, held or steps == 1
        if key not in self._plans:
            if len(self._plans) >= PLANS_KEPT:
                self._plans = {}
            self._plans[key] = IntegerPlan(self.model._engine, steps, self.batch, key[1], self._potentials)
        plan = self._plans[key]
        plan.run(array, changed or plan is not self._held_by)
        plan.read(self._sums)
        self._held_by = plan

    def rates(self) -> Values:
        """Output rates so far, ``(B, *output_features)``; 0 of samples that have seen no step."""
        return self._sums.rates().reshape(self.batch, *self.model.output_features)

    def selected(self, numbers: NDArray[np.int64]) -> IntegerStream:
        """A stream of some of the samples, which goes on from here; `give_back` keeps its memory."""
        other = self.model.take(len(numbers))
        for number, potentials in self._potentials.items():
            kept = potentials.take(numbers, 3)
            np.copyto(other._potentials.setdefault(number, kept), kept)
        np.take(self._sums.total, numbers, 3, out=other._sums.total)
        np.take(self._sums.count, numbers, out=other._sums.count)
        return other

    def give_back(self) -> None:
        """Keep the memory of this stream for the next `IntegerModel.take`; it is not to be used any more."""
        self.model._streams.give_back(self.batch, self)

    def reset(self, samples: ArrayLike | None = None) -> None:
        """Begin anew with these samples, by their numbers in the batch; by default with all.

        Raises
        ------
        TypeError, ValueError
            These are no numbers of samples.
        RuntimeError
            Another thread uses the stream.
        """
        numbers = numbers_of("IntegerStream.reset", samples, self.batch)
        with self._owner.call("IntegerStream.reset"):
            for potentials in self._potentials.values():
                potentials[:, :, :, numbers] = 0
            self._sums.total[..., numbers] = 0
            self._sums.count[numbers] = 0

    def restart(self) -> None:
        """Begin anew with all samples."""
        for potentials in self._potentials.values():
            potentials.fill(0)
        self._sums = Sums(self.model.steps[-1], self.batch)


def quantize(
    model: Network | HasNetwork,
    data: ArrayLike,
    bits: int | None = None,
    *,
    features: Sequence[int] | None = None,
) -> IntegerModel:
    """An integer network from a trained one: weights of a few bits, 32-bit currents, 16-bit potentials.

    Parameters
    ----------
    model : Network or Model
        Trained.
    data : array_like, shape (B, ...)
        Some samples, such as 256 of the training set, as `model` takes them: raw ones for a model that has a
        preprocessing, otherwise ``(B, *features)`` or ``(T, B, *features)``. They give the scale of the input, and
        correct the biases for what rounding adds on average. Only the first 256 are used. Later samples are cut off
        at the largest value of these, or at most at twice it; of a model of images, at what bytes can be.
    bits : int, optional
        Of the weights of convolutions, 2 to 8; by default those that the network was trained with (`weight_bits`), or
        8. Weights that read the data have always 8.
    features : sequence of int, optional
        Shape of a sample; by default that of `data`.

    Returns
    -------
    IntegerModel

    Raises
    ------
    TypeError, ValueError
        An argument is no such thing; or a layer does what integers cannot, such as a maximum of currents, or its
        current could leave 32 bits; the message names it.
    FloatingPointError
        A weight or threshold is not finite.

    Notes
    -----
    Weights have a scale for each output channel: that of the least squared error. Training with rounded weights, by the
    key `weight_bits` of a recipe, the argument of `Network`, or ``dsr quantize RUN --bits 4 --epochs 3``, keeps more of
    the accuracy where there are few bits.
    """
    network = getattr(model, "network", model)
    if not isinstance(network, Network):
        raise TypeError(f"quantize: argument 'model': expected a Network or a Model, got {type(model).__name__}")
    trained = network.weight_bits
    if bits is None:
        bits = trained or 8
    if not isinstance(bits, int | np.integer) or not 2 <= bits <= 8:
        raise ValueError(f"quantize: argument 'bits': expected an integer from 2 to 8, got {shown(bits)}")
    preprocessing: Preprocessing | None = getattr(model, "preprocessing", None)
    array = as_array("quantize", "data", data)
    batch = preprocessing.batch(array, "quantize") if preprocessing is not None else array
    require_finite("quantize", "data", batch)
    axis = network.batch_axis(batch, "quantize") if features is None else batch.ndim - 1 - len(features)
    if axis not in (0, 1) or 0 in batch.shape:
        raise ValueError(
            f"quantize: argument 'data': expected at least one sample, of features {features}, got {batch.shape}"
        )
    first = batch.take(range(min(CALIBRATION, batch.shape[axis])), axis).astype(np.float32, copy=False)
    program = lower(network, first.shape[axis + 1 :] if features is None else tuple(features))
    return IntegerModel(
        quantize_program(program, first, int(bits), trained == bits, _largest(preprocessing)),
        network.timesteps,
        int(bits),
        program.features,
        program.output_features,
        getattr(model, "classes", ()),
        getattr(model, "task", "classification"),
        preprocessing,
    )


def _largest(preprocessing: Preprocessing | None) -> float:
    """The largest absolute value of an image of bytes; 0 where data are of another kind."""
    if preprocessing is None or preprocessing.kind != "images" or not preprocessing.mean:
        return 0.0
    extremes = np.zeros((2, *preprocessing.features), np.uint8)
    extremes[1] = 255
    return float(np.abs(preprocessing.normalised(extremes)).max())
