"""MedMNIST archives: rows in order, labels as they are numbered, and never a pickle."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cohorts.errors import InputError
from cohorts.records import Array
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
    with pytest.raises(InputError, match="1 not_an_image"):
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
