"""The meaning of single cells of a table: nothing, yes or no, a number, a list of names; the same for all columns."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from medphantom.cohorts.records import NAME_PATTERN
from medphantom.core.guard import parse_json
from medphantom.core.naming import MISSING_CELLS, comparable, plain_id

STATED = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "1,0": True, "0,0": False}
WORDS = {"y": True, "n": False, "t": True, "f": False, "positive": True, "negative": False, "present": True,
         "absent": False}  # fmt: skip
"""Words that state a label if its column was named for it; elsewhere they may be classes or codes."""
NEUTRAL = {word: value for word, value in STATED.items() if word not in {"yes", "no"}}
"""Values that state a label in every language."""
LANGUAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "English": (("yes",), ("no",)),
    "German": (("ja", "wahr"), ("nein", "falsch")),
    "French": (("oui", "vrai"), ("non", "faux")),
    "Spanish": (("sí", "si", "verdadero"), ("no", "falso")),
    "Italian": (("sì", "si", "vero"), ("no", "falso")),
    "Portuguese": (("sim", "verdadeiro"), ("não", "nao", "falso")),
    "Dutch": (("ja", "waar"), ("nee", "onwaar")),
    "Swedish and Danish": (("ja",), ("nej",)),
    "Norwegian": (("ja",), ("nei",)),
    "Polish": (("tak",), ("nie",)),
    "Czech": (("ano",), ("ne",)),
    "Slovak": (("áno", "ano"), ("nie",)),
    "Slovenian, Croatian and Serbian": (("da",), ("ne",)),
    "Romanian": (("da",), ("nu",)),
    "Hungarian": (("igen",), ("nem",)),
    "Finnish": (("kyllä",), ("ei",)),
    "Turkish": (("evet",), ("hayır",)),
    "Greek": (("ναι",), ("όχι",)),
    "Russian": (("да", "есть"), ("нет",)),
    "Chinese": (("是", "有"), ("否", "无", "無")),
    "Japanese": (("はい", "あり", "有り", "有"), ("いいえ", "なし", "無し", "無")),
    "Korean": (("예", "네", "있음"), ("아니오", "아니요", "없음")),
    "Arabic": (("نعم",), ("لا",)),
    "Hindi": (("हाँ",), ("नहीं",)),
}
"""Words for yes and for no by language; each may mean something else elsewhere (*da*, *no*, *NE*: not evaluable)."""
YES_OR_NO = {word: value for words in LANGUAGES.values() for value, each in zip((True, False), words, strict=True)
             for word in each}  # fmt: skip
"""All of these words."""
UNCERTAIN_CELLS = {"-1", "-1.0", "-1,0"}
CLEAR_SHARE = 0.9  # a column is of one kind when this share of its cells are; the others are reported
_DOT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_GROUPED_DOT = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+")
_PROVEN_DOTS = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3}){2,}(,[0-9]+)?")
_GROUPED_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}([,. '’][0-9]{3})+([.,][0-9]+)?")
_ROUNDED_ID = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+[0-9]{2,}|[0-9][.,][0-9]+[eE][0-9]{2,}")
_BEGUN_LIST = re.compile(r"[\[({]\s*['\"]|(?:\w+\.)?(?:array|list|tuple|set|frozenset|index|series)\(", re.IGNORECASE)
_ENDED_LIST = re.compile(r"[^\[]*['\"]\s*\]")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
NO_NUMBER = "hold no number"
THOUSANDS = "hold a number that may have a thousands separator"


def observed_text(cell: Any) -> str:
    """Return the text of a cell in Unicode's composed form without outer spaces; empty if it is missing.

    Example:
        >>> observed_text(" Edema "), observed_text("N/A"), observed_text(None)
        ('Edema', '', '')
    """
    text = "" if cell is None else unicodedata.normalize("NFC", str(cell)).strip()
    return "" if text.casefold() in MISSING_CELLS else text


def flag(cell: str, words: Mapping[str, bool] = STATED) -> bool | None:
    """Return whether a cell states presence or absence; ``None`` if it states neither."""
    return words.get(plain_id(cell).casefold())


def yes_and_no(counts: Mapping[str, int]) -> dict[str, bool]:
    """Return the words of the only language of which a column has both yes and no; empty if there is none.

    Args:
        counts: Number of cells by text; of several languages the one with most cells is used.

    Example:
        >>> yes_and_no({"ja": 9, "nein": 8, "NE": 2})["nein"], yes_and_no({"SI": 6, "NE": 6})
        (False, {})
    """
    often: dict[str, int] = {}
    for cell, total in counts.items():
        word = plain_id(cell).casefold()
        often[word] = often.get(word, 0) + total
    best: tuple[int, dict[str, bool]] = (0, {})
    for yes, no in LANGUAGES.values():
        held = [sum(often.get(word, 0) for word in words) for words in (yes, no)]
        if all(held) and sum(held) > best[0]:
            best = sum(held), {**dict.fromkeys(yes, True), **dict.fromkeys(no, False)}
    return best[1]


def is_uncertain(cell: str) -> bool:
    """Return whether a cell is the -1 of uncertain labels (Irvin et al. 2019, CheXpert)."""
    return plain_id(cell) in UNCERTAIN_CELLS


def comma_is_decimal(cells: Iterable[str]) -> bool:
    """Return whether commas in a column of numbers must be decimal: one is, and none separates thousands."""
    numbers = [plain_id(cell) for cell in cells]
    commas = [number for number in numbers if _COMMA.fullmatch(number)]
    grouped = any("," in number and _GROUPED.fullmatch(number) and not _COMMA.fullmatch(number) for number in numbers)
    return any(not _GROUPED_COMMA.fullmatch(number) for number in commas) and not grouped


def dots_separate_thousands(cells: Iterable[str]) -> bool:
    """Return whether a column has a number whose points can only separate thousands (``1.234.567``)."""
    return any(_PROVEN_DOTS.fullmatch(plain_id(cell)) for cell in cells)


def number_of(cell: str, decimal_comma: bool = False, grouped: bool = False) -> float:
    """Return a finite number, written with a decimal point or a decimal comma.

    Args:
        cell: Text of the cell.
        decimal_comma: Whether commas in this column are decimal, so that a point may separate thousands; otherwise
            ``1,234`` is ambiguous, and invalid.
        grouped: Whether points in this column separate thousands, so that ``1.007`` is ambiguous, and invalid.

    Raises:
        ValueError: If it is not a number; the message gives the reason without the content of the cell.

    Example:
        >>> number_of("45,5"), number_of("4.5e1")
        (45.5, 45.0)
    """
    text = plain_id(cell)
    if _DOT.fullmatch(text) and not ((decimal_comma or grouped) and _GROUPED_DOT.fullmatch(text)):
        number = float(text)
        if abs(number) == float("inf"):
            raise ValueError(NO_NUMBER)
        return number
    if _COMMA.fullmatch(text) and (decimal_comma or not _GROUPED_COMMA.fullmatch(text)):
        return float(text.replace(",", "."))
    raise ValueError(THOUSANDS if _GROUPED.fullmatch(text) else NO_NUMBER)


def is_rounded_id(cell: str) -> bool:
    """Return whether a spreadsheet has rounded an identifier to ``1.23457E+11``, which many others share."""
    return _ROUNDED_ID.fullmatch(cell) is not None


def listed(cell: str) -> list[str] | None:
    """Return the entries of a list as JSON, Python or NumPy write it; ``None`` if the cell is not such a list.

    Nothing is evaluated: the text is split into tokens, and only strings, numbers and names are taken.

    Example:
        >>> listed("['a', 'b']"), listed('["a","b"]'), listed("['a' 'b']"), listed("[]"), listed("a, b")
        (['a', 'b'], ['a', 'b'], ['a', 'b'], [], None)
    """
    if len(cell) < 2 or _BRACKETS.get(cell[0]) != cell[-1]:
        return None
    try:
        entries = parse_json(cell)
    except ValueError:
        entries = None
    if isinstance(entries, list) and all(isinstance(entry, str | int | float | None) for entry in entries):
        return [entry for entry in map(observed_text, entries) if entry]
    if cell[0] == "[" or "'" in cell or '"' in cell:
        return _tokens(cell)
    return None


def is_broken_list(cell: str) -> bool:
    """Return whether a cell that :func:`listed` cannot read looks like a list: truncated, or of unknown form.

    Example:
        >>> is_broken_list("['A', 'B'"), is_broken_list("array(['A'], dtype=object)"), is_broken_list("[left] mass")
        (True, True, False)
    """
    if _BEGUN_LIST.match(cell) or _ENDED_LIST.fullmatch(cell):
        return True
    inside, closed, _ = cell[1:].partition("]")
    return cell.startswith("[") and (not closed or "," in inside or cell.endswith("]"))


def _tokens(cell: str) -> list[str] | None:
    found: list[str] = []
    quoted = False
    try:
        for token in tokenize.generate_tokens(io.StringIO(cell).readline):
            if token.type == tokenize.STRING:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # an unknown escape is kept as it stands
                    found.append(str(ast.literal_eval(token.string)))
                quoted = True
            elif token.type == tokenize.NUMBER:
                found.append(token.string)
            elif (token.type == tokenize.NAME and observed_text(token.string)) or (
                token.type == tokenize.OP and token.string not in "[](){},"
            ):
                return _unquoted(cell)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return _unquoted(cell)
    return [entry for entry in map(observed_text, found) if entry] if quoted else _unquoted(cell)


def _unquoted(cell: str) -> list[str] | None:
    """Return the entries of ``[a, b c]``, whose words are not quoted."""
    if "'" in cell or '"' in cell or cell[0] != "[":
        return None
    parts = [observed_text(part) for part in cell[1:-1].split(",")]
    if any(part.endswith(("...", "…")) for part in parts):
        return None  # whoever printed the list left some of it out
    return [part for part in parts if part]


def folded(name: str) -> str:
    """Return a name without case, character width and repeated spaces, which are spellings of one label or category.

    Example:
        >>> folded("Pleural  Effusion") == folded("pleural effusion"), folded("HER2+") == folded("HER2-")
        (True, False)
    """
    return " ".join(unicodedata.normalize("NFC", comparable(name).casefold()).split())


def no_name(text: str) -> str:
    """Return why a text cannot be the name of a label or category; empty if it can."""
    if len(text) > 80:
        return "longer than 80 characters"
    if not NAME_PATTERN.fullmatch(text):
        return "with line breaks, control characters or ':'"
    if all(unicodedata.category(sign)[0] == "N" for sign in plain_id(text)):
        return "of digits alone"
    return ""


def one_spelling(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the most frequent spelling of each name (the first in order among equals)."""
    best: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        best.setdefault(folded(name), name)
    return {name: best[folded(name)] for name in counts}
