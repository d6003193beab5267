"""Recipes: YAML in, every field checked and named, overrides on top."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2d.data import Augment, Source
from f2d.nets.models import build, config_of
from f2d.training.batches import Batches
from f2d.training.recipe import CONFIGS, LossWeights, Recipe, Stage, parse

SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    """recipe("steps: 5") -> the Recipe of that YAML."""

    def load(text: str | bytes, **overrides: object) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Recipe.load(str(path), overrides)

    return load


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_that_ships_loads_and_survives_a_round_trip(name, recipe):
    shipped = Recipe.load(name)
    assert recipe(shipped.to_yaml()) == shipped
    Batches(shipped.stages, shipped.steps, shipped.accumulate, world=1)


def test_the_failure_modes_differ_from_lite_in_what_they_say():
    """The paper's three failure modes are compared on equal terms."""
    lite = Recipe.load("lite")
    for name in ("deterministic", "image_level", "image_level_supervised", "resflow_lite"):
        other = Recipe.load(name).to_dict()
        differences = {key for key, value in lite.to_dict().items() if other[key] != value}
        assert differences <= {"model", "network", "losses", "one_call_fraction", "validation_steps"}, name
    assert config_of("f2d-lite", Recipe.load("deterministic").network).target == "FLOW"
    assert build(config_of("f2d-lite", Recipe.load("image_level").network)).parser.decoder is None


def test_overrides_by_dotted_names(recipe):
    text = """
sources: [{path: a}, {path: b, categories: {rain: 2}}]
stages: [{start: 0, crop: 64, batch_size: 4}, {start: 9, crop: 96, batch_size: 2}]
"""
    loaded = recipe(
        text,
        **{
            "steps": 5,
            "losses.maps": 0.5,
            "stages.1.crop": 80,
            "augment.scale.0": 1,
            "network.expert_width": 64,
            "sources.1.categories.low_haze": 3,
            "sources.0": {"path": "c"},
        },
    )
    assert (loaded.steps, loaded.losses.maps, loaded.network) == (5, 0.5, {"expert_width": 64})
    assert loaded.stages == (Stage(0, 64, 4), Stage(9, 80, 2)) and loaded.augment.scale == (1.0, 1.15)
    assert loaded.sources == (Source("c"), Source("b", categories={"rain": 2.0, "low_haze": 3.0}))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("step", 5, r"unknown step \(known: "),
        ("losses.map", 5, r"losses: unknown map \(known: "),
        ("steps.a", 5, "no field steps.a"),
        ("stages.1.crop", 5, "no field stages.1.crop"),
        ("stages.1", 5, r"no field stages\.1: the list has 1 entries"),
        ("stages.-1.crop", 5, "no field"),
        ("stages.0.size", 5, r"stages: unknown size \(known: "),
        ("network.width", 5, "f2d-lite has no width"),
        ("steps", 0, r"steps must be at least 1, got 0"),
        ("validation_crop", 4, r"validation_crop must be at least 8, or null, got 4"),
    ],
)
def test_overrides_that_lead_nowhere(recipe, name, value, words):
    with pytest.raises(ValueError, match=words):
        recipe("", **{name: value})


def test_extends(tmp_path):
    """Over a recipe that ships or a file beside it: mappings entry by entry, lists whole."""
    (tmp_path / "base.yaml").write_text(
        "extends: lite\nlosses: {maps: 0.7}\nstages: [{start: 0, crop: 64, batch_size: 2}]"
    )
    (tmp_path / "lite.yaml").write_text("extends: base.yaml\nlosses: {pixel: 2}\nsteps: 7")
    loaded, lite = Recipe.load(str(tmp_path / "lite.yaml")), Recipe.load("lite")
    assert loaded.losses == replace(lite.losses, maps=0.7, pixel=2.0)
    assert (loaded.steps, loaded.stages, loaded.sources) == (7, (Stage(0, 64, 2),), lite.sources)
    for text, words in (
        ("extends: nope", r"no file nope\.yaml"),
        ("extends: a.yaml", r"a\.yaml: extends itself"),
        ("extends: b.yaml", r"extends a file that is not a mapping"),
        ("extends: c.yaml", r"c\.yaml: extends itself|a\.yaml: extends itself"),
    ):
        (tmp_path / "a.yaml").write_text(text)
        (tmp_path / "b.yaml").write_text("[1]")
        (tmp_path / "c.yaml").write_text("extends: a.yaml")
        with pytest.raises(ValueError, match=words):
            Recipe.load(str(tmp_path / "a.yaml"))
    with pytest.raises(ValueError, match=r"no file nonsense.yaml, nor a shipped recipe of this name .*lite"):
        Recipe.load("nonsense")


def test_numbers_as_people_write_them(recipe):
    """PyYAML alone reads 1e-3 as text, and 0500 as an octal number."""
    assert parse("[0500, -064, 096, 0x10, 1_000, 0]") == [500, -64, 96, 16, 1000, 0]
    assert parse("[1e3_photos, 2e1x, 12a]") == ["1e3_photos", "2e1x", "12a"]  # names of folders
    loaded = recipe(
        "learning_rate: 1e-3\nweight_decay: 2E-4\ngradient_clip: 1\nbetas: [5e-1, .9]\nlosses: {maps: 1e-2}"
    )
    assert (loaded.learning_rate, loaded.weight_decay, loaded.gradient_clip) == (1e-3, 2e-4, 1.0)
    assert loaded.betas == (0.5, 0.9) and loaded.losses == LossWeights(maps=0.01)
    assert isinstance(loaded.gradient_clip, float)


names = st.one_of(
    st.sampled_from(
        ["1e3", "1e3x", "0500", "096", "0x10", "yes", "null", "1_000", "2026-01-01", "~", "a: b", "#", "é"]
    ),
    st.text(),
)


@given(
    names.filter(lambda name: name and name.isprintable()), st.floats(1e-12, 1e12), st.floats(0, 1, exclude_max=True)
)
def test_any_recipe_survives_a_round_trip(path, rate, share):
    source = Source(path, category="low_haze", ratio=rate)
    recipe = Recipe(sources=(source,), learning_rate=rate, ema_decay=share, augment=Augment(colour=share), initial=path)
    values = parse(recipe.to_yaml())
    assert values["sources"][0]["path"] == values["initial"] == path
    assert (values["learning_rate"], values["ema_decay"], values["augment"]["colour"]) == (rate, share, share)


@pytest.mark.parametrize(
    "text",
    [
        "model: f2d-huge",
        "model: 3",
        "network: [1]",
        "initial: 3",
        "sources: []",
        "sources: {path: a}",
        "stages: 5",
        "stages: []",
        "stages: [{start: 1, crop: 32, batch_size: 4}]",
        "stages: [{start: 0, crop: 32, batch_size: 4}, {start: 0, crop: 64, batch_size: 4}]",
        "stages: [{start: 0, crop: 32}]",
        "stages: [{start: 0, crop: 0, batch_size: 4}]",
        "stages: [{start: 0, crop: 32.5, batch_size: 4}]",
        "stages: [{start: 0, crop: true, batch_size: 4}]",
        "stages: [{start: 0, crop: 32, batch_size: -1}]",
        "stages: [{start: -1, crop: 32, batch_size: 4}]",
        "augment: 3",
        "accumulate: 0",
        "accumulate: 3",
        "steps: many",
        "learning_rate: 0",
        "learning_rate: -1e-3",
        "learning_rate: fast",
        "learning_rate: .nan",
        "learning_rate: .inf",
        "final_learning_rate: -1e-9",
        "final_learning_rate: 1e-2",
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
        "losses: [1]",
        "losses: {pixels: 1}",
        "losses: {pixel: -1}",
        "losses: {pixel: 0, reconstruction: 0, frequency: 0, classification: 0, presence: 0, maps: 0, balance: 0, "
        "gate_prior: 0, enhancement: 0, enhancer_gate: 0}",
        "losses: {pixel: all}",
        "losses: {kind: huber}",
        "losses: {map_target: none}",
        "losses: {balance_over: some}",
        "losses: {categories: {rain: -1}}",
        "losses: {categories: rain}",
        "losses: {hardness: -0.5}",
        "losses: {hardness: 5}",
        "precision: 32",
        "precision: int4",
        "strategy: deepspeed",
        "synthesis: gpu",
        "seed: -1",
        "seed: 99999999999999999999",
        "workers: -1",
        "most_bad_steps: -1",
        "save_every: 0",
        "validate_every: 0",
        "validation_images: 0",
        "validation_images: null",
        "validation_steps: 0",
    ],
)
def test_a_field_that_cannot_work_is_named(recipe, text):
    field = text.split(":")[0]
    with pytest.raises(ValueError, match=rf"^recipe.*\b{field}\b"):
        recipe(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("augment: {scale: [2, 1]}", "augment: scale"),
        ("augment: {colour: 1.5}", "augment: colour"),
        ("augment: {flips: 1}", "augment: flips"),
        ("augment: {flip: true}", "augment: unknown flip"),
        ("sources: [{path: a, layout: zip}]", r"layout must be .*got 'zip'"),
        ("sources: [{path: a, ratio: 0}]", "ratio must be a share above 0, got 0"),
        ("sources: [{layout: clean}]", "sources.*path"),
        ("sources: [{path: a, categories: {rain: -1}}]", "categories"),
        ("model: f2d-lite\nnetwork: {expert_width: 33}", "expert_width"),
        ("model: resflow-lite\nnetwork: {beta: -1}", "beta"),
        ("initial: f2d-lite\nnetwork: {expert_width: 64}", "network must be empty beside `initial`"),
    ],
)
def test_a_part_that_cannot_work_is_named(recipe, text, words):
    with pytest.raises(ValueError, match=words):
        recipe(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "must be a mapping of names to values, got list"),
        ("steps", "must be a mapping of names to values, got str"),
        ("steps: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("learning_rat: 1", r"unknown learning_rat \(known: .*learning_rate"),
        ("1: 1", r"unknown 1 \(known: "),
        ("losses: {pixels: 1}", r"losses: unknown pixels \(known: .*pixel"),
    ],
)
def test_files_that_are_no_recipe(recipe, text, words):
    with pytest.raises(ValueError, match=rf"recipe\.yaml.*{words}"):
        recipe(text)
