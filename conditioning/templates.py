"""Sentences from labels and attributes, for cohorts without reports: the wording varies, the content does not.

They are plain English sentences as at the start of reports; a model trained on them knows these phrases only, which its
bundle records (:attr:`medphantom.conditioning.prompt.TextSchema.written_by`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medphantom.conditioning.prompt import ConditionSchema, Prompt

MOST_ABSENT = 2  # largest number of absent findings in a sentence; fourteen would leave no room for the present ones

SEXES = {
    "f": ("woman", "female patient"),
    "female": ("woman", "female patient"),
    "m": ("man", "male patient"),
    "male": ("man", "male patient"),
}
OPENINGS = ("Image of {who}", "Study of {who}", "{who}")
SHOWING = ("showing {what}", "with {what}", "demonstrating {what}")
NORMAL = ("no finding", "no abnormality", "normal appearance")
ABSENT = ("no {what}", "without {what}", "no evidence of {what}")


def sentence(schema: ConditionSchema, prompt: Prompt, rng: np.random.Generator) -> str | None:
    """Return one paraphrase of the content of a prompt.

    It names the patient, then the present findings, then up to :data:`MOST_ABSENT` of the absent ones; if every label
    of the schema is absent, it says that there is no finding. Ages are integers.

    Args:
        schema: Vocabulary, which defines the numerical attributes and their units.
        prompt: Labels and attributes; its text is ignored.
        rng: Random generator of the wording and of the absent findings that are named.

    Returns:
        The sentence; ``None`` if the prompt is empty.
    """
    parts = [_who(schema, prompt.attributes, rng), _what(schema, prompt.labels, rng)]
    given = [part for part in parts if part]
    if not given:
        return None
    text = ", ".join(given)
    return f"{text[0].upper()}{text[1:]}."


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _who(schema: ConditionSchema, attributes: Mapping[str, float | str], rng: np.random.Generator) -> str:
    """Return a phrase such as ``image of a 58-year-old woman, view PA``."""
    if not attributes:
        return ""
    left = dict(attributes)
    age, sex = left.pop("age", None), left.pop("sex", None)
    person = ""
    if sex is not None:
        words = SEXES.get(str(sex).lower())
        person = f"patient of sex {sex}" if words is None else _pick(words, rng)
    if isinstance(age, str):
        person = f"{person or 'patient'} of age {age}"
    elif age is not None:
        years = round(age)
        person = (
            f"{years}-year-old {person or 'patient'}" if rng.random() < 0.5 else f"{person or 'patient'} aged {years}"
        )
    article = "an" if person[:1] in {"8", "a", "e", "i", "o"} or person[:2] in {"11", "18"} else "a"
    opening = _pick(OPENINGS, rng).format(who=f"{article} {person}") if person else ""
    others = [_attribute(schema, name, value) for name, value in left.items()]
    rng.shuffle(others)
    return ", ".join(part for part in [opening, *others] if part)


def _attribute(schema: ConditionSchema, name: str, value: float | str) -> str:
    units = {spec.name: spec.unit for spec in schema.continuous}
    if isinstance(value, str):
        return f"{name} {value}"
    unit = units.get(name, "")
    return f"{name} {value:.3g}{f' {unit}' if unit else ''}"


def _what(schema: ConditionSchema, labels: Mapping[str, bool], rng: np.random.Generator) -> str:
    """Return a phrase such as ``showing effusion and mass, no evidence of nodule``."""
    present = [name for name, shown in labels.items() if shown]
    absent = [name for name, shown in labels.items() if not shown]
    rng.shuffle(present)
    rng.shuffle(absent)
    parts = []
    if present:
        parts.append(_pick(SHOWING, rng).format(what=_joined(present)))
    elif absent and len(absent) == len(schema.labels):
        return _pick(SHOWING, rng).format(what=_pick(NORMAL, rng))
    if absent and not schema.exclusive:
        named = absent[: int(rng.integers(0 if present else 1, MOST_ABSENT + 1))]
        parts += [_pick(ABSENT, rng).format(what=_joined(named, "or"))] if named else []
    return ", ".join(parts)


def _joined(names: Sequence[str], word: str = "and") -> str:
    readable = [name.replace("_", " ").lower() for name in names]
    if len(readable) == 1:
        return readable[0]
    return f"{', '.join(readable[:-1])} {word} {readable[-1]}"
