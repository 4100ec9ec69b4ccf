"""Which changes of the gate and of the position fold does no test notice? `make mutants` tries some, and names them.

Cosmic Ray changes one operator, number or branch at a time, in a copy of the repository with compiled kernels of its
own, and runs the tests that decide. What survives is read by a person: killed by a new test, or explained in
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).resolve().parent.parent
TEST_S = 600.0
#: what is changed, and the tests that must notice it, the quickest first
TARGETS = {
    "gate": (("models/gate",),
             ("tests/unit/test_gate_rules.py", "tests/property/test_gate.py", "tests/property/test_gate_bounds.py",
              "tests/property/test_gate_cancels.py", "tests/property/test_gate_executions.py",
              "tests/property/test_gate_relations.py", "tests/property/test_terms_at_the_gate.py",
              "tests/unit/test_gate_book.py", "tests/unit/test_gate_levels.py", "tests/unit/test_gate_figures.py",
              "tests/unit/test_gate_exceeded.py", "tests/unit/test_gate_judged_whole.py", "tests/unit/test_gate_reasons.py",
              "tests/unit/test_gate_changelog.py", "tests/unit/test_other_gates.py")),
    "fold": (("models/position_fold.py", "models/position_window.py", "models/position_order.py",
              "models/position_chain.py", "models/position_opening.py"),
             ("tests/property/test_position_fold.py", "tests/property/test_position_relations.py",
              "tests/property/test_rewritten_history.py", "tests/property/test_history_with_statements.py", "tests/property/test_roll.py",
              "tests/property/test_position_repeats_and_shifts.py", "tests/property/test_corporate_actions.py",
              "tests/unit/test_statements_and_terms.py", "tests/unit/test_changelog_rows.py")),
}
#: operators whose mutants mean nothing: unions stand in annotations, a product of truths is their conjunction,
#: decorators compile
LEFT_OUT = ("core/ReplaceBinaryOperator_BitOr", "core/ReplaceBinaryOperator_BitAnd_Mul", "core/RemoveDecorator")
CONFIG = """[cosmic-ray]
module-path = [{modules}]
timeout = {seconds}
excluded-modules = ["models/gate/naive.py"]
test-command = "{python} -m pytest -x -q -p no:cacheprovider --hypothesis-seed=0 {tests}"
[cosmic-ray.distributor]
name = "local"
"""


def is_sampled(item: WorkItem) -> bool:
    """Return whether a mutant means anything."""
    return not any(m.operator_name.startswith(LEFT_OUT) for m in item.mutations)


def sample(db: WorkDB, count: int, seed: int) -> int:
    """Leave ``count`` mutants to be tried; return how many there are."""
    meaning = sorted((item for item in db.pending_work_items if is_sampled(item)),
                     key=lambda item: (str(item.mutations[0].module_path), item.mutations[0].start_pos, item.mutations[0].operator_name,
                                       item.mutations[0].occurrence))
    chosen = {item.job_id for item in random.Random(seed).sample(meaning, min(count, len(meaning)))}
    for item in list(db.pending_work_items):
        if item.job_id not in chosen:
            db.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED, output="not in the sample"))
    return len(meaning)


def copy_of_the_repository(folder: Path) -> Path:
    """Return a copy of what git knows, with the kernels compiled so far."""
    copy = folder / "deskrisk"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    for kept in ("numba", "kfake"):
        shutil.copytree(Path(os.environ["NUMBA_CACHE_DIR"]).parent / kept, copy / ".cache" / kept)
    return copy


def tried(target: str, count: int, seed: int) -> tuple[int, list[tuple[WorkItem, WorkResult]]]:
    """Try mutants of a target; return how many there are, and what came of those that were tried."""
    modules, tests = TARGETS[target]
    with tempfile.TemporaryDirectory(prefix="deskrisk-mutants-") as scratch:
        copy = copy_of_the_repository(Path(scratch))
        config, session = Path(scratch) / "mutants.toml", Path(scratch) / "mutants.sqlite"
        config.write_text(CONFIG.format(modules=", ".join(f'"{m}"' for m in modules), seconds=TEST_S, python=sys.executable,
                                        tests=" ".join(tests)))
        environment = os.environ | {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(copy / ".cache" / "numba")}
        command = Path(sys.executable).parent / "cosmic-ray"
        subprocess.run([command, "init", config, session], cwd=copy, env=environment, check=True)
        with use_db(str(session), WorkDB.Mode.open) as db:
            there = sample(db, count, seed)
        subprocess.run([command, "exec", config, session], cwd=copy, env=environment, check=True)
        with use_db(str(session), WorkDB.Mode.open) as db:
            results = dict(db.results)
            found = [(item, results[item.job_id]) for item in db.work_items
                     if item.job_id in results and results[item.job_id].worker_outcome is not WorkerOutcome.SKIPPED]
    return there, found


def main() -> None:
    """Try mutants, and name those that no test noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    there, found = tried(args.target, args.sample, args.seed)
    survived = [(item, result) for item, result in found if result.test_outcome is TestOutcome.SURVIVED]
    for item, result in survived:
        at = item.mutations[0]
        print(f"\nsurvived: {at.module_path}:{at.start_pos[0]} {at.operator_name}\n{result.diff or ''}")
    print(f"{args.target}: {len(found)} of {there} mutants tried (seed {args.seed}): {len(found) - len(survived)} noticed, {len(survived)} not")


if __name__ == "__main__":
    main()
