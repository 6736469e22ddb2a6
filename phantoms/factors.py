"""The description of a simulated patient: every factor that determines an image, typed, bounded and changeable."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from medphantom.core.errors import InputError
from medphantom.core.records import Frozen

Side = Literal["right", "left"]
Zone = Literal["upper", "middle", "lower"]
View = Literal["PA", "AP"]
Unit = Annotated[float, Field(ge=0, le=1)]
Standard = Annotated[float, Field(ge=-3, le=3)]

FINDINGS = ("effusion", "pneumothorax", "nodule", "cardiomegaly", "consolidation", "pacemaker")


class Anatomy(Frozen):
    """Anatomy of a patient that is constant across images, before age and sex affect it
    (:mod:`medphantom.phantoms.body`).

    Attributes:
        stature: Body size as a multiple of the mean of the patient's sex.
        thorax_width: Width of the rib cage, in standard deviations.
        thorax_depth: Front-to-back depth of the rib cage, in standard deviations.
        lung_taper: Exponent of the lung outline; larger gives squarer lungs.
        right_lung: Width of the right lung as a multiple of the mean.
        left_lung: Width of the left lung as a multiple of the mean.
        heart_ratio: Cardiothoracic ratio at age 50 without cardiomegaly.
        heart_tilt_deg: Angle of the heart's long axis below the horizontal.
        aorta: Radius of the aortic arch, in standard deviations.
        spine_curvature_mm: Amplitude of the sideways curve of the spine; the sign is its direction.
        spine_phase: Position along the spine at which the curve peaks, in turns.
        rib_pairs: Number of pairs of ribs.
        rib_spacing_mm: Distance between neighbouring ribs at the spine.
        rib_contrast: Bone mineral as a multiple of the mean.
        rib_drop_mm: Height difference of a rib between the spine and its side.
        diaphragm_right_mm: Height of the right dome above the mean.
        diaphragm_left_mm: Height of the left dome above the mean.
        adiposity: Thickness of the fat layer, from 0 (lean) to 1 (obese).
        breast_size: Breast tissue of female patients, 0 to 1.
        shoulder_slope: How steeply the shoulders fall, 0 to 1.
        stomach_gas: Size of the gas bubble under the left dome, 0 to 1.
        vessel_seed: Seed of the tree of lung vessels.
        texture_seed: Seed of the fine structure of tissue.
    """

    stature: Annotated[float, Field(ge=0.7, le=1.3)]
    thorax_width: Standard
    thorax_depth: Standard
    lung_taper: Annotated[float, Field(ge=1.6, le=3.5)]
    right_lung: Annotated[float, Field(ge=0.8, le=1.2)]
    left_lung: Annotated[float, Field(ge=0.8, le=1.2)]
    heart_ratio: Annotated[float, Field(ge=0.3, le=0.52)]
    heart_tilt_deg: Annotated[float, Field(ge=10, le=60)]
    aorta: Standard
    spine_curvature_mm: Annotated[float, Field(ge=-25, le=25)]
    spine_phase: Unit
    rib_pairs: Annotated[int, Field(ge=9, le=13)]
    rib_spacing_mm: Annotated[float, Field(ge=18, le=34)]
    rib_contrast: Annotated[float, Field(ge=0.3, le=2)]
    rib_drop_mm: Annotated[float, Field(ge=10, le=60)]
    diaphragm_right_mm: Annotated[float, Field(ge=-30, le=30)]
    diaphragm_left_mm: Annotated[float, Field(ge=-30, le=30)]
    adiposity: Unit
    breast_size: Unit
    shoulder_slope: Unit
    stomach_gas: Unit
    vessel_seed: Annotated[int, Field(ge=0)]
    texture_seed: Annotated[int, Field(ge=0)]


class Pose(Frozen):
    """Position and breathing of the patient, standing (2-D) or lying (3-D): it varies between images of one patient.

    Attributes:
        view: ``PA`` upright at the wall stand, or ``AP`` in bed with a magnified heart and shallow breath. Volumes
            ignore it.
        inspiration: Level of inspiration, from 0 (expiration) to 1 (full inspiration).
        rotation_deg: Rotation about the long axis, which moves front and back structures apart.
        tilt_deg: Rotation within the image plane.
        shift_x_mm: Shift towards the image's right.
        shift_y_mm: Shift towards the image's bottom.
        magnification: Magnification as a multiple of that at the standard distance.
    """

    view: View
    inspiration: Unit
    rotation_deg: Annotated[float, Field(ge=-20, le=20)]
    tilt_deg: Annotated[float, Field(ge=-15, le=15)]
    shift_x_mm: Annotated[float, Field(ge=-60, le=60)]
    shift_y_mm: Annotated[float, Field(ge=-60, le=60)]
    magnification: Annotated[float, Field(ge=0.7, le=1.4)]


class Finding(Frozen):
    """A finding is present if its severity exceeds 0; an absent one keeps its position, so that it can be turned on.

    Attributes:
        severity: Severity from 0 (absent) to 1 (extreme).
    """

    severity: Unit = 0.0

    @property
    def present(self) -> bool:
        """Whether the finding is present in the image."""
        return self.severity > 0


class Effusion(Finding):
    """Fluid in the pleural space; severity is the fill level.

    Attributes:
        side: Side of the patient on which it lies.
    """

    side: Side


class Pneumothorax(Finding):
    """Air in the pleural space; severity is how far the lung has separated from the chest wall.

    Attributes:
        side: Side of the patient on which it lies.
    """

    side: Side


class Nodule(Finding):
    """A round lesion; severity sets its radius (6 to 21 mm).

    Attributes:
        side: Side of the patient on which it lies.
        across: Position between the midline (0) and the chest wall (1).
        along: Position between the apex (0) and the diaphragm (1).
        depth: Position between back (0) and front (1); only volumes use it.
        contrast: Density as a multiple of that of soft tissue.
    """

    side: Side
    across: Unit
    along: Unit
    depth: Unit
    contrast: Annotated[float, Field(ge=0.3, le=3)]


class Cardiomegaly(Finding):
    """An enlarged heart; severity moves the cardiothoracic ratio from the patient's own towards 0.70."""


class Consolidation(Finding):
    """Lung filled with fluid or cells; severity is its extent.

    Attributes:
        side: Side of the patient on which it lies.
        zone: Third of the lung in which it lies.
        density: Share of the air that is replaced at its core.
        shape_seed: Seed of its irregular border.
    """

    side: Side
    zone: Zone
    density: Annotated[float, Field(ge=0.2, le=1)]
    shape_seed: Annotated[int, Field(ge=0)]


class Pacemaker(Finding):
    """A generator below the collarbone with one lead, or two if the severity is 0.5 or more.

    Attributes:
        side: Side of the patient on which the generator lies.
    """

    side: Side


class Scanner(Frozen):
    """How the image was acquired; it differs between sites and slightly between images.

    Attributes:
        site: Name of the site.
        gain: Shift of the brightness of the whole image, in units of the line integral.
        contrast: Slope of the contrast curve.
        blur_mm: Standard deviation of the detector's point spread.
        noise: Quantum noise, as the standard deviation of the line integral at 3 mm pixels behind 15 cm of water.
        noise_seed: Seed of the noise field.
        collimation_mm: Width of the shutter at left, right, top and bottom of the field of view.
        marker: Corner of the lead marker, or ``none``.
        bits_stored: Bit depth of the stored pixels.
        photometric: DICOM photometric interpretation in which the image is stored.
        field_mm: Side of the square field of view.
    """

    site: str
    gain: Annotated[float, Field(ge=-2, le=2)]
    contrast: Annotated[float, Field(ge=0.4, le=2.5)]
    blur_mm: Annotated[float, Field(ge=0, le=8)]
    noise: Annotated[float, Field(ge=0, le=0.5)]
    noise_seed: Annotated[int, Field(ge=0)]
    collimation_mm: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    marker: Literal["none", "top_left", "top_right", "bottom_right"] = "none"
    bits_stored: Literal[8, 10, 12, 14, 16] = 12
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    field_mm: Annotated[float, Field(ge=100, le=600)] = 336.0


class ImageFactors(Frozen):
    """All factors that determine one image: equal factors give equal pixels.

    Attributes:
        patient: Number of the patient in the simulation.
        study: Number of the study of that patient.
        image: Number of the image of that patient.
        spatial_dims: Number of spatial dimensions, 2 (radiograph) or 3 (volume).
        age: Age in years at the time of the image.
        sex: Sex of the patient, ``F`` or ``M``.
        anatomy: Anatomy that is constant across the patient's images.
        pose: Breathing and position of the patient.
        effusion: Fluid in the pleural space.
        pneumothorax: Air in the pleural space.
        nodule: A round lesion in the lung.
        cardiomegaly: Enlargement of the heart.
        consolidation: An airless part of the lung.
        pacemaker: A pacemaker with its leads.
        scanner: How the image was acquired.
    """

    patient: Annotated[int, Field(ge=0)]
    study: Annotated[int, Field(ge=0)]
    image: Annotated[int, Field(ge=0)]
    spatial_dims: Literal[2, 3]
    age: Annotated[float, Field(ge=18, le=100)]
    sex: Literal["F", "M"]
    anatomy: Anatomy
    pose: Pose
    effusion: Effusion
    pneumothorax: Pneumothorax
    nodule: Nodule
    cardiomegaly: Cardiomegaly
    consolidation: Consolidation
    pacemaker: Pacemaker
    scanner: Scanner

    def finding(self, name: str) -> Finding:
        """Return one finding by name.

        Raises:
            InputError: If there is no finding of that name.
        """
        if name not in FINDINGS:
            raise InputError(f"finding {name!r} is unknown", f"known: {', '.join(FINDINGS)}")
        found: Finding = getattr(self, name)
        return found

    @property
    def labels(self) -> dict[str, bool]:
        """Map each finding to whether it is present in the image."""
        return {name: self.finding(name).present for name in FINDINGS}


class SimulatedPatient(Frozen):
    """One simulated patient with all images.

    Attributes:
        number: Number of the patient in the simulation.
        seed: Seed of the simulation; together with ``number`` it also determines the fictitious identity.
        sex: Sex of the patient, ``F`` or ``M``.
        age: Age in years at the first study.
        site: Name of the site where the images were acquired.
        images: Factors of the images, in order of acquisition.
        days: Day of each image after the first one; images of one study share a day.
    """

    number: int
    seed: int
    sex: Literal["F", "M"]
    age: float
    site: str
    images: tuple[ImageFactors, ...]
    days: tuple[int, ...]


def with_factor(image: ImageFactors, path: str, value: Any) -> ImageFactors:
    """Return the same image with one factor changed and everything else, including the noise, unchanged.

    Args:
        image: Factors to start from.
        path: Dotted name, e.g. ``effusion.severity``, ``anatomy.heart_ratio``, ``age`` or ``scanner.blur_mm``.
        value: New value, within the bounds of the field.

    Raises:
        InputError: If there is no factor of that name, or the value is out of bounds.
    """
    names = path.split(".")
    known = set(factor_paths(image))
    if path not in known:
        close = difflib.get_close_matches(path, sorted(known), n=1)
        raise InputError(f"factor {path!r} is unknown", f"did you mean {close[0]!r}?" if close else "see ImageFactors")
    try:
        if len(names) == 1:
            return ImageFactors.model_validate({**dict(image), path: value})
        part: Frozen = getattr(image, names[0])
        changed = type(part).model_validate({**dict(part), names[1]: value})
        return image.model_copy(update={names[0]: changed})
    except ValidationError as error:
        rule = error.errors()[0]["msg"]
        raise InputError(f"factor {path} cannot be {value!r}", rule[:1].lower() + rule[1:]) from None


def factor_paths(image: ImageFactors) -> Iterator[str]:
    """Yield the dotted names of all factors that :func:`with_factor` can change."""
    for name, value in image:
        if isinstance(value, Frozen):
            yield from (f"{name}.{inner}" for inner in type(value).model_fields)
        else:
            yield name


def continuous_factors() -> tuple[str, ...]:
    """Return the dotted names of the continuous factors, except age, which is always a column of the table."""
    found: list[str] = []
    for name, field in ImageFactors.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Frozen):
            found += [f"{name}.{inner}" for inner, spec in part.model_fields.items() if spec.annotation is float]
    return tuple(found)


def factor_column(path: str) -> str:
    """Return a factor's name as an attribute: ``inspiration`` for ``pose.inspiration``, but ``nodule_severity``."""
    part, _, name = path.partition(".")
    return f"{part}_{name}" if part in FINDINGS else name


def factor_value(image: ImageFactors, path: str) -> float:
    """Return the value of one of :func:`continuous_factors`."""
    part, _, name = path.partition(".")
    return float(getattr(getattr(image, part), name))
