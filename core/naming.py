"""When two names or two identifiers mean the same: one definition for headers, tables, folders and look-ups.

Names of findings and columns are compared without case, spaces and punctuation, in any script. Identifiers of
patients are compared as written, except for what a spreadsheet or an export changes about them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

MISSING_CELLS = frozenset({
    "", "na", "n/a", "n.a.", "n. a.", "k.a.", "k. a.", "keine angabe", "nan", "nat", "null", "none", "<na>", "-", "--",
    "?", ".", "#n/a", "#na", "#nv", "#value!", "#wert!", "#valeur!", "#valor!", "#valore!", "#ref!", "#bezug!",
    "#name?", "#nombre?", "#nom?", "#num!", "#zahl!", "#div/0!", "#null!", "#null", "#calc!", "#spill!",
    "#getting_data",
})  # fmt: skip
"""Cells, case folded, that are missing values in any column: empty ones and the errors that spreadsheets write."""

UNNAMED = frozenset({
    "unknown", "unk", "unknown patient", "not known", "not available", "not applicable", "not stated", "unspecified",
    "missing", "undefined", "unbekannt", "unbek.", "nicht bekannt", "nicht angegeben", "inconnu", "inconnue",
    "desconocido", "desconocida", "desconhecido", "sconosciuto", "onbekend", "okänd", "nieznany", "неизвестно",
    "неизвестен", "неизвестный", "н/д", "不明", "未知", "不详", "不詳", "미상", "anonymous", "anonymized",
    "anonymised", "anonymisiert", "anonym", "anon", "anonymous patient", "deidentified", "de-identified", "removed",
    "redacted", "withheld",
})  # fmt: skip
"""Words, case folded, that stand in place of a person's name without identifying anyone."""

_WHOLE_NUMBER = re.compile(r"([0-9]+)\.0+")  # how a float column writes an identifier
_KEPT = {
    "L",
    "M",
    "N",
}  # letters, the marks that complete them in many scripts, and numbers (Unicode categories)


_WIDTHS = {
    code: chr(int(form.split()[1], 16))
    for code in (0x3000, *range(0xFF00, 0xFFF0))
    if (form := unicodedata.decomposition(chr(code))).startswith(("<wide>", "<narrow>"))
}
"""Full-width and half-width forms (Unicode Standard Annex 11) and the characters that they correspond to."""


def comparable(text: str) -> str:
    """Return a text in Unicode's canonical composition (NFC, Unicode Standard Annex 15), full and half width unified.

    The compatibility composition (NFKC) would go further and make ``10²`` equal to ``102``.

    Example:
        >>> comparable("Ａ１"), comparable("ｶﾞ"), comparable("10²")
        ('A1', 'ガ', '10²')
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_WIDTHS))


def plain_name(name: str) -> str:
    """Return the letters, marks and digits of any script, case folded, in the form of :func:`comparable`.

    Example:
        >>> plain_name("Pleural_Effusion") == plain_name("pleural effusion")
        True
        >>> plain_name("肺炎")
        '肺炎'
    """
    folded = unicodedata.normalize("NFC", comparable(name).casefold())
    return "".join(sign for sign in folded if unicodedata.category(sign)[0] in _KEPT)


def plain_text(text: str) -> str:
    """Return a text without invisible differences: Unicode form, invisible characters, surrounding and repeated spaces.

    Example:
        >>> plain_text(" 17.0 "), plain_text("A  12")
        ('17.0', 'A 12')
    """
    visible = text
    if not (text.isascii() and text.isprintable()):  # most are, and are requested often
        kept = (sign for sign in comparable(text) if unicodedata.category(sign) not in {"Cf", "Cc"} or sign in "\t\n\r")
        visible = "".join(kept)
    return " ".join(visible.split())


def plain_id(text: str) -> str:
    """Return an identifier without what tools change about it: Unicode form, invisible signs, outer spaces, ``.0``.

    Case and leading zeros are kept, since they may distinguish patients.

    Example:
        >>> plain_id(" 17.0 "), plain_id("007"), plain_id("A  12")
        ('17', '007', 'A 12')
    """
    spaced = plain_text(text)
    number = _WHOLE_NUMBER.fullmatch(spaced)
    return number[1] if number else spaced


def issued_id(patient: str, issuer: str) -> str:
    """Return the identifier of a patient in a DICOM header with its issuer, since two hospitals may use the same id.

    Example:
        >>> issued_id("7", "HOSP A"), issued_id("7", "")
        ('7 of HOSP A', '7')
    """
    return f"{patient} of {issuer}" if patient and issuer else patient


def is_nobody(text: str) -> bool:
    """Return whether a patient identifier identifies nobody: empty, a word for *unknown*, or a spreadsheet's error.

    Example:
        >>> is_nobody(" Unbekannt "), is_nobody("#REF!"), is_nobody("007")
        (True, True, False)
    """
    word = plain_text(text).casefold()
    return word in MISSING_CELLS or word in UNNAMED


def counterparts(mine: Collection[str], theirs: Iterable[str]) -> dict[str, str]:
    """Map each of ``mine`` to its counterpart in ``theirs``, if any: by equal name, else by unambiguous plain name."""
    known = tuple(theirs)
    plain = {plain_name(name): name for name in known}
    often = [Counter(plain_name(name) for name in names) for names in (mine, known)]
    found = {}
    for name in mine:
        key = plain_name(name)
        if name in known:
            found[name] = name
        elif key and all(count[key] == 1 for count in often):
            found[name] = plain[key]
    return found
