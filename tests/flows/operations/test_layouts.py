"""Ten layouts of public data sets, as they are: ``init`` and ``run`` take them in, with what ``init`` asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from medphantom.cohorts.store import Cohort
from medphantom.flows.cli.main import main
from tests.cohorts.files import structure, uid, write_dicom, write_png, write_series

Layout = tuple[list[str], Callable[[Cohort], None]]


def write_jpeg(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(structure(seed)).save(path, quality=95)


def folder_classes(source: Path) -> Layout:
    for number in range(24):
        write_png(source / ("COVID", "Normal", "Viral Pneumonia")[number % 3] / f"x-{number}.png", structure(number))

    def check(cohort: Cohort) -> None:
        assert cohort.schema.labels == ("COVID", "Normal", "Viral Pneumonia")
        assert cohort.schema.exclusive
        assert cohort.schema.patients == "per_image"

    return ["--folders", "classes"], check


def folders_of_patients(source: Path) -> Layout:
    for number in range(24):
        write_png(source / f"SURNAME{number // 4}_GIVEN" / f"{number}.png", structure(number))

    def check(cohort: Cohort) -> None:
        assert cohort.schema.labels == ()
        assert cohort.schema.patients == "known"
        assert cohort.manifest["patient"].n_unique() == 6

    return ["--folders", "patients"], check


def nih(source: Path) -> Layout:
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    lines = [f"{head}OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"]
    for number in range(24):
        name = f"{number // 2:08d}_{number % 2:03d}.png"
        write_png(source / f"images_{1 + number // 12:03d}" / "images" / name, structure(number))
        finding = ("Effusion|Mass", "No Finding", "Effusion")[number // 2 % 3]
        age = "411" if number == 2 else str(40 + number)
        sex = "MF"[number // 2 % 2]
        lines.append(f"{name},{finding},{number % 2},{number // 2},{age},{sex},PA,2682,2749,0.143,0.143,")
    (source / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")

    def check(cohort: Cohort) -> None:
        assert len(cohort) == 24
        assert cohort.manifest["patient"].n_unique() == 12
        assert set(cohort.schema.labels) == {"Effusion"}  # a mass is shared by four patients only
        assert cohort.attribute("age").count(None) == 1
        assert {spec.name for spec in cohort.schema.attributes} == {"age", "sex", "view"}

    return [], check


def chexpert(source: Path) -> Layout:
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Pneumonia,Support Devices"
    parts = {"train": range(1, 31), "valid": range(101, 111)}
    for part, patients in parts.items():
        lines = [head]
        for patient in patients:
            path = f"{part}/patient{patient:05d}/study1/view1_frontal.jpg"
            write_jpeg(source / path, patient)
            cells = ("1.0,,,", ",,1.0,0.0", ",-1.0,1.0,1.0")[patient % 3]
            sex = "Female" if patient % 2 else "Male"
            lines.append(f"CheXpert-v1.0-small/{path},{sex},{patient % 60},Frontal,AP,{cells}")
        (source / f"{part}.csv").write_text("\n".join(lines) + "\n")

    def check(cohort: Cohort) -> None:
        assert len(cohort) == 40
        assert cohort.schema.patients == "known"
        assert set(cohort.schema.labels) == {"Pneumonia", "Support Devices"}  # only uncertain: nobody has it for sure
        splits = cohort.manifest["split"].to_list()
        assert splits.count("val") == 10
        assert {"train", "holdout", "test"} <= set(splits)

    return ["--folders", "patients"], check


def rsna(source: Path) -> Layout:
    lines = ["patientId,x,y,width,height,Target"]
    for number in range(24):
        patient = f"{number:04x}-5f0e"
        write_dicom(
            source / "stage_2_train_images" / f"{patient}.dcm",
            structure(number),
            PatientID=patient,
            StudyInstanceUID=uid("study", number),
            SeriesInstanceUID=uid("series", number),
            Modality="CR",
        )
        boxes = ["264.0,152.0,213.0,379.0,1", "562.0,152.0,256.0,453.0,1"] if number % 2 else [",,,,0"]
        lines += [f"{patient},{box}" for box in boxes]
    (source / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")

    def check(cohort: Cohort) -> None:
        assert len(cohort) == 24
        assert cohort.schema.labels == ("Target",)
        assert (cohort.labels() == 1).sum() == (cohort.labels() == 0).sum() == 12
        assert cohort.manifest["patient"].n_unique() == 24

    return [], check


def isic(source: Path) -> Layout:
    names = ["MEL", "NV", "BCC", "UNK"]
    lines = ["image," + ",".join(names)]
    for number in range(24):
        write_jpeg(source / "ISIC_2019_Training_Input" / f"ISIC_{number:07d}.jpg", number)
        lines.append(f"ISIC_{number:07d}," + ",".join("1.0" if number % 3 == place else "0.0" for place in range(4)))
    (source / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(lines) + "\n")

    def check(cohort: Cohort) -> None:
        assert cohort.schema.labels == ("MEL", "NV", "BCC")  # nobody is UNK
        assert (cohort.labels() == 1).sum(axis=0).tolist() == [8, 8, 8]

    return [], check


def vindr(source: Path) -> Layout:
    lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for number in range(24):
        name = f"{number:032x}"
        write_dicom(
            source / "train" / f"{name}.dicom",
            structure(number),
            PatientID="",
            StudyInstanceUID="",
            SeriesInstanceUID="",
            Modality="DX",
        )
        if number % 2:
            lines += [f"{name},Cardiomegaly,3,R{reader},691.0,1375.0,1653.0,1831.0" for reader in (8, 9)]
            lines += [f"{name},Pleural effusion,10,R8,1.0,2.0,3.0,4.0"] * (number % 3 == 0)
        else:
            lines += [f"{name},No finding,14,R{reader},,,," for reader in (8, 9, 10)]
    (source / "train.csv").write_text("\n".join(lines) + "\n")

    def check(cohort: Cohort) -> None:
        assert len(cohort) == 24
        assert cohort.schema.labels == ("Cardiomegaly",)  # an effusion is shared by four only
        assert (cohort.labels() == 1).sum() == 12
        assert cohort.schema.patients == "per_image"

    return [], check


def nnunet(source: Path) -> Layout:
    for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (source / folder).mkdir(parents=True)
    for number in range(12):
        part = "Ts" if number >= 9 else "Tr"
        volume = structure(number, (14, 13, 12), "int16", 900)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), source / f"images{part}" / f"case_{number:03d}_0000.nii.gz")
        mask = (volume > 450).astype(np.uint8) + (volume > 700)
        file = source / f"labels{part}" / f"case_{number:03d}.nii.gz"
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)), file)
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "numTraining": 9,
             "file_ending": ".nii.gz"}  # fmt: skip
    (source / "dataset.json").write_text(json.dumps(facts))

    def check(cohort: Cohort) -> None:
        assert len(cohort) == 12
        assert cohort.schema.mask_values == {0: "background", 1: "liver", 2: "tumour"}
        assert set(cohort.manifest["modality"]) == {"CT"}
        assert cohort.manifest["split"].to_list().count("test") == 3
        assert all(mask is not None for mask in cohort.masks(range(12)))

    return [], check


def medmnist(source: Path) -> Layout:
    arrays = {}
    for place, (part, total) in enumerate((("train", 30), ("val", 8), ("test", 10))):
        arrays[f"{part}_images"] = np.stack([structure(100 * place + n, (28, 28)) for n in range(total)])
        arrays[f"{part}_labels"] = (np.arange(total) % 2).reshape(-1, 1).astype(np.uint8)
    np.savez(source / "pneumoniamnist.npz", **arrays)

    def check(cohort: Cohort) -> None:
        assert cohort.schema.labels == ("0", "1")
        counts = dict(cohort.manifest.group_by("split").len().iter_rows())
        assert (counts["val"], counts["test"]) == (8, 10)
        assert counts["train"] + counts["holdout"] == 30

    return [], check


def dicom_tree(source: Path) -> Layout:
    lines = ["PatientID;Age;Diagnosis"]
    for patient in range(10):
        volume = structure(patient, (6, 16, 16), "uint16", 999)
        write_series(
            source / f"PAT{patient}" / "study" / "CT thorax",
            volume,
            [(0, 0, 2.0 * z) for z in range(6)],
            PatientID=f"PAT{patient}",
            SeriesInstanceUID=uid("tree", patient),
            StudyInstanceUID=uid("tree study", patient),
        )
        lines.append(f"PAT{patient};{50 + patient},5;{'A, B' if patient % 2 else 'A'}")
    (source / "klinik.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode("cp1252"))

    def check(cohort: Cohort) -> None:
        assert len(cohort) == 10
        assert cohort.schema.spatial_dims == 3
        assert set(cohort.schema.labels) == {"A", "B"}
        assert sorted(cohort.attribute("age")) == [50.5 + n for n in range(10)]

    return [], check


LAYOUTS = [folder_classes, folders_of_patients, nih, chexpert, rsna, isic, vindr, nnunet, medmnist, dicom_tree]


@pytest.mark.parametrize("build", LAYOUTS, ids=lambda build: build.__name__)
def test_public_layouts_need_no_option_but_what_init_asks(
    build: Callable[[Path], Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    answers, check = build(source)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "identity.key").write_text("2b" * 32 + "\n")  # a fixed key: the same splits every time
    monkeypatch.setenv("MEDPHANTOM_KEY_FILE", str(tmp_path / "identity.key"))
    if answers:  # without them, init says what it wants to know, and the run stops there
        assert main(["init", "open.yaml", "--source", "source"]) == 0
        assert "confirm cohort.options.folders" in capsys.readouterr().out
        assert main(["run", "open.yaml", "--until", "ingest", "--no-prefect"]) == 2
        assert "nothing says whether" in capsys.readouterr().err
    assert main(["init", "recipe.yaml", "--source", "source", *answers]) == 0
    assert "confirm" not in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["name"] == "recipe"
    assert main(["run", "recipe.yaml", "--until", "ingest", "--no-prefect"]) == 0
    cohort = Cohort.open(tmp_path / "runs" / "recipe" / "cohort")
    check(cohort)
    assert cohort.manifest.filter(pl.col("split").is_null()).is_empty()
