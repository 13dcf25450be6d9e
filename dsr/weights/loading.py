"""Weights from elsewhere: files of dsr, NumPy, safetensors and PyTorch, by dsr's names or the authors'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.files import checkpoint
from dsr.files.archive import Archive, read_npy
from dsr.files.errors import DataError, reason
from dsr.nn.network import Network
from dsr.ops.arguments import as_array
from dsr.weights.foreign import fold_vgg, own_names

Arrays = Mapping[str, NDArray[Any]]

_MOST_NAMED = 8
_WRAPPERS = ("state_dict", "model_state_dict", "net", "model")


def load_state(network: Network, source: str | Path | Mapping[str, Any], *, optional_thresholds: bool = False) -> None:
    """Take over weights, biases, thresholds and statistics of batch normalisation from a file or a mapping.

    Parameters
    ----------
    network : Network
        It is changed.
    source : path or mapping of str to array_like
        A .safetensors, .npz, .pth or .pt file, a run folder (its best checkpoint, of the average, if it keeps one), or
        the arrays, such as a ``state_dict()``. Files of PyTorch are read without it, and nothing in them is run.
    optional_thresholds : bool
        Thresholds may be missing: they stay as they are.

    Raises
    ------
    ValueError
        Arrays are missing, unknown, of another shape or not of finite numbers, and the message lists them, or the file
        cannot be understood; then nothing is changed.
    OSError
        The file cannot be read.

    Notes
    -----
    Names are dsr's, such as ``layer1_0.neuron1.v_threshold``, or those of the authors' code, ``layer1.0.relu1.Vth``,
    see `dsr.weights.foreign`. A dict around the arrays, ``{"state_dict": ..., "epoch": ...}``, is unwrapped (also of
    the names ``model_state_dict``, ``net`` and ``model``). The authors' VGG has 49 times as many linear weights, which
    are summed up. ``num_batches_tracked``, and the state of random numbers of dropout, ``stream``, are no weights: they
    are passed over. A shape may lack axes of length 1 at its end: (10, 512) for a linear layer's (10, 512, 1, 1).
    Numbers of time steps, alpha, tau and delta_t are not in such files: the network has to be made with them.
    """
    assign("load_state", network, source, optional_thresholds)


def assign(function: str, network: Network, source: str | Path | Mapping[str, Any], optional_thresholds: bool) -> None:
    """`load_state`, for a function that errors shall name."""
    if isinstance(source, Mapping):
        origin, given = "the mapping", _unwrapped(function, "the mapping", source)
    else:
        origin, given = str(source), read_arrays(function, source)
    for array, value in matched(function, origin, network, given, optional_thresholds):
        array[...] = value


def matched(
    function: str, origin: str, network: Network, source: Mapping[str, Any], optional_thresholds: bool = True
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Arrays of the network, and their new values; ValueError, with all that does not fit."""
    named = {name: _numbers(name, array) for name, array in source.items() if not _is_no_weight(name)}
    arrays = {name: array for name, array in network.arrays() if not _is_no_weight(name)}
    optional = {f"{path}.v_threshold" if path else "v_threshold" for path, _ in network.neurons()}
    required = arrays.keys() - optional if optional_thresholds else arrays.keys()
    names = own_names(named, arrays)
    often = Counter(names.values())
    given = {names[name]: array for name, array in fold_vgg(named, network).items()}
    shared = sorted(arrays.keys() & given.keys())
    problems = {
        "missing": sorted(required - given.keys()),
        "unknown": sorted(given.keys() - arrays.keys()),
        "given by two names": sorted(name for name in arrays if often[name] > 1),
        "of another shape": [
            f"{name} (expected {arrays[name].shape}, got {given[name].shape})"
            for name in shared
            if _core_shape(arrays[name]) != _core_shape(given[name])
        ],
        "not of finite numbers": [name for name in shared if not _finite(given[name])],
    }
    words = [f"{kind}: {listed(names)}" for kind, names in problems.items() if names]
    if words:
        raise ValueError(f"{function}: {origin} does not fit the network; {'; '.join(words)}")
    return [(arrays[name], given[name].reshape(arrays[name].shape)) for name in shared]


def read_arrays(function: str, source: str | Path) -> Mapping[str, ArrayLike]:
    """The arrays of a file, or of the best checkpoint in a run folder; of a checkpoint of dsr those of its network."""
    path = Path(source)
    if path.is_dir():
        path = path / checkpoint.BEST
    if path.suffix == ".npz":
        return _read_npz(function, path)
    if path.suffix in (".pth", ".pt"):
        return _read_torch(function, path)
    if path.suffix == ".safetensors":
        return _read_safetensors(function, path)
    raise ValueError(f"{function}: argument 'source': expected a .safetensors, .npz, .pth or .pt file, got {path}")


def _read_torch(function: str, path: Path) -> Mapping[str, ArrayLike]:
    from dsr.weights.torch_file import Tensor, read_torch

    try:
        found = _unwrapped(function, str(path), read_torch(path))
        return {name: np.asarray(item) if isinstance(item, Tensor) else item for name, item in found.items()}
    except DataError as error:
        raise DataError(f"{function}: {error}") from None


def _read_npz(function: str, path: Path) -> Arrays:
    try:
        archive = Archive(path.read_bytes(), str(path))
        return {name.removesuffix(".npy"): read_npy(archive.read(name), f"{path}: {name}") for name in archive.files}
    except DataError as error:
        raise DataError(f"{function}: {error}") from None


def _read_safetensors(function: str, path: Path) -> Arrays:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("format") != checkpoint.FORMAT:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{function}: {path}: no readable safetensors file ({reason(error)})") from None
    saved, _ = checkpoint.load(path)
    for kind in ("average.", "network."):
        arrays = {name.removeprefix(kind): array for name, array in saved.items() if name.startswith(kind)}
        if arrays:
            return arrays
    raise ValueError(f"{function}: {path}: a checkpoint of dsr without a network")


def _unwrapped(function: str, origin: str, value: Any) -> Mapping[str, Any]:
    """The arrays in a state dict, or in a dict that holds one under a usual name."""
    for _ in _WRAPPERS:  # a damaged file may hold a dict that holds itself
        if isinstance(value, Mapping):
            value = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), value)
    if not isinstance(value, Mapping):
        raise ValueError(f"{function}: {origin}: expected a dict of arrays, got a {type(value).__name__}")
    odd = [str(key) for key, item in value.items() if not isinstance(key, str) or isinstance(item, Mapping)]
    if odd:
        raise ValueError(f"{function}: {origin}: expected arrays by their names, got others: {listed(odd)}")
    return value


def _is_no_weight(name: str) -> bool:
    return name.rpartition(".")[2] in ("stream", "num_batches_tracked")


def _numbers(name: str, value: Any) -> NDArray[Any]:
    try:
        return as_array("load_state", name, value)
    except TypeError:
        return np.array(None)  # refused with all others that are no numbers


def _core_shape(array: NDArray[Any]) -> tuple[int, ...]:
    """The shape without axes of length 1 at its end."""
    shape = array.shape
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _finite(array: NDArray[Any]) -> bool:
    if array.dtype.kind not in "fiu":
        return False
    with np.errstate(over="ignore"):
        # NaN comes through, and no array is made on the way
        return array.size == 0 or bool(np.isfinite([np.float32(array.min()), np.float32(array.max())]).all())


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    rest = len(every) - _MOST_NAMED
    return (", ".join(every[:_MOST_NAMED]) or "none") + (f" and {rest} more" if rest > 0 else "")
