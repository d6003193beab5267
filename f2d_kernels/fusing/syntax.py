"""Forms of statements and expressions that the rewriting of group norms looks for."""

import ast
from collections.abc import Callable
from typing import Any, TypeGuard

VIEWS = frozenset({"chunk", "contiguous", "expand", "float", "reshape", "split", "to", "type", "unsqueeze", "view"})


def simple(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    """Return (v, value) of ``v = value``, and ("", None) for other statements."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    return "", None


def assigned(node: ast.Assign) -> list[tuple[str, ast.expr]]:
    """Return each (name, value) of ``a = x`` and of ``a, b = x, y``."""
    target = node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts):
        return [(t.id, v) for t, v in zip(target.elts, node.value.elts) if isinstance(t, ast.Name)]
    return [(target.id, node.value)] if isinstance(target, ast.Name) else []


def modulation_of(value: Any, is_inner: Callable[[ast.expr], bool]) -> tuple[Any, ast.expr, ast.expr] | None:
    """Return (inner, s, t) of ``inner * (1 + s) + t`` with inner first; None for others."""
    if not (isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add)):
        return None
    product, shift = value.left, value.right
    if not (isinstance(product, ast.BinOp) and isinstance(product.op, ast.Mult) and is_inner(product.left)):
        return None
    factor = product.right
    if isinstance(factor, ast.BinOp) and isinstance(factor.op, ast.Add):
        for one, scale in ((factor.left, factor.right), (factor.right, factor.left)):
            if isinstance(one, ast.Constant) and type(one.value) in (int, float) and one.value == 1:
                return product.left, scale, shift
    return None


def changes_nothing(expression: ast.expr) -> bool:
    """Return whether an expression assigns nothing and calls only methods that give views or other dtypes of tensors.

    Other calls may write in place, and what they are given may share memory with any tensor.
    """
    for node in ast.walk(expression):
        if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Attribute) and node.func.attr in VIEWS):
            return False
    return True


def index(node: ast.expr) -> Any:
    if isinstance(node, ast.Slice):
        return slice(
            *(None if part is None else ast.literal_eval(part) for part in (node.lower, node.upper, node.step))
        )
    return ast.literal_eval(node)


def is_call(node: Any) -> TypeGuard[ast.Call]:
    """Return whether a node is ``f(x)`` with one plain argument."""
    return (
        isinstance(node, ast.Call)
        and len(node.args) == 1
        and not node.keywords
        and not isinstance(node.args[0], ast.Starred)
    )


def is_name(node: Any, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def mentions(node: ast.expr | None, name: str) -> bool:
    return node is not None and name in names_in(node)
