"""What simulated patients know and real ones cannot tell: the factors behind each image of a run, and other images.

An image of a cohort leads to its factors through ``cohort.private`` (which file became which image) and the
simulation's own ``factors.jsonl``. With them any other image of that patient is drawn, and seen as the networks see
those of the cohort.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medphantom.cohorts.preprocess import Preprocess, fit_to_size, network_images
from medphantom.cohorts.private import LINKS_FILE, private_path
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest
from medphantom.core.records import Array
from medphantom.phantoms.dicom import stored_pixels
from medphantom.phantoms.factors import FINDINGS, Finding, ImageFactors, factor_column, factor_value, with_factor
from medphantom.phantoms.population import simulate
from medphantom.phantoms.render import changed_region, render
from medphantom.phantoms.write import OPTIONS, TRUTH, PhantomOptions
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.counterfactual.readings import operating_point
from medphantom.quality.networks.classifier import fit_classifier, predict
from medphantom.quality.networks.regressor import Regressor, fit_regressor, r_squared
from medphantom.quality.stats.auroc import auroc

CHECKED = 8
NUM_FEATURES = 64


@dataclass(frozen=True)
class Simulation:
    """Simulated radiographs behind a cohort.

    Attributes:
        options: how they were simulated.
        factors: image id of the cohort → factors.
        preprocess: what the generator sees.
    """

    options: PhantomOptions
    factors: dict[str, ImageFactors]
    preprocess: Preprocess

    @classmethod
    def of_run(cls, run: Path, cohort: Cohort, preprocess: Preprocess) -> Simulation:
        """The simulation of a run folder, checked on some images pixel by pixel.

        Raises:
            InputError: no simulated radiographs lie there, or they are not the cohort's.
        """
        folder = run / "phantoms"
        links = private_path(cohort.path) / LINKS_FILE
        if not (folder / TRUTH).is_file() or not links.is_file():
            raise InputError(f"{run} holds no simulated patients", "give the folder of a run that simulates them")
        options = PhantomOptions.model_validate(json.loads((folder / OPTIONS).read_text("utf-8")))
        if options.spatial_dims != 2:
            raise InputError(f"{run} holds simulated volumes", "give a run on radiographs")
        truths = (json.loads(line) for line in (folder / TRUTH).read_text("utf-8").splitlines())
        by_path = {truth["image"]: ImageFactors.model_validate(truth["factors"]) for truth in truths}
        table = pl.read_parquet(links).filter(pl.col("role") == "image").select("path", "image_id")
        found = cls(options, {name: by_path[path] for path, name in table.iter_rows()}, preprocess)
        rows = cohort.rows("test")[:CHECKED]
        drawn = np.stack([found.seen(factors) for factors in found.of(cohort, rows)])
        if not np.array_equal(drawn, network_images(cohort, rows, preprocess)):
            raise InputError(f"{folder} draws other images than the cohort holds", "run its recipe again")
        return found

    def of(self, cohort: Cohort, rows: Sequence[int]) -> list[ImageFactors]:
        """Factors of rows of the cohort."""
        return [self.factors[name] for name in cohort.manifest["image_id"][list(rows)]]

    def seen(self, image: ImageFactors) -> Array:
        """A drawing through file and preprocess, float32 ``(C, *size)`` in -1…1."""
        pixels = render(image, self.options.size)
        if self.options.format == "dicom":
            inverted = image.scanner.photometric == "MONOCHROME1"
            return self.preprocess.apply(stored_pixels(image, pixels), inverted=inverted)
        return self.preprocess.apply(pixels >> 8 if self.options.bit_depth == 8 else pixels)

    def all_seen(self, images: Sequence[ImageFactors]) -> Array:
        """Several drawings, ``(N, C, *size)``."""
        return np.stack([self.seen(image) for image in images])

    def region(self, a: ImageFactors, b: ImageFactors) -> Array:
        """Where two images of one patient differ, bool ``(*size)``: pixels that :func:`changed_region` touches."""
        changed = changed_region(a, b, self.options.size, seen=True).astype(np.float32)
        return np.asarray(fit_to_size(changed, self.preprocess.size, self.preprocess.fit, border=0.0) > 0)

    def fresh(self, patients: int, seed: int) -> list[ImageFactors]:
        """Images of other simulated patients, one each."""
        drawn = simulate(patients, seed, population=self.options.population)
        return [patient.images[0] for patient in drawn]


def without(image: ImageFactors, finding: str) -> ImageFactors:
    """The true counterfactual of a finding taken away."""
    return with_factor(image, f"{finding}.severity", 0.0)


def with_finding(image: ImageFactors, name: str, finding: Finding) -> ImageFactors:
    """One true image of a finding added: its severity and place are those of another patient."""
    return image.model_copy(update={name: finding})


class Oracle:
    """Reads findings and continuous factors, fitted on far more simulated patients than the generator saw.

    Args:
        simulation: whose files and preprocess.
        patients: fresh ones; a fifth of them chooses operating points, another fifth says how good the oracle is.
        seed: of the simulation; it must differ from the run's.
        config: how the networks are trained.
        work: folder for checkpoints.
    """

    def __init__(
        self, simulation: Simulation, *, patients: int, seed: int, config: ClassifierConfig, work: Path
    ) -> None:
        if seed == simulation.options.seed:
            raise InputError(f"the oracle's seed {seed} is that of the run's patients", "choose another")
        self.device, self.paths = config.device, simulation.options.factors
        self.pool = simulation.fresh(patients, seed)
        images = self._seen(simulation, work, seed)
        shown = np.array([[image.labels[name] for name in FINDINGS] for image in self.pool], dtype=np.int8)
        part = np.arange(patients) % 5
        train, val, test = part < 3, part == 3, part == 4
        self.classifier = fit_classifier(
            images[train], shown[train], exclusive=False, num_features=NUM_FEATURES, config=config, seed=seed, work=work
        )
        chosen, predicted = self.probabilities(images[val]), self.probabilities(images[test])
        self.thresholds = np.array([operating_point(shown[val, i], chosen[:, i]) for i in range(len(FINDINGS))])
        right = (predicted >= self.thresholds) == (shown[test] == 1)
        self.facts: dict[str, dict[str, float | None]] = {
            name: {
                "auroc": auroc(shown[test, i], predicted[:, i]),
                "sensitivity": float(right[shown[test, i] == 1, i].mean()),
                "specificity": float(right[shown[test, i] == 0, i].mean()),
            }
            for i, name in enumerate(FINDINGS)
        }
        self.regressor: Regressor | None = None
        if self.paths:
            values = np.array([[factor_value(image, path) for path in self.paths] for image in self.pool])
            self.regressor = fit_regressor(
                images[train], values[train], num_features=NUM_FEATURES, config=config, seed=seed, work=work
            )
            read = self.regressor.read(images[test], self.device)
            for i, path in enumerate(self.paths):
                self.facts[factor_column(path)] = {"r2": r_squared(values[test, i], read[:, i])}

    def _seen(self, simulation: Simulation, work: Path, seed: int) -> Array:
        """The pool's images, drawn once."""
        parts = [simulation.options.model_dump(mode="json"), simulation.preprocess.model_dump(mode="json")]
        file = work / f"pool-{json_digest([*parts, len(self.pool), seed])[:16]}.npy"
        if not file.is_file():
            work.mkdir(parents=True, exist_ok=True)
            np.save(file, simulation.all_seen(self.pool), allow_pickle=False)
        images: Array = np.load(file, allow_pickle=False)
        return images

    def probabilities(self, images: Array) -> Array:
        """Of each finding, ``(N, findings)``."""
        return predict(self.classifier, images, exclusive=False, device=self.device)

    def sees(self, images: Array, finding: str) -> Array:
        """Whether each image shows a finding, at the operating point."""
        place = FINDINGS.index(finding)
        seen: Array = self.probabilities(images)[:, place] >= self.thresholds[place]
        return seen

    def reads(self, images: Array, path: str) -> Array:
        """The value of a continuous factor in each image."""
        assert self.regressor is not None, "the run has no continuous factors"  # noqa: S101
        values: Array = self.regressor.read(images, self.device)[:, self.paths.index(path)]
        return values

    def draws(self, finding: str, total: int) -> list[Finding]:
        """Severities and places of a finding as fresh patients have them."""
        found = [image.finding(finding) for image in self.pool if image.finding(finding).present][:total]
        if len(found) < total:
            raise InputError(
                f"{len(found)} of the oracle's patients show {finding}, need {total}", "take more patients"
            )
        return found


def masked_l1(images: Array, truth: Array, mask: Array) -> Array:
    """Mean absolute difference within a mask ``(N, 1, *size)``, one value per image; NaN where it is empty."""
    within = np.broadcast_to(mask, images.shape).reshape(len(images), -1)
    apart = np.abs(images - truth).reshape(len(images), -1).astype(np.float64) * within
    total = within.sum(axis=1)
    found: Array = np.divide(apart.sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    return found


def nearest_draw(image: Array, draws: Array, regions: Array) -> tuple[float, int]:
    """Mean absolute difference to the nearest draw within the region of that draw, and which one it is.

    Args:
        image: ``(C, *size)``.
        draws: ``(K, C, *size)``.
        regions: where each draw differs from the image without the finding, bool ``(K, 1, *size)``.
    """
    apart = masked_l1(np.broadcast_to(image, draws.shape), draws, regions)
    which = int(np.nanargmin(apart))
    return float(apart[which]), which
