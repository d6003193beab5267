"""Find the syntax tree of a function, if it is certain, and make functions from a changed tree."""

import ast
import inspect
import linecache
import textwrap
from copy import deepcopy
from functools import cache
from types import CellType, CodeType, FunctionType
from typing import Any


class Unprovable(Exception):
    """The reason why nothing can be proved about a function."""


def source_of(forward: Any) -> ast.FunctionDef:
    """Return the syntax tree of `forward` after checking that it compiles to the code of `forward`."""
    if not isinstance(forward, FunctionType):
        raise Unprovable("its forward is not a Python function")
    try:
        lines, first = inspect.getsourcelines(forward)
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError) as error:
        raise Unprovable(f"the source of its forward is not available ({error})") from None
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list or hasattr(forward, "__wrapped__"):
        raise Unprovable("its forward is decorated, or not a plain method")
    ast.increment_lineno(tree, first - 1)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if names & {"locals", "vars", "eval", "exec"} or any(
        isinstance(n, (ast.Global, ast.Nonlocal)) for n in ast.walk(tree)
    ):
        raise Unprovable("its forward inspects its own variables")
    if any(
        isinstance(n, ast.Attribute) and n.attr.startswith("__") and not n.attr.endswith("__") for n in ast.walk(tree)
    ):
        raise Unprovable("its forward has names that are private to its class")
    # the whole file is compiled, since imports at its top change the code of calls
    whole = "".join(linecache.getlines(forward.__code__.co_filename, forward.__globals__))
    try:
        runs = forward.__code__ in _compiled(whole)
    except SyntaxError:  # in a notebook the rest of the file need not be Python
        runs = False
    if not runs:
        raise Unprovable("the source of its forward is not what runs")
    return tree


def _code(tree: ast.FunctionDef, forward: FunctionType, *more: str) -> CodeType:
    """Compile `tree` to a method that closes over the free variables of `forward` and `more`."""
    bare = deepcopy(tree)
    bare.returns = None
    arguments = [*bare.args.posonlyargs, *bare.args.args, *bare.args.kwonlyargs, bare.args.vararg, bare.args.kwarg]
    for argument in filter(None, arguments):
        argument.annotation = None
    outer = ast.parse(f"def outer({', '.join([*forward.__code__.co_freevars, *more])}): pass").body[0]
    assert isinstance(outer, ast.FunctionDef)
    outer.body = [bare]
    whole = ast.fix_missing_locations(ast.Module([outer], []))
    code = compile(whole, forward.__code__.co_filename, "exec", dont_inherit=True)
    for name in ("outer", tree.name):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return code


@cache
def _compiled(text: str) -> tuple[CodeType, ...]:
    """Compile a file again, and return the code of every function in it."""
    found, left = [], [compile(text, "", "exec", dont_inherit=True)]
    while left:
        found.append(left.pop())
        left += [c for c in found[-1].co_consts if isinstance(c, CodeType)]
    return tuple(found)


def built(tree: ast.FunctionDef, forward: FunctionType, **more: Any) -> FunctionType:
    """Make a method like `forward` with the body of `tree`, in which the names in `more` have the given values."""
    code = _code(tree, forward, *more)
    cells = dict(zip(forward.__code__.co_freevars, forward.__closure__ or ())) | {
        k: CellType(v) for k, v in more.items()
    }
    closure = tuple(cells[name] for name in code.co_freevars)
    made = FunctionType(code, forward.__globals__, forward.__name__, forward.__defaults__, closure)
    made.__kwdefaults__, made.__doc__ = forward.__kwdefaults__, forward.__doc__
    made.__annotations__, made.__qualname__, made.__module__ = (
        forward.__annotations__, forward.__qualname__, forward.__module__,
    )  # fmt: skip
    return made
