"""Notebook commands: python -m sslcore.nb run | execute | from-py | to-py | student | check."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sslcore.nb", description="Run, build and check course notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_command = commands.add_parser("run", help="run a notebook as plain Python, without a kernel")
    run_command.add_argument("notebook", type=Path)
    run_command.add_argument("--scale", choices=("cpu", "gpu"), default="cpu")
    run_command.add_argument("--figures", type=Path, help="folder for the figures")
    run_command.add_argument("--timing", action="store_true", help="print seconds for each cell")
    execute_command = commands.add_parser("execute", help="execute notebooks in place with a fresh kernel")
    execute_command.add_argument("notebooks", type=Path, nargs="+")
    execute_command.add_argument("--timeout", type=int, default=600, help="seconds a cell may take")
    from_command = commands.add_parser("from-py", help="percent-format Python to notebook")
    to_command = commands.add_parser("to-py", help="notebook to percent-format Python")
    for command in (from_command, to_command):
        command.add_argument("source", type=Path)
        command.add_argument("target", type=Path)
    student_command = commands.add_parser("student", help="copies with the solutions replaced by gaps")
    student_command.add_argument("chapters", type=Path)
    student_command.add_argument("target", type=Path)
    check_command = commands.add_parser("check", help="check notebooks against the course contract")
    check_command.add_argument("notebooks", type=Path, nargs="+")
    chosen = parser.parse_args(arguments)

    if chosen.command == "run":
        from sslcore.nb.runner import run

        run(chosen.notebook, chosen.scale, figures=chosen.figures, timing=chosen.timing)
    elif chosen.command == "execute":
        from sslcore.nb.execute import execute

        for notebook in chosen.notebooks:
            execute(notebook, chosen.timeout)
            print(f"executed {notebook}")
    elif chosen.command == "from-py":
        from sslcore.nb.percent import from_percent

        from_percent(chosen.source, chosen.target)
    elif chosen.command == "to-py":
        from sslcore.nb.percent import to_percent

        to_percent(chosen.source, chosen.target)
    elif chosen.command == "student":
        from sslcore.nb.student import write_student_copies

        print(f"{len(write_student_copies(chosen.chapters, chosen.target))} student copies in {chosen.target}")
    else:
        from sslcore.nb.contract import check_notebooks

        problems = check_notebooks(chosen.notebooks)
        print("\n".join(problems) or f"{len(chosen.notebooks)} notebooks keep the contract")
        return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
