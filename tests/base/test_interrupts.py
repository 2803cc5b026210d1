"""Signals end a process within seconds, wherever it is, with the shell's code, without a traceback or a leftover."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.commands import child_environment, leftovers
from support.places import TESTS

from pipeline.base import interrupts

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]

START = "from pipeline.base import interrupts; interrupts.install()\n"
WORK = {
    "python": "while True: pass",
    "in a library that holds the main thread": "import time\nprint('ready', flush=True)\nwhile True: time.sleep(1000)",
    "within a clean-up that waits": """
        import threading
        try:
            raise ValueError
        finally:
            threading.Event().wait()
    """,
    "in a callback that swallows exceptions": """
        class Odd:
            def __del__(self):
                while True: pass
        Odd()
    """,
    "writing, with locks held": """
        import sys, time
        from pathlib import Path
        from pipeline.disk.files import write_aside, temporary_folder
        from pipeline.disk.folders import new_folder
        from pipeline.disk.locks import exclusive
        out = Path(sys.argv[1])
        with exclusive(out / "store", "me"), write_aside(out / "a") as f, new_folder(out / "b", "x") as aside:
            aside.mkdir()
            (aside / "x").write_text("half")
            f.write(b"half")
            print("ready", flush=True)
            time.sleep(1000)
    """,
    "a thread that makes files without end": """
        import sys, threading
        from pathlib import Path
        from pipeline.disk.files import write_bytes
        out = Path(sys.argv[1])
        def work(i):
            while True: write_bytes(out / str(i), b"x")
        for i in range(3): threading.Thread(target=work, args=(i,), daemon=True).start()
        threading.Event().wait(1000)
    """,
}


def start(code: str, *words: object, **how: object) -> subprocess.Popen[str]:
    text = START + "print('installed', flush=True)\n" + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-c", text, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        **how,  # type: ignore[call-overload]
    )
    assert process.stdout
    assert process.stdout.readline() == "installed\n"
    if "ready" in code:
        assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("work", WORK)
def test_a_signal_ends_whatever_the_process_does(tmp_path: Path, work: str) -> None:
    for number, code in SIGNALS:
        process = start(WORK[work], tmp_path)
        time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (code, interrupts.WORDS), work
        assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_no_half_made_file_at_any_moment(tmp_path: Path, seed: int) -> None:
    process = start(WORK["a thread that makes files without end"], tmp_path)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert leftovers(tmp_path) == []


def test_two_signals_at_once_are_one(tmp_path: Path) -> None:
    """A terminal and a launcher both tell it: what is half written goes all the same."""
    process = start(WORK["writing, with locks held"], tmp_path)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert leftovers(tmp_path) == []


def test_what_the_parent_ignores_stays_ignored() -> None:
    """As under nohup, and of a shell's job in the background."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start("import time\ntime.sleep(1000)", preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_a_forked_child_has_no_part_in_it(tmp_path: Path) -> None:
    """It neither ends its parent nor deletes what that is writing, and signals do to it what they did before."""
    code = """
        import os, signal, sys, time, warnings
        from pathlib import Path
        from pipeline.disk.files import write_aside
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # Python 3.12
        with write_aside(Path(sys.argv[1]) / "a") as f:
            child = os.fork()
            if child == 0:
                time.sleep(100)
            os.kill(child, signal.SIGTERM)
            assert os.waitpid(child, 0)[1] == signal.SIGTERM
            f.write(b"whole")
    """
    process = start(code, tmp_path)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_store_that_is_just_being_made_is_whole_or_gone(tmp_path: Path) -> None:
    """zarr makes the folders above its files anew: what the end removes while zarr writes would come back."""
    code = """
        import os, signal, sys, threading, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from pipeline.store import create as stores
        from support.stores import TEACHER, plan_of_rows
        from pipeline.store.format import StoreSpec
        write = stores.write_stored_plan
        def slowly(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
            write(*arguments)
        stores.write_stored_plan = slowly
        settings = {"rows_per_shard": 8, "dtype": "float16", "pixels": "none"}
        stores.create_store(Path(sys.argv[1]) / "s.zarr", plan_of_rows(), StoreSpec(TEACHER.record(), settings), {})
        time.sleep(100)
    """
    process = start(code, tmp_path, TESTS)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, interrupts.WORDS)
    assert not leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_handlers_are_as_before_after_the_block() -> None:
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    with interrupts.handled():
        assert [signal.getsignal(number) for number, _ in SIGNALS] != before
        with interrupts.handled():  # a command within a command
            pass
        assert [signal.getsignal(number) for number, _ in SIGNALS] != before
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_undone_and_settled() -> None:
    done: list[int] = []
    with interrupts.undone(lambda: done.append(1)):
        assert done == []
    assert done == [1]


def test_ctrl_c_before_the_signals_are_handled_ends_without_words(tmp_path: Path) -> None:
    """The module that handles them is itself imported after the first lines of the command."""
    code = """
        import os, signal, sys
        from importlib.abc import MetaPathFinder
        class Stop(MetaPathFinder):
            def find_spec(self, name, *rest):
                if name == "pipeline":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Stop())
        sys.argv = ["g2l", "inspect", "x"]
        from g2l.__main__ import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=child_environment(),
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_signals_are_handled_before_the_commands_are_imported(tmp_path: Path, number: int, code: int) -> None:
    """Their imports take a second: a signal within them ends as one at work does."""
    text = """
        import os, sys, time
        from importlib.abc import MetaPathFinder
        class Stop(MetaPathFinder):
            def find_spec(self, name, *rest):
                if name == "stages":
                    os.kill(os.getpid(), int(sys.argv.pop()))
                    time.sleep(100)
        sys.meta_path.insert(0, Stop())
        sys.argv = ["g2l", "inspect", "x", sys.argv[1]]
        from g2l.__main__ import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), str(int(number))],
        capture_output=True,
        text=True,
        env=child_environment(),
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", interrupts.WORDS)


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
def test_the_command_at_any_moment_of_its_start(tmp_path: Path, moment: float) -> None:
    """Imports included. Before the interpreter has come to the command's first line, its own answer is taken."""
    command = [sys.executable, "-m", "g2l", "inspect", str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment()
    )
    while process.poll() is None and b"g2l-signals" not in threads_of(process.pid):
        time.sleep(0.001)
    time.sleep(moment)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 15
    if process.returncode == -signal.SIGTERM:  # 143 in a shell as well; the interpreter was taking itself down
        assert "error: " in errors, "it had not come to its end"
    else:
        assert process.returncode in (143, 1)  # 1: it had come to its end
    assert "Traceback" not in errors


def threads_of(pid: int) -> bytes:
    """How many threads a process has, told as if by name: the command's second one waits for signals."""
    try:
        return b"g2l-signals" if len(os.listdir(f"/proc/{pid}/task")) > 1 else b""
    except OSError:
        return b"g2l-signals"
