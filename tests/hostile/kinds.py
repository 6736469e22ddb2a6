"""Every kind of file that we read, and the commands that read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medphantom.core.folders import DIGEST_FILE, file_digest

CANARY = "ZZSECRETZZ"  # stands for what must never be in a message
OUT = "out/made"

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
        status: of the commands where nothing is changed; 2: what they read is refused for another reason, later on.
        sign: makes the digests of a folder fit again, so that a change is met by what lies behind them.
    """

    name: str
    files: tuple[str, ...]
    form: str
    commands: tuple[tuple[str, ...], ...]
    weight: int = 4
    sign: Callable[[Path], None] | None = None
    status: int = 0


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
BASES = ("train", "no holdout", "--size", "16", "--set", "generator.tuning.value_range=signed", "--out", OUT)
STABLE = (*BASES, "--set", "generator.init_from=./stable")
MONAI = (*BASES, "--set", "generator.init_from=./monai")
TRAIN = ("train", "real", "--recipe", "training.yaml", "--out", "trained")
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
    Kind("configuration of a MONAI base", ("monai/configs/inference.json",), "json", (MONAI,), 5, status=2),
    Kind("weights of a MONAI base", ("monai/models/*.pt",), "binary", (MONAI,), 4, status=2),
    Kind("index of a diffusers base", ("stable/model_index.json",), "json", (STABLE,), 2, status=2),
    Kind("configuration of a diffusers base", ("stable/*/*config.json",), "json", (STABLE,), 5, status=2),
    Kind("weights of a diffusers base", ("stable/*/*.safetensors",), "safetensors", (STABLE,), 4, status=2),
    Kind(
        "tokenizer",
        ("stable/tokenizer/vocab.json", "stable/tokenizer/special_tokens_map.json"),
        "json",
        (STABLE,),
        3,
        status=2,
    ),
    Kind("merges of a tokenizer", ("stable/tokenizer/merges.txt",), "text", (STABLE,), 1, status=2),
    Kind("checkpoint", ("trained.work/*/checkpoints/*/*.safetensors",), "safetensors", (TRAIN,), 3),
    Kind(
        "state of a training",
        ("trained.work/*/checkpoints/*/state.json", "trained.work/images/*/digest.json"),
        "json",
        (TRAIN,),
        4,
    ),
    Kind("metrics of a training", ("trained.work/*/metrics.jsonl",), "lines", (TRAIN,), 2),
    Kind("kept images of a training", ("trained.work/**/*.npy",), "binary", (TRAIN,), 2),
    Kind("kept latents of a training", ("trained.work/*/*.safetensors",), "safetensors", (TRAIN,), 2),
)
