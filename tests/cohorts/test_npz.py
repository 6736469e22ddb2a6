"""MedMNIST archives: rows in order, labels as they are numbered, and never a pickle."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.readers.common import DecodedImage, ReadOptions
from medphantom.cohorts.readers.npz import read_head, read_rows
from medphantom.core.errors import InputError, UnreadableImage
from medphantom.core.records import Array
from tests.cohorts.files import reasons, structure, take_in


def archive(path: Path, images: Array, labels: Array | None, val: int = 3) -> None:
    parts = {"train_images": images[val:], "val_images": images[:val]}
    if labels is not None:
        parts |= {"train_labels": labels[val:], "val_labels": labels[:val]}
    np.savez_compressed(path, allow_pickle=False, **parts)


def images_of(total: int, shape: tuple[int, ...] = (28, 28)) -> Array:
    return np.stack([structure(seed, shape) for seed in range(total)])


def test_classes(tmp_path: Path) -> None:
    images, labels = images_of(8), np.array([[0], [1], [2], [0], [1], [2], [0], [2]])
    archive(tmp_path / "a.npz", images, labels)
    cohort = take_in(tmp_path / "a.npz", tmp_path / "c").cohort
    assert np.array_equal(np.stack(cohort.pixels(range(8))), np.roll(images, -3, axis=0))  # train comes first
    assert cohort.schema.labels == ("0", "1", "2")
    assert cohort.schema.exclusive
    assert np.array_equal(cohort.labels().argmax(axis=1), np.roll(labels[:, 0], -3))
    named = take_in(tmp_path / "a.npz", tmp_path / "d", label_names=("a", "b", "c")).cohort
    assert named.schema.labels == ("a", "b", "c")
    with pytest.raises(InputError, match="label_names has 2 names, the archive has 3"):
        take_in(tmp_path / "a.npz", tmp_path / "e", label_names=("a", "b"))


def test_multi_label(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1], [0, 0]])
    archive(tmp_path / "a.npz", images_of(6), labels)
    cohort = take_in(tmp_path / "a.npz", tmp_path / "c").cohort
    assert not cohort.schema.exclusive
    assert np.array_equal(cohort.labels(), np.roll(labels, -3, axis=0))


@pytest.mark.parametrize("shape", [(28, 28, 3), (16, 16, 16)])
def test_colour_and_volumes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = images_of(5, shape)
    archive(tmp_path / "a.npz", images, None)
    cohort = take_in(tmp_path / "a.npz", tmp_path / "c", color="keep").cohort
    assert cohort.schema.spatial_dims == (2 if shape[-1] == 3 else 3)
    assert np.array_equal(np.stack(cohort.pixels(range(5))), np.roll(images, -3, axis=0))


def test_bad_rows_do_not_take_the_others_with_them(tmp_path: Path) -> None:
    images = images_of(6)
    images[4] = 9
    archive(tmp_path / "a.npz", images, None)
    result = take_in(tmp_path / "a.npz", tmp_path / "c")
    assert (result.accepted, result.rejected_frames, reasons(result)) == (5, 1, {})


class Planted:
    """Would create a file if anyone unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


def pickled(path: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([Planted(tmp_path / "owned")], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("val_extra.npy", buffer.getvalue())


def test_a_pickle_in_an_archive_is_never_opened(tmp_path: Path) -> None:
    archive(tmp_path / "a.npz", images_of(6), None)
    pickled(tmp_path / "a.npz", tmp_path)
    with pytest.raises(InputError, match=r"a\.npz cannot be read: a member holds Python objects") as raised:
        take_in(tmp_path / "a.npz", tmp_path / "c")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "c").exists()


def test_truncated_archives_and_foreign_zips(tmp_path: Path) -> None:
    archive(tmp_path / "a.npz", images_of(6), None)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="1 truncated"):
        take_in(tmp_path / "b.npz", tmp_path / "c")
    np.savez(tmp_path / "d.npz", weights=np.zeros(3))
    with pytest.raises(InputError, match="1 not_an_image"):
        take_in(tmp_path / "d.npz", tmp_path / "e")
    archive(tmp_path / "a.npz", images_of(60), None)
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "f.npz").write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="damaged or truncated"):
        take_in(tmp_path / "f.npz", tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_colour_may_be_refused(tmp_path: Path) -> None:
    archive(tmp_path / "a.npz", images_of(5, (28, 28, 3)), None)
    with pytest.raises(InputError, match="colour image while color is reject"):
        take_in(tmp_path / "a.npz", tmp_path / "c", color="reject")


def rows(tmp_path: Path, **arrays: Array) -> list[DecodedImage]:
    """What the reader itself gives, images and parts."""
    np.savez(tmp_path / "a.npz", allow_pickle=False, **arrays)
    options = ReadOptions(
        2, "keep", split_frames=True, min_side=8, min_slices=4, max_bytes=2**20, near_duplicates="off"
    )
    head = read_head(tmp_path / "a.npz")
    return list(read_rows(tmp_path / "a.npz", head, replace(options, spatial_dims=head.spatial_dims)))


def test_every_image_knows_the_part_that_it_came_from(tmp_path: Path) -> None:
    images = images_of(6)
    found = rows(tmp_path, train_images=images[:3], val_images=images[3:4], test_images=images[4:])
    assert [(image.part, image.frame) for image in found] == [
        *[("train", row) for row in range(3)],
        ("val", 3),
        *[("test", row) for row in (4, 5)],
    ]
    assert np.array_equal(np.stack([image.pixels for image in found]), images)


@pytest.mark.parametrize("shape", [(28, 28), (20, 24, 3), (9, 10, 11)])
def test_fortran_order_is_read_as_it_is_meant(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = images_of(5, shape)
    found = rows(tmp_path, train_images=np.asfortranarray(images))
    assert np.array_equal(np.stack([image.pixels for image in found]), images)


def test_fortran_order_that_needs_too_much_memory_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="too_large"):
        rows(tmp_path, train_images=np.asfortranarray(images_of(30, (200, 200))))


@pytest.mark.parametrize("shape", [(28, 24, 1), (1, 28, 24)])
def test_one_channel_is_no_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = images_of(5, (28, 24))
    found = rows(tmp_path, train_images=images.reshape(5, *shape))
    assert np.array_equal(np.stack([image.pixels for image in found]), images)


@pytest.mark.parametrize(
    "shape", [(3, 28, 28), (4, 28, 28), (28, 28, 4), (28, 28, 2), (3, 9, 9, 9), (9, 9, 9, 9), (28,)]
)
def test_channels_are_not_taken_for_slices(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UnreadableImage, match="unsupported_pixels"):
        rows(tmp_path, train_images=images_of(5, shape))


@pytest.mark.parametrize("kind", ["bool", "complex64"])
def test_images_that_are_no_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnreadableImage, match="unsupported_pixels: images of type"):
        rows(tmp_path, train_images=images_of(5).astype(kind))


def test_labels_as_floats_are_read_where_they_are_whole(tmp_path: Path) -> None:
    labels = np.array([[0], [1], [2], [1], [0]])
    found = rows(tmp_path, train_images=images_of(5), train_labels=labels.astype(np.float32))
    assert [[name for name, on in image.labels.items() if on] for image in found] == [["0"], ["1"], ["2"], ["1"], ["0"]]
    for spoilt in (0.5, np.nan, np.inf, 1e30):
        with pytest.raises(UnreadableImage, match="not integers"):
            rows(tmp_path, train_images=images_of(5), train_labels=np.where(labels == 2, spoilt, labels))


@pytest.mark.parametrize("name", ["train_masks", "train_labels_second", "test_patients"])
def test_arrays_that_say_more_of_the_images_are_not_dropped_in_silence(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableImage, match=r"neither images nor labels \(1\)"):
        rows(tmp_path, train_images=images_of(5), **{name: np.zeros(5)})
    assert len(rows(tmp_path, train_images=images_of(5), about=np.zeros(3))) == 5
