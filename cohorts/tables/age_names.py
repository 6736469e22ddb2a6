"""Names of columns and attributes that denote age, its unit, an age group or a date of birth."""

from __future__ import annotations

import re
import unicodedata

YEARS, MONTHS, WEEKS, DAYS = 1.0, 1 / 12, 7 / 365.25, 1 / 365.25
UNIT_WORDS: dict[float, tuple[str, ...]] = {
    YEARS: ("y", "yr", "yrs", "year", "years", "yo", "y/o", "a", "j", "jahr", "jahre", "jahren", "an", "ans", "année",
            "années", "año", "años", "anno", "anni", "ano", "anos", "jaar", "rok", "lata", "lat", "år", "год", "года",
            "лет", "г", "岁", "歲", "歳", "才", "年", "세", "살"),
    MONTHS: ("m", "mo", "mos", "mon", "mth", "mths", "month", "months", "monat", "monate", "monaten", "mois", "mes",
             "meses", "mese", "mesi", "mês", "maand", "maanden", "мес", "месяц", "месяца", "месяцев", "个月", "個月",
             "か月", "ヶ月", "カ月", "ヵ月", "개월"),
    WEEKS: ("w", "wk", "wks", "week", "weeks", "wo", "woche", "wochen", "semaine", "semaines", "semana", "semanas",
            "settimane", "нед", "недель", "недели", "周", "週", "주"),
    DAYS: ("d", "day", "days", "t", "tag", "tage", "tagen", "jour", "jours", "día", "días", "dia", "dias", "giorni",
           "dagen", "день", "дня", "дней", "天", "日", "일"),
}  # fmt: skip
"""Length of a unit in years → words for it in cells; DICOM's own are D, W, M and Y (PS3.5 6.2, VR AS)."""

_AGE = "(?:ages?|aged|alters?)"
_BEFORE = (
    "patient(?:en)?s?", "pat", "pt", "subjects?", "participants?", "person", "case", "client", "child", "maternal",
    "donor", "scan", "image", "imaging", "study", "exam", "visit", "baseline", "mean", "approx(?:imate)?", "current",
    "real", "chronological", "bone", "gestational", "diagnosis", "onset", "death", "lebens", "kindes", "probanden",
    "untersuchungs", "aufnahme", "diagnose", "erkrankungs", "sterbe", "knochen", "dicom", "attr",
)  # fmt: skip
_GROUPS = (
    "groups?", "grp", "range", "bins?", "binned", "bands?", "bracket", "cat", "category", "categories", "class",
    "interval", "decade", "cohort", "gruppen?", "klassen?", "stufen?", "bereich", "dekade",
)  # fmt: skip
_AFTER = (
    "at", "in", "by", "of", "when", "on", "the", "y", "yrs?", "years?", "mos?", "mths?", "months?", "wks?", "weeks?",
    "days?", "jahren?", "monaten?", "wochen", "tagen?", "approx(?:imate)?", "num", "number", "value", "float", "int",
    "bei", "zur", "der", "des", *_BEFORE, *_GROUPS,
)  # fmt: skip
_GLUED = re.compile(f"(?:{'|'.join(_BEFORE)})*{_AGE}(?:{'|'.join(_AFTER)})*")  # patientage, Altersgruppe; not stage
_WORDS = {
    "edad", "edades", "età", "âge", "idade", "leeftijd", "ålder", "alder", "aldur", "wiek", "věk", "vek", "yaş", "yas",
    "ikä", "ika", "vârsta", "varsta", "tuổi", "tuoi", "lebensjahr", "lebensjahre", "életkor", "eletkor", "umur", "usia",
    "возр", "вік", "starost", "старост", "amžius", "vecums", "vanus", "mosha", "عمر", "سن", "उम्र",
}  # fmt: skip
_ONLY_YEARS = {"yrs", "years", "jahre", "ans", "años", "anos", "anni", "lata", "лет"}  # not *year*, nor *pack_years*
_INSIDE = ("возраст", "възраст", "年龄", "年齢", "年齡", "나이", "연령", "ηλικία", "العمر", "आयु")
_BIRTH = re.compile(
    r"birth|dob|yob|geboren|geburts\w*|geb|naissance|nacimiento|nascita|nascimento|geboorte\w*|birthdate|birthday"
    r"|jahrg(?:ang)?|urodz\w*|födelse\w*|fødsel\w*|syntymä\w*|doğum\w*|születés\w*|narozen\w*|nasc|lahir|sinh|syntynyt"
    r"|birthyear|dateofbirth|yearofbirth|patientbirth\w*"
)
_BIRTH_INSIDE = ("рожд", "出生", "生年", "생년", "출생", "γεννη", "γέννη", "народж")
_NAME_UNITS = {
    "month": MONTHS, "months": MONTHS, "mo": MONTHS, "mos": MONTHS, "mth": MONTHS, "mths": MONTHS, "monat": MONTHS,
    "monate": MONTHS, "monaten": MONTHS, "mois": MONTHS, "meses": MONTHS, "mesi": MONTHS,
    "week": WEEKS, "weeks": WEEKS, "wk": WEEKS, "wks": WEEKS, "wochen": WEEKS, "semaines": WEEKS, "semanas": WEEKS,
    "day": DAYS, "days": DAYS, "tage": DAYS, "tagen": DAYS, "jours": DAYS, "dias": DAYS, "días": DAYS,
}  # fmt: skip
_GLUED_UNIT = re.compile(f"{_AGE}(?:in|at|by)*(months?|mths?|monaten?|mos?|weeks?|wks?|wochen|days?|tagen?)")
_LINK = re.compile("(?:in|at|by)$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])|(?<=[A-ZÀ-Þ])(?=[A-ZÀ-Þ][a-zß-ÿ])")


def says_age(name: str) -> bool:
    """Return whether a name denotes age: as a word, or in a compound of known words; never as part of another word.

    Example:
        >>> [says_age(name) for name in ("PatientAge", "age_at_scan", "Altersgruppe", "возраст пациента", "patientage")]
        [True, True, True, True, True]
        >>> [says_age(name) for name in ("image", "stage", "dosage", "percentage", "Walter", "schalter")]
        [False, False, False, False, False, False]
    """
    words = _words(name)
    folded = unicodedata.normalize("NFC", name).casefold()
    if len(words) == 1 and words[0] in _ONLY_YEARS:
        return True
    return any(word in _WORDS or _GLUED.fullmatch(word) for word in words) or any(sign in folded for sign in _INSIDE)


def says_age_group(name: str) -> bool:
    """Return whether a name denotes age in groups, whose cells are codes or ranges instead of ages.

    Example:
        >>> says_age_group("age_group"), says_age_group("Altersklasse"), says_age_group("age")
        (True, True, False)
    """
    groups = re.compile(f"(?:.*{_AGE})?(?:{'|'.join(_GROUPS)})")
    return says_age(name) and any(groups.fullmatch(word) for word in _words(name))


def says_birth(name: str) -> bool:
    """Return whether a name denotes a date of birth.

    Example:
        >>> says_birth("PatientBirthDate"), says_birth("dob"), says_birth("adobe")
        (True, True, False)
    """
    folded = unicodedata.normalize("NFC", name).casefold()
    return any(_BIRTH.fullmatch(word) for word in _words(name)) or any(sign in folded for sign in _BIRTH_INSIDE)


def unit_of_name(name: str) -> float | None:
    """Return the length in years of the unit in a name; ``None`` if it has none, or years.

    Example:
        >>> unit_of_name("age_months") == 1 / 12, unit_of_name("age")
        (True, None)
    """
    words = _words(name)
    found = [_NAME_UNITS[word] for word in words if word in _NAME_UNITS]
    found += [_NAME_UNITS[match[1]] for word in words if (match := _GLUED_UNIT.search(word))]
    return found[0] if found else None


def name_in_years(name: str) -> str:
    """Return a name for ages that were converted to years: without the unit that it contains.

    Example:
        >>> [name_in_years(name) for name in ("age_months", "AgeInDays", "agemonths", "bone_age_months", "age")]
        ['age', 'age', 'age', 'bone_age', 'age']
    """
    if unit_of_name(name) is None:
        return name
    kept: list[str] = []
    for word in re.split(r"[\W\d_]+", _CAMEL.sub(" ", unicodedata.normalize("NFC", name))):
        match = _GLUED_UNIT.search(word.casefold())
        rest = _LINK.sub("", word[: match.start(1)]) if match else word
        if word.casefold() in _NAME_UNITS:
            kept = kept[:-1] if kept and kept[-1].casefold() in {"in", "by"} else kept
        elif rest:
            kept.append(rest)
    found = "_".join(kept)
    return found if found and found.casefold() != "age" else "age"


def _words(name: str) -> list[str]:
    """Return the words of a name, case folded: split at signs, digits, and where upper case follows lower case."""
    spaced = _CAMEL.sub(" ", unicodedata.normalize("NFC", name))
    return [word.casefold() for word in re.split(r"[\W\d_]+", spaced) if word]
