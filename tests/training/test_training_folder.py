"""Run folders: one process each, nothing made before a run can start, no half-written file."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from hetsyn_triton.experiments.files import partials, write_atomically
from hetsyn_triton.experiments.training import (
    Run,
    RunFolderError,
    TrainConfig,
    load_run,
    resume,
    train,
)
from hetsyn_triton.experiments.training.claim import claim_folder, claim_new_folder
from hetsyn_triton.experiments.training.run_folder import LOCK

Louder = Callable[..., TrainConfig]

# Two of these start building together: each waits, before it claims a folder, for a line on stdin.
TOGETHER = """
import sys
import hetsyn_triton.experiments.training.runs as runs
from hetsyn_triton.experiments.cli import main
class Trainer(runs.Trainer):
    def __init__(self, config, ranks):
        super().__init__(config, ranks)
        print("built", flush=True)
        sys.stdin.readline()
runs.Trainer = Trainer
main()
"""
HOLD = """
import sys
from pathlib import Path
from hetsyn_triton.experiments.training.claim import claim_folder
with claim_folder(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    sys.stdin.readline()
"""
SMALL = ["train", "--hidden", "4", "--epochs", "1", "--threads", "1", "--set", "hold=1"]


def start(program: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    """Reads what `process` prints until the line `word`."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"the process ended without {word!r}")


@pytest.mark.slow
@pytest.mark.parametrize("out", [[], ["--out", "mine"]])
def test_two_processes_at_once(out: list[str], tmp_path: Path) -> None:
    both = [start(TOGETHER, *SMALL, *out, folder=tmp_path) for _ in range(2)]
    for process in both:
        wait_for(process, "built")
    assert not list(tmp_path.iterdir())
    said = [""] * 2

    def go_on(number: int) -> None:
        said[number] = both[number].communicate("\n")[1]

    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = sorted(process.returncode for process in both)
    if out:
        assert codes == [0, 2], said
        assert any("got mine" in text and "Traceback" not in text for text in said)
        runs = [tmp_path / "mine"]
    else:
        assert codes == [0, 0], said
        runs = sorted((tmp_path / "runs").iterdir())
        assert [run.name for run in runs] == ["digits-hetsyn-s0", "digits-hetsyn-s0-2"]
    for run in runs:
        assert (run / "summary.json").exists()
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
        assert not list(run.glob(".*"))


def test_a_folder_at_work_is_refused(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(epochs=1), tmp_path / "run", pictures=False)
    (tmp_path / "new").mkdir()
    calls: dict[Path, Callable[[], Run]] = {
        run.path: lambda: resume(run.path, pictures=False),
        tmp_path / "new": lambda: train(louder(epochs=1), tmp_path / "new", pictures=False),
    }
    for folder, again in calls.items():
        holder = start(HOLD, str(folder), folder=tmp_path)
        wait_for(holder, "held")
        used = (
            rf"^run folder: expected one that no other process uses, got {folder}, which .*train`"
        )
        with pytest.raises(RunFolderError, match=used):
            again()
        assert load_run(run.path).epoch == 1  # reading needs no lock
        holder.kill()
        holder.communicate()
        assert holder.returncode == -signal.SIGKILL
        assert (folder / LOCK).exists()
        again()  # a kill lets go of the folder
        assert not list(folder.glob(".*"))


def test_lock_within_one_process(tmp_path: Path) -> None:
    with claim_folder(tmp_path, "run"):
        with pytest.raises(RunFolderError), claim_folder(tmp_path, "run"):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()
    with claim_folder(tmp_path, "run"):
        pass


def test_a_claim_left_empty_goes_again(louder: Louder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, stays in (("new", False), ("mine", True)):
        with pytest.raises(KeyboardInterrupt), claim_new_folder(tmp_path / name, louder()):
            raise KeyboardInterrupt
        assert (tmp_path / name).exists() == stays


def test_a_run_that_came_first_keeps_the_folder(louder: Louder, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with (
        pytest.raises(RunFolderError, match="expected an empty or new folder"),
        claim_new_folder(tmp_path, louder()),
    ):
        pass
    assert (tmp_path / "config.json").read_text() == "{}"


def test_a_writer_that_fails_halfway(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text("old")

    def fail(file: BinaryIO) -> None:
        file.write(b"ne")
        file.flush()
        assert path.read_text() == "old"
        assert len(list(partials(tmp_path))) == 1
        raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_dies_halfway(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(epochs=1), tmp_path / "run", pictures=False)
    before = (run.path / "checkpoint.pt").read_bytes()
    program = """
import os, sys
from pathlib import Path
from hetsyn_triton.experiments.files import write_atomically
def die(file):
    file.write(b"half")
    file.flush()
    os._exit(7)
write_atomically(Path(sys.argv[1]), die)
"""
    for _ in range(2):
        dead = start(program, str(run.path / "checkpoint.pt"), folder=tmp_path)
        dead.communicate()
        assert dead.returncode == 7
    left = list(partials(run.path))
    assert [path.read_bytes() for path in left] == [b"half"] * 2  # a name each
    assert (run.path / "checkpoint.pt").read_bytes() == before
    assert load_run(run.path).epoch == 1
    resume(run.path, pictures=False)
    assert not list(partials(run.path))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """What reads the old file while the new one is put in place goes on reading the old one."""
    path = tmp_path / "values.json"
    path.write_text("old")
    with open(path) as reader:
        write_atomically(path, lambda file: file.write(b"new"))
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_other_files_are_no_partials(louder: Louder, tmp_path: Path) -> None:
    """Only what this package names is overlooked in a new folder, and removed from it."""
    for name in (".notes.partial", "thesis.hetsyn-partial"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("")
        with pytest.raises(RunFolderError, match="contains files"):
            train(louder(epochs=1), folder, pictures=False)
        assert (folder / name).exists()


def test_settings_of_the_run_are_in_its_folder(louder: Louder, tmp_path: Path) -> None:
    config: Any = louder(epochs=1)
    run = train(config, tmp_path / "run", pictures=False)
    assert json.loads((run.path / "config.json").read_text()) == config.to_json()


def test_a_file_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents, then the name, then the folder that has the name: whenever the power fails, the
    file is the old one or the new one."""
    path, done = tmp_path / "file", list[str]()
    sync, replace = os.fsync, os.replace

    def noted_sync(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        done.append("sync folder" if is_folder else f"sync {os.fstat(handle).st_size} bytes")
        sync(handle)

    def noted_replace(old: Any, new: Any) -> None:
        done.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomically(path, lambda file: file.write(b"content"))
    assert done == ["sync 7 bytes", "replace", "sync folder"]
