"""The command line: what it refuses, what it says, and where it goes on all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.bench import rates, step
from dsr.deploy.lowering import lower
from dsr.deploy.model_file import packed
from dsr.files import checkpoint
from dsr.files.cache import cache_folder, cached
from dsr.train import recipe, run_folder
from dsr.train.build import build_network


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    chosen = recipe.load("digits", ["epochs=1", "width=4"])
    train.Trainer(chosen, data.load("digits"), folder, str).fit()
    return folder


def error_of(capsys, *words):
    """The line that a command ends with, and its status."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == (1 if error.startswith("dsr: ") else 2)
    return error


def test_options_that_do_not_apply_are_refused(run, capsys, tmp_path):
    refused = [
        (["train", "digits", "--data", tmp_path], "expected none with digits, which comes with dsr, got"),
        (["evaluate", run, "--data", tmp_path], "expected none with digits, which comes with dsr, got"),
        (["inspect", run, "--data", tmp_path], "expected none with digits, which comes with dsr, got"),
        (["train", "digits", "--workers", "2"], "argument 'workers': expected 0 with data = digits, got 2"),
        (["evaluate", run, "--workers", "2"], "argument 'workers': expected 0 with data = digits, got 2"),
        (["summary", run, "--set", "width=3"], "summary: --set cannot be given with a run folder"),
        (["summary", run, "--features", 1, 8, 8], "summary: --features cannot be given with a run folder"),
        (["summary", run, "--classes", 3], "summary: --classes cannot be given with a run folder"),
        (["summary", run, "--data", tmp_path], "summary: --data cannot be given with a run folder but for --spikes"),
        (["summary", "digits", "--classes", 3], "summary: --classes cannot be given without --features"),
        (["summary", "digits", "--features", 1, 8, 8, "--spikes"], "--spikes cannot be given with --features"),
        (["summary", "digits", "--features", 1, 8, 8, "--data", "x"], "--data cannot be given with --features"),
        (["export", run, "--out", "x", "--frames"], "export: --frames cannot be given with --format nir"),
        (["export", run, "--out", "x", "--format", "c", "--euler"], "export: --euler cannot be given with --format c"),
        (["recipe", "--set", "width=3"], "--set: expected a recipe to change, got none"),
    ]
    for words, expected in refused:
        assert expected in error_of(capsys, *words), words


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "x", "", "nan", "9" * 40])
def test_counts_are_checked_by_name(run, capsys, wrong):
    for command, option in (("evaluate", "--timesteps"), ("inspect", "--samples"), ("inspect", "--timesteps")):
        error = error_of(capsys, command, run, f"{option}={wrong}")
        assert error == f"dsr {command}: error: argument {option}: expected an integer >= 1, got {wrong!r}"


@pytest.mark.parametrize("wrong", ["-1", "nan", "-inf", "x"])
def test_seconds_are_checked_by_name(capsys, wrong):
    error = error_of(capsys, "train", "digits", f"--save-every={wrong}")
    assert error == f"dsr train: error: argument --save-every: expected a number >= 0, got {wrong!r}"
    with pytest.raises((TypeError, ValueError), match="Trainer: argument 'save_every': expected a number >= 0"):
        train.Trainer(
            recipe.load("digits"), data.load("digits"), "x", save_every=float(wrong) if wrong != "x" else wrong
        )


def test_another_number_of_steps_is_that_of_the_caller(run):
    with pytest.raises(ValueError, match="recipe: key 'timesteps': expected an integer in") as caught:
        run_folder.load_run(run, timesteps=0)
    assert "checkpoint" not in str(caught.value)


@pytest.mark.parametrize("command", ["evaluate", "inspect", "summary", "export"])
def test_a_run_whose_weights_are_not_finite(run, capsys, tmp_path, command):
    """It had an accuracy of 8.06 %: comparisons with NaN are false, and the first class won."""
    arrays, metadata = checkpoint.load(run / run_folder.CHECKPOINT)
    arrays["network.conv2.weight"][0, 0] = np.nan
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / run_folder.CHECKPOINT, arrays, metadata)
    words = [command, tmp_path / "run", *(["--out", tmp_path / "x.nir"] if command == "export" else [])]
    assert error_of(capsys, *words).endswith("checkpoint.safetensors: 9 of 288 numbers of conv2.weight are not finite")


def test_data_that_are_missing_are_named_with_where_to_get_them(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    download = "; dsr download cifar10 --out FOLDER gets them"
    words = "dsr: expected --data PATH, where the files of"
    assert error_of(capsys, "train", "cifar10-if") == f"{words} cifar10 are{download}"
    shape = ", or --features C H W (3 32 32)"
    assert error_of(capsys, "summary", "cifar10-fast") == f"{words} cifar10 are{shape}{download}"
    assert error_of(capsys, "summary", "imagenet-if") == f"{words} folder are, or --features C H W"
    assert list(tmp_path.iterdir()) == []  # no folder of a run that did not begin


def test_a_source_of_weights_that_does_not_fit_says_what_to_do(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lif = ["--set", "neuron=lif", "--set", "v_threshold=0.6", "--set", "width=4"]
    error = error_of(capsys, "train", "digits", *lif, "--from", run)
    assert "is of IF neurons, expected LIF or ReLU neurons: the thresholds of different kinds do not mean" in error
    relu = ["--set", "neuron=relu", "--set", "timesteps=1", "--set", "width=4"]
    assert error_of(capsys, "train", "digits", *relu, "--from", run).endswith("of IF neurons, expected a ReLU network")
    error = error_of(capsys, "train", "digits", "--set", "width=8", "--from", run)
    assert "of another shape: bn1.bias (expected (8,), got (4,))" in error
    assert error.endswith("; strict=False (--partial on the command line) takes what fits and leaves the rest as it is")
    assert "nothere: expected a run folder or a file of weights, found nothing" in error_of(
        capsys, "train", "digits", "--from", "nothere"
    )


def test_keys_without_effect_are_told_once_at_the_start(tmp_path, capsys):
    words = ["--set", "epochs=2", "--set", "width=4", "--set", "crop_padding=2", "--set", "tau=2"]
    assert main(["train", "digits", *words, "--out", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[:2] == [
        "note: tau has an effect only with neuron = lif",
        "note: crop_padding has no effect with data = digits",
    ]
    assert output.count("note: ") == 2


@pytest.mark.parametrize("change", ["width=1000000", "batch_size=2000000000"])
def test_too_little_memory_is_a_line_that_says_what_to_make_smaller(capsys, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    if change.startswith("batch"):
        monkeypatch.setattr("dsr.train.trainer.compute_gradients", too_large)
    error = error_of(capsys, "train", "digits", "--set", change)
    assert error.startswith("dsr: not enough memory")
    assert error.endswith(
        "; accumulate = K, or a smaller width, batch_size, timesteps, image_size or keep_mb (--set) needs less"
    )


def too_large(*_):
    raise MemoryError


def program(*words, env=None, cwd=None):
    code = "import sys; from dsr.__main__ import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | (env or {})
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        encoding="utf-8",
        errors="surrogateescape",
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_path_that_the_terminal_cannot_show(tmp_path, encoding):
    folder = tmp_path / "später-中-\udcff"
    small = ["--set", "epochs=1", "--set", "width=4"]
    done = program("train", "digits", *small, "--out", folder, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    shown = str(folder).encode(encoding, "backslashreplace").decode("utf-8", "surrogateescape")
    assert f"run folder: {shown}; read it back with" in done.stdout
    done = program("evaluate", folder / "nothing", env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 1 and done.stderr.startswith("dsr: ") and len(done.stderr.splitlines()) == 1
    assert program("evaluate", folder, env={"PYTHONIOENCODING": encoding}).stdout.startswith("test accuracy")


def test_without_a_home_there_is_no_cache(tmp_path, monkeypatch):
    """A user id without an entry, and no HOME: frames are made again each time, with a warning."""
    for name in ("DSR_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(RuntimeWarning, match="cannot be written .*DSR_CACHE names another folder"):
        arrays = cached(cache_folder(), "set", {"a": 1}, lambda: {"x": np.arange(3)})
    assert arrays["x"].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_the_recipe_of_a_command_is_the_one_that_is_trained(tmp_path, capsys):
    assert main(["recipe", "digits", "--set", "width=4"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(text)
    assert recipe.load(str(tmp_path / "mine.toml")) == recipe.load("digits", ["width=4"])
    assert "crop_padding" not in text and text.startswith("# UCI handwritten digits")
    assert main(["recipe", "digits", "--set", "width=4", "--all"]) == 0
    everything = capsys.readouterr().out
    assert "crop_padding = 0 " in everything
    (tmp_path / "all.toml").write_text(everything)
    assert recipe.load(str(tmp_path / "all.toml")) == recipe.load("digits", ["width=4"])
    assert main(["recipe"]) == 0
    assert capsys.readouterr().out == recipe.text() + "\n"


def test_export_as_c(run, capsys, tmp_path):
    assert main(["export", str(run), "--format", "c", "--out", str(tmp_path / "my-net")]) == 0
    assert "my-net: libmy_net, 2,696 bytes of constants (flash)" in capsys.readouterr().out
    readme = (tmp_path / "my-net" / "README.md").read_text()
    assert "1 x 8 x 8: channel by channel, row by row: bytes divided by 255, then minus the mean" in readme
    assert "- The rates are those of, in this order: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in readme
    # the first test sample, prepared
    first = data.load("digits").test.batch(np.arange(1)).ravel()
    sample = (tmp_path / "my-net" / "my_net_vector.h").read_text().split("vector_sample[64] = {")[1].split("}")[0]
    np.testing.assert_array_equal(np.array(sample.replace("f", "").split(",")[:-1], np.float32), first)


def test_export_for_libdsr(run, capsys, tmp_path):
    assert main(["export", str(run), "--format", "libdsr", "--out", str(tmp_path / "a.dsrmodel")]) == 0
    size = (tmp_path / "a.dsrmodel").stat().st_size
    assert f"a.dsrmodel: digits, IF, T = 5, {size:,} bytes" in capsys.readouterr().out
    network, _, metadata = run_folder.load_run(run)
    assert (tmp_path / "a.dsrmodel").read_bytes() == packed(lower(network, metadata["features"]))
    error = error_of(capsys, "export", tmp_path / "a.dsrmodel", "--format", "libdsr", "--out", tmp_path / "b")
    assert error.startswith(f"dsr: {tmp_path / 'a.dsrmodel'}: not a readable safetensors file")


def test_check_says_what_a_chip_cannot_take(run, capsys):
    assert main(["check", str(run), "--target", "speck"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "speck: 3 things do not fit" and lines[1].startswith("- conv1: it has a bias")
    assert lines[1].endswith("docs/speck/dangers.md]") and lines[-1].startswith(
        "note: network: the chip has no time steps"
    )
    assert main(["check", str(run), "--target", "loihi2"]) == 0
    assert capsys.readouterr().out.startswith("loihi2: the network fits\nnote: ")
    assert "argument --target: invalid choice" in error_of(capsys, "check", run, "--target", "brain")


def test_export_for_a_reader_measures_what_is_lost(run, capsys, tmp_path):
    nir = pytest.importorskip("nir")
    export = ["export", str(run), "--out", str(tmp_path / "a.nir"), "--samples", "30"]
    assert main([*export, "--for", "norse"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("for norse 1.1.0, nirtorch 2.6: norse.torch.from_nir(nir.read(FILE), reset_method=")
    assert lines[4] == "outputs: equal for 30 of 30 samples, the same class for 30"
    assert lines[5].endswith("0.0 points lost")
    assert nir.read(tmp_path / "a.nir").metadata["reader"] == "norse"
    assert main([*export, "--verify"]) == 0
    assert "outputs: equal for 30 of 30 samples" in capsys.readouterr().out
    assert error_of(capsys, *export, "--for", "rockpool").endswith("node 'conv1': rockpool has no convolutions")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["if", "lif"])
def test_bench_sets_thresholds_for_a_firing_rate(kind, training):
    recipe_of = recipe.load("digits", ["width=8", f"neuron={kind}", "timesteps=4"])
    network = build_network(recipe_of, (1, 8, 8), 10)
    images = np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32)
    rates.set_rates(network, images, 0.1, training)
    found = []
    network.forward(images, training=training, observer=lambda path, layer, out: found.append((layer, out)))
    found = [out.firing_rate() for layer, out in found if isinstance(layer, dsr.IF | dsr.LIF)]
    assert len(found) == 3
    np.testing.assert_allclose(found, 0.1, atol=0.003)
    assert rates.mean_rate(network, images, training) == pytest.approx(0.1, abs=0.003)
    assert "forward" not in vars(network.body.layers["neuron1"])
    with pytest.raises(ValueError, match=r"set_rates: argument 'rate': expected a number in \(0, 1\), got 1"):
        rates.set_rates(network, images, 1)


def test_bench_step_prints_the_rate(capsys):
    words = ["bench", "step", "--model", "cifar_fast", "--timesteps", "2", "--batch", "4", "--repeats", "1"]
    assert main([*words, "--rate", "0.1", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["mean_firing_rate"] == pytest.approx(0.1, abs=0.01)
    assert result["train_firing_rate"] == pytest.approx(0.1, abs=0.01)
    assert step.table([result]).splitlines()[2].endswith("0.100 0.100")
    error = error_of(capsys, *words, "--rate", "1")
    assert error.endswith("argument --rate: expected a number between 0 and 1, got '1'")
