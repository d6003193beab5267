"""Rewrite a forward method so that each pair of group norm and SiLU is one call, if its source proves the pair.

Only the SiLU uses a norm's result if both are in one expression, `act(norm(x))`, or if the next statement replaces the
result or ends the method, `h = norm(h); h = act(h)`, possibly after a modulation, `h = h * (1 + s) + t`. An `if`
between the two is allowed, since the statements before and after it can be moved into its branches. The objects `norm`
and `act` are looked up in the module now and again in every call (`silu_of_norm`), so a layer that is replaced later is
called unchanged.
"""

import ast
from collections.abc import Callable
from copy import deepcopy
from types import FunctionType
from typing import Any, NamedTuple

from torch import nn

from f2d_kernels.fusing.pairs import after_silu, is_group_norm, silu_of_norm, single_return
from f2d_kernels.fusing.source import built, source_of
from f2d_kernels.fusing.syntax import (
    assigned,
    changes_nothing,
    index,
    is_call,
    is_name,
    mentions,
    modulation_of,
    names_in,
    simple,
)

FUSED = "f2d_kernels_silu_of_norm"
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Pair(NamedTuple):
    """A norm with the source expression of its activation, and the line."""

    norm: nn.GroupNorm
    activation: str
    line: int


class Normed(NamedTuple):
    """Source expressions of ``norm(x)``, modulated by (1 + scale) and shift unless these are None."""

    norm: ast.expr
    x: ast.expr
    scale: ast.expr | None = None
    shift: ast.expr | None = None


def rewritten(module: nn.Module) -> tuple[Callable, list[Pair]]:
    """Return the forward of `module` with each pair as one call, and the pairs; raise Unprovable for unclear source."""
    forward = type(module).forward
    tree = source_of(forward)
    rewriter = _Rewriter(module, forward, tree)
    fused = deepcopy(tree)
    fused.body = rewriter.block(fused.body)
    return built(fused, forward, **{FUSED: silu_of_norm}), rewriter.pairs


class _Rewriter:
    def __init__(self, module: nn.Module, forward: FunctionType, tree: ast.FunctionDef):
        self.module, self.forward, self.pairs = module, forward, list[Pair]()
        arguments = [*tree.args.posonlyargs, *tree.args.args]
        self.me = arguments[0].arg if arguments else ""
        stored = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
        given = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        self.local = {*stored, *given}
        self.once: dict[str, ast.expr] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self.once |= {k: v for k, v in assigned(node) if stored.count(k) == 1 and k not in given}

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        left = list(statements)
        while left:
            taken = self._pair_of_statements(left) or self._branches_that_meet(left)
            if taken:
                made, count = taken
                done, left = [*done, *made], left[count:]
            else:
                done.append(self._inside(left.pop(0)))
        return done

    def _inside(self, statement: ast.stmt) -> ast.stmt:
        """Rewrite the pairs in the blocks and expressions of one statement."""
        if isinstance(statement, SCOPES):
            return statement
        for field, value in ast.iter_fields(statement):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(statement, field, self.block(value))
            elif isinstance(value, list) and value and isinstance(value[0], ast.ExceptHandler):
                for handler in value:
                    handler.body = self.block(handler.body)
            elif isinstance(value, ast.expr):
                setattr(statement, field, _Expressions(self).visit(value))
        return statement

    def _pair_of_statements(self, statements: list[ast.stmt]) -> tuple[list[ast.stmt], int] | None:
        """Match ``v = norm(x) ... v = act(v)`` at the start; return (new statements, number of statements replaced)."""
        name, value = simple(statements[0])
        normed = self.normed(value) if name else None
        if normed is None:
            return None
        between: list[ast.stmt] = []
        for count, statement in enumerate(statements[1:], 2):
            target, value = simple(statement)
            modulation = modulation_of(value, lambda e: is_name(e, name)) if target == name else None
            if modulation and normed.scale is None:
                if any(mentions(e, name) or not changes_nothing(e) for e in modulation[1:]):
                    return None
                normed = normed._replace(scale=modulation[1], shift=modulation[2])
            elif self.ends(statement) == name:
                last = deepcopy(statement)
                last.value = self.replaced(statement.value, lambda e: is_name(e, name), normed)
                return [*between, last], count
            elif isinstance(statement, ast.If) and count == 2:
                return self._pushed(statements[0], statement, statements[2:], name, normed)
            elif _movable(statement, name, normed):
                between.append(statement)
            else:
                return None
        return None

    def _pushed(
        self, first: ast.stmt, branching: ast.If, following: list[ast.stmt], name: str, normed: Normed
    ) -> tuple[list[ast.stmt], int] | None:
        """Rewrite ``v = norm(x); if c: ...; v = act(v)`` with the norm and the SiLU in each branch."""
        if not following or not isinstance(normed.x, ast.Name) or not self._harmless(branching.test):
            return None
        if mentions(branching.test, name) or mentions(branching.test, normed.x.id):
            return None
        bodies = [[first, *branching.body], [first, *branching.orelse]]
        return self._both(branching, bodies, following[0], 3) if self.ends(following[0]) == name else None

    def _branches_that_meet(self, statements: list[ast.stmt]) -> tuple[list[ast.stmt], int] | None:
        """Rewrite ``if c: ... v = norm(x) else: ...; v = act(v)`` with the SiLU in each branch."""
        if not isinstance(statements[0], ast.If) or len(statements) < 2:
            return None
        branching = statements[0]
        return self._both(branching, [branching.body, branching.orelse], statements[1], 2)

    def _both(
        self, branching: ast.If, bodies: list[list[ast.stmt]], last: ast.stmt, count: int
    ) -> tuple[list[ast.stmt], int] | None:
        if self.ends(last) is None:
            return None
        found = list(self.pairs)
        for body in bodies:
            self.block(deepcopy(body))
        alone, self.pairs = len(self.pairs), list(found)
        made = [self.block(deepcopy([*body, last])) for body in bodies]
        if len(self.pairs) <= alone:  # moving it into the branches gains no pair
            self.pairs = found
            return None
        branched = ast.If(branching.test, made[0], made[1])
        return [ast.copy_location(branched, branching)], count

    def _harmless(self, test: ast.expr) -> bool:
        """Return whether a condition can be evaluated before the norm: it only calls ``return x is not None``."""
        for node in ast.walk(test):
            if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)):
                return False
            if isinstance(node, ast.Call):
                found = single_return(self.resolve(node.func))
                if found is None or ast.unparse(found[1]) not in (f"{a} is not None" for a in found[0]):
                    return False
        return True

    def normed(self, value: ast.expr | None) -> Normed | None:
        """Parse `value` as the result of a norm, modulated or not; None for others."""
        if is_call(value) and is_group_norm(self.resolve(value.func)):
            return Normed(value.func, value.args[0])
        found = modulation_of(value, lambda e: is_call(e) and is_group_norm(self.resolve(e.func)))
        if found is None or not all(map(changes_nothing, found[1:])):
            return None
        return Normed(found[0].func, found[0].args[0], found[1], found[2])

    def ends(self, statement: ast.stmt) -> str | None:
        """Return v of ``v = act(v)`` or ``return act(v)``, which use the norm's result last; None for others."""
        target, value = simple(statement)
        inner = value = statement.value if isinstance(statement, ast.Return) else value
        while is_call(inner):
            inner = inner.args[0]
        if not isinstance(inner, ast.Name) or not (isinstance(statement, ast.Return) or target == inner.id):
            return None
        return inner.id if self.activated(value, lambda e: e is inner) else None

    def activated(self, value: ast.expr | None, is_inner: Callable[[ast.expr], bool]) -> bool:
        """Return whether `value` is a SiLU of the inner expression, or one-argument calls around it."""
        while is_call(value):
            if is_inner(value.args[0]):
                return after_silu(self.resolve(value.func)) is not None
            if not isinstance(value.func, (ast.Name, ast.Attribute, ast.Subscript)):
                return False
            value = value.args[0]
        return False

    def replaced(self, value: ast.expr, is_inner: Callable[[ast.expr], bool], normed: Normed) -> ast.expr:
        """Return `value` with act(norm(x)) as one call."""
        assert isinstance(value, ast.Call)
        if is_inner(value.args[0]):
            norm = self.resolve(normed.norm)
            self.pairs.append(Pair(norm, ast.unparse(value.func), value.lineno))
            given = [value.func, normed.norm, normed.x, normed.scale, normed.shift]
            call = ast.Call(ast.Name(FUSED, ast.Load()), [deepcopy(e) for e in given if e is not None], [])
            return ast.copy_location(call, value)
        return ast.copy_location(ast.Call(value.func, [self.replaced(value.args[0], is_inner, normed)], []), value)

    def resolve(self, node: ast.expr, depth: int = 0) -> Any:
        """Return the object that names, attributes and constant indices refer to; None if it is not certain."""
        if depth > 8:
            return None
        if isinstance(node, ast.Name):
            if node.id == self.me:
                return self.module
            if node.id in self.once:
                return self.resolve(self.once[node.id], depth + 1)
            cells = dict(zip(self.forward.__code__.co_freevars, self.forward.__closure__ or ()))
            if node.id in cells:
                return cells[node.id].cell_contents
            return None if node.id in self.local else self.forward.__globals__.get(node.id)
        try:
            if isinstance(node, ast.Attribute):
                return getattr(self.resolve(node.value, depth + 1), node.attr, None)
            if isinstance(node, ast.Subscript):
                return self.resolve(node.value, depth + 1)[index(node.slice)]
        except Exception:  # a lookup may raise anything, and then the object is unknown
            return None
        return None


class _Expressions(ast.NodeTransformer):
    """Rewrites ``act(norm(x))`` and ``act(norm(x) * (1 + s) + t)`` inside an expression."""

    def __init__(self, rewriter: _Rewriter):
        self.rewriter = rewriter

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        normed = self.rewriter.normed(node.args[0]) if is_call(node) else None
        if normed and after_silu(self.rewriter.resolve(node.func)) is not None:
            inner = node.args[0]
            node = self.rewriter.replaced(node, lambda e: e is inner, normed)
        return self.generic_visit(node)


def _movable(statement: ast.stmt, name: str, normed: Normed) -> bool:
    """Return whether the norm can be computed after `statement`.

    It must assign variables without calls, must not read the norm's argument or result, and must not change the norm or
    its modulation.
    """
    if not isinstance(statement, ast.Assign) or not isinstance(normed.x, ast.Name):
        return False
    nodes = list(ast.walk(statement))
    if any(isinstance(n, (ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)) for n in nodes):
        return False
    if not all(isinstance(n, (ast.Name, ast.Tuple)) for n in statement.targets):
        return False
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    used = set().union(*(names_in(e) for e in normed if e is not None))
    return not stored & used and not names_in(statement) & {name, normed.x.id}
