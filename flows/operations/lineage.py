"""What learned from a patient, from cohorts to reports, and what has to be done when that patient withdraws consent.

Folders are linked by the digests that they carry, wherever they lie: a bundle names the digest of its training rows and
of its base, a synthetic cohort the bundles it was drawn from, exports and reports the cohorts they were made of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from medphantom.cohorts.export import FACTS_FILE as EXPORT_FILE
from medphantom.cohorts.export import METADATA_FILE
from medphantom.cohorts.exported import exported_texts, is_ours
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.manifest import SCHEMA_FILE
from medphantom.cohorts.private import LINKS_FILE, printable, private_path, read_links
from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import RawText, Text, checked
from medphantom.core.errors import InputError, MedphantomError
from medphantom.core.folders import DIGEST_FILE, read_json
from medphantom.core.guard import user_path
from medphantom.core.naming import plain_id
from medphantom.flows.operations.places import Folder
from medphantom.flows.runs.artifact import REPORT_JSON
from medphantom.generators.facts import FACTS_FILE, BundleFacts, read_facts
from medphantom.generators.training_data import training_digest

LEARNED_FROM = ("train", "val")
DRAWN = "drawn from a bundle that learned from the patient"


@dataclass(frozen=True)
class Trace:
    """Something that a patient has a part in.

    Attributes:
        kind: ``cohort``, ``counterfactuals``, ``bundle``, ``synthetic``, ``export`` or ``report``.
        path: where it lies.
        part: what part the patient has in it, in words.
        remedy: what is to be done.
        retrain: whether networks have to be trained again.
    """

    kind: str
    path: Path
    part: str
    remedy: str
    retrain: bool = False


@dataclass(frozen=True)
class Lineage:
    """All that was found.

    Attributes:
        traces: in the order in which one was made of the other.
        untold: one line for each cohort, bundle or export of which nobody can tell, and why.
        searched: folders that were looked at.
        files: source files of the patient, where a private folder names them.
    """

    traces: tuple[Trace, ...]
    untold: tuple[str, ...]
    searched: int
    files: tuple[str, ...]


@dataclass
class _Places:
    """Published folders and files by kind."""

    cohorts: list[Cohort] = field(default_factory=list)
    bundles: list[tuple[Path, BundleFacts, str]] = field(default_factory=list)
    exports: list[tuple[Path, Any]] = field(default_factory=list)
    reports: list[tuple[Path, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.cohorts) + len(self.bundles) + len(self.exports) + len(self.reports)


@checked
def lineage(
    patient: RawText,
    folders: Sequence[Folder] = (),
    *,
    key_file: Folder | None = None,
    public_phrase: Text | None = None,
) -> Lineage:
    """Follow a patient through everything that lies under some folders.

    Args:
        patient: Patient id as the source names it, or pseudonym.
        folders: Folders to look through, without following links; by default the working directory.
        key_file: Secret key of the pseudonyms; without it the private folders beside the cohorts say whose they are.
        public_phrase: Phrase that the key derives from, where one was used instead.

    Raises:
        InputError: no patient is given, a folder does not exist, or nothing of ours lies there.
    """
    if public_phrase is not None and key_file is not None:
        raise InputError("--key-file and --public-phrase are mutually exclusive", "give the one that was used")
    key = None
    if public_phrase is not None:
        key = IdentityKey.from_phrase(public_phrase)
    elif key_file is not None:
        key = IdentityKey.load(Path(key_file))
    return traced(patient, [Path(folder) for folder in folders or (Path(),)], key)


def traced(patient: str, folders: Sequence[Path], key: IdentityKey | None = None) -> Lineage:
    """Follow a patient whose pseudonyms a key makes; see :func:`lineage`."""
    if not plain_id(patient):
        raise InputError("no patient was named", "give --patient ID, or --patient - and the id on standard input")
    places = _Places()
    for folder in folders:
        if not user_path(folder).is_dir():
            raise InputError(f"{folder} is not a folder", "check the path")
        _look(folder, places)
    if not len(places) and not places.broken:
        raise InputError("no cohort, bundle, export or report lies there", "name the folders that hold them")
    return _Trail(plain_id(patient), key, places).followed()


def _look(root: Path, places: _Places) -> None:
    for folder, inner, files in os.walk(root):
        here, names = Path(folder), set(files)
        try:
            if SCHEMA_FILE in names and DIGEST_FILE in names:
                inner.clear()
                cohort = Cohort.open(here)
                len(cohort.manifest)  # a damaged one is told here, and the others are searched
                places.cohorts.append(cohort)
            elif FACTS_FILE in names and DIGEST_FILE in names:
                inner.clear()
                places.bundles.append((here, *read_facts(here)))
            else:
                if EXPORT_FILE in names and is_ours(facts := read_json(here / EXPORT_FILE)):
                    places.exports.append((here, facts))
                if REPORT_JSON in names:
                    places.reports.append((here / REPORT_JSON, read_json(here / REPORT_JSON)))
        except MedphantomError as problem:
            places.broken.append(str(problem))
        inner.sort()


class _Trail:
    """One search, step by step: each knows by their digests what the steps before it found."""

    def __init__(self, patient: str, key: IdentityKey | None, places: _Places) -> None:
        self.patient, self.key, self.places = patient, key, places
        self.untold = list(places.broken)
        self.files: list[str] = []
        self.names = {printable(patient)}  # under which the patient may stand
        if key is not None:
            self.names.add(key.pseudonym("patient", patient))
        self.certain: set[str] = set()  # pseudonyms of which a private folder says whose they are
        self.searched: set[str] = set()  # digests of cohorts, those that do not know the patient too
        self.held: set[str] = set()  # digests of cohorts
        self.rows: dict[str, str] = {}  # digest of training rows → the split that the patient is in
        self.learned: set[str] = set()  # digests of bundles

    def followed(self) -> Lineage:
        traces = [*self.cohorts(), *self.bundles(), *self.synthetic(), *self.exports(), *self.reports()]
        return Lineage(tuple(traces), tuple(self.untold), len(self.places), tuple(dict.fromkeys(self.files)))

    def cohorts(self) -> Iterator[Trace]:
        real = self._real()
        links = [self._links(cohort) for cohort in real]
        images = [self._images(frame) for frame in links]
        for cohort, own in zip(real, images, strict=True):
            self.searched.add(cohort.digest)
            rows = cohort.manifest.filter(pl.col("patient").is_in(list(self.names)) | pl.col("image_id").is_in(own))
            if rows.is_empty():
                self._cannot_tell(cohort)
                continue
            self.held.add(cohort.digest)
            counts = dict(rows.group_by("split").len().iter_rows())
            part = ", ".join(
                f"{counts[split]} images in {split}" for split in dict.fromkeys((*SPLITS, *counts)) if split in counts
            )
            if cohort.schema.kind == "counterfactual":
                yield Trace("counterfactuals", cohort.path, f"edits of its images: {part}", "remove it, make it again")
                continue
            split = next((split for split in LEARNED_FROM if split in counts), None)
            if split is not None:
                self.rows[training_digest(cohort)] = split
            remedy = "remove the patient's files from the source and ingest again; no other patient changes its split"
            yield Trace("cohort", cohort.path, part, remedy)

    def _real(self) -> list[Cohort]:
        return [cohort for cohort in self.places.cohorts if cohort.schema.kind != "synthetic"]

    def _links(self, cohort: Cohort) -> pl.DataFrame | None:
        """What the private folder of a cohort says; ``None`` where it is not beside it.

        The pseudonyms under which it knows the patient become ``names``, since an export that is read again keeps them;
        such a cohort has them in place of the ids, and so cannot tell whose they are.
        """
        file = private_path(cohort.path) / LINKS_FILE
        if not file.is_file():
            return None
        frame = read_links(file)
        self.certain.update(frame.filter(pl.col("patient").ne_missing(pl.col("patient_id")))["patient"].drop_nulls())
        own = frame.filter(
            (pl.col("patient_id") == printable(self.patient)) | pl.col("patient").is_in(list(self.names))
        )
        self.names.update(own["patient"].drop_nulls())
        self.files += own["path"].drop_nulls().to_list()
        return frame

    def _images(self, links: pl.DataFrame | None) -> list[str]:
        """Images that a file of the patient became, or that it repeats."""
        if links is None:
            return []
        return links.filter(pl.col("patient_id") == printable(self.patient))["image_id"].drop_nulls().to_list()

    def _cannot_tell(self, cohort: Cohort) -> None:
        """Note where that nothing was found means nothing."""
        reasons = []
        if not self.certain.issuperset(cohort.patients()):
            reasons.append(self._nobody_knows(private_path(cohort.path) / LINKS_FILE))
        if cohort.schema.patients == "per_image":
            reasons.append("some of its images name no patient, so that any may be this one's")
        if reasons:
            self.untold.append(f"{cohort.path}: {'; and '.join(reasons)}")

    def _nobody_knows(self, links: Path) -> str:
        """Why nobody can tell whose the pseudonyms of a cohort are, and what to do."""
        if not links.is_file():
            ask, doubt = "give the key of its pseudonyms", "and its key may be another one"
            return f"its private folder is not beside it{f'; {ask}' if self.key is None else f', {doubt}'}"
        beside = "search the cohort that was exported, with its private folder, too"
        if self.key is None:
            return f"it was read from an export, which names pseudonyms alone; {beside}, or give the key of these"
        return f"it was read from an export, which names pseudonyms alone, and their key may be another one; {beside}"

    def bundles(self) -> Iterator[Trace]:
        waiting, found = list(self.places.bundles), True
        while found:
            found = False
            for path, facts, digest in list(waiting):
                part = self._part_in(facts)
                if part is None:
                    continue
                waiting.remove((path, facts, digest))
                self.learned.add(digest)
                found = True
                promised = ""
                if facts.privacy.guarantee is not None:
                    promised = f" (what it says of one patient is bounded: {facts.privacy.formal})"
                yield Trace("bundle", path, part + promised, "remove it and train again", retrain=True)

        seen = {training_digest(cohort) for cohort in self._real()} if waiting else set()
        for path, facts, _ in waiting:
            if facts.training_digest not in seen:
                self.untold.append(f"{path}: the cohort that it learned from is not among the folders; search it too")

    def _part_in(self, facts: BundleFacts) -> str | None:
        split = self.rows.get(facts.training_digest)
        if split is not None:
            learned, chose = "its weights learned from the patient", "the patient's images chose its weights"
            return learned if split == "train" else chose
        if facts.base is not None and facts.base.digest in self.learned:
            return "fine-tuned from a bundle that learned from the patient"
        return None

    def synthetic(self) -> Iterator[Trace]:
        for cohort in self.places.cohorts:
            if cohort.schema.kind != "synthetic":
                continue
            self.searched.add(cohort.digest)
            bundles = set(cohort.manifest["bundle_digest"].drop_nulls())
            if not self.learned & bundles:
                self._miss_bundles(cohort.path, bundles)
            else:
                self.held.add(cohort.digest)
                yield Trace(
                    "synthetic",
                    cohort.path,
                    DRAWN,
                    "withdraw it, from whoever has it too, and generate again",
                )

    def _miss_bundles(self, path: Path, bundles: set[str]) -> None:
        if not bundles <= {digest for _, _, digest in self.places.bundles}:
            self.untold.append(f"{path}: the bundle that it was drawn from is not among the folders; search it too")

    def exports(self) -> Iterator[Trace]:
        remedy = "withdraw it, from whoever has it too, and export again"
        for path, facts in self.places.exports:
            digest = _texts(facts, "cohort_digest")
            if digest & self.held:
                yield Trace("export", path, "files of one of these cohorts", remedy)
                continue
            drawn = facts.get("kind") == "synthetic"
            stated = exported_texts(path, "bundle_digest" if drawn else "patient")
            if stated is not None and (self.learned if drawn else self.names) & set(stated):
                part = f"{sum(name in self.names for name in stated)} images of the patient, by pseudonym"
                self.held |= digest
                yield Trace("export", path, DRAWN if drawn else part, remedy)
            elif digest & self.searched:
                continue  # the cohort that it is of has the answer
            elif stated is None:
                self.untold.append(
                    f"{path}: its {METADATA_FILE} does not tell; search the cohort that was exported too"
                )
            elif drawn:
                self._miss_bundles(path, set(stated))
            else:
                self._cannot_tell_of_export(path, facts, stated)

    def _cannot_tell_of_export(self, path: Path, facts: Any, patients: Sequence[str]) -> None:
        if not self.certain.issuperset(patients):
            ask, doubt = "; give the key of these", ", and their key may be another one"
            said = f"its {METADATA_FILE} names pseudonyms alone{ask if self.key is None else doubt}"
            self.untold.append(f"{path}: {said}, or search the cohort that was exported too")
        elif _texts(facts, "patients") != {"known"}:
            self.untold.append(f"{path}: some of its images may name no patient, so that any may be this one's")

    def reports(self) -> Iterator[Trace]:
        for path, content in self.places.reports:
            quality = content.get("quality") if isinstance(content, dict) else None
            if _texts(quality, "real_digest", "synthetic_digest") & self.held:
                yield Trace("report", path, "scores of these cohorts", "assess again")


def _texts(content: Any, *names: str) -> set[str]:
    """The texts that JSON content holds under some names."""
    found = [content.get(name) for name in names] if isinstance(content, dict) else []
    return {value for value in found if isinstance(value, str)}
