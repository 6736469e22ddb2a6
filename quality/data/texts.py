"""Findings named in texts, and the texts of a cohort."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array
from medphantom.quality.data.evaluation_data import EvaluationData

BEFORE = re.compile(
    r"\b(no|not|without|denies|absence of|absent|free of|clear of|negative for|ruled out|rule out|resolved)\b",
    re.IGNORECASE,
)
AFTER = re.compile(r"^\W*(is|are|was|were)?\s*(not|absent|ruled out|resolved|unlikely)\b", re.IGNORECASE)
CLAUSE = re.compile(r"[.;:\n]|\bbut\b|\bhowever\b|\balthough\b|\bexcept\b", re.IGNORECASE)


def named_findings(text: str, labels: Sequence[str]) -> Array:
    """Status of each label in a text: 1 affirmed, 0 negated, -1 not named.

    A name is negated when a negation stands before it in the same clause, or right after it (after NegEx, Chapman et
    al. 2001). A finding that is affirmed anywhere is affirmed.

    Args:
        text: a report or a prompt.
        labels: names, with ``_`` or ``-`` for spaces.
    """
    found = np.full(len(labels), -1, dtype=np.int8)
    for clause in CLAUSE.split(text):
        for place, label in enumerate(labels):
            words = r"[\s_-]+".join(re.escape(part) for part in re.split(r"[\s_-]+", label) if part)
            if not words:
                continue
            for match in re.finditer(rf"\b{words}(s|es)?\b", clause, re.IGNORECASE):
                negated = BEFORE.search(clause[: match.start()]) or AFTER.search(clause[match.end() :])
                found[place] = max(found[place], 0 if negated else 1)
    return found


def texts_of(cohort: Cohort, rows: Sequence[int]) -> list[str | None]:
    """The text of each row."""
    return list(cohort.manifest["text"].gather(list(rows)).to_list())


def requested_findings(data: EvaluationData) -> tuple[Array, Array] | None:
    """Findings affirmed (1) or not (0) by texts of synthetic and real test images; ``None`` if one side has no texts.

    Images without a text have the value -1.
    """
    if not (data.real.schema.has_text and data.synthetic.schema.has_text):
        return None
    labels = data.targets.names
    tables = []
    for cohort, rows in ((data.synthetic, range(len(data.synthetic))), (data.real, data.rows["test"])):
        texts = texts_of(cohort, list(rows))
        found = [named_findings(text, labels) if text else None for text in texts]
        tables.append(np.array(list(_affirmed(found, len(labels))), dtype=np.int8).reshape(len(texts), len(labels)))
    return tables[0], tables[1]


def _affirmed(found: Sequence[Array | None], total: int) -> Iterator[Array]:
    for one in found:
        yield np.full(total, -1) if one is None else (one == 1).astype(np.int8)
