"""What dsr computes of a sample, for the test that is written with a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsr.deploy.c.library import Library, listed, number_text, plain
from dsr.deploy.c.storage import words
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
    leads = [_lead(row) for row in rates]
    margin = sorted(leads)[len(leads) // 2]
    exit_step = next(t for t, lead in enumerate(leads, 1) if lead >= margin)
    text = f"""/* A sample, and what dsr computed of it; see @name@_test.c. */
enum {{ VECTOR_STEPS = {steps} }};

static const int vector_moves = {int(len(sample) > 1)}; /* a frame for each step */

static const char *const vector_layers[{size}] = {{{names}}};

static const float vector_sample[{sample.size}] = {{
{listed(sample)}}};

/* Rates after each step. */
static const float vector_rates[{steps}][@NAME@_OUTPUTS] = {{
{_rows(np.array(rates))}}};

/* With this margin a run stops after so many steps. */
static const float vector_margin = {number_text(float(margin))};
static const int32_t vector_exit = {exit_step};

/* Spikes of each layer at each step. */
static const uint32_t vector_spikes[{steps}][{size}] = {{
{_rows(np.array(counts, np.uint32))}}};

static const uint32_t vector_hashes[{steps}][{size}] = {{
{_rows(np.array(hashes, np.uint32))}}};
"""
    return text, np.array(rates, np.float32)


def _lead(rates: Values) -> np.float32:
    """How much the largest rate is above all others; 0 where there are none."""
    last = np.sort(rates)[-2:].astype(np.float32)
    return last[1] - last[0] if len(last) > 1 else np.float32(0)


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
