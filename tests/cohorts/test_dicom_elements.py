"""The walk over the elements of a plain file finds what pydicom finds, and leaves the rest to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medphantom.cohorts.readers.dicom_elements import read_plain
from medphantom.cohorts.readers.dicom_file import open_dicom, quietly
from medphantom.core.errors import UnreadableImage

SAMPLES = sorted(Path(pydicom.data.__file__).parent.rglob("*.dcm"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quietly():
        yield


def require_same(path: Path, found: pydicom.Dataset, *, stop_before_pixels: bool) -> None:
    theirs = pydicom.dcmread(path, force=True, stop_before_pixels=stop_before_pixels)
    public = [tag for tag in theirs.keys() if not tag.is_private]  # noqa: SIM118 - a data set iterates over elements
    assert list(found.keys()) == public
    assert found.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
    assert found.original_encoding == theirs.original_encoding
    assert found.original_character_set == theirs.original_character_set
    for tag in public:
        assert value_of(found, tag) == value_of(theirs, tag), tag


def value_of(ds: pydicom.Dataset, tag: int) -> object:
    try:
        element = ds[tag]
        value = [str(item) for item in element.value] if element.VR == "SQ" else repr(element.value)
    except Exception as error:  # a damaged value may raise anything, from both in the same way
        return type(error)
    return str(element.VR), value


@pytest.mark.parametrize("stop_before_pixels", [True, False])
def test_samples_of_pydicom_are_read_equally(*, stop_before_pixels: bool) -> None:
    plain = 0
    for path in SAMPLES:
        found = read_plain(path, stop_before_pixels=stop_before_pixels)
        if found is not None:
            plain += 1
            require_same(path, found, stop_before_pixels=stop_before_pixels)
    assert plain > len(SAMPLES) // 2


def write_sample(path: Path, *, implicit: bool, undefined: bool) -> None:
    inner = pydicom.Dataset()
    inner.CodeValue = "T-1"
    item = pydicom.Dataset()
    item.CodingSchemeDesignator = "SRT"
    item.AnatomicRegionSequence = [inner]
    ds = pydicom.Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    ds.SOPInstanceUID = "1.2.3"
    ds.PatientID = "É 1"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 4, 4, 16, 12, 11
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    ds.AnatomicRegionSequence = [item, item]
    ds.add_new(0x00091001, "LO", "private")
    ds.PixelData = np.arange(16, dtype="<u2").tobytes()
    for sequence in (ds["AnatomicRegionSequence"], item["AnatomicRegionSequence"]):
        sequence.is_undefined_length = undefined
        for entry in sequence.value:
            entry.is_undefined_length_sequence_item = undefined
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = (
        pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    )
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_and_character_sets(tmp_path: Path, *, implicit: bool, undefined: bool) -> None:
    path = tmp_path / "a.dcm"
    write_sample(path, implicit=implicit, undefined=undefined)
    found = read_plain(path, stop_before_pixels=False)
    assert found is not None
    require_same(path, found, stop_before_pixels=False)
    assert found.PatientID == "É 1"
    assert len(found.AnatomicRegionSequence[1].AnatomicRegionSequence) == 1


def test_elements_out_of_order_are_left_to_pydicom(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write_sample(path, implicit=False, undefined=False)
    assert read_plain(path, stop_before_pixels=False) is not None
    data = path.read_bytes()
    rows, columns = b"\x28\0\x10\0US\2\0\4\0", b"\x28\0\x11\0US\2\0\4\0"
    assert data.count(rows + columns) == 1
    path.write_bytes(data.replace(rows + columns, columns + rows))
    assert read_plain(path, stop_before_pixels=False) is None
    path.write_bytes(data.replace(rows + columns, rows + rows + columns))  # twice: one of them would be believed
    assert read_plain(path, stop_before_pixels=False) is None


def write_items_of_declared_length(path: Path, *, implicit: bool) -> bytes:
    """A sequence without length whose items state theirs; returns the file."""
    write_sample(path, implicit=implicit, undefined=False)
    ds = pydicom.dcmread(path)
    ds["AnatomicRegionSequence"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)
    found = read_plain(path, stop_before_pixels=False)
    assert found is not None
    require_same(path, found, stop_before_pixels=False)
    return path.read_bytes()


@pytest.mark.parametrize("implicit", [True, False])
def test_items_whose_length_is_wrong_are_left_to_pydicom(tmp_path: Path, *, implicit: bool) -> None:
    data = write_items_of_declared_length(tmp_path / "a.dcm", implicit=implicit)
    item = b"\xfe\xff\x00\xe0"
    lengths = [at + 4 for at in range(len(data)) if data.startswith(item, at)]
    total = int.from_bytes(data[lengths[0] : lengths[0] + 4], "little")
    second = next(at for at in lengths if at == lengths[0] + total + 8)
    for wrong in (total + 8 + int.from_bytes(data[second : second + 4], "little"), total - 2, total + 2, 4):
        damaged = bytearray(data)
        damaged[lengths[0] : lengths[0] + 4] = wrong.to_bytes(4, "little")
        (tmp_path / "a.dcm").write_bytes(damaged)
        assert read_plain(tmp_path / "a.dcm", stop_before_pixels=False) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"\2\0\x10\0UI", b"\2\0\x10\0US"),  # transfer syntax
        (b"\2\0\2\0UI", b"\2\0\2\0UL"),
        (b"\x08\0\5\0CS", b"\x08\0\5\0SS"),  # character set
    ],
)
def test_wrong_representations_of_what_decides_are_left_to_pydicom(tmp_path: Path, right: bytes, wrong: bytes) -> None:
    path = tmp_path / "a.dcm"
    write_sample(path, implicit=False, undefined=False)
    data = path.read_bytes()
    assert data.count(right) == 1
    path.write_bytes(data.replace(right, wrong))
    assert read_plain(path, stop_before_pixels=False) is None


def test_pixels_that_call_themselves_something_else_are_left_to_pydicom(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write_sample(path, implicit=False, undefined=False)
    ds = pydicom.dcmread(path)
    ds.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom")
    ds.save_as(path, enforce_file_format=True)
    assert read_plain(path, stop_before_pixels=False) is not None
    data = path.read_bytes()
    assert data.count(b"\xe0\x7f\x10\0OB") == 1
    for vr in (b"UN", b"SQ", b"UT"):
        path.write_bytes(data.replace(b"\xe0\x7f\x10\0OB", b"\xe0\x7f\x10\0" + vr))
        assert read_plain(path, stop_before_pixels=False) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), implicit=st.booleans(), undefined=st.booleans(), stop=st.booleans())
def test_damaged_files_are_left_to_pydicom_or_read_equally(
    tmp_path: Path, data: st.DataObject, *, implicit: bool, undefined: bool, stop: bool
) -> None:
    path = tmp_path / "a.dcm"
    write_sample(path, implicit=implicit, undefined=undefined)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(128, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(132, len(damaged)))] if data.draw(st.booleans()) else damaged)
    found = read_plain(path, stop_before_pixels=stop)
    if found is not None:
        require_same(path, found, stop_before_pixels=stop)
    try:
        open_dicom(path)
    except UnreadableImage:
        return
