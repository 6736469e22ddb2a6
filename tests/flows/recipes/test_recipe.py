"""Recipes: every mistake is one line that names file, field, rule and value."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medphantom.cohorts.ingest import ingest
from medphantom.core.errors import InputError, RecipeError
from medphantom.flows.operations.phantom import phantom
from medphantom.flows.recipes.plans import MatchPlan, plan_flags
from medphantom.flows.recipes.recipe import Recipe, load_recipe
from medphantom.flows.recipes.recipe_file import apply_settings, models_in, section
from medphantom.flows.recipes.recipe_schema import field_descriptions, json_schema
from medphantom.flows.recipes.settings import GeneratePart, IngestPart, read_part
from medphantom.flows.recipes.starter import DEMO_RECIPE, starter
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.phantoms.write import write_phantoms

ROOT = Path(__file__).parents[3]
MINIMAL = "cohort:\n  simulate: {patients: 3}\n"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "sampler: {steps: 0}", "recipe.yaml: sampler.steps must be ≥ 1, got 0"),
        (MINIMAL + "sampler: {stepz: 3}", "recipe.yaml: sampler.stepz is no field; did you mean 'steps'?"),
        (MINIMAL + "sampler: {steps: many}", "recipe.yaml: sampler.steps must be a whole number, got 'many'"),
        (MINIMAL + "samplr: {}", "recipe.yaml: samplr is no field; did you mean 'sampler'?"),
        (
            MINIMAL + "plan: {kind: matc}",
            "recipe.yaml: plan.kind must be one of match, balance, counts, masks, pairs, table, got 'matc'",
        ),
        (MINIMAL + "plan: {kind: balance}", "recipe.yaml: plan.per_label is missing; add it"),
        (MINIMAL + "plan: {kind: match, totl: 3}", "recipe.yaml: plan.totl is no field; did you mean 'total'?"),
        (MINIMAL + "plan: {kind: counts, counts: {a: -1}}", "recipe.yaml: plan.counts.a must be ≥ 0, got -1"),
        (MINIMAL + "preprocess: {size: [64]}", "recipe.yaml: preprocess.size"),
        (MINIMAL + "preprocess: {size: [64, 4]}", "recipe.yaml: preprocess.size.1 must be ≥ 8, got 4"),
        (
            MINIMAL + "preprocess: {size: [64, 64], intensity: {kind: window, low: 5}}",
            "recipe.yaml: preprocess.intensity.high is missing; add it",
        ),
        (
            MINIMAL + "generator: {objective: {kind: flw}}",
            "recipe.yaml: generator.objective.kind must be one of flow, v, ddpm, got 'flw'; did you mean flow?",
        ),
        (
            MINIMAL + "generator: {denoiser: {channels: [30]}}",
            "recipe.yaml: denoiser.channels must be multiples of norm_groups = 16, got 30",
        ),
        ("name: x", "recipe.yaml: cohort is missing; add it"),
        ("cohort: {}", "recipe.yaml: cohort needs either source or simulate"),
        ("cohort: {source: nowhere}", "recipe.yaml: cohort.source nowhere does not exist; give the folder"),
        (MINIMAL + "name: a/b", "recipe.yaml: name must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$, got 'a/b'"),
        ("- 1", "recipe.yaml holds no fields"),
        ("", "recipe.yaml holds no fields"),
        ("a: [1", "recipe.yaml, line 1, column"),
        ("a: 1\na: 2", "recipe.yaml, line 2, column 1: 'a' is given twice"),
        ("a: !!python/object/apply:os.system [echo]", "recipe.yaml, line 1, column 4: could not determine"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sampler\.steps must be ≥ 1, got 0 \(and 1 more\)"):
        load_recipe(written(tmp_path, MINIMAL + "sampler: {steps: 0, guidance: -1}"))


@pytest.mark.parametrize("name", ["missing.yaml", "binary.yaml"])
def test_a_file_that_is_no_recipe(tmp_path: Path, name: str) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=name):
        load_recipe(tmp_path / name)


def test_settings_are_typed_as_yaml_and_win(tmp_path: Path) -> None:
    file = written(tmp_path, MINIMAL + "sampler: {steps: 5}")
    settings = ["sampler.steps=7", "preprocess.size=[32, 48]", "generator.flip=true", "generator.seed=3"]
    recipe = load_recipe(file, [*settings, "generator.denoiser_fit.learning_rate=1e-4"]).recipe
    assert (recipe.sampler.steps, recipe.preprocess.size, recipe.generator.flip) == (7, (32, 48), True)
    assert recipe.generator.denoiser_fit.learning_rate == 1e-4
    assert (
        recipe.generator.denoiser_fit.steps == GeneratorConfig().denoiser_fit.steps
    )  # what was not set keeps its default


def test_settings_do_not_change_the_tree_they_are_given() -> None:
    tree: dict[str, Any] = {"a": {"b": 1}}
    assert apply_settings(tree, ["a.b=2", "c.d=x"])[0] == {"a": {"b": 2}, "c": {"d": "x"}}
    assert tree == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sampler.steps=0", "--set sampler.steps must be ≥ 1, got 0"),
        ("sampler.stepz=1", "--set sampler.stepz is no field; did you mean 'steps'?"),
        ("sampler.steps", "--set sampler.steps: expected field.field=value"),
        ("=3", "expected field.field=value"),
        ("name.x=3", "--set name.x=3: name holds a value, not fields"),
        ("sampler.steps=[1", "--set sampler.steps, line 1"),
        (
            "generator.init_from=base:",
            "--set generator.init_from must be text, got {'base': None}; write base:NAME, e.g. base:generic; YAML",
        ),
        ("generator.init_from=base: radiograph", "got {'base': 'radiograph'}; write base:NAME, e.g. base:generic"),
        (
            "generator.intended_use=Research: no diagnosis",
            "--set generator.intended_use must be text, got {'Research': 'no diagnosis'}; put the text in quotes; YAML",
        ),
        (
            "plan={kind: counts, counts: {effusion: 3}, total: 9}",
            "--set plan.total is no field where plan.kind is counts; leave it out, or choose another kind",
        ),
        (
            "plan={kind: counts, counts: {effusion: -3}}",
            "--set plan.counts.effusion must be ≥ 0, got -3",
        ),
        ("plan.per_label=9", "--set plan.per_label is no field where plan.kind is match; leave it out"),
        ("plan.kind=balance", "recipe.yaml: plan.per_label is missing; add it"),
        ("plan.totl=9", "--set plan.totl is no field; did you mean 'total'?"),
        ("generator.init_from=BASE:radiograph", "bases that ship are written base:generic or base:radiograph"),
        (
            "generator.init_from=Base:generic",
            "base Base:generic is no folder and no hub id; bases that ship are written",
        ),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises((InputError, RecipeError)) as caught:
        load_recipe(written(tmp_path, MINIMAL), [setting])
    assert message in str(caught.value)


def test_paths_are_relative_to_the_recipe_and_kept_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").write_text("a\n")
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOSPITAL", str(tmp_path))
    text = "cohort: {source: '${HOSPITAL}/images', key_file: id.key, options: {table: labels.csv}}"
    loaded = load_recipe(written(tmp_path, text))
    assert loaded.recipe.cohort.source == tmp_path / "images"
    assert loaded.recipe.cohort.key_file == tmp_path / "id.key"
    assert loaded.recipe.cohort.options.table == tmp_path / "labels.csv"
    assert loaded.written["cohort"]["source"] == "${HOSPITAL}/images"
    assert str(tmp_path) not in json.dumps(loaded.written)


def test_a_table_in_the_source_is_found_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "labels.csv").write_text("a\n")
    loaded = load_recipe(written(tmp_path, "cohort: {source: images, options: {table: labels.csv}}"))
    assert loaded.recipe.cohort.options.table == Path("labels.csv")


def test_an_unset_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOSPITAL", raising=False)
    with pytest.raises(RecipeError, match=r"cohort\.source needs the environment variable HOSPITAL, which is not set"):
        load_recipe(written(tmp_path, "cohort: {source: '${HOSPITAL}/images'}"))


@pytest.mark.parametrize(
    "field",
    [
        "generator.intended_use=made with ${API_TOKEN}",
        "cohort.public_phrase=${API_TOKEN}",
        "generator.init_from=${API_TOKEN}/base",
        "assess.features=['${API_TOKEN}']",
        "assess.networks=['${API_TOKEN}']",
        "cohort.options.label_columns=['${API_TOKEN}']",
        "plan={kind: counts, counts: {x: 1}, texts: ['${API_TOKEN}']}",
    ],
)
def test_variables_stand_for_paths_only_so_that_no_secret_gets_into_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2-secret")
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, MINIMAL), [field])
    assert "hunter2" not in str(caught.value)
    if "no field" not in str(caught.value):
        assert "stands for an environment variable in paths only" in str(caught.value)


def test_the_name_is_that_of_the_file_unless_given(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, MINIMAL)).recipe.name == "recipe"
    assert load_recipe(written(tmp_path, MINIMAL + "name: other")).recipe.name == "other"


def all_models() -> list[Any]:
    found: list[Any] = [Recipe]
    for model in found:
        for field in model.model_fields.values():
            found += [inner for inner in models_in(field.annotation) if inner not in found]
    return found


def test_every_field_of_a_recipe_is_described() -> None:
    bare = [
        f"{model.__name__}.{name}"
        for model in all_models()
        for name in model.model_fields
        if len(field_descriptions(model).get(name, "")) < 5
    ]
    assert bare == []
    assert len(all_models()) > 10


@pytest.mark.parametrize(
    ("simulate", "dims", "size"),
    [
        ({}, 2, 256),
        ({"format": "nifti"}, 3, 64),
        ({"spatial_dims": 3}, 3, 64),
        ({"spatial_dims": 3, "size": 32}, 3, 32),
        ({"format": "png"}, 2, 256),
    ],
    ids=str,
)
def test_simulated_patients_have_the_defaults_of_the_verb(
    tmp_path: Path, simulate: dict[str, Any], dims: int, size: int
) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"cohort": {"simulate": {"patients": 1, **simulate}}}))
    options = load_recipe(tmp_path / "r.yaml").recipe.cohort.simulate
    assert options is not None
    assert (options.spatial_dims, options.size) == (dims, size)
    phantom(tmp_path / "p", 1, **{"size": 32, **simulate})
    assert json.loads((tmp_path / "p" / "phantom.json").read_text())["spatial_dims"] == dims


@pytest.mark.parametrize(("kind", "dims"), [("png", 3), ("nifti", 2)])
def test_a_format_that_cannot_hold_the_images_is_refused_when_the_recipe_is_read(
    tmp_path: Path, kind: str, dims: int
) -> None:
    tree = {"cohort": {"simulate": {"patients": 4, "format": kind, "spatial_dims": dims}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(RecipeError, match=f"cohort.simulate: format {kind} cannot hold {dims}-D images; use png"):
        load_recipe(tmp_path / "r.yaml")


def test_a_plan_that_names_no_kind_is_of_the_usual_kind(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("cohort: {simulate: {patients: 4}}\nplan: {total: 5}")
    assert load_recipe(tmp_path / "r.yaml").recipe.plan == MatchPlan(total=5)
    part = read_part(GeneratePart, None, ["plan.total=7"], plan_flags(None, None, None, 3))
    assert part.plan == MatchPlan(total=7, seed=3)
    with pytest.raises(RecipeError, match=r"plan.per_label is no field"):
        read_part(GeneratePart, None, ["plan.per_label=7"])


SAMPLER = SamplerConfig(steps=2)


@pytest.mark.parametrize(
    ("setting", "layer", "field"),
    [
        ("plan.total=9", {"plan": {"total": 3}}, "plan.total"),
        ("plan={total: 9}", {"plan": {"total": 3}}, "plan.total"),
        ("plan.kind=balance", {"plan": {"kind": "match", "total": 3}}, "plan.kind"),
        ("plan.counts.a=2", {"plan": {"kind": "counts", "counts": {"a": 3}}}, "plan.counts.a"),
        ("plan.counts=", {"plan": {"kind": "counts", "counts": {"a": 3}}}, "plan.counts"),
        ("sampler.steps=5", {"sampler": {"steps": 2}}, "sampler.steps"),
        ("sampler.steps=5", {"sampler": SAMPLER}, "sampler.steps"),
        ("sampler.micro_batch=5", {"sampler": SAMPLER}, "sampler.micro_batch"),
        ("sampler=", {"sampler": SAMPLER}, "sampler"),
    ],
)
def test_a_field_that_a_setting_and_an_argument_give_different_values_is_refused(
    setting: str, layer: dict[str, Any], field: str
) -> None:
    with pytest.raises(RecipeError, match=f"^{field} is given twice with different values, once by --set; give it onc"):
        read_part(GeneratePart, None, [setting], layer)


def test_a_setting_beside_a_typed_section_that_has_no_such_field_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"sampler is given as a whole, and sampler.stepz is given by --set too"):
        read_part(GeneratePart, None, ["sampler.stepz=5"], {"sampler": SAMPLER})


@pytest.mark.parametrize(
    ("settings", "layer"),
    [
        (["plan.total=9", "sampler.steps=2"], {"plan": {"total": 9, "seed": None}, "sampler": {"steps": 2}}),
        (["plan.total=9", "sampler.steps=2"], {"sampler": SAMPLER}),
        (["plan.total=9", "sampler.guidance=2e0", "sampler.steps=2"], {"sampler": {"guidance": 2.0}}),
        (["plan={total: 9}", "sampler.steps=2"], {"plan": {}, "sampler": None}),
    ],
)
def test_a_field_may_be_given_the_same_value_twice(settings: list[str], layer: dict[str, Any]) -> None:
    part = read_part(GeneratePart, None, settings, layer)
    assert (part.plan, part.sampler.steps) == (MatchPlan(total=9), 2)


def test_paths_are_the_same_value_wherever_they_are_relative_to(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("cohort: {source: elsewhere}")
    layer = {"cohort": {"source": str(tmp_path / "images")}}
    part = read_part(IngestPart, tmp_path / "r.yaml", ["cohort.source=images"], layer)
    assert part.cohort.source == tmp_path / "images"
    with pytest.raises(RecipeError, match=r"cohort.source is given twice"):
        read_part(IngestPart, tmp_path / "r.yaml", ["cohort.source=image"], layer)


def test_a_base_that_is_not_there_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("cohort: {simulate: {patients: 4}}\ngenerator: {init_from: ./nowhere}")
    with pytest.raises(InputError, match=r"base .*/nowhere does not exist; create the base first, or give a hub id"):
        load_recipe(tmp_path / "r.yaml")


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "docs" / "formats" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(json_schema(Recipe))), "run: make schema"


EXAMPLES = [DEMO_RECIPE, *sorted((ROOT / "examples").rglob("*.yaml"))]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_recipes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the bases that they name, which other examples make."""
    folder = tmp_path / "examples" / "bases"  # as deep as the deepest
    folder.mkdir(parents=True)
    file = Path(shutil.copy(file, folder))
    base = (yaml.safe_load(file.read_text("utf-8")).get("generator") or {}).get("init_from")
    if base is not None:
        (file.parent / base).resolve().mkdir(parents=True)
    for folder in ("mednist_64", "nih_chest_xray_256", "hippocampus_mr_3d"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("MEDPHANTOM_REAL_DATA", str(tmp_path))
    assert load_recipe(file).recipe.name == file.stem.removesuffix("_example")


def test_factors_of_a_simulation_are_attributes_of_its_cohort(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "cohort: {simulate: {patients: 20, size: 32, seed: 2, factors: [anatomy.adiposity, cardiomegaly.severity]}}"
    )
    choice = load_recipe(tmp_path / "r.yaml").recipe.cohort
    assert choice.simulate is not None
    write_phantoms(tmp_path / "p", 20, size=32, seed=2, factors=choice.simulate.factors)
    cohort = ingest(tmp_path / "p", tmp_path / "cohort", choice.reading, choice.identity_key()).cohort
    kinds = {spec.name: (spec.kind, spec.unit) for spec in cohort.schema.attributes}
    assert kinds == {
        "age": ("continuous", "years"),
        "sex": ("categorical", ""),
        "view": ("categorical", ""),
        "adiposity": ("continuous", ""),
        "cardiomegaly_severity": ("continuous", ""),
    }
    truths = [json.loads(line)["factors"] for line in (tmp_path / "p" / "factors.jsonl").read_text().splitlines()]
    wanted = sorted(truth["anatomy"]["adiposity"] for truth in truths)
    assert sorted(cohort.attribute("adiposity")) == pytest.approx(wanted, rel=1e-5)
    own = load_recipe(tmp_path / "r.yaml", ["cohort.options.attributes=[sex]"]).recipe.cohort
    assert own.reading.attributes == ("sex",)
    plain = load_recipe(tmp_path / "r.yaml", ["cohort.simulate.factors=[]"]).recipe.cohort
    assert plain.reading == plain.options.model_copy(update={"min_patients": 1})  # nobody can be pointed to
    strict = load_recipe(tmp_path / "r.yaml", ["cohort.options.min_patients=7"]).recipe.cohort
    assert strict.reading.min_patients == 7


def test_the_starter_is_a_recipe_with_awkward_names_too() -> None:
    text = starter('C:\\data: "x" #1', "run-1")
    assert yaml.safe_load(text)["cohort"]["source"] == 'C:\\data: "x" #1'
    assert sum(line.strip().startswith("#") or " # " in line for line in text.splitlines()) > 20
    with pytest.raises(RecipeError, match="name"):
        starter("images", "a b/c")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generator.denoiser_fit.steps", "true"),
        ("generator.privacy", "{epsilon: true}"),
        ("sampler.drift", "no"),
        ("plan.total", "true"),
        ("preprocess.size", "[32, true]"),
    ],
)
def test_true_is_not_taken_for_one(tmp_path: Path, field: str, value: str, one_line: Callable[..., str]) -> None:
    (tmp_path / "recipe.yaml").write_text("cohort: {simulate: {patients: 3}}\n")
    line = one_line("run", tmp_path / "recipe.yaml", "--no-prefect", "--set", f"{field}={value}")
    assert field in line
    assert "must not be true or false" in line


def test_true_is_not_taken_for_one_in_a_section_of_a_notebook() -> None:
    for given in ({"steps": True}, {"guidance": np.True_}, {"guidance_interval": [False, True]}):
        with pytest.raises(RecipeError, match="must not be true or false"):
            section(SamplerConfig, given, "sampler")


def test_what_may_be_true_or_false_or_reads_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "cohort: {simulate: {patients: 3}, options: {near_duplicates: off}}\n"
        "generator: {flip: yes, denoiser: {attention: [false, false, true]}}\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert (recipe.generator.flip, recipe.cohort.options.near_duplicates) == (True, "off")
