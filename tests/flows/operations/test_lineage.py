"""Withdrawal: everything trained on a patient is found, nothing else, and what is not known is reported."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingest import IngestResult
from medphantom.cohorts.private import LINKS_FILE, private_path
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.flows.cli.main import main
from medphantom.flows.operations.lineage import Lineage, lineage, traced
from tests.cohorts.files import KEY, structure, take_in, write_dicom, write_png


def patient_of(cohort: Cohort, split: str) -> tuple[str, str]:
    """Id and pseudonym of a patient of that split."""
    pseudonym = cohort.patients(cohort.rows(split))[0]
    links = pl.read_parquet(private_path(cohort.path) / LINKS_FILE)
    return links.filter(pl.col("patient") == pseudonym)["patient_id"][0], pseudonym


def kinds(found: Lineage) -> list[tuple[str, str]]:
    return [(trace.kind, trace.path.name) for trace in found.traces]


EVERYTHING = [
    ("cohort", "cohort"),
    ("bundle", "bundle"),
    ("synthetic", "synthetic"),
    ("export", "share"),
    ("report", "report.json"),
]


@pytest.fixture
def run(copy: Path) -> Path:
    folder = copy / "runs" / "tiny"
    export_cohort(Cohort.open(folder / "synthetic"), copy / "elsewhere" / "share")
    return folder


def test_a_training_patient_is_followed_to_everything_that_learned(run: Path, copy: Path) -> None:
    cohort = Cohort.open(run / "cohort")
    name, pseudonym = patient_of(cohort, "train")
    found = lineage(name, [copy])
    assert kinds(found) == EVERYTHING
    assert found.traces[0].part == f"{cohort.patients().count(pseudonym)} images in train"
    assert [trace.path for trace in found.traces if trace.retrain] == [run / "bundle"]
    total = cohort.patients().count(pseudonym)
    assert len(found.files) == total
    assert kinds(lineage(pseudonym, [copy])) == EVERYTHING
    assert kinds(lineage(name, [run / "cohort", copy / "elsewhere"])) == EVERYTHING[:1]  # the bundle lies elsewhere
    validated = lineage(patient_of(cohort, "val")[0], [copy])
    assert kinds(validated) == EVERYTHING
    assert "chose its weights" in validated.traces[1].part


def test_a_patient_that_no_network_learned_from_concerns_cohort_and_report(run: Path, copy: Path) -> None:
    cohort = Cohort.open(run / "cohort")
    for split in ("holdout", "test"):
        found = lineage(patient_of(cohort, split)[0], [copy])
        assert kinds(found) == [EVERYTHING[0], EVERYTHING[-1]]
        assert not any(trace.retrain for trace in found.traces)
    stranger = lineage("nobody", [copy])
    assert stranger.traces == ()
    assert stranger.untold == ()


def test_without_the_private_folder_the_key_decides_and_nothing_is_assumed(run: Path, copy: Path) -> None:
    name, _ = patient_of(Cohort.open(run / "cohort"), "train")
    shutil.rmtree(run / "cohort.private")
    untold = lineage(name, [copy])
    assert untold.traces == ()
    assert "its private folder is not beside it; give the key of its pseudonyms" in untold.untold[0]


def test_the_command_says_what_to_do_and_never_the_id(
    run: Path, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = patient_of(Cohort.open(run / "cohort"), "train")
    capsys.readouterr()
    assert main(["lineage", str(copy), "--patient", name]) == 0
    output = capsys.readouterr().out
    assert f"to train again: {run / 'bundle'}" in output
    assert "generate again" in output
    assert name not in output
    assert main(["lineage", "--patient", name, "--files"]) == 0
    assert "source file" in capsys.readouterr().out


def test_bad_input_gets_one_line(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no patient was named"):
        lineage(" ", [copy])
    with pytest.raises(InputError, match="is not a folder"):
        lineage("x", [tmp_path / "absent"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no cohort, bundle, export or report lies there"):
        lineage("x", [empty])
    (copy / "runs" / "tiny" / "bundle" / "bundle.json").write_text("{}")
    assert any("bundle" in line for line in lineage("x", [copy]).untold)


def test_a_picture_of_two_patients_is_found_by_either(tmp_path: Path) -> None:
    for number in range(10):
        write_png(tmp_path / "s" / f"P{number}" / "own.png", structure(number))
        write_png(tmp_path / "s" / f"P{number}" / "x.png", structure(100 + number // 2))
    result = take_in(tmp_path / "s", tmp_path / "c", folders="patients")
    assert any("5 exact duplicates belong to another patient" in warning for warning in result.warnings)
    found = lineage("P1", [tmp_path / "c"])
    assert found.files == ("P1/own.png", "P1/x.png")
    (trace,) = found.traces
    assert (
        sum(int(count) for count in re.findall(r"(\d+) images in", trace.part)) == 2
    )  # its own, and P0's copy of the other
    assert not found.untold


def test_what_cannot_be_known_is_reported(tmp_path: Path) -> None:
    for number in range(6):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        write_png(tmp_path / "t" / f"P{number}" / "a.png", structure(10 + number))
    take_in(tmp_path / "s", tmp_path / "nobody")
    known = take_in(tmp_path / "t", tmp_path / "known", folders="patients")
    found = traced("P3", [tmp_path / "nobody"], KEY)
    assert any("name no patient" in line for line in found.untold)
    shutil.rmtree(known.private_folder)
    found = traced("P3", [tmp_path / "known"], IdentityKey.from_phrase("another key"))
    assert any("its key may be another one" in line for line in found.untold)


def test_an_export_that_was_read_again_and_the_number_of_the_file_are_followed(tmp_path: Path) -> None:
    lines = ["file,patient_id"]
    for number in range(8):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=f"MRN{number}")
        lines.append(f"{number}.dcm,S{number}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    first = take_in(tmp_path / "s", tmp_path / "l" / "c")
    export_cohort(first.cohort, tmp_path / "l" / "x")
    take_in(tmp_path / "l" / "x", tmp_path / "l" / "c2")
    for name in ("S3", "MRN3"):
        found = {trace.path.name for trace in traced(name, [tmp_path / "l"], KEY).traces}
        assert found == {"c", "x", "c2"}


def exported_and_read_again(tmp_path: Path) -> tuple[IngestResult, IngestResult]:
    """``l/c``, its export ``l/x`` and ``l/c2`` that was read from it; five patients, ``H0`` to ``H4``."""
    for number in range(10):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=f"H{number // 2}")
    first = take_in(tmp_path / "s", tmp_path / "l" / "c")
    export_cohort(first.cohort, tmp_path / "l" / "x")
    return first, take_in(tmp_path / "l" / "x", tmp_path / "l" / "c2")


def take_away(first: IngestResult) -> None:
    shutil.rmtree(first.cohort.path)
    shutil.rmtree(first.private_folder)


def test_what_was_read_from_an_export_cannot_tell_without_the_original_or_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = exported_and_read_again(tmp_path)
    beside = lineage("nobody", [tmp_path / "l"])
    assert (beside.traces, beside.untold) == ((), ())
    _, pseudonym = patient_of(first.cohort, first.cohort.manifest["split"][0])
    take_away(first)
    found = lineage("H1", [tmp_path / "l"])
    assert found.traces == ()
    assert len(found.untold) == 2
    cohort, export = (next(line for line in found.untold if f"/{name}:" in line) for name in ("c2", "x"))
    assert "names pseudonyms alone; search the cohort that was exported" in cohort
    assert "give the key of these" in cohort
    assert "names pseudonyms alone; give the key of these, or search the cohort that was exported too" in export
    assert {trace.path.name for trace in traced("H1", [tmp_path / "l"], KEY).traces} == {"c2", "x"}
    assert {trace.path.name for trace in lineage(pseudonym, [tmp_path / "l"]).traces} == {"c2", "x"}
    stranger = traced("nobody", [tmp_path / "l"], IdentityKey.from_phrase("another key"))
    assert all("may be another one" in line for line in stranger.untold)
    assert len(stranger.untold) == 2
    assert main(["lineage", str(tmp_path / "l"), "--patient", "H1"]) == 0
    output = capsys.readouterr().out
    assert output.count("not known        ") == 2
    assert "0 know this patient, and of 2 it is not known" in output
    assert "to train again: nothing that is known" in output
    shutil.rmtree(second.private_folder)
    assert any("its private folder is not beside it" in line for line in lineage("H1", [tmp_path / "l"]).untold)


def test_the_table_of_an_export_alone_holds_a_pseudonym(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported_and_read_again(tmp_path)
    alone = tmp_path / "l" / "x"
    (trace,) = traced("H1", [alone], KEY).traces
    assert (trace.kind, trace.part) == ("export", "2 images of the patient, by pseudonym")
    assert main(["lineage", str(alone), "--patient", "H1", "--public-phrase", "tests"]) == 0
    assert "1 know this patient" in capsys.readouterr().out
    assert traced("nobody", [alone], KEY).untold  # it is not known whether it is that key
    (alone / "metadata.csv").unlink()
    (untold,) = traced("H1", [alone], KEY).untold
    assert "metadata.csv does not tell" in untold


def test_an_export_of_unknown_patients_cannot_tell(tmp_path: Path) -> None:
    for number in range(8):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    first = take_in(tmp_path / "s", tmp_path / "l" / "c")
    export_cohort(first.cohort, tmp_path / "l" / "x")
    take_in(tmp_path / "l" / "x", tmp_path / "l" / "c2")
    found = lineage("P1", [tmp_path / "l"])
    assert sorted(Path(line.split(":")[0]).name for line in found.untold) == ["c", "c2"]
    assert all("some of its images name no patient" in line for line in found.untold)
    assert not any("pseudonyms alone" in line for line in found.untold)  # the original says that nobody is named


def test_an_export_of_synthetic_images_is_found_by_its_bundle(run: Path, copy: Path) -> None:
    name, _ = patient_of(Cohort.open(run / "cohort"), "train")
    shutil.rmtree(run / "synthetic")
    assert kinds(lineage(name, [copy])) == EVERYTHING[:2] + EVERYTHING[3:]


def test_what_nobody_searched_for_is_no_all_clear(run: Path, copy: Path) -> None:
    name, _ = patient_of(Cohort.open(run / "cohort"), "train")
    (line,) = lineage(name, [run / "bundle"]).untold
    assert "the cohort that it learned from is not among the folders; search it too" in line
    for place in (run / "synthetic", copy / "elsewhere"):
        (line,) = lineage(name, [place]).untold
        assert "the bundle that it was drawn from is not among the folders; search it too" in line
    assert lineage("nobody", [run / "cohort", run / "bundle", run / "synthetic", copy / "elsewhere"]).untold == ()
