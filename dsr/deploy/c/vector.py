"""What dsr computes of a sample, for the test that is written with a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsr.deploy.c.library import Library, listed, plain
from dsr.deploy.c.storage import words
from dsr.deploy.early_exit import By, clearness
from dsr.ops import Values

Bits = NDArray[np.bool_]


class Twin(Protocol):
    """A network in NumPy that has the bits of the library."""

    @property
    def fired(self) -> Mapping[int, Bits]:
        """Spikes of the layers of neurons at the last time step, (C, H, W)."""

    def step(self, frame: Values) -> Values:
        """The rates after one more time step, for a frame of the shape of a sample."""


def vector(library: Library, twin: Twin, sample: Values) -> tuple[str, Values]:
    """The text of the file, and the rates (T, outputs), for a sample of one frame or T of them, (1 or T, ...)."""
    rates, counts, hashes = [], [], []
    for t in range(library.timesteps):
        rates.append(twin.step(sample[t % len(sample)]).ravel())
        counts.append([int(spikes.sum()) for spikes in twin.fired.values()])
        hashes.append([_hash(spikes) for spikes in twin.fired.values()])
    names = ", ".join(f'"{plain(path)}"' for path in library.layers)
    size, steps = len(library.layers), library.timesteps
    margin, margin_exit, _ = _exit(rates, "margin")
    probability, probability_exit, there = _exit(rates, "probability")
    text = f"""/* A sample, and what dsr computed of it; see @name@_test.c. */
enum {{ VECTOR_STEPS = {steps} }};

static const int vector_moves = {int(len(sample) > 1)}; /* a frame for each step */

static const char *const vector_layers[{size}] = {{{names}}};

static const float vector_sample[{sample.size}] = {{
{listed(sample)}}};

/* Rates after each step. */
static const float vector_rates[{steps}][@NAME@_OUTPUTS] = {{
{_rows(np.array(rates))}}};

/* With these thresholds a run stops after so many steps; the probability then. */
static const double vector_margin = {margin!r};
static const int32_t vector_margin_exit = {margin_exit};
static const double vector_probability = {probability!r};
static const int32_t vector_probability_exit = {probability_exit};
static const double vector_probability_there = {there!r};

/* Spikes of each layer at each step. */
static const uint32_t vector_spikes[{steps}][{size}] = {{
{_rows(np.array(counts, np.uint32))}}};

static const uint32_t vector_hashes[{steps}][{size}] = {{
{_rows(np.array(hashes, np.uint32))}}};
"""
    return text, np.array(rates, np.float32)


def _exit(rates: list[Values], by: By) -> tuple[float, int, float]:
    """A threshold, the step at which a run stops by it, and how clear it is then; not at the last bit of a value."""
    if rates[0].size < 2:
        return 0.0, 0, 0.0
    clear = clearness(np.array(rates), by)
    found = np.unique(clear.round(9))
    threshold = float(found[len(found) // 2] + found[(len(found) - 1) // 2]) / 2 - 1e-9 * (len(found) % 2)
    passed = np.append(np.flatnonzero(clear >= threshold), len(clear) - 1)[0]
    return max(threshold, 0.0), int(passed) + 1, float(clear[passed])


def _rows(array: NDArray[Any]) -> str:
    return "".join(f"    {{\n{listed(row)}    }},\n" for row in array)


def packed(spikes: Bits) -> NDArray[np.uint32]:
    """Spikes (C, H, W) as the words of the C code, (H W, ceil(C / 32))."""
    channels = len(spikes)
    padded = np.zeros((spikes[0].size, 32 * words(channels)), bool)
    padded[:, :channels] = spikes.reshape(channels, -1).T
    return np.packbits(padded, axis=1, bitorder="little").view("<u4").astype(np.uint32)


def _hash(spikes: Bits) -> int:
    """FNV-1a, by words."""
    value = 2166136261
    for word in packed(spikes).ravel().tolist():
        value = (value ^ word) * 16777619 & 0xFFFFFFFF
    return value
