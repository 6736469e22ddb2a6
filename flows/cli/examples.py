"""Two examples of each verb, which its help shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable

EXAMPLES: dict[str, tuple[str, str]] = {
    "phantom": (
        "medphantom phantom --out images --patients 200 --format png",
        "medphantom phantom --out volumes --format nifti --masks --seed 7",
    ),
    "ingest": (
        "medphantom ingest images --out cohort",
        "medphantom ingest images --out cohort --table labels.csv --patient-column patient_id",
    ),
    "inspect": (
        "medphantom inspect cohort",
        "medphantom inspect cohort --split train --size 64 --out sheet.png",
    ),
    "bases": (
        "medphantom bases",
        "medphantom bases --shipped",
    ),
    "train": (
        "medphantom train cohort --out bundle --size 64",
        "medphantom train cohort --out bundle --recipe recipe.yaml --set generator.denoiser_fit.steps=2000",
    ),
    "search": (
        "medphantom search cohort --out found --try sampler.guidance=[1,2,3]",
        "medphantom search cohort --out found --try generator.seed=[0,1] --try sampler.steps=[10,20] --images 300",
    ),
    "generate": (
        "medphantom generate bundle --out synthetic --count effusion=100 --count nodule=50",
        "medphantom generate bundle --out synthetic --match 500 --cohort cohort --seed 1",
    ),
    "merge": (
        "medphantom merge part0 part1 --out synthetic",
        "medphantom merge shards/0 shards/1 shards/2 shards/3 --out synthetic",
    ),
    "counterfactual": (
        "medphantom counterfactual bundle cohort --out pairs --set effusion=absent",
        "medphantom counterfactual bundle cohort --out pairs --set age=20:80 --split test --limit 100",
    ),
    "assess": (
        "medphantom assess cohort synthetic --out report --bundle bundle",
        "medphantom assess --real cohort --synthetic images_of_others --out report --size 64",
    ),
    "control": (
        "medphantom control recipe.yaml",
        "medphantom control recipe.yaml --kind noiseless --no-prefect",
    ),
    "utility": (
        "medphantom utility cohort --out study --size 64",
        "medphantom utility cohort --out study --fraction 0.1 --fraction 1 --generators 3 --recipe recipe.yaml",
    ),
    "augment": (
        "medphantom augment cohort --label nodule --to 500 --out answer",
        "medphantom augment cohort --label nodule --to 500 --out answer --bundle bundle0 --bundle bundle1 --plan-only",
    ),
    "compare": (
        "medphantom compare runs/first runs/second --out compared",
        "medphantom compare runs/first runs/second --out compared --no-draw",
    ),
    "rank": (
        "medphantom rank classifier.onnx pairs --output effusion --names effusion,nodule",
        "medphantom rank classifier.pt pairs_a pairs_b --output 0 --cohort cohort --size 224 --out ranking.json",
    ),
    "export": (
        "medphantom export synthetic --out files",
        "medphantom export synthetic --out files --format nifti --layout table",
    ),
    "verify": (
        "medphantom verify cohort",
        "medphantom verify runs/chest",
    ),
    "lineage": (
        "medphantom lineage runs --patient P0001",
        "medphantom lineage runs exports --patient - --key-file identity.key --files",
    ),
    "demo": (
        "medphantom demo",
        "medphantom demo --out runs/demo --no-prefect",
    ),
    "init": (
        "medphantom init recipe.yaml --source images",
        "medphantom init recipe.yaml --source images --folders classes --name chest --quick",
    ),
    "run": (
        "medphantom run recipe.yaml",
        "medphantom run recipe.yaml --until train --set generator.seed=1 --no-prefect",
    ),
    "serve": (
        'medphantom serve recipe.yaml --cron "0 2 * * *" --timezone Europe/Berlin',
        "medphantom serve recipe.yaml --every 6h",
    ),
    "schema": (
        "medphantom schema",
        "medphantom schema --out recipe.schema.json",
    ),
}


def help_of(verb: Callable[..., None]) -> str:
    """Return the help text of a verb: what it does, and two examples on lines of their own."""
    lines = "\n".join(f"  {example}" for example in EXAMPLES[verb.__name__])
    return f"{inspect.cleandoc(verb.__doc__ or '')}\n\n\b\nExamples:\n{lines}"
