"""Hybrid training: a spiking network that starts from a trained ReLU network of the same layout (Meng et al. 2022).

With many steps a spiking layer approaches its mapping of the mean current z: ``clip(z, 0, V)`` for IF,
``clip(z / tau, 0, V / delta_t)`` for LIF. Up to its largest activation m that is ReLU, if ``V = m`` (IF), or if tau is
1 and ``V = m delta_t`` (LIF). So weights are copied, and each threshold is set by the activations of the ReLU layer in
its place; then the spiking network is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from dsr.nn.currents import Current, Signal
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.relu import ReLU
from dsr.ops import Values
from dsr.weights.loading import matched
from dsr.weights.reading import listed

_CHUNK = 1 << 20


def convert(ann: Network, spiking: Network, batches: Iterable[ArrayLike], quantile: float = 1.0) -> dict[str, float]:
    """Give a spiking network the weights of a ReLU network, and thresholds by the activations of that one.

    Parameters
    ----------
    ann : Network
        Trained, with `ReLU` layers.
    spiking : Network
        Of the same layout, with IF or LIF layers at the same paths; it is changed. LIF needs ``tau = 1``.
    batches : iterable of array_like
        Inputs of `ann`; a few training batches.
    quantile : float
        Of each layer's activations, in (0, 1]; 1 is their maximum. The authors take 0.999. See `activations`.

    Returns
    -------
    dict of str to float
        The thresholds by the paths of their layers. Where one is less than its layer's lower bound, the bound counts.
        Where a layer has one for each channel, all start from this.

    Raises
    ------
    ValueError
        The networks do not fit each other, there are no batches, or the activations of a layer are all 0.
    FloatingPointError
        Activations are not finite.

    Notes
    -----
    Counted in units of tau, every LIF layer has ``tau = 1``; with another unit its outputs, ``z / tau``, would not be
    those of ReLU, and the layers above would not do what they did.
    """
    layers = dict(spiking.neurons())
    if not layers:
        raise ValueError("convert: argument 'spiking': expected a network with IF or LIF layers, got none")
    places = {path for path, layer in ann.body.walk() if isinstance(layer, ReLU)}
    if places != layers.keys():
        alone = [listed(sorted(paths)) for paths in (layers.keys() - places, places - layers.keys())]
        raise ValueError(
            "convert: expected ReLU layers of 'ann' where 'spiking' has neurons; "
            f"neurons alone at {alone[0]}; ReLU alone at {alone[1]}"
        )
    for path, neuron in layers.items():
        divisor = neuron.effective_model().divisor
        if divisor != 1:
            raise ValueError(
                f"convert: layer '{path}': expected neurons with tau = 1 (and delta_t in units of tau), got tau = "
                f"{divisor}: their outputs would be those of ReLU divided by tau"
            )
    weights = matched("convert", "'ann'", spiking, ann.state())
    found = activations(ann, batches, quantile)
    dead = [path for path in layers if not found[path] > 0]
    if dead:
        raise ValueError(
            f"convert: expected activations > 0 at the quantile {quantile} of every layer, got 0 at {listed(dead)}"
        )
    for array, value in weights:
        array[...] = value
    thresholds = {path: neuron.threshold_for(found[path]) for path, neuron in layers.items()}
    for path, neuron in layers.items():
        neuron.v_threshold.value[...] = thresholds[path]
    return thresholds


def activations(network: Network, batches: Iterable[ArrayLike], quantile: float = 1.0) -> dict[str, float]:
    """A quantile of the outputs of each `ReLU` layer, zeros included, over all batches together.

    Parameters
    ----------
    network : Network
        With `ReLU` layers.
    batches : iterable of array_like
        Its inputs.
    quantile : float
        In (0, 1].

    Returns
    -------
    dict of str to float
        By path: the maximum, exactly, if `quantile` is 1; else the least value that is not less than this share of all,
        rounded up by less than 0.2 %. Memory does not grow with the batches: values are counted by their leading bits.

    Raises
    ------
    ValueError
        `quantile` is out of range, there is no ReLU layer, or there are no batches.
    FloatingPointError
        Activations are not finite; the message names the layer.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"activations: argument 'quantile': expected a number in (0, 1], got {quantile!r}")
    counts = {path: _Counts(path) for path, layer in network.body.walk() if isinstance(layer, ReLU)}
    if not counts:
        raise ValueError("activations: argument 'network': expected a network with ReLU layers, got none")

    def observe(path: str, layer: Layer, output: Signal) -> None:
        if isinstance(layer, ReLU) and isinstance(output, Current):
            counts[path].add(output.values(), quantile < 1)

    for batch in batches:
        network.forward(batch, observer=observe)
    if any(count.largest < 0 for count in counts.values()):
        raise ValueError("activations: argument 'batches': expected at least one sample, got none")
    return {path: count.quantile(quantile) for path, count in counts.items()}


class _Counts:
    """How many values there are of each sign, exponent and leading nine bits of the fraction."""

    DROPPED = 14  # of 23 bits of a fraction: a bin is 2**-9 of its values wide

    def __init__(self, path: str) -> None:
        self.path, self.largest = path, -1.0
        self.bins = np.zeros(0, np.int64)

    def add(self, values: Values, all_of_them: bool) -> None:
        if values.size == 0:
            return
        largest = float(values.max())
        if not np.isfinite(largest):
            raise FloatingPointError(f"activations: the output of layer '{self.path}' is not finite")
        self.largest = max(self.largest, largest)
        if not all_of_them:
            return
        # floats that are not negative are ordered as their bits are; -0.0 is made 0.0
        flat = values.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            bits = (flat[start : start + _CHUNK] + np.float32(0)).view(np.uint32) >> np.uint32(self.DROPPED)
            found = np.bincount(bits, minlength=len(self.bins))
            found[: len(self.bins)] += self.bins
            self.bins = found

    def quantile(self, share: float) -> float:
        if share == 1:
            return self.largest
        below = np.cumsum(self.bins)
        number = int(np.searchsorted(below, share * below[-1]))
        if number == 0:
            return 0.0
        last = (np.array([number + 1], np.uint32) << np.uint32(self.DROPPED)) - np.uint32(1)
        return min(float(last.view(np.float32)[0]), self.largest)
