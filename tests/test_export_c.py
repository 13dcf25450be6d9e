"""Networks as plain C: compiled, run, and compared spike by spike with dsr."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import program_interpreter
import pytest
import zoo

import dsr
from dsr.deploy.c import Exported, export_c
from dsr.deploy.c.float_twin import FloatTwin
from dsr.deploy.c.storage import plan
from dsr.deploy.c.unflatten import unflatten
from dsr.deploy.lowering import lower
from dsr.deploy.program import Neurons

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-ffp-contract=off"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
BUILDS = [
    ("gcc", ["-O0"]),
    ("gcc", ["-O3"]),
    ("gcc", SANITIZE),
    ("gcc", ["-O2", "-m32", "-msse2", "-mfpmath=sse"]),  # x87 would round sums to other bits
    ("clang", ["-O0"]),
    ("clang", ["-O3"]),
    ("arm-linux-gnueabihf-gcc", ["-O2", "-static"]),  # run by qemu
]


def small_if():
    return dsr.IF(0.7)


def small_lif():
    return dsr.LIF(0.04, alpha=0.5)


def own_thresholds(kind, channels, low, high):
    return kind(np.linspace(low, high, channels))


def every_geometry():
    """Windows and sums that the networks of papers do not have."""
    return dsr.Sequential(
        dsr.BatchNorm(2),
        dsr.Conv2d(2, 6, (3, 2), (2, 1), (1, 1)),
        dsr.BatchNorm(6),
        own_thresholds(dsr.IF, 6, 0.3, 0.9),
        dsr.MaxPool2d(3, (1, 2), 1),
        dsr.Conv2d(6, 6, 3, padding="same", dilation=(1, 2), groups=3),
        dsr.BatchNorm(6),
        own_thresholds(dsr.LIF, 6, 0.01, 0.03),
        dsr.Conv2d(6, 6, 2, padding="same", groups=6),
        dsr.MaxPool2d((3, 2), (1, 1), 1),  # of currents
        dsr.IF(0.2),
        dsr.ConvTranspose2d(6, 4, 3, (2, 1), 1, (1, 0), groups=2),
        dsr.BatchNorm(4),
        dsr.IF(0.3),
        dsr.Residual(dsr.Conv2d(4, 4, 1), dsr.Sequential(dsr.AvgPool2d(3, 1, 1))),
        dsr.BatchNorm(4),  # of a sum
        dsr.Concat(dsr.Identity(), dsr.Sequential(dsr.IF(0.5))),  # values and spikes
        dsr.Conv2d(8, 5, 1),
        dsr.Upsample((1, 2)),  # of currents
        dsr.AvgPool2d(2, 2, 1),
        dsr.LIF(0.02),
        dsr.AvgPool2d((2, 1)),
        dsr.IF(0.2),
        dsr.Conv2d(5, 3, 1),
        dsr.Flatten(),  # of currents
        dsr.Linear(54, 3),
    )


NETWORKS = {
    "digits": (lambda: dsr.models.digits(lambda: dsr.IF(1.0), (1, 8, 8), 10), (1, 8, 8)),
    "cifar_fast": (lambda: dsr.models.cifar_fast(lambda: dsr.IF(0.8), (3, 32, 32), 10, 4), (3, 32, 32)),
    "geometry": (every_geometry, (2, 9, 7)),
    "unet": (lambda: zoo.unet(small_lif, 2, 3, 4, 1), (2, 4, 6)),
    "densenet": (lambda: zoo.densenet(small_lif, 2, 3), (2, 8, 6)),
    "sew_add": (lambda: zoo.sew_resnet18(small_if, 1, 3, "add", 2), (1, 8, 8)),
    "sew_and": (lambda: zoo.sew_resnet18(small_lif, 1, 3, "and", 2), (1, 8, 8)),
    "sew_iand": (lambda: zoo.sew_resnet18(small_if, 1, 3, "iand", 2), (1, 8, 8)),
    "sound": (lambda: zoo.sound(small_lif, 2, 3), (2, 128)),
    "spiking_readout": (lambda: dsr.models.mlp(lambda: dsr.LIF(0.02), (5,), 3, 40), (5,)),
}


def shaken(body, timesteps=4):
    """A network whose batch normalisation is not the identity."""
    network, rng = dsr.Network(body, timesteps), np.random.default_rng(0)
    for _, layer in network.body.walk():
        if isinstance(layer, dsr.BatchNorm):
            count = len(layer.running_mean)
            layer.running_mean[:], layer.running_var[:] = rng.normal(0, 0.1, count), rng.uniform(0.5, 2, count)
            layer.weight.value[:], layer.bias.value[:] = rng.uniform(0.5, 1.5, count), rng.normal(0, 0.1, count)
    return network


def sample_of(network, features, frames):
    shape = (network.timesteps, *features) if frames else features
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def build_and_run(exported, compiler, flags):
    """The output of the test that was written; skips what this machine cannot build."""
    runner = ["qemu-arm"] if compiler.startswith("arm-") else []
    for program in (compiler, *runner):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    folder, name = exported.folder, exported.name
    sources = sorted(path.name for path in folder.glob("*.c"))
    binary = folder / "test"
    command = [compiler, *STRICT, *flags, f"-D{name.upper()}_TRACE", *sources, "-o", str(binary)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if built.returncode:
        (folder / "empty.c").write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
        probe = [compiler, *flags, "empty.c", "-o", str(folder / "empty")]
        if subprocess.run(probe, cwd=folder, capture_output=True).returncode:
            pytest.skip(f"{compiler} {' '.join(flags)} builds nothing here")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([*runner, binary], capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


def assert_same_as_network(network, program, sample, frames):
    """The twin's spikes of each layer at each step are those of the network and of the interpreter.

    The test in C has compared the compiled code with the twin.
    """
    program = unflatten(program)
    interpreted = program_interpreter.run(program, sample[:, np.newaxis] if frames else sample[np.newaxis])
    expected = {}

    def observe(path, layer, output):
        if isinstance(layer, dsr.nn.neurons.Neuron):
            expected[path] = output.dense()[:, 0] != 0

    rates = network.forward(sample[:, np.newaxis] if frames else sample[np.newaxis], observer=observe)
    twin = FloatTwin(program, plan(program, not frames))
    for t in range(network.timesteps):
        last = twin.step(sample[t] if frames else sample)
        assert twin.potentials.keys() == {n for n, step in enumerate(program.steps) if isinstance(step, Neurons)}
        for number, spikes in twin.spikes.items():
            assert (spikes == (interpreted.values[number][t, 0] != 0)).all(), (program.steps[number], t)
            path = program.steps[number].path
            if path in expected and number in twin.potentials:
                assert (spikes.reshape(expected[path][t].shape) == expected[path][t]).all(), (path, t)
        np.testing.assert_allclose(last.ravel(), interpreted.so_far[t].ravel(), rtol=1e-5, atol=1e-6)
    assert all(0 < spikes.mean() < 1 for spikes in expected.values()), "a layer that tells nothing"
    np.testing.assert_allclose(last.reshape(rates[0].shape), rates[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "frames"), [(name, name == "sew_and") for name in NETWORKS] + [("geometry", True)])
def test_networks(name, frames, tmp_path):
    make, features = NETWORKS[name]
    network = shaken(make())
    program, sample = lower(network, features), sample_of(network, features, frames)
    exported = export_c(program, tmp_path, name=name, frames=frames, sample=sample)
    assert build_and_run(exported, "gcc", ["-O0"]) == (0, f"{name}: spikes and rates of 4 steps are those of dsr\n")
    assert_same_as_network(network, program, sample, frames)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    network = shaken(every_geometry())
    return export_c(lower(network, (2, 9, 7)), tmp_path_factory.mktemp("geometry"), name="geometry")


@pytest.mark.parametrize(("compiler", "flags"), BUILDS, ids=[f"{c} {' '.join(f)}" for c, f in BUILDS])
def test_every_compiler_gives_the_same_bits(exported, compiler, flags):
    assert build_and_run(exported, compiler, flags)[0] == 0


def test_the_test_in_c_can_fail(exported, tmp_path):
    """A threshold of the second layer of neurons is another: spikes from there on are told to be others."""
    shutil.copytree(exported.folder, tmp_path / "copy")
    path = tmp_path / "copy" / "geometry_weights.c"
    head, second = list(re.finditer(r"geometry_fire_\d+\[6\] = {\n    ", path.read_text()))[:2]
    assert head.end() < second.start()
    number, others = path.read_text()[second.end() :].split("f,", 1)
    path.write_text(f"{path.read_text()[: second.end()]}{1.2 * float(number)}f,{others}")
    status, said = build_and_run(Exported(path.parent, "geometry", 0, 0, exported.rates), "gcc", ["-O0"])
    assert status == 1
    assert "layer 7: " in said and "layer 3: " not in said


def test_make_and_sizes(exported):
    """The Makefile builds library and test, and the sizes that are told are those of the object files."""
    made = subprocess.run(["make", "-s", "libgeometry.a", "test"], cwd=exported.folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "spikes and rates of 4 steps are those of dsr" in made.stdout
    listed = subprocess.run(["nm", "-S", "geometry_weights.o"], cwd=exported.folder, capture_output=True, text=True)
    sizes = [line.split() for line in listed.stdout.splitlines()]
    assert {kind for _, _, kind, _ in sizes} == {"R"}  # constants
    assert sum(int(size, 16) for _, size, _, _ in sizes) == exported.flash
    symbols = subprocess.run(["nm", "-g", "libgeometry.a"], cwd=exported.folder, capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in symbols.splitlines() if len(line.split()) > 1}
    foreign = {name for name in names if not name.startswith("geometry")}
    assert foreign <= {"memset", "_GLOBAL_OFFSET_TABLE_"}, "it allocates nothing and calls nothing else"
    sizes = f"{exported.flash:,} bytes of constants (flash), {exported.ram:,} bytes of state (RAM)"
    assert str(exported) == f"{exported.folder}: libgeometry, {sizes}"


def test_digits_fits_a_small_processor(tmp_path):
    program = lower(shaken(dsr.models.digits(lambda: dsr.IF(1.0), (1, 8, 8), 10)), (1, 8, 8))
    small = export_c(program, tmp_path, name="digits", frames=True)
    assert small.ram <= 16 << 10
    fast = export_c(program, tmp_path, name="digits")
    assert fast.ram == small.ram + 4 * 32 * 8 * 8  # the current of the first neurons is kept


def test_names_that_look_like_those_of_kernels(tmp_path):
    body = dsr.Sequential(**{'a "b" */ \\n': dsr.Linear(5, 3), "if": dsr.IF(0.5)})
    named = export_c(lower(dsr.Network(body, 2), (5,)), tmp_path, name="dsr_fire")
    assert build_and_run(named, "gcc", ["-O0"])[0] == 0


def test_bad_arguments(tmp_path):
    program = lower(shaken(dsr.models.mlp(lambda: dsr.IF(1.0), (5,), 3, 8)), (5,))
    for name in ("", "9a", "a-b", "x" * 50, 3):
        with pytest.raises(ValueError, match="export_c: argument 'name': expected an identifier of C"):
            export_c(program, tmp_path, name=name)
    with pytest.raises(TypeError, match="export_c: argument 'model': expected a Program or an IntegerModel, got 'x'"):
        export_c("x", tmp_path)
    with pytest.raises(ValueError, match=r"export_c: argument 'sample': expected shape \(5,\), got \(4,\)"):
        export_c(program, tmp_path, sample=np.zeros(4))
    with pytest.raises(ValueError, match=r"export_c: argument 'sample': expected shape \(4, 5\), got \(5,\)"):
        export_c(program, tmp_path, sample=np.zeros(5), frames=True)
    with pytest.raises(ValueError, match="export_c: argument 'sample': expected finite"):
        export_c(program, tmp_path, sample=np.full(5, np.nan))
    ordinary = dsr.Sequential(dsr.Linear(5, 4), dsr.IF(1.0), dsr.Linear(4, 4), dsr.ReLU())
    with pytest.raises(ValueError, match=r"export_c: layer '3': .*ordinary activations are not exported"):
        export_c(lower(dsr.Network(ordinary, 1), (5,)), tmp_path)
    with pytest.raises(ValueError, match="expected a network with spiking neurons, got one without"):
        export_c(lower(dsr.Network(dsr.Sequential(dsr.Linear(5, 4)), 1), (5,)), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is written before all is known to be good"
