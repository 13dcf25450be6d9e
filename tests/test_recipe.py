"""Recipes: values checked, mistakes named."""

from dataclasses import fields, replace

import numpy as np
import pytest

from dsr import data
from dsr.data import Preparation
from dsr.data.options import options
from dsr.nn.registry import NEURONS
from dsr.train import recipe, run_folder
from dsr.train.recipe import Recipe


def test_every_recipe_of_the_package_loads():
    assert "digits" in recipe.names()
    for name in recipe.names():
        assert recipe.load(name).data


def test_changes_are_toml_values():
    chosen = recipe.load("digits", ["epochs=3", "neuron=lif", "learning_rate=1", "nesterov=true"])
    assert (chosen.epochs, chosen.neuron, chosen.learning_rate, chosen.nesterov) == (3, "lif", 1.0, True)
    # what people write, though it is not TOML
    for word, value in ((".1", 0.1), ("1.", 1.0), ("-.5e-1", -0.05), ("+1e0", 1.0)):
        if value >= 0:
            assert recipe.load("digits", [f"learning_rate={word}"]).learning_rate == value
        else:
            with pytest.raises(ValueError, match=rf"got {value}"):
                recipe.load("digits", [f"learning_rate={word}"])
    assert recipe.load("digits", ["flip=True"]).flip is True
    assert recipe.load("digits", ["flip=FALSE"]).flip is False
    assert recipe.load("digits", ["model=True"]).model == "True"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("workers=0", "unknown key 'workers'; 'dsr recipe' lists all keys"),
        ("epochs=many", r"key 'epochs': expected an integer in \[1, 2\*\*31\), got 'many'"),
        ("epochs=1e3", r"key 'epochs': expected an integer in .*, got 1000\.0"),
        ("epochs=true", "key 'epochs': expected an integer in .*, got True"),
        ("batch_size=1", r"key 'batch_size': expected an integer in \[2, 2\*\*31\), got 1"),
        ("learning_rate=1e38", r"key 'learning_rate': expected a number in \[0, 2\*\*126\], got 1e\+38"),
        ("learning_rate=nan", "key 'learning_rate': expected a number in .*, got nan"),
        ("learning_rate=.x", r"key 'learning_rate': expected a number in .*, got '\.x'"),
        ("v_threshold=0", "key 'v_threshold': expected a number in .*, got 0"),
        ("flip=1", "key 'flip': expected true or false, got 1"),
        ("data=3", "key 'data': expected a string, got 3"),
        ("epochs=0", "key 'epochs': expected an integer in "),
        ("neuron=relu6", f"key 'neuron': expected one of {', '.join(NEURONS)}, got 'relu6'"),
        ("epochs", "expected key=value"),
    ],
)
def test_mistakes_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        recipe.load("digits", [change])


def test_unknown_recipes_are_named():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        recipe.load("digit")


def test_recipes_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('data = "digits"\nmodel = "digits"\n')
    assert recipe.load(str(path)).timesteps == 5
    path.write_text('model = "digits"\n')
    with pytest.raises(ValueError, match="key 'data' is missing"):
        recipe.load(str(path))
    path.write_text("data = \n")
    with pytest.raises(ValueError, match=r"mine.toml"):
        recipe.load(str(path))
    path.write_bytes(b"\xef\xbb\xbf" + b'data = "digits"\nmodel = "digits"\nwidth = 3\n')  # a byte order mark
    assert recipe.load(str(path)).width == 3


def test_a_value_is_checked_however_the_recipe_is_made():
    made = Recipe(data="digits", model="digits", learning_rate=1, seed=np.int64(3))
    assert type(made.learning_rate) is float and type(made.seed) is int
    assert made == recipe.from_dict(made.to_dict())
    with pytest.raises(ValueError, match=r"recipe: key 'width': expected an integer in \[1, 2\*\*31\), got 0"):
        replace(made, width=0)
    with pytest.raises(ValueError, match="'timesteps': expected 1 with neuron"):
        replace(made, neuron="relu")
    with pytest.raises(ValueError, match=f"'neuron': expected one of {', '.join(NEURONS)}, got 'lIf'"):
        replace(made, neuron="lIf")


def test_runs_of_older_versions_may_have_batches_of_one_sample():
    assert recipe.from_dict({**recipe.load("digits").to_dict(), "batch_size": 1}).batch_size == 1


@pytest.mark.parametrize("kind", [Recipe, Preparation])
def test_an_option_is_documented_and_checked_by_its_line(kind):
    found = options(kind)
    assert found.keys() == {field.name for field in fields(kind)}
    required = {"data": "digits", "model": "digits"} if kind is Recipe else {}
    for name, option in found.items():
        assert f"{name} : {option.kind.__name__}\n    {option.documentation}\n" in kind.__doc__
        with pytest.raises(ValueError, match=rf"'{name}': expected .*, got complex"):
            kind(**{**required, name: 1j})
        if option.range is not None:
            assert option.range.words[1:] in option.documentation
            lowest = -1 if name == "workers" else 0  # -1 workers are as many as help
            for wrong in (lowest - 1, float("nan"), float("inf"), -(10**400)):
                with pytest.raises(ValueError, match=rf"'{name}': expected {option.expected[:6]}"):
                    kind(**{**required, name: wrong})


def test_a_recipe_as_text_is_that_recipe(tmp_path):
    for name in recipe.names():
        path = tmp_path / f"{name}.toml"
        path.write_text(recipe.text(recipe.load(name)))
        assert recipe.load(str(path)) == recipe.load(name)
    lines = recipe.text().splitlines()
    assert lines[0].startswith("data =   ")  # no default
    assert [line.split(" =")[0] for line in lines] == list(options(Recipe))
    assert "batch_size = 128 " in recipe.text() and "on all ranks together, at least 2." in recipe.text()


def test_the_preparation_of_a_recipe_has_all_its_options():
    chosen = recipe.load("dvs-cifar10-if", ["roll=2", "frames_by=time", "crop_reflect=true"])
    made = run_folder.preparation(chosen, workers=3)
    assert made == Preparation(
        timesteps=20, image_size=48, crop_padding=4, roll=2, frames_by="time", crop_reflect=True, workers=3
    )


def test_keys_without_effect_are_found():
    for name in recipe.names():
        assert recipe.without_effect(recipe.load(name), started=name in ("imagenet-if", "imagenette-hybrid")) == []
    changes = ["crop_padding=2", "tau=2", "optimizer=adam", "momentum=0.5", "alternate_flip=true", "start_batches=9"]
    assert recipe.without_effect(recipe.load("digits", changes)) == [
        "tau has an effect only with neuron = lif",
        "alternate_flip has an effect only with flip",
        "momentum has an effect only with optimizer = sgd or muon",
        "start_batches has an effect only with --from",
        "crop_padding has no effect with data = digits",
    ]
    assert recipe.without_effect(recipe.load("cifar10-if", ["image_size=8", "cutout=4"])) == [
        "image_size has no effect with data = cifar10"
    ]


def test_a_data_set_without_files_takes_no_path(tmp_path):
    assert not data.needs_path("digits") and all(data.needs_path(name) for name in data.names() if name != "digits")
    with pytest.raises(ValueError, match="load: argument 'path': expected none with digits, which comes with dsr, got"):
        data.load("digits", tmp_path)
