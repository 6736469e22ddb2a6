"""Put a trained bundle that learned from no patient into ``bases/``, in float16, beside its card.

python examples/bases/publish.py runs/generic/bundle generic

Only for cohorts that were simulated: the bundle declares that nobody is behind its training images, so that a private
fit on top of it needs no condition.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.lineage import Lineage
from medphantom.shipped import CARD_FILE, SHIPPED

HERE = Path(__file__).parent
BASES = HERE.parents[1] / "bases"
FITS = ("autoencoder", "denoiser")


def without_curves(training: dict[str, object]) -> dict[str, object]:
    """The recipe without the rows of its curves, of which only the last stays."""
    kept = dict(training)
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
    made = replace(trained, facts=facts, training=without_curves(trained.training)).rounded()
    target = BASES / name
    card = (HERE / f"{name}.md").read_text("utf-8")
    shutil.rmtree(target, ignore_errors=True)
    made.save(target, half=True)
    (target / CARD_FILE).write_text(card, encoding="utf-8")
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {size / 2**20:.2f} MiB, digest {GeneratorBundle.load(target).digest[:12]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
