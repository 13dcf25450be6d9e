"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dsr.models.cifar_deep import cifar_deep
from dsr.models.cifar_fast import cifar_fast
from dsr.models.digits import digits
from dsr.models.image_deep import image_deep
from dsr.models.imagenet_resnet import imagenet_resnet
from dsr.models.mlp import mlp
from dsr.models.preact_resnet import preact_resnet
from dsr.models.speck import speck
from dsr.models.vgg import vgg
from dsr.nn.containers import Sequential

__all__ = [
    "cifar_deep",
    "cifar_fast",
    "digits",
    "image_deep",
    "imagenet_resnet",
    "mlp",
    "names",
    "preact_resnet",
    "speck",
    "vgg",
]

MODELS: dict[str, Callable[..., Sequential]] = {
    "digits": digits,
    "mlp": mlp,
    "cifar_fast": cifar_fast,
    "cifar_deep": cifar_deep,
    "image_deep": image_deep,
    **{f"preact_resnet{depth}": partial(preact_resnet, depth=depth) for depth in (18, 34, 50)},
    **{f"vgg{depth}": partial(vgg, depth=depth) for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": partial(imagenet_resnet, depth=depth) for depth in (18, 34, 50)},
    "speck": speck,
}


def names() -> list[str]:
    """Models by name, as in recipes."""
    return list(MODELS)
