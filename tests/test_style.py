"""The rules that shape the code: small pieces, dependencies that point down, no foreign code, no hidden settings."""
from __future__ import annotations

import ast
import inspect
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import zonda
from zonda import nn

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zonda"
TREES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))

LONG_FILE, LONGEST_FILE = 400, 700  # lines
LONGEST_FUNCTION, USUAL_FUNCTION = 60, 10  # lines
MOST_PARAMETERS = 10
VAGUE = re.compile("manager|helper|util|base|impl|mixin|processor|handler", re.IGNORECASE)

PLAIN = {"errors", "types", "environment", "options"}
BELOW_NN = {"kernels", "weights"}
BELOW_ENGINE = BELOW_NN | {"nn", "models"}
BELOW_SDK = PLAIN | BELOW_ENGINE | {"engine", "memory", "gpu", "text", "texts", "completion", "formats", "generation",
                                   "turns", "tools", "effort", "model"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(), "types": set(), "memory": set(), "terminal": set(),
    "environment": {"errors"},
    "options": {"errors", "types", "environment"},
    # what is stored is known below: kernels execute the formats, which themselves know nothing of kernels
    "kernels": {"errors", "weights.source", "weights.formats"},
    "weights": {"errors", "environment", "kernels", "nn", "terminal"},
    "nn": BELOW_NN,
    "models": {"errors", "nn"} | BELOW_NN,
    "engine": PLAIN | BELOW_ENGINE,
    "text": {"errors"},
    "texts": {"errors", "options", "text"},
    "completion": {"errors", "types", "text"},
    "generation": {"errors", "types", "completion"},
    "formats": {"errors", "types"},
    "effort": {"errors", "types"},
    "tools": {"errors", "completion"},
    "turns": {"errors", "types", "text", "completion"},
    "prepare": {"errors", "types", "text", "turns"},
    "gpu": PLAIN | BELOW_ENGINE | {"engine", "memory"},
    "machine": {"environment", "memory", "gpu", "engine", "kernels"},
    "model": PLAIN | BELOW_ENGINE | {"engine", "memory", "gpu", "text", "texts"},
    "loaded": PLAIN | {"engine", "text", "completion", "turns", "prepare", "model"},
    "sdk": BELOW_SDK | {"loaded"},
    "payloads": {"errors"},
    "server": PLAIN | {"terminal", "payloads", "completion", "turns", "prepare", "effort", "text", "engine",
                       "machine", "sdk"},
    "cli": BELOW_SDK | {"terminal", "payloads", "machine", "sdk", "server"},
    "__main__": {"cli"},
}
"""For each part of the package, the parts below it; what is only imported for types is free."""
NARROW = {"weights.source": set[str](), "weights.formats": {"errors", "weights"},
          "models.arch": {"nn", "models.config"}}
"""The same for parts of parts."""
RUNS_CODE = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch", "transformers"}
IMPORTED_AS = {"flash_attn_4": "flash_attn"}
FOUND_BY_OTHERS = {"uvloop", "httptools", "websockets"}  # uvicorn takes them where they are
ON_DEVICES = {"torch": {"torch"}, "cuda": {"torch", "triton"}}
"""What the kernels of a kind of device import beyond what every installation has."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.AST) -> int:
    return function.end_lineno - function.lineno + 1  # type: ignore[attr-defined]


def imports(node: ast.AST) -> Iterator[str]:
    """The modules, or names in modules, that code imports when it runs."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        node = ast.Module(node.orelse, [])
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def within(module: str, parts: set[str]) -> bool:
    return any(f"{module}.".startswith(f"zonda.{part}.") for part in parts)


def wrong(path: Path, own: str, parts: set[str]) -> list[str]:
    """What a file imports of the package beside its own part and the others that it may."""
    found = {each for each in imports(TREES[path]) if each.startswith("zonda.") and each != "zonda.__version__"}
    return [f"{name(path)} imports {each}" for each in sorted(found) if not within(each, parts | {own})]


def test_files_are_short() -> None:
    lines = {name(path): len(path.read_text("utf-8").splitlines()) for path in [*TREES, *TESTS]}
    long = {path: count for path, count in lines.items() if count > LONG_FILE}
    assert max(lines.values()) <= LONGEST_FILE, f"split what has grown too long; longer than liked: {long}"


def test_functions_are_short() -> None:
    long = [f"{name(path)} {each.name}: {length(each)}" for path, tree in TREES.items()
            if SOURCE / "kernels" not in path.parents for each in functions(tree) if length(each) > LONGEST_FUNCTION]
    assert not long


def test_most_functions_are_a_few_lines() -> None:
    assert statistics.median(length(each) for tree in TREES.values() for each in functions(tree)) < USUAL_FUNCTION


def test_blocks_have_few_parameters() -> None:
    blocks = [value for path in (SOURCE / "nn").glob("*.py") if path.stem != "__init__"
              for value in vars(import_module(f"zonda.nn.{path.stem}")).values() if isinstance(value, type)]
    counts = {block.__name__: len(inspect.signature(block).parameters) for block in blocks
              if block.__module__.startswith("zonda.nn.") and issubclass(block, nn.Module)}
    assert len(counts) > 8
    assert {each: count for each, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_names_say_what_things_are() -> None:
    vague = [f"{name(path)} {node.name}" for path, tree in TREES.items() for node in ast.walk(tree)
             if isinstance(node, ast.ClassDef) and VAGUE.search(node.name)]
    assert not vague + [name(path) for path in TREES if VAGUE.search(path.stem)]


def test_every_module_says_what_it_is() -> None:
    assert not [name(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]


def test_state_is_not_global() -> None:
    assert not [name(path) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("part", sorted({path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in TREES}
                                        - {"__init__"}))
def test_dependencies_point_down(part: str) -> None:
    files = [path for path in TREES if path == SOURCE / f"{part}.py" or SOURCE / part in path.parents]
    assert [line for path in files for line in wrong(path, part, MAY_IMPORT[part])] == []


@pytest.mark.parametrize("part", NARROW)
def test_some_parts_know_even_less(part: str) -> None:
    home = SOURCE.joinpath(*part.split("."))
    files = [path for path in TREES if path == home.with_suffix(".py") or home in path.parents]
    assert files and [line for path in files for line in wrong(path, part, NARROW[part])] == []


def at_once(path: Path) -> Iterator[str]:
    """What a file imports when it is imported itself."""
    for node in TREES[path].body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from imports(node)


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {".".join(("zonda", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in TREES}
    needs = {module: {other for each in at_once(path) for other in (each, each.rpartition(".")[0])
                      if other in files and other != module} for module, path in files.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_public_names_are_those_that_the_package_declares() -> None:
    declared = next(node for node in TREES[SOURCE / "__init__.py"].body if isinstance(node, ast.If))
    homes = {alias.name: each.module for each in declared.body if isinstance(each, ast.ImportFrom)
             for alias in each.names}
    assert {*homes, "__version__"} == set(zonda.__all__)
    for public, home in homes.items():
        assert home and getattr(zonda, public) is getattr(import_module(home), public)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = project["dependencies"] + [each for extra in ("cuda", "fa4") for each in
                                        project["optional-dependencies"][extra]]
    declared = {re.split(r"[\s<>=!;\[]", each)[0].replace("-", "_") for each in needed} - {"zonda"}
    declared = {IMPORTED_AS.get(each, each) for each in declared}
    found = {each.split(".")[0] for tree in TREES.values() for each in imports(tree)}
    assert found - set(sys.stdlib_module_names) - {"zonda"} == declared - FOUND_BY_OTHERS


def test_nothing_is_imported_that_runs_code_from_files() -> None:
    assert not [f"{name(path)} imports {each}" for path, tree in TREES.items() for each in imports(tree)
                if each.split(".")[0] in RUNS_CODE - on_device(path)]


def on_device(path: Path) -> set[str]:
    """What a file may import because it is about a device."""
    if path.relative_to(SOURCE).as_posix() in {"gpu.py", "engine/graphs.py", "engine/torch_runner.py"}:
        return {"torch"}
    return ON_DEVICES.get(path.parent.stem, set()) if path.parent.parent == SOURCE / "kernels" else set()


@pytest.mark.parametrize("words", [
    "trust_" "remote_code", "allow_" "pickle", "torch" r"\.load\b", r"(?<![\w.])(?:eval|exec)\(", "TO" "DO",
    "FIX" "ME"])
def test_some_words_do_not_occur(words: str) -> None:
    files = [*TREES, *TESTS, *(ROOT / "benchmarks").rglob("*.py")]
    assert not [name(path) for path in files if re.search(words, path.read_text("utf-8"))]


def test_one_module_reads_the_environment() -> None:
    reads = {name(path) for path, tree in TREES.items() for node in ast.walk(tree)
             if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
             or (isinstance(node, ast.ImportFrom) and node.module == "os")}
    assert reads == {"src/zonda/environment.py"}
