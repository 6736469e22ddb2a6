"""Tables with a row per frame of files that become several images: what one frame shows is not of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medphantom.core.errors import InputError
from tests.cohorts.files import rejections, structure, take_in, write_dicom
from tests.cohorts.tables.test_table import labels_by_path

FILES, FRAMES = 4, 3


def multi_frame(path: Path, seed: int) -> None:
    write_dicom(path, structure(seed, (FRAMES, 32, 32), "uint16", 999), PatientID=f"P{seed}", NumberOfFrames=FRAMES)


def four_axes(path: Path, seed: int) -> None:
    nibabel.save(nibabel.Nifti1Image(structure(seed, (12, 12, 12, FRAMES), "int16", 999), np.eye(4)), path)


def pages(path: Path, seed: int) -> None:
    first, *others = map(Image.fromarray, structure(seed, (FRAMES, 32, 32)))
    first.save(path, save_all=True, append_images=others)


KINDS = [(multi_frame, "dcm", 2), (four_axes, "nii.gz", 3), (pages, "tif", 2)]


def source(folder: Path, write: Callable[[Path, int], None], suffix: str, rows: str) -> Path:
    folder.mkdir()
    for number in range(FILES):
        write(folder / f"{number}.{suffix}", number)
    (folder / "t.csv").write_text(rows)
    return folder


@pytest.mark.parametrize(("write", "suffix", "dims"), KINDS)
def test_rows_of_frames_that_differ_refuse_their_file(
    tmp_path: Path, write: Callable[[Path, int], None], suffix: str, dims: int
) -> None:
    rows = "".join(
        f"{number}.{suffix},{frame},{'xyz'[frame] if number == 1 else 'x'}\n"
        for number in range(FILES - 1)
        for frame in range(FRAMES)
    )
    folder = source(tmp_path / "s", write, suffix, f"file,frame,label\n{rows}3.{suffix},0,y\n")
    result = take_in(folder, tmp_path / "c", spatial_dims=dims)
    assert rejections(result) == {f"1.{suffix}": "ambiguous_table_row"}
    shown = {path: {name for name, value in stated.items() if value} for path, stated in labels_by_path(result).items()}
    assert shown == {f"0.{suffix}": {"x"}, f"2.{suffix}": {"x"}, f"3.{suffix}": {"y"}}
    assert result.accepted == 3 * FRAMES
    (reported,) = [line for line in result.warnings if "rows that differ" in line]
    assert reported.startswith("1 files with several images")
    assert reported.endswith("give each of these files one row, or one file per frame, volume or page")


def test_boxes_of_frames_are_of_one_of_them(tmp_path: Path) -> None:
    rows = "".join(f"{n}.tif,{frame},{frame if n else 0},0,4,4,mass\n" for n in range(FILES) for frame in range(2))
    folder = source(tmp_path / "s", pages, "tif", f"file,frame,x,y,width,height,finding\n{rows}")
    result = take_in(folder, tmp_path / "c", spatial_dims=2)
    assert rejections(result) == {f"{n}.tif": "ambiguous_table_row" for n in range(1, FILES)}


def test_the_pages_of_one_volume_are_united(tmp_path: Path) -> None:
    rows = "".join(f"{n}.tif,{frame},{'xyz'[frame]}\n" for n in range(FILES) for frame in range(FRAMES))
    folder = source(tmp_path / "s", pages, "tif", f"file,frame,label\n{rows}")
    result = take_in(folder, tmp_path / "c", spatial_dims=3, min_slices=FRAMES, min_side=1)
    assert labels_by_path(result) == {f"{n}.tif": dict.fromkeys("xyz", True) for n in range(FILES)}
    with pytest.raises(InputError, match=r"4 ambiguous_table_row.*one file per frame"):
        take_in(folder, tmp_path / "d", spatial_dims=2)
