"""What many tests need trained is made once for one state of the sources, by whichever process needs it first.

Artifacts lie in ``$MEDPHANTOM_TEST_CACHE``, or in the temporary folder of the machine, under a digest of everything
that they depend on: our sources, the helpers of the tests, the file that asks, and the versions of the libraries.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "phantoms", "cohorts", "learning", "conditioning", "generators", "quality", "flows", "medphantom")
LIBRARIES = ("torch", "monai", "diffusers", "numpy", "scipy", "polars")
KEPT_SECONDS = 2 * 24 * 3600


def made_once(name: str, asked_by: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` has filled for this state of the sources; nobody may change what it holds.

    Args:
        name: what is made, unique within the file that asks.
        asked_by: ``__file__`` of the module that asks; its content is a part of the digest.
        make: called with the path of a folder that exists and is empty, unless another process was first.
    """
    asking = Path(asked_by)
    root = _root()
    place = root / f"{asking.stem}-{hashlib.sha256(asking.read_bytes()).hexdigest()[:12]}-{name}"
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            partial = place.with_name(f"{place.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(place)
    return place


@cache
def _root() -> Path:
    given = os.environ.get("MEDPHANTOM_TEST_CACHE")
    home = Path(given) if given else Path(tempfile.gettempdir()) / f"medphantom-tests-{os.getuid()}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise PermissionError(f"{home} belongs to somebody else; set MEDPHANTOM_TEST_CACHE")
    root = home / _digest()
    root.mkdir(exist_ok=True)
    os.utime(root)
    for other in home.iterdir():
        if other != root and time.time() - other.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    return root


def _digest() -> str:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file() and file.suffix != ".pyc"]
    files += [file for file in (ROOT / "tests").rglob("*.py") if not file.name.startswith("test_")]
    found = hashlib.sha256(sys.version.encode())
    for library in LIBRARIES:
        found.update(f"{library} {version(library)}\n".encode())
    for file in sorted(files):
        found.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]
