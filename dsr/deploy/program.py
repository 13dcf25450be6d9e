"""Program: a network for inference as a list of plain steps, which is all that a back end has to know of it.

A step names the steps that it reads by their numbers, which are smaller than its own; step 0 is the input, and the last
step is the output. There are no layers, no training and no batch in it: images are ``(C, H, W)``, a vector of N numbers
is ``(N, 1, 1)``, and everything happens once for each time step but `Neurons`, which keep their potentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsr.nn.spikes import decaying_weights, uniform_weights
from dsr.ops import Geometry, NeuronModel, PerChannel, Values

Shape = tuple[int, int, int]
Windows = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """What all steps have.

    Attributes
    ----------
    path : str
        The layer that it is from.
    inputs : tuple of int
        The numbers of the steps that it reads.
    shape : (int, int, int)
        ``(C, H, W)`` of its output at a time step.
    amplitude : float or ndarray of float32, shape (C,), or None
        The output consists of spikes: each number is 0 or this one, which is above 0, of all channels or of each; or
        of graded spikes up to `levels` times this one. None: it consists of other numbers.
    levels : int
        Spikes of a time step at most: 1, or more of graded ones.
    """

    path: str
    inputs: tuple[int, ...]
    shape: Shape
    amplitude: PerChannel | None = None
    levels: int = 1

    @property
    def planes(self) -> int:
        """Binary digits of the number of spikes of a time step."""
        return self.levels.bit_length()


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Step):
    """The data of a time step; of a static image at every step the same."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Step):
    """A convolution; a linear layer is one with a kernel of 1x1 on images of one pixel.

    Attributes
    ----------
    weight : ndarray of float32, shape (O, C / groups, KH, KW)
        To be multiplied with the values of the input, which are the amplitudes where these are spikes.
    bias : ndarray of float32, shape (O,), or None
        Added to each pixel.
    geometry : Geometry
        Stride, padding, dilation and groups; a `spread` makes it a transposed convolution.
    """

    weight: Values
    bias: Values | None
    geometry: Geometry


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Step):
    """``sum over i of factors[i][c] * input_i[c] + bias[c]`` in each channel c.

    Attributes
    ----------
    factors : tuple of ndarray of float32, shape (C,)
        One for each input.
    bias : ndarray of float32, shape (C,), or None
        Added to each pixel.
    """

    factors: tuple[Values, ...]
    bias: Values | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Step):
    """One number of each window.

    Attributes
    ----------
    kernel_size, stride, padding : (int, int)
        Vertical and horizontal.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def windows(self) -> Windows:
        """Kernel size, stride and padding."""
        return self.kernel_size, self.stride, self.padding


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Pool):
    """The mean over each window, divided by its whole size: padding counts as zeros."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Pool):
    """The largest value of the part of each window that lies in the image; of spikes their OR, which are spikes.

    Of graded spikes it is other numbers, as of all other values.
    """


@dataclass(frozen=True, eq=False, kw_only=True)
class Upsample(Step):
    """Each pixel is repeated.

    Attributes
    ----------
    factor : (int, int)
        How often, vertically and horizontally.
    """

    factor: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Step):
    """The channels of all inputs, one behind the other; spikes where all are spikes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Step):
    """Images as vectors: channel c of pixel (y, x) becomes number ``(c H + y) W + x``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gate(Step):
    """The spikes of the first input where the second one fires, or does not.

    Attributes
    ----------
    fires : bool
        Whether the second one has to fire.
    """

    fires: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Rectify(Step):
    """``max(x, 0)``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Neurons(Step):
    """Spikes of neurons whose potentials v, at first 0, are kept from time step to time step.

    At each step ``u = decay v + gain x``, a spike where ``u >= fire``, then ``v = u - v_threshold`` or ``v = u``.
    Graded spikes are up to `levels` at a step: k is the number of j in 1, ..., levels with
    ``u >= fire + (j - 1) v_threshold``, then ``v = u - k v_threshold``.

    Attributes
    ----------
    model : NeuronModel
        These numbers; `v_threshold` and `fire` are arrays (C,) where each channel has its own.
    leak : float
        Length of a time step in time constants; 0 for neurons that do not leak.
    """

    model: NeuronModel
    leak: float


@dataclass(frozen=True, eq=False)
class Program:
    """A network for inference.

    Attributes
    ----------
    steps : tuple of Step
        In the order in which they can be done.
    timesteps : int
        T with which the network was trained, or was made for inference.
    features, output_features : tuple of int
        Shape of a sample, ``(N,)``, ``(C, L)`` or ``(C, H, W)``, and of its output.
    leak : float
        The output is read as a mean over time of the last step: the plain one where this is 0, else with the weights
        ``exp(-leak (T - 1 - t))`` divided by their sum.
    folded : bool
        Whether batch normalisation is in the weights.
    """

    steps: tuple[Step, ...]
    timesteps: int
    features: tuple[int, ...]
    output_features: tuple[int, ...]
    leak: float
    folded: bool

    def time_weights(self, timesteps: int) -> Values:
        """Weights of the mean over so many time steps, (T,), of mean 1, as the network has them."""
        return decaying_weights(timesteps, 1.0, self.leak) if self.leak else uniform_weights(timesteps)

    def refuse_graded(self, function: str, what: str) -> None:
        """ValueError where neurons emit several spikes at a step, for a back end, `what`, that has none of these."""
        for step in self.steps:
            if isinstance(step, Neurons) and step.levels > 1:
                raise ValueError(
                    f"{function}: layer '{step.path}': expected neurons with at most one spike at a step, got "
                    f"levels = {step.levels}; {what} has no graded spikes"
                )

    def steady(self) -> tuple[bool, ...]:
        """Of each step whether its output is the same at every time step if the input is."""
        found: list[bool] = []
        for step in self.steps:
            found.append(not isinstance(step, Neurons) and all(found[i] for i in step.inputs))
        return tuple(found)

    def head(self) -> tuple[bool, ...]:
        """Of each step whether it depends on the data alone, but for its own potentials: up to the first neurons."""
        steady = self.steady()
        return tuple(all(steady[i] for i in step.inputs) for step in self.steps)

    def handed_on(self) -> tuple[int, ...]:
        """The numbers of the steps of the head that others read, or that are the last one."""
        head, readers = self.head(), self.readers()
        return tuple(
            number
            for number, others in enumerate(readers)
            if head[number] and (not others or not all(head[other] for other in others))
        )

    def readers(self) -> tuple[tuple[int, ...], ...]:
        """Of each step the numbers of those that read it."""
        found: list[list[int]] = [[] for _ in self.steps]
        for number, step in enumerate(self.steps):
            for i in step.inputs:
                found[i].append(number)
        return tuple(tuple(numbers) for numbers in found)

    def __repr__(self) -> str:
        """A line for each step."""
        rows = [
            (str(number), type(step).__name__, _by(step.shape), " ".join(map(str, step.inputs)), step.path)
            for number, step in enumerate(self.steps)
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(f"{cell:{w}}" for cell, w in zip(row[:4], widths, strict=True)), row[4]]) for row in rows]
        return "\n".join([f"Program, T = {self.timesteps}", *(f"  {line}".rstrip() for line in lines)])


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
