"""Signals that come while a command starts: it ends soon, without a traceback, with a status that says why."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("signals end processes there at once", allow_module_level=True)

PATIENCE = 60
PROGRAM = """
import ctypes, sys, threading
from zonda.cli import main

module, how, *arguments = sys.argv[1:]
main.GRACE = 0.1

def forever():
    print("waiting", flush=True)
    threading.Event().wait()

class Slow:
    def find_spec(self, name, path, target=None):
        if name == module:
            HOWS[how]()

def swallowed():
    try:
        forever()
    except SystemExit:
        forever()

HOWS = {"waits": forever, "from_c": ctypes.PYFUNCTYPE(None)(forever), "swallowed": swallowed}
sys.meta_path.insert(0, Slow())
sys.argv = ["zonda", *arguments]
main.main()
"""
LEFT = """
import threading
from zonda.cli import main

main.GRACE = 0.1
threading.Thread(target=threading.Event().wait).start()
print("told")
main.leave(3)
"""


def status(number: int, *arguments: str) -> int:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert not err
    return process.returncode


@pytest.mark.parametrize(("arguments", "number", "expected"), [
    (["serve", "-m", "x"], signal.SIGTERM, 0), (["-v", "serve", "-m", "x"], signal.SIGINT, 0),
    (["run", "-m", "serve"], signal.SIGTERM, 143), (["bench", "-m", "x"], signal.SIGINT, 130)])
def test_a_signal_ends_a_command_from_its_first_import_on(arguments: list[str], number: int, expected: int) -> None:
    assert status(number, "click", "waits", *arguments) == expected


@pytest.mark.parametrize("how", ["from_c", "swallowed"])
def test_what_holds_up_a_signals_exception_does_not_hold_up_the_end(how: str) -> None:
    assert status(signal.SIGTERM, "zonda.cli.plan", how, "plan", "-m", "x") == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_of_a_configuration_file_ends_with_status_zero(number: int, tmp_path: Path) -> None:
    (tmp_path / "z.toml").write_text('command = "serve"\n[model]\nmodel = "x"\n')
    assert status(number, "uvicorn", "waits", "from-config", str(tmp_path / "z.toml")) == 0


def test_a_thread_that_works_on_does_not_keep_the_process() -> None:
    ran = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=PATIENCE)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "told\n", "")
