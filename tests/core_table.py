"""What the entries of dsr._core take, stated a second time: the tests' own table, and valid arguments made from it.

An argument is "name:kind" or "name:kind:axes"; "?" before the name: None is allowed; "!" before the name: an output;
"neuron" is a `dsr.ops.NeuronModel`, "geometry" a `dsr.ops.Geometry`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dsr import _core, ops
from dsr.ops.layout import aligned_array

WINDOWS = "kernel_h:count kernel_w:count stride_h:count stride_w:count padding_h:size padding_w:size"
ENTRIES = {
    "neuron_forward": "current:real:TN ?v_init:real:N neuron:neuron !out:real:TN ?!v_final:real:N",
    "firing_rate": "train:real:TN ?weights:float64:T !out:real:N",
    "rate": "mean_current:real:N neuron:neuron !out:real:N",
    "backward": "grad_output:real:TN current:real:TN ?weights:float64:T neuron:neuron !out:real:TN",
    "rate_backward": "grad_rate:real:N mean_current:real:N neuron:neuron !out:real:N",
    "encode_bernoulli": "rate:real:N seed:seed !out:real:TN",
    "encode_latency": "value:real:N !out:real:TN",
    "encode_phase": "value:real:N bits:count !out:real:TN",
    "encode_delta": "signal:real:TN threshold:positive !out:real:TN",
    "neuron_spikes": "current:float32:CPSB ?scale:float32:C ?shift:float32:C ?weights:float32:T neuron:neuron "
    "?thresholds:float32:RC !words:uint32:WPTB !sums:float32:CPB ?!weighted:float32:CPB",
    "neuron_steps": "current:float32:CPSB ?scale:float32:C ?shift:float32:C neuron:neuron ?thresholds:float32:RC "
    "!words:uint32:WPTB ?!potentials:float32:KPBZ",
    "neuron_spikes_backward": "grad:float32:CN sums:float32:CN ?scale:float32:C ?shift:float32:C timesteps:count "
    "neuron:neuron ?thresholds:float32:RC !out:float32:CN !above:float64:C",
    "pack_words": "values:float32:CN !out:uint32:WN",
    "unpack_words": "words:uint32:WN amplitude:float32:C !out:float32:CN",
    "add_words": "words:uint32:WN amplitude:float32:C !out:float32:CN",
    "sum_words": "words:uint32:WPTB weights:float32:T amplitude:float32:C !out:float32:CPB",
    "compare": "a:float32:N b:float32:N",
    "count_bits": "words:uint32:N",
    "count_words": "words:uint32:WN !out:int64:C",
    "dropout_words": "words:uint32:N keep:chance seed:seed !out:uint32:N",
    "count_steps": "words:uint32:JNTB most:count !out:uint32:NKB",
    "transpose_words": "words:uint32:WPL !out:uint32:PKC",
    "moments": "values:float32:CN !sums:float64:C !squares:float64:C",
    "product_moments": "a:float32:CN b:float32:CN !sums:float64:C !products:float64:C",
    "expand_gradient": "constant:float32:CPB values:float32:CPTB slope:float32:C !out:float32:CPTB",
    "weighted_sum": "values:float32:CPTB weights:float32:T !out:float32:CPB",
    "affine": "x:float32:CN ?y:float32:CN a:float32:C ?b:float32:C c:float32:C !out:float32:CN",
    "pool_planes": f"words:uint32:CHWL {WINDOWS} !out:uint32:KCIJL",
    "or_pool": f"words:uint32:CHWL {WINDOWS} !out:uint32:CIJL",
    "avg_pool": f"input:float32:CHWL {WINDOWS} !out:float32:CIJL",
    "avg_pool_backward": f"grad_output:float32:CIJL {WINDOWS} !out:float32:CHWL",
    "max_pool": f"input:float32:CHWL {WINDOWS} !out:float32:CIJL",
    "max_pool_backward": f"grad_output:float32:CIJL input:float32:CHWL {WINDOWS} !out:float32:CHWL",
    "sgd_update": "!value:float32:N grad:float32:N !buffer:float32:N learning_rate:number momentum:chance "
    "weight_decay:number nesterov:size first:size",
    "conv2d": "input:float32:CHWL weight:float32:OGYX ?bias:float32:O geometry:geometry !out:float32:OIJL",
    "conv2d_by_step": "input:float32:CHWTB weight:float32:OGYX ?bias:float32:O geometry:geometry !out:float32:OIJTB",
    "conv2d_input_gradient": "grad_output:float32:OIJL weight:float32:OGYX geometry:geometry !out:float32:CHWL",
    "conv2d_weight_gradient": "grad_output:float32:OIJL input:float32:CHWL geometry:geometry !out:float32:OGYX",
    "conv2d_spikes": "words:uint32:WHVL weight:float32:OGYX ?bias:float32:O amplitude:number geometry:geometry "
    "table_bits:count accumulate:size ?packed:float32:N !out:float32:OIJL",
    "packed_length": "weight:float32:OGYX geometry:geometry",
    "pack_weights": "weight:float32:OGYX geometry:geometry !out:float32:N",
    "conv2d_neuron_spikes": "words:uint32:WHVTB weight:float32:OGYX ?bias:float32:O amplitude:number geometry:geometry "
    "table_bits:count ?shortcut:uint32:KIJTB ?shortcut_amplitude:float32:O ?scale:float32:O ?shift:float32:O "
    "neuron:neuron ?thresholds:float32:RO ?packed:float32:N ?weights:float32:T !out:uint32:DIJTB "
    "?!potentials:float32:KIJBZ ?!weighted:float32:OIJB",
    "conv2d_spikes_sum": "words:uint32:WHVTB weight:float32:OGYX ?bias:float32:O amplitude:number geometry:geometry "
    "table_bits:count ?shortcut:uint32:KIJTB ?shortcut_amplitude:float32:O weights:float32:T ?packed:float32:N "
    "!out:float32:OIJB",
    "conv2d_spikes_weight_gradient": "constant:float32:OIJB ?weights:float32:T ?slope:float32:O ?values:float32:OIJTB "
    "transposed:uint32:HVKN timesteps:count amplitude:number geometry:geometry table_bits:count !out:float32:OGYX",
    "integer_conv2d_spikes": "words:uint32:WHVL packed:int16:KNRQ geometry:geometry in_channels:size "
    "out_channels:count shift:size table_bits:count together:count !rows:int32:KIJLQ",
    "integer_conv2d_neuron_spikes": "words:uint32:WHVTB packed:int16:KNRQ geometry:geometry in_channels:size "
    "out_channels:count shift:size table_bits:count together:count ?current:int32:KIJSBQ ?shortcut:uint32:MIJTB "
    "?shortcut_weight:int32:O bias:int32:O reset:int32:O fire:int32:O decay:size ?!potentials:int16:KIJBQ "
    "!out:uint32:MIJTB",
    "integer_conv2d": "values:int32:CHVL packed:int16:KNRQ geometry:geometry in_channels:size out_channels:count "
    "left:size right:size !rows:int32:KIJLQ",
    "integer_conv2d_value_neuron_spikes": "values:int32:CHVSB packed:int16:KNRQ geometry:geometry in_channels:size "
    "out_channels:count left:size right:size ?shortcut:uint32:MIJTB ?shortcut_weight:int32:O bias:int32:O "
    "reset:int32:O fire:int32:O decay:size ?!potentials:int16:KIJBQ !out:uint32:MIJTB",
}
# these return a number, the others None
NUMBERS = {"backward", "rate_backward", "compare", "count_bits", "packed_length"}


class Argument(NamedTuple):
    """One argument of an entry; `axes` is empty for numbers."""

    name: str
    kind: str
    axes: str
    output: bool
    optional: bool


def arguments_of(entry: str) -> list[Argument]:
    """The row of the table, read."""
    found = []
    for text in ENTRIES[entry].split():
        name, kind, *axes = text.lstrip("?!").split(":")
        found.append(Argument(name, kind, axes[0] if axes else "", "!" in text, "?" in text))
    return found


def settle(entry: str, sizes: dict[str, int]) -> dict[str, int]:
    """The sizes with all relations between them kept: words of channels and lanes, windows of images."""

    def words(size: int) -> int:
        return (size + 31) // 32

    sizes["R"], sizes["Z"] = 3, ops.ROW
    sizes["kernel_h"], sizes["kernel_w"], sizes["timesteps"] = sizes["Y"], sizes["X"], sizes["T"]
    sizes["padding"] = min(sizes["padding"], sizes["Y"] // 2, sizes["X"] // 2)
    images = (("H", "Y", "I", "h"), ("V" if "spikes" in entry or "integer" in entry else "W", "X", "J", "w"))
    for size, kernel, windows, axis in images if "pool" in entry else ():
        sizes[f"padding_{axis}"] = sizes["padding"]
        stride = sizes.setdefault(f"stride_{axis}", sizes["stride"])
        room = 2 * sizes["padding"] - sizes[kernel]
        sizes[size] = max(sizes[size], -room)
        sizes[windows] = (sizes[size] + room) // stride + 1
    if entry == "conv2d_by_step":  # the kernel is as large as the image
        sizes |= {"padding": 0, "after": 0, "transposed": 0, "H": sizes["dilation"] * (sizes["Y"] - 1) + 1}
        sizes["W"] = sizes["X"]
    if "conv" in entry or entry.startswith("pack"):
        settle_convolution(sizes, [names[:3] for names in images])
    if entry == "transpose_words":
        sizes["C"], sizes["K"] = 32 * sizes["W"], words(sizes["L"])
    elif entry == "count_steps":
        sizes["J"], sizes["K"] = sizes["most"].bit_length(), (sizes["T"] * sizes["most"]).bit_length()
    elif entry == "pool_planes":
        sizes["K"] = (sizes["Y"] * sizes["X"]).bit_length()
    elif entry == "conv2d_spikes_weight_gradient":
        sizes["K"], sizes["N"] = words(sizes["T"] * sizes["B"]), 32 * words(sizes["C"])
    elif any(part in entry for part in ("words", "spikes", "steps", "integer")):
        planes = sizes.setdefault("levels", 1).bit_length()
        sizes["W"] = words(sizes["C"]) * (planes if entry in ("neuron_spikes", "neuron_steps") else 1)
        if entry == "neuron_steps":
            sizes["K"] = words(sizes["C"])
        if entry.startswith("integer"):
            settle_blocks(sizes)
        if entry in ("conv2d_neuron_spikes", "conv2d_spikes_sum"):
            sizes["K"] = words(sizes["O"])
        if entry == "conv2d_neuron_spikes":
            sizes["D"] = words(sizes["O"]) * planes
    if entry in ("pack_weights", "conv2d_spikes", "conv2d_neuron_spikes", "conv2d_spikes_sum"):
        weight = np.zeros(tuple(sizes[letter] for letter in "OGYX"), np.float32)
        fits = sizes["Y"] * sizes["X"] <= ops.MOST_TAPS
        sizes["N"] = int(_core.packed_length(weight, geometry_of(sizes))) if fits else 1
    return sizes


def settle_blocks(sizes: dict[str, int]) -> None:
    """How integer weights are packed: blocks of 64 output channels, and of words with their taps."""
    taps, sizes["Q"] = sizes["Y"] * sizes["X"], 64
    sizes["O"] = max(sizes["O"], sizes["groups"])
    block = min(max(sizes["W"], 1), max(9 // taps, 1))
    sizes["K"], sizes["M"] = -(-sizes["O"] // 64), -(-sizes["O"] // 32)
    sizes["N"], sizes["R"] = -(-sizes["W"] // block), 1 + 32 * block * taps
    sizes |= {"in_channels": sizes["C"], "out_channels": sizes["O"], "shift": 3, "decay": 20000}
    sizes["together"] = 1 + sizes["C"] % 3
    sizes |= {"left": 2, "right": 0} if sizes["O"] % 2 else {"left": 0, "right": 5}


def geometry_of(sizes: dict[str, int]) -> ops.Geometry:
    """The geometry that the sizes describe; a stride is a spread where `transposed` says so."""
    (y, x), p, d = (sizes["Y"], sizes["X"]), sizes["padding"], (sizes["dilation"], 1)
    steps = (sizes["stride"], sizes["across"])
    if sizes["transposed"]:
        around = min(p, d[0] * (y - 1)), min(p, x - 1)
        return ops.Geometry((y, x), (1, 1), (around[0],) * 2 + (around[1],) * 2, d, sizes["groups"], steps)
    return ops.Geometry((y, x), steps, (p, p, p, p + sizes["after"]), d, sizes["groups"])


def settle_convolution(sizes: dict[str, int], images: tuple[tuple[str, str, str], ...]) -> None:
    """Groups and windows of a convolution."""
    sizes["G"] = sizes["C"] // sizes["groups"]
    sizes["C"], sizes["O"] = sizes["G"] * sizes["groups"], -(-sizes["O"] // sizes["groups"]) * sizes["groups"]
    geometry = geometry_of(sizes)
    for axis, (size, _, windows) in enumerate(images):
        while geometry.output_size(sizes[size], sizes[size])[axis] < 1:
            sizes[size] += 1
        sizes[windows] = geometry.output_size(sizes[size], sizes[size])[axis]


def draw_sizes(entry: str, rng: np.random.Generator) -> dict[str, int]:
    """Random small sizes of the axes and of kernels and strides, some of them 0."""
    sizes = {letter: int(rng.integers(0, 7)) for letter in "NCPBHVWLO"}
    if "words" in entry or "spikes" in entry or "steps" in entry:
        sizes["C"] = int(rng.choice([0, 1, 5, 31, 32, 33, 40]))
    sizes["T"], sizes["Y"], sizes["X"], sizes["stride"] = (int(size) for size in rng.integers(1, 4, 4))
    sizes["S"] = int(rng.choice([1, sizes["T"]]))
    sizes["stride_h"], sizes["stride_w"] = (int(size) for size in rng.integers(1, 4, 2))
    sizes["padding"], sizes["table_bits"] = int(rng.integers(0, 3)), int(rng.choice([1, 2, 4]))
    sizes |= {name: int(rng.integers(1, 4)) for name in ("across", "dilation", "groups")}
    sizes |= {"after": int(rng.integers(0, 2)), "transposed": int(rng.integers(0, 2)), "most": int(rng.integers(1, 10))}
    sizes["levels"] = int(rng.choice([1, 1, 2, 3, 5]))
    return settle(entry, sizes)


def plain_sizes(entry: str) -> dict[str, int]:
    """No axis is shorter than 2, and at stride 1 every pixel of an image counts."""
    sizes = {"N": 5, "C": 40, "P": 2, "B": 9, "H": 5, "V": 6, "W": 6, "L": 33, "O": 3, "T": 4, "S": 4}
    window = {"Y": 3, "X": 2, "stride": 1, "padding": 1, "table_bits": 2}
    usual = {"across": 1, "dilation": 1, "groups": 1, "after": 0, "transposed": 0, "most": 4}
    return settle(entry, {**sizes, **window, **usual})


def make_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Values that suit any argument of that dtype: floats in [-1, 2), words of any bits."""
    if np.dtype(dtype).kind == "f":
        return (rng.random(shape) * 3 - 1).astype(dtype)
    return rng.integers(0, 2**32, shape).astype(dtype)


def aligned(array: np.ndarray) -> np.ndarray:
    """The same array of float32 in memory that begins at a multiple of 64 bytes, as rows of channels want it."""
    copy = aligned_array(array.shape)
    copy[...] = array
    return copy


def make_neuron(rng: np.random.Generator, real: Any = np.float32, levels: int = 1) -> ops.NeuronModel:
    """IF or LIF neurons."""
    v_threshold, tau, delta_t, alpha = (float(number) for number in rng.uniform(0.1, 1, 4))
    if rng.random() < 0.5:
        return ops.if_model(v_threshold, alpha, levels=levels, dtype=real)
    return ops.lif_model(v_threshold, tau, delta_t, alpha, levels=levels, dtype=real)


def make_arguments(
    entry: str, rng: np.random.Generator, real: Any = np.float32, sizes: dict[str, int] | None = None
) -> list[Any]:
    """Arguments that the entry accepts."""
    sizes = draw_sizes(entry, rng) if sizes is None else sizes
    made: list[Any] = []
    for argument in arguments_of(entry):
        if argument.axes:
            shape = tuple(sizes[letter] for letter in argument.axes)
            array = make_array(rng, shape, real if argument.kind == "real" else argument.kind)
            of_rows = argument.kind == "float32" and argument.axes in ("N", "KIJBZ", "KPBZ")
            made.append(aligned(array) if of_rows else array)
            if argument.name in ("reset", "fire"):
                made[-1] = rng.integers(1, 4096, shape).astype(np.int32)
            if argument.name == "packed" and argument.kind == "int16":
                made[-1][:, :, 0] = 0
            elif argument.name == "packed" and sizes["Y"] * sizes["X"] <= ops.MOST_TAPS:
                _core.pack_weights(made[1], geometry_of(sizes), made[-1])
        elif argument.kind == "neuron":
            made.append(make_neuron(rng, real, sizes.get("levels", 1)))
        elif argument.kind == "geometry":
            made.append(geometry_of(sizes))
        elif argument.name in sizes:
            made.append(sizes[argument.name])
        elif argument.kind == "chance":
            made.append(float(rng.uniform(0.1, 1)))
        elif argument.kind in ("positive", "number"):
            made.append(float(rng.uniform(0.1, 2)))
        else:
            made.append(int(rng.integers(1, 25)))
    return made
