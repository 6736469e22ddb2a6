"""Simulated patients as a folder of files, in the layout of an archive or a public data set."""

from __future__ import annotations

import csv
import difflib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError, field_validator, model_validator

from medphantom.core.errors import InputError, ResourceError
from medphantom.core.folders import publishing, write_json
from medphantom.core.progress import Progress
from medphantom.core.randomness import stream
from medphantom.core.records import Array, Frozen
from medphantom.core.wording import bound_text, shown
from medphantom.phantoms.dicom import ct_series, radiograph, slice_origin, spacing_3d, uid
from medphantom.phantoms.factors import (
    FINDINGS,
    ImageFactors,
    SimulatedPatient,
    continuous_factors,
    factor_column,
    factor_value,
)
from medphantom.phantoms.identities import identity_of
from medphantom.phantoms.mixture import MIXTURE, example
from medphantom.phantoms.narrative import report_of
from medphantom.phantoms.population import Population, draw_patient
from medphantom.phantoms.render import DEFAULT_SIZE, MASK_VALUES, SMALLEST_SIDE, label_map, render

NO_FINDING = "No Finding"
TABLE = "metadata.csv"
TRUTH = "factors.jsonl"
OPTIONS = "phantom.json"
COLUMNS = (
    "image", "patient_id", "study", "uid", "age", "sex", "view", "findings", "site", "report", "mask",
)  # fmt: skip
MAY_BE_MISSING = ("age", "sex", "view", "findings", "report")

Format = Literal["dicom", "png", "nifti"]
Content = Literal["patients", "mixture"]


class PhantomOptions(Frozen):
    """What :func:`write_phantoms` writes.

    Attributes:
        patients: Number of patients to simulate; for a ``mixture``, the number of images.
        content: What the images show: ``patients``, or a ``mixture`` of procedural textures and shapes, slices of
            simulated volumes and simulated radiographs in equal parts, from which a base learns what images are like.
        format: File format, ``dicom``, ``png`` (radiographs only) or ``nifti`` (volumes only).
        spatial_dims: Number of spatial dimensions, 2 or 3; the default is 3 for NIfTI, else 2.
        seed: Seed of the simulation.
        size: Side in pixels; the default is 256 (2-D) or 64 (3-D, with 48 slices).
        masks: Whether to write organ and finding masks too.
        bit_depth: Bit depth of PNG files; DICOM files have that of the site, and 16 is refused where there is no PNG.
        missing: Share of cells in the table that are left empty, which means *missing*, not *absent*.
        factors: Continuous factors to add as columns of the table, by dotted name: ``anatomy.adiposity``,
            ``pose.inspiration``, ``cardiomegaly.severity``; a recipe reads them as attributes (``adiposity``,
            ``inspiration``, ``cardiomegaly_severity``).
        population: Distribution from which patients are drawn.
    """

    patients: Annotated[int, Field(ge=1)]
    content: Content = "patients"
    format: Format = "dicom"
    spatial_dims: Literal[2, 3] = Field(default_factory=lambda given: 3 if given.get("format") == "nifti" else 2)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    size: Annotated[int, Field(ge=SMALLEST_SIDE, le=4096)] = Field(
        default_factory=lambda given: DEFAULT_SIZE[given.get("spatial_dims", 2)]
    )
    masks: bool = False
    bit_depth: Literal[8, 16] = 8
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    factors: tuple[str, ...] = ()
    population: Population = Population()

    @field_validator("factors")
    @classmethod
    def _factors_are_numbers(cls, factors: tuple[str, ...]) -> tuple[str, ...]:
        known = continuous_factors()
        for name in factors:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "e.g. anatomy.adiposity"
                raise ValueError(f"{name!r} is not a continuous factor; {hint}")
        if len(set(factors)) != len(factors):
            raise ValueError("factors must not repeat")
        return factors

    @model_validator(mode="after")
    def _mixture_is_pictures(self) -> PhantomOptions:
        if self.content == "mixture" and (self.format != "png" or self.masks or self.factors or self.missing):
            raise ValueError("a mixture has no masks, factors or missing cells; use format png without them")
        return self

    @model_validator(mode="after")
    def _format_holds_dimensions(self) -> PhantomOptions:
        if (self.format, self.spatial_dims) in {("png", 3), ("nifti", 2)}:
            problem = f"format {self.format} cannot hold {self.spatial_dims}-D images"
            raise ValueError(f"{problem}; use png for 2-D, nifti for 3-D, or dicom")
        return self

    @model_validator(mode="after")
    def _bit_depth_is_of_pictures(self) -> PhantomOptions:
        if self.bit_depth != 8 and self.format != "png":
            raise ValueError(
                f"bit_depth {self.bit_depth} has an effect with format png only, and format is {self.format}"
            )
        return self

    @property
    def factor_columns(self) -> tuple[str, ...]:
        """Names of the columns of ``factors``."""
        return tuple(factor_column(name) for name in self.factors)


@dataclass(frozen=True)
class PhantomSummary:
    """Summary of what :func:`write_phantoms` wrote.

    Attributes:
        folder: Folder that was written.
        total_patients: Number of simulated patients.
        total_images: Number of radiographs or volumes.
        total_files: Number of image files (a CT volume is one file per slice).
        present: Number of images that show each finding.
    """

    folder: Path
    total_patients: int
    total_images: int
    total_files: int
    present: dict[str, int]


@dataclass(frozen=True)
class _Written:
    """Table row and ground truth of one image."""

    row: dict[str, str]
    truth: dict[str, Any]
    total_files: int


def write_phantoms(
    out: str | Path,
    patients: int,
    *,
    content: Content = "patients",
    format: Format = "dicom",  # noqa: A002 - the command line's own word
    spatial_dims: Literal[2, 3] | None = None,
    seed: int = 0,
    size: int | None = None,
    masks: bool = False,
    bit_depth: Literal[8, 16] = 8,
    missing: float = 0.0,
    factors: Sequence[str] = (),
    population: Population | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> PhantomSummary:
    """Simulate patients and write their images with a table, the ground truth and, optionally, masks, atomically.

    Writes ``metadata.csv`` (one row per image: image, patient_id, study, uid, age, sex, view, findings joined by ``|``
    or "No Finding", site, report, mask), ``factors.jsonl`` (all factors of every image), ``phantom.json`` (the options)
    and the images: ``dicom/<archive folders>/*.dcm``, ``images/*.png`` or ``images/*.nii.gz``; masks go to ``masks/``,
    or to ``labels/`` under the image's own name for NIfTI. The bytes do not depend on ``workers``.

    Args:
        out: Folder to create; it must be empty if it exists.
        patients: Number of patients; most have one image, some up to four. Of a mixture, the number of images.
        content: What the images show, see :class:`PhantomOptions`.
        format: File format, ``dicom``, ``png`` (2-D) or ``nifti`` (3-D).
        spatial_dims: Number of spatial dimensions, 2 or 3; by default 3 for NIfTI, else 2.
        seed: Seed of the simulation.
        size: Side in pixels, by default 256 (2-D) or 64 (3-D, with 48 slices).
        masks: Whether to write organ and finding masks.
        bit_depth: Bit depth of PNG files.
        missing: Share of empty cells in the table.
        factors: Continuous factors to add as columns, see :class:`PhantomOptions`.
        population: Distribution from which patients are drawn.
        workers: Number of processes; more than one requires an importable main module.
        progress: Callback that is called with the images done after every patient.

    Raises:
        InputError: If an option is out of bounds, the format cannot hold the dimensions, or ``out`` is in use.
        ResourceError: If the disk is full or cannot be written.
    """
    given = {
        "patients": patients, "content": content, "format": format, "spatial_dims": spatial_dims, "seed": seed,
        "size": size, "masks": masks, "bit_depth": bit_depth, "missing": missing, "factors": factors,
        "population": population,
    }  # fmt: skip
    try:
        options = PhantomOptions.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        if not field:  # a rule of several fields
            what, _, remedy = problem["msg"].removeprefix("Value error, ").partition("; ")
            raise InputError(what, remedy) from None
        if bound := bound_text(problem):
            raise InputError(f"{field} must be {bound}, got {shown(problem['input'])}") from None
        raise InputError(f"{field} cannot be {shown(problem['input'])}", problem["msg"]) from None
    folder = Path(out)
    with publishing(folder, shared=True) as partial:  # these images show no real person
        written: list[_Written] = []
        for done, images in enumerate(_patients_written(partial, options, workers), start=1):
            written += images
            if progress is not None:
                progress(done, patients, "simulating patients")
        _write_tables(partial, options, written)
    return PhantomSummary(
        folder=folder,
        total_patients=patients,
        total_images=len(written),
        total_files=sum(image.total_files for image in written),
        present={
            name: sum(image.truth["labels"][name] for image in written)
            for name in (FINDINGS if content == "patients" else MIXTURE)
        },
    )


def _patients_written(folder: Path, options: PhantomOptions, workers: int) -> Iterator[list[_Written]]:
    """Write every patient, in order of their numbers, distributed over the requested processes."""
    jobs = [(folder, options, number) for number in range(options.patients)]
    if workers <= 1 or options.patients < 4:
        yield from map(_write_patient, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a forked child of a process with threads can hang
    try:
        executor = ProcessPoolExecutor(workers, mp_context=context)
    except OSError:  # shared memory, where its locks are, is full; no real files are read here, so one process suffices
        yield from map(_write_patient, jobs)
        return
    try:
        with executor as pool:
            yield from pool.map(_write_patient, jobs, chunksize=8)
    except BrokenProcessPool:
        raise ResourceError(
            "worker processes cannot start or died", "call it under `if __name__ == '__main__':`, or use workers=1"
        ) from None


def _write_patient(job: tuple[Path, PhantomOptions, int]) -> list[_Written]:
    folder, options, number = job
    if options.content == "mixture":
        return [_write_example(folder, options, number)]
    patient = draw_patient(number, options.seed, options.spatial_dims, options.population)
    return [_write_image(folder, options, patient, image) for image in patient.images]


def _write_example(folder: Path, options: PhantomOptions, number: int) -> _Written:
    """Write one image of a mixture, whose class is its only finding."""
    what, pixels = example(options.seed, number, options.size)
    relative = f"images/m{number:06d}.png"
    stored = pixels * (255 if options.bit_depth == 8 else 65535)
    _write_png(folder / relative, np.rint(stored), options.bit_depth)
    row = dict.fromkeys(COLUMNS, "") | {"image": relative, "patient_id": f"M{number:06d}", "findings": what}
    return _Written(row, {"image": relative, "labels": {name: name == what for name in MIXTURE}}, 1)


def _write_image(folder: Path, options: PhantomOptions, patient: SimulatedPatient, image: ImageFactors) -> _Written:
    pixels = render(image, options.size)
    stem = f"p{patient.number:05d}_{image.image}"
    total_files = 1
    if options.format == "dicom":
        relative, total_files = _write_dicom(folder, options, patient, image, pixels)
    elif options.format == "png":
        relative = f"images/{stem}.png"
        _write_png(folder / relative, pixels >> 8 if options.bit_depth == 8 else pixels, options.bit_depth)
    else:
        relative = f"images/{stem}.nii.gz"
        _write_nifti(folder / relative, pixels, image, options.size)
    mask = _write_mask(folder, options, image, stem) if options.masks else ""
    labels = image.labels
    row = {
        "image": relative,
        "patient_id": identity_of(patient).patient_id,
        "study": f"{patient.number:05d}-{image.study}",
        "uid": uid(patient, "series" if options.spatial_dims == 3 else "image", image.image)
        if options.format == "dicom"
        else "",
        "age": str(int(image.age)),
        "sex": image.sex,
        "view": image.pose.view if options.spatial_dims == 2 else "",
        "findings": "|".join(name for name in FINDINGS if labels[name]) or NO_FINDING,
        "site": image.scanner.site,
        "report": report_of(image),
        "mask": mask,
        **{factor_column(name): f"{factor_value(image, name):.6g}" for name in options.factors},
    }
    draw = stream(options.seed, "missing cells", patient.number, image.image).random(len(MAY_BE_MISSING))
    for name, chance in zip(MAY_BE_MISSING, draw, strict=True):
        if chance < options.missing:
            row[name] = ""
    truth = {"image": relative, "labels": labels, "factors": image.model_dump(mode="json")}
    return _Written(row, truth, total_files)


def _write_dicom(
    folder: Path, options: PhantomOptions, patient: SimulatedPatient, image: ImageFactors, pixels: Array
) -> tuple[str, int]:
    """Write the objects of one image; return its path (a radiograph) or folder (a series), and the number of files."""
    place = f"dicom/{identity_of(patient).folder_name}/ST{image.study + 1:03d}/SE{image.image + 1:03d}"
    (folder / place).mkdir(parents=True)
    if options.spatial_dims == 2:
        relative = f"{place}/IM000001.dcm"
        modality = options.population.site(patient.site).modality
        _save_dicom(radiograph(patient, image, pixels, modality), folder / relative)
        return relative, 1
    shuffled = stream(patient.seed, "file order", patient.number, image.image).permutation(len(pixels))
    for name, dataset in zip(shuffled, ct_series(patient, image, pixels, options.size), strict=True):
        _save_dicom(dataset, folder / place / f"IM{name + 1:06d}.dcm")
    return place, len(pixels)


def _save_dicom(dataset: Any, path: Path) -> None:
    dataset.save_as(path, enforce_file_format=True)


def _write_png(path: Path, pixels: Array, bit_depth: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8 if bit_depth == 8 else np.uint16)).save(path, compress_level=4)


def _write_nifti(path: Path, volume: Array, image: ImageFactors, size: int) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    _, across_h, across_w = spacing = spacing_3d(image, size)
    x, y, z = slice_origin(volume.shape, spacing, 0)
    affine = np.diag([-across_w, -across_h, spacing[0], 1.0])  # voxel (i, j, k) = (W, H, D); NIfTI is RAS, DICOM LPS
    affine[:3, 3] = -x, -y, z
    picture = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    picture.header.set_xyzt_units("mm")
    nibabel.save(picture, path)


def _write_mask(folder: Path, options: PhantomOptions, image: ImageFactors, stem: str) -> str:
    labels = label_map(image, options.size)
    if options.spatial_dims == 2:
        relative = f"masks/{stem}.png"
        _write_png(folder / relative, labels, 8)
    else:
        relative = f"{'labels' if options.format == 'nifti' else 'masks'}/{stem}.nii.gz"
        _write_nifti(folder / relative, labels, image, options.size)
    return relative


def _write_tables(folder: Path, options: PhantomOptions, written: list[_Written]) -> None:
    unused = {"mask"} if not options.masks else set()
    unused |= {"uid"} if options.format != "dicom" else set()
    unused |= {"view"} if options.spatial_dims == 3 else set()
    unused |= {"study", "age", "sex", "view", "site", "report"} if options.content == "mixture" else set()
    columns = [name for name in COLUMNS if name not in unused] + list(options.factor_columns)
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream_out:
        table = csv.DictWriter(stream_out, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(image.row for image in written)
    with (folder / TRUTH).open("w", encoding="utf-8") as stream_out:
        stream_out.writelines(json.dumps(image.truth, sort_keys=True) + "\n" for image in written)
    if options.masks:
        write_json(folder / "mask_values.json", {str(value): name for value, name in MASK_VALUES.items()})
    write_json(folder / OPTIONS, options.model_dump(mode="json"))
