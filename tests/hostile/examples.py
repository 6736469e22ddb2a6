"""Valid small examples of every kind of file that we read, and the commands that read them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
from PIL import Image

from cohorts.folders import DIGEST_FILE, file_digest
from cohorts.preprocess import Preprocess
from conditioning.plan import plan_prompts
from conditioning.prompt import Prompt
from flows.cli import main
from generators.train import train_generator
from learning.fit_config import FitConfig
from tests.cohorts.files import write_dicom
from tests.generators.tiny import SIDE, make_cohort, tiny_config
from tests.quality.test_report import _write as write_made_up_report

CANARY = "ZZSECRETZZ"  # stands for what must never be in a message
IMAGES = 8
OUT = "out/made"

RECIPE = """\
name: tiny
cohort:
  source: source
  public_phrase: hostile
  options:
    workers: 0
    folders: ignore
    table: table.csv
    patient_column: patient
    label_columns: [finding]
    attributes: ["age:continuous", "sex:categorical"]
    mask_column: mask
    min_patients: 1
    mask_values: {0: background, 255: thing}
preprocess: {size: [16, 16], intensity: {kind: percentile, low: 0.5, high: 99.5}}
generator: {denoiser_fit: {steps: 3}, threads: 1}
plan: {kind: counts, counts: {bright: 1}}
sampler: {steps: 2, guidance: 1.5}
"""
INGEST = ("--public-phrase", "x", "--workers", "0", "--out", OUT)
PLAIN = ("--folders", "ignore", "--table", "none", *INGEST)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: for tables.
        files: which of the examples, as patterns.
        form: how they are changed, as of :func:`tests.hostile.mutations.mutated`.
        commands: that read them.
        weight: how often it comes.
        sign: makes the digests of a folder fit again, so that a change is met by what lies behind them.
    """

    name: str
    files: tuple[str, ...]
    form: str
    commands: tuple[tuple[str, ...], ...]
    weight: int = 4
    sign: Callable[[Path], None] | None = None


def _sign_bundle(root: Path) -> None:
    folder = root / "bundle"
    facts = json.loads((folder / DIGEST_FILE).read_text())
    facts["files"] = {name: file_digest(folder / name) for name in facts["files"]}
    (folder / DIGEST_FILE).write_text(json.dumps(facts))


COHORT = (
    ("verify", "real"),
    ("inspect", "real", "--out", "out/sheet.png", "--images", "1", "--size", "16"),
    ("export", "real", "--out", OUT),
    ("generate", "bundle", "--cohort", "real", "--match", "1", "--out", OUT, "--set", "sampler.steps=1"),
    ("lineage", "real", "--patient", "p0001"),
    (
        "counterfactual",
        "bundle",
        "real",
        "--set",
        "bright=present",
        "--split",
        "train",
        "--limit",
        "1",
        "--steps",
        "2",
        "--out",
        OUT,
    ),
)
SYNTHETIC = (
    ("verify", "synthetic"),
    ("export", "synthetic", "--out", OUT),
    ("merge", "synthetic", "--out", OUT),
    ("lineage", "synthetic", "bundle", "--patient", "p0001"),
)
QUICK = COHORT[:1] * 6 + COHORT[1:2] + COHORT[4:5] * 3
RUN = ("run", "recipe.yaml", "--out", OUT, "--no-prefect", "--until", "ingest")
GENERATE = ("generate", "bundle", "--out", OUT, "--set", "sampler.steps=1")

KINDS = (
    Kind(
        "recipe",
        ("recipe.yaml",),
        "yaml",
        (RUN,),
        14,
    ),
    Kind(
        "part of a recipe",
        ("recipe.yaml",),
        "yaml",
        (
            ("inspect", "real", "--recipe", "recipe.yaml", "--images", "1", "--out", "out/sheet.png"),
            (*GENERATE, "--recipe", "recipe.yaml", "--count", "bright=1"),
        ),
        3,
    ),
    Kind(
        "setting",
        (),
        "yaml",
        (
            (*RUN, "--set", "@cohort.options.table=table.csv"),
            (*RUN, "--set", "@cohort.source=source"),
            (*RUN, "--set", "@plan={kind: match, total: 3}"),
            ("inspect", "real", "--images", "1", "--out", "out/sheet.png", "--set", "@preprocess.size=[16, 16]"),
            ("verify", "@real"),
            ("lineage", "real", "--patient", "@p0001"),
            ("lineage", "real", "--patient", "p0001", "--key-file", "@key.txt"),
            ("ingest", "source", *INGEST, "--table", "@table.csv", "--folders", "ignore"),
            ("ingest", "@source", *PLAIN),
            ("export", "synthetic", "--out", "@out/made"),
        ),
        8,
    ),
    Kind(
        "name of a file",
        ("source/*.png", "masks/*.png", "source/table.csv"),
        "name",
        (
            ("ingest", "source", *INGEST, "--table", "table.csv", "--folders", "ignore", "--masks", "masks"),
            ("ingest", "source", *PLAIN, "--masks", "masks"),
        ),
        3,
    ),
    Kind(
        "table",
        ("source/table.csv",),
        "text",
        (
            (
                "ingest",
                "source",
                *INGEST,
                "--table",
                "table.csv",
                "--set",
                "cohort.options.mask_column=mask",
                "--folders",
                "ignore",
            ),
            ("ingest", "source", *INGEST, "--folders", "ignore"),
        ),
        10,
    ),
    Kind(
        "Parquet table",
        ("table.parquet",),
        "parquet",
        (
            (
                "ingest",
                "source",
                *INGEST,
                "--table",
                "table.parquet",
                "--set",
                "cohort.options.mask_column=mask",
                "--folders",
                "ignore",
            ),
        ),
        6,
    ),
    Kind("plan", ("plan.jsonl",), "lines", ((*GENERATE, "--plan", "plan.jsonl"),), 5),
    Kind("masks of a plan", ("plan.masks.safetensors",), "safetensors", ((*GENERATE, "--plan", "plan.jsonl"),), 2),
    Kind("prompts", ("prompts.csv",), "text", ((*GENERATE, "--prompts", "prompts.csv"),), 3),
    Kind("Parquet prompts", ("prompts.parquet",), "parquet", ((*GENERATE, "--prompts", "prompts.parquet"),), 2),
    Kind("cohort.json", ("real/cohort.json",), "json", QUICK, 6),
    Kind(
        "digest.json",
        ("real/digest.json", "bundle/digest.json", "synthetic/digest.json"),
        "json",
        (
            *COHORT[:1],
            ("verify", "bundle"),
            SYNTHETIC[0],
            ("lineage", "real", "bundle", "synthetic", "--patient", "p0001"),
        ),
        5,
    ),
    Kind("manifest", ("real/manifest.parquet",), "parquet", COHORT + QUICK * 3, 12),
    Kind("synthetic cohort", ("synthetic/manifest.parquet",), "parquet", SYNTHETIC, 6),
    Kind("description of a synthetic cohort", ("synthetic/cohort.json",), "json", SYNTHETIC, 3),
    Kind("zarr.json", ("real/arrays.zarr/*/zarr.json",), "json", QUICK, 8),
    Kind("chunk", ("real/arrays.zarr/*/c/**/*",), "binary", COHORT[:1] * 3 + COHORT[2:3], 3),
    Kind(
        "bundle",
        ("bundle/bundle.json",),
        "json",
        (("verify", "bundle"), (*GENERATE, "--count", "bright=1")),
        5,
        _sign_bundle,
    ),
    Kind(
        "configuration of a bundle",
        ("bundle/*/config.json", "bundle/training.json"),
        "json",
        (("verify", "bundle"),),
        4,
        _sign_bundle,
    ),
    Kind("weights", ("bundle/*/model.safetensors",), "safetensors", (("verify", "bundle"),), 4, _sign_bundle),
    Kind(
        "report",
        ("one/report.json", "two/report.json"),
        "json",
        (
            ("compare", "one", "two", "--out", OUT),
            ("lineage", "one", "real", "--patient", "p0001"),
        ),
        5,
    ),
    Kind(
        "private folder",
        ("cohort.private/*.parquet",),
        "parquet",
        (
            ("lineage", "cohort", "--patient", f"{CANARY}1", "--files"),
            ("inspect", "cohort", "--rejected"),
        ),
        6,
    ),
    Kind(
        "key file",
        ("key.txt",),
        "text",
        (
            ("lineage", "real", "--patient", "p0001", "--key-file", "key.txt"),
            (
                "ingest",
                "source",
                "--key-file",
                "key.txt",
                "--workers",
                "0",
                "--folders",
                "ignore",
                "--table",
                "none",
                "--out",
                OUT,
            ),
        ),
        3,
    ),
    Kind(
        "export",
        ("export/export.json",),
        "json",
        (
            ("ingest", "export", *INGEST, "--folders", "ignore"),
            ("lineage", "real", "export", "--patient", "p0001"),
        ),
        3,
    ),
    Kind(
        "table of an export",
        ("export/metadata.csv",),
        "text",
        (("ingest", "export", *INGEST, "--folders", "ignore"),),
        4,
    ),
    Kind(
        "record of stages",
        ("run/.stages.json",),
        "json",
        (
            ("verify", "run"),
            ("run", "recipe.yaml", "--out", "run", "--no-prefect", "--until", "ingest"),
        ),
        4,
    ),
    Kind("dataset.json", ("nnunet/dataset.json",), "json", (("ingest", "nnunet", *PLAIN),), 2),
    Kind("DICOM", ("dicom/*.dcm",), "binary", (("ingest", "dicom", *PLAIN),), 6),
    Kind("NIfTI", ("nifti/*.nii",), "binary", (("ingest", "nifti", *PLAIN),), 4),
    Kind("gzip NIfTI", ("zipped/*.nii.gz",), "binary", (("ingest", "zipped", *PLAIN),), 2),
    Kind("PNG", ("source/0.png",), "binary", (("ingest", "source", *PLAIN),), 4),
    Kind("JPEG", ("jpeg/0.jpg",), "binary", (("ingest", "jpeg", *PLAIN),), 4),
    Kind("TIFF", ("tiff/0.tif",), "binary", (("ingest", "tiff", *PLAIN),), 4),
    Kind("npz", ("data.npz",), "binary", (("ingest", "data.npz", *PLAIN),), 4),
)


def make_examples(root: Path) -> None:
    """Fill a folder, which becomes the working directory of the commands."""
    rng = np.random.default_rng(0)
    _pictures(root, rng)
    _volumes(root, rng)
    rows = list(csv.DictReader((root / "source" / "table.csv").open()))
    pl.DataFrame(rows).with_columns(pl.col("age").cast(pl.Float64)).write_parquet(root / "table.parquet")
    (root / "recipe.yaml").write_text(RECIPE)
    (root / "key.txt").write_text("ab" * 32 + "\n")
    real = make_cohort(root / "real", total=2 * IMAGES)
    fit = FitConfig(steps=1, batch_size=4, validate_every=1, checkpoint_every=1, tracker="none", warmup_steps=1)
    config = tiny_config(autoencoder_fit=fit, denoiser_fit=fit, micro_batch=1)
    made = train_generator(real, Preprocess.for_cohort(real, (SIDE, SIDE)), config, root / "bundle", work=root / "work")
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    prompts = [Prompt(labels={"bright": True}), Prompt(attributes={"age": 50.0, "sex": "F"})]
    plan_prompts(prompts[:1], 1, masks={}).to_jsonl(root / "plan.jsonl")
    _masks_beside(root / "plan.masks.safetensors", mask)
    table = {"bright": ["1"], "age": ["50"], "sex": ["F"], "count": ["1"]}
    pl.DataFrame(table).write_csv(root / "prompts.csv")
    pl.DataFrame(table).write_parquet(root / "prompts.parquet")
    assert made.facts.conditions.labels == ("bright", "dark")
    _run("generate", root / "bundle", "--count", "bright=2", "--out", root / "synthetic", "--set", "sampler.steps=1")
    _run("export", root / "synthetic", "--out", root / "export")
    _run("run", root / "recipe.yaml", "--out", root / "run", "--no-prefect", "--until", "ingest")
    shutil.copytree(root / "run" / "cohort", root / "cohort")
    shutil.copytree(root / "run" / "cohort.private", root / "cohort.private")
    shutil.rmtree(root / "run" / "work", ignore_errors=True)
    (root / "reported").mkdir()
    *_, pages = write_made_up_report(root / "reported")
    for name in ("one", "two"):
        (root / name).mkdir()
        shutil.copy(pages / "report.json", root / name / "report.json")
    for folder in ("reported", "work"):
        shutil.rmtree(root / folder, ignore_errors=True)


def _run(*command: Any) -> None:
    status = main([str(part) for part in command])
    assert status == 0, command


def _masks_beside(file: Path, mask: np.ndarray[Any, Any]) -> None:
    from safetensors.numpy import save_file

    from cohorts.folders import pixel_digest

    save_file({pixel_digest(mask): mask}, file)


def _pictures(root: Path, rng: np.random.Generator) -> None:
    for folder in ("source/m", "masks", "jpeg", "tiff", "nnunet/imagesTr", "nnunet/labelsTr"):
        (root / folder).mkdir(parents=True)
    rows = []
    for number in range(IMAGES):
        image = Image.fromarray(rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8))
        mask = Image.fromarray(np.uint8(rng.integers(0, 2, (SIDE, SIDE)) * 255))
        image.save(root / "source" / f"{number}.png")
        mask.save(root / "masks" / f"{number}.png")
        finding, sex = ("mass", "")[number % 2], "FM"[number % 2]
        mask.save(root / "source" / "m" / f"{number}.png")
        rows.append([f"{number}.png", f"{CANARY}{number}", finding, 40 + number, sex, f"m/{number}.png", "train"])
        if number < 2:
            image.save(root / "jpeg" / f"{number}.jpg")
            image.save(root / "tiff" / f"{number}.tif")
            image.save(root / "nnunet" / "imagesTr" / f"a{number}_0000.png")
            mask.point(lambda value: value // 255).save(root / "nnunet" / "labelsTr" / f"a{number}.png")
    with (root / "source" / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "patient", "finding", "age", "sex", "mask", "split"], *rows])
    labels = {"labels": {"background": 0, "thing": 1}, "channel_names": {"0": "CT"}, "file_ending": ".png"}
    (root / "nnunet" / "dataset.json").write_text(json.dumps(labels))


def _volumes(root: Path, rng: np.random.Generator) -> None:
    for folder in ("dicom", "nifti", "zipped"):
        (root / folder).mkdir()
    for number in range(2):
        pixels = rng.integers(0, 1000, (SIDE, SIDE), dtype=np.uint16)
        write_dicom(root / "dicom" / f"{number}.dcm", pixels, PatientID=f"{CANARY}{number}", PatientName=CANARY)
        volume = nibabel.Nifti1Image(rng.integers(0, 1000, (SIDE, SIDE, 12)).astype(np.int16), np.eye(4))
        nibabel.save(volume, root / "nifti" / f"{number}.nii")
        nibabel.save(volume, root / "zipped" / f"{number}.nii.gz")
    images = rng.integers(0, 255, (4, SIDE, SIDE), dtype=np.uint8)
    np.savez(root / "data.npz", train_images=images, train_labels=np.arange(4).reshape(4, 1) % 2)
