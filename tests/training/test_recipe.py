"""Recipes: YAML in, every field checked and named, overrides on top."""

import pytest

from f2d.training.recipe import CONFIGS, LossWeights, Recipe


@pytest.fixture
def recipe(tmp_path):
    """recipe("steps: 5") -> the Recipe of that YAML."""

    def load(text: str | bytes, **overrides: object) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Recipe.load(str(path), **overrides)

    return load


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_that_ships_loads_and_survives_a_round_trip(path, recipe):
    shipped = Recipe.load(path.stem)
    assert recipe(shipped.to_yaml()) == shipped


def test_overrides(recipe):
    assert Recipe.load("lite", steps=5, crop=None).steps == 5
    with pytest.raises(ValueError, match=r"recipes that ship with f2d: .*lite"):
        Recipe.load("nonsense")
    with pytest.raises(ValueError, match="steps is 0; give at least 1"):
        recipe("", steps=0)
    categories = recipe("categories: {rain: 2, low: 3}", categories={"low": 0.5, "haze": 4.0}).categories
    assert categories == {"rain": 2.0, "low": 0.5, "haze": 4.0}


def test_numbers_as_people_write_them(recipe):
    """PyYAML alone reads 1e-3 as text."""
    loaded = recipe(
        "learning_rate: 1e-3\nweight_decay: 2E-4\ngradient_clip: 1\nbetas: [5e-1, .9]\nlosses: {maps: 1e-2}"
    )
    assert (loaded.learning_rate, loaded.weight_decay, loaded.gradient_clip) == (1e-3, 2e-4, 1.0)
    assert loaded.betas == (0.5, 0.9) and loaded.losses == LossWeights(maps=0.01)
    assert isinstance(loaded.gradient_clip, float)


@pytest.mark.parametrize(
    "text",
    [
        "model: f2d-huge",
        "model: 3",
        "initial: 3",
        "crop: 0",
        "crop: 128.5",
        "crop: true",
        "batch_size: -1",
        "steps: many",
        "learning_rate: 0",
        "learning_rate: -1e-3",
        "learning_rate: fast",
        "learning_rate: .nan",
        "learning_rate: .inf",
        "final_learning_rate: -1e-9",
        "betas: 0.9",
        "betas: [0.9]",
        "betas: [0.9, 1.0]",
        "betas: [-0.1, 0.9]",
        "weight_decay: -1",
        "warmup_steps: -1",
        "gradient_clip: -1",
        "ema_decay: 1.0",
        "ema_decay: -0.1",
        "one_call_fraction: 1.1",
        "categories: [rain]",
        "categories: {fog: 1}",
        "categories: {rain: -1}",
        "categories: {rain: often}",
        "categories: {1: 1}",
        "losses: [1]",
        "losses: {pixels: 1}",
        "losses: {pixel: -1}",
        "losses: {pixel: all}",
        "precision: 32",
        "precision: int4",
        "seed: -1",
        "seed: 99999999999999999999",
        "workers: -1",
        "validate_every: 0",
        "validation_images: 0",
        "validation_images: null",
    ],
)
def test_a_field_that_cannot_work_is_named(recipe, text):
    field = text.split(":")[0]
    with pytest.raises(ValueError, match=rf"^recipe.*\b{field}\b"):
        recipe(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "is a list; give a mapping"),
        ("steps", "is a str; give a mapping"),
        ("steps: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("learning_rat: 1", "unknown learning_rat; known are .*learning_rate"),
        ("1: 1", "unknown 1; known are"),
        ("losses: {pixels: 1}", "losses: unknown pixels; known are .*pixel"),
    ],
)
def test_files_that_are_no_recipe(recipe, text, words):
    with pytest.raises(ValueError, match=rf"recipe\.yaml.*{words}"):
        recipe(text)


def test_all_categories_off(recipe):
    from f2d.degradation import CATEGORIES

    with pytest.raises(ValueError, match=r"categories .*not all of them 0"):
        recipe("categories: {" + ", ".join(f"{name}: 0" for name in CATEGORIES) + "}")
    assert recipe("categories: {" + ", ".join(f"{name}: 0" for name in CATEGORIES[1:]) + "}").categories["rain"] == 0
