"""Runs with code of one's own, by reference: all commands, from any folder; what is missing or changed is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_commands import program

import dsr
from dsr import train
from dsr.__main__ import main
from dsr.files import checkpoint, reference
from dsr.train import recipe, run_folder

CODE = '''
import dsr
from beside import WIDTH

RAN = "code of the user ran"
print(RAN)

class Same(dsr.Layer):
    """A layer of a class of one's own."""
    def forward(self, signal, run): return signal
    def backward(self, gradient): return gradient
    def count_operations(self, counter, signal, output): pass
    def export(self, writer, wire): return wire

def build(make_neuron, features, classes, depth=1, own=False):
    layers, before = [dsr.Flatten()], features[0] * features[1] * features[2]
    for _ in range(depth):
        layers += [dsr.Linear(before, WIDTH), dsr.BatchNorm(WIDTH), make_neuron()]
        before = WIDTH
    return dsr.Sequential(*layers, *[Same()] * own, dsr.Linear(before, classes))

def loss(rates, targets, factor=1.0):
    value, gradient = dsr.cross_entropy(rates, targets)
    return factor * value, factor * gradient

def augment(batch, draws, most=0.0):
    return batch + (most * draws[:, :1, None, None]).astype(batch.dtype)

def data(path, preparation, few=100):
    digits = dsr.data.load("digits")
    part = dsr.data.ArraySamples(digits.train.arrays[:few], digits.train.labels[:few])
    return dsr.data.DataSet("few", digits.classes, digits.features, part, digits.test, digits.preprocessing)

from functools import partial
short = partial(build, depth=1)

def callbacks(epochs=9):
    class Stop(dsr.train.Callback):
        def after_epoch(self, trainer, metrics):
            if metrics["epoch"] == epochs:
                trainer.stop("that is enough")
    return Stop()
'''
RECIPE = """
data = "mine.py:data"
model = "mine.py:build"
loss = "mine.py:loss"
augment = "mine.py:augment"
callbacks = "mine.py:callbacks"
v_threshold = 1.0
epochs = 2
batch_size = 50
[model_options]
depth = 2
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project with its code and recipe, and an empty folder to start commands from."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.py").write_text(CODE)
    (tmp_path / "project" / "beside.py").write_text("WIDTH = 8\n")
    (tmp_path / "project" / "mine.toml").write_text(RECIPE)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    return tmp_path


def trained(place, *words):
    assert main(["train", str(place / "project" / "mine.toml"), *words, "--out", str(place / "run")]) == 0
    return place / "run"


def fresh(*words, **options):
    """A command in a new process, which has no module of the run."""
    done = program(*words, **options)
    return done.returncode, done.stdout, done.stderr


def test_every_command_works_from_another_folder(place, capsys):
    run = trained(place)
    network, chosen, _ = run_folder.load_run(run)
    assert chosen.model == f"{place / 'project' / 'mine.py'}:build"
    assert len(list(network.neurons())) == 2
    image = np.zeros((1, 8, 8), np.uint8)
    np.save(place / "zero.npy", image)
    lines = {
        "evaluate": ["evaluate", run],
        "summary": ["summary", run],
        "summary of a recipe": ["summary", place / "project" / "mine.toml"],
        "inspect": ["inspect", run, "--samples", "20", "--timesteps", "2"],
        "export": ["export", run, "--out", place / "x.nir"],
        "predict": ["predict", run, place / "zero.npy"],
        "resume": ["train", "--resume", run, "--set", "epochs=3"],
    }
    for kind, words in lines.items():
        if kind == "export":
            pytest.importorskip("nir", reason="export needs nir")
        status, output, error = fresh(*words, cwd=place / "other")
        assert status == 0, (kind, error)
        assert output, kind
    assert len(run_folder.load_metrics(run)) == 3


def test_options_reach_what_they_are_for(place, capsys):
    run = trained(place, "--set", "model.depth=3", "--set", "loss.factor=0", "--set", "data_options.few=60")
    network, chosen, metadata = run_folder.load_run(run)
    assert chosen.model_options == {"depth": 3} and chosen.data_options == {"few": 60}
    assert len(list(network.neurons())) == 3
    assert metadata["samples"]["training"]["count"] == 60
    assert all(m["loss"] == 0 for m in run_folder.load_metrics(run))
    text = recipe.text(chosen)
    assert "model_options = {depth = 3}" in text
    (place / "again.toml").write_text(text)
    assert recipe.load(str(place / "again.toml")) == chosen


def test_an_augmentation_changes_training_batches_by_their_draws(place):
    chosen = recipe.load(str(place / "project" / "mine.toml"), ["augment.most=5", "data.few=50"])
    trainers = [
        train.Trainer(made, run_folder.load_data(made, None), None, str)
        for made in (chosen, recipe.changed(chosen, ["augment.most=0"]))
    ]
    parts = [np.arange(10)]
    ((more, _),), ((plain, _),) = (list(trainer.batches.images(0, parts)) for trainer in trainers)
    shift = (more - plain).reshape(10, -1)
    assert (shift > 0).all() and (shift < 5).all() and len(np.unique(shift[:, 0])) == 10
    np.testing.assert_array_equal(next(iter(trainers[0].batches.images(0, parts)))[0], more)


def test_what_can_be_called_need_not_be_a_function(place):
    run = trained(place, "--set", "model=../project/mine.py:short", "--set", "model_options={}", "--set", "epochs=1")
    network, *_ = run_folder.load_run(run)
    assert len(list(network.neurons())) == 1


def test_a_callback_stops_a_run(place, capsys):
    run = trained(place, "--set", "callbacks.epochs=1")
    assert "stopped after epoch 1 of 2: that is enough" in capsys.readouterr().out
    assert len(run_folder.load_metrics(run)) == 1


@pytest.mark.parametrize("own", [False, True])
def test_a_run_whose_code_is_gone_says_what_is_missing(place, own):
    """Layers of dsr are described in the checkpoint; only layers of a class of one's own need the code."""
    run = trained(place, "--set", f"model.own={str(own).lower()}", "--set", "epochs=1")
    file = place / "project" / "mine.py"
    file.rename(place / "project" / "moved.py")
    status, output, error = fresh("summary", run)
    if own:
        assert status == 1
        assert error == f"dsr: recipe: key 'model': the file {file} is not there, which has 'build'\n"
        assert output == f"note: model: {file}:build was in {file}, which is not there any more\n"
    else:
        assert status == 0, error
    status, output, error = fresh("evaluate", run)
    assert status == 1 and f"the file {file} is not there, which has '{'build' if own else 'data'}'" in error


def test_code_that_has_changed_is_said(place):
    run = trained(place, "--set", "model.own=true", "--set", "epochs=1")
    file = place / "project" / "mine.py"
    file.write_text(CODE + "\n# a comment\n")
    status, output, _ = fresh("evaluate", run)
    assert status == 0 and f"note: model: {file} has changed since the run used it" in output
    file.write_text(CODE.replace("WIDTH)", "WIDTH + 1)").replace("before = WIDTH", "before = WIDTH + 1"))
    status, output, error = fresh("evaluate", run)
    assert status == 1 and "checkpoint.safetensors: Network.load_state: '1.weight': expected shape" in error


def test_weights_alone_run_no_code(place, capsys):
    run = trained(place, "--set", "model.own=true", "--set", "epochs=1")
    code = (
        "import sys, dsr\n"
        "net = dsr.Network(dsr.Sequential(dsr.Flatten(), dsr.Linear(64, 8), dsr.BatchNorm(8), dsr.IF(),"
        " dsr.Linear(8, 8), dsr.BatchNorm(8), dsr.IF(), dsr.Flatten(), dsr.Linear(8, 10)), 5)\n"
        "dsr.load_state(net, sys.argv[1])\n"
        "from dsr.files import checkpoint\n"
        "try: dsr.load(sys.argv[1])\n"
        "except checkpoint.CheckpointError as error: print(error)\n"
        "dsr.Trainer(net, dsr.data.load('digits'), say=str).start_from(sys.argv[1])\n"
        "assert 'beside' not in sys.modules\n"
        "dsr.load(sys.argv[1], network=net)\n"
        "assert 'beside' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "code of the user ran" not in done.stdout
    assert "layer '7' is a Same of mine_" in done.stdout
    assert done.stdout.endswith("dsr.load(..., run_code=True) runs it\n")
    assert dsr.load(run, run_code=True).predict(np.zeros((2, 1, 8, 8), np.uint8)).shape == (2,)


def test_a_module_is_found_again_where_it_was(place):
    (place / "project" / "nets").mkdir()
    (place / "project" / "nets" / "__init__.py").touch()
    (place / "project" / "nets" / "small.py").write_text(CODE.replace("from beside import WIDTH", "WIDTH = 8"))
    words = ["--set", "model=nets.small:build", "--set", "model.own=true", "--set", "width=16", "--set", "epochs=1"]
    status, output, error = fresh("train", "digits", *words, "--out", place / "run", cwd=place / "project")
    assert status == 0, error
    assert "note: width has no effect with a model of your own; its options are in model_options" in output
    for command in (["evaluate", place / "run"], ["train", "--resume", place / "run", "--set", "epochs=2"]):
        status, output, error = fresh(*command, cwd=place / "other")
        assert status == 0, error
    status, _, error = fresh("train", "digits", *words, "--out", place / "new", cwd=place / "other")
    assert status == 1
    assert f"key 'model': the module nets.small is neither installed nor in {place / 'other'}" in error
    assert not (place / "new").exists()


def trained_by(name, changes):
    chosen = recipe.load(name, changes)
    train.Trainer(chosen, run_folder.load_data(chosen, None), None, str).fit()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model=mine.py:built"], "expected a function of this name in .*mine.py, but 'built' is not in it"),
        (["model=mine.py:RAN"], "but 'RAN' is not a function"),
        (["model=nothing.py:build"], r"key 'model': the file .*nothing.py is not there, which has 'build'"),
        (["model=mine.py"], "key 'model': expected one of digits, .* or FILE.py:NAME, got 'mine.py'"),
        (["model.size=3"], r"key 'model': build\(make_neuron, .*\) cannot be called with 3 arguments, depth, size"),
        (["model=mine.py:callbacks", "model_options={}"], r"key 'model': callbacks\(epochs=9\) cannot be called"),
        (["loss=mine.py:nothing"], "key 'loss'|expected a function of this name"),
        (["loss=hinge"], "key 'loss': expected a function of dsr.nn.losses or FILE.py:NAME with task = classific"),
        (["loss=as_array"], "key 'loss': expected a function of dsr.nn.losses"),
        (["loss.shift=1"], r"key 'loss_options': loss\(rates, targets, factor=1.0\): got an unexpected keyword"),
        (["data.many=1"], r"data\(path, preparation, few=100\) cannot be called with 2 arguments, many"),
        (["data=digits"], "expected none with digits, got few"),
        (["callbacks.epochs=1", "callbacks=mine.py:loss", "callbacks_options={}"], "cannot be called with 0 arguments"),
        (["augment=mine.py:callbacks", "augment_options={}"], "cannot be called with 2 arguments"),
        (["model_options=3"], "key 'model_options': expected a table of values by name, got 3"),
    ],
)
def test_references_that_are_wrong(place, monkeypatch, changes, words):
    monkeypatch.chdir(place / "project")
    few = [] if any("data" in change for change in changes) else ["data.few=50"]
    if changes == ["data=digits"]:
        few = ["data.few=50"]
    with pytest.raises((TypeError, ValueError, OSError), match=words):
        trained_by("mine.toml", [*few, *changes])


def wrong_results():
    def of(key, result):
        return {"build": lambda *_: result} if key == "build" else {key: lambda *_: result}

    network = dsr.Network(dsr.Sequential(dsr.Flatten(), dsr.Linear(64, 10)), 1)
    return [
        (of("build", network), "expected .* to give a layer, such as dsr.Sequential, got Network; give its body"),
        (of("build", None), "to give a layer, such as dsr.Sequential, got NoneType"),
        (of("loss", 1.0), "expected the loss to give .value, gradient., got float"),
        (of("loss", (1.0, np.zeros((3, 3)))), r"gradient of shape \(50, 10\), got \(3, 3\)"),
        (of("loss", ("x", np.zeros((50, 10)))), "argument 'loss': expected a number as its value, got 'x'"),
        (of("augment", np.zeros(3)), r"key 'augment': expected a batch of shape \(50, 1, 8, 8\), got \(3,\)"),
        (of("augment", None), "expected a batch of shape .*, got NoneType"),
        (of("optimizer", 3), "argument 'optimizer': expected an Optimizer, got int"),
        (of("schedule", -1.0), "argument 'schedule': expected a learning rate >= 0, got -1.0"),
        ({"callbacks": [3]}, "callbacks: expected a dsr.train.Callback, got int"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"), wrong_results(), ids=lambda x: next(iter(x)) if type(x) is dict else ""
)
def test_objects_that_give_something_else(place, arguments, words):
    chosen = recipe.load("digits", ["batch_size=50", "epochs=1"])
    digits = dsr.data.load("digits")
    with pytest.raises((TypeError, ValueError), match=words):
        train.Trainer(chosen, digits, None, str, **arguments).fit()


def test_a_reference_is_absolute_from_where_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('data = "digits"\nmodel = "sub/net.py:build"\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.toml").write_text('data = "digits"\nmodel = "net.py:build"\n')
    expected = f"{tmp_path / 'sub' / 'net.py'}:build"
    assert recipe.load("a.toml").model == recipe.load("sub/b.toml").model == expected
    assert recipe.load("sub/b.toml", ["model=sub/net.py:build"]).model == expected
    assert recipe.Recipe(data="digits", model="package.net:build").model == "package.net:build"
    (tmp_path / "c.toml").write_text('data = "digits"\nmodel = "net.py:build"\nmodel.depth = 3\n')
    with pytest.raises(ValueError, match=r"options of model go into a table of their own, \[model_options\]"):
        recipe.load("c.toml")
    for text in ("digits", "a.py", ":build", "a.py:", "a.py:1x", "C:/x"):
        assert not reference.is_reference(text)


def test_an_error_in_the_code_is_shown_where_it_is(place, monkeypatch):
    (place / "project" / "mine.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'nothing_of_this_name'"):
        reference.resolve(f"{place / 'project' / 'mine.py'}:build", "x")
    (place / "project" / "mine.py").write_text(CODE)  # and it is read again after it was mended
    assert reference.resolve(f"{place / 'project' / 'mine.py'}:build", "x").__name__ == "build"


def test_the_help_says_whose_code_is_run(capsys):
    for command in ("train", "evaluate", "inspect", "export", "predict", "summary"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "runs that code" in " ".join(capsys.readouterr().out.split()), command


def test_run_folders_note_their_references(place):
    run = trained(place)
    _, metadata = checkpoint.load(run / run_folder.CHECKPOINT)
    assert set(metadata["references"]) == {"data", "model", "loss", "augment", "callbacks"}
    noted = metadata["references"]["model"]
    assert Path(noted["file"]) == place / "project" / "mine.py" and Path(noted["root"]) == place / "project"
    assert len(noted["sha256"]) == 64
