"""Speed of pooling kernels beside PyTorch's dense layers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dsr import _core, ops
from dsr.bench import seconds

SHAPE = (64, 32, 32, 5, 64)
"""C, H, W, T and B of what is pooled."""

WINDOWS = (2, 2, 0)
"""Size, stride and padding."""


def measure(density: float, repeats: int) -> list[dict[str, Any]]:
    """Rows of `dsr.bench.kernels.measure`: billions of pooled elements read a second.

    Of spikes PyTorch's layers pool the values written out, which is what they take.
    """
    rng = np.random.default_rng(0)
    current = rng.normal(size=SHAPE).astype(np.float32)
    spikes = (rng.random(SHAPE, np.float32) < density).astype(np.float32)
    words, flat, dense = ops.pack_words(spikes), *(array.reshape(*SHAPE[:3], -1) for array in (current, spikes))
    grad = rng.normal(size=(64, 16, 16, flat.shape[3])).astype(np.float32)
    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "max pool 2x2, spikes": {"dsr": lambda: ops.or_pool(words, *WINDOWS)},
        "avg pool 2x2, spikes": {"dsr": lambda: ops.pool_planes(words, *WINDOWS)},
        "max pool 2x2": {"dsr": lambda: ops.max_pool(flat, *WINDOWS)},
        "max pool 2x2 gradient": {"dsr": lambda: ops.max_pool_backward(grad, flat, *WINDOWS)},
        "avg pool 2x2": {"dsr": lambda: ops.avg_pool(flat, *WINDOWS)},
    }
    if find_spec("torch") is not None:
        torch = import_module("torch")
        torch.set_num_threads(_core.threads())

        def tensor(array: ops.Values) -> Any:
            images = torch.from_numpy(np.ascontiguousarray(array.transpose(3, 0, 1, 2)))
            return images.contiguous(memory_format=torch.channels_last)

        x, s, g = map(tensor, (flat, dense, grad))
        layers = torch.nn.functional
        _, places = layers.max_pool2d(x, 2, return_indices=True)
        gradient, window, none, one = torch.ops.aten.max_pool2d_with_indices_backward, [2, 2], [0, 0], [1, 1]
        calls["max pool 2x2, spikes"]["torch"] = lambda: layers.max_pool2d(s, 2)
        calls["avg pool 2x2, spikes"]["torch"] = lambda: layers.avg_pool2d(s, 2)
        calls["max pool 2x2"]["torch"] = lambda: layers.max_pool2d(x, 2)
        calls["max pool 2x2 gradient"]["torch"] = lambda: gradient(g, x, window, window, none, one, False, places)
        calls["avg pool 2x2"]["torch"] = lambda: layers.avg_pool2d(x, 2)
    return [
        {"kernel": kernel, "shape": f"64x32x32, {flat.shape[3]} lanes"}
        | {who: current.size / 1e9 / seconds(call, repeats) for who, call in row.items()}
        for kernel, row in calls.items()
    ]
