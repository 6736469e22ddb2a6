"""``verify``: everything in a cohort, bundle or run is read and compared with its digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medphantom.cohorts.manifest import SCHEMA_FILE
from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.core.errors import ArtifactError, BundleError, InputError, ResourceError
from medphantom.core.folders import inside, read_digest
from medphantom.core.guard import reading, user_path
from medphantom.flows.operations.places import Folder
from medphantom.flows.process.progress import watcher
from medphantom.flows.runs.artifact import STAGES_FILE, RunFolder, artifact_mark
from medphantom.generators.facts import FACTS_FILE
from medphantom.shipped import source_path

UNRELIABLE = "do not rely on it; ask its creator"


@checked
def verify(folder: Folder) -> list[str]:
    """Read everything in a cohort, bundle (a folder or ``base:NAME``) or run folder and compare it with its digest.

    Returns:
        One line for each part that is as it was published.

    Raises:
        ArtifactError: Something differs.
        InputError: The folder is none of these.
    """
    return list(_verified(source_path(str(folder))))


def _verified(folder: Path) -> Iterator[str]:
    """Read everything in a cohort, bundle or run folder and compare it with its digest; one line for each.

    Raises:
        ArtifactError: something differs.
        InputError: the folder is none of these.
    """
    user_path(folder)
    if (folder / STAGES_FILE).is_file():
        records = RunFolder(folder).records()
        if not records:  # a run does without them; whoever asks whether it is whole must be told
            raise ArtifactError(f"{folder / STAGES_FILE} is damaged or names no stage", "run the recipe again")
        for stage, record in records.items():
            for name in dict.fromkeys((record.output, *record.marks)):
                part = inside(folder, name)
                if (part / SCHEMA_FILE).is_file() or (part / FACTS_FILE).is_file():
                    yield from _verified(part)
                    if name == record.output and read_digest(part)["digest"] != record.digest:
                        raise ArtifactError(f"{part} is not the one that the run made", "run the recipe again")
                elif not part.exists() or artifact_mark(part) != record.marks.get(name):
                    raise ResourceError(f"{part} is missing or was altered", "run the recipe again")
                else:
                    yield f"{part}: as stage {stage} made it"
    elif (folder / SCHEMA_FILE).is_file():
        cohort = Cohort.open(folder)
        cohort.verify(watcher().stage(f"verify {folder.name}"))
        yield f"{folder}: {len(cohort)} {cohort.schema.kind} images as published, digest {cohort.digest[:12]}"
    elif (folder / FACTS_FILE).is_file():
        yield from _verified_bundle(folder)
    else:
        raise InputError(f"{folder} is no cohort, bundle or run folder", "give one that medphantom made")


def _verified_bundle(folder: Path) -> Iterator[str]:
    """Load a bundle, and compute its guarantee again from the private steps that it states."""
    from medphantom.core.extras import absent
    from medphantom.generators.bundle import GeneratorBundle

    bundle = GeneratorBundle.load(folder)
    yield f"{folder}: bundle as published, digest {bundle.digest[:12]}"
    guarantee = bundle.facts.privacy.guarantee
    if guarantee is None:
        return
    if absent("private"):
        yield f"{folder}: its guarantee was not computed again, which needs pip install 'medphantom[private]'"
        return
    from medphantom.learning.accounting import understated

    with reading(folder, BundleError, "states private steps whose cost cannot be computed", UNRELIABLE):
        wrong = understated(guarantee)
    if wrong:
        raise BundleError(
            f"{folder} states a guarantee whose {wrong} is smaller than what its private steps cost",
            UNRELIABLE,
        )
    yield f"{folder}: {guarantee.sentence()}, computed again from its private steps"
