"""Docstrings: functions begin with a verb, nothing begins with a riddle."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "soundreel"
RIDDLE = re.compile(r"(What|How|Whether|Of|Where|Which|Why|When)\b")
NO_VERB = re.compile(r"(A|An|The|It|This|That|True|False|Same|All|Each|Every|One|Their|Its)\b")
IS_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Line, text, and whether it is a function's; of constants and fields too."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, *IS_FUNCTION)):
            continue
        text = ast.get_docstring(node)
        if text:
            yield node.body[0].lineno, text, isinstance(node, IS_FUNCTION)
        for before, after in zip(node.body, node.body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if is_text and isinstance(before, ast.Assign | ast.AnnAssign):
                yield after.lineno, str(after.value.value), False


def faults(source: str) -> list[int]:
    return [
        line
        for line, text, is_function in docstrings(ast.parse(source))
        if RIDDLE.match(text) or (is_function and NO_VERB.match(text))
    ]


@pytest.mark.parametrize("folder", sorted(p.name for p in PACKAGE.iterdir() if p.is_dir()))
def test_docstrings_begin_with_a_verb_or_a_name(folder):
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in (PACKAGE / folder).rglob("*.py")
        if (lines := faults(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_modules_at_the_top_do_so_too():
    found = {p.name: faults(p.read_text(encoding="utf-8")) for p in PACKAGE.glob("*.py")}
    assert not {name: lines for name, lines in found.items() if lines}


def test_the_check_finds_what_it_looks_for():
    assert faults('"""What it is."""\nX = 1\n"""Of the run."""\ndef f():\n    """A sum."""') == [
        1,
        3,
        5,
    ]
    assert not faults('"""Sums."""\nclass A:\n    """A sum."""\ndef f():\n    """Return a sum."""')
