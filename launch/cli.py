"""The command line: its verbs, and the exit status of each kind of failure.

Exit status: 0 done, 2 wrong request, 3 bad data, 130 interrupted, 1 a defect of modalgate. Verbs import slow modules
inside their functions, so that help answers at once.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from ..shards.errors import DataError, RequestError
from ..shards.media.credentials import masked
from .verbs import config_verbs, data_verbs, deploy_verbs, evaluate_verbs, train_verbs
from .verbs.run_verb import run_verb

_SETTINGS = {"help_option_names": ["-h", "--help"]}
# The base class of command-line errors in the click that typer uses.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="modalgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)
config = typer.Typer(context_settings=_SETTINGS)
config.command("list")(config_verbs.list_shipped)
config.command("show")(config_verbs.show)
config.command("check")(config_verbs.check)
config.command("reference")(config_verbs.reference)

# By panel of the help page, in the order of the work.
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Data": (data_verbs.world, data_verbs.pack, data_verbs.inspect, data_verbs.verify),
    "Train": (
        train_verbs.pretrain,
        train_verbs.finetune,
        train_verbs.study,
        train_verbs.auto,
        train_verbs.demo,
    ),
    "Evaluate": (
        evaluate_verbs.probe,
        evaluate_verbs.compare,
        evaluate_verbs.robustness,
        evaluate_verbs.detect,
        evaluate_verbs.report,
    ),
    "Deploy": (
        deploy_verbs.export,
        deploy_verbs.push,
        deploy_verbs.embed,
        deploy_verbs.predict,
        deploy_verbs.serve,
    ),
}
for _panel, _verbs in _PANELS.items():
    for _verb in _verbs:
        app.command(_verb.__name__, rich_help_panel=_panel)(_verb)
app.add_typer(config, name="config", help="List, show and check configs; explain all keys.", rich_help_panel="Config")


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
    """Runs one command and returns its exit status; a failure prints one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Removed here, because users add it at the end of the command that failed.
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
        hint = "" if debug else "  (rerun with --debug for the traceback)"
        return _leave(f"internal error: {type(error).__name__}: {reason}{hint}", 1, debug)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle_signals() -> dict[signal.Signals, Any]:
    """Makes SIGTERM an interruption, ignores SIGUSR1, and returns the previous handlers.

    Outside the main thread it does nothing. The default of SIGTERM would end this process but not those that it
    started. SIGUSR1, which queue systems send to every process of a job, ends a process that neither handles nor
    ignores it. Processes started from here inherit that it is ignored; the training loop handles it.
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
