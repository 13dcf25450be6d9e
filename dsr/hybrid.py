"""Hybrid training: a spiking network that starts from a trained ReLU network of the same layout (Meng et al. 2022).

With many steps a spiking layer approaches its mapping of the mean current z: ``clip(z, 0, V)`` for IF,
``clip(z / tau, 0, V / delta_t)`` for LIF. Up to its largest activation m that is ReLU, if ``V = m`` (IF), or if tau is
1 and ``V = m delta_t`` (LIF). So weights are copied, and each threshold is set by the activations of the ReLU layer in
its place; then the spiking network is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr import checkpoint
from dsr.currents import Current, Signal
from dsr.lanes import Values
from dsr.layer import Layer
from dsr.network import Network
from dsr.neurons import IF, LIF, Neuron, ReLU

Arrays = Mapping[str, NDArray[Any]]

_MOST_NAMED = 8
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
        alone = [_named(sorted(paths)) for paths in (layers.keys() - places, places - layers.keys())]
        raise ValueError(
            "convert: expected ReLU layers of 'ann' where 'spiking' has neurons; "
            f"neurons alone at {alone[0]}; ReLU alone at {alone[1]}"
        )
    for path, neuron in layers.items():
        if isinstance(neuron, LIF) and neuron.tau != 1:
            raise ValueError(
                f"convert: layer '{path}': expected LIF with tau = 1 (and delta_t in units of tau), got tau = "
                f"{neuron.tau}: its outputs would be those of ReLU divided by tau"
            )
    weights = _matched("convert", "'ann'", spiking, ann.state())
    found = activations(ann, batches, quantile)
    dead = [path for path in layers if not found[path] > 0]
    if dead:
        raise ValueError(
            f"convert: expected activations > 0 at the quantile {quantile} of every layer, got 0 at {_named(dead)}"
        )
    for array, value in weights:
        array[...] = value
    thresholds = {path: threshold_for(neuron, found[path]) for path, neuron in layers.items()}
    for path, neuron in layers.items():
        neuron.v_threshold.value[...] = thresholds[path]
    return thresholds


def threshold_for(neuron: Neuron, activation: float) -> float:
    """The threshold at which a neuron's mapping ends where its mean current is `activation`.

    ``clip(z, 0, V)`` ends at ``z = V``, so V is `activation` (IF); ``clip(z / tau, 0, V / delta_t)`` ends at
    ``z = tau V / delta_t``, so V is ``activation delta_t / tau`` (LIF).
    """
    if isinstance(neuron, LIF):
        return activation * neuron.delta_t / neuron.tau
    if isinstance(neuron, IF):
        return activation
    raise TypeError(f"threshold_for: argument 'neuron': expected IF or LIF, got {type(neuron).__name__}")


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
            counts[path].add(output.values, quantile < 1)

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


def load_weights(network: Network, source: str | Path | Arrays) -> None:
    """Take over weights, biases and statistics of batch normalisation, by dsr's names such as ``layer1_0.bn1.weight``.

    Parameters
    ----------
    network : Network
        It is changed.
    source : path or mapping of str to ndarray
        A .safetensors or .npz file, a checkpoint of `dsr train` (of its average, if it keeps one), or the arrays.

    Raises
    ------
    ValueError
        Arrays are missing, unknown, of another shape or not of finite numbers, and the message lists them, or the file
        cannot be understood; then nothing is changed.
    OSError
        The file cannot be read.

    Notes
    -----
    Thresholds may be missing: they stay as they are. The state of random numbers of dropout (``stream``) is no weight:
    it is passed over. A shape may lack axes of length 1 at its end: (10, 512) for a linear layer's (10, 512, 1, 1).
    """
    if isinstance(source, Mapping):
        pairs = _matched("load_weights", "the mapping", network, source)
    else:
        pairs = _matched("load_weights", str(source), network, _read(Path(source)))
    for array, value in pairs:
        array[...] = value


def _matched(function: str, origin: str, network: Network, source: Arrays) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Arrays of the network, and their new values; ValueError, with all that does not fit."""
    given = {name: np.asarray(array) for name, array in source.items() if not _is_stream(name)}
    arrays = {name: array for name, array in network.arrays() if not _is_stream(name)}
    optional = {f"{path}.v_threshold" if path else "v_threshold" for path, _ in network.neurons()}
    shared = sorted(arrays.keys() & given.keys())
    problems = {
        "missing": sorted(arrays.keys() - given.keys() - optional),
        "unknown": sorted(given.keys() - arrays.keys()),
        "of another shape": [
            f"{name} (expected {arrays[name].shape}, got {given[name].shape})"
            for name in shared
            if _core_shape(arrays[name]) != _core_shape(given[name])
        ],
        "not of finite numbers": [name for name in shared if not _finite(given[name])],
    }
    words = [f"{kind}: {_named(names)}" for kind, names in problems.items() if names]
    if words:
        raise ValueError(f"{function}: {origin} does not fit the network; {'; '.join(words)}")
    return [(arrays[name], given[name].reshape(arrays[name].shape)) for name in shared]


def _read(path: Path) -> Arrays:
    """The arrays of a file; of a checkpoint of dsr those of its network."""
    if path.suffix == ".npz":
        # opened here, since NumPy leaves open what it cannot read
        with open(path, "rb") as file:
            try:
                archive = np.load(file, allow_pickle=False)
                return {name: archive[name] for name in archive.files}
            except OSError:
                raise
            except Exception as error:
                raise ValueError(f"load_weights: {path}: no readable .npz file ({error})") from None
    if path.suffix != ".safetensors":
        raise ValueError(f"load_weights: argument 'source': expected a .safetensors or .npz file, got {path}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("format") != checkpoint.FORMAT:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"load_weights: {path}: no readable safetensors file ({error})") from None
    saved, _ = checkpoint.load(path)
    for kind in ("average.", "network."):
        arrays = {name.removeprefix(kind): array for name, array in saved.items() if name.startswith(kind)}
        if arrays:
            return arrays
    raise ValueError(f"load_weights: {path}: a checkpoint of dsr without a network")


def _is_stream(name: str) -> bool:
    return name.rpartition(".")[2] == "stream"


def _core_shape(array: NDArray[Any]) -> tuple[int, ...]:
    """The shape without axes of length 1 at its end."""
    shape = array.shape
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _finite(array: NDArray[Any]) -> bool:
    with np.errstate(over="ignore"):
        return array.dtype.kind in "fiu" and bool(np.isfinite(array.astype(np.float32)).all())


def _named(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    rest = len(listed) - _MOST_NAMED
    return (", ".join(listed[:_MOST_NAMED]) or "none") + (f" and {rest} more" if rest > 0 else "")
