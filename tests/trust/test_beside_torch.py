"""dsr and PyTorch in one process, each with an OpenMP library of its own: the same bits, no hang, also in a fork."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
from patience import patiently

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")

PROGRAM = """
import hashlib, json, os, sys, time
order = sys.argv[1]
if order == "torch, dsr":
    import torch
import numpy as np
import dsr
if order == "dsr, torch":
    import torch

def libraries():
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1].rpartition("/")[2] for line in maps if "libgomp" in line or "libomp" in line})

def torch_work():
    if order != "dsr":
        a = torch.ones(600, 600)
        assert float((a @ a).relu().sum()) == 600.0**3

def training(steps, beside=True):
    digits = dsr.data.load("digits")
    net = dsr.Network(dsr.models.digits(dsr.IF, digits.features, 10), timesteps=5, seed=0)
    optimizer = dsr.SGD(net.parameters(), learning_rate=0.1, momentum=0.9)
    for step in range(steps):
        if beside:
            torch_work()
        batch = np.arange(64 * step, 64 * (step + 1)) % len(digits.train)
        rates = net.forward(digits.train.batch(batch), training=True)
        loss, gradient = dsr.cross_entropy(rates, digits.train.labels[batch])
        net.backward(gradient)
        optimizer.step()
    return hashlib.sha256(b"".join(array.tobytes() for array in net.state().values())).hexdigest()

dsr.set_num_threads(2)
started = time.perf_counter()
digest = training(20)
seconds = time.perf_counter() - started
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, training(20, beside=False).encode())  # PyTorch's threads do not survive a fork
    os._exit(0)
os.waitpid(child, 0)
in_child = os.read(reader, 100).decode()
found = {"digest": digest, "in_child": in_child, "after": training(20), "libraries": libraries(), "s": seconds}
print(json.dumps(found))
"""


def run(order):
    command = [sys.executable, "-P", "-c", PROGRAM, order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patiently(120))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("order", ["torch, dsr", "dsr, torch"])
def test_same_bits(order):
    alone, beside = run("dsr"), run(order)
    print(f"{order}: {beside['libraries']}, {beside['s']:.2f} s, alone {alone['s']:.2f} s")
    assert {alone["digest"], alone["in_child"], alone["after"]} == {alone["digest"]}
    assert {beside["digest"], beside["in_child"], beside["after"]} == {alone["digest"]}
    assert len(beside["libraries"]) >= 2, "one OpenMP library only: this tries nothing"
