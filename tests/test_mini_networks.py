"""Whole training runs of the authors' code, reproduced: ../shared/golden/mini_preact_*.npz.

Tolerance. Sums are taken in another order than theirs (and in double in batch normalisation). A value here is the
result of at most 12 layers of sums of K <= 288 products, each within K eps of the sum of absolute values, eps = 2**-24;
the quantities compared are of order 1 at most and gradients pass the same depth again. Taking the errors as random
(root of K) gives 24 * sqrt(288) * 2**-24 = 2.4e-5 for a step, which eight steps of SGD (lr 0.05, momentum 0.9: total
weight below 8 * 8 * 0.05 = 3.2) may carry into the weights: 8e-5. A spike that flips at its very threshold would show
as V / T = 0.2 in a rate and not hide under these bounds.
"""

import numpy as np
import pytest

import dsr
from dsr import train
from dsr.data import ArraySamples, DataSet
from dsr.train import recipe
from dsr.train.training_batches import TrainingBatches

STEP, RUN = 2.4e-5, 8e-5


def make_network(golden):
    def neuron():
        alpha, bound = float(golden["alpha"]), float(golden["v_threshold_min"])
        if golden["kind"] == "if":
            return dsr.IF(1.0, alpha, bound)
        return dsr.LIF(1.0, float(golden["tau"]), float(golden["dt"]), alpha, bound)

    def block(channels, out, stride):
        body = dsr.Sequential(
            conv1=dsr.Conv2d(channels, out, 3, stride, 1),
            bn2=dsr.BatchNorm(out),
            relu2=neuron(),
            conv2=dsr.Conv2d(out, out, 3, 1, 1),
        )
        shortcut = dsr.Conv2d(channels, out, 1, stride) if (stride, channels) != (1, out) else None
        return dsr.Sequential(bn1=dsr.BatchNorm(channels), relu1=neuron(), residual=dsr.Residual(body, shortcut))

    return dsr.Network(
        dsr.Sequential(
            conv1=dsr.Conv2d(3, 8, 3, 1, 1, bias=False),
            block1=block(8, 16, 2),
            block2=block(16, 16, 1),
            block3=block(16, 32, 2),
            bn1=dsr.BatchNorm(32),
            relu1=neuron(),
            pool=dsr.AvgPool2d(4),
            relu2=neuron(),
            flatten=dsr.Flatten(),
            linear=dsr.Linear(32, 10),
            bn2=dsr.BatchNorm(10),
            relu3=neuron(),
        ),
        timesteps=int(golden["timesteps"]),
    )


def their_name(name):
    name = name.replace("residual.body.", "").replace("residual.shortcut", "shortcut")
    return name.replace("v_threshold", "Vth")


@pytest.mark.parametrize("name", ["mini_preact_if_T5", "mini_preact_lif_T6"])
def test_training_run_is_reproduced(shared, name):
    golden = np.load(shared / "golden" / f"{name}.npz")
    network = make_network(golden)

    def theirs(prefix, key, like):
        return golden[f"{prefix}.{their_name(key)}"].reshape(like.shape)

    network.load_state({key: theirs("init", key, array) for key, array in network.state().items()})
    optimizer = dsr.SGD(
        network.parameters(), float(golden["lr"]), float(golden["momentum"]), float(golden["weight_decay"])
    )
    for step, (inputs, labels) in enumerate(zip(golden["inputs"], golden["labels"], strict=True)):
        rates = network.forward(inputs, training=True)
        loss, grad = dsr.cross_entropy(rates, labels)
        network.backward(grad)
        if step == 0:
            np.testing.assert_allclose(rates, golden["output0"], atol=STEP, rtol=0)
            for key, parameter in network.parameters():
                expected = theirs("grad0", key, parameter.value)
                np.testing.assert_allclose(parameter.grad, expected, atol=STEP, rtol=0, err_msg=key)
        assert abs(loss - golden["losses"][step]) < RUN
        optimizer.step()
    for key, array in network.state().items():
        np.testing.assert_allclose(array, theirs("final", key, array), atol=RUN, rtol=0, err_msg=key)
    np.testing.assert_allclose(network.forward(golden["inputs"][0]), golden["eval_output"], atol=RUN, rtol=0)


class InOrder(TrainingBatches):
    """Takes the samples as they come: the order of the golden run."""

    def of_epoch(self, epoch):
        return np.split(np.arange(len(self.samples)), len(self.samples) // self.recipe.batch_size)


@pytest.mark.parametrize("name", ["mini_preact_if_T5", "mini_preact_lif_T6"])
def test_the_trainer_reproduces_it_too(shared, tmp_path, name):
    golden = np.load(shared / "golden" / f"{name}.npz")
    inputs, labels = golden["inputs"], golden["labels"]
    images = ArraySamples(inputs.reshape(-1, *inputs.shape[2:]), labels.reshape(-1))
    samples = DataSet("golden", tuple("0123456789"), inputs.shape[2:], images, images)
    chosen = recipe.from_dict(
        {"data": "golden", "model": "golden", "epochs": 1, "batch_size": inputs.shape[1]}
        | {"timesteps": int(golden["timesteps"]), "learning_rate": float(golden["lr"])}
        | {key: float(golden[key]) for key in ("momentum", "weight_decay")}
    )
    trainer = train.Trainer(chosen, samples, tmp_path, str, build=lambda *_: make_network(golden).body)
    trainer.batches = InOrder(**vars(trainer.batches))
    start = {key: golden[f"init.{their_name(key)}"] for key in trainer.network.state()}
    trainer.network.load_state({key: start[key].reshape(a.shape) for key, a in trainer.network.arrays()})
    metrics = trainer.fit()
    assert abs(metrics["loss"] - golden["losses"].mean()) < RUN
    for key, array in trainer.network.state().items():
        expected = golden[f"final.{their_name(key)}"].reshape(array.shape)
        np.testing.assert_allclose(array, expected, atol=RUN, rtol=0, err_msg=key)
    resumed = train.Trainer(chosen, samples, tmp_path, str, build=lambda *_: make_network(golden).body)
    resumed.resume()
    for key, array in trainer.network.state().items():
        np.testing.assert_array_equal(array, resumed.network.state()[key], err_msg=key)
