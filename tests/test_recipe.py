"""Recipes: values checked, mistakes named."""

import pytest

from dsr.train import recipe


def test_every_recipe_of_the_package_loads():
    assert "digits" in recipe.names()
    for name in recipe.names():
        assert recipe.load(name).data


def test_changes_are_toml_values():
    chosen = recipe.load("digits", ["epochs=3", "neuron=lif", "learning_rate=1", "nesterov=true"])
    assert (chosen.epochs, chosen.neuron, chosen.learning_rate, chosen.nesterov) == (3, "lif", 1.0, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("epochs=many", "key 'epochs': expected int"),
        ("epochs=0", "key 'epochs': expected an integer in "),
        ("neuron=relu6", "key 'neuron': expected one of if, lif"),
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
