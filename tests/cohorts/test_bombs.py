"""Files that unpack to far more than they hold cost bounded memory, one reason each, and nobody else's image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medphantom.cohorts.ingestion.scanning import largest_image_bytes
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.private import REJECTIONS_FILE, private_path
from medphantom.core.errors import InputError
from tests.cohorts.bombs import BOMBS, packed_zeros, png
from tests.cohorts.files import structure, take_in, write_dicom

GIB = 2**30
HARMLESS = {"items.dcm", "beyond.png", "text.png", "texts.png", "profile.png"}
"""Their pixels are small and whole: what else they hold is skipped, or refused."""
SCRIPT = """
import json, sys
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingest import ingest
from medphantom.cohorts.options import IngestOptions
options = IngestOptions(folders="ignore", workers=2)
result = ingest(sys.argv[1], sys.argv[2], options, IdentityKey.from_phrase("tests"))
print(json.dumps([result.total_files, result.accepted_files, sum(result.rejected.values())]))
"""


def resident_bytes(root: int) -> int:
    """Resident memory of a process and of all that it started, pages that they share counted in each."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            number = int(folder.name)
            parents[number], sizes[number] = int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    total = 0
    for process, size in sizes.items():
        above = process
        while above not in {0, 1, root}:
            above = parents.get(above, 0)
        total += size if above == root else 0
    return total


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory of processes is read from /proc")
def test_a_folder_of_bombs_is_refused_within_bounded_memory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, make in BOMBS.items():
        (source / name).write_bytes(make())
    for number in range(4):
        Image.fromarray(structure(10 + number)).save(source / f"honest_{number}.png")
        write_dicom(source / f"honest_{number}.dcm", structure(20 + number, dtype="uint16", high=4000))
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "cohort")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        while run.poll() is None:
            peak = max(peak, resident_bytes(run.pid))
            time.sleep(0.02)
        output, problems = run.communicate()
    assert run.returncode == 0, problems
    total, accepted, rejected = json.loads(output.splitlines()[-1])
    found = pl.read_parquet(private_path(tmp_path / "cohort") / REJECTIONS_FILE)
    reasons = {path: set(found.filter(pl.col("path") == path)["reason"]) for path in found["path"]}
    print(json.dumps({path: sorted(names) for path, names in reasons.items()}, indent=1), f"{peak / GIB:.2f} GiB")
    assert total == len(BOMBS) + 8 == accepted + rejected
    assert not [path for path in reasons if path.startswith("honest")]
    assert {path: names for path, names in reasons.items() if len(names) != 1} == {}
    assert set(BOMBS) - set(reasons) <= HARMLESS
    assert peak < 1.5 * GIB


def test_what_is_large_and_nearly_blank_is_read_when_it_is_requested(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    rows = packed_zeros(6000 * 6001, first=b"\0" + bytes(range(256)))
    (tmp_path / "source" / "blank.png").write_bytes(png(6000, 6000, rows))
    with pytest.raises(InputError, match="1 too_large"):
        take_in(tmp_path / "source", tmp_path / "refused", folders="ignore", workers=1)
    taken = take_in(tmp_path / "source", tmp_path / "taken", folders="ignore", workers=1, max_expansion=2000)
    assert taken.accepted == 1


def test_a_mask_is_held_to_the_size_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "source" / "images").mkdir(parents=True)
    (tmp_path / "source" / "masks").mkdir()
    Image.fromarray(structure(1)).save(tmp_path / "source" / "images" / "a.png")
    Image.fromarray(structure(2)).save(tmp_path / "source" / "images" / "b.png")
    (tmp_path / "source" / "masks" / "a.png").write_bytes(png(9000, 9000, packed_zeros(9000 * 9001)))
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / "source" / "masks" / "b.png")
    result = take_in(tmp_path / "source", tmp_path / "cohort", folders="ignore", workers=1)
    assert dict(result.rejected) == {"mask_mismatch": 1}
    assert result.accepted == 1


def test_memory_for_decoding_bounds_what_an_image_may_need() -> None:
    assert largest_image_bytes(IngestOptions(memory_mib=400)) == 100 * 2**20
    assert largest_image_bytes(IngestOptions(memory_mib=2**20, max_image_mib=7)) == 7 * 2**20
