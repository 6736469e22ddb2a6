"""What a simulated patient is: every factor that decides what an image shows, typed, bounded and changeable."""

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
    """What stays of a patient from image to image, before age and sex act on it (:mod:`medphantom.phantoms.body`).

    Attributes:
        stature: body size as a multiple of the mean of the patient's sex.
        thorax_width: width of the rib cage, in standard deviations.
        thorax_depth: front-to-back depth of the rib cage, in standard deviations.
        lung_taper: exponent of the lung outline; larger gives squarer lungs.
        right_lung: width of the right lung as a multiple of the mean.
        left_lung: width of the left lung as a multiple of the mean.
        heart_ratio: cardiothoracic ratio at age 50 without cardiomegaly.
        heart_tilt_deg: angle of the heart's long axis below the horizontal.
        aorta: radius of the aortic arch, in standard deviations.
        spine_curvature_mm: amplitude of the sideways curve of the spine; the sign is its direction.
        spine_phase: where along the spine the curve peaks, in turns.
        rib_pairs: pairs of ribs.
        rib_spacing_mm: distance between neighbouring ribs at the spine.
        rib_contrast: bone mineral as a multiple of the mean.
        rib_drop_mm: how far a rib falls from the spine to the side.
        diaphragm_right_mm: height of the right dome above the mean.
        diaphragm_left_mm: height of the left dome above the mean.
        adiposity: thickness of the fat layer, 0 lean to 1 obese.
        breast_size: breast tissue of female patients, 0 to 1.
        shoulder_slope: how steeply the shoulders fall, 0 to 1.
        stomach_gas: size of the gas bubble under the left dome, 0 to 1.
        vessel_seed: seed of the tree of lung vessels.
        texture_seed: seed of the fine structure of tissue.
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
    """How the patient stood (2-D) or lay (3-D): it varies between images of one patient.

    Attributes:
        view: ``PA`` upright at the wall stand or ``AP`` in bed: magnified heart, shallow breath. Volumes ignore it.
        inspiration: 0 breathed out to 1 fully breathed in.
        rotation_deg: turn about the long axis; front and back structures move apart.
        tilt_deg: turn within the image plane.
        shift_x_mm: move to the image's right.
        shift_y_mm: move down.
        magnification: size as a multiple of the standard distance.
    """

    view: View
    inspiration: Unit
    rotation_deg: Annotated[float, Field(ge=-20, le=20)]
    tilt_deg: Annotated[float, Field(ge=-15, le=15)]
    shift_x_mm: Annotated[float, Field(ge=-60, le=60)]
    shift_y_mm: Annotated[float, Field(ge=-60, le=60)]
    magnification: Annotated[float, Field(ge=0.7, le=1.4)]


class Finding(Frozen):
    """A finding is present when its severity exceeds 0; an absent one keeps its place, so that it can be turned on.

    Attributes:
        severity: 0 absent to 1 extreme.
    """

    severity: Unit = 0.0

    @property
    def present(self) -> bool:
        """Whether the image shows it."""
        return self.severity > 0


class Effusion(Finding):
    """Fluid in the pleural space: severity is the fill level.

    Attributes:
        side: the patient's side.
    """

    side: Side


class Pneumothorax(Finding):
    """Air in the pleural space: severity is how far the lung has come away from the chest wall.

    Attributes:
        side: the patient's side.
    """

    side: Side


class Nodule(Finding):
    """A round lesion: severity sets its radius (6 to 21 mm).

    Attributes:
        side: the patient's side.
        across: place from the midline (0) to the chest wall (1).
        along: place from the apex (0) to the diaphragm (1).
        depth: place from back (0) to front (1); volumes only.
        contrast: density as a multiple of that of soft tissue.
    """

    side: Side
    across: Unit
    along: Unit
    depth: Unit
    contrast: Annotated[float, Field(ge=0.3, le=3)]


class Cardiomegaly(Finding):
    """An enlarged heart: severity moves the cardiothoracic ratio from the patient's own towards 0.70."""


class Consolidation(Finding):
    """Lung filled with fluid or cells: severity is its extent.

    Attributes:
        side: the patient's side.
        zone: third of the lung.
        density: share of the air that is replaced at its core.
        shape_seed: seed of its ragged border.
    """

    side: Side
    zone: Zone
    density: Annotated[float, Field(ge=0.2, le=1)]
    shape_seed: Annotated[int, Field(ge=0)]


class Pacemaker(Finding):
    """A generator under the collar bone with one lead, or two when the severity is 0.5 or more.

    Attributes:
        side: the patient's side of the generator.
    """

    side: Side


class Scanner(Frozen):
    """How the image was taken: it differs by site and a little by image.

    Attributes:
        site: name of the site.
        gain: shift of the brightness of the whole image, in units of the line integral.
        contrast: slope of the contrast curve.
        blur_mm: standard deviation of the detector's point spread.
        noise: quantum noise, as the standard deviation of the line integral at 3 mm pixels behind 15 cm of water.
        noise_seed: seed of the noise field.
        collimation_mm: width of the shutter at left, right, top and bottom of the field of view.
        marker: corner of the lead marker, or ``none``.
        bits_stored: depth of the stored pixels.
        photometric: DICOM photometric interpretation in which the image is stored.
        field_mm: side of the square field of view.
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
    """Everything that decides one image: equal factors give equal pixels.

    Attributes:
        patient: number of the patient in the simulation.
        study: number of the study of that patient.
        image: number of the image of that patient.
        spatial_dims: 2 (radiograph) or 3 (volume).
        age: years at the time of the image.
        sex: ``F`` or ``M``.
        anatomy: what stays of the patient.
        pose: breathing and position.
        effusion: pleural fluid.
        pneumothorax: pleural air.
        nodule: a round lesion.
        cardiomegaly: an enlarged heart.
        consolidation: an airless part of the lung.
        pacemaker: a device.
        scanner: how the image was taken.
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
        """One finding by name.

        Raises:
            InputError: no finding of that name.
        """
        if name not in FINDINGS:
            raise InputError(f"finding {name!r} is unknown", f"known: {', '.join(FINDINGS)}")
        found: Finding = getattr(self, name)
        return found

    @property
    def labels(self) -> dict[str, bool]:
        """Finding → whether the image shows it."""
        return {name: self.finding(name).present for name in FINDINGS}


class SimulatedPatient(Frozen):
    """One patient and all images of them.

    Attributes:
        number: number of the patient in the simulation.
        seed: seed of the simulation; with ``number`` it also decides the made-up identity.
        sex: ``F`` or ``M``.
        age: years at the first study.
        site: where the images were taken.
        images: in the order in which they were taken.
        days: day of each image after the first one; images of one study share a day.
    """

    number: int
    seed: int
    sex: Literal["F", "M"]
    age: float
    site: str
    images: tuple[ImageFactors, ...]
    days: tuple[int, ...]


def with_factor(image: ImageFactors, path: str, value: Any) -> ImageFactors:
    """The same image with one factor changed and everything else kept, noise included.

    Args:
        image: the factors to start from.
        path: dotted name, e.g. ``effusion.severity``, ``anatomy.heart_ratio``, ``age`` or ``scanner.blur_mm``.
        value: the new value; it must keep the field's bounds.

    Raises:
        InputError: no factor of that name, or a value outside its bounds.
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
    """Dotted names of all factors that :func:`with_factor` can change."""
    for name, value in image:
        if isinstance(value, Frozen):
            yield from (f"{name}.{inner}" for inner in type(value).model_fields)
        else:
            yield name


def continuous_factors() -> tuple[str, ...]:
    """Dotted names of the factors that are numbers on a scale; age, which every table has, is not among them."""
    found: list[str] = []
    for name, field in ImageFactors.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Frozen):
            found += [f"{name}.{inner}" for inner, spec in part.model_fields.items() if spec.annotation is float]
    return tuple(found)


def factor_column(path: str) -> str:
    """Name of a factor as an attribute: ``inspiration`` of ``pose.inspiration``, but ``nodule_severity``."""
    part, _, name = path.partition(".")
    return f"{part}_{name}" if part in FINDINGS else name


def factor_value(image: ImageFactors, path: str) -> float:
    """Value of one of :func:`continuous_factors`."""
    part, _, name = path.partition(".")
    return float(getattr(getattr(image, part), name))
