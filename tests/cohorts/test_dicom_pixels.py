"""What a header says of its pixels is honoured, or the image is refused with a reason (PS3.3 C.7.6.3, C.11, PS3.5)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from medphantom.cohorts.readers import dicom
from medphantom.cohorts.readers.common import DecodedImage, ReadOptions
from medphantom.cohorts.records import Voi
from medphantom.core.errors import UnreadableImage
from medphantom.core.records import Array
from tests.cohorts.files import AXIAL, dicom_dataset, reasons, sequence, structure, take_in, write_dicom, write_series

OPTIONS = ReadOptions(
    spatial_dims=2, color="keep", split_frames=True, min_side=8, min_slices=4, max_bytes=2**30, near_duplicates=False
)
TWELVE = {"BitsStored": 12, "HighBit": 11}


def grey(high: int = 4095, dtype: str = "uint16") -> Array:
    return structure(1, dtype=dtype, high=high)


def image_of(path: Path, pixels: Array, **elements: Any) -> DecodedImage:
    """What the reader makes of a file with these pixels and header elements."""
    write_dicom(path, pixels, **elements)
    return dicom.read_images(path, OPTIONS)[0]


def refusal_of(path: Path, pixels: Array, **elements: Any) -> str:
    """Why the reader refuses such a file: reason and detail."""
    with pytest.raises(UnreadableImage) as error:
        image_of(path, pixels, **elements)
    return str(error.value)


@pytest.mark.parametrize("high", [11, 13, 15])
@pytest.mark.parametrize("signed", [False, True])
def test_only_the_valid_bits_are_values(tmp_path: Path, high: int, signed: bool) -> None:
    values = grey().astype(np.int64) - 2048 * signed
    shift = high - 11
    rubbish = np.random.default_rng(0).integers(0, 2**16, values.shape) & ~(0xFFF << shift)
    cells = ((values & 0xFFF) << shift | rubbish).astype(np.uint16)
    image = image_of(tmp_path / "a", cells, BitsStored=12, HighBit=high, PixelRepresentation=int(signed))
    assert np.array_equal(image.pixels, values)


def test_overlays_in_and_beside_the_pixels_are_left_out(tmp_path: Path) -> None:
    ds = dicom_dataset(grey() | 0x1000, **TWELVE)
    for element, value in ((0x10, 32), (0x11, 32), (0x100, 16), (0x102, 12)):  # in bit 12 of the pixels, PS3.5 8.1.2
        ds.add_new((0x6000, element), "US", value)
    for element, value in ((0x10, 32), (0x11, 32), (0x100, 1), (0x102, 0)):  # and in a plane of its own
        ds.add_new((0x6002, element), "US", value)
    ds.add_new((0x6002, 0x3000), "OW", bytes(128))
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    assert np.array_equal(dicom.read_images(tmp_path / "a", OPTIONS)[0].pixels, grey())


@pytest.mark.parametrize(
    ("elements", "detail"),
    [
        ({"BitsStored": 17, "HighBit": 16}, "bits stored or a high bit"),
        ({"BitsStored": 12, "HighBit": 10}, "bits stored or a high bit"),
        ({"BitsAllocated": 12}, "bits allocated"),
        ({"PixelRepresentation": 2}, "pixel representation"),
        ({"SamplesPerPixel": 3}, "samples per pixel"),
        ({"PhotometricInterpretation": "RGB"}, "samples per pixel"),
        ({"PhotometricInterpretation": "CMYK"}, "photometric interpretation"),
        ({"PhotometricInterpretation": ""}, "photometric interpretation"),
        ({"PresentationLUTShape": "INVERSE"}, "presentation LUT shape"),
        ({"PresentationLUTShape": "IDENTITY", "PhotometricInterpretation": "MONOCHROME1"}, "presentation LUT shape"),
        ({"PixelPresentation": "COLOR"}, "stand for colours"),
        ({"LargestMonochromePixelValue": 100}, "stand for colours"),
        ({"BurnedInAnnotation": "YES"}, "burned into the pixels"),
        ({"PixelAspectRatio": [4, 3]}, "not square"),
        ({"RescaleSlope": 2}, "slope or intercept is missing"),
        ({"RescaleIntercept": -1024}, "slope or intercept is missing"),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, "slope or intercept is missing"),
        ({"RescaleSlope": "", "RescaleIntercept": -1024}, "slope or intercept is missing"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "slope is zero"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_refused(
    tmp_path: Path, elements: dict[str, object], detail: str
) -> None:
    refusal = refusal_of(tmp_path / "a", grey(), **elements)
    assert refusal.startswith("unsupported_pixels")
    assert detail in refusal


def test_statements_that_agree_are_taken(tmp_path: Path) -> None:
    agreeing = {"PresentationLUTShape": "IDENTITY", "BurnedInAnnotation": "NO", "PixelAspectRatio": [1, 1]}
    assert np.array_equal(image_of(tmp_path / "a", grey(), **agreeing).pixels, grey())
    inverse = {"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}
    assert image_of(tmp_path / "b", grey(), **inverse).inverted
    oblong = image_of(tmp_path / "c", grey(), PixelAspectRatio=[4, 3], PixelSpacing=[0.4, 0.3])
    assert oblong.spacing_mm == (0.4, 0.3)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("limit", [None, 3])
def test_padding_takes_the_darkest_value_of_the_others(tmp_path: Path, inverted: bool, limit: int | None) -> None:
    pixels = grey(2000) + 100
    padded = pixels.copy()
    padded[:8], padded[8:10] = 0, 3 if limit is not None else 0
    elements: dict[str, object] = {"PixelPaddingValue": 0, "RescaleSlope": 1, "RescaleIntercept": -1024}
    if limit is not None:
        elements["PixelPaddingRangeLimit"] = limit
    meaning = "MONOCHROME1" if inverted else "MONOCHROME2"
    found = image_of(tmp_path / "a", padded, PhotometricInterpretation=meaning, **elements).pixels
    tissue = pixels[10:].astype(int) - 1024
    assert np.array_equal(found[10:], tissue)
    assert set(found[:10].ravel()) == {tissue.max() if inverted else tissue.min()}


def test_padding_is_found_whatever_the_bits_and_signs_that_tools_mix_up(tmp_path: Path) -> None:
    pixels = (grey(3000).astype(np.int32) - 1500).astype(np.int16)
    pixels[:8] = -2000
    ds = dicom_dataset(pixels)
    ds.add_new("PixelPaddingValue", "US", 63536)  # -2000 as unsigned
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    assert dicom.read_images(tmp_path / "a", OPTIONS)[0].pixels.min() == pixels[8:].min()
    beyond = grey()
    beyond[:8] = 0xF830  # beyond twelve bits, which alone would read 0x830: tissue
    found = image_of(tmp_path / "b", beyond, PixelPaddingValue=0xF830, **TWELVE).pixels
    assert set(found[:8].ravel()) == {beyond[8:].min()}
    assert np.array_equal(found[8:], beyond[8:])


def test_an_image_of_padding_alone_is_constant_and_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s" / "a.dcm", structure(1, high=3), PixelPaddingValue=0, PixelPaddingRangeLimit=3)
    write_dicom(tmp_path / "s" / "b.dcm", structure(2))
    assert reasons(take_in(tmp_path / "s", tmp_path / "c")) == {"constant": 1}


def test_padding_of_a_volume_takes_the_darkest_value_of_the_whole(tmp_path: Path) -> None:
    volume = structure(1, (6, 24, 20), "int16", 1000) + np.int16(10)
    padded = volume.copy()
    padded[:, :4] = -2000
    padded[0] = -2000  # a slice of padding alone is no reason to refuse the rest
    places = np.arange(6)[:, np.newaxis] * [0, 0, 2.0]
    write_series(tmp_path / "s", padded, places, PixelPaddingValue=-2000)
    (record,) = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3).cohort.records()
    assert np.array_equal(record.pixels[1:, 4:], volume[1:, 4:])
    assert set(record.pixels[padded == -2000]) == {volume[1:, 4:].min()}


def lut(first: int, entries: Array, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("signed", "first"), [(False, 0), (False, 1000), (True, -500)])
def test_modality_luts_map_their_range_and_hold_their_ends(tmp_path: Path, signed: bool, first: int, bits: int) -> None:
    entries = np.arange(256)[::-1] * (1 if bits == 8 else 15)
    pixels = grey(3000).astype(np.int32) - 1500 * signed
    stored = pixels.astype(np.int16 if signed else np.uint16)
    table = pydicom.Sequence([lut(first, entries, bits)])
    found = image_of(tmp_path / "a", stored, ModalityLUTSequence=table).pixels
    assert np.array_equal(found, entries[np.clip(pixels - first, 0, 255)])


def test_a_modality_lut_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    table = pydicom.Sequence([lut(0, np.arange(256), 8)])
    both = refusal_of(tmp_path / "a", grey(), ModalityLUTSequence=table, RescaleSlope=2, RescaleIntercept=0)
    assert "a modality LUT and a rescale" in both
    table[0].LUTDescriptor = [300, 0, 8]
    assert "descriptor and data" in refusal_of(tmp_path / "b", grey(), ModalityLUTSequence=table)
    table = pydicom.Sequence([lut(0, np.arange(256) * 4, 8)])
    assert "descriptor and data" in refusal_of(tmp_path / "c", grey(), ModalityLUTSequence=table)


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [(None, 30.0, 69.0), ("LINEAR", 30.0, 69.0), ("LINEAR_EXACT", 30.0, 70.0), ("SIGMOID", 30.0, 70.0)],
)
def test_windows_cover_the_range_of_their_function(
    tmp_path: Path, function: str | None, low: float, high: float
) -> None:
    elements = {} if function is None else {"VOILUTFunction": function}
    voi = image_of(tmp_path / "a", grey(), WindowCenter=50, WindowWidth=40, **elements).voi
    assert voi is not None
    assert voi.center - 0.5 - (voi.width - 1) / 2 == low  # PS3.3 C.11.2.1.2.1
    assert voi.center - 0.5 + (voi.width - 1) / 2 == high


def test_windows_that_the_standard_forbids_are_none(tmp_path: Path) -> None:
    forbidden: list[dict[str, object]] = [
        {"WindowWidth": 0.5},
        {"WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowWidth": 40, "VOILUTFunction": "WISHFUL"},
    ]
    for elements in forbidden:
        assert image_of(tmp_path / "a", grey(), WindowCenter=50, **elements).voi is None


def test_a_voi_lut_is_taken_as_the_range_over_which_it_rises(tmp_path: Path) -> None:
    entries = np.clip(np.arange(200) - 50, 0, 100)
    voi = image_of(tmp_path / "a", grey(), VOILUTSequence=pydicom.Sequence([lut(300, entries)])).voi
    assert voi is not None
    assert (voi.center - 0.5 - (voi.width - 1) / 2, voi.center - 0.5 + (voi.width - 1) / 2) == (350.0, 450.0)
    window = {"WindowCenter": 50, "WindowWidth": 40}
    both = image_of(tmp_path / "b", grey(), VOILUTSequence=pydicom.Sequence([lut(300, entries)]), **window).voi
    assert both == Voi(50, 40)
    falling = pydicom.Sequence([lut(0, np.arange(200)[::-1])])
    assert image_of(tmp_path / "c", grey(), VOILUTSequence=falling).voi is None


def palette(entries: int, first: int = 0, bits: int = 16) -> dict[str, object]:
    tables: dict[str, object] = {}
    for name, slope in (("Red", 1), ("Green", 2), ("Blue", 3)):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [entries, first, bits]
        data = (np.arange(entries) * (slope if bits == 16 else 1)).astype("<u2" if bits == 16 else "u1")
        tables[f"{name}PaletteColorLookupTableData"] = data.tobytes()
    return {"PhotometricInterpretation": "PALETTE COLOR", **tables}


@pytest.mark.parametrize(("bits", "slopes"), [(16, (1, 2, 3)), (8, (1, 1, 1))])
def test_indices_beyond_a_palette_take_its_ends(tmp_path: Path, bits: int, slopes: tuple[int, ...]) -> None:
    indices = grey(999)
    found = image_of(tmp_path / "a", indices, **palette(200, 100, bits)).pixels
    assert np.array_equal(found, np.clip(indices.astype(int) - 100, 0, 199)[..., np.newaxis] * slopes)


def test_opacity_of_a_palette_is_not_dropped_in_silence(tmp_path: Path) -> None:
    alpha = {"AlphaPaletteColorLookupTableData": bytes(400), **palette(200)}
    assert "opacity" in refusal_of(tmp_path / "a", grey(199), **alpha)


def cut(ds: Dataset, path: Path, left_out: int) -> None:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    path.write_bytes(buffer.getvalue()[:-left_out])


def encoded_as(syntax: pydicom.uid.UID) -> Dataset:
    ds = dicom_dataset(grey(), **TWELVE)
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        ds.compress(syntax)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    return ds


@pytest.mark.parametrize("left_out", [20, 100, 1500])
@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless],
)
def test_a_file_that_was_cut_off_is_truncated(tmp_path: Path, syntax: pydicom.uid.UID, left_out: int) -> None:
    (tmp_path / "s").mkdir()
    write_dicom(tmp_path / "s" / "good.dcm", structure(2))
    cut(encoded_as(syntax), tmp_path / "s" / "cut.dcm", min(left_out, 800 if syntax != RLELossless else 1500))
    assert reasons(take_in(tmp_path / "s", tmp_path / "c")) == {"truncated": 1}


@pytest.mark.parametrize("kept", [140, 200, 400, 500, 600])
def test_a_header_that_was_cut_off_is_truncated(tmp_path: Path, kept: int) -> None:
    write_dicom(tmp_path / "s" / "good.dcm", structure(2))
    whole = (tmp_path / "s" / "good.dcm").read_bytes()
    (tmp_path / "s" / "cut.dcm").write_bytes(whole[:kept])
    assert reasons(take_in(tmp_path / "s", tmp_path / "c")) == {"truncated": 1}


def test_frames_and_end_markers_that_are_missing_are_truncated(tmp_path: Path) -> None:
    ds = encoded_as(JPEG2000Lossless)
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame.rstrip(b"\0")[:-200]])
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="truncated: compressed pixels without their end marker"):
        dicom.read_images(tmp_path / "a", OPTIONS)
    ds.PixelData, ds.NumberOfFrames = encapsulate([frame]), 2
    ds.save_as(tmp_path / "b", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="truncated: "):
        dicom.read_images(tmp_path / "b", OPTIONS)


def test_more_pixels_than_declared_are_refused_but_zeros_are_padding(tmp_path: Path) -> None:
    data = grey().astype("<u2").tobytes()
    assert np.array_equal(image_of(tmp_path / "a", grey(), PixelData=data + bytes(512)).pixels, grey())
    assert "more pixels" in refusal_of(tmp_path / "b", grey(), PixelData=data + data)
    ds = encoded_as(RLELossless)
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame, frame])
    ds.NumberOfFrames = 1
    ds.save_as(tmp_path / "c", enforce_file_format=True)
    with pytest.raises(UnreadableImage):
        dicom.read_images(tmp_path / "c", OPTIONS)


def jpeg_of_flat_blocks(values: Array) -> bytes:
    """A JPEG codestream of 12 bits (ISO/IEC 10918-1, extended sequential) of 8 x 8 blocks with one value each, exactly.

    With quantisation by 1 the DC coefficient of a flat block is 8 (v - 2048), and all others are zero.
    """
    height, width = (8 * side for side in values.shape)
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    quantisation = b"\xff\xdb\0\x43\0" + b"\1" * 64
    frame = b"\xff\xc1\0\x0b\x0c" + size + b"\1\1\x11\0"
    dc_codes = b"\xff\xc4\0\x23\0" + bytes([0, 0, 0, 0, 16, *[0] * 11]) + bytes(range(16))  # all of five bits
    ac_codes = b"\xff\xc4\0\x14\x10" + bytes([1, *[0] * 15]) + b"\0"  # only the end of a block
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    bits, before = "", 0
    for value in values.ravel():
        coefficient = 8 * (int(value) - 2048)
        difference, before = coefficient - before, coefficient
        category = abs(difference).bit_length()
        coded = difference if difference > 0 else difference + 2**category - 1
        bits += f"{category:05b}" + (f"{coded:0{category}b}" if category else "") + "0"
    bits += "1" * (-len(bits) % 8)
    entropy = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + quantisation + frame + dc_codes + ac_codes + scan + entropy + b"\xff\xd9"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("label", [JPEGExtended12Bit, JPEGBaseline8Bit])  # the second is wrong, yet archives hold it
def test_jpeg_of_12_bits_is_exact_whatever_process_its_header_names(
    tmp_path: Path, label: pydicom.uid.UID, signed: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (5, 4))
    expected = np.kron(values, np.ones((8, 8), int))
    ds = dicom_dataset(expected.astype(np.uint16), PixelRepresentation=int(signed), **TWELVE)
    ds.file_meta.TransferSyntaxUID = label
    ds.PixelData = encapsulate([jpeg_of_flat_blocks(values)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    found = dicom.read_images(tmp_path / "a", OPTIONS)[0].pixels
    assert np.array_equal(found, np.where(expected >= 2048, expected - 4096, expected) if signed else expected)
    ds.BitsStored, ds.HighBit = 10, 9
    ds.save_as(tmp_path / "b", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="codestream of other bits"):
        dicom.read_images(tmp_path / "b", OPTIONS)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit])
def test_a_codestream_that_the_header_contradicts_is_refused(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    flat = syntax == JPEGBaseline8Bit
    values = structure(1, (40, 48), dtype="uint8" if flat else "uint16", high=250 if flat else 4000)
    ds = dicom_dataset(values, **({} if flat else TWELVE))
    if flat:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([jpeg(values)])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    else:
        ds.compress(syntax)
    ds.save_as(tmp_path / "good", enforce_file_format=True)
    assert dicom.read_images(tmp_path / "good", OPTIONS)[0].pixels.shape == (40, 48)
    for name, changed in {
        "other bits" if flat else "more bits": {"BitsStored": ds.BitsStored - 2, "HighBit": ds.BitsStored - 3},
        "another size": {"Rows": 36},
        "another size than": {"Columns": 64, "Rows": 30},  # as many pixels
    }.items():
        other = pydicom.dcmread(tmp_path / "good")
        for keyword, value in changed.items():
            setattr(other, keyword, value)
        other.save_as(tmp_path / "other", enforce_file_format=True)
        with pytest.raises(UnreadableImage, match=f"a codestream of {name}") as error:
            dicom.read_images(tmp_path / "other", OPTIONS)
        assert error.value.reason.value == "unsupported_pixels"


def jpeg(rgb: Array, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=95, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("coding", ["jfif", "jfif-444", "bare", "adobe-rgb"])
def test_colours_of_jpeg_follow_the_codestream_whatever_the_header_says(
    tmp_path: Path, label: str, coding: str
) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    rgb = np.stack([ramp, 255 - ramp, np.full_like(ramp, 90)], axis=-1)
    if coding == "adobe-rgb":
        encoded = jpeg(rgb, keep_rgb=True)
    else:
        encoded = jpeg(rgb, subsampling="4:4:4" if coding == "jfif-444" else "4:2:0")
    if coding == "bare":  # without the JFIF segment only subsampled chrominance tells
        length = int.from_bytes(encoded[4:6], "big")
        encoded = encoded[:2] + encoded[4 + length :]
    ds = dicom_dataset(rgb, PhotometricInterpretation=label)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([encoded])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    found = dicom.read_images(tmp_path / "a", OPTIONS)[0].pixels
    assert np.abs(found.astype(int) - rgb).max() <= 12


def test_colours_of_jpeg_2000_that_the_header_contradicts_are_refused(tmp_path: Path) -> None:
    rgb = np.stack([structure(seed) for seed in (1, 2, 3)], axis=-1)
    ds = dicom_dataset(rgb)
    ds.compress(JPEG2000Lossless)  # without component transform
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    assert np.array_equal(dicom.read_images(tmp_path / "a", OPTIONS)[0].pixels, rgb)
    ds.PhotometricInterpretation = "YBR_RCT"
    ds.save_as(tmp_path / "b", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="codestream contradicts"):
        dicom.read_images(tmp_path / "b", OPTIONS)


def test_a_slope_that_is_no_finite_number_is_not_called_empty(tmp_path: Path) -> None:
    found = refusal_of(tmp_path / "a", grey(), RescaleSlope="1E+400", RescaleIntercept="0")
    assert "no single finite number" in found


def test_two_sources_of_one_rescale_per_frame_are_checked_too(tmp_path: Path) -> None:
    frames = np.stack([structure(1), structure(2)])
    groups = sequence(PixelValueTransformationSequence=sequence(RescaleSlope=2))
    assert "missing or empty" in refusal_of(tmp_path / "a", frames, SharedFunctionalGroupsSequence=groups)


def test_no_refusal_repeats_a_value(tmp_path: Path) -> None:
    secret = {"PhotometricInterpretation": "SMITH", "PixelPresentation": "JONES", "PresentationLUTShape": "MILLER"}
    for keyword, value in secret.items():
        refusal = refusal_of(tmp_path / "a", grey(), **{keyword: value})
        assert value not in refusal


def test_oblique_directions_that_are_no_directions_form_no_volume(tmp_path: Path) -> None:
    volume = structure(1, (6, 24, 20), "int16", 1000)
    places = np.arange(6)[:, np.newaxis] * [0, 0, 2.0]
    write_series(tmp_path / "s" / "bad", volume, places, orientation=[1, 0, 0, 0.5, 1, 0])
    write_series(tmp_path / "s" / "good", volume + np.int16(1), places, orientation=AXIAL)
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    details = pl.read_parquet(result.private_folder / "rejections.parquet")["detail"].unique().to_list()
    assert details == ["slice directions are not perpendicular unit vectors"]
