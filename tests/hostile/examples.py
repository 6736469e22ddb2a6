"""Valid small examples of every kind of file that we read, and the commands that read them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
import yaml
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from PIL import Image

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.plan import plan_prompts
from medphantom.conditioning.prompt import Prompt
from medphantom.flows.cli.main import main
from medphantom.generators.train import train_generator
from medphantom.learning.fit_config import FitConfig
from tests.cohorts.files import write_dicom
from tests.generators.stable_tiny import make_pipeline
from tests.generators.test_monai_base import CODEC, UNET, write_base
from tests.generators.tiny import SIDE, make_cohort, tiny_config
from tests.hostile.kinds import CANARY
from tests.quality.report.test_report import _write as write_made_up_report

IMAGES = 8

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
    preprocess = Preprocess.for_cohort(real, (SIDE, SIDE))
    made = train_generator(real, preprocess, config, root / "bundle", work=root / "trained.work")
    parts = {"generator": config.model_dump(mode="json"), "preprocess": preprocess.model_dump(mode="json")}
    (root / "training.yaml").write_text(yaml.safe_dump(parts))
    _bases(root, real)
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
    shutil.rmtree(root / "reported")


def _bases(root: Path, real: Cohort) -> None:
    """Bases of others, and a cohort in which nothing can be searched: they are read and then refused."""
    codec = AutoencoderKL(**CODEC, channels=[8, 16])
    write_base(root / "monai", codec, DiffusionModelUNet(**UNET, channels=[16, 32]), old=False)
    make_pipeline(root / "stable")
    with CohortWriter(root / "no holdout", real.schema) as writer:
        for record in real.records(real.rows("train")):
            writer.add(record)


def _run(*command: Any) -> None:
    status = main([str(part) for part in command])
    assert status == 0, command


def _masks_beside(file: Path, mask: np.ndarray[Any, Any]) -> None:
    from safetensors.numpy import save_file

    from medphantom.core.folders import pixel_digest

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
