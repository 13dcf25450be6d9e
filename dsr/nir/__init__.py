"""Networks as NIR graphs, the exchange format of spiking networks, and back; needs nir (``pip install dsr[nir]``).

>>> import dsr.nir
>>> dsr.nir.save(network, (1, 8, 8), "digits.nir")
>>> network = dsr.nir.load("digits.nir")

What is written. Batch normalisation, of running statistics, and the heights of spikes are folded into the weights
around them, so a spike of the graph is 1. Sums are several edges into one node. Where there are no weights to fold
into there is a Scale node (the identity shortcut of a residual block), or, if a shift remains, a 1x1 Conv2d or an
Affine with a diagonal: NIR has no bias node, and its grouped convolutions do not survive being read back (nir 1.0.8).
Dropout is left out; `Flatten` has ``start_dim=0``, since NIR shapes have no batch axis. Maximum pooling of spikes is
their sum (SumPool2d) and a Threshold that one spike crosses; pooling of signals, which NIR has not, is a Conv1d of each
channel by itself. Concat is a sum of 1x1 convolutions. NIR has nothing for Upsample, transposed convolutions with a
stride, maxima of currents, and AND and IAND of spikes: they are refused.

Neurons. ``IF(r=1/dt, v_threshold=alpha V, v_reset=(alpha - 1) V)`` and ``LIF(tau, r=1, v_leak=0, ...)`` with the same
two potentials. In NIR's continuous time the potential is ``alpha V`` at a spike, and "set it to ``(alpha - 1) V``" is
"subtract V", which is what dsr does. A program with time steps has to choose. One that subtracts ``v_threshold -
v_reset`` gets the spikes of dsr; one that sets the potential loses what lay above the threshold, and one that
subtracts ``v_threshold`` is right for ``alpha = 1`` only. dsr fires at ``u >= alpha V`` and NIR at ``v >
v_threshold``, so the threshold written is the float32 number next below ``alpha V``; ``v_reset`` is such that
``v_threshold - v_reset`` is V in float32, or where no number does that, as for ``alpha = 1`` (0), the one next to V.

Readers. What programs make of such a graph differs: ``to_nir(..., reader="norse")`` writes what that one can take, as
near to the network as its neurons allow, or refuses. `READERS` has the versions that were tried, how each is called,
and its rules, by which `verify` runs a graph and says what is lost.

Metadata. Nothing in it is needed to run the graph but the time step `dt` and the number of steps, which NIR has no
place for. It also holds `reset`, `integration`, `readout`, `output_amplitude` (the rates of the last neurons times
this are the outputs of dsr) and, by neuron layer, `v_threshold`, `alpha` and `amplitude`; `from_nir` uses them, so that
another `delta_t` does not change outputs. A graph of others has to be read with ``reset="subtract"``.
"""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from dsr.files import atomic
from dsr.files.errors import DataError
from dsr.nir.comparison import Comparison, compare
from dsr.nir.export import export_graph
from dsr.nir.folding import as_features
from dsr.nir.hdf5 import read_file
from dsr.nir.readers import READERS
from dsr.nir.reading import import_graph
from dsr.nn.network import Network
from dsr.ops.arguments import as_array, as_count, as_flag, as_positive, require_finite, shown


def to_nir(
    network: Network,
    features: tuple[int, ...],
    *,
    delta_t: float | None = None,
    euler: bool = False,
    diagonal: bool = False,
    reader: str | None = None,
) -> Any:
    """NIR graph of a network.

    Parameters
    ----------
    network : Network
        Of the layers of dsr; only spiking neurons.
    features : tuple of int
        Shape of a sample, ``(C, H, W)``, ``(C, L)`` or ``(N,)``.
    delta_t : float, optional
        Time step that the reader will use; time constants are written to fit it. By default that of the first LIF
        layer, and 1 where there are IF neurons only.
    euler : bool
        The reader takes Euler steps, ``v += (dt / tau) (r I - v)``, instead of the exact ``exp(-dt / tau)``: time
        constants are written such that these decay as much as the network's.
    diagonal : bool
        Write 1x1 convolutions (or Affine) with a diagonal instead of Scale nodes, which many readers do not know.
    reader : {"nirtorch", "norse", "snntorch", "sinabs", "spyx", "rockpool"}, optional
        Write what this program can take, as near to the network as its neurons allow; it has a time step of its own,
        so `delta_t`, `euler` and `diagonal` cannot be given. `dsr.nir.READERS` says what each does, `dsr.nir.verify`
        what that costs.

    Returns
    -------
    nir.NIRGraph
        Nodes have the paths of the layers as names.

    Raises
    ------
    ImportError
        The package nir is not installed.
    TypeError, ValueError
        A layer has no counterpart in NIR or in the reader, or samples of this shape do not fit the network.
    FloatingPointError
        Weights with normalisation and heights of spikes folded in are not finite in float32; the message names them.
    """
    if not isinstance(network, Network):
        raise TypeError(f"to_nir: argument 'network': expected a Network, got {type(network).__name__}")
    features = as_features("to_nir", features)
    if delta_t is not None:
        delta_t = as_positive("to_nir", "delta_t", delta_t)
    euler, diagonal = as_flag("to_nir", "euler", euler), as_flag("to_nir", "diagonal", diagonal)
    if reader is not None:
        if reader not in READERS:
            raise ValueError(f"to_nir: argument 'reader': expected one of {', '.join(READERS)}, got {shown(reader)}")
        if delta_t is not None or euler or diagonal:
            raise ValueError("to_nir: argument 'reader': expected no delta_t, euler or diagonal, which it decides")
    return export_graph(_package("to_nir"), network, features, delta_t, euler, diagonal, reader)


def save(
    network: Network,
    features: tuple[int, ...],
    path: str | Path,
    *,
    delta_t: float | None = None,
    euler: bool = False,
    diagonal: bool = False,
    reader: str | None = None,
) -> None:
    """Write a network as a NIR file (HDF5); arguments and errors as for `to_nir`.

    An older file is replaced at the end, in one step.

    Raises
    ------
    OSError
        The file could not be written; an older one is as it was, see `dsr.files.atomic.writing`.
    """
    package = _package("save")
    graph = to_nir(network, features, delta_t=delta_t, euler=euler, diagonal=diagonal, reader=reader)
    # in memory first: HDF5 does not tell which call of the system failed, and why
    content = BytesIO()
    package.write(content, graph)
    atomic.write(path, content.getvalue())


def from_nir(
    graph: Any,
    timesteps: int | None = None,
    *,
    delta_t: float | None = None,
    euler: bool | None = None,
    reset: str | None = None,
) -> Network:
    """Network of a feed-forward NIR graph.

    Parameters
    ----------
    graph : nir.NIRGraph
        One Input and one Output; Affine, Linear, Conv1d, Conv2d, AvgPool2d, SumPool2d, Flatten, Scale, IF, LIF, and
        graphs of these; Threshold as part of maximum pooling; chains and sums of paths that part at one node.
    timesteps : int, optional
        T; by default that of the graph's metadata.
    delta_t : float, optional
        Time step, in the unit of the graph's time constants; by default that of the metadata.
    euler : bool, optional
        Whether the graph is meant for Euler steps, see `to_nir`; by default what the metadata say, else False.
    reset : {"subtract"}, optional
        How the neurons of the graph reset, which NIR leaves to the program that reads it; needed where the metadata do
        not say it. Those of dsr subtract ``v_threshold - v_reset``. Programs that set the potential to `v_reset`
        instead, such as Norse and by default snnTorch, write the same graphs: networks trained there fire at other
        times here, and may lose accuracy.

    Returns
    -------
    Network
        It gives the spikes that the graph gives when resets subtract ``v_threshold - v_reset``. So
        ``V = v_threshold - v_reset`` and ``alpha = v_threshold / V``; a graph with ``v_reset = 0`` is read as
        ``alpha = 1``, "subtract the threshold" (V is then the float32 number next above it). The output is the firing
        rate of the last neurons times the `output_amplitude` of the metadata, or without it times their own.

    Raises
    ------
    ImportError
        The package nir is not installed.
    TypeError, ValueError
        The graph has something that dsr has no layer for; the message names the node and says what.
    FloatingPointError
        Weights with the heights of spikes folded in are not finite in float32; the message names the layer.

    Notes
    -----
    Heights of spikes, `r`, `v_leak`, Scale and the sums of SumPool2d are folded into weights around them, and groups
    of a convolution become zeros of a full one. Where there are no weights to fold into there is a 1x1 convolution, or
    a linear layer, with a diagonal.
    """
    if timesteps is not None:
        timesteps = as_count("from_nir", "timesteps", timesteps)
    if delta_t is not None:
        delta_t = as_positive("from_nir", "delta_t", delta_t)
    if euler is not None:
        euler = as_flag("from_nir", "euler", euler)
    if reset not in (None, "subtract"):
        raise ValueError(f"from_nir: argument 'reset': expected \"subtract\", the reset of dsr, got {shown(reset)}")
    return import_graph(_package("from_nir"), graph, timesteps, delta_t, euler, reset)


def load(
    path: str | Path,
    timesteps: int | None = None,
    *,
    delta_t: float | None = None,
    euler: bool | None = None,
    reset: str | None = None,
) -> Network:
    """Read a NIR file (HDF5), in a process of its own, since HDF5 crashes on some damaged files.

    Arguments are those of `from_nir`.

    Raises
    ------
    ImportError
        The package nir is not installed.
    DataError
        The file is damaged, no NIR graph, or one that `from_nir` refuses; it is a ValueError that names file and node.
    OSError
        The file cannot be read.
    """
    graph = read_file(_package("load"), path)
    try:
        return from_nir(graph, timesteps, delta_t=delta_t, euler=euler, reset=reset)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise DataError(f"load: {path}: {error}") from None


def verify(network: Network, graph: Any, data: ArrayLike, labels: ArrayLike | None = None) -> Comparison:
    """Run a graph that `to_nir` wrote, and compare it with its network, spike by spike.

    A graph for a reader is run as that reader does: what comes out is what is lost there, by its reset above all.

    Parameters
    ----------
    network : Network
        That the graph was written from.
    graph : nir.NIRGraph or path
        What `to_nir` gave, or the file that `save` wrote.
    data : array_like
        Samples as for `Network.forward`.
    labels : array_like of int, shape (B,), optional
        Classes of the samples, for accuracies.

    Returns
    -------
    Comparison
        Its text names the first layer that differs.

    Raises
    ------
    ImportError
        The package nir is not installed.
    TypeError, ValueError
        This is no such graph, or data and labels do not fit.
    OSError
        The file cannot be read.
    """
    package = _package("verify")
    if not isinstance(network, Network):
        raise TypeError(f"verify: argument 'network': expected a Network, got {type(network).__name__}")
    if isinstance(graph, str | Path):
        graph = read_file(package, graph)
    if not isinstance(graph, package.NIRGraph):
        raise TypeError(f"verify: argument 'graph': expected a nir.NIRGraph or a path, got {type(graph).__name__}")
    missing = [key for key in ("v_threshold", "output_amplitude", "dt") if key not in graph.metadata]
    layers = {path.replace("/", "_") or type(network.body).__name__.lower() for path, _ in network.neurons()}
    kinds = (package.IF, package.LIF, package.CubaLIF)
    if missing or not all(isinstance(graph.nodes.get(name), kinds) for name in layers):
        raise ValueError("verify: argument 'graph': expected what to_nir wrote of this network, got another graph")
    array = as_array("verify", "data", data, least_axes=2)
    require_finite("verify", "data", array)
    samples = array.shape[network.batch_axis(array, "verify")]
    given = None if labels is None else as_array("verify", "labels", labels)
    if given is not None and given.dtype.kind not in "iu":
        raise TypeError(f"verify: argument 'labels': expected integers, got {given.dtype}")
    if samples == 0 or (given is not None and given.shape != (samples,)):
        shape = "no labels" if given is None else f"labels of shape {given.shape}"
        raise ValueError(f"verify: argument 'data': expected samples with a label each, got {samples} and {shape}")
    return compare(package, network, graph, array, given)


def _package(function: str) -> Any:
    """The package nir, of PyPI."""
    try:
        return import_module("nir")
    except ImportError:
        raise ImportError(f"{function}: nir is not installed; pip install dsr[nir]") from None
