"""docs/results.md shows the stored files, and the stored files are copies of the folders."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.results_page import NOT_MEASURED, main, page, write
from bench.stored_results import collect, digest, train_command
from hetsyn_triton.experiments.cli.configure import configured
from hetsyn_triton.experiments.studies import run_study
from hetsyn_triton.experiments.studies.statistics import wilson_interval
from hetsyn_triton.experiments.training import ConfigError, RunFolderError, default_config, train

CPU_NAME = "hetsyn_triton.experiments.training.machine.cpu_name"
ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "docs/results/json"


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a page, each as rows by column."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if len(lines) > 1 and lines[1].startswith("|---"):
            head = cells(lines[0])
            found.append([dict(zip(head, cells(line), strict=True)) for line in lines[2:]])
    return found


def paragraph(text: str, begin: str) -> str:
    """The paragraph that begins so, as one line; each machine's number is its hardware."""
    (found,) = [block for block in text.split("\n\n") if block.startswith(begin)]
    machines = {row["machine"]: row["hardware"] for row in tables(text)[-1]}
    named = re.sub(r"machine (\d+)", lambda m: machines[m[1]], found)
    return " ".join(named.split())


def a_stored_run(task: str) -> tuple[Path, dict[str, Any]]:
    source = min(STORED.glob(f"run-{task}-*.json"))
    return source, json.loads(source.read_text(encoding="utf-8"))


def written(*folders: str, docs: Path) -> Result:
    """Run `python -m bench.results_page`, in this process."""
    return CliRunner().invoke(main, [*folders, "--docs", str(docs)])


def raw(stored: Path) -> Path:
    """The folder of the JSON files in `stored`, which is created if necessary."""
    folder = stored / "json"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_page_is_what_is_stored() -> None:
    """`python -m bench.results_page` writes it anew; only the files in docs/results/ are read."""
    stored = ROOT / "docs/results"
    assert (ROOT / "docs/results.md").read_text(encoding="utf-8") == page(stored)
    for path in STORED.glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        assert values["kind"] in ("run", "study")
        for environment in values.get("environments") or [values["environment"]]:
            assert all(environment[name] for name in ("date", "cpu", "torch"))
        assert values["command"].startswith("hetsyn ")
        if values["kind"] == "run":
            device = values["environment"]["device"]
            settings = values["config"] | ({} if device == "cpu" else {"device": device})
            assert path.stem.endswith(digest(settings)), path.name
    for picture in stored.glob("*.png"):
        assert (STORED / f"{picture.stem}.json").exists()


@pytest.mark.usefixtures("echo")
def test_folders_become_the_page(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    changes: dict[str, Any] = {"epochs": 2, "options": {"delay": 3}}
    for seed in range(2):
        config = default_config("echo", seed=seed, hidden=(5,), test_every=1, **changes)
        train(config, tmp_path / f"run-{seed}")
    run_study(
        "variants", task="echo", seeds=1, jobs=1, models=["hetsyn"], forms=["recurrent"],
        out=tmp_path / "study",
    )  # fmt: skip
    (docs / "results").mkdir(parents=True)
    (docs / "results/remarks.md").write_text("# Remarks\n\n## echo\n\nIt *differs*, and we know.\n")
    folders = [str(tmp_path / name) for name in ("run-0", "run-1", "study")]
    assert written(*folders, docs=docs).exit_code == 0
    text = (docs / "results.md").read_text(encoding="utf-8")
    section = text[text.index("## echo\n") : text.index("## Studies\n")]
    assert "It *differs*, and we know." in section
    assert (
        "| last epoch accuracy | 95 % interval | validation-selected accuracy |"
        " test-selected accuracy |" in section
    )
    assert "model: hetsyn, form: recurrent, hidden: 5, " in section
    assert "epochs: 2, " in section
    (line,) = [line for line in section.splitlines() if " to " in line and line.startswith("|")]
    accuracies = [
        json.loads((tmp_path / f"run-{seed}/summary.json").read_text())["test"]["accuracy"]
        for seed in range(2)
    ]
    assert line.startswith(f"| {50 * sum(accuracies):.2f} ± ")
    low, high = wilson_interval(sum(accuracies) / 2, 16)  # one seed's test samples
    assert f" % | {100 * low:.2f} to {100 * high:.2f} % | " in line
    train_line = paragraph(text, "`hetsyn train echo --seed 0 ")
    assert "--set epochs=2 --set delay=3" in train_line
    assert "` and 1 more seed: " in train_line
    curve = json.loads(min((docs / "results/json").glob("run-echo-*-s0-*.json")).read_text())[
        "curve"
    ]
    (by_epoch,) = [table for table in tables(section) if "epoch, seed 0" in table[0]]
    assert [row["epoch, seed 0"] for row in by_epoch] == [
        "hours",
        "validation accuracy",
        "test accuracy",
    ]
    assert [by_epoch[2]["1"], by_epoch[2]["2"]] == [f"{100 * p['test']:.2f} %" for p in curve]
    for part in ("SMALL: 1 seed", "hetsyn study variants --task echo"):
        assert part in section
    assert text.count(NOT_MEASURED) == 5 + 5  # tasks with a section of their own, studies
    names = {path.suffix for path in (docs / "results").iterdir()}
    assert names == {"", ".png", ".csv", ".md"}
    assert {path.suffix for path in (docs / "results/json").iterdir()} == {".json"}
    for path in (docs / "results").iterdir():
        if path.suffix == ".png" and "-s1-" not in path.name:  # one seed's curve is shown
            assert f"results/{path.name}" in section
    again = write(docs).read_text(encoding="utf-8")
    assert again == text
    for seed in range(2):
        summary = json.loads((tmp_path / f"run-{seed}/summary.json").read_text())
        (copy,) = (docs / "results/json").glob(f"run-echo-hetsyn-s{seed}-*.json")
        stored = json.loads(copy.read_text())
        for name in ("last_epoch", "time_constant_quartiles"):
            assert stored[name] == summary[name]
    assert written(folders[0], docs=docs).exit_code == 0  # in place of its copy
    assert (docs / "results.md").read_text(encoding="utf-8") == text


def test_a_selection_that_is_not_there_is_marked(tmp_path: Path) -> None:
    """Of a task whose runs all lack it, as well."""
    source, values = a_stored_run("fsdd")
    values["selection"]["validation"] = None

    def shown() -> list[tuple[str, str]]:
        (raw(tmp_path) / source.name).write_text(json.dumps(values))
        (row,) = tables(page(tmp_path))[0]
        return [(name, cell) for name, cell in row.items() if "accuracy" in name]

    accuracy = {
        kind: f"{100 * values['selection'][kind]['test']['accuracy']:.2f} %"
        for kind in ("last", "test")
    }
    last = ("last epoch accuracy", accuracy["last"])
    assert shown() == [
        last, ("validation-selected accuracy", "-"), ("test-selected accuracy", accuracy["test"])
    ]  # fmt: skip
    values["selection"]["test"] = None
    values["selection"]["validation"] = values["selection"]["last"]
    assert shown() == [
        last, ("validation-selected accuracy", accuracy["last"]), ("test-selected accuracy", "-")
    ]  # fmt: skip


def test_an_interval_needs_the_number_of_test_samples(tmp_path: Path) -> None:
    """The same one for all seeds, and a score that is a share."""
    _, values = a_stored_run("fsdd")
    values["selection"]["last"]["test"]["accuracy"] = 0.5

    def shown(*samples: int | None, score: str = "accuracy") -> bool:
        for seed, count in enumerate(samples):
            config = {**values["config"], "seed": seed}
            copy = {**values, "config": config, "test_samples": count, "score": score}
            (raw(tmp_path) / f"run-{seed}.json").write_text(json.dumps(copy))
        return "| 95 % interval |" in page(tmp_path)

    assert shown(100)
    assert "| 50.00 % | 40.38 to 59.62 % |" in page(tmp_path)  # z^2 = 3.8415, by hand
    assert not shown(100, score="loss")
    assert not shown(None)
    assert shown(100, 100)
    assert not shown(100, 90)
    assert not shown(100, None)


@pytest.mark.usefixtures("echo")
def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="expected a run or study folder"):
        collect(tmp_path, tmp_path / "docs")
    config = default_config("echo")
    train(config, tmp_path / "run", pictures=False)
    (tmp_path / "run/summary.json").unlink()
    with pytest.raises(RunFolderError, match="expected a complete run"):
        collect(tmp_path / "run", tmp_path / "docs")
    run_study("cost", jobs=1, out=tmp_path / "cost", models=["homneu"], forms=["recurrent"],
              sizes=[2], inputs=2, steps=2, samples=1, rounds=3)  # fmt: skip
    table = tmp_path / "cost/table.json"
    stored = json.loads(table.read_text())
    del stored["environments"]
    table.write_text(json.dumps(stored))
    with pytest.raises(RunFolderError, match=r"got that of an earlier version in .*Run the com"):
        collect(tmp_path / "cost", tmp_path / "docs")
    table.write_text('{"environments": []}')
    with pytest.raises(RunFolderError, match=r"cost is damaged: KeyError: 'rows'"):
        collect(tmp_path / "cost", tmp_path / "docs")
    train(config, tmp_path / "other", pictures=False)
    for name, damaged, told in (
        ("metrics.jsonl", '{"epoch": 1}\n{', r"metrics.jsonl is damaged: "),
        ("metrics.jsonl", '{"epoch": 1}', r"is damaged: .*KeyError: 'seconds'"),
        ("summary.json", "[]", r"summary.json is damaged: "),
        ("summary.json", "{}", r"is damaged: KeyError: 'score'"),
    ):
        (tmp_path / "other" / name).write_text(damaged)
        with pytest.raises(RunFolderError, match=told):
            collect(tmp_path / "other", tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


@pytest.mark.usefixtures("echo")
def test_a_run_of_a_gpu_is_recorded_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(default_config("echo"), tmp_path / "run", pictures=False)
    on_cpu = collect(tmp_path / "run", tmp_path / "docs")
    path = tmp_path / "run/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "cuda"}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    on_gpu = collect(tmp_path / "run", tmp_path / "docs")
    assert on_gpu != on_cpu
    for stored, device in ((on_cpu, "cpu"), (on_gpu, "cuda")):
        assert json.loads(stored.read_text())["environment"]["device"] == device
    text = page(tmp_path / "docs/results")
    assert [row["run"] for row in tables(text)[0]] == ["1", "2"]  # no mean of two devices
    assert sum(row["hardware"].endswith("cores, on cuda") for row in tables(text)[-1]) == 1
    assert sorted("cores, on cuda" in paragraph(text, f"Run {n}:") for n in (1, 2)) == [False, True]


@pytest.mark.usefixtures("echo")
def test_the_machine_is_that_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CPU_NAME, lambda: "Trainer 3000")
    train(default_config("echo"), tmp_path / "run", pictures=False)
    monkeypatch.setattr(CPU_NAME, lambda: "Collector 7")
    path, docs = tmp_path / "run/summary.json", tmp_path / "docs"
    summary = json.loads(path.read_text())
    summary["environment"]["date"] = summary["sessions"][0]["date"] = "2001-02-03"

    def shown(**changes: Any) -> str:
        path.write_text(json.dumps({**summary, **changes}))
        collect(tmp_path / "run", docs)
        return paragraph(page(docs / "results"), "`hetsyn train echo")

    assert "`: Trainer 3000, " in shown()
    assert shown().endswith(" cores, 2001-02-03.")
    earlier = {**summary["sessions"][0], "cpu": "Older 1", "date": "2001-02-02"}
    last = {**summary["sessions"][0], "step": 2}
    text = shown(sessions=[earlier, last])
    assert re.search(r", 2001-02-03 \(earlier sessions: Older 1, \d+ cores, 2001-02-02\)\.$", text)
    text = shown(sessions=[last])
    assert text.endswith(", 2001-02-03 (earlier sessions: not recorded up to step 2).")
    assert shown(sessions=[last | {"step": 0}, last]).endswith(", 2001-02-03 (2 sessions).")
    of_before = {n: v for n, v in summary["environment"].items() if n not in ("cpu", "date")}
    del summary["sessions"]
    text = shown(environment=of_before)
    assert "`: CPU not recorded, " in text
    assert text.endswith(", date not recorded.")


@pytest.mark.usefixtures("echo")
def test_seeds_of_several_machines_name_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, cpu in enumerate(("One", "Two", "One")):
        monkeypatch.setattr(CPU_NAME, lambda cpu=cpu: cpu)
        train(default_config("echo", seed=seed), tmp_path / f"{seed}", pictures=False)
        collect(tmp_path / f"{seed}", tmp_path / "docs")
    line = paragraph(page(tmp_path / "docs/results"), "`hetsyn train echo")
    assert "and 2 more seeds: One, " in line
    assert line.count("One, ") == line.count("; Two, ") == 1


def test_a_copy_of_before_says_when_its_machine_was_noted(tmp_path: Path) -> None:
    """Runs collected before they named their machine themselves."""
    source, values = a_stored_run("delayed-match")
    (raw(tmp_path) / source.name).write_text(json.dumps({**values, "sessions": []}))
    noted = "(where and when the result was copied, not where it was trained)."
    begin = "`hetsyn train delayed-match"
    assert noted not in paragraph(page(tmp_path), begin)
    values.pop("sessions", None)
    (raw(tmp_path) / source.name).write_text(json.dumps(values))
    assert paragraph(page(tmp_path), begin).endswith(noted)


def test_a_remark_without_a_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "remarks.md").write_text("## dance\n\nTo nothing.\n")
    with pytest.raises(ConfigError, match=r"remarks.md: expected sections .*, got dance"):
        page(tmp_path)
    (tmp_path / "remarks.md").write_text("## noise\n\nYes.\n\n## cost\n\nA.\n\n## noise\n\nNo.\n")
    with pytest.raises(ConfigError, match=r"expected each section once, got twice noise"):
        page(tmp_path)


def test_what_the_command_cannot_write_is_told(tmp_path: Path) -> None:
    """In one line, and nothing is written."""
    stored = tmp_path / "docs/results"
    file = stored / "json/run-x.json"
    study = json.loads(min(STORED.glob("study-*.json")).read_text())
    for prepare, told in (
        (lambda: None, "docs: expected a folder with results/ in it, which results are copied"),
        (lambda: raw(stored), None),
        (lambda: file.write_text("{"), "run-x.json is damaged: "),
        (
            lambda: file.write_text("{}"),
            "expected run or study as kind",
        ),
        (
            lambda: file.write_text('{"kind": "run", "config": {}}'),
            "run-x.json is damaged: expected a copy of a run: KeyError: ",
        ),
        (
            lambda: file.write_text(json.dumps({**study, "settings": {}})),
            "run-x.json is damaged: expected a copy of a study: KeyError: ",
        ),
        (
            lambda: file.write_text(json.dumps({**study, "table": "none"})),
            "run-x.json is damaged: expected a copy of a study: ",
        ),
        (lambda: file.unlink(), None),
        (lambda: (stored / "remarks.md").write_bytes(b"\xff"), "remarks.md is damaged: "),
        (lambda: (stored / "remarks.md").write_text("## dance\n\nNo.\n"), ", got dance\n"),
    ):
        prepare()
        (tmp_path / "docs/results.md").unlink(missing_ok=True)
        done = written(docs=tmp_path / "docs")
        assert done.exit_code == (told is not None)
        assert (told or "") in done.stderr
        assert done.stderr.count("\n") == (told is not None)
        assert (tmp_path / "docs/results.md").exists() == (told is None)


def test_speakers_left_out_in_turn_have_a_mean(tmp_path: Path) -> None:
    """Of runs that differ in nothing else."""
    _, values = a_stored_run("fsdd")
    assert values["test_samples"]  # of one run there is an interval, of the mean there is none

    def stored(speaker: str | None, accuracy: float, device: str = "cpu", **options: Any) -> None:
        changed = {name: v for name, v in {"speaker": speaker, **options}.items() if v is not None}
        config = {**values["config"]}
        config["options"] = {**config["options"], "speaker": speaker, **options}
        selection: dict[str, Any] = {"last": {"epoch": 1, "test": {"accuracy": accuracy}}}
        selection |= {"validation": None, "test": None}
        copy = {**values, "config": config, "changed": changed, "selection": selection}
        copy["environment"] = {**values["environment"], "device": device}
        number = len(list(raw(tmp_path).iterdir()))
        (raw(tmp_path) / f"run-{number}.json").write_text(json.dumps(copy))

    stored(None, 1.0)
    stored("a", 0.5)
    assert "| mean of" not in page(tmp_path)
    stored("b", 0.75, device="cuda")
    assert "| mean of" not in page(tmp_path)
    stored("b", 0.75)
    stored("c", 0.1, hop_ms=5)
    (line,) = [line for line in page(tmp_path).splitlines() if "| mean of" in line]
    assert "| mean of 2 | 62.50 ± 17.68 % | - | - | - | " in line
    stored("d", 0.3, hop_ms=5)
    rows = tables(page(tmp_path))[0]
    assert [(row["speaker"], row["last epoch accuracy"]) for row in rows] == [
        ("all", "100.00 %"), ("a", "50.00 %"), ("b", "75.00 %"), ("mean of 2", "62.50 ± 17.68 %"),
        ("b", "75.00 %"), ("c", "10.00 %"), ("d", "30.00 %"), ("mean of 2", "20.00 ± 14.14 %"),
    ]  # fmt: skip
    assert [row["run"] for row in rows] == ["1", "2", "2", "2", "3", "4", "4", "4"]


def test_speakers_left_out_share_one_line_of_provenance(tmp_path: Path) -> None:
    """And have no curve of their own beside that of the official split."""
    _, values = a_stored_run("fsdd")
    for speaker in (None, "a", "b"):
        changed = {} if speaker is None else {"speaker": speaker}
        config = {**values["config"], "seed": 0}
        config["options"] = {**config["options"], "speaker": speaker}
        command = f"hetsyn train fsdd --set speaker={speaker}"
        copy = {**values, "config": config, "changed": changed, "command": command}
        (raw(tmp_path) / f"run-{speaker}.json").write_text(json.dumps(copy))

    def curves() -> list[str]:
        return re.findall(r"^!\[.*\]\(results/(.*)\.png\)$", page(tmp_path), re.MULTILINE)

    text = page(tmp_path)
    assert paragraph(text, "Run 1:").startswith("Run 1: `hetsyn train fsdd --set speaker=None`: ")
    second = paragraph(text, "Run 2:")
    assert second.startswith(
        "Run 2: `hetsyn train fsdd --set speaker=a` and 1 more run (2 speakers): "
    )
    assert len(re.findall("^Run ", text, re.MULTILINE)) == 2
    assert text.count("\n| epoch, seed 0 | ") == 1
    assert curves() == ["run-None"]
    (raw(tmp_path) / "run-None.json").unlink()
    assert curves() == ["run-a"]


def test_links_of_remarks_lead_somewhere_from_file_and_page(tmp_path: Path) -> None:
    stored = tmp_path / "results"
    stored.mkdir()
    remark = "[a](trials.txt), [b](../../bench/run.txt), [c](https://example.org/x), [d](#top)"
    (stored / "remarks.md").write_text(f"## smnist\n\n{remark}\n")
    wanted = "[a](results/trials.txt), [b](../bench/run.txt), [c](https://example.org/x), [d](#top)"
    assert wanted in page(stored)


def test_the_command_of_a_run_makes_it_again() -> None:
    config = default_config(
        "digits", hidden=(4, 5), tau="uniform(2,20)", options={"hold": 1}, seed=3
    )
    words = shlex.split(train_command(config.to_json()))
    assert words[:5] == ["hetsyn", "train", "digits", "--seed", "3"]
    more = tuple(word for word in words[5:] if word != "--set")
    assert configured("digits", {"seed": 3}, more)[0] == config


def test_a_long_table_is_cut_on_the_page(tmp_path: Path) -> None:
    """And says where the rest is."""
    source = min(STORED.glob("study-cost-*.json"))
    study = json.loads(source.read_text())
    line = {name: study["table"][0][name] for name in ("form", "neurons", "model", "parameters")}
    for count, told in ((40, ""), (42, "2 more rows: [CSV](results/study-x.csv).")):
        table = [{**line, "neurons": 1000 + n} for n in range(count)]
        (raw(tmp_path) / "study-x.json").write_text(json.dumps({**study, "table": table}))
        text = page(tmp_path)
        assert text.count("\n| 10") == 40
        assert ("more rows" in text) == bool(told)
        assert told in text


@pytest.mark.usefixtures("echo")
def test_where_a_study_was_computed_is_not_what_it_is(tmp_path: Path) -> None:
    """Its copy takes the place of that with other threads, names no path, and is another where it
    was computed on another device."""
    docs, copies = tmp_path / "docs", []
    for threads in (1, 2):
        out = tmp_path / f"{threads}"
        run_study("variants", task="echo", seeds=1, jobs=1, models=["homneu"],
                  forms=["recurrent"], threads=threads, epochs=1, out=out)  # fmt: skip
        copies.append(collect(out, docs))
        stored = json.loads(copies[-1].read_text())
        assert stored["settings"]["changes"] == {"epochs": 1}
        assert "threads" not in stored["command"] + stored["size"]
    assert copies[0] == copies[1]
    table = json.loads((out / "table.json").read_text())
    table["environments"][0]["gpu"] = "Big 9"
    (out / "table.json").write_text(json.dumps(table))
    assert collect(out, docs) != copies[0]


def test_a_gpu_is_named_where_it_was_used(tmp_path: Path) -> None:
    source = min(STORED.glob("study-cost-*.json"))
    study = json.loads(source.read_text())
    (place,) = study["environments"]

    def shown(*places: dict[str, Any]) -> str:
        (raw(tmp_path) / "study-x.json").write_text(json.dumps({**study, "environments": places}))
        return paragraph(page(tmp_path), "`hetsyn study cost`")

    assert "cuda" not in shown(place)
    assert f" cores and Big 9, on cuda, {place['date']}." in shown({**place, "gpu": "Big 9"})
    assert " hours summed over cells; machine and date not recorded; " in shown({}, place)


def wide_study(tmp_path: Path, name: str) -> tuple[list[dict[str, Any]], str]:
    """The table of a stored study and the page that shows it alone."""
    source = min(STORED.glob(f"study-{name}-*.json"))
    (raw(tmp_path) / source.name).write_text(source.read_text())
    return json.loads(source.read_text())["table"], page(tmp_path)


def test_one_measure_at_several_levels_has_a_column_per_model(tmp_path: Path) -> None:
    table, text = wide_study(tmp_path, "noise")
    shown = tables(text)[:-1]  # the last one lists machines
    assert sum(len(block) * (len(block[0]) - 1) for block in shown) == len(table)
    kinds = list(dict.fromkeys(row["noise"] for row in table))
    for row in table:
        (line,) = [
            line
            for line in shown[kinds.index(row["noise"])]
            if line["level"] == f"{row['level']:.4g}"
        ]
        mean, deviation = (f"{100 * row[f'accuracy{end}']:.2f}" for end in ("", "_deviation"))
        assert line[f"{row['model']} accuracy"] == f"{mean} ± {deviation} %"
    assert "All columns: [CSV](results/study-noise-" in " ".join(text.split())


def test_a_wide_table_leaves_out_details(tmp_path: Path) -> None:
    """What all rows share is in the heading instead."""
    table, text = wide_study(tmp_path, "cost")
    (head, *_), *_ = tables(text)
    assert len(table[0]) > len(head) == 8
    assert "form: recurrent, threads: 2" in text
    assert not {"threads", "step ms lower quartile", "kept mb / homneu"} & set(head)
    assert "All columns: [CSV](results/study-cost-" in " ".join(text.split())
