"""A plain installation does the main job, and what needs an extra is refused in one line before any work begins."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import medphantom as mp
from medphantom.core.errors import InputError
from medphantom.core.extras import PACKAGES, Extra, absent, importable, require
from tests.cohorts.files import write_png
from tests.flows.conftest import TINY_RECIPE
from tests.without import ROOT, run_without

ALL = [package for packages in PACKAGES.values() for package in packages]
TRACKED = TINY_RECIPE.replace(", tracker: none", "")  # as it is by default
NEEDS: list[tuple[Extra, dict[str, Any], str]] = [
    ("private", {"generator": {"init_from": "base", "privacy": {"epsilon": 8}}}, "generator.privacy"),
    (
        "pretrained",
        {"generator": {"conditioning": {"text": {"written_by": "templates"}}}},
        "generator.conditioning.text",
    ),
    (
        "pretrained",
        {"generator": {"init_from": "stable"}},
        "generator.init_from: {here}/stable (a Stable Diffusion pipeline)",
    ),
    (
        "pretrained",
        {"generator": {"init_from": "some/pipeline"}},
        "generator.init_from: some/pipeline (a Stable Diffusion pipeline)",
    ),
    (
        "pretrained",
        {"generator": {"init_from": "base", "tuning": {"method": "lora"}}},
        "generator.tuning.method: lora",
    ),
    ("pretrained", {"assess": {"networks": ["filters", "some/encoder"]}}, "assess.networks: some/encoder"),
    ("pretrained", {"assess": {"text_encoder": "some/clip"}}, "assess.text_encoder: some/clip"),
    (
        "tensorboard",
        {"generator": {"denoiser_fit": {"tracker": "tensorboard"}}},
        "generator.denoiser_fit.tracker: tensorboard",
    ),
]


def refusal(extra: Extra, what: str) -> str:
    """The line about an extra of which no package is there."""
    names = PACKAGES[extra]
    packages = f"the package {names[0]}, which is" if len(names) == 1 else f"{' and '.join(names)}, which are"
    return f"{what} needs {packages} not installed; pip install 'medphantom[{extra}]'"


def noise(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 255, (32, 32), dtype=np.uint8)


def recipe_with(change: dict[str, Any], file: Path) -> Path:
    """A whole recipe with some of its sections changed, beside the folders that it names."""
    tree = yaml.safe_load(TINY_RECIPE)
    for section, fields in change.items():
        tree[section] = {**tree[section], **fields}
    file.write_text(yaml.safe_dump(tree))
    for folder in ("base/configs", "stable/unet"):
        (file.parent / folder).mkdir(parents=True, exist_ok=True)
    return file


def test_extras_are_those_of_the_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    for extra, packages in PACKAGES.items():
        assert {line.split(">=")[0] for line in optional[extra]} == set(packages)
        assert not any(line.startswith(package) for line in project["dependencies"] for package in packages)
    assert optional["all"] == [f"medphantom[{','.join(PACKAGES)}]"]
    assert "medphantom[all]" in optional["dev"]


def test_what_is_installed_is_not_refused_and_a_mere_folder_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert absent("private") == ()
    require("private", "this")
    monkeypatch.setitem(PACKAGES, "onnx", ("a_package_of_nobody",))
    with pytest.raises(InputError, match=r"^this needs the package a_package_of_nobody, which is not installed; pip"):
        require("onnx", "this")
    (tmp_path / "opacus_of_nobody").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not importable("opacus_of_nobody")
    (tmp_path / "opacus_of_nobody" / "__init__.py").touch()
    assert importable("opacus_of_nobody")


@pytest.mark.parametrize("extra", ["private", "pretrained", "tensorboard"])
def test_a_run_is_refused_before_anything_is_made(extra: Extra, tmp_path: Path) -> None:
    change, what = next(row[1:] for row in NEEDS if row[0] == extra)
    recipe = recipe_with(change, tmp_path / "tiny.yaml")
    arguments = ["-m", "medphantom", "run", str(recipe), "--out", "run", "--no-prefect"]
    done = run_without(PACKAGES[extra], arguments, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"medphantom: {refusal(extra, what)}"]
    assert not (tmp_path / "run").exists()


def test_an_onnx_classifier_is_refused_before_pairs_are_opened(tmp_path: Path) -> None:
    (tmp_path / "classifier.onnx").write_bytes(b"nonsense")
    arguments = ["-m", "medphantom", "rank", "classifier.onnx", "no_pairs", "--output", "0"]
    done = run_without(PACKAGES["onnx"], arguments, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"medphantom: {refusal('onnx', 'classifier.onnx')}"]


FACES = """
import json, sys
import medphantom as mp
from medphantom.core.errors import InputError


def said(verb, *arguments, **sections):
    try:
        verb(*arguments, **sections)
    except InputError as error:
        return str(error)


cohort, changes = sys.argv[1], json.loads(sys.argv[2])
found = []
for recipe, change in changes.items():
    if "generator" in change:
        verb = said(mp.train, cohort, "out", **change)
    else:
        verb = said(mp.assess, cohort, cohort, "out", **change)
    found.append([said(mp.run, recipe, out="run"), verb])
print(json.dumps(found))
"""


def test_every_face_refuses_every_field(cohort: mp.Cohort, tmp_path: Path) -> None:
    """``mp.run`` of a recipe, and ``mp.train`` or ``mp.assess`` with the section alone, say the same."""
    changes = {recipe_with(change, tmp_path / f"r{n}.yaml").name: change for n, (_, change, _) in enumerate(NEEDS)}
    done = run_without(ALL, ["-c", FACES, str(cohort.path), json.dumps(changes)], tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [refusal(extra, what.format(here=tmp_path)) for extra, _, what in NEEDS]
    assert json.loads(done.stdout) == [[line, line] for line in expected]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


def test_nothing_is_left_of_what_is_refused_for_a_bundle(folder: Path, cohort: mp.Cohort, tmp_path: Path) -> None:
    """Neither a plan, nor images that were read, nor a work folder."""
    for number in range(12):
        write_png(tmp_path / "files" / "bright" / f"{number}.png", noise(number))
    verbs = [
        ["generate", str(folder), "--count", "bright=2", "--out", "drawn", "--save-plan", "plan.jsonl"],
        ["assess", str(cohort.path), "files", "--bundle", str(folder), "--out", "scored"],
        ["augment", str(cohort.path), "--label", "bright", "--to", "900", "--bundle", str(folder), "--out", "more"],
    ]
    code = (
        "import json, os, sys\n"
        "from medphantom.flows.cli.main import main\n"
        "print([(main(verb), sorted(os.listdir())) for verb in json.loads(sys.argv[1])])"
    )
    done = run_without(PACKAGES["pretrained"], ["-c", code, json.dumps(verbs)], tmp_path)
    assert done.stdout.splitlines()[-1] == str([(2, ["files", "without"])] * 3)  # the latter blocks packages
    assert done.stderr.splitlines() == [f"medphantom: {refusal('pretrained', f'the bundle {folder}')}"] * 3


def test_help_and_ingestion_need_no_extra(tmp_path: Path) -> None:
    shown = run_without(ALL, ["-m", "medphantom", "--help"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "ingest" in shown.stdout
    for number in range(12):
        write_png(tmp_path / "files" / "a" / f"{number}.png", noise(number))
    arguments = ["-m", "medphantom", "ingest", "files", "--out", "cohort", "--public-phrase", "simulated patients"]
    done = run_without(ALL, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(mp.Cohort.open(tmp_path / "cohort")) == 12


@pytest.mark.slow
def test_training_and_generation_need_no_extra(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TRACKED)
    code = (
        "import sys, medphantom.quality.assessment.assess\n"
        "from medphantom.flows.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["-c", code, "run", "tiny.yaml", "--out", "run", "--until", "generate"]
    done = run_without(ALL, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(mp.Cohort.open(tmp_path / "run" / "synthetic")) == 24
    assert not list(tmp_path.rglob("tensorboard"))


@pytest.mark.slow
def test_a_whole_run_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TRACKED)
    done = run_without(ALL, ["-m", "medphantom", "run", "tiny.yaml", "--out", "run", "--no-prefect"], tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["name"] for row in report["quality"]["networks"]] == ["cross_fitted", "filters", "radiomics"]
