"""Files that declare or unpack to far more than they hold, one or more of every format that ingestion reads."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.cohorts.files import dicom_dataset, structure

MIB = 2**20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed_zeros(total: int, *, bits: int = zlib.MAX_WBITS, first: bytes = b"") -> bytes:
    """Deflated zeros, made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    parts = [packer.compress(first)]
    while total > 0:
        parts.append(packer.compress(bytes(min(total, MIB))))
        total -= MIB
    return b"".join([*parts, packer.flush()])


def png(width: int, height: int, rows: bytes, *between: bytes, color_type: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    return b"".join([PNG_SIGNATURE, chunk(b"IHDR", head), *between, chunk(b"IDAT", rows), chunk(b"IEND", b"")])


def small_png(*between: bytes) -> bytes:
    """Sixteen by sixteen pixels of one value behind other chunks."""
    return png(16, 16, packed_zeros(16 * 17), *between)


def png_rows() -> bytes:
    return png(9000, 9000, packed_zeros(9000 * 27001, first=b"\0\xc8"), color_type=2)


def png_declared() -> bytes:
    return png(2**31 - 1, 2**31 - 1, packed_zeros(MIB))


def png_rows_beyond() -> bytes:
    """A small picture whose rows go on for half a gigabyte."""
    return png(16, 16, packed_zeros(512 * MIB))


def png_text() -> bytes:
    return small_png(chunk(b"zTXt", b"Comment\0\0" + packed_zeros(512 * MIB)))


def png_profile() -> bytes:
    return small_png(chunk(b"iCCP", b"sRGB\0\0" + packed_zeros(512 * MIB)))


def png_many_texts() -> bytes:
    return small_png(*[chunk(b"zTXt", b"Comment\0\0" + packed_zeros(900_000))] * 500)


def jpeg_declared() -> bytes:
    """A small JPEG whose frame header says 65500 x 65500."""
    stream = io.BytesIO()
    Image.fromarray(structure(1)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def jpeg_scans() -> bytes:
    """A progressive JPEG whose last scan comes again and again: each one goes over every block."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((5000, 5000), np.uint8)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 2000 + data[-2:]


Tags = list[tuple[int, int, int, int]]


def directory(tags: Tags, following: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def page(width: int, height: int, place: int, size: int, *, compression: int = 1, bits: int = 8) -> Tags:
    values = {256: width, 257: height, 258: bits, 259: compression, 262: 1, 273: place, 277: 1, 278: height, 279: size}
    return [(tag, 4 if tag in {256, 257, 273, 278, 279} else 3, 1, value) for tag, value in values.items()]


def tiff(data: bytes, tags: Tags) -> bytes:
    data += b"\0" * (len(data) % 2)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory(tags, 0)


def tiff_fax() -> bytes:
    """White rows of CCITT group 4, of one bit each: 1.4 KB for a thousand million pixels."""
    data = b"\xff" * 1250 + b"\x00\x10\x01"
    return tiff(data, page(100_000, 10_000, 8, len(data), compression=4, bits=1))


def tiff_deflated() -> bytes:
    data = packed_zeros(400 * MIB)
    return tiff(data, page(20_000, 20_000, 8, len(data), compression=8))


def tiff_pages() -> bytes:
    """Many pages, each the same strip."""
    data, place = bytes(64), 72
    parts = []
    for _ in range(30_000):
        tags = page(8, 8, 8, 64)
        place += 2 + 12 * len(tags) + 4
        parts.append(directory(tags, place))
    return struct.pack("<2sHI", b"II", 42, 72) + data + b"".join([*parts, directory(page(8, 8, 8, 64), 0)])


def tiff_shared_values() -> bytes:
    """Pages of which each has the same million strips."""
    data, place = bytes(2 * MIB), 8 + 2 * MIB
    parts = []
    for _ in range(1000):
        tags = [tag for tag in page(8, 8, 8, 64) if tag[0] not in {273, 279}]
        tags += [(273, 4, MIB // 4, 8), (279, 4, MIB // 4, 8)]
        place += 2 + 12 * len(tags) + 4
        parts.append(directory(tags, place))
    return struct.pack("<2sHI", b"II", 42, 8 + 2 * MIB) + data + b"".join([*parts, directory(page(8, 8, 8, 64), 0)])


def tiff_circle() -> bytes:
    tags = page(8, 8, 8, 64)
    return struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + directory(tags, 72)


def tiff_tags() -> bytes:
    """Sixty thousand tags of one page."""
    tags = page(8, 8, 8, 64) + [(number, 3, 1, 0) for number in range(1000, 61_000)]
    return tiff(bytes(64), tags)


def dicom_bytes(**elements: object) -> bytes:
    stream = io.BytesIO()
    dicom_dataset(structure(2), **elements).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom_frames() -> bytes:
    return dicom_bytes(NumberOfFrames=2**31 - 1)


def dicom_rows() -> bytes:
    return dicom_bytes(Rows=65535, Columns=65535, NumberOfFrames=4)


def dicom_deflated() -> bytes:
    data = dicom_bytes()
    stream = io.BytesIO()
    ds = dicom_dataset(structure(2))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(stream, enforce_file_format=True)
    whole = stream.getvalue()
    meta = 144 + int.from_bytes(whole[140:144], "little")
    plain = data[144 + int.from_bytes(data[140:144], "little") :]
    text = b"\x08\x00\x80\x11UT\0\0" + struct.pack("<I", 1024 * MIB)  # an unknown element of a gigabyte
    return whole[:meta] + packed_zeros(1024 * MIB, bits=-zlib.MAX_WBITS, first=plain[:0] + text)


SEQUENCE = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 2**32 - 1)  # of undefined length, and so are its items
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)


def dicom_nested() -> bytes:
    data = dicom_bytes()
    return data[: data.index(b"\xe0\x7f\x10\x00")] + (SEQUENCE + ITEM) * 50_000


def dicom_items() -> bytes:
    """A sequence of half a million items: each costs eight bytes here, and a kilobyte once it is read."""
    data = dicom_bytes()
    place = data.index(b"\xe0\x7f\x10\x00")
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return data[:place] + SEQUENCE + empty * 500_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) + data[place:]


def nifti_head(shape: tuple[int, int, int], offset: float = 352) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, offset)
    head[344:348] = b"n+1\0"
    return bytes(head)


def nifti_zipped() -> bytes:
    return packed_zeros(2 * 600**3, bits=zlib.MAX_WBITS | 16, first=nifti_head((600, 600, 600)))


def nifti_declared() -> bytes:
    return gzip.compress(nifti_head((32767, 32767, 32767)))


def nifti_offset() -> bytes:
    """Voxels that begin behind half a gigabyte of extensions."""
    return packed_zeros(512 * MIB + 2 * 16**3, bits=zlib.MAX_WBITS | 16, first=nifti_head((16, 16, 16), 512.0 * MIB))


def npy_head(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return stream.getvalue()


def npz_declared() -> bytes:
    return archive({"train_images.npy": npy_head((2**40, 28, 28))})


def npz_labels() -> bytes:
    return archive({"train_images.npy": npy_head((2**30, 28, 28)), "train_labels.npy": npy_head((2**30, 1))})


def npz_header() -> bytes:
    """An array of version 2 whose header says that it is two gigabytes long, and half of one is there."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target, target.open("train_images.npy", "w") as member:
        member.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 1))
        for _ in range(512):
            member.write(b" " * MIB)
    return stream.getvalue()


def npz_members() -> bytes:
    head = npy_head((1,)) + b"\0"
    return archive({f"{number}.npy": head for number in range(30_000)})


def zip_of_zips() -> bytes:
    inner = archive({"zeros": bytes(64 * MIB)})
    return archive({f"{number}.zip": inner for number in range(20)})


BOMBS: dict[str, Callable[[], bytes]] = {
    "rows.png": png_rows,
    "declared.png": png_declared,
    "beyond.png": png_rows_beyond,
    "text.png": png_text,
    "profile.png": png_profile,
    "texts.png": png_many_texts,
    "declared.jpg": jpeg_declared,
    "scans.jpg": jpeg_scans,
    "fax.tif": tiff_fax,
    "deflated.tif": tiff_deflated,
    "pages.tif": tiff_pages,
    "shared.tif": tiff_shared_values,
    "circle.tif": tiff_circle,
    "tags.tif": tiff_tags,
    "frames.dcm": dicom_frames,
    "rows.dcm": dicom_rows,
    "deflated.dcm": dicom_deflated,
    "nested.dcm": dicom_nested,
    "items.dcm": dicom_items,
    "zipped.nii.gz": nifti_zipped,
    "declared.nii.gz": nifti_declared,
    "offset.nii.gz": nifti_offset,
    "declared.npz": npz_declared,
    "labels.npz": npz_labels,
    "header.npz": npz_header,
    "members.npz": npz_members,
    "zips.zip": zip_of_zips,
}
