"""The artifacts that stages leave on disk, the rules for their reuse, and the folder of a run that holds them all.

A stage is run once per key: the digest of its inputs, its part of the recipe and the version of its results. The key of
the last success is kept in ``.stages.json``; everything that is unfinished lies under ``work/``.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from medphantom.core.access import private_files
from medphantom.core.errors import ArtifactError, InputError, MedphantomError, ResourceError
from medphantom.core.folders import (
    DIGEST_FILE,
    file_digest,
    inside,
    json_digest,
    no_space_becomes_one_line,
    read_digest,
    read_json,
    work_folder,
    write_json,
)
from medphantom.core.guard import reading, user_path
from medphantom.core.records import Frozen
from medphantom.core.staging import remove_all_leftovers, staging

Stage = Literal["phantom", "ingest", "train", "generate", "assess", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# Raise a number when the same inputs and settings give another result than before: then that stage is made again.
RESULT_VERSIONS: dict[Stage, int] = {"phantom": 1, "ingest": 2, "train": 4, "generate": 2, "assess": 10, "report": 8}

# Settings that change how fast a stage is or what it prints, never what it makes.
INERT_SETTINGS = frozenset(
    {
        "workers",
        "device",
        "tracker",
        "track_real_images",
        "log_every",
        "checkpoint_every",
        "checkpoint_minutes",
        "grid_every",
    }
)

STAGES_FILE = ".stages.json"
LOCK_FILE = ".lock"
WEIGHTS_SUFFIX = ".safetensors"
WORK_FOLDER = "work"
REPORT_JSON = "report.json"
QUALITY_FILE = f"{WORK_FOLDER}/quality.json"


class ArtifactRef(Frozen):
    """A path and the digest of its content: the only values that Prefect tasks pass to each other.

    Attributes:
        path: The file or folder of the artifact.
        digest: The digest of its content.
    """

    path: str
    digest: str


class StageRecord(Frozen):
    """The record of how one stage was made.

    Attributes:
        key: The digest of inputs, settings and result version.
        output: The path of the artifact, relative to the run folder.
        digest: The digest of the content of the artifact.
        marks: A cheap fingerprint by which damage is noticed, for the artifact and for each file that belongs beside
            it.
        seconds: The wall-clock time of the stage, over all interrupted attempts whose time was recorded.
        finished: The end of the stage in UTC, as ISO 8601.
        facts: Short remarks for ``run.json``, such as counts; they contain nothing from a source image.
    """

    key: str
    output: str
    digest: str
    marks: dict[str, str]
    seconds: float
    finished: str
    facts: dict[str, Any] = Field(default_factory=dict)


def stage_key(stage: Stage, inputs: Mapping[str, str], settings: Any) -> str:
    """Return the digest of everything that decides what a stage makes.

    Args:
        stage: The name of the stage.
        inputs: The digest of each input.
        settings: The stage's part of the recipe as JSON values; :data:`INERT_SETTINGS` do not count.
    """
    facts = {"stage": stage, "version": RESULT_VERSIONS[stage], "inputs": dict(inputs), "settings": _active(settings)}
    return json_digest(facts)


def _active(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {name: _active(value) for name, value in settings.items() if name not in INERT_SETTINGS}
    return [_active(value) for value in settings] if isinstance(settings, list | tuple) else settings


def source_mark(path: Path) -> str:
    """Fingerprint a source file or folder by names, sizes and modification times, without reading any content.

    A file whose content changes while its size and time stay is not noticed, as with ``make`` and ``rsync``.

    Raises:
        InputError: The path does not exist.
    """
    if not user_path(path).exists():
        raise InputError(f"{path} does not exist", "check the path")
    return _tree_digest(path, lambda stat: [stat.st_size, stat.st_mtime_ns])


def artifact_mark(path: Path) -> str:
    """Return a fingerprint that reveals a truncated or replaced artifact; a plain copy of the folder keeps it.

    Of a folder, the files at its top and all weights are read; of the other files, such as the arrays of a cohort, the
    sizes count: each is compared with its digest when it is used.
    """
    if path.is_file():
        return file_digest(path)
    weights = path.rglob(f"*{WEIGHTS_SUFFIX}") if (path / DIGEST_FILE).is_file() else ()
    files = sorted({*(file for file in path.iterdir() if file.is_file()), *weights})
    described = {file.relative_to(path).as_posix(): file_digest(file) for file in files}
    return json_digest([_tree_digest(path, lambda stat: [stat.st_size]), described])


def _tree_digest(path: Path, facts_of: Callable[[os.stat_result], list[int]]) -> str:
    if path.is_file():
        return json_digest(facts_of(path.stat()))
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        base = os.path.relpath(folder, path)
        for name in sorted(names):
            with suppress(OSError):  # a dangling link is no reason to stop; ingestion will name it
                facts = facts_of(os.stat(os.path.join(folder, name)))  # noqa: PTH116, PTH118 - a Path per file is slow
                digest.update(f"{base}\0{name}\0{facts}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Return the digest of a path: the digest of a published folder, of the files in another folder, or of a file."""
    if path.is_file():
        return file_digest(path)
    if (path / DIGEST_FILE).is_file():
        return str(read_digest(path)["digest"])
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return json_digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


class RunFolder:
    """``runs/<name>/``: the artifacts of a run, the record of its stages, and everything that is unfinished.

    Args:
        path: The folder, which is created when something is first written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.path.resolve().name

    def records(self) -> dict[str, StageRecord]:
        """Return the record of each stage that was made."""
        file = self.path / STAGES_FILE
        if not file.is_file():
            return {}
        try:
            with reading(file):
                found = {stage: StageRecord.model_validate(record) for stage, record in read_json(file).items()}
                for record in found.values():  # what a record names lies in the run folder
                    for name in (record.output, *record.marks):
                        inside(self.path, name)
        except MedphantomError:
            return {}  # a lost record costs time, never correctness: the stages are made again
        return found

    def current(self, stage: Stage, key: str) -> ArtifactRef | None:
        """Return the artifact of a stage if it was made under this key and is undamaged, else ``None``."""
        record = self.records().get(stage)
        if record is None or record.key != key:
            return None
        for name, mark in record.marks.items():
            path = self.path / name
            if not path.exists() or artifact_mark(path) != mark:
                return None
        return ArtifactRef(path=str(self.path / record.output), digest=record.digest)

    def require_unaltered(self, stage: Stage, name: str) -> None:
        """Refuse a file that was altered since its stage wrote it.

        Raises:
            ArtifactError: The file was altered, or there is no record to compare it with.
        """
        record = self.records().get(stage)
        if record is None or record.marks.get(name) != artifact_mark(self.path / name):
            raise ArtifactError(f"{self.path / name} is not as its run wrote it", "run the recipe again")

    def work(self, stage: Stage) -> Path:
        """Return the folder in which a stage keeps checkpoints, each under a digest, so that other settings find shared
        ones.

        Nothing in it is needed once the artifact exists; it may be deleted while no run is in progress.
        """
        return self.path / WORK_FOLDER / stage

    def make(
        self,
        stage: Stage,
        key: str,
        output: str,
        build: Callable[[Path, Path], Mapping[str, Any] | None],
        *,
        beside: tuple[str, ...] = (),
    ) -> ArtifactRef:
        """Make the artifact of a stage and put it in its place; an interrupted stage continues from its work folder.

        Args:
            stage: The name of the stage.
            key: The key of the stage, as returned by :func:`stage_key`.
            output: The path of the artifact, relative to the run folder.
            build: The function that makes the artifact. It receives the path to make and a work folder that survives an
                interruption; other files that it makes beside the path are put beside the artifact too. It may return
                facts for the record.
            beside: The names of other files that belong to the artifact; if one is missing, the artifact is made again.

        Returns:
            The artifact in its place.
        """
        work = self.work(stage)
        made = work / "made"
        shutil.rmtree(made, ignore_errors=True)  # half of something: the checkpoints lie beside it
        work_folder(made)
        started = time.monotonic()
        spent = _Stopwatch(work / "seconds.json", key)
        try:
            facts = build(made / Path(output).name, work) or {}
        finally:
            spent.add(time.monotonic() - started)
        target = self.path / output
        digest = content_digest(made / Path(output).name)
        for item in sorted(made.iterdir()):
            self._put(item, target.parent / item.name)
        names = [output, *(str(Path(output).parent / name) for name in beside)]
        record = StageRecord(
            key=key,
            output=output,
            digest=digest,
            marks={name: artifact_mark(self.path / name) for name in names},
            seconds=round(spent.total, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            facts=dict(facts),
        )
        self._record(stage, record)
        shutil.rmtree(made, ignore_errors=True)
        return ArtifactRef(path=str(target), digest=digest)

    def _put(self, new: Path, target: Path) -> None:
        """Move ``new`` to ``target``; what was there is removed only when the new one is in its place."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging(target) as partial:
            if target.exists():
                target.rename(partial / target.name)
            new.rename(target)

    def _record(self, stage: Stage, record: StageRecord) -> None:
        records = {**self.records(), stage: record}
        write_json(self.path / STAGES_FILE, {name: item.model_dump(mode="json") for name, item in records.items()})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder for this process.

        Raises:
            ResourceError: Another process works in it, or it cannot be written.
        """
        file = self.path / LOCK_FILE
        work_folder(self.path)
        remove_all_leftovers(
            [self.path, *self.path.parent.glob(f"{glob.escape(self.path.name)}-*")]
        )  # nightly runs too
        with no_space_becomes_one_line(file), private_files():
            stream = file.open("a", encoding="ascii")
        with stream, private_files():
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise
                raise ResourceError(
                    f"another process works in {self.path}", "wait for it, or choose another --out"
                ) from None
            yield


class _Stopwatch:
    """The time spent on one key over all its attempts, kept beside its checkpoints."""

    def __init__(self, file: Path, key: str) -> None:
        self._file = file
        self._key = key
        self.total = 0.0
        with suppress(ArtifactError), reading(file):
            kept = read_json(file)
            self.total = float(kept["seconds"]) if kept["key"] == key else 0.0

    def add(self, seconds: float) -> None:
        """Add the time of one attempt."""
        self.total += seconds
        with suppress(OSError, ResourceError):
            write_json(self._file, {"key": self._key, "seconds": self.total})
