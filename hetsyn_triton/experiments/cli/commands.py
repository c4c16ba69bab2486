"""The commands of `hetsyn`, with their arguments and options.

This module imports nothing heavy, so that help is fast. A test compares the names written out in
the help texts with the names that exist. The function `run` of each command's module does the work.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import click

from . import interrupts

HYPHEN = "\N{NON-BREAKING HYPHEN}"

HELP = """Train and study spiking networks with one time constant per synapse.

\b
Examples:
  hetsyn train digits --epochs 5
  hetsyn eval runs/digits-hetsyn-s0
  hetsyn study variants --task digits
"""

TRAIN = """Train a network on TASK, or resume a run.

TASK is digits (default), smnist, psmnist, idx, pattern-generation, delayed-match,
multi-timescale-xor, shd, fsdd, tidigits or ti46. The file docs/tasks.md describes the tasks.

A run folder contains settings, metrics, checkpoint, summary and pictures. Each task has its own
default settings, which `hetsyn settings TASK` lists. config.json records every setting of the run.

\b
Examples:
  hetsyn train digits --hidden 128,64
  hetsyn train delayed-match --set delay=400
  hetsyn train --resume runs/digits-hetsyn-s0
"""

STUDY = """Run a study: train many networks, then write a table and a picture.

NAME is variants, limited-neurons, noise, timescales, time-constants or cost. The same command
resumes a study that was stopped. The file docs/studies.md describes the studies.

\b
Examples:
  hetsyn study variants --task digits
  hetsyn study noise --set deletion=0,0.1,0.5
  hetsyn study cost --set sizes=64,256
"""


def run(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    interrupts.forget()
    try:
        chosen = cli.main(arguments, prog_name="hetsyn", standalone_mode=False)
        return chosen() if callable(chosen) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as error:  # of click and rich, when nobody reads the output any more
        if error.code == 1:
            raise BrokenPipeError from None
        raise
    except (Exception, KeyboardInterrupt) as error:
        if interrupts.is_interrupt(error) or isinstance(error, click.Abort):
            interrupts.tell()
            return interrupts.INTERRUPTED
        from .user_errors import in_words, reported_by_first_rank

        line = None if isinstance(error, BrokenPipeError) else in_words(error)
        if line is None:
            raise
        if not reported_by_first_rank(error):
            click.echo(f"hetsyn: {line}", err=True)
        return 2


def _later(module: str, **given: Any) -> Callable[[], int]:
    """Return the action of a command, to be called after click has read the arguments."""

    def action() -> int:
        command = import_module(f"{__package__}.{module}")
        interrupts.loaded()
        code: int = command.run(**given)
        return code

    return action


def _folder(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("expected a folder's name, got ''")
    return value


class _Formatter(click.HelpFormatter):
    """Break no line at a hyphen, so that names such as delayed-match stay whole."""

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], *args: int, **options: int) -> None:
        whole = [(first, second.replace("-", HYPHEN)) for first, second in rows]
        super().write_dl(whole, *args, **options)

    def getvalue(self) -> str:
        return super().getvalue().replace(HYPHEN, "-")


class _Context(click.Context):
    formatter_class = _Formatter


class _Command(click.Command):
    context_class = _Context


class _Group(click.Group):
    context_class = _Context
    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, help=HELP)
@click.version_option(package_name="hetsyn-triton")
def cli() -> None:
    """Group the commands."""


@cli.command("train", short_help="Train a network, or resume a run.", help=TRAIN)
@click.argument("task", required=False)
@click.option(
    "--model",
    metavar="NAME",
    help="Neuron model: hetsyn (default), homneu, homneu-adaptive or hetneu.",
)
@click.option("--hidden", metavar="N,N,...", help="Number of neurons in each hidden layer.")
@click.option(
    "--recurrent/--feedforward", default=None, help="Use or omit recurrent hidden synapses."
)
@click.option("--epochs", type=int, help="Number of passes through the training data.")
@click.option("--batch-size", type=int, help="Number of samples per optimizer step.")
@click.option("--lr", type=float, help="Learning rate of the weights.")
@click.option("--seed", type=int, help="Random seed (default: 0).")
@click.option(
    "--surrogate",
    metavar="NAME",
    help="Surrogate gradient of a spike: triangular, multi-gaussian, atan, fast-sigmoid, "
    "superspike or sigmoid.",
)
@click.option("--dropout", type=float, help="Probability of dropping a spike between layers.")
@click.option(
    "--backend",
    metavar="NAME",
    help="Backend of the operators: auto (default), triton, cpu or reference; see `hetsyn info`.",
)
@click.option("--device", metavar="NAME", help="Device: cpu (default), cuda or cuda:N.")
@click.option(
    "--threads", type=int, help="Number of CPU threads. The task or PyTorch sets the default."
)
@click.option("--data-dir", metavar="DIR", callback=_folder, help="Folder of the task's files.")
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="Change any setting; may be repeated. `hetsyn settings` lists them.",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    help="JSON file with settings, such as config.json of a run. Options and --set override it.",
)
@click.option(
    "--out",
    metavar="DIR",
    callback=_folder,
    help="Folder of the new run (default: a new folder in runs/).",
)
@click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    callback=_folder,
    help="Resume the run in this folder. It keeps its settings; only --data-dir, --device and "
    "--threads can be changed.",
)
def train_command(**given: Any) -> Callable[[], int]:
    """Return the action of `hetsyn train`."""
    return _later("train", **given)


@cli.command("eval", short_help="Evaluate a trained network.")
@click.argument("run_folder", metavar="RUN", callback=_folder)
@click.option(
    "--split",
    metavar="NAME",
    default="test",
    help="Samples to evaluate: train, validation or test (default).",
)
@click.option(
    "--data-dir", metavar="DIR", callback=_folder, help="Folder of the data, if it was moved."
)
@click.option("--device", metavar="NAME", help="Device (default: the device of the training).")
@click.option(
    "--weights",
    metavar="NAME",
    default="last",
    help="Weights to load: last (default) for the last checkpoint, or validation for the best "
    "epoch on held-out samples.",
)
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="Change a setting of the task, such as its noise; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def eval_command(**given: Any) -> Callable[[], int]:
    """Evaluate the trained network in the run folder RUN."""
    return _later("evaluate", **given)


@cli.command("encode", short_help="Draw the spikes of an audio file.")
@click.argument("file", metavar="FILE")
@click.option("--out", metavar="PNG", required=True, help="File of the picture.")
@click.option("--hop-ms", type=float, help="Length of a step in ms (default: 10).")
@click.option("--steps", type=int, help="Number of steps to keep (default: 200).")
@click.option(
    "--normalization",
    metavar="NAME",
    help="NAME is utterance (default), band or none. Level 1 is, respectively, the maximum of the "
    "utterance, the maximum of each band, or the level of a sine of amplitude 1.",
)
@click.option("--scale", metavar="NAME", help="Scale of the levels: log (default) or linear.")
@click.option("--range-db", type=float, help="Range of a log scale in dB (default: 50).")
def encode_command(**given: Any) -> Callable[[], int]:
    """Draw the waveform, mel bands and spikes of the audio FILE, and count the spikes."""
    return _later("encode", **given)


@cli.command("study", short_help="Run a study that compares many networks.", help=STUDY)
@click.argument("name", metavar="NAME")
@click.option("--task", metavar="NAME", help="Task to train on. Each study has its own default.")
@click.option("--data-dir", metavar="DIR", callback=_folder, help="Folder of the task's files.")
@click.option("--seeds", type=int, help="Number of seeds; the first seed is 0.")
@click.option(
    "--full",
    is_flag=True,
    help="Run the full study, at the paper's size where it has one (default: a small study).",
)
@click.option(
    "--jobs",
    type=int,
    help="Number of cells (usually one network each) to train in parallel (default: one per core, "
    "or one on a GPU).",
)
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="Change a setting of the study, the task or the training; may be repeated. The error for "
    "an unknown NAME lists all names.",
)
@click.option(
    "--out",
    metavar="DIR",
    callback=_folder,
    help="Study folder (default: runs/study-NAME-TASK, with -full if --full).",
)
def study_command(**given: Any) -> Callable[[], int]:
    """Return the action of `hetsyn study`."""
    return _later("study", **given)


@cli.command("settings", short_help="List the settings of a task.")
@click.argument("task", default="digits")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON schema of --config files.")
def settings_command(**given: Any) -> Callable[[], int]:
    """List all settings of TASK (default: digits) with default and meaning."""
    return _later("list_settings", **given)


@cli.command("info", short_help="Print versions, devices and backends.")
def info_command() -> Callable[[], int]:
    """Print versions, devices and the backend that runs each operator."""
    return _later("info")
