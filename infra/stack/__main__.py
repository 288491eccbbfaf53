"""`python -m infra.stack up|down|demo`."""

from __future__ import annotations

import sys

from rich.console import Console

from infra.stack import demo, front
from infra.stack.airflow import AirflowError
from infra.stack.home import Home, State, default


def up(home: Home, console: Console) -> int:
    """Start the stack and leave it running."""
    state, started = front.stay(home, console)
    console.print("The stack is up." if started else "The stack is running already.")
    _addresses(home, state, console)
    console.print("  end it   make down")
    return 0


def down(home: Home, console: Console) -> int:
    """End the stack."""
    with console.status("Ending the stack"):
        count = front.stop(home)
    console.print(f"Ended {count} processes." if count else "Nothing was running.")
    return 0


def run_demo(home: Home, console: Console) -> int:
    """Score the sample corpus, from an empty machine to the summary."""
    with front.stack(home, console) as (state, started):
        _addresses(home, state, console)
        report = demo.run(front.airflow(home, state), console)
        _show(report, console)
    console.print(
        "Everything that was started has ended; the table and the report are kept. make up brings it back to look at."
        if started
        else "The stack goes on running. make down ends it."
    )
    return 0


def _show(report: dict[str, object], console: Console) -> None:
    from corpuscore.report import Report

    console.print()
    console.print(Report.from_json(report).render())
    console.print()


def _addresses(home: Home, state: State, console: Console) -> None:
    user, password = home.login()
    console.print(f"  Airflow  {state.airflow}  (user {user}, password {password})", highlight=False)
    console.print(f"  Dask     {state.dashboard}", highlight=False)


def main(arguments: list[str]) -> int:
    """Run one of the commands; 0 on success, 1 on failure, 2 on bad arguments, 130 after Ctrl-C."""
    console = Console(soft_wrap=True)
    commands = {"up": up, "down": down, "demo": run_demo}
    if len(arguments) != 1 or arguments[0] not in commands:
        console.print("usage: python -m infra.stack up|down|demo")
        return 2
    front.leave_on_signals()
    try:
        return commands[arguments[0]](default(), console)
    except (front.StackError, demo.RunError, AirflowError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped; everything that was started has ended.")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
