"""The code's own form: what may be imported where, how long things may be, what may not be said."""

from __future__ import annotations

import ast
import hashlib
import importlib
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("app", "agents", "tables", "models", "schemas")
PURE = ("models", "schemas")
FORBIDDEN = {"time", "random", "uuid", "os", "logging", "asyncio", "faust", "aiokafka", "socket", "starlette", "rocksdict"}
LINES_MAX, FUNCTION_LINES_MAX = 450, 90
FILES = [p for package in PRODUCT for p in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    assert text.count("\n") <= LINES_MAX
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= FUNCTION_LINES_MAX, node.name
            if not node.name.startswith("_") and isinstance(getattr(node, "parent", None), ast.Module):
                assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(ROOT).parts[0] in PURE],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_kernels_read_no_clock_and_do_no_io(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = ([a.name for a in node.names] if isinstance(node, ast.Import)
                 else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        assert not {n.partition(".")[0] for n in names} & FORBIDDEN, ast.unparse(node)


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__main__.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_can_be_imported(path: Path) -> None:
    """A module that no test and no command reaches would break unseen."""
    importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def test_types_are_checked_everywhere() -> None:
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert set(mypy["files"]) == set(PRODUCT) and not any(o.get("ignore_errors") for o in mypy["overrides"])


#: who starts a task and waits for its end in the same function, and how often
WAITED_FOR = {"app/cli.py": 3, "app/local.py": 3, "app/load.py": 1, "app/supervisor.py": 1}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_background_tasks_are_supervised(path: Path) -> None:
    """A task that nobody watches ends unseen: `tables.tasks` starts them; so does `os._exit` belong there."""
    name = str(path.relative_to(ROOT))
    if name == "tables/tasks.py":
        return
    used = [n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)]
    started = [a for a in used if a in ("create_task", "ensure_future", "TaskGroup")]
    assert len(started) == WAITED_FOR.get(name, 0), "start it with tables.tasks.process"
    assert "_exit" not in used


def test_the_chart_library_is_the_one_we_looked_at() -> None:
    """The wheel is young and by one author: its one file is pinned by content."""
    raw = Path(str(resources.files("youplot") / "vendor" / "uplot.iife.min.js")).read_bytes()
    assert hashlib.sha256(raw).hexdigest().startswith("2d27e8ad3d228164525ce213f9dc716f")


def test_the_lock_has_hashes_and_no_foreign_packages_of_our_names() -> None:
    text = (ROOT / "requirements.lock").read_text()
    names = {line.split("==")[0].lower() for line in text.splitlines() if "==" in line and not line.startswith(" ")}
    assert "--hash=sha256:" in text and "://" not in text
    assert not names & {"tables", "agents", "openai-agents", "app", "models", "schemas"}


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "tables"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({str(ROOT)!r}); import app.guard; app.guard.check()"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env={"PATH": "/usr/bin"})
    assert done.returncode == 78 and "package 'tables' comes from" in done.stderr


def test_docker_files_name_commands_that_exist() -> None:
    """No engine runs here: the compose file's services call roles and settings that the code has."""
    from app.cli import cli
    from app.settings import Settings

    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    commands = {c.name or c.callback.__name__ for c in cli.registered_commands if c.callback}
    ours = {n: s for n, s in compose["services"].items() if "build" in s}
    assert {"worker", "gateway", "sink"} <= set(ours)
    for service in ours.values():
        assert service["command"][0] in commands
        for variable in service.get("environment", {}):
            assert variable.removeprefix("DESKRISK_").lower() in Settings.model_fields, variable
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert "requirements.lock" in dockerfile and "--require-hashes" in dockerfile and "USER" in dockerfile


def test_reference_documents_are_generated_from_the_code() -> None:
    done = subprocess.run([sys.executable, "docs/make_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
