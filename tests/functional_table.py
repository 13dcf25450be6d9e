"""What the functions of dsr.functional take, and valid arguments made from it.

Kinds of arrays: "train" has a time axis, "values" has none, "unit" is without one and in [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

FUNCTIONS = {
    "if_forward": "current:train v_threshold:positive alpha:alpha levels:levels v_init:values",
    "lif_forward": "current:train v_threshold:positive tau:positive delta_t:positive alpha:alpha levels:levels "
    "v_init:values",
    "firing_rate": "train:train",
    "weighted_firing_rate": "train:train tau:positive delta_t:positive",
    "if_rate": "mean_current:values v_threshold:positive levels:levels",
    "lif_rate": "mean_current:values v_threshold:positive tau:positive delta_t:positive levels:levels",
    "if_backward": "grad_output:train current:train v_threshold:positive levels:levels",
    "lif_backward": "grad_output:train current:train v_threshold:positive tau:positive delta_t:positive levels:levels",
    "if_rate_backward": "grad_rate:values mean_current:values v_threshold:positive levels:levels",
    "lif_rate_backward": "grad_rate:values mean_current:values v_threshold:positive tau:positive delta_t:positive "
    "levels:levels",
    "encode_direct": "value:values timesteps:timesteps",
    "encode_bernoulli": "rate:unit timesteps:timesteps seed:seed",
    "encode_latency": "value:unit timesteps:timesteps",
    "encode_phase": "value:unit timesteps:timesteps bits:bits",
    "encode_delta": "signal:train threshold:positive",
}
ARRAYS = ("train", "values", "unit")
OPTIONAL = ("v_init",)
# others refuse values that are not finite
TAKE_NAN = ("firing_rate", "weighted_firing_rate", "if_rate", "lif_rate", "encode_direct")


def kinds_of(function: str) -> dict[str, str]:
    """Kind of each argument."""
    return dict(text.split(":") for text in FUNCTIONS[function].split())


def make_call(
    function: str, rng: np.random.Generator, shape: tuple[int, ...] = (5, 3, 7), dtype: Any = np.float32
) -> dict[str, Any]:
    """Keyword arguments that the function accepts; `shape` has the time axis first."""
    made: dict[str, Any] = {}
    for name, kind in kinds_of(function).items():
        if kind == "train":
            made[name] = rng.normal(0.4, 1, shape).astype(dtype)
        elif kind == "values":
            made[name] = rng.normal(0.4, 1, shape[1:]).astype(dtype)
        elif kind == "unit":
            made[name] = rng.random(shape[1:]).astype(dtype)
        elif kind == "positive":
            # small thresholds: many neurons are saturated, and the threshold has a gradient
            made[name] = float(rng.uniform(0.1, 0.4) if "threshold" in name else rng.uniform(0.5, 1.5))
        elif kind == "alpha":
            made[name] = float(rng.uniform(0.1, 1))
        else:
            # one level as often as several
            levels = int(rng.integers(2, 9)) if rng.random() < 0.5 else 1
            made[name] = {"timesteps": shape[0], "seed": int(rng.integers(0, 2**63)), "bits": 8, "levels": levels}[kind]
    return made


def result_array(result: Any) -> np.ndarray:
    """The array of a result: gradients come with the threshold's."""
    return result[0] if isinstance(result, tuple) else result
