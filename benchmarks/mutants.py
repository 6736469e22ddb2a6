"""Small changes to a Python source, one at a time: what a slip of the hand, or of a merge, would leave.

Annotations, docstrings, decorators and the words of error messages stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
# of whole numbers, the other operator moves a limit by one to one side, and these move it to the other
_MOVED: dict[type[ast.cmpop], type[ast.operator]] = {
    ast.Lt: ast.Sub,
    ast.LtE: ast.Add,
    ast.Gt: ast.Add,
    ast.GtE: ast.Sub,
}
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.RShift: ast.LShift,
}
_CALLED = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "minimum": "maximum",
    "maximum": "minimum",
    "argmin": "argmax",
    "argmax": "argmin",
    "ceil": "floor",
    "floor": "ceil",
    "intersection": "union",
}


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        line: number of the line, from 1.
        before: what stood there.
        after: what stands there now.
        start: first byte that is replaced.
        end: byte after the last one.
    """

    line: int
    before: str
    after: str
    start: int
    end: int

    @property
    def decides(self) -> bool:
        """Whether it changes a comparison or a condition."""
        try:
            node = ast.parse(f"({self.before})", mode="eval").body
        except SyntaxError:
            return False
        negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        return negated or isinstance(node, ast.Compare | ast.BoolOp) or self.after.startswith("(not (")

    def applied(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants(source: bytes) -> list[Mutant]:
    """All changes of a source, in its order; each can be parsed."""
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = []
    for node, after in _changes(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        mutant = Mutant(node.lineno, source[start:end].decode(), after, start, end)
        try:
            ast.parse(mutant.applied(source))
        except SyntaxError:
            continue
        found.append(mutant)
    return sorted(set(found), key=lambda one: (one.start, one.end, one.after))


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Nodes and what takes their place."""
    if isinstance(node, ast.expr):
        yield from ((node, f"({ast.unparse(new)})") for new in _of_expression(node))
    elif isinstance(node, ast.stmt):
        yield from ((node, after) for after in _of_statement(node))
        for test in _conditions(node):
            yield test, f"(not ({ast.unparse(test)}))"
    for child in _children(node):
        yield from _changes(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            words = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not words:
                yield child


def _conditions(node: ast.stmt) -> Iterator[ast.expr]:
    """Conditions that are a bare value; others change by themselves."""
    if isinstance(node, ast.If | ast.While) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield node.test


def _of_statement(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Raise | ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "pass"
    elif isinstance(node, ast.Continue):
        yield "break"
    elif isinstance(node, ast.Break):
        yield "pass"
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Name | ast.Attribute | ast.Call):
        yield "return None"


def _of_expression(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            ops = [*node.ops[:place], _COMPARED[type(operator)](), *node.ops[place + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
            if type(operator) in _MOVED:
                limit = ast.BinOp(node.comparators[place], _MOVED[type(operator)](), ast.Constant(1))
                limits = [*node.comparators[:place], limit, *node.comparators[place + 1 :]]
                yield ast.Compare(node.left, node.ops, limits)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _CALCULATED:
        yield ast.BinOp(node.left, _CALCULATED[type(node.op)](), node.right)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Name) and node.id in _CALLED:
        yield ast.Name(_CALLED[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in _CALLED:
        yield ast.Attribute(node.value, _CALLED[node.attr])
    elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and all(isinstance(e, ast.Constant) for e in node.elts):
        yield ast.Tuple(node.elts[::-1], ast.Load())
    elif isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _of_value(node.value))


def _of_value(value: object) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value > 0:
            yield value - 1
    elif isinstance(value, float):
        yield value * 1.1 if value else 1.0
    elif isinstance(value, str) and value.isidentifier() and len(value) < 16:
        yield f"{value}x"
