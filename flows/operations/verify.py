"""``verify``: everything in a cohort, bundle or run is read and compared with its digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medphantom.cohorts.manifest import SCHEMA_FILE
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import ArtifactError, InputError, ResourceError
from medphantom.core.folders import inside
from medphantom.core.guard import user_path
from medphantom.flows.operations.places import Folder
from medphantom.flows.runs.artifact import STAGES_FILE, RunFolder, artifact_mark
from medphantom.generators.facts import FACTS_FILE


def verify(folder: Folder) -> list[str]:
    """Read everything in a cohort, bundle or run folder and compare it with its digest.

    Returns:
        One line for each part that is as it was published.

    Raises:
        ArtifactError: Something differs.
        InputError: The folder is none of these.
    """
    return list(_verified(Path(folder)))


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
                elif not part.exists() or artifact_mark(part) != record.marks.get(name):
                    raise ResourceError(f"{part} is missing or was altered", "run the recipe again")
                else:
                    yield f"{part}: as stage {stage} made it"
    elif (folder / SCHEMA_FILE).is_file():
        cohort = Cohort.open(folder)
        cohort.verify()
        yield f"{folder}: {len(cohort)} {cohort.schema.kind} images as published, digest {cohort.digest[:12]}"
    elif (folder / FACTS_FILE).is_file():
        from medphantom.generators.bundle import GeneratorBundle

        yield f"{folder}: bundle as published, digest {GeneratorBundle.load(folder).digest[:12]}"
    else:
        raise InputError(f"{folder} is no cohort, bundle or run folder", "give one that medphantom made")
