"""The utility study: the same downstream model trained in several arms with equal steps, tested on real patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.core.progress import Progress
from medphantom.quality.config import StudyConfig
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.utility.label_study import check_label_study, run_label_study
from medphantom.quality.utility.mask_study import check_mask_study, run_mask_study


def run_study(
    real: Cohort,
    synthetic: Sequence[Cohort],
    preprocess: Preprocess,
    config: StudyConfig,
    *,
    work: Path,
    external: dict[str, Cohort] | None = None,
    progress: Progress | None = None,
) -> StudyReport:
    """Train classifiers or segmenters on real and synthetic images, and test them on real patients.

    After an interruption, finished trainings are loaded from ``work``.

    Args:
        real: real cohort; models are trained on ``train`` and tested on ``test``, with thresholds from ``val``.
        synthetic: cohorts of generators with different seeds, trained on exactly these training patients.
        preprocess: preprocessing of images for the downstream models.
        config: settings of the study.
        work: private folder for checkpoints.
        external: further test cohorts by name, of which all images are used.
        progress: callback that receives the progress.

    Raises:
        InputError: there is no synthetic cohort, or the cohorts cannot be compared.
        UnsupportedClaim: there are no labels, or no label has enough patients.
    """
    run = run_mask_study if config.task == "segmentation" else run_label_study
    return run(real, synthetic, preprocess, config, work=work, external=external, progress=progress)


def check_study(real: Cohort, config: StudyConfig) -> None:
    """Refuse an unsupported study before anything is trained.

    Raises:
        InputError: the cohort has no test patients, or not all labels of interest.
        UnsupportedClaim: there are no labels, or no label, or not every label of interest, has enough patients.
    """
    check = check_mask_study if config.task == "segmentation" else check_label_study
    check(real, config)
