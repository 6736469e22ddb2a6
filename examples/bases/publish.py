"""Put a trained bundle that learned from no patient into ``bases/``, in float16, beside the card that lies there.

python examples/bases/publish.py runs/generic/bundle generic

Only for cohorts that were simulated: the bundle declares that nobody is behind its training images, so that a private
fit on top of it needs no condition.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.facts import whole_digest
from medphantom.generators.lineage import Lineage
from medphantom.shipped import CARD_FILE, PREFIX, SHIPPED, files_digest

BASES = Path(__file__).parents[2] / "bases"
FITS = ("autoencoder", "denoiser")


def shortened(training: dict[str, Any]) -> dict[str, Any]:
    """The recipe and the last rows of its curves; a base is named as everybody knows it, not by a folder."""
    kept = dict(training)
    recipe = dict(kept["recipe"])
    if recipe["init_from"] is not None:
        recipe["init_from"] = f"{PREFIX}generic"
        for unused in ("autoencoder", "autoencoder_fit", "reconstruction", "denoiser", "objective"):
            recipe.pop(unused)  # those of the base
    kept["recipe"] = recipe
    for name in FITS:
        curve = kept.get(name)
        if isinstance(curve, dict) and curve.get("rows"):
            kept[name] = {**curve, "rows": curve["rows"][-1:]}
    return kept


def main(bundle: str, name: str) -> None:
    """Publish one base.

    Args:
        bundle: Folder of the trained bundle.
        name: Name of the base.
    """
    if name not in SHIPPED:
        sys.exit(f"{name} is no name of a base; known: {', '.join(SHIPPED)}")
    trained = GeneratorBundle.load(bundle)
    facts = trained.facts.model_copy(update={"lineage": Lineage(), "base": None})
    made = replace(trained, facts=facts, training=shortened(trained.training)).rounded()
    target = BASES / name
    card = (target / CARD_FILE).read_text("utf-8")
    shutil.rmtree(target, ignore_errors=True)
    made.save(target, half=True)
    (target / CARD_FILE).write_text(card, encoding="utf-8")
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    digest = whole_digest(made.facts, made.training, made.networks_digest)
    print(f"{target}: {size / 2**20:.2f} MiB; for bases/__init__.py: DIGESTS {digest}, FILES {files_digest(target)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
