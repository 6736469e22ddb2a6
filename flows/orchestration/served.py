"""The job that a schedule may run: the recipe, settings and folder it was started with, and nothing that a request
names.

They pass to the processes of scheduled runs by the environment, which no request to Prefect's API can write.
"""

from __future__ import annotations

import os
from datetime import datetime

from pydantic import ValidationError

from medphantom.core.errors import InputError, RecipeError
from medphantom.core.records import Frozen
from medphantom.flows.runs.job import Job, open_job, recipe_digest

SERVED_VARIABLE = "MEDPHANTOM_SERVED"


class Served(Frozen):
    """A job as it was served.

    Attributes:
        recipe: The absolute path of the recipe file.
        settings: The settings ``field=value``, as given to ``--set``.
        out: The absolute path of the run folder.
        digest: The digest of the recipe as resolved.
    """

    recipe: str
    settings: tuple[str, ...]
    out: str
    digest: str

    @classmethod
    def of(cls, job: Job) -> Served:
        """Return the description under which a job is served."""
        return cls(
            recipe=str(job.loaded.file.resolve()),
            settings=job.loaded.settings,
            out=str(job.base.path.resolve()),
            digest=recipe_digest(job),
        )


def served() -> Served:
    """Return the job that this process was started to serve.

    Raises:
        InputError: The process was not started by ``medphantom serve``.
    """
    try:
        return Served.model_validate_json(os.environ.get(SERVED_VARIABLE, ""))
    except ValidationError:
        raise InputError(
            "this flow runs only what medphantom serve was given", "start it by medphantom serve"
        ) from None


def open_served(scheduled: datetime) -> Job:
    """Open the served job at one time of its schedule.

    Args:
        scheduled: The time of the run, which tags its images and its folder.

    Raises:
        InputError: Nothing is served here.
        RecipeError: The recipe is not, or no longer, the one that was served.
    """
    given = served()
    job = open_job(given.recipe, given.settings, given.out, scheduled)
    if recipe_digest(job) != given.digest:
        raise RecipeError(f"{job.loaded.file.name} has changed since it was served", "start medphantom serve again")
    return job
