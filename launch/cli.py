"""The command line: verbs, and how each kind of failure leaves.

Exit status: 0 done, 2 the request is wrong, 3 the data is bad, 130 interrupted, 1 a defect of ours. Whatever a verb
needs that is slow to import is imported inside it, so that help answers at once.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..shards.errors import DataError, RequestError
from ..shards.media.credentials import masked
from .verbs import (
    config_verb,
    data_verbs,
    detect_verb,
    embed_verb,
    evaluate_verbs,
    export_verb,
    push_verb,
    serve_verb,
    train_verbs,
    use_verbs,
)
from .verbs.run_verb import run_verb
from .whole_way import auto, demo

_SETTINGS = {"help_option_names": ["-h", "--help"]}
# The base of all that can be wrong with a command line, in the click that typer uses.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="modalgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)
config = typer.Typer(context_settings=_SETTINGS)
config.command("list")(config_verb.list_shipped)
config.command("show")(config_verb.show)
config.command("check")(config_verb.check)
config.command("reference")(config_verb.reference)

app.command("auto")(auto.auto)
app.command("demo")(demo.demo)
app.command("world")(data_verbs.world)
app.command("pack")(data_verbs.pack)
app.command("inspect")(data_verbs.inspect)
app.command("verify")(data_verbs.verify)
app.command("pretrain")(train_verbs.pretrain)
app.command("probe")(use_verbs.probe)
app.command("finetune")(train_verbs.finetune)
app.command("study")(train_verbs.study)
app.command("export")(export_verb.export)
app.command("push")(push_verb.push)
app.command("embed")(embed_verb.embed)
app.command("predict")(use_verbs.predict)
app.command("detect")(detect_verb.detect)
app.command("serve")(serve_verb.serve)
app.command("report")(use_verbs.report)
app.command("compare")(evaluate_verbs.compare)
app.command("robustness")(evaluate_verbs.robustness)
app.add_typer(config, name="config", help="List, show and check configs; explain every key.")


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"modalgate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Self-supervised multimodal pretraining on unlabelled video, with gated fusion."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status and leaves one line on standard error where it failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Taken out here, because a person adds it at the end of the command that failed.
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    before = _handle_signals()
    try:
        return run_verb(app, given)
    except (KeyboardInterrupt, typer.Abort):
        return _leave("interrupted", 130, debug)
    except RequestError as error:
        return _leave(f"error: {error}", 2, debug)
    except DataError as error:
        return _leave(f"error: {error}", 3, debug)
    except _UsageError as error:
        return _leave(f"error: {error.format_message()}{_where(error)}", 2, debug)  # pyright: ignore
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        hint = "" if debug else "  (run again with --debug for the traceback)"
        return _leave(f"internal error: {type(error).__name__}: {reason}{hint}", 1, debug)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle_signals() -> dict[signal.Signals, Any]:
    """Makes SIGTERM an interruption, ignores SIGUSR1, and returns the handlers before; none outside the main thread.

    SIGTERM would end this process alone, not those that it started work on. SIGUSR1, which queue systems send to
    every process of a job, ends whoever neither handles nor ignores it; what is ignored here stays ignored in all
    processes started from here, and the training loop handles it.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt),
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    }


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _where(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f" (see `{context.command_path} --help`)" if context is not None else ""


def _leave(line: str, status: int, debug: bool) -> int:
    if debug:
        print(masked(traceback.format_exc()), end="", file=sys.stderr)
    print(masked(line), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
