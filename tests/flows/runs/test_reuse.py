"""A second run re-does nothing, a changed setting only what it concerns, a killed run ends as if it had not been."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medphantom.core.folders import read_json
from medphantom.flows.cli.main import main
from medphantom.flows.runs.artifact import STAGES, RunFolder
from medphantom.flows.runs.job import open_job
from medphantom.generators.bundle import GeneratorBundle

RUN = ["run", "tiny.yaml", "--out", "runs/tiny", "--no-prefect"]


def digests(run: Path) -> dict[str, str]:
    return {stage: record.digest for stage, record in RunFolder(run).records().items()}


def finish_times(run: Path) -> dict[str, float]:
    return {stage: (run / record.output).stat().st_mtime for stage, record in RunFolder(run).records().items()}


def test_everything_of_a_run_is_in_its_folder(finished: Path) -> None:
    run = finished / "runs" / "tiny"
    expected = {"cohort", "bundle", "synthetic", "report.html", "report.public.html", "report.json", "run.json"}
    assert expected <= {path.name for path in run.iterdir()}
    assert {path.name for path in (finished / "runs").iterdir()} == {"tiny"}
    facts = read_json(run / "run.json")
    assert facts["recipe"]["sampler"]["steps"] == 2
    assert facts["digests"] == digests(run)
    assert set(facts["timings_s"]) == set(STAGES)
    assert {"torch", "monai", "medphantom", "python"} <= set(facts["versions"])
    assert facts["machine"]["cores"] >= 1
    assert str(finished) not in (run / "run.json").read_text()


UNCHANGED = """
import sys
from medphantom.flows.cli.main import main
status = main(sys.argv[1:])
print({name for name in ("torch", "prefect", "monai", "diffusers", "sklearn") if name in sys.modules})
sys.exit(status)
"""


def test_an_unchanged_run_does_nothing_and_loads_no_torch(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", UNCHANGED, "run", "tiny.yaml", "--out", "runs/tiny"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "set()"
    assert "nothing to do" in done.stdout
    assert done.stdout.count(": reused") == len(STAGES)
    assert f"report to open: {copy / 'runs' / 'tiny' / 'report.html'}" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("sampler.steps=1", {"generate", "assess", "report"}),
        ("plan.fresh=tonight", {"generate", "assess", "report"}),
        ("assess.seed=1", {"assess", "report"}),
        ("generator.denoiser_fit.learning_rate=1e-4", {"train", "generate", "assess", "report"}),
        ("cohort.options.min_side=16", {"ingest", "train", "generate", "assess", "report"}),
        ("cohort.options.workers=1", set()),
    ],
)
def test_what_a_changed_setting_concerns(copy: Path, setting: str, again: set[str]) -> None:
    del copy
    job = open_job("tiny.yaml", [setting], "runs/tiny")
    _, to_do = job.outlook()
    assert set(to_do) == again


def test_a_changed_sampler_generates_and_scores_again_but_keeps_the_bundle(copy: Path) -> None:
    run = copy / "runs" / "tiny"
    before, times = digests(run), finish_times(run)
    assert main([*RUN, "--set", "sampler.steps=1"]) == 0
    after = digests(run)
    assert {stage for stage in after if after[stage] != before[stage]} == {"generate", "assess", "report"}
    assert finish_times(run)["train"] == times["train"]
    assert read_json(run / "run.json")["recipe"]["sampler"]["steps"] == 1
    assert main([*RUN]) == 0  # and back: the same images as before
    assert digests(run)["generate"] == before["generate"]


def test_a_touched_source_is_read_again_but_not_learned_again(copy: Path) -> None:
    (copy / "own.yaml").write_text(
        (copy / "tiny.yaml").read_text().replace("simulate: {patients: 60, size: 64, seed: 3}", "source: images")
    )
    (copy / "runs" / "tiny" / "phantoms").rename(copy / "images")
    own = ["own.yaml", [f"cohort.key_file={copy / 'id.key'}"], copy / "runs" / "own"]
    job = open_job(*own)  # type: ignore[arg-type]  # mixed on purpose
    assert job.outlook()[1] == ("ingest", "train", "generate", "assess", "report")
    key = job.key("ingest", {})
    os.utime(next((copy / "images").rglob("*.dcm")), ns=(1, 1))
    assert job.key("ingest", {}) != key


@pytest.mark.slow
def test_a_run_killed_while_it_trains_ends_as_if_it_had_not_been(finished: Path, copy: Path) -> None:
    run = copy / "runs" / "tiny"
    for made in ("bundle", "synthetic", "work"):
        shutil.rmtree(run / made)
    command = [sys.executable, "-m", "medphantom.flows.cli.main", *RUN, "--until", "generate"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not any((run / "work" / "train").glob("denoiser-*/checkpoints/*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "bundle").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    expected = digests(finished / "runs" / "tiny")
    found = digests(run)
    assert {stage: found[stage] for stage in ("ingest", "train", "generate")} == {
        stage: expected[stage] for stage in ("ingest", "train", "generate")
    }
    made = {name: read_json(run / "bundle" / name) for name in ("bundle.json", "training.json")}
    assert made == {name: read_json(finished / "runs" / "tiny" / "bundle" / name) for name in made}


def test_nothing_private_in_what_may_be_shared(finished: Path) -> None:
    run = finished / "runs" / "tiny"
    names = {line.split(",")[1] for line in (run / "phantoms" / "metadata.csv").read_text().splitlines()[1:]}
    assert len(names) == 60
    for file in ("run.json", "report.json", "report.public.html", ".stages.json"):
        text = (run / file).read_text()
        assert not [name for name in names if name in text]


def test_altered_weights_are_not_reused(copy: Path) -> None:
    file = copy / "runs" / "tiny" / "bundle" / "denoiser" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    assert main(["run", "tiny.yaml", "--no-prefect"]) == 0
    assert file.read_bytes() == whole


def test_another_bundle_or_cohort_than_the_one_of_the_run_is_not_verified(
    copy: Path, one_line: Callable[..., str]
) -> None:
    run = copy / "runs" / "tiny"
    bundle = GeneratorBundle.load(run / "bundle")
    other = dataclasses.replace(bundle, facts=bundle.facts.model_copy(update={"intended_use": "anything"}))
    shutil.rmtree(run / "bundle")
    other.save(run / "bundle")
    assert main(["verify", str(run / "bundle")]) == 0
    assert "bundle is not the one that the run made; run the recipe again" in one_line("verify", run)


def test_a_changed_claim_of_the_same_length_is_not_reused(copy: Path) -> None:
    file = copy / "runs" / "tiny" / "bundle" / "bundle.json"
    text = file.read_text()
    file.write_text(text.replace("no formal guarantee", "(1, 0)-differential"))
    assert len(file.read_text()) == len(text)
    assert main(["run", "tiny.yaml", "--no-prefect"]) == 0
    assert file.read_text() == text


@pytest.mark.parametrize("name", ["report.json", "report.public.html", "report.html"])
def test_an_edited_report_is_neither_verified_nor_compared(copy: Path, name: str, one_line: Callable[..., str]) -> None:
    """The two files that leave the house report what the gate found, and no more may be claimed."""
    run = copy / "runs" / "tiny"
    assert main(["verify", str(run)]) == 0
    shutil.copytree(run, copy / "runs" / "other")
    edited = (run / name).read_text().replace("inconclusive", "screened", 1)
    assert edited != (run / name).read_text()
    (run / name).write_text(edited)
    assert f"{run / name} is missing or was altered" in one_line("verify", run)
    if name == "report.json":
        assert "is not as its run wrote it" in one_line("compare", run, copy / "runs" / "other", "--out", copy / "out")
    assert main(["run", "tiny.yaml", "--no-prefect"]) == 0
    assert (run / name).read_text() != edited
    assert main(["verify", str(run)]) == 0
