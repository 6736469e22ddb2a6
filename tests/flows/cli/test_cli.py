"""The verbs on explicit folders, one after the other, and how little they load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medphantom.cohorts.store import Cohort
from medphantom.flows.cli.main import app, main
from medphantom.flows.recipes.plans import counts_of, plan_flags
from medphantom.generators.facts import read_facts
from medphantom.quality.report.write import PublishedReport
from tests.cohorts.files import structure, write_png

HEAVY = ("torch", "monai", "diffusers", "transformers", "prefect", "sklearn", "matplotlib")


def loaded_by(program: str, *arguments: str) -> set[str]:
    watched = (*HEAVY, "numpy", "polars")
    code = f"import sys\n{program}\nprint('LOADED', *[name for name in {watched!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_command_line_itself_loads_nothing_heavy() -> None:
    assert loaded_by("import medphantom.flows.cli.main") == set()


def test_the_module_runs_as_the_command_does() -> None:
    command = [sys.executable, "-m", "medphantom", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("medphantom ")


def test_reading_images_and_recipes_loads_no_network(tmp_path: Path) -> None:
    ingest = "from medphantom.flows.cli.main import main\nassert main(sys.argv[1:]) == 0"
    (tmp_path / "source" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "source" / "a" / f"{number}.png")
    arguments = ["ingest", str(tmp_path / "source"), "--out", str(tmp_path / "cohort"), "--public-phrase", "x"]
    assert not loaded_by(ingest, *arguments) & set(HEAVY)
    assert not loaded_by(
        "import medphantom.flows.orchestration.stages, medphantom.flows.runs.costs, "
        "medphantom.flows.operations.summaries, "
        "medphantom.flows.orchestration.serve_flow"
    ) & set(HEAVY)


@pytest.mark.parametrize("command", sorted(c.callback.__name__ for c in app.registered_commands if c.callback))
def test_every_verb_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: medphantom" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "generate"])
def test_help_says_that_a_base_that_ships_may_be_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "base:NAME" in capsys.readouterr().out


def test_pictures_of_simulated_patients_have_the_bits_that_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bits in (8, 16):
        wanted = ["--format", "png", "--patients", "1", "--size", "32", "--bit-depth", str(bits)]
        assert main(["phantom", "--out", str(tmp_path / str(bits)), *wanted]) == 0
        with Image.open(next((tmp_path / str(bits) / "images").rglob("*.png"))) as picture:
            assert picture.mode == ("L" if bits == 8 else "I;16")


def test_from_files_to_files_verb_by_verb(
    copy: Path, one_line: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["--recipe", "tiny.yaml"]
    run = copy / "runs" / "tiny"
    assert main(["ingest", str(run / "phantoms"), "--out", "cohort", "--public-phrase", "simulated patients"]) == 0
    assert Cohort.open("cohort").digest == Cohort.open(run / "cohort").digest

    assert main(["train", "cohort", "--out", "bundle", *recipe]) == 0
    assert read_facts("bundle")[1] == read_facts(run / "bundle")[1]  # the same bits as in the flow
    assert not list(copy.glob("*.work"))
    assert "exists already" in one_line("train", "cohort", "--out", "bundle", *recipe)

    plan = ["--count", "effusion=5", "--count", "no finding=2", "--seed", "4", "--set", "sampler.steps=2"]
    assert main(["generate", "bundle", "--out", "whole", *plan]) == 0
    # the first part makes the plan, which holds the others too
    first = ["generate", "bundle", "--out", "part0", *plan, "--save-plan", "plan.jsonl", "--shard", "0/2"]
    assert main(first) == 0
    second = ["generate", "bundle", "--out", "part1", "--plan", "plan.jsonl", "--shard", "1/2"]
    assert main([*second, "--set", "sampler.steps=2"]) == 0
    capsys.readouterr()
    assert main(["merge", "part1", "--out", "half"]) == 0
    assert "4 images of the plan are in none of the parts: is a shard missing?" in capsys.readouterr().out
    assert main(["merge", "part0", "part1", "--out", "merged"]) == 0
    assert "in none of the parts" not in capsys.readouterr().out
    assert Cohort.open("merged").digest == Cohort.open("whole").digest
    whole = Cohort.open("whole")
    assert whole.labels()[:, whole.schema.labels.index("effusion")].tolist() == [1] * 5 + [0] * 2

    capsys.readouterr()
    assert main(["assess", "cohort", str(run / "synthetic"), "--out", "report", "--bundle", "bundle", *recipe]) == 0
    output = capsys.readouterr().out
    assert "privacy gate: " in output
    assert "report.public.html" in output
    assert PublishedReport.load(copy / "report" / "report.json").quality.synthetic_count == 24

    assert main(["export", "whole", "--format", "png", "--layout", "table", "--out", "files"]) == 0
    table = pl.read_csv(copy / "files" / "metadata.csv")
    assert len(table) == 7
    assert main(["verify", str(run)]) == 0
    assert main(["verify", "whole"]) == 0


def test_inspect_shows_counts_and_what_a_network_sees(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = Cohort.open(copy / "runs" / "tiny" / "cohort")
    assert main(["inspect", str(cohort.path), "--size", "32", "--images", "6", "--out", "sheet.png"]) == 0
    output = capsys.readouterr().out
    for split in ("train", "val", "holdout", "test"):
        patients = len(set(cohort.patients(cohort.rows(split))))
        expected = [split, str(len(cohort.rows(split))), str(patients)]
        assert expected in [line.split()[:3] for line in output.splitlines()]
    assert "a network sees 32×32 pixels" in output
    sheet = np.asarray(Image.open(copy / "sheet.png"))
    assert sheet.std() > 10


def test_the_sheet_does_not_go_into_the_cohort(copy: Path, one_line: Callable[..., str]) -> None:
    cohort = copy / "runs" / "tiny" / "cohort"
    assert "must stay as it is" in one_line("inspect", cohort, "--out", cohort / "sheet.png")


def test_plan_flags() -> None:
    assert plan_flags(counts_of(["a=b=2", "c=1"]), None, None, 3) == {
        "plan": {"kind": "counts", "counts": {"a=b": 2, "c": 1}, "seed": 3}
    }
    assert plan_flags(None, 5, None, None) == {"plan": {"kind": "match", "total": 5}}
    assert plan_flags(None, None, None, None) == {}


def test_schema_is_printed_and_init_makes_a_recipe_that_runs_are_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medphantom.flows.recipes.recipe import load_recipe

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["properties"]["sampler"]["description"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    assert main(["init", "first.yaml"]) == 0
    assert load_recipe("first.yaml").recipe.name == "first"


def test_ingestion_ends_with_what_it_understood_and_inspect_lists_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,patient_id,findings,age"]
    for number in range(12):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,p{number},{'肺炎' if number < 6 else '正常'},{'90+' if number == 1 else 40}")
    lines.append("broken.png,p20,肺炎,40")
    (tmp_path / "s" / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "s" / "broken.png").write_bytes((tmp_path / "s" / "3.png").read_bytes()[:200])
    command = ["ingest", str(tmp_path / "s"), "--out", str(tmp_path / "c"), "--public-phrase", "x"]
    assert main(command) == 0
    output = capsys.readouterr().out
    for line in ("table labels.csv: 13 rows", "patients: 13 images by the table", "labels: ", "splits: by keyed hash"):
        assert line in output
    assert "left out: 1 truncated (medphantom inspect --rejected lists them)" in output
    assert "p3" not in output
    assert main(["inspect", str(tmp_path / "c"), "--rejected"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:2] == ["truncated", "broken.png:"]
