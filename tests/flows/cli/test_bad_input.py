"""Bad input: one line that says what, where and what to do; exit status 2; nothing half-written."""

from __future__ import annotations

import csv
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.flows.cli.main import app, main
from medphantom.flows.operations.assess import score
from medphantom.flows.recipes.settings import AssessPart, read_part

OneLine = Callable[..., str]


def pictures(folder: Path, total: int = 24, side: int = 32) -> Path:
    """Random pictures in two folders, which are their classes."""
    rng = np.random.default_rng(0)
    for number in range(total):
        place = folder / ("a" if number % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side), dtype=np.uint8)).save(place / f"{number}.png")
    return folder


def nothing_new(folder: Path) -> bool:
    """Whether a folder holds nothing but what the test put there."""
    return not [path for path in folder.iterdir() if path.name not in {"source", "outside", "recipe.yaml"}]


def test_empty_folder(tmp_path: Path, one_line: OneLine) -> None:
    (tmp_path / "source").mkdir()
    line = one_line("ingest", tmp_path / "source", "--out", tmp_path / "cohort", "--public-phrase", "x")
    assert "holds no files" in line
    assert str(tmp_path / "source") in line
    assert nothing_new(tmp_path)


def test_missing_folder(tmp_path: Path, one_line: OneLine) -> None:
    line = one_line("ingest", tmp_path / "sauce", "--out", tmp_path / "cohort", "--public-phrase", "x")
    assert "sauce does not exist" in line


def test_no_such_column(tmp_path: Path, one_line: OneLine) -> None:
    source = pictures(tmp_path / "source")
    with (source / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "findings"], ["a/1.png", "x"], ["b/0.png", "y"]])
    line = one_line(
        "ingest", source, "--out", tmp_path / "cohort", "--public-phrase", "x",
        "--table", "table.csv", "--label-column", "diagnosis",
    )  # fmt: skip
    assert "no column 'diagnosis'" in line
    assert "findings" in line  # what it has
    assert nothing_new(tmp_path)


def test_image_too_small(tmp_path: Path, one_line: OneLine) -> None:
    source = pictures(tmp_path / "source", side=4)
    line = one_line("ingest", source, "--out", tmp_path / "cohort", "--public-phrase", "x", "--folders", "classes")
    assert "too_small" in line
    assert nothing_new(tmp_path)


def test_nan_pixels(tmp_path: Path, one_line: OneLine) -> None:
    import nibabel

    (tmp_path / "source").mkdir()
    volume = np.full((12, 12, 12), np.nan, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "source" / "a.nii.gz")
    line = one_line("ingest", tmp_path / "source", "--out", tmp_path / "cohort", "--public-phrase", "x")
    assert "not_finite" in line
    assert nothing_new(tmp_path)


class Bomb:
    """Pickled, it writes a file when it is read back."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.file,))


def test_an_archive_that_smuggles_pickle(tmp_path: Path, one_line: OneLine) -> None:
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source" / "data.npz", train_images=np.array([Bomb(tmp_path / "bang")], dtype=object))
    line = one_line("ingest", tmp_path / "source" / "data.npz", "--out", tmp_path / "cohort", "--public-phrase", "x")
    assert "pickle" in line
    assert nothing_new(tmp_path)


@pytest.mark.parametrize("way", ["link", "mask column"])
def test_paths_that_leave_the_source(tmp_path: Path, one_line: OneLine, way: str) -> None:
    source = pictures(tmp_path / "source")
    pictures(tmp_path / "outside")
    flags = ["--strict", "--folders", "classes"]
    if way == "link":
        (source / "a" / "link.png").symlink_to(tmp_path / "outside" / "a" / "1.png")
    else:
        with (source / "table.csv").open("w", newline="") as stream:
            rows = [[f"{'a' if n % 2 else 'b'}/{n}.png", "x", "../outside/a/1.png"] for n in range(24)]
            csv.writer(stream).writerows([["image", "findings", "mask"], *rows])
        flags += ["--table", "table.csv", "--set", "cohort.options.mask_column=mask"]
    line = one_line("ingest", source, "--out", tmp_path / "cohort", "--public-phrase", "x", *flags)
    assert "outside" in line or "leaves" in line
    assert str(tmp_path / "outside") not in line
    assert nothing_new(tmp_path)


def test_an_archive_whose_members_leave_it(tmp_path: Path, one_line: OneLine) -> None:
    (tmp_path / "source").mkdir()
    with zipfile.ZipFile(tmp_path / "source" / "data.npz", "w") as archive:
        archive.writestr("../../escaped.npy", b"\x93NUMPY")
    one_line("ingest", tmp_path / "source" / "data.npz", "--out", tmp_path / "cohort", "--public-phrase", "x")
    assert nothing_new(tmp_path)


def test_cohort_that_exists(tmp_path: Path, one_line: OneLine) -> None:
    source = pictures(tmp_path / "source")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "mine.txt").write_text("keep")
    line = one_line("ingest", source, "--out", tmp_path / "cohort", "--public-phrase", "x")
    assert "exists already" in line
    assert [path.name for path in (tmp_path / "cohort").iterdir()] == ["mine.txt"]


FULL_DISK = """
import resource, signal, sys
from medphantom.flows.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.exit(main(sys.argv[1:]))
"""


def test_disk_that_fills_up_while_writing(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", total=64)
    command = ["ingest", str(source), "--out", str(tmp_path / "cohort"), "--public-phrase", "x", "--workers", "0"]
    command += ["--folders", "classes"]
    done = subprocess.run([sys.executable, "-c", FULL_DISK, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "is full" in done.stderr
    assert nothing_new(tmp_path)


def test_disk_that_cannot_hold_the_run(copy: Path, one_line: OneLine) -> None:
    line = one_line("run", "tiny.yaml", "--out", "runs/tiny", "--no-prefect", "--set", "plan.total=1000000000000")
    assert "the run needs about" in line
    assert "of disk" in line
    assert (copy / "runs" / "tiny" / "report.html").is_file()


def test_label_unknown_to_the_schema(copy: Path, one_line: OneLine) -> None:
    bundle = copy / "runs" / "tiny" / "bundle"
    line = one_line("generate", bundle, "--out", copy / "made", "--count", "efusion=3")
    assert "'efusion' is unknown" in line
    assert "did you mean 'effusion'" in line
    assert not list(copy.glob("made*"))


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--count", "effusion"], "expected LABEL=N"),
        (["--count", "effusion=3", "--match", "2"], "are mutually exclusive"),
        (["--count", "effusion=3", "--count", "effusion=2"], "--count effusion is given twice; give one number"),
        (["--match", "2"], "needs the real cohort"),
        (
            ["--count", "effusion=3", "--set", "plan.total=9"],
            "plan.total is no field where plan.kind is counts; leave it out, or choose another kind",
        ),
        (["--count", "effusion=3", "--shard", "4/4"], "0 ≤ index < total"),
        (["--count", "effusion=3", "--set", "sampler.steps=0"], "sampler.steps must be ≥ 1, got 0"),
    ],
)
def test_plans_that_cannot_be(copy: Path, one_line: OneLine, flags: list[str], text: str) -> None:
    assert text in one_line("generate", copy / "runs" / "tiny" / "bundle", "--out", copy / "made", *flags)
    assert not list(copy.glob("made*"))


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["--set", "efusion=absent"],
            "'efusion' is a factor that this generator was not trained on; did you mean 'effusion'?",
        ),
        (["--set", "effusion"], "expected NAME=VALUE"),
        (["--set", "effusion=absent", "--split", "tset"], "--split tset is no split"),
        (["--set", "effusion=absent", "--method", "magic"], "counterfactual: method must be one of"),
        (["--set", "effusion=absent", "--strength", "2"], "strength must be ≤ 1"),
        (["--set", "effusion=absent", "--set", "effusion=present"], "effusion is given twice; give each name once"),
        (
            ["--set", "effusion=absent", "--drift", ".1"],
            "counterfactual: drift has an effect with method latent_drifting only, and method is inversion",
        ),
        (
            ["--set", "effusion=absent", "--method", "sdedit", "--locality", ".3"],
            "counterfactual: locality has an effect with methods inversion and latent_drifting only, and method is",
        ),
    ],
)
def test_counterfactuals_that_cannot_be(copy: Path, one_line: OneLine, flags: list[str], text: str) -> None:
    run = copy / "runs" / "tiny"
    assert text in one_line("counterfactual", run / "bundle", run / "cohort", "--out", copy / "pairs", *flags)
    assert not list(copy.glob("pairs*"))


def test_pairs_are_scored_as_pairs_and_never_as_synthetic_images(copy: Path, one_line: OneLine) -> None:
    run = copy / "runs" / "tiny"
    options = ["--set", "effusion=absent", "--limit", "2", "--steps", "3", "--split", "train"]
    made = ["counterfactual", run / "bundle", run / "cohort", "--out", copy / "pairs", *options]
    assert main([str(argument) for argument in made]) == 0
    scored = ["assess", run / "cohort", copy / "pairs", "--out", copy / "s"]
    assert "scored as their generator saw them" in one_line(*scored, "--size", "32")
    assert "is no real cohort" in one_line("assess", run / "synthetic", copy / "pairs", "--out", copy / "s")
    assert main([str(argument) for argument in scored] + ["--set", "assess.classifier.steps=2"]) == 0
    assert sorted(path.name for path in (copy / "s").iterdir()) == ["report.html", "report.json"]
    part = read_part(AssessPart, None, [])
    with pytest.raises(InputError, match="edits of real patients' images"):
        score(
            Cohort.open(run / "cohort"),
            Cohort.open(copy / "pairs"),
            Preprocess(size=(32, 32)),
            part.assess,
            work=copy / "t",
        )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["own.pt", "runs/tiny/cohort", "--output", "0"], "own.pt is no TorchScript file; save it with torch.jit.save"),
        (["none.pt", "runs/tiny/cohort", "--output", "0"], "none.pt does not exist"),
        (["own.pt", "runs/tiny/cohort", "--output", "0", "--range", "1,0"], "--range must be LOW,HIGH, got '1,0'"),
        (["own.pt", "runs/tiny/cohort", "--output", "0", "--range", "-1,1,2"], "--range must be LOW,HIGH"),
        (
            ["own.pt", "runs/tiny/cohort", "--output", "0", "--channels", "2"],
            "takes.channels must be one of 1, 3, got 2",
        ),
        (["own.pt", "runs/tiny/cohort", "--output", "0", "--out", "tiny.yaml"], "tiny.yaml exists already"),
        (["own.pt", "runs/tiny", "--output", "0"], "runs/tiny"),
    ],
)
def test_rankings_that_cannot_be(copy: Path, one_line: OneLine, arguments: list[str], text: str) -> None:
    (copy / "own.pt").write_bytes(pickle.dumps({}))
    assert text in one_line("rank", *arguments)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "missing", "unfinished"])
def test_a_bundle_that_cannot_be_trusted(copy: Path, one_line: OneLine, damage: str) -> None:
    bundle = copy / "runs" / "tiny" / "bundle"
    weights = next(bundle.rglob("*.safetensors"))
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "pickle":
        weights.unlink()
        weights.with_suffix(".bin").write_bytes(pickle.dumps(Bomb(copy / "bang")))
    elif damage == "missing":
        weights.unlink()
    else:
        (bundle / "digest.json").unlink()
    line = one_line("generate", bundle, "--out", copy / "made", "--count", "effusion=3")
    assert str(bundle) in line
    assert not (copy / "bang").exists()
    assert not list(copy.glob("made*"))


@pytest.mark.parametrize("damage", ["truncated manifest", "altered pixels", "no digest"])
def test_a_cohort_that_cannot_be_trusted(copy: Path, one_line: OneLine, damage: str) -> None:
    cohort = copy / "runs" / "tiny" / "synthetic"
    if damage == "truncated manifest":
        (cohort / "manifest.parquet").write_bytes(b"PAR1")
    elif damage == "altered pixels":
        chunk = next(path for path in (cohort / "arrays.zarr").rglob("c/*/*/*") if path.is_file())
        chunk.unlink()
    else:
        (cohort / "digest.json").unlink()
    assert str(cohort) in one_line("verify", cohort)


def test_the_list_of_rejected_files_takes_no_option_of_the_sheet(copy: Path, one_line: OneLine) -> None:
    options = {"--out": "xx.txt", "--size": "-3", "--images": "0", "--split": "nonsense", "--seed": "2"}
    options |= {"--recipe": "tiny.yaml", "--set": "preprocess.fit=pad"}
    command = ["inspect", "runs/tiny/cohort", "--rejected"]
    assert main(command) == 0
    for name, value in options.items():
        line = one_line(*command, name, value)
        assert line == f"medphantom: {name} has no effect with --rejected, which draws no sheet; leave it out"
    line = one_line(*command, *(word for pair in options.items() for word in pair))
    assert f"{', '.join(options)} have no effect with --rejected" in line


def test_an_image_size_that_the_networks_cannot_halve(copy: Path, one_line: OneLine) -> None:
    line = one_line("train", copy / "runs" / "tiny" / "cohort", "--out", copy / "bundle", "--size", "30")
    assert "preprocess.size" in line
    assert "divisible" in line
    assert not (copy / "bundle").exists()


def test_recipe_with_a_wrong_field(tmp_path: Path, one_line: OneLine) -> None:
    (tmp_path / "recipe.yaml").write_text("cohort: {simulate: {patients: 3}}\nsampler: {stepz: 3}\n")
    line = one_line("run", tmp_path / "recipe.yaml", "--out", tmp_path / "runs" / "x")
    assert "recipe.yaml: sampler.stepz is no field; did you mean 'steps'?" in line
    assert nothing_new(tmp_path)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument"),
        (["run", "a.yaml", "--sett", "x=1"], "No such option"),
        (["run", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["verify", "."], "no cohort, bundle or run folder"),
        (["inspect", "nowhere"], "nowhere is not a folder"),
        (["phantom", "--out", "p", "--format", "png", "--spatial-dims", "3"], "png cannot hold 3-D"),
        (["phantom", "--out", "p", "--patients", "0"], "patients"),
        (["export", "nowhere", "--out", "e"], "nowhere is not a folder"),
    ],
)
def test_commands_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: OneLine, command: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert text in one_line(*command)
    assert nothing_new(tmp_path)


def command_of_paths() -> Iterator[Any]:
    """Each path of each verb, left empty in a command that is whole otherwise."""
    for verb, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        hints = get_type_hints(command.callback)
        paths = {name for name, hint in hints.items() if "pathlib.Path" in str(hint)}
        for empty in sorted(paths):
            words = [verb]
            for parameter in command.params:
                flag, value = parameter.opts[0], "" if parameter.name == empty else "1"
                if parameter.required or parameter.name == empty:
                    words += [flag, value] if flag.startswith("--") else [value]
            if verb == "assess" and empty == "synthetic":
                words.insert(1, "cohort")  # which stands before it
            yield pytest.param(empty, words, id=f"{verb} {empty}")


@pytest.mark.parametrize(("name", "words"), list(command_of_paths()))
def test_an_empty_path_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: OneLine, name: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = {"plan_file": "plan", "real_flag": "real", "synthetic_flag": "synthetic"}.get(name, name).replace("_", "-")
    assert one_line(*words) == f"medphantom: {said} is empty; give a path"
    assert nothing_new(tmp_path)


def test_an_empty_path_of_many_or_in_a_recipe_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: OneLine
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "source")
    out = ["--out", "new", "--public-phrase", "x"]
    assert "parts is empty; give a path" in one_line("merge", "source", "", "--out", "new")
    assert "external is empty; give a path" in one_line(
        "utility", "source", "--external", "source", "--external=", "--out", "new"
    )
    for option in ("table", "masks"):
        line = one_line("ingest", "source", *out, f"--{option}", "")
        assert line == f"medphantom: {option} is empty; give a path, or leave it out"
        line = one_line("ingest", "source", *out, "--set", f"cohort.options.{option}=''")
        assert f"cohort.options.{option} is empty; give a path, or leave it out" in line
    (tmp_path / "recipe.yaml").write_text("cohort: {source: ''}\n")
    line = one_line("run", "recipe.yaml", "--out", "new", "--no-prefect")
    assert line == "medphantom: recipe.yaml: cohort.source is empty; give a path, or leave it out"
    assert nothing_new(tmp_path)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--cron", "0 2 * *"], "--cron '0 2 * *' is no schedule"),
        (["--cron", "99 2 * * *"], "is no schedule"),
        (["--cron", "0 2 * * *", "--timezone", "Mars/Olympus"], "--timezone 'Mars/Olympus' is unknown"),
        ([], "either --cron or --every"),
        (["--cron", "0 2 * * *", "--every", "6h"], "either --cron or --every"),
        (["--every", "often"], "--every must be ≥ 5s"),
        (["--every", "1s"], "--every must be ≥ 5s"),
    ],
)
def test_schedules_that_cannot_be(tmp_path: Path, one_line: OneLine, flags: list[str], text: str) -> None:
    (tmp_path / "recipe.yaml").write_text("cohort: {simulate: {patients: 3}}\n")
    assert text in one_line("serve", tmp_path / "recipe.yaml", "--out", tmp_path / "runs" / "x", *flags)
    assert nothing_new(tmp_path)


def test_init_keeps_what_is_there(tmp_path: Path, one_line: OneLine) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    assert "exists already" in one_line("init", tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        (signal.SIGINT, 130, "medphantom: interrupted; the same command begins anew\n"),
        (signal.SIGTERM, 143, "medphantom: ended by SIGTERM; the same command begins anew\n"),
    ],
)
def test_an_interrupt_is_one_line_and_leaves_nothing_half(
    tmp_path: Path, how: signal.Signals, status: int, line: str
) -> None:
    command = [
        sys.executable,
        "-m",
        "medphantom.flows.cli.main",
        "phantom",
        "--out",
        str(tmp_path / "p"),
        "--patients",
        "4000",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "simulating" in process.stdout.readline()
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (status, line)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_one_line_without_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medphantom.flows.cli.main import main

    def broken(path: object) -> Cohort:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr(Cohort, "open", broken)
    assert main(["inspect", str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert errors == "medphantom: unexpected ValueError; --debug shows details, which may quote source files\n"
    with pytest.raises(ValueError, match="Doe"):
        main(["--debug", "inspect", str(tmp_path)])
