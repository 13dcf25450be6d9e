"""Networks whose plans are pinned in data/plans.json, and what is pinned: `python tests/plan_table.py` writes it anew.

A change of this file says that a layer takes another path than before, or that a pass calls other operations: look at
the difference before you commit it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import dsr
from dsr import _core, inspect, models
from dsr.train import build_network
from dsr.train.recipe import Recipe

PLANS = Path(__file__).parent / "data" / "plans.json"
QUESTIONS = {"level", "levels", "threads", "set_threads", "blas", "kernels"}
FEATURES = {"digits": (1, 8, 8), "vgg": (2, 48, 48), "resnet": (3, 32, 32)}


def neuron_of(kind: str) -> dsr.Layer:
    return {"if": lambda: dsr.IF(1.0), "lif": lambda: dsr.LIF(0.5, delta_t=0.2), "relu": dsr.ReLU}[kind]()


def spike_element_wise(kind: str) -> dsr.Layer:
    """A residual connection behind the neurons: spikes are added to spikes, which stay bits for the convolution."""
    return dsr.Sequential(
        conv1=dsr.Conv2d(3, 8, 3, padding=1),
        bn1=dsr.BatchNorm(8),
        neuron1=neuron_of(kind),
        block=dsr.Residual(
            dsr.Sequential(conv=dsr.Conv2d(8, 8, 3, padding=1), bn=dsr.BatchNorm(8), neuron=neuron_of(kind))
        ),
        conv2=dsr.Conv2d(8, 8, 3, stride=2),
        neuron2=neuron_of(kind),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(8 * 15 * 15, 10),
    )


def pools_everywhere(kind: str) -> dsr.Layer:
    """Pooling of spikes, of currents and of pooled spikes; a kernel too large for bits; no batch normalisation."""
    return dsr.Sequential(
        pool1=dsr.AvgPool2d(2),
        conv1=dsr.Conv2d(3, 8, 3, padding=1),
        neuron1=neuron_of(kind),
        pool2=dsr.AvgPool2d(2),
        conv2=dsr.Conv2d(8, 8, 3, padding=1),
        pool3=dsr.AvgPool2d(2),
        neuron2=neuron_of(kind),
        pool4=dsr.AvgPool2d(2),
        neuron3=neuron_of(kind),
        conv3=dsr.Conv2d(8, 4, 12, padding=6),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(4 * 3 * 3, 10),
    )


def shortcuts_of_all_kinds(kind: str) -> dsr.Layer:
    """Identity, convolved, normalised and nested shortcuts, one of data, and dropout within."""

    def body(channels: int, out: int, stride: int = 1) -> dsr.Layer:
        return dsr.Sequential(
            conv1=dsr.Conv2d(channels, out, 3, stride, 1),
            bn=dsr.BatchNorm(out),
            neuron=neuron_of(kind),
            dropout=dsr.Dropout(0.2),
            conv2=dsr.Conv2d(out, out, 3, padding=1),
        )

    return dsr.Sequential(
        data=dsr.Residual(body(3, 3)),
        neuron1=neuron_of(kind),
        nested=dsr.Residual(dsr.Residual(body(3, 3))),
        neuron2=neuron_of(kind),
        convolved=dsr.Residual(body(3, 8, 2), dsr.Conv2d(3, 8, 1, 2)),
        bn3=dsr.BatchNorm(8),
        neuron3=neuron_of(kind),
        normalised=dsr.Residual(body(8, 4, 2), dsr.Sequential(conv=dsr.Conv2d(8, 4, 1, 2), bn=dsr.BatchNorm(4))),
        bn4=dsr.BatchNorm(4),
        neuron4=neuron_of(kind),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(4 * 8 * 8, 10),
    )


def convolutions_of_all_kinds(kind: str) -> dsr.Layer:
    """Inverted residuals with depthwise convolutions, rectangles, dilation, and a way back up to a larger image."""
    return dsr.Sequential(
        conv1=dsr.Conv2d(3, 8, (2, 3), 2, (0, 1)),
        bn1=dsr.BatchNorm(8),
        neuron1=neuron_of(kind),
        block=dsr.Residual(
            dsr.Sequential(
                expand=dsr.Conv2d(8, 40, 1),
                neuron1=neuron_of(kind),
                depthwise=dsr.Conv2d(40, 40, 3, padding="same", groups=40, bias=False),
                bn=dsr.BatchNorm(40),
                neuron2=neuron_of(kind),
                project=dsr.Conv2d(40, 8, 1),
            )
        ),
        neuron2=neuron_of(kind),
        grouped=dsr.Conv2d(8, 8, (4, 2), padding="same", dilation=(1, 2), groups=4),
        neuron3=neuron_of(kind),
        up=dsr.ConvTranspose2d(8, 4, 4, 2, 1),
        bn4=dsr.BatchNorm(4),
        neuron4=neuron_of(kind),
        pool=dsr.AvgPool2d(4),
        down=dsr.ConvTranspose2d(4, 4, 2, 2, groups=4),
        neuron5=neuron_of(kind),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(4 * 16 * 16, 10),
    )


def branches_of_all_kinds(kind: str) -> dsr.Layer:
    """Maximum, global and repeated pooling, concatenated spikes, sums and values, added branches, gated spikes."""
    own, gated = {}, {}  # of spikes only
    if kind != "relu":
        own["own"] = thresholds_of_channels(kind)
        gated["gated"] = dsr.SpikeResidual(dsr.Sequential(dsr.Conv2d(8, 8, 1), neuron_of(kind)), "iand")
    return dsr.Sequential(
        conv1=dsr.Conv2d(3, 8, 3, padding=1),
        bn1=dsr.BatchNorm(8),
        pool1=dsr.MaxPool2d(2),
        neuron1=neuron_of(kind),
        **gated,
        unet=dsr.Concat(
            dsr.Identity(),
            dsr.Sequential(
                dsr.MaxPool2d((2, 1)), dsr.Conv2d(8, 4, 3, padding=1), neuron_of(kind), dsr.Upsample((2, 1))
            ),
        ),
        conv2=dsr.Conv2d(12, 8, 3, padding=1),
        neuron2=neuron_of(kind),
        **own,
        sums=dsr.Concat(dsr.AvgPool2d(3, 1, 1), dsr.Identity()),
        values=dsr.Concat(dsr.Conv2d(16, 4, 1), dsr.Conv2d(16, 4, 1)),
        bn2=dsr.BatchNorm(8),
        neuron3=neuron_of(kind),
        added=dsr.Add(dsr.Identity(), dsr.Conv2d(8, 8, 1), dsr.Sequential(dsr.Conv2d(8, 8, 1), neuron_of(kind))),
        neuron4=neuron_of(kind),
        pool2=dsr.GlobalAvgPool2d(),
        linear=dsr.Linear(8, 10),
    )


def thresholds_of_channels(kind: str) -> dsr.Layer:
    """A convolution to neurons with a threshold for each channel, whose spikes another one reads."""
    heights = np.linspace(0.2, 0.9, 8)
    return dsr.Sequential(
        conv1=dsr.Conv2d(8, 8, 3, padding=1),
        neuron1=dsr.IF(heights) if kind == "if" else dsr.LIF(heights, delta_t=0.2),
        block=dsr.Residual(dsr.Conv2d(8, 8, 3, padding=1)),
        neuron2=neuron_of(kind),
    )


OWN = {
    f.__name__: f
    for f in (
        spike_element_wise,
        pools_everywhere,
        shortcuts_of_all_kinds,
        convolutions_of_all_kinds,
        branches_of_all_kinds,
    )
}
KINDS = ("if", "lif", "relu")
NAMES = [*models.names(), *OWN]


def network_of(name: str, kind: str, keep_bytes: int) -> tuple[dsr.Network, np.ndarray]:
    """A network and a batch for it."""
    timesteps = 1 if kind == "relu" else 2
    features = next((shape for start, shape in FEATURES.items() if name.startswith(start)), (3, 32, 32))
    if name in OWN:
        network = dsr.Network(OWN[name](kind), timesteps, keep_bytes=keep_bytes)
    else:
        threshold = {"v_threshold": 0.5, "delta_t": 0.2} if kind == "lif" else {"v_threshold": 1.0}
        recipe = Recipe(data="none", model=name, width=4, neuron=kind, timesteps=timesteps, **threshold)
        network = build_network(recipe, features, 10)
        network.keep_bytes = keep_bytes
    return network, np.random.default_rng(0).normal(size=(2, *features)).astype(np.float32)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Calls of compiled operations; a convolution that adds to its output counts as another one."""
    calls: Counter[str] = Counter()
    before = {name: f for name, f in vars(_core).items() if callable(f) and name not in QUESTIONS}

    def counting(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls["conv2d_spikes, added" if name == "conv2d_spikes" and arguments[6] else name] += 1
            return function(*arguments)

        return call

    for name, function in before.items():
        setattr(_core, name, counting(name, function))
    try:
        yield calls
    finally:
        for name, function in before.items():
            setattr(_core, name, function)


def pinned(name: str, kind: str) -> dict[str, Any]:
    """What is pinned of one network: choices and operations, counted, in evaluation and in training."""
    found: dict[str, Any] = {}
    for what, training, keep_bytes in (("evaluation", False, 0), ("training", True, 1 << 40), ("dropping", True, 0)):
        network, data = network_of(name, kind, keep_bytes)
        with counted() as calls:
            plan = inspect.plan(network, data, training=training)
        choices = Counter(choice for row in plan.rows for choice in row.forward)
        choices.update(f"back: {choice}" for row in plan.rows for choice in row.backward)
        found[what] = {
            "choices": dict(sorted(choices.items())),
            "operations": dict(sorted(calls.items())),
            "kept": len(plan.kept),
            "dropped": len(plan.dropped),
        }
    return found


def main() -> None:
    lines = [f"{json.dumps(f'{name}, {kind}')}: {json.dumps(pinned(name, kind))}" for name in NAMES for kind in KINDS]
    PLANS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
