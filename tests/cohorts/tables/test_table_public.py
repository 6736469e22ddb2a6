"""The tables of public data sets, with their own headers, are understood without an option; so is our own export."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.tables.join import FileKey
from medphantom.cohorts.tables.table import Table
from tests.cohorts.files import structure, take_in, uid, write_dicom, write_png
from tests.cohorts.tables.written import contents, joined, present


def test_nih_chest_x_ray(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "Data_Entry_2017.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Cardiomegaly|Emphysema,000,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
        "00000002_000.png,No Finding,000,2,081Y,M,PA,2500,2048,0.171,0.171,\n"
        "00000003_000.png,Emphysema,000,3,411Y,F,AP,2500,2048,0.168,0.168,\n",
        ["images/00000001_000.png", "images/00000002_000.png", "images/00000003_000.png"],
    )
    first, second, third = contents(table, 3)
    assert first.labels == {"Cardiomegaly": True, "Emphysema": True}
    assert second.labels == {"Cardiomegaly": False, "Emphysema": False}
    assert (first.patient, first.attributes) == ("1", {"age": 58.0, "sex": "M", "view": "PA"})
    assert third.attributes == {"age": None, "sex": "F", "view": "AP"}


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Edema,"
    "Support Devices\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,1.0\n"
    "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,-1.0,\n"
    "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,0.0,,1.0,-1.0,\n"
)


def test_chexpert(tmp_path: Path) -> None:
    files = ["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study2/view1_frontal.jpg",
             "train/patient00002/study1/view2_lateral.jpg"]  # fmt: skip
    table = joined(tmp_path / "train.csv", CHEXPERT, files)
    first, second, third = contents(table, 3)
    assert table.labels == ("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Edema", "Support Devices")
    assert first.labels == {
        "Enlarged Cardiomediastinum": False, "Cardiomegaly": False, "Lung Opacity": False, "Edema": False,
        "Support Devices": True,
    }  # fmt: skip
    assert second.labels["Cardiomegaly"] is None
    assert third.labels["Enlarged Cardiomediastinum"] is False
    assert first.attributes == {"age": 68.0, "sex": "Female", "view": "AP", "frontal_lateral": "Frontal"}
    assert third.attributes["view"] is None
    assert not table.exclusive
    assert "joined by column 'Path': 3 of 3 images (3 by end of the path)" in table.understood()


def test_rsna_pneumonia_boxes(tmp_path: Path) -> None:
    ids = ["0004cfab-14fd-4e49-80ba-63a80b6bddd6", "00436515-870c-4b36-a041-de91049b9ab4"]
    rows = f"patientId,x,y,width,height,Target\n{ids[0]},,,,,0\n{ids[1]},264.0,152.0,213.0,379.0,1\n"
    rows += f"{ids[1]},562.0,152.0,256.0,453.0,1\n"
    for files in (
        [f"stage_2_train_images/{name}.dcm" for name in ids],
        [FileKey((f"{number}.dcm",), (uid(number),), name) for number, name in enumerate(ids)],
    ):
        table = joined(tmp_path / "stage_2_train_labels.csv", rows, files)
        assert [content.labels for content in contents(table, 2)] == [{"Target": False}, {"Target": True}]
        assert [content.patient for content in contents(table, 2)] == ids
        assert "columns of boxes, not used: 'x', 'y', 'width', 'height'" in table.understood()
        assert "1 images have several rows, whose labels are united" in table.understood()
    detailed = f"patientId,class\n{ids[0]},No Lung Opacity / Not Normal\n{ids[1]},Lung Opacity\n{ids[1]},Lung Opacity\n"
    table = joined(tmp_path / "stage_2_detailed_class_info.csv", detailed, files)
    assert present(table, table.row_of(1)) == {"Lung Opacity"}


def test_every_positive_image_of_a_box_table_is_taken(tmp_path: Path) -> None:
    for number in range(3):
        name = f"0000{number}"
        write_dicom(tmp_path / "s" / f"{name}.dcm", structure(number), PatientID=name, StudyInstanceUID=uid(number))
    rows = "00000,,,,,0\n00001,1,2,3,4,1\n00001,5,6,7,8,1\n00002,1,2,3,4,1\n00002,1,2,3,4,1\n"
    (tmp_path / "s" / "labels.csv").write_text(f"patientId,x,y,width,height,Target\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.accepted == 3
    assert sorted(record.labels["Target"] for record in result.cohort.records()) == [False, True, True]
    assert result.cohort.schema.patients == "known"


def test_vindr_readers_and_boxes(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "50a418190bc3fb1ef1633bf9678929b3,No finding,14,R11,,,,\n"
        "50a418190bc3fb1ef1633bf9678929b3,No finding,14,R15,,,,\n"
        "9a5094b2563a1ef3ff50dc5c7ff71345,Cardiomegaly,3,R10,691.0,1375.0,1653.0,1831.0\n"
        "9a5094b2563a1ef3ff50dc5c7ff71345,Aortic enlargement,0,R10,1264.0,743.0,1611.0,1019.0\n"
        "9a5094b2563a1ef3ff50dc5c7ff71345,No finding,14,R8,,,,\n",
        ["train/50a418190bc3fb1ef1633bf9678929b3.dicom", "train/9a5094b2563a1ef3ff50dc5c7ff71345.dicom"],
    )
    assert [content.labels for content in contents(table, 2)] == [
        {"Aortic enlargement": False, "Cardiomegaly": False},
        {"Aortic enlargement": True, "Cardiomegaly": True},
    ]
    assert {content.patient for content in contents(table, 2)} == {""}  # a reader is no patient
    assert "columns not used: 'class_id', 'rad_id'" in table.understood()


def test_isic_one_hot(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "ISIC_2019_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
        "ISIC_0000000,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\nISIC_0000002,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n",
        ["ISIC_0000000.jpg", "ISIC_0000002.jpg"],
    )
    assert len(table.labels) == 9
    assert table.exclusive
    assert [present(table, table.row_of(number)) for number in range(2)] == [{"NV"}, {"MEL"}]
    clinical = joined(
        tmp_path / "train.csv",
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
        "ISIC_2637011,IP_7279968,male,45.0,head/neck,unknown,benign,0\n"
        "ISIC_0015719,IP_3075186,female,45.0,upper extremity,melanoma,malignant,1\n",
        ["ISIC_2637011.jpg", "ISIC_0015719.jpg"],
    )
    first = clinical.content(clinical.row_of(0))
    assert (first.patient, first.labels) == ("IP_7279968", {"melanoma": False, "unknown": True})
    assert first.attributes == {"age": 45.0, "sex": "male", "body_part": "head/neck"}


def test_ham10000(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp\nHAM_0001466,ISIC_0031633,nv,histo,,unknown,ear\n",
        ["part_1/ISIC_0027419.jpg", "part_2/ISIC_0031633.jpg"],
    )
    first, second = contents(table, 2)
    assert (first.labels, first.patient) == ({"bkl": True, "nv": False}, "")  # a lesion is no patient
    assert second.attributes == {"age": None, "sex": None, "body_part": "ear"}
    assert table.exclusive


def test_padchest(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "PADCHEST.csv",
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
        "Labels\n"
        "0,20536686640136348236148679891455886468.png,0,20140915,2053668,839860488694,1930.0,F,POSTEROANTERIOR,PA,"
        "\"['pulmonary fibrosis', 'chronic changes']\"\n"
        "1,113855343774216031107737439268243531979.png,0,20150914,1138553,313572750430,1945.0,M,,L,\"['normal']\"\n",
        ["20536686640136348236148679891455886468.png", "113855343774216031107737439268243531979.png"],
    )
    first, second = contents(table, 2)
    assert first.labels == {"chronic changes": True, "pulmonary fibrosis": True}
    assert second.labels == {"chronic changes": False, "pulmonary fibrosis": False}
    assert (first.patient, first.study) == ("839860488694", "2053668")
    assert first.attributes == {"sex": "F", "view": "PA"}  # never a year of birth


def test_mimic_cxr(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "mimic-cxr-2.0.0-metadata.csv",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,split\n"
        "02aa804e-bde0afdd,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,train\n"
        "174413ec-4ec4c1f7,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,validate\n",
        ["files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm", "files/p10/p10000032/s50414267/174413ec-4ec4c1f7.dcm"],
    )
    first, second = contents(table, 2)
    assert (first.patient, first.study, first.split) == ("10000032", "50414267", "train")
    assert (second.split, second.attributes) == ("val", {"view": "LATERAL"})


def test_our_own_export_is_understood(tmp_path: Path) -> None:
    for number in range(6):
        write_png(tmp_path / "s" / "images" / f"{number}.png", structure(number))
        write_png(tmp_path / "s" / "masks" / f"{number}.png", (structure(number) > 128).astype("uint8"))
    rows = "".join(f"{number}.png,{number // 2},{number % 2},{50 + number},PA\n" for number in range(6))
    (tmp_path / "s" / "t.csv").write_text(f"image,patient,label,age,view\n{rows}")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    export_cohort(cohort, tmp_path / "out", layout="table")
    written = pl.read_csv(tmp_path / "out" / "metadata.csv", infer_schema=False)
    table = Table.read(tmp_path / "out" / "metadata.csv", IngestOptions())
    assert table.bind([FileKey((path,)) for path in written["file_name"]]) == 1
    assert (table.labels, table.has_masks, table.has_splits) == (("label",), True, True)
    assert {spec.name: spec.kind for spec in table.attributes} == {"age": "continuous", "view": "categorical"}
    for number, row in enumerate(written.iter_rows(named=True)):
        content = table.content(table.row_of(number))
        assert (content.patient, content.split) == (row["patient"], row["split"])
        assert content.split in SPLITS
        assert content.labels == {"label": row["label:label"] == "1"}
        assert table.mask_cell(table.row_of(number)) == row["mask"]
        assert content.attributes["age"] == float(row["attr:age"])
        assert content.text is None
    bare = joined(
        tmp_path / "bare.csv",
        "file_name,image_id,patient,split,value_slope,value_intercept,exact,seed\na.png,i,p,synthetic,-1.0,0.0,true,1\n",
        ["a.png"],
    )
    assert (bare.labels, bare.has_splits) == ((), False)
