"""The elements of a plain DICOM file, found by walking them: the same as pydicom finds, in a tenth of its time.

A file is plain if it has its preamble and file meta information, is in little endian and not deflated, and its elements
follow each other in the order of their tags up to its last byte (PS3.5 7.1, PS3.10 7.1), those of sequences of
undefined length up to the end of their items. All other files are left to pydicom, which handles the exceptions. A
sequence of defined length is parsed by neither before it is accessed.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from struct import Struct
from struct import error as StructError

import pydicom
from pydicom import uid
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32, VR
from pydicom.values import convert_string

HEAD_BYTES = 2**16  # of a file whose pixels are not wanted; where its header is longer, pydicom reads it
DEEPEST = 16  # sequences within sequences

_PREAMBLE, _DATA_SET = 128, 132
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_ENDS, _SEQUENCE_ENDS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_CHARACTER_SET, _TRANSFER_SYNTAX, _STORED_CLASS = 0x00080005, 0x00020010, 0x00020002
_EXPLICIT = {
    uid.ExplicitVRLittleEndian,
    *(syntax for syntax in uid.AllTransferSyntaxes if syntax.is_encapsulated),
}
_SHORT = {vr.encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG = {vr.encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}
_explicit = Struct("<HH2sH").unpack_from
_implicit = Struct("<HHL").unpack_from
_length = Struct("<L").unpack_from

Element = tuple[int, str | None, int, int, int]
"""Tag, VR (``None`` when implicit), declared length, and where the value begins and ends."""


class _Unusual(Exception):
    """Raised for a file that is left to pydicom."""


def read_plain(path: Path, *, stop_before_pixels: bool) -> pydicom.Dataset | None:
    """Return the public elements of a plain file; ``None`` if it is not one.

    Private elements are not kept, since they are not used.

    Args:
        path: Path of the file.
        stop_before_pixels: Whether to leave out the pixel data and everything after it.
    """
    with path.open("rb") as stream:
        data = stream.read(HEAD_BYTES if stop_before_pixels else -1)
    try:
        return _data_set(data, stop_before_pixels=stop_before_pixels)
    except (_Unusual, StructError):
        return None


def _data_set(data: bytes, *, stop_before_pixels: bool) -> pydicom.Dataset:
    if data[_PREAMBLE:_DATA_SET] != b"DICM":
        raise _Unusual
    at, syntax, stored_class = _meta_information(data)
    if syntax not in _EXPLICIT and syntax != uid.ImplicitVRLittleEndian:
        raise _Unusual
    explicit = syntax in _EXPLICIT
    if at >= len(data):
        raise _Unusual  # nothing behind the meta information
    if not explicit and data[at + 4 : at + 6].isalpha() and data[at + 4 : at + 6].isupper():
        raise _Unusual  # explicit after all
    found = _elements(data, at, explicit=explicit, stop_before_pixels=stop_before_pixels)
    stated = found.get(_CHARACTER_SET)
    if stated is not None and stated.VR not in {None, "CS", "UN"}:
        raise _Unusual
    encoding = default_encoding if stated is None else _encoding(stated.value or b"")
    ds = pydicom.Dataset(found, parent_encoding=default_encoding)
    ds.set_original_encoding(not explicit, True, encoding)
    ds.file_meta = _file_meta(syntax, stored_class)
    return ds


def _elements(data: bytes, at: int, *, explicit: bool, stop_before_pixels: bool) -> dict[BaseTag, RawDataElement]:
    """Return the public elements of a data set that starts at ``at``."""
    found: dict[BaseTag, RawDataElement] = {}
    size, before = len(data), 0x0002FFFF
    while at < size:
        number, vr, length, start, end = _element(data, at, explicit)
        if number <= before or number >= _ITEM & 0xFFFF0000:
            raise _Unusual
        before = number
        undefined = length == _UNDEFINED
        if number in _PIXELS and stop_before_pixels:
            return found
        at = _value_ends(data, number, vr, start, explicit=explicit) if undefined else end
        if at > size:
            raise _Unusual
        if number >> 16 & 1:
            continue
        value = data[start : at - 8 if undefined else at]
        if undefined and number not in _PIXELS:
            vr, length = "SQ", len(value)
        tag = BaseTag(number)
        found[tag] = RawDataElement(
            tag, vr, length, value or empty_value_for_VR(vr, raw=True), start, not explicit, True
        )
    if stop_before_pixels and size == HEAD_BYTES:
        raise _Unusual
    return found


def _meta_information(data: bytes) -> tuple[int, str, str]:
    """Return the start of the data set, its transfer syntax, and its class according to the meta information."""
    at = _DATA_SET
    before = 0
    values: dict[int, bytes] = {}
    while data[at : at + 2] == b"\2\0":
        tag, vr, length, start, end = _element(data, at, True)
        if tag <= before or length == _UNDEFINED or end > len(data) or vr != _dictionary_vr(tag):
            raise _Unusual
        values[tag] = data[start:end]
        before, at = tag, end
    try:
        syntax, stored_class = (
            values.get(tag, b"").decode("ascii").strip(" \0") for tag in (_TRANSFER_SYNTAX, _STORED_CLASS)
        )
    except UnicodeDecodeError:
        raise _Unusual from None
    return at, syntax, stored_class


def _element(data: bytes, at: int, explicit: bool) -> Element:
    if not explicit:
        group, number, length = _implicit(data, at)
        return group << 16 | number, None, length, at + 8, at + 8 + length
    group, number, coded, length = _explicit(data, at)
    vr = _SHORT.get(coded)
    if vr is not None:
        return group << 16 | number, vr, length, at + 8, at + 8 + length
    vr = _LONG.get(coded)
    if vr is None:
        raise _Unusual
    (length,) = _length(data, at + 8)
    return group << 16 | number, vr, length, at + 12, at + 12 + length


def _value_ends(data: bytes, tag: int, vr: str | None, start: int, *, explicit: bool, depth: int = 0) -> int:
    """Return where an element of undefined length ends: a sequence of items, or fragments of pixels."""
    fragments = tag in _PIXELS
    as_it_may = vr in {None, "OB", "OW"} if fragments else vr == "SQ" or (vr is None and _is_sequence(tag))
    if depth > DEEPEST or not as_it_may:
        raise _Unusual
    at = start
    while True:
        group, number, item_length = _implicit(data, at)
        at += 8
        if group << 16 | number == _SEQUENCE_ENDS and item_length == 0:
            return at
        if group << 16 | number != _ITEM or (fragments and item_length == _UNDEFINED):
            raise _Unusual
        if fragments:
            at += item_length
        else:
            at = _item_ends(data, at, None if item_length == _UNDEFINED else at + item_length, explicit, depth)


def _item_ends(data: bytes, at: int, declared_end: int | None, explicit: bool, depth: int) -> int:
    """Return where an item ends: by its length and its last element, or after its delimiter."""
    while declared_end is None or at < declared_end:
        group, number, length = _implicit(data, at)
        if declared_end is None and group << 16 | number == _ITEM_ENDS and length == 0:
            return at + 8
        tag, vr, length, start, end = _element(data, at, explicit)
        if tag >= _ITEM & 0xFFFF0000:
            raise _Unusual
        at = _value_ends(data, tag, vr, start, explicit=explicit, depth=depth + 1) if length == _UNDEFINED else end
    if at != declared_end:
        raise _Unusual
    return at


def _is_sequence(tag: int) -> bool:
    return _dictionary_vr(tag) == VR.SQ


@lru_cache(maxsize=256)
def _dictionary_vr(tag: int) -> str | None:
    try:
        return pydicom.datadict.dictionary_VR(tag)
    except KeyError:
        return None


@lru_cache(maxsize=64)
def _encoding(value: bytes) -> list[str]:
    try:
        return convert_encodings(convert_string(value, is_little_endian=True))
    except (LookupError, ValueError):  # pydicom says what it makes of it
        raise _Unusual from None


@lru_cache(maxsize=64)
def _file_meta(syntax: str, stored_class: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.UID(syntax)
    if stored_class:
        meta.MediaStorageSOPClassUID = uid.UID(stored_class)
    return meta
