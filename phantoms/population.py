"""Prevalence of the findings by age, sex and site, and patients drawn from it one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from medphantom.core.errors import InputError
from medphantom.core.randomness import stream, stream_seed
from medphantom.core.records import Frozen
from medphantom.phantoms.factors import (
    FINDINGS,
    Anatomy,
    Cardiomegaly,
    Consolidation,
    Effusion,
    ImageFactors,
    Nodule,
    Pacemaker,
    Pneumothorax,
    Pose,
    Scanner,
    Side,
    SimulatedPatient,
    Zone,
)


class Site(Frozen):
    """A hospital with its scanner and its mix of patients.

    Attributes:
        name: Short name of the site.
        share: Share of the patients who are seen there.
        illness: Log odds added to effusion, pneumothorax, consolidation and pacemaker (an intensive-care site has
            more of them); a model can learn this as a shortcut from the scanner's appearance.
        bedside: Probability of an AP view for a patient without acute findings.
        gain: Mean shift of the brightness.
        contrast: Mean slope of the contrast curve.
        blur_mm: Mean blur of the detector.
        noise: Mean quantum noise of the detector.
        shutter_mm: Mean width of the shutter.
        marker: Corner of the lead marker.
        bits_stored: Bit depth of the stored pixels.
        photometric: Photometric interpretation of the stored pixels.
        modality: DICOM modality of its radiographs.
    """

    name: str
    share: Annotated[float, Field(gt=0, le=1)]
    illness: float = 0.0
    bedside: Annotated[float, Field(ge=0, le=1)] = 0.2
    gain: float = 0.0
    contrast: float = 1.0
    blur_mm: float = 1.0
    noise: float = 0.03
    shutter_mm: float = 0.0
    marker: Literal["none", "top_left", "top_right", "bottom_right"] = "none"
    bits_stored: Literal[8, 10, 12, 14, 16] = 12
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    modality: Literal["DX", "CR"] = "DX"


class Risk(Frozen):
    """Log odds of one finding: ``base + age·(years - 55)/20 + male·[sex = M] + illness·site.illness``.

    Attributes:
        base: Log odds of a woman of 55 at an average site.
        age: Log odds added per 20 years.
        male: Log odds added for men.
        illness: Factor by which the site's illness is added.
        heart: Log odds added if cardiomegaly is present.
        mildest: Smallest severity if present.
    """

    base: float
    age: float = 0.0
    male: float = 0.0
    illness: float = 0.0
    heart: float = 0.0
    mildest: Annotated[float, Field(gt=0, le=1)] = 0.25


DEFAULT_SITES = (
    Site(name="north", share=0.45, illness=-0.35, bedside=0.08, contrast=1.0, blur_mm=0.9, noise=0.022, bits_stored=12),
    Site(name="harbour", share=0.35, gain=0.15, contrast=1.18, blur_mm=1.5, noise=0.03, marker="top_right",
         shutter_mm=6, bits_stored=14, bedside=0.2),
    Site(name="mobile", share=0.20, illness=0.75, bedside=0.75, gain=-0.2, contrast=0.82, blur_mm=1.6, noise=0.055,
         marker="top_left", shutter_mm=3, bits_stored=12, photometric="MONOCHROME1", modality="CR"),
)  # fmt: skip

DEFAULT_RISKS = {
    "effusion": Risk(base=-1.45, age=0.45, illness=1.0, heart=0.9, mildest=0.2),
    "pneumothorax": Risk(base=-2.0, age=-0.55, male=0.55, illness=0.8, mildest=0.2),
    "nodule": Risk(base=-1.55, age=0.45, male=0.1, mildest=0.2),
    "cardiomegaly": Risk(base=-1.45, age=0.8, mildest=0.3),
    "consolidation": Risk(base=-1.5, age=0.1, illness=0.6, mildest=0.25),
    "pacemaker": Risk(base=-3.0, age=1.1, male=0.2, heart=0.8, illness=0.2, mildest=0.1),
}
ACUTE = ("effusion", "pneumothorax", "consolidation")


class Population(Frozen):
    """How patients are drawn.

    Attributes:
        sites: Hospitals, whose shares sum to one.
        risks: One :class:`Risk` per finding.
        shortcut: Factor on every site's illness; 0 makes site and findings independent.
        healthy: Whether no patient has findings (for a training set of healthy anatomy).
        persistence: Probability that an acute finding is unchanged from the previous study.
        images_per_patient: Probability of 1, 2, 3 and 4 images.
    """

    sites: tuple[Site, ...] = DEFAULT_SITES
    risks: dict[str, Risk] = Field(default_factory=lambda: dict(DEFAULT_RISKS))
    shortcut: Annotated[float, Field(ge=0, le=5)] = 1.0
    healthy: bool = False
    persistence: Annotated[float, Field(ge=0, le=1)] = 0.6
    images_per_patient: tuple[float, float, float, float] = (0.6, 0.25, 0.1, 0.05)

    def site(self, name: str) -> Site:
        """Return a site by name.

        Raises:
            InputError: If there is no such site.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise InputError(f"site {name!r} is unknown", f"known: {', '.join(s.name for s in self.sites)}")

    def prevalence(self, finding: str, *, age: float, sex: str, site: str, cardiomegaly: bool = False) -> float:
        """Return the probability that one image of such a patient shows the finding."""
        if self.healthy:
            return 0.0
        risk = self.risks[finding]
        odds = risk.base + risk.age * (age - 55) / 20 + risk.male * (sex == "M")
        odds += risk.illness * self.shortcut * self.site(site).illness + risk.heart * cardiomegaly
        return 1 / (1 + math.exp(-odds))


def simulate(
    total_patients: int,
    seed: int,
    *,
    spatial_dims: Literal[2, 3] = 2,
    population: Population | None = None,
    start: int = 0,
) -> Iterator[SimulatedPatient]:
    """Simulate patients; patient ``k`` of a seed is the same, however many patients are requested.

    Args:
        total_patients: Number of patients, at least one.
        seed: Seed of the simulation.
        spatial_dims: Number of dimensions, 2 for radiographs and 3 for volumes.
        population: Distribution from which they are drawn.
        start: Number of the first patient.

    Raises:
        InputError: If fewer than one patient is requested.
    """
    if total_patients < 1:
        raise InputError(f"total_patients must be ≥ 1, got {total_patients}", "request at least one patient")
    chosen = population or Population()
    for number in range(start, start + total_patients):
        yield draw_patient(number, seed, spatial_dims, chosen)


def draw_patient(number: int, seed: int, spatial_dims: Literal[2, 3], population: Population) -> SimulatedPatient:
    """Return patient ``number`` of the simulation ``seed``."""
    rng = stream(seed, "patient", number)
    sex: Literal["F", "M"] = "F" if rng.random() < 0.5 else "M"
    age = float(np.clip(18 + 75 * rng.beta(2.1, 1.7), 18, 92))
    shares = np.array([site.share for site in population.sites])
    site = population.sites[int(rng.choice(len(shares), p=shares / shares.sum()))]
    anatomy = _draw_anatomy(rng, stream_seed(seed, "texture", number) % 2**31)
    total_images = 1 + int(rng.choice(4, p=population.images_per_patient))
    images: list[ImageFactors] = []
    days: list[int] = []
    chronic = _draw_chronic(rng, population, age, sex, site)
    acute: dict[str, float] = {}
    study = -1
    for index in range(total_images):
        image_rng = stream(seed, "patient", number, "image", index)
        same_day = index > 0 and image_rng.random() < 0.25
        if not same_day:
            study += 1
            days.append(0 if index == 0 else days[-1] + int(image_rng.integers(2, 400)))
            acute = _next_acute(
                image_rng, population, before=acute, age=age, sex=sex, site=site, heart=chronic["cardiomegaly"] > 0
            )
        else:
            days.append(days[-1])
        severities = {**chronic, **acute}
        ill = any(severities[name] > 0 for name in ACUTE)
        image = ImageFactors(
            patient=number, study=study, image=index, spatial_dims=spatial_dims,
            age=min(age + days[-1] / 365.25, 100.0), sex=sex, anatomy=anatomy,
            pose=_draw_pose(image_rng, site, ill=ill), scanner=_draw_scanner(image_rng, site),
            **_place_findings(stream(seed, "places", number), severities),
        )  # fmt: skip
        images.append(image)
    return SimulatedPatient(
        number=number, seed=seed, sex=sex, age=age, site=site.name, images=tuple(images), days=tuple(days)
    )


def _draw_anatomy(rng: np.random.Generator, texture_seed: int) -> Anatomy:
    def standard() -> float:
        return float(np.clip(rng.standard_normal(), -2.5, 2.5))

    return Anatomy(
        stature=1 + 0.045 * standard(),
        thorax_width=standard(),
        thorax_depth=standard(),
        lung_taper=2.3 + 0.15 * standard(),
        right_lung=1 + 0.03 * standard(),
        left_lung=0.97 + 0.03 * standard(),
        heart_ratio=0.435 + 0.018 * standard(),
        heart_tilt_deg=36 + 6 * standard(),
        aorta=standard(),
        spine_curvature_mm=float(np.clip(3.2 * rng.standard_t(3), -20, 20)),
        spine_phase=float(rng.random()),
        rib_pairs=int(rng.choice([11, 12, 12, 12, 12, 13])),
        rib_spacing_mm=25.5 + 1.4 * standard(),
        rib_contrast=1 + 0.14 * standard(),
        rib_drop_mm=38 + 5 * standard(),
        diaphragm_right_mm=5 * standard(),
        diaphragm_left_mm=5 * standard(),
        adiposity=float(rng.beta(2, 3.2)),
        breast_size=float(rng.beta(2, 2.5)),
        shoulder_slope=float(rng.random()),
        stomach_gas=float(rng.beta(1.3, 1.5)),
        vessel_seed=texture_seed + 1,
        texture_seed=texture_seed,
    )


def _severity(rng: np.random.Generator, risk: Risk) -> float:
    return float(risk.mildest + (1 - risk.mildest) * rng.beta(1.4, 1.6))


def _draw_chronic(
    rng: np.random.Generator, population: Population, age: float, sex: str, site: Site
) -> dict[str, float]:
    """Draw severities that persist: cardiomegaly first, since the risk of other findings depends on it."""
    severities: dict[str, float] = {}
    for name in ("cardiomegaly", "nodule", "pacemaker"):
        heart = severities.get("cardiomegaly", 0.0) > 0
        draw, severity = rng.random(), _severity(rng, population.risks[name])
        chance = population.prevalence(name, age=age, sex=sex, site=site.name, cardiomegaly=heart)
        severities[name] = severity if draw < chance else 0.0
    return severities


def _next_acute(
    rng: np.random.Generator, population: Population, *, before: dict[str, float], age: float, sex: str, site: Site,
    heart: bool,
) -> dict[str, float]:  # fmt: skip
    """Return severities at the next study: unchanged with probability ``persistence``, else drawn again.

    Either way the probability of each finding is its prevalence, so later studies follow the same distribution.
    """
    severities: dict[str, float] = {}
    for name in ACUTE:
        stays, draw, severity = rng.random(), rng.random(), _severity(rng, population.risks[name])
        if name in before and stays < population.persistence:
            severities[name] = before[name]
            continue
        chance = population.prevalence(name, age=age, sex=sex, site=site.name, cardiomegaly=heart)
        severities[name] = severity if draw < chance else 0.0
    return severities


def _place_findings(rng: np.random.Generator, severities: dict[str, float]) -> dict[str, object]:
    """Return every finding with its position; the stream is the patient's, so positions persist across images."""

    def side(right: float = 0.5) -> Side:
        return "right" if rng.random() < right else "left"

    zones: tuple[Zone, ...] = ("upper", "middle", "lower")
    made: dict[str, object] = {
        "effusion": Effusion(severity=severities["effusion"], side=side(0.55)),
        "pneumothorax": Pneumothorax(severity=severities["pneumothorax"], side=side(0.55)),
        "nodule": Nodule(
            severity=severities["nodule"], side=side(0.55), across=float(rng.uniform(0.2, 0.9)),
            along=float(rng.uniform(0.1, 0.9)), depth=float(rng.random()), contrast=float(rng.uniform(1.3, 2.2)),
        ),
        "cardiomegaly": Cardiomegaly(severity=severities["cardiomegaly"]),
        "consolidation": Consolidation(
            severity=severities["consolidation"], side=side(0.55), zone=zones[int(rng.choice(3, p=[0.25, 0.3, 0.45]))],
            density=float(rng.uniform(0.7, 1.0)), shape_seed=int(rng.integers(2**31)),
        ),
        "pacemaker": Pacemaker(severity=severities["pacemaker"], side=side(0.2)),
    }  # fmt: skip
    if set(made) != set(FINDINGS):
        raise AssertionError(f"findings placed {sorted(made)}, known {sorted(FINDINGS)}")
    return made


def _draw_pose(rng: np.random.Generator, site: Site, *, ill: bool) -> Pose:
    bedside = rng.random() < min(1.0, site.bedside + (0.25 if ill else 0.0))
    breath = rng.beta(2, 3) if bedside else rng.beta(4, 2)
    spread = 1.6 if bedside else 1.0

    def normal(scale: float, limit: float = 2.5) -> float:
        return float(np.clip(rng.standard_normal(), -limit, limit) * scale)

    return Pose(
        view="AP" if bedside else "PA",
        inspiration=float(breath),
        rotation_deg=normal(2.2 * spread),
        tilt_deg=normal(1.3 * spread),
        shift_x_mm=normal(4 * spread),
        shift_y_mm=normal(6 * spread),
        magnification=1 + normal(0.025),
    )


def _draw_scanner(rng: np.random.Generator, site: Site) -> Scanner:
    def around(mean: float, share: float) -> float:
        return float(mean * (1 + share * np.clip(rng.standard_normal(), -2, 2)))

    return Scanner(
        site=site.name,
        gain=float(site.gain + 0.12 * np.clip(rng.standard_normal(), -2, 2)),
        contrast=around(site.contrast, 0.05),
        blur_mm=around(site.blur_mm, 0.08),
        noise=around(site.noise, 0.12),
        noise_seed=int(rng.integers(2**53)),
        collimation_mm=_shutters(rng, site),
        marker=site.marker,
        bits_stored=site.bits_stored,
        photometric=site.photometric,
    )


def _shutters(rng: np.random.Generator, site: Site) -> tuple[float, float, float, float]:
    widths = rng.exponential(site.shutter_mm, 4) if site.shutter_mm else np.zeros(4)
    left, right, top, bottom = np.minimum(widths, 30).tolist()
    return left, right, top, bottom
