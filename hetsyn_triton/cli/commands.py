"""The commands `hetsyn train`, `eval`, `encode` and `info`: arguments and options.

Nothing heavy is imported here, so that help comes at once; a test compares the names written out
in it with those there are. What a command does is the function `run` of the module of its name.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from . import interrupts


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    interrupts.forget()
    try:
        chosen = cli.main(arguments, prog_name="hetsyn", standalone_mode=False)
        return chosen() if callable(chosen) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if interrupts.is_interrupt(error) or isinstance(error, click.Abort):
            interrupts.tell()
            return interrupts.INTERRUPTED
        from .problems import USER_ERRORS, told_by_another

        if not isinstance(error, USER_ERRORS):
            raise
        if told_by_another(error):
            return 2
        click.echo(f"hetsyn: {error}", err=True)
        return 2


def _later(module: str, **given: Any) -> Callable[[], int]:
    """What the command does, to be called when click is done with the arguments."""

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hetsyn-triton")
def cli() -> None:
    """Spiking networks with a learnable time constant at every synapse."""


@cli.command("train", short_help="Train a network, or go on with a run.")
@click.argument("task", required=False)
@click.option(
    "--model",
    metavar="hetsyn|homneu|homneu-adaptive|hetneu",
    help="Which of the four models.",
)
@click.option("--hidden", metavar="N,N,...", help="Neurons of each hidden layer.")
@click.option("--recurrent/--feedforward", default=None, help="Hidden layers with recurrence.")
@click.option("--epochs", type=int, help="Passes through the training data.")
@click.option("--batch-size", type=int, help="Samples for each optimizer step.")
@click.option("--lr", type=float, help="Learning rate of the weights.")
@click.option("--seed", type=int, help="Of all that is drawn (default 0).")
@click.option(
    "--surrogate",
    metavar="triangular|multi-gaussian|atan|fast-sigmoid|superspike|sigmoid",
    help="Gradient of a spike.",
)
@click.option("--dropout", type=float, help="Part of the spikes between layers dropped.")
@click.option(
    "--backend", metavar="auto|triton|cpu|reference", help="Who computes; see hetsyn info."
)
@click.option("--device", help="cpu (default) or cuda.")
@click.option("--threads", type=int, help="CPU threads; by default the task's or PyTorch's choice.")
@click.option("--data-dir", metavar="DIR", callback=_folder, help="Where the task's files are.")
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="Any other setting; may be repeated. A wrong NAME lists those there are.",
)
@click.option(
    "--out", metavar="DIR", callback=_folder, help="Run folder; by default a new one in runs/."
)
@click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    callback=_folder,
    help="Go on with the run in this folder; beside it only --data-dir, --device and --threads.",
)
def train_command(**given: Any) -> Callable[[], int]:
    """Train a network on digits (default), smnist, psmnist, idx, pattern-generation,
    delayed-match, multi-timescale-xor, shd, fsdd, tidigits or ti46.

    The run folder gets the configuration, a line of metrics per epoch, the checkpoint, a summary
    and pictures. What no option says is the task's own default, to be read in config.json;
    docs/tasks.md describes the tasks.
    """
    return _later("train", **given)


@cli.command("eval", short_help="Evaluate a trained run.")
@click.argument("run_folder", metavar="RUN", callback=_folder)
@click.option("--split", metavar="train|validation|test", default="test", show_default=True)
@click.option(
    "--data-dir", metavar="DIR", callback=_folder, help="Where the data is now, if it was moved."
)
@click.option("--device", help="Where to compute, if not where the run was trained.")
@click.option(
    "--weights",
    metavar="last|validation",
    default="last",
    show_default=True,
    help="Of the last checkpoint, or of the best epoch on held-out samples.",
)
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="Another value of one of the task's own settings, such as the noise; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def eval_command(**given: Any) -> Callable[[], int]:
    """Evaluate the run in folder RUN, with its last weights unless --weights says else."""
    return _later("evaluate", **given)


@cli.command("encode", short_help="Draw an audio file as mel bands and spikes.")
@click.argument("file", metavar="FILE")
@click.option("--out", metavar="PNG", required=True, help="The picture to write.")
@click.option("--hop-ms", type=float, help="Length of a step (default 10).")
@click.option("--steps", type=int, help="Steps whose spikes are kept (default 200).")
@click.option(
    "--normalisation",
    metavar="utterance|band|none",
    help="What the highest level is: of all bands, of each, or a full sine (default utterance).",
)
@click.option("--scale", metavar="log|linear", help="Of the levels (default log).")
@click.option("--range-db", type=float, help="From level 0 to 1 where it is log (default 50).")
def encode_command(**given: Any) -> Callable[[], int]:
    """Draw the waveform, mel bands and spikes of an audio FILE, and count the spikes."""
    return _later("encode", **given)


@cli.command("study", short_help="Run a study: many networks, a table and a picture.")
@click.argument("name", metavar="variants|limited-neurons|noise|timescales|time-constants|cost")
@click.option("--task", help="What to train on; by default the study's own choice.")
@click.option("--data-dir", metavar="DIR", callback=_folder, help="Where the task's files are.")
@click.option("--seeds", type=int, help="How many seeds, from 0 on.")
@click.option("--full", is_flag=True, help="The paper's size, not a small one.")
@click.option(
    "--jobs",
    type=int,
    help="Cells side by side, a process each; by default one for each core, on a GPU one.",
)
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of the study, the task or the training; may be repeated. A wrong NAME lists "
    "those there are.",
)
@click.option(
    "--out", metavar="DIR", callback=_folder, help="Study folder; by default runs/study-NAME-TASK."
)
def study_command(**given: Any) -> Callable[[], int]:
    """Run a study: many networks, a table and a picture.

    The same command goes on with a study that was stopped. docs/studies.md describes them.
    """
    return _later("study", **given)


@cli.command("results", short_help="Write docs/results.md from runs and studies.")
@click.argument("folders", metavar="[RUN_OR_STUDY]...", nargs=-1)
@click.option(
    "--docs", metavar="DIR", default="docs", show_default=True, help="Where results.md stands."
)
def results_command(**given: Any) -> Callable[[], int]:
    """Write docs/results.md.

    What counts of each run or study folder given is first copied into docs/results/; without a
    folder the page is written anew from the copies there are.
    """
    return _later("results", **given)


@cli.command("info", short_help="Print versions, devices, and what runs each operator.")
def info_command() -> Callable[[], int]:
    """Print versions, devices, and what runs each operator."""
    return _later("info")
