"""Loads weights into a network, from a mapping or a file of dsr, NumPy, safetensors or PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.files.errors import DataError, reason
from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm
from dsr.weights.foreign import fold_vgg, own_names
from dsr.weights.formats import WIDTHS, Unreadable, as_float32
from dsr.weights.reading import listed, read_arrays, unwrapped

Arrays = Mapping[str, NDArray[Any]]


def load_state(network: Network, source: str | Path | Mapping[str, Any], *, optional_thresholds: bool = False) -> None:
    """Load weights, biases, thresholds and the running statistics of batch normalisation from a file or a mapping.

    Parameters
    ----------
    network : Network
        The network that is changed.
    source : path or mapping of str to array_like
        A file of safetensors, NumPy (.npz) or PyTorch, told by its first bytes, whatever its name; a run folder (its
        best checkpoint, of the average of the weights if the run keeps one); or the arrays, such as a
        ``state_dict()``. PyTorch files are read without PyTorch, and nothing in them is run.
    optional_thresholds : bool
        Whether thresholds may be missing; those that are keep their values.

    Raises
    ------
    ValueError
        Arrays are missing, unknown, of another shape or not of finite real numbers, and the message lists them; or the
        file cannot be understood. The network is not changed.
    OSError
        The file cannot be read.

    Notes
    -----
    Names are dsr's, such as ``layer1_0.neuron1.v_threshold``, or those of the authors' code, ``layer1.0.relu1.Vth``,
    see `dsr.weights.foreign`; the prefixes ``module.`` and ``_orig_mod.`` of PyTorch's wrappers are removed. A dict
    around the arrays, ``{"state_dict": ..., "epoch": ...}``, is unwrapped (also ``model_state_dict``, ``net`` and
    ``model``). Numbers of any real dtype are converted to float32, those of bfloat16 and float8 too. The authors' VGG
    has 49 times as many linear weights, which are added up. Entries that are not weights are ignored:
    ``num_batches_tracked``, ``n_averaged``, and ``stream``, the state of the random numbers of dropout. A shape may
    lack axes of length 1 at its end: (10, 512) for a linear layer's (10, 512, 1, 1). The number of time steps, alpha,
    tau and delta_t are not in such files: make the network with the values that it was trained with.
    """
    assign("load_state", network, source, optional_thresholds)


def assign(function: str, network: Network, source: str | Path | Mapping[str, Any], optional_thresholds: bool) -> None:
    """`load_state` under the name of `function`, which errors begin with."""
    if not isinstance(source, Mapping):
        origin, given = str(source), read_arrays(function, source)
    else:
        origin = "the mapping"
        try:
            given = unwrapped(origin, source)
        except DataError as error:
            raise ValueError(f"{function}: {error}") from None
    for array, value in matched(function, origin, network, given, optional_thresholds):
        array[...] = value


def matched(
    function: str, origin: str, network: Network, source: Mapping[str, Any], optional_thresholds: bool = True
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Arrays of the network, each with its new value; a ValueError lists all that does not fit."""
    named = {name: _numbers(value) for name, value in source.items() if not _is_no_weight(name)}
    arrays = {name: array for name, array in network.arrays() if not _is_no_weight(name)}
    optional = {f"{path}.v_threshold" if path else "v_threshold" for path, _ in network.neurons()}
    norms = ((path, layer) for path, layer in network.body.walk() if isinstance(layer, BatchNorm))
    least_variance = {f"{path}.running_var" if path else "running_var": -layer.eps for path, layer in norms}
    required = arrays.keys() - optional if optional_thresholds else arrays.keys()
    names = own_names(named, arrays)
    often = Counter(names.values())
    unreadable = {names[name]: value for name, value in named.items() if isinstance(value, Unreadable)}
    readable = {name: value for name, value in named.items() if not isinstance(value, Unreadable)}
    given = {names[name]: array for name, array in fold_vgg(readable, network).items()}
    shared = sorted(arrays.keys() & given.keys())
    fitting = [name for name in shared if _core_shape(arrays[name]) == _core_shape(given[name])]
    problems = {
        "missing": sorted(required - given.keys() - unreadable.keys()),
        "unknown": sorted((given.keys() | unreadable.keys()) - arrays.keys()),
        "given by two names": sorted(name for name in arrays if often[name] > 1),
        "of another shape": [
            f"{name} (expected {arrays[name].shape}, got {given[name].shape})" for name in shared if name not in fitting
        ],
        "not of real numbers": [
            f"{name} ({unreadable[name].why})" for name in sorted(arrays.keys() & unreadable.keys())
        ],
        # of arrays that fit: a view of few numbers may have any size
        "not of finite numbers": [name for name in fitting if not _finite(given[name])],
        "not positive with eps added": [
            name for name in fitting if name in least_variance and given[name].min() <= least_variance[name]
        ],
    }
    words = [f"{kind}: {listed(names)}" for kind, names in problems.items() if names]
    if words:
        raise ValueError(f"{function}: {origin} does not fit the network; {'; '.join(words)}")
    return [(arrays[name], given[name].reshape(arrays[name].shape)) for name in shared]


def _is_no_weight(name: str) -> bool:
    return name.rpartition(".")[2] in ("stream", "num_batches_tracked", "n_averaged")


def _numbers(value: Any) -> NDArray[Any] | Unreadable:
    """Real numbers as an array; those of formats that NumPy lacks as float32."""
    if isinstance(value, Unreadable):
        return value
    try:
        array = _as_numpy(value)
    except Exception as error:  # an object of the user's may raise anything
        return Unreadable(f"of type {type(value).__name__}: {reason(error)}")
    name = array.dtype.name
    if name in WIDTHS:
        return as_float32(name, array.view(WIDTHS[name]))
    return array if array.dtype.kind in "fiu" else Unreadable(f"of dtype {array.dtype!s:.40}")


def _as_numpy(value: Any) -> NDArray[Any]:
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    try:
        return np.asarray(value)
    except (TypeError, RuntimeError):
        # PyTorch refuses tensors with gradients, on other devices, of dtypes that NumPy lacks, and negative views
        with suppress(Exception):
            return np.asarray(value.detach().cpu().double())
        raise


def _core_shape(array: NDArray[Any]) -> tuple[int, ...]:
    """The shape without axes of length 1 at its end."""
    shape = array.shape
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _finite(array: NDArray[Any]) -> bool:
    with np.errstate(over="ignore"):
        # NaN comes through, and no array is made on the way
        return array.size == 0 or bool(np.isfinite([np.float32(array.min()), np.float32(array.max())]).all())
