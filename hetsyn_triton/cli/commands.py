"""What `hetsyn train`, `hetsyn eval` and `hetsyn info` do."""

import json
from typing import Any

import click
import torch
from rich.console import Console

from hetsyn_triton.modules import MODELS
from hetsyn_triton.ops.backends import BACKENDS, backend_info
from hetsyn_triton.surrogates import SURROGATES
from hetsyn_triton.tasks import SPLITS, TASKS, DataError, task_class
from hetsyn_triton.training import (
    CheckpointError,
    ConfigError,
    NonFiniteError,
    RunFolderError,
    TrainConfig,
    default_config,
    environment,
    evaluate,
    load_run,
    resume,
    train,
)

from . import INTERRUPTED
from .progress import RichReporter, metrics_table

USER_ERRORS = (ConfigError, RunFolderError, CheckpointError, DataError)


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = cli.main(arguments, prog_name="hetsyn", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except USER_ERRORS as error:
        click.echo(f"hetsyn: {error}", err=True)
        return 2
    return result if isinstance(result, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hetsyn-triton")
def cli() -> None:
    """Spiking networks with a learnable time constant at every synapse."""


@cli.command("train")
@click.argument("task", required=False)
@click.option("--model", metavar="|".join(MODELS), help="Which of the four models.")
@click.option("--hidden", metavar="N,N,...", help="Neurons of each hidden layer.")
@click.option("--recurrent/--feedforward", default=None, help="Hidden layers with recurrence.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--lr", type=float, help="Learning rate of the weights.")
@click.option("--seed", type=int)
@click.option("--surrogate", metavar="|".join(SURROGATES), help="Gradient of a spike.")
@click.option("--dropout", type=float, help="Part of the spikes between layers dropped.")
@click.option("--backend", metavar="|".join(BACKENDS), help="Who computes; see hetsyn info.")
@click.option("--device", help="cpu (default) or cuda.")
@click.option("--threads", type=int, help="CPU threads; by default the task's or PyTorch's choice.")
@click.option("--data-dir", metavar="DIR", help="Where the task's data files are.")
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="Any other setting; may be repeated. A wrong NAME lists those there are.",
)
@click.option("--out", metavar="DIR", help="Run folder; by default a new one in runs/.")
@click.option("--resume", "resumed", metavar="RUN", help="Go on with the run in this folder.")
def train_command(
    task: str | None,
    hidden: str | None,
    more: tuple[str, ...],
    out: str | None,
    resumed: str | None,
    **given: Any,
) -> int:
    """Train a network on TASK: digits (default), smnist or pattern-generation.

    The run folder gets the configuration, a line of metrics per epoch, the checkpoint, a summary
    and pictures.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if hidden is not None:
        given["hidden"] = _sizes(hidden)
    console = Console()
    reporter = RichReporter(console)
    try:
        if resumed is None:
            config = _configured(task or "digits", given, more)
            train(config, out, reporter=reporter)
        else:
            data_dir = given.pop("data_dir", None)
            if given or more or out is not None or task is not None:
                raise ConfigError(
                    "resume: expected no setting beside it but --data-dir; "
                    "the run's own configuration holds"
                )
            resume(resumed, data_dir=data_dir, reporter=reporter)
    except KeyboardInterrupt:
        reporter.stopped("Stopped.")
        return INTERRUPTED
    except NonFiniteError as error:
        reporter.stopped(f"hetsyn: {error}; training cannot go on.", error=True)
        return 1
    finally:
        reporter.close()
    return 0


@cli.command("eval")
@click.argument("run_folder", metavar="RUN")
@click.option("--split", metavar="|".join(SPLITS), default="test", show_default=True)
@click.option("--data-dir", metavar="DIR", help="Where the data is now, if it was moved.")
@click.option("--device", help="Where to compute, if not where the run was trained.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def eval_command(
    run_folder: str, split: str, data_dir: str | None, device: str | None, as_json: bool
) -> None:
    """Evaluate the last checkpoint of the run in folder RUN."""
    found = load_run(run_folder, data_dir=data_dir, device=device)
    values = evaluate(found, split)
    if as_json:
        click.echo(json.dumps({"split": split, "epoch": found.epoch, **values}))
        return
    title = f"{found.config.task}, {found.config.model}, {split}, after epoch {found.epoch}"
    Console().print(metrics_table(title, values))


@cli.command("info")
def info_command() -> None:
    """Print versions, devices, and which implementation each operator uses."""
    for name, value in environment().items():
        click.echo(f"{name:14} {'not installed' if value is None else value}")
    click.echo(f"{'cuda devices':14} {torch.cuda.device_count() or 'none'}")
    _print_operators("cpu")
    for index in range(torch.cuda.device_count()):
        click.echo(f"\ncuda:{index} is {torch.cuda.get_device_name(index)}")
        _print_operators(f"cuda:{index}")


def _print_operators(device: str) -> None:
    """Operators on `device` by the implementation `auto` chooses, and why it is no other."""
    click.echo(f"\non {device}, where backend is auto:")
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for info in backend_info(device).operators:
        groups.setdefault((info.chosen, tuple(info.others.items())), []).append(info.operator)
    for (chosen, others), operators in groups.items():
        names = click.wrap_text(", ".join(operators), 90, "      ", "      ")
        click.echo(f"  {chosen} runs\n{names}")
        for other, reason in others:
            click.echo(f"    not the {other}: {reason}")


def _configured(task: str, given: dict[str, Any], more: tuple[str, ...]) -> TrainConfig:
    """The task's settings, changed by options and by --set; ConfigError for an unknown name."""
    options: dict[str, Any] = {}
    known = task_class(task).options if task in TASKS else {}
    for text in more:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"set: expected NAME=VALUE, got {text!r}")
        target = options if name in known else given
        target[name] = _sizes(value) if name == "hidden" else _value(value)
    return default_config(task, **given, options=options)


def _value(text: str) -> Any:
    """Text as the JSON value it is, else as itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"hidden: expected positive integers as in 64,64, got {text!r}") from None
