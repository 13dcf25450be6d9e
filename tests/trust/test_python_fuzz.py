"""Wild arguments for what is written in Python: layers, networks, losses, optimisers, schedules, recipes, events.

As in test_entry_fuzz.py: a call is valid or has one or two arguments changed. What is accepted is checked where there
is something to check it against; anything else is a TypeError or ValueError (or what the docstring names) of one line
that begins with the function's name. Arrays that were given keep their bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import wild

import dsr
from dsr import data, reference
from dsr.data.events.frames import resize, to_frames
from dsr.data.events.reading import as_events
from dsr.optim import schedule
from dsr.optim.optimizers import gradient_norm
from dsr.train import recipe

SHORT, FULL = 30, 10000


class Entry(NamedTuple):
    """An entry point."""

    call: Callable[..., Any]
    """With the arguments that `make` gives."""
    make: Callable[[np.random.Generator], list[Any]]
    says: tuple[str, ...]
    """What messages begin with."""
    check: Callable[[list[Any], Any], None] = lambda arguments, result: None
    """Of arguments that were accepted, and the result."""
    errors: tuple[type[Exception], ...] = ()
    """Besides TypeError and ValueError."""


def whole(rng: np.random.Generator, *ranges: tuple[int, int]) -> list[Any]:
    return [int(rng.integers(low, high)) for low, high in ranges]


def network(timesteps: int = 3, leaky: bool = False) -> dsr.Network:
    neuron = (lambda: dsr.LIF(0.3, 1.0, 0.1)) if leaky else (lambda: dsr.IF(1.0))
    layers = [dsr.Conv2d(2, 3, 3, padding=1, bias=False), dsr.BatchNorm(3), neuron(), dsr.AvgPool2d(2), dsr.Flatten()]
    return dsr.Network(dsr.Sequential(*layers, dsr.Linear(12, 4), dsr.BatchNorm(4), neuron()), timesteps)


NET, VECTORS = network(), dsr.Network(dsr.Sequential(dsr.Linear(4, 3), dsr.BatchNorm(3), dsr.IF(1.0)), 2)
STATE = {name: array.copy() for name, array in NET.arrays()}


def images(rng: np.random.Generator) -> list[Any]:
    shape = [(2, 2, 4, 4), (3, 1, 2, 4, 4), (0, 2, 4, 4), (1, 2, 4, 4)][rng.integers(4)]
    return [rng.normal(size=shape).astype(rng.choice(["f4", "f8", "f2", "i2"]))]


def right_rates(arguments: list[Any], rates: np.ndarray) -> None:
    """Rates of an IF network are multiples of V / T, at most V, and nothing has changed the network."""
    given = np.asarray(arguments[0])
    assert rates.shape == (given.shape[1 if given.ndim in (3, 5) else 0], 4) and rates.dtype == np.float32
    assert ((rates >= 0) & (rates <= 1.000001)).all()
    spikes = rates * 3
    np.testing.assert_allclose(spikes, np.rint(spikes), atol=1e-5)
    for name, array in NET.arrays():
        assert array.tobytes() == STATE[name].tobytes()


def train_step(images: Any, grad: Any) -> dsr.Network:
    made = network()
    made.forward(images, training=True)
    made.backward(grad)
    return made


def some_labels(rng: np.random.Generator) -> list[Any]:
    batch, classes = whole(rng, (1, 6), (1, 5))
    rates = (10.0 ** rng.uniform(-3, 3) * rng.normal(size=(batch, classes))).astype(rng.choice(["f4", "f8"]))
    return [rates, rng.integers(0, classes, batch), float(rng.choice([0.0, 0.1]))]


def right_loss(arguments: list[Any], result: tuple[float, np.ndarray]) -> None:
    rates, labels, smoothing = (np.asarray(argument) for argument in arguments)
    loss, grad = result
    assert grad.dtype == np.float32 and grad.shape == rates.shape
    x = rates.astype(np.float64)
    if not np.isfinite(x).all():
        return
    with np.errstate(all="ignore"):
        top = x.max(axis=1, keepdims=True)
        log_p = x - top - np.log(np.exp(x - top).sum(axis=1, keepdims=True))
        wanted = np.full(x.shape, float(smoothing) / x.shape[1])
        wanted[np.arange(len(x)), labels.astype(np.intp)] += 1 - float(smoothing)
        np.testing.assert_allclose(loss, -(wanted * log_p).sum() / len(x), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(grad, (np.exp(log_p) - wanted) / len(x), rtol=1e-6, atol=1e-7)


def parameters() -> list[tuple[str, dsr.Parameter]]:
    return [("a", dsr.Parameter(np.ones((2, 3)))), ("b", dsr.Parameter(np.float32(1)))]


def step_of(make: Callable[..., Any], *arguments: Any) -> Any:
    """An optimiser, and a step that must be possible with what it accepted."""
    made = make(parameters(), *arguments)
    for parameter in made.parameters.values():
        parameter.grad = np.ones_like(parameter.value)
    with np.errstate(all="ignore"):
        made.step()
    return made


def right_sgd(arguments: list[Any], made: Any) -> None:
    value, grad = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    rate, momentum, decay, nesterov = arguments
    with np.errstate(all="ignore"):
        expected = reference.sgd_update(value, grad, None, float(rate), float(momentum), float(decay), bool(nesterov))
    np.testing.assert_array_equal(made.parameters["a"].value, expected[0])


def load_momentum(state: Any) -> Any:
    made = dsr.SGD(parameters(), 0.1, 0.9)
    made.load_state(state)
    return made


def load_moments(state: Any) -> Any:
    made = dsr.Adam(parameters())
    made.load_state(state)
    return made


def values_of_a_mapping(make: Callable[[], dict[str, Any]], call: Callable[[dict[str, Any]], Any]) -> Any:
    """The call of a function that takes a mapping, by the mapping's values."""
    return lambda *values: call(dict(zip(make(), values, strict=True)))


def momentum_state() -> dict[str, Any]:
    return {"momentum.a": np.ones((2, 3), np.float32), "momentum.b": np.array(1, np.float32)}


def adam_state() -> dict[str, Any]:
    moments = {
        f"{kind}.{name}": np.ones(shape, np.float32)
        for kind in ("first", "second")
        for name, shape in (("a", (2, 3)), ("b", ()))
    }
    return moments | {"steps": np.array(3)}


def load_weights(state: dict[str, Any]) -> dsr.Network:
    made = dsr.Network(dsr.Sequential(dsr.Linear(4, 3), dsr.BatchNorm(3), dsr.IF(1.0)), 2)
    before = made.state()
    try:
        dsr.load_state(made, state)
    except (TypeError, ValueError):
        assert all(array.tobytes() == before[name].tobytes() for name, array in made.arrays())
        raise
    return made


def right_rate(arguments: list[Any], rate: Any) -> None:
    assert isinstance(rate, float)
    assert 0 <= rate <= arguments[1] * (1 + 1e-9)


def schedule_of(function: Callable[..., float]) -> Callable[..., float]:
    return lambda epoch, base, epochs, step, warmup: function(
        epoch, base=base, epochs=epochs, step=step, warmup_steps=warmup
    )


def schedule_arguments(rng: np.random.Generator) -> list[Any]:
    return [4 * float(rng.random()), float(rng.random()), 4, int(rng.integers(0, 40)), int(rng.integers(0, 10))]


RECIPE = recipe.load("digits").to_dict()


def events(rng: np.random.Generator) -> list[Any]:
    count = int(rng.integers(0, 20))
    fields = {"x": rng.integers(0, 5, count), "y": rng.integers(0, 4, count)}
    fields |= {"t": np.sort(rng.integers(0, 99, count)), "p": rng.integers(0, 2, count)}
    return [*fields.values(), int(rng.integers(1, 5)), (5, 4), str(rng.choice(["number", "time"]))]


def frames_of(x: Any, y: Any, t: Any, p: Any, timesteps: Any, size: Any, by: Any) -> np.ndarray:
    return to_frames({"x": x, "y": y, "t": t, "p": p}, timesteps, size, by)


def right_frames(arguments: list[Any], frames: np.ndarray) -> None:
    """Every event is in one frame, at its place."""
    x, y, _, p, timesteps, _, _ = arguments
    assert frames.shape[:2] == (timesteps, 2) and frames.dtype == np.int32
    expected = np.zeros(frames.shape[1:], np.int64)
    np.add.at(expected, tuple(np.asarray(a).astype(np.intp) for a in (p, y, x)), 1)
    np.testing.assert_array_equal(frames.sum(axis=0), expected)


def vectors(rng: np.random.Generator) -> list[Any]:
    X = rng.normal(size=(6, 3))
    return [X, np.array([0, 1, 0, 1, 0, 1]), (2,), "if", 2, 1.0, 0.5, 1.0, 0.1, 1, 4, 0.1, 0.9, 5e-4, 0]


PREPARATION = [
    "crop_padding",
    "crop_reflect",
    "flip",
    "image_size",
    "random_resized_crop",
    "frames_by",
    "roll",
    "cutout",
    "timesteps",
    "workers",
]


CLASSIFIER = ("hidden_layer_sizes", "neuron", "timesteps", "v_threshold", "alpha", "tau", "delta_t", "epochs")
CLASSIFIER += ("batch_size", "learning_rate", "momentum", "weight_decay", "random_state")


def fit(X: Any, y: Any, *values: Any) -> Any:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    return dsr.SpikingClassifier(**dict(zip(CLASSIFIER, values, strict=True))).fit(X, y)


def right_classifier(arguments: list[Any], made: Any) -> None:
    assert set(made.predict(np.zeros((2, made.n_features_in_)))) <= set(made.classes_)


ENTRIES = {
    "Conv2d": Entry(
        dsr.Conv2d, lambda rng: [*whole(rng, (1, 5), (1, 5), (1, 4), (1, 3), (0, 3)), True, False], ("Conv2d: ",)
    ),
    "Linear": Entry(dsr.Linear, lambda rng: [*whole(rng, (1, 5), (1, 5)), True, None], ("Linear: ",)),
    "AvgPool2d": Entry(dsr.AvgPool2d, lambda rng: [*whole(rng, (2, 4), (1, 3), (0, 2))], ("AvgPool2d: ",)),
    "Dropout": Entry(dsr.Dropout, lambda rng: [float(rng.random())], ("Dropout: ",)),
    "BatchNorm": Entry(dsr.BatchNorm, lambda rng: [*whole(rng, (1, 5)), 1e-5, 0.1, True], ("BatchNorm: ",)),
    "IF": Entry(
        lambda v, alpha, bound, scale: dsr.IF(v, alpha, bound, threshold_gradient_scale=scale),
        lambda rng: [1.0, 0.5, 0.01, 1.0],
        ("IF: ",),
        lambda _, made: made.effective_threshold(),
    ),
    "LIF": Entry(
        lambda v, tau, dt, alpha, bound, scale: dsr.LIF(v, tau, dt, alpha, bound, threshold_gradient_scale=scale),
        lambda rng: [0.3, 1.0, 0.1, 0.5, 0.001, 1.0],
        ("LIF: ",),
        lambda _, made: made.effective_threshold(),
    ),
    "Sequential": Entry(dsr.Sequential, lambda rng: [dsr.Flatten(), dsr.Linear(3, 2), dsr.IF(1.0)], ("Sequential: ",)),
    "Residual": Entry(dsr.Residual, lambda rng: [dsr.Conv2d(2, 2, 1), None], ("Residual: ",)),
    "Parameter": Entry(dsr.Parameter, lambda rng: [rng.normal(size=3)], ("Parameter: ",)),
    "Network": Entry(
        dsr.Network, lambda rng: [dsr.Sequential(dsr.Linear(3, 2), dsr.IF(1.0)), 3, 0, 100], ("Network: ",)
    ),
    "forward": Entry(
        NET.forward, images, ("Network.forward: ", "Conv2d ", "AvgPool2d ", "Linear ", "BatchNorm "), right_rates
    ),
    "train": Entry(
        train_step,
        lambda rng: [rng.normal(size=(3, 2, 4, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)],
        ("Network.forward: ", "Network.backward: ", "Conv2d ", "AvgPool2d ", "Linear ", "BatchNorm ", "IF "),
        lambda _, made: [parameter.grad.shape for _, parameter in made.parameters()],
        (FloatingPointError,),
    ),
    "predict": Entry(
        NET.predict, lambda rng: [*images(rng), *whole(rng, (1, 5))], ("Network.", "Conv2d ", "AvgPool2d ", "Linear ")
    ),
    "load_state": Entry(
        values_of_a_mapping(VECTORS.state, load_weights), lambda rng: [*VECTORS.state().values()], ("load_state: ",)
    ),
    "Network.load_state": Entry(
        values_of_a_mapping(VECTORS.state, VECTORS.load_state),
        lambda rng: [*VECTORS.state().values()],
        ("Network.load_state: ",),
    ),
    "SpikeTrain.from_dense": Entry(
        dsr.SpikeTrain.from_dense,
        lambda rng: [rng.integers(0, 2, (2, 3, 5)).astype(np.float32), 1.0, np.ones(2, np.float32)],
        ("SpikeTrain.from_dense: ",),
        lambda arguments, train: np.testing.assert_array_equal(train.dense() != 0, np.asarray(arguments[0]) != 0),
    ),
    "cross_entropy": Entry(dsr.cross_entropy, some_labels, ("cross_entropy: ",), right_loss),
    "SGD": Entry(
        lambda *a: step_of(dsr.SGD, *a), lambda rng: [0.1, 0.9, 5e-4, bool(rng.integers(2))], ("SGD: ",), right_sgd
    ),
    "Adam": Entry(lambda *a: step_of(dsr.Adam, *a), lambda rng: [0.1, 0.9, 0.999, 1e-8, 5e-4], ("Adam: ",)),
    "SGD.load_state": Entry(
        values_of_a_mapping(momentum_state, load_momentum),
        lambda rng: [*momentum_state().values()],
        ("SGD.load_state: ",),
    ),
    "Adam.load_state": Entry(
        values_of_a_mapping(adam_state, load_moments), lambda rng: [*adam_state().values()], ("Adam.load_state: ",)
    ),
    "schedule.cosine": Entry(schedule_of(schedule.cosine), schedule_arguments, ("cosine: ",), right_rate),
    "schedule.triangular": Entry(schedule_of(schedule.triangular), schedule_arguments, ("triangular: ",), right_rate),
    "recipe.from_dict": Entry(
        values_of_a_mapping(lambda: RECIPE, recipe.from_dict), lambda rng: [*RECIPE.values()], ("recipe: ",)
    ),
    "to_frames": Entry(frames_of, events, ("to_frames: ", "as_events: "), right_frames),
    "as_events": Entry(
        as_events, lambda rng: [dict(zip("xytp", events(rng)[:4], strict=True)), (5, 4)], ("as_events: ",)
    ),
    "resize": Entry(resize, lambda rng: [rng.integers(0, 9, (2, 2, 4, 5)), *whole(rng, (1, 7))], ("resize: ",)),
    "Preparation": Entry(
        lambda *values: data.Preparation(**dict(zip(PREPARATION, values, strict=True))),
        lambda rng: [4, True, True, 8, False, "number", 2, 2, 3, 0],
        ("Preparation: ",),
    ),
    "SpikingClassifier.fit": Entry(
        fit,
        vectors,
        ("SpikingClassifier", "BatchNorm ", "LIF: ", "IF: ", "SGD: "),
        right_classifier,
        (FloatingPointError,),
    ),
    "set_num_threads": Entry(dsr.set_num_threads, lambda rng: whole(rng, (1, 4)), ("set_threads: ",)),
}


def too_large(value: Any) -> bool:
    """What asks for more memory than a test should take, or for more time: no error of arguments."""
    return isinstance(value, int | np.integer) and 1000 < abs(int(value)) < 2**70


@pytest.mark.parametrize("name", ENTRIES)
def test_python(name, amount, figure):
    entry, counts = ENTRIES[name], [0, 0]
    threads = dsr.get_num_threads()

    def check(case: wild.Case) -> None:
        rng = wild.rng_of(name, case)
        arguments = wild.changed(entry.make(rng), case, lambda: entry.make(rng))
        if any(map(too_large, arguments)):
            return
        before = wild.bytes_of(arguments)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy, about numbers it was given
                result = entry.call(*arguments)
        except (TypeError, ValueError, *entry.errors) as error:
            counts[1] += 1
            message = str(error)
            assert message.startswith(entry.says), f"the message does not begin with {entry.says}: {message}"
            assert len(message.splitlines()) == 1 and len(message) < 3000, message
        else:
            counts[0] += 1
            entry.check(arguments, result)
        assert wild.bytes_of(arguments) == before

    try:
        slow = 20 if name in ("train", "SpikingClassifier.fit") else 1
        wild.repeat(amount(SHORT, FULL // slow), wild.cases(), check)
    finally:
        dsr.set_num_threads(threads)
    figure(f"{counts[0]} results, {counts[1]} refusals")
    assert counts[0] and counts[1]


def test_gradient_norm_names_the_parameter():
    named = dict(parameters())
    named["b"].grad = np.array(np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="the gradient of b is not finite"):
        gradient_norm(named)
