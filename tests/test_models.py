"""The networks: sizes counted by hand, wiring and gradients against float64, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from checks import normal

import dsr
from dsr import models, ops, reference
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv2d
from dsr.nn.flatten import Flatten
from dsr.nn.neurons import IF, LIF, Neuron
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d
from dsr.nn.relu import ReLU
from dsr.train.build import build_network
from dsr.train.recipe import Recipe

RELU = Recipe(data="none", model="digits", width=4, neuron="relu", timesteps=1)
IMAGES = {"digits": (1, 8, 8)}
RESIDUAL = ["preact_resnet18", "preact_resnet34", "preact_resnet50", "resnet18", "resnet34", "resnet50"]


def features_of(name):
    return IMAGES.get(name, (2, 48, 48) if name.startswith("vgg") else (3, 32, 32))


def built(name, classes=5, features=None, **changes):
    return build_network(replace(RELU, model=name, **changes), features or features_of(name), classes)


# ---- sizes ---------------------------------------------------------------------------------------------------------

# parameters in all, and thresholds: added up by hand from the authors' layers, for networks of width 64
COUNTS = {
    # 1,728 in conv1; stages 147,712 + 512, 525,824, 2,100,224, 8,394,752; BN 1,024, linear 5,130, BN 20
    "preact_resnet18": ((3, 32, 32), 10, 11_176_945, 19),
    "preact_resnet34": ((3, 32, 32), 10, 21_288_833, 35),
    "preact_resnet50": ((3, 32, 32), 100, 23_539_729 + 90 * (2048 + 3), 51),
    # 9,217,152 in kernels, 2,752 biases, BN 5,504, linear 5,130 (the authors', 25,088 wide: 250,890), BN 20
    "vgg11": ((2, 48, 48), 10, 9_230_567, 9),
    "vgg13": ((2, 48, 48), 10, 9_415_465, 11),
    "vgg16": ((3, 32, 32), 10, 14_727_724 + 576, 14),
    "vgg19": ((3, 32, 32), 10, 20_039_983 + 576, 17),
    # torchvision's 11,689,512 and 25,557,032 are those with another place of BN, no BN at the end and no thresholds
    "resnet18": ((3, 224, 224), 1000, 11_689_512 + 128 + 2000 + 20, 20),
    "resnet34": ((3, 224, 224), 1000, 21_797_672 + 128 + 2000 + 36, 36),
    "resnet50": ((3, 224, 224), 1000, 25_557_032 + 128 + 2000 + 52, 52),
}


def counted(name, features, classes):
    """The same by formula: kernels, biases, two numbers a channel of each BN, one a neuron layer."""
    depth, width, total, thresholds = int(name[-2:]), 64, 0, 0

    def conv(inputs, outputs, kernel, bias):
        return inputs * outputs * kernel**2 + (outputs if bias else 0)

    if name.startswith("vgg"):
        plan = {11: "AaBBCCCC", 13: "aaAABBCCCC", 16: "aaAABBBCCCCCC", 19: "aaAABBBBCCCCCCCC"}[depth]
        plan = [{"a": 64, "A": 128, "B": 256, "C": 512}[letter] for letter in plan]
        if depth == 11:
            plan[:2] = [64, 128]
        inputs = features[0]
        for outputs in plan:
            total += conv(inputs, outputs, 3, True) + 2 * outputs
            inputs = outputs
        return total + inputs * classes + classes + 2 * classes + len(plan) + 1, len(plan) + 1
    cifar = name.startswith("preact")
    blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}[depth]
    total += conv(features[0], width, 3 if cifar else 7, False) + (0 if cifar else 2 * width)
    inputs = width
    for stage, count in enumerate(blocks):
        narrow = width * 2**stage
        outputs = 4 * narrow if depth == 50 else narrow
        for number in range(count):
            kernels = [1, 3, 1] if depth == 50 else [3, 3]
            sizes = [inputs, *[narrow] * (len(kernels) - 1), outputs]
            for kernel, a, b in zip(kernels, sizes[:-1], sizes[1:], strict=True):
                total += conv(a, b, kernel, cifar) + 2 * a
            thresholds += len(kernels)
            if number == 0 and (stage > 0 or inputs != outputs):
                total += conv(inputs, outputs, 1, cifar) + (0 if cifar else 2 * outputs)
            inputs = outputs
    total += 2 * inputs + inputs * classes + classes + 2 * classes
    thresholds += 3 if cifar else 4
    return total + thresholds, thresholds


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_of_parameters(name):
    features, classes, parameters, thresholds = COUNTS[name]
    assert counted(name, features, classes) == (parameters, thresholds)
    network = build_network(Recipe(data="none", model=name), features, classes)
    sizes = {path: parameter.value.size for path, parameter in network.parameters()}
    assert sum(sizes.values()) == parameters
    assert sum(path.endswith("v_threshold") for path in sizes) == thresholds


def test_vgg11_has_the_authors_size_but_for_48_of_49_copies_of_the_last_image():
    theirs = 9_476_327  # with linear 512 * 7 * 7 -> 10
    assert theirs - COUNTS["vgg11"][2] == 48 * 512 * 10


def test_paths_of_preact_resnet18_are_those_of_old_checkpoints():
    blocks = [f"layer{stage}_{number}" for stage in (1, 2, 3, 4) for number in (0, 1)]
    norm = ("weight", "bias", "running_mean", "running_var")
    body = "residual.body"
    layers = {"conv1": ("weight",), "bn1": norm, "linear": ("weight", "bias"), "bn2": norm}
    for block in blocks:
        layers |= {f"{block}.bn1": norm, f"{block}.{body}.bn2": norm}
        layers |= {f"{block}.{body}.conv{number}": ("weight", "bias") for number in (1, 2)}
        layers |= {f"{block}.{place}": ("v_threshold",) for place in ("neuron1", f"{body}.neuron2")}
    layers |= {f"{block}.residual.shortcut": ("weight", "bias") for block in ("layer2_0", "layer3_0", "layer4_0")}
    layers |= {f"neuron{number}": ("v_threshold",) for number in (1, 2, 3)}
    expected = {f"{path}.{name}" for path, names in layers.items() for name in names}
    assert built("preact_resnet18", neuron="if").state().keys() == expected


@pytest.mark.parametrize("name", ["preact_resnet50", "resnet18", "vgg16"])
def test_initial_weights(name):
    network = built(name, classes=100, width=16)
    for path, layer in network.body.walk():
        if isinstance(layer, BatchNorm):
            assert (layer.weight.value == 1).all() and (layer.bias.value == 0).all(), path
        if isinstance(layer, Conv2d):
            weight = layer.weight.value
            outputs, inputs, kernel, _ = weight.shape
            std = sqrt(2 / (outputs * kernel**2))  # Kaiming normal of fan-out
            if path == "linear":
                std = 0.01 if name == "vgg16" else 1 / sqrt(3 * inputs)  # normal, or uniform in 1 / sqrt(inputs)
            # the deviation of n normal numbers varies by 1 / sqrt(2 n) of itself; five times that
            assert abs(weight.std() / std - 1) < 5 / sqrt(2 * weight.size), path
            assert layer.bias is None or (layer.bias.value == 0).all(), path


# ---- wiring and gradients, against plain float64 -------------------------------------------------------------------


class Plain:
    """The networks with ReLU as plain functions on float64 arrays (C, H, W, B), as the papers draw them."""

    def __init__(self, state, training):
        self.state, self.training = state, training

    def conv(self, x, name, stride=1, padding=0):
        weight = self.state[f"{name}.weight"]
        geometry = ops.Geometry.of("test", weight.shape[2:], stride, padding)
        return reference.conv2d(x, weight, self.state.get(f"{name}.bias"), geometry)

    def norm(self, x, name):
        def of_channel(key):
            return self.state[f"{name}.{key}"].reshape(-1, 1, 1, 1)

        mean, variance = of_channel("running_mean"), of_channel("running_var")
        if self.training:
            mean, variance = x.mean(axis=(1, 2, 3), keepdims=True), x.var(axis=(1, 2, 3), keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * of_channel("weight") + of_channel("bias")

    def relu_norm(self, x, name):
        return np.maximum(self.norm(x, name), 0)

    def block(self, x, path, stride, bottleneck):
        s = self.relu_norm(x, f"{path}.bn1")
        body, other = f"{path}.residual.body", f"{path}.residual.shortcut"
        if bottleneck:
            y = self.relu_norm(self.conv(s, f"{body}.conv1"), f"{body}.bn2")
            y = self.relu_norm(self.conv(y, f"{body}.conv2", stride, 1), f"{body}.bn3")
            y = self.conv(y, f"{body}.conv3")
        else:
            y = self.relu_norm(self.conv(s, f"{body}.conv1", stride, 1), f"{body}.bn2")
            y = self.conv(y, f"{body}.conv2", 1, 1)
        if f"{other}.weight" in self.state:
            return y + self.conv(s, other, stride)
        if f"{other}.conv.weight" in self.state:
            return y + self.norm(self.conv(s, f"{other}.conv", stride), f"{other}.bn")
        return y + s

    def stages(self, x, depth):
        for stage, count in enumerate({18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}[depth], start=1):
            for number in range(count):
                x = self.block(x, f"layer{stage}_{number}", 2 if stage > 1 and number == 0 else 1, depth == 50)
        return x

    def read_out(self, x, norm):
        return self.relu_norm(self.conv(x.reshape(-1, 1, 1, x.shape[3]), "linear"), norm)[:, 0, 0].T

    def preact_resnet(self, x, depth):
        x = self.relu_norm(self.stages(self.conv(x, "conv1", 1, 1), depth), "bn1")
        return self.read_out(np.maximum(reference.avg_pool(x, 4, 4), 0), "bn2")

    def resnet(self, x, depth):
        x = reference.avg_pool(self.relu_norm(self.conv(x, "conv1", 2, 3), "bn1"), 3, 2, 1)
        x = self.relu_norm(self.stages(x, depth), "bn2")
        return self.read_out(x.mean(axis=(1, 2), keepdims=True), "bn3")

    def vgg(self, x, depth):
        counts = {11: [1, 1, 2, 2, 2], 13: [2, 2, 2, 2, 2], 16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}[depth]
        for stage, count in enumerate(counts, start=1):
            for number in range(1, count + 1):
                place = f"stage{stage}"
                x = self.relu_norm(self.conv(x, f"{place}.conv{number}", 1, 1), f"{place}.bn{number}")
            x = reference.avg_pool(x, 2, 2)
        return self.read_out(x, "bn")


def plain_output(name, state, data, training):
    plain = Plain({key: array.astype(np.float64) for key, array in state.items()}, training)
    return getattr(plain, name[:-2])(data.transpose(1, 2, 3, 0).astype(np.float64), int(name[-2:]))


def scattered(network, seed=5):
    """Other statistics, scales and shifts than the initial 0 and 1, and a linear layer whose outputs differ."""
    rng = np.random.default_rng(seed)
    state = network.state()
    for name, array in state.items():
        if name.endswith("running_var") or (".bn" in f".{name}" and name.endswith("weight")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif name.endswith(("bias", "running_mean")):
            array[...] = rng.normal(0, 0.2, array.shape)
        elif name == "linear.weight":
            array[...] = rng.normal(0, 0.5, array.shape)
    network.load_state(state)
    return network


@pytest.mark.parametrize("name", [*RESIDUAL, "vgg11", "vgg13", "vgg16", "vgg19"])
@pytest.mark.parametrize("training", [False, True])
def test_wiring(name, training):
    """Outputs are those of the plain functions.

    A layer rounds sums of at most 9 * 64 products, 24 * 2**-24 of their size where errors are random; up to 51 layers
    in a row give sqrt(51) * 24 * 2**-24 = 1e-5 of values of order 1, which the normalisation of the read-out over a
    batch of 6 may enlarge some ten times. Another wiring changes outputs by the order of 1.
    """
    network = scattered(built(name, features=(3, 64, 64) if name == "resnet18" else None))
    data = normal((6, *(features_of(name) if name != "resnet18" else (3, 64, 64))))
    expected = plain_output(name, network.state(), data, training)
    given = network.forward(data, training=training)
    assert expected.std() > 0.1
    np.testing.assert_allclose(given, expected, atol=1e-4 * max(1, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet50", "resnet18", "resnet50", "vgg11"])
def test_gradients_of_the_relu_networks(name):
    """Along a random direction in all parameters, against differences of the plain functions in float64.

    The step of 1e-8 is small enough that hardly any of 1e5 activations passes 0 on the way, and rounds to about 1e-7 of
    the difference. Gradients are float32 sums: 1e-5 as above, enlarged a hundred times by 50 layers backward.
    """
    network = scattered(built(name))
    data = normal((6, *features_of(name)), 2)
    weights = normal((6, 5), 3)
    network.forward(data, training=True)
    network.backward(weights)
    rng = np.random.default_rng(4)
    state = {key: array.astype(np.float64) for key, array in network.state().items()}
    slope, size, moved = 0.0, 0.0, {}
    for key, parameter in network.parameters():
        # of the length of the parameter's gradient, so that each counts alike
        direction = rng.normal(size=parameter.value.shape) * np.linalg.norm(parameter.value) / parameter.value.size
        part = float((parameter.grad.astype(np.float64) * direction).sum())
        slope, size, moved[key] = slope + part, size + part**2, direction
    values = []
    for sign in (1, -1):
        there = {key: array + sign * 1e-8 * moved.get(key, 0) for key, array in state.items()}
        values.append(float((plain_output(name, there, data, True) * weights).sum()))
    assert abs((values[0] - values[1]) / 2e-8 - slope) < 1e-3 * sqrt(size)


def evaluate(layer, x):
    """A small network with ReLU in float64, in training mode; x is (C, H, W, B)."""
    if isinstance(layer, Sequential):
        for child in layer.children().values():
            x = evaluate(child, x)
        return x
    if isinstance(layer, Residual):
        return evaluate(layer.body, x) + (x if layer.shortcut is None else evaluate(layer.shortcut, x))
    if isinstance(layer, Conv2d):
        bias = None if layer.bias is None else layer.bias.value64
        return reference.conv2d(x, layer.weight.value64, bias, layer.geometry)
    if isinstance(layer, BatchNorm):
        mean, variance = x.mean(axis=(1, 2, 3), keepdims=True), x.var(axis=(1, 2, 3), keepdims=True)
        weight, bias = (p.value64.reshape(-1, 1, 1, 1) for p in (layer.weight, layer.bias))
        return (x - mean) / np.sqrt(variance + layer.eps) * weight + bias
    if isinstance(layer, AvgPool2d):
        return reference.avg_pool(x, layer.kernel_size, layer.stride, layer.padding)
    if isinstance(layer, Flatten):
        return x.reshape(-1, 1, 1, x.shape[3])
    assert isinstance(layer, ReLU)
    return np.maximum(x, 0)


def test_gradient_of_each_parameter_of_a_small_relu_network():
    """ReLU below and above residual sums, shortcuts, pooling, normalisation and the read-out.

    Float64 differences over 2e-6 of sums of some hundred outputs of order 1 are exact to 1e-8; the gradients are
    float32 sums of at most 6 * 36 * 9 products, sqrt(1944) * 2**-24 = 3e-6 of their size in each of 10 layers.
    """
    inner = Sequential(Conv2d(4, 4, 3, padding=1), BatchNorm(4), ReLU(), Conv2d(4, 4, 3, padding=1))
    network = dsr.Network(
        Sequential(
            Conv2d(2, 4, 3, padding=1),
            BatchNorm(4),
            ReLU(),
            Residual(inner),
            ReLU(),
            Residual(
                Sequential(Conv2d(4, 6, 3, 2, 1), BatchNorm(6), ReLU(), Conv2d(6, 6, 1)),
                Sequential(Conv2d(4, 6, 1, 2), BatchNorm(6)),
            ),
            ReLU(),
            AvgPool2d(3, 1, 1),
            ReLU(),
            Flatten(),
            dsr.Linear(54, 4),
            BatchNorm(4),
            ReLU(),
        ),
        timesteps=1,
        seed=3,
    )
    data, weights = normal((6, 2, 6, 6), 1), normal((6, 4), 2)
    parameters = dict(network.parameters())
    out = network.forward(data, training=True)
    network.backward(weights)
    for parameter in parameters.values():
        parameter.value64 = parameter.value.astype(np.float64)
    lanes = data.transpose(1, 2, 3, 0).astype(np.float64)
    np.testing.assert_allclose(out, evaluate(network.body, lanes)[:, 0, 0].T, atol=1e-5, rtol=0)
    rng = np.random.default_rng(6)
    for name, parameter in parameters.items():
        start, direction = parameter.value64, rng.normal(size=parameter.value.shape)
        values = []
        for sign in (1, -1):
            parameter.value64 = start + sign * 1e-6 * direction
            values.append(float((evaluate(network.body, lanes)[:, 0, 0].T * weights).sum()))
        parameter.value64 = start
        expected = float((parameter.grad.astype(np.float64) * direction).sum())
        assert abs((values[0] - values[1]) / 2e-6 - expected) < 1e-4 * max(1, abs(expected)), name


def test_one_linear_layer_trains_as_49_copies_do():
    """The claim of `vgg`'s docstring, here with 9 copies: SGD with momentum and decay, W / 3 in place of 9 weights.

    Without neurons above, since a spike may flip; eps of the normalisation is taken so small that it does not count.
    """
    one, copies = (
        dsr.Network(Sequential(linear=dsr.Linear(n, 3), bn=BatchNorm(3, eps=1e-12)), timesteps=1) for n in (4, 36)
    )
    wide = normal((3, 36, 1, 1), 1) * 0.1
    state = copies.state() | {"linear.weight": wide}
    copies.load_state(state)
    narrow = wide.reshape(3, 4, 9).sum(axis=2).reshape(3, 4, 1, 1) / 3  # features first, as flattening orders them
    one.load_state(state | {"linear.weight": narrow})
    optimizers = [dsr.SGD(network.parameters(), 0.05, 0.9, 0.01) for network in (one, copies)]
    for step in range(30):
        x, labels = normal((16, 4), 10 + step), np.arange(16) % 3
        for network, optimizer, data in zip((one, copies), optimizers, (x, np.repeat(x, 9, axis=1)), strict=True):
            _, grad = dsr.cross_entropy(network.forward(data, training=True), labels)
            network.backward(grad)
            optimizer.step()
    total = copies.state()["linear.weight"].reshape(3, 4, 9).sum(axis=2)
    moved = np.abs(one.state()["linear.weight"] - narrow).max()
    assert moved > 0.1
    # 30 steps whose float32 gradients differ by some 1e-6 of themselves
    np.testing.assert_allclose(one.state()["linear.weight"][:, :, 0, 0], total / 3, atol=1e-4 * moved, rtol=0)


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("neuron", ["if", "lif", "relu"])
def test_every_network_runs_and_every_parameter_gets_a_gradient(name, neuron):
    thresholds = {"if": {"v_threshold": 1.0}, "lif": {"v_threshold": 0.3, "alpha": 0.3}, "relu": {"timesteps": 1}}
    dropout = 0.1 if name.startswith(("preact", "vgg")) else 0.0
    network = built(name, neuron=neuron, dropout=dropout, **({"timesteps": 2} | thresholds[neuron]))
    data, labels = normal((4, *features_of(name))), np.arange(4)
    rates = network.forward(data, training=True)
    assert rates.shape == (4, 5)
    network.backward(dsr.cross_entropy(rates, labels)[1])
    for path, parameter in network.parameters():
        assert parameter.grad is not None and np.isfinite(parameter.grad).all(), path
    kinds = {"if": IF, "lif": LIF, "relu": ReLU}
    layers = [layer for _, layer in network.body.walk() if isinstance(layer, Neuron | ReLU)]
    assert {type(layer) for layer in layers} == {kinds[neuron]}
    assert dsr.spike_rates(network, data).keys() == {path for path, _ in network.neurons()}
    assert len(list(network.neurons())) == (0 if neuron == "relu" else len(layers))


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
@pytest.mark.parametrize("neuron", ["if", "relu"])
def test_small_ones_learn_which_quarter_is_bright(name, neuron):
    steps = {"timesteps": 1} if neuron == "relu" else {"timesteps": 4, "v_threshold": 1.0}
    network = built(name, classes=4, width=8, neuron=neuron, **steps)
    optimizer = dsr.SGD(network.parameters(), 0.05, 0.9)
    data, labels = normal((32, *features_of(name)), 7), np.arange(32) % 4
    half = data.shape[2] // 2
    for image, label in zip(data, labels, strict=True):
        image.reshape(-1, 2, half, 2, half)[:, label // 2, :, label % 2] += 2
    losses = []
    for _ in range(16):
        loss, grad = dsr.cross_entropy(network.forward(data, training=True), labels)
        network.backward(grad)
        optimizer.step()
        losses.append(loss)
    assert min(losses[-3:]) < 0.6 * losses[0]


# ---- neurons of a recipe -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_fixed_thresholds_are_buffers(neuron):
    values = {"neuron": neuron, "timesteps": 3, "v_threshold": 0.7}
    trained, fixed = (built("digits", train_threshold=flag, **values) for flag in (True, False))
    assert "neuron1.v_threshold" in dict(trained.parameters())
    assert not any("v_threshold" in path for path, _ in fixed.parameters())
    assert fixed.state().keys() == trained.state().keys()
    fixed.load_state(trained.state() | {"neuron1.v_threshold": np.array(0.9)})
    assert fixed.state()["neuron1.v_threshold"] == np.float32(0.9)
    data = normal((8, 1, 8, 8))
    optimizer = dsr.SGD(fixed.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        fixed.backward(dsr.cross_entropy(fixed.forward(data, training=True), np.arange(8) % 5)[1])
        optimizer.step()
    bound = np.float32(RELU.v_threshold_lower_bound)
    clamped = (np.float32(0.9) - bound) + bound
    assert abs(fixed.state()["neuron1.v_threshold"] - clamped) <= 2 * np.spacing(clamped)
    assert not np.array_equal(fixed.state()["conv1.weight"], trained.state()["conv1.weight"])


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_threshold_gradients_are_scaled_and_no_others(neuron):
    grads = []
    for scale in (1.0, 0.001):
        network = built("digits", neuron=neuron, timesteps=3, v_threshold=0.1, threshold_gradient_scale=scale)
        network.forward(normal((8, 1, 8, 8)), training=True)
        network.backward(normal((8, 5), 1))
        grads.append({path: parameter.grad for path, parameter in network.parameters()})
    for path, grad in grads[0].items():
        if path.endswith("v_threshold"):
            assert grad != 0
            np.testing.assert_allclose(grads[1][path], 0.001 * grad, rtol=2.0**-22)
        else:
            np.testing.assert_array_equal(grads[1][path], grad, err_msg=path)


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: built("preact_resnet19"),
            "key 'model': expected one of digits, mlp, cifar_fast, cifar_deep, image_deep, preact_resnet18, .*net50",
        ),
        (lambda: built("digits", features=(1, 10, 8)), r"digits: argument 'features': .*multiples of 4, got \(1, 10"),
        (lambda: built("digits", features=(64,)), r"digits: argument 'features': expected \(C, H, W\)"),
        (lambda: built("preact_resnet18", features=(3, 40, 40)), "preact_resnet: .*multiples of 32"),
        (lambda: built("resnet18", features=(3, 64, 31)), "imagenet_resnet: .*H and W at least 32"),
        (lambda: built("vgg11", features=(2, 31, 48)), "vgg: .*at least 32"),
        (lambda: built("digits", dropout=0.1), "key 'dropout': expected 0, since digits has none, got 0.1"),
        (lambda: models.vgg(ReLU, (2, 48, 48), 10, depth=12), "vgg: argument 'depth': expected 11, 13, 16 or 19"),
        (lambda: models.preact_resnet(ReLU, (3, 32, 32), 10, depth=20), "'depth': expected 18, 34 or 50, got 20"),
        (lambda: dsr.Linear(3, 2, std=0.0), "Linear: argument 'std'"),
        (lambda: IF(1.0, threshold_gradient_scale=-1.0), "IF: argument 'threshold_gradient_scale'"),
        (
            lambda: dsr.Network(dsr.Sequential(neuron1=ReLU()), 5).forward(normal((2, 1, 8, 8))),
            "ReLU neuron1: expected timesteps = 1, got 5",
        ),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
