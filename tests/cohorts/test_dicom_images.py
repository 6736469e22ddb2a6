"""DICOM files as images: values are pydicom's, directions and windows are recorded, headers stay behind."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from medphantom.cohorts.preprocess import Preprocess, Window
from medphantom.cohorts.readers.dicom_header import HEADER_ALLOW_LIST, years
from medphantom.cohorts.records import Voi
from medphantom.core.records import Array
from tests.cohorts.files import (
    dicom_dataset,
    expected_pixels,
    images_by_path,
    reasons,
    rejections,
    sequence,
    structure,
    take_in,
    uid,
    write_dicom,
)


def only_image(tmp_path: Path, **options: object) -> tuple[Array, str]:
    """Pixels and dtype of the only image of ``source``; equal to what pydicom says."""
    result = take_in(tmp_path / "source", tmp_path / "cohort", **options)
    ((path, images),) = images_by_path(result).items()
    expected = expected_pixels(tmp_path / "source" / path)
    assert np.array_equal(np.squeeze(np.stack(images)), expected)
    return images[0], images[0].dtype.name


@pytest.mark.parametrize(
    ("pixels", "elements", "dtype"),
    [
        (structure(1), {}, "uint8"),
        (structure(1), {"RescaleSlope": 1, "RescaleIntercept": 0}, "uint8"),  # an identity rescale widens nothing
        (structure(1, dtype="uint16", high=4095), {"BitsStored": 12, "HighBit": 11}, "uint16"),
        (structure(1, dtype="uint16", high=65535), {}, "uint16"),
        (structure(1, dtype="uint16", high=4095), {"RescaleSlope": 1, "RescaleIntercept": -1024}, "int16"),
        (structure(1, dtype="int16", high=3000) - 1000, {"RescaleSlope": 2, "RescaleIntercept": 5}, "int16"),
        (structure(1, dtype="uint16", high=60000), {"RescaleSlope": 3, "RescaleIntercept": -5}, "int32"),
        (structure(1, dtype="uint16", high=4095), {"RescaleSlope": 0.5, "RescaleIntercept": 0.25}, "float32"),
        (structure(1, dtype="uint16", high=4095), {"RescaleSlope": 3.774114, "RescaleIntercept": 6.1e-5}, "float64"),
        (structure(1, dtype="uint32", high=2**31), {}, "uint32"),
    ],
)
def test_values_are_those_of_the_modality_lut_in_the_smallest_exact_dtype(
    tmp_path: Path, pixels: Array, elements: dict[str, object], dtype: str
) -> None:
    write_dicom(tmp_path / "source" / "a.dcm", pixels, **elements)
    assert only_image(tmp_path)[1] == dtype


def test_modality_lut_sequence(tmp_path: Path) -> None:
    pixels = structure(2, dtype="uint16", high=255)
    table = (np.arange(256)[::-1] ** 2).astype("<u2").tobytes()
    lut = sequence(LUTDescriptor=[256, 0, 16], ModalityLUTType="US", LUTData=table)
    write_dicom(tmp_path / "source" / "a.dcm", pixels, ModalityLUTSequence=lut)
    image, _ = only_image(tmp_path)
    assert np.array_equal(image, (255 - pixels.astype(int)) ** 2)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless])
def test_transfer_syntaxes(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    pixels = structure(3, dtype="uint16", high=4095)
    ds = dicom_dataset(pixels, BitsStored=12, HighBit=11)
    if syntax.is_compressed:
        ds.compress(syntax)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = pixels.astype(">u2").tobytes()
    (tmp_path / "source").mkdir()
    ds.save_as(tmp_path / "source" / "a.dcm", enforce_file_format=True)
    image, dtype = only_image(tmp_path)
    assert np.array_equal(image, pixels)
    assert dtype == "uint16"


def test_a_file_without_preamble_and_meta_header_is_taken(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "a").open("wb") as stream:
        pixels = structure(4)
        ds = dicom_dataset(pixels)
        del ds.file_meta
        pydicom.dcmwrite(stream, ds, implicit_vr=True, little_endian=True, enforce_file_format=False)
    image, _ = only_image(tmp_path)
    assert np.array_equal(image, pixels)


def test_monochrome1_keeps_its_values_and_reaches_the_network_bone_bright(tmp_path: Path) -> None:
    bone_bright = structure(5, dtype="uint16", high=1023)
    write_dicom(tmp_path / "s" / "a.dcm", 1023 - bone_bright, PhotometricInterpretation="MONOCHROME1")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    (record,) = cohort.records()
    assert record.inverted
    assert np.array_equal(record.pixels, 1023 - bone_bright)
    preprocess = Preprocess(size=(32, 32), intensity=Window(low=0, high=1023), stored_dtype="uint16")
    seen = preprocess.apply(record.pixels, inverted=record.inverted)
    assert np.array_equal(preprocess.undo(seen), bone_bright)
    assert np.array_equal(preprocess.undo(seen, inverted=True), record.pixels)


def test_colour_becomes_luminance_stays_or_is_refused(tmp_path: Path) -> None:
    rgb = np.stack([structure(6), structure(7), structure(8)], axis=-1)
    write_dicom(tmp_path / "s" / "a.dcm", rgb)
    grey = take_in(tmp_path / "s", tmp_path / "grey").cohort
    exact = rgb[..., 0] * 0.299 + rgb[..., 1] * 0.587 + rgb[..., 2] * 0.114  # ITU-R BT.601
    assert np.abs(grey.pixels([0])[0] - exact).max() <= 0.5 + 1e-9
    kept = take_in(tmp_path / "s", tmp_path / "keep", color="keep").cohort
    assert np.array_equal(kept.pixels([0])[0], rgb)
    assert kept.manifest["channels"].to_list() == [3]
    write_dicom(tmp_path / "s" / "b.dcm", np.repeat(structure(6)[..., np.newaxis], 3, axis=-1))  # grey, stored as RGB
    result = take_in(tmp_path / "s", tmp_path / "reject", color="reject")
    assert rejections(result) == {"a.dcm": "color"}
    assert np.array_equal(images_by_path(result)["b.dcm"][0], structure(6))


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    rgb = np.stack([structure(6), structure(7), structure(8)], axis=-1)
    ybr = pydicom.pixels.convert_color_space(rgb, "RGB", "YBR_FULL")
    write_dicom(tmp_path / "source" / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    image, _ = only_image(tmp_path, color="keep")
    assert np.abs(image.astype(int) - rgb).max() <= 2  # the colour transform rounds


def test_palette_colours_go_through_their_tables(tmp_path: Path) -> None:
    indices = structure(9, high=255)
    tables = {}
    for name, slope in (("Red", 1), ("Green", 2), ("Blue", 3)):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        data = (np.arange(256) * 85 * slope).astype("<u2").tobytes()
        tables[f"{name}PaletteColorLookupTableData"] = data
    write_dicom(tmp_path / "source" / "a.dcm", indices, PhotometricInterpretation="PALETTE COLOR", **tables)
    image, _ = only_image(tmp_path, color="keep")
    assert np.array_equal(image, indices[..., np.newaxis].astype(int) * 85 * [1, 2, 3])


def test_frames_become_images_and_frames_may_be_refused(tmp_path: Path) -> None:
    frames = np.stack([structure(seed) for seed in (1, 2, 3)])
    write_dicom(tmp_path / "s" / "a.dcm", frames)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert np.array_equal(np.stack(images_by_path(result)["a.dcm"]), frames)
    assert len(set(result.cohort.manifest["patient"])) == 1
    with pytest.raises(Exception, match="1 geometry"):
        take_in(tmp_path / "s", tmp_path / "d", frames="reject")


def test_a_bad_frame_does_not_take_the_good_ones_with_it(tmp_path: Path) -> None:
    frames = np.stack([structure(1), np.full((32, 32), 7, np.uint8), structure(3)])
    write_dicom(tmp_path / "s" / "a.dcm", frames)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert (result.accepted, result.accepted_files, result.rejected_frames) == (2, 1, 1)
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    assert table.select("frame", "reason").rows() == [(1, "constant")]


def test_enhanced_objects_rescale_each_frame_by_its_own_functional_group(tmp_path: Path) -> None:
    frames = np.stack([structure(1, dtype="uint16", high=999), structure(2, dtype="uint16", high=999)])
    groups = [
        {"PixelValueTransformationSequence": sequence(RescaleSlope=slope, RescaleIntercept=-10, RescaleType="US")}
        for slope in (1, 2)
    ]
    per_frame = [sequence(**group)[0] for group in groups]
    windows = sequence(FrameVOILUTSequence=sequence(WindowCenter=40, WindowWidth=400))
    write_dicom(
        tmp_path / "s" / "a.dcm",
        frames,
        PerFrameFunctionalGroupsSequence=per_frame,
        SharedFunctionalGroupsSequence=windows,
    )
    records = sorted(take_in(tmp_path / "s", tmp_path / "c").cohort.records(), key=lambda r: float(r.pixels.max()))
    assert np.array_equal(records[0].pixels, frames[0].astype(int) - 10)
    assert np.array_equal(records[1].pixels, frames[1].astype(int) * 2 - 10)
    assert records[0].voi == Voi(40, 400)


@pytest.mark.parametrize(("whole", "taken"), [((1, 0), True), ((1, -10), True), ((2, 0), False)])
def test_the_rescale_of_a_frame_comes_before_one_of_the_data_set(
    tmp_path: Path, whole: tuple[int, int], taken: bool
) -> None:
    frames = np.stack([structure(seed, dtype="uint16", high=999) for seed in (1, 2)])
    shared = sequence(PixelValueTransformationSequence=sequence(RescaleSlope=1, RescaleIntercept=-10, RescaleType="US"))
    stated = {"SharedFunctionalGroupsSequence": shared, "RescaleSlope": whole[0], "RescaleIntercept": whole[1]}
    write_dicom(tmp_path / "s" / "a.dcm", frames, **stated)
    write_dicom(tmp_path / "s" / "b.dcm", structure(3, dtype="uint16", high=999))
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert [reason.value for reason in result.rejected] == ([] if taken else ["unsupported_pixels"])
    found = images_by_path(result).get("a.dcm", [])
    assert len(found) == (2 if taken else 0)
    assert all(np.array_equal(pixels, frame.astype(int) - 10) for pixels, frame in zip(found, frames, strict=False))


def test_spacing_comes_from_the_attribute_that_the_standard_prefers(tmp_path: Path) -> None:
    both = {"PixelSpacing": [0.3, 0.4], "ImagerPixelSpacing": [0.6, 0.8]}
    write_dicom(tmp_path / "s" / "a.dcm", structure(1), **both)
    write_dicom(tmp_path / "s" / "b.dcm", structure(2), ImagerPixelSpacing=[0.6, 0.8])
    magnified = {"ImagerPixelSpacing": [0.6, 0.8], "EstimatedRadiographicMagnificationFactor": 2}
    write_dicom(tmp_path / "s" / "c.dcm", structure(3), **magnified)
    write_dicom(tmp_path / "s" / "d.dcm", structure(4))
    manifest = take_in(tmp_path / "s", tmp_path / "c").cohort.manifest
    assert manifest["spacing_mm"].to_list() == [[0.3, 0.4], [0.6, 0.8], [0.3, 0.4], None]


def test_voi_window_is_metadata_only(tmp_path: Path) -> None:
    pixels = structure(1, dtype="uint16", high=4095)
    write_dicom(tmp_path / "s" / "a.dcm", pixels, WindowCenter=[100, 300], WindowWidth=[20, 400])
    (record,) = take_in(tmp_path / "s", tmp_path / "c").cohort.records()
    assert record.voi == Voi(100, 20)
    assert np.array_equal(record.pixels, pixels)


@pytest.mark.parametrize(
    ("text", "expected"), [("041Y", 41), ("006M", 0.5), ("10Y", 10), ("", None), ("41", None), ("Smith", None)]
)
def test_age_strings(text: str, expected: float | None) -> None:
    assert years(text) == expected


def test_nothing_of_a_header_is_kept_beyond_the_allow_list(tmp_path: Path) -> None:
    secrets = {
        "PatientName": "Zyxwv^Utsrq",
        "PatientID": "SECRET-ID-4711",
        "PatientBirthDate": "19331122",
        "PatientAddress": "Secret Street 9",
        "InstitutionName": "Secret Hospital",
        "ReferringPhysicianName": "Doctor^Secret",
        "StudyDescription": "Secret study of Zyxwv",
        "ImageComments": "Zyxwv again",
        "AccessionNumber": "ACC-998877",
        "StudyInstanceUID": uid("secret study"),
        "ViewPosition": "see Mr. Zyxwv",  # free text where a code belongs
        "BodyPartExamined": "CHEST",
        "PatientAge": "041Y",
    }
    with pydicom.config.disable_value_validation():
        ds = dicom_dataset(structure(1, dtype="uint16", high=999), **secrets)
    ds.private_block(0x0009, "Zyxwv Corp", create=True).add_new(1, "LO", "private Zyxwv")
    (tmp_path / "Zyxwv").mkdir()
    ds.save_as(tmp_path / "Zyxwv" / "Zyxwv.dcm", enforce_file_format=True)
    result = take_in(tmp_path / "Zyxwv", tmp_path / "cohort")
    everything = b"".join(path.read_bytes() for path in sorted(result.cohort.path.rglob("*")) if path.is_file())
    everything += json.dumps(result.cohort.manifest.to_dicts()).encode() + repr(result.warnings).encode()
    for secret in ("Zyxwv", "SECRET", "4711", "19331122", "Secret", "998877", secrets["StudyInstanceUID"]):
        assert secret.encode() not in everything
    assert result.cohort.attribute("age") == [41.0]
    assert result.cohort.attribute("body_part") == ["CHEST"]
    assert "view" not in {spec.name for spec in result.cohort.schema.attributes}
    assert "SECRET-ID-4711" in pl.read_parquet(result.private_folder / "links.parquet")["patient_id"].to_list()


def test_the_allow_list_names_real_elements() -> None:
    for keyword in HEADER_ALLOW_LIST:
        assert pydicom.datadict.tag_for_keyword(keyword) is not None


def test_files_that_are_no_images_say_why(tmp_path: Path) -> None:
    source = tmp_path / "s"
    write_dicom(source / "good.dcm", structure(1))
    report = dicom_dataset(structure(1))
    for keyword in ("PixelData", "Rows", "Columns"):
        del report[keyword]
    report.save_as(source / "report.dcm", enforce_file_format=True)
    no_pixels = dicom_dataset(structure(1), SOPInstanceUID=uid(2))
    del no_pixels.PixelData
    no_pixels.save_as(source / "no_pixels.dcm", enforce_file_format=True)
    write_dicom(source / "seg.dcm", structure(2), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    write_dicom(source / "small.dcm", structure(3, (4, 40)))
    write_dicom(source / "flat.dcm", np.full((32, 32), 3, np.uint8))
    whole = (source / "good.dcm").read_bytes()
    (source / "cut.dcm").write_bytes(whole[:-300])
    (source / "cut_header.dcm").write_bytes(whole[:200])
    (source / "notes.txt").write_text("no image")
    (source / "empty.dcm").write_bytes(b"")
    (source / "garbage.dcm").write_bytes(b"\0" * 128 + b"DICM" + bytes(range(256)) * 4)
    private = dicom_dataset(structure(4), SOPInstanceUID=uid(5))
    private.file_meta.TransferSyntaxUID = "1.2.3.4.5"
    private.save_as(source / "private.dcm", enforce_file_format=True, implicit_vr=False, little_endian=True)
    result = take_in(source, tmp_path / "c")
    found = rejections(result)
    assert result.accepted == 1
    assert {path: found[path] for path in sorted(found) if path != "garbage.dcm"} == {
        "cut_header.dcm": "truncated",
        "cut.dcm": "truncated",
        "empty.dcm": "not_an_image",
        "flat.dcm": "constant",
        "no_pixels.dcm": "no_pixels",
        "notes.txt": "not_an_image",
        "private.dcm": "undecodable",
        "report.dcm": "no_pixels",
        "seg.dcm": "unsupported_pixels",
        "small.dcm": "too_small",
    }
    assert found["garbage.dcm"] in {"no_pixels", "broken", "truncated"}


def test_float_images_with_nan_are_refused(tmp_path: Path) -> None:
    pixels = structure(1).astype(np.float32)
    for name, planted in (("good.dcm", 1.5), ("bad.dcm", np.nan)):
        pixels[3, 3] = planted
        ds = dicom_dataset(pixels, SOPInstanceUID=uid(name))
        del ds.PixelData, ds.PixelRepresentation, ds.BitsStored, ds.HighBit
        ds.FloatPixelData = pixels.tobytes()
        (tmp_path / "s").mkdir(exist_ok=True)
        ds.save_as(tmp_path / "s" / name, enforce_file_format=True)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert rejections(result) == {"bad.dcm": "not_finite"}
    assert result.cohort.pixels([0])[0].dtype == np.float32


def test_an_image_larger_than_allowed_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s" / "good.dcm", structure(1))
    bomb = dicom_dataset(np.zeros((1, 1), np.uint8), SOPInstanceUID=uid("bomb"))
    bomb.compress(RLELossless)
    bomb.Rows = bomb.Columns = 65535  # 4 GiB out of a few bytes
    bomb.save_as(tmp_path / "s" / "bomb.dcm", enforce_file_format=True)
    assert reasons(take_in(tmp_path / "s", tmp_path / "c")) == {"too_large": 1}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_panic_of_a_codec_is_no_end_of_the_run(tmp_path: Path, workers: int) -> None:
    write_dicom(tmp_path / "s" / "good.dcm", structure(1))
    bad = dicom_dataset(structure(2, dtype="uint16", high=999), SOPInstanceUID=uid("bad"))
    bad.file_meta.TransferSyntaxUID = RLELossless
    segment = (b"\x7f" + bytes(128)) * 8  # 32 x 32 bytes
    longer = segment + b"\xff\5"  # and a run that leaves the frame: the Rust decoder panics, which is no Exception
    frame = struct.pack("<16L", 2, 64, 64 + len(longer), *[0] * 13) + longer + segment
    bad.PixelData = encapsulate([frame])
    bad["PixelData"].VR, bad["PixelData"].is_undefined_length = "OB", True
    bad.save_as(tmp_path / "s" / "bad.dcm", enforce_file_format=True)
    result = take_in(tmp_path / "s", tmp_path / "c", workers=workers)
    assert rejections(result) == {"bad.dcm": "undecodable"}
