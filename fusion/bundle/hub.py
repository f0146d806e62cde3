"""The Hugging Face Hub: files of a model repository, fetched into its cache or committed to it.

The client handles the token (`hf auth login`, or the variable HF_TOKEN); it is not read, passed or written here.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...shards.errors import RequestError

# `Path` replaces two slashes by one.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repository>[^@]*)(?:@(?P<revision>.*))?")
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Repository:
    """`owner/name` on the hub, at a `revision` (a branch, a tag or a commit), by default its main branch."""

    name: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.revision == "":
            raise RequestError(f"'{self}' is not a repository of the hub: give owner/name, or owner/name@revision")

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision is not None else "")


def find_repository(place: Path | str) -> Repository | None:
    """The repository of `hf://owner/name[@revision]`; none if `place` is a path.

    Raises `RequestError` if it begins with `hf://` and has another form.
    """
    found = _ADDRESS.fullmatch(str(place))
    return Repository(found["repository"], found["revision"]) if found else None


def fetch(place: Path | str, names: Sequence[str]) -> Path:
    """A folder with the files `names`: `place` itself, or a repository's folder in the hub's cache.

    All files are of one commit. Cached files need no network, also under `HF_HUB_OFFLINE=1`. Raises `RequestError` if
    the repository, its revision or the hub cannot be reached.
    """
    repository = find_repository(place)
    if repository is None:
        return Path(place)
    from huggingface_hub import snapshot_download

    with _told(repository, "read"):
        found = snapshot_download(
            repository.name, revision=repository.revision, allow_patterns=list(names), library_name="modalgate"
        )
    return Path(found)


def upload(folder: Path, repository: Repository, *, private: bool = False) -> str:
    """Commits all files of `folder` to `repository`, made where it is not there; returns the commit's URL.

    One commit: whoever loads meanwhile gets the old files or the new. The revision is a branch, made where it is not
    there; `private` counts for a new repository. Raises `RequestError` where the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="modalgate")
    with _told(repository, "write"):
        api.create_repo(repository.name, private=private or None, exist_ok=True)
        if repository.revision is not None:
            api.create_branch(repository.name, branch=repository.revision, exist_ok=True)
        files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        done = api.create_commit(
            repository.name, files, commit_message="modalgate push", revision=repository.revision
        )
    return done.commit_url


@contextmanager
def _told(repository: Repository, wish: str) -> Iterator[None]:
    """Turns errors of the hub's client into a `RequestError` of one line that says what to do."""
    from huggingface_hub import constants, errors

    # The client's own base for whatever a connection raises, of httpx or httpx2 by the hub's version.
    bases = errors.HfHubHTTPError.__mro__
    unconnected: type[Exception] = next(base for base in bases if base.__name__ == "HTTPError")  # pyright: ignore
    login = f"log in by `hf auth login`, or set HF_TOKEN to a token that may {wish} it"
    try:
        yield
    except errors.GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repository.name}"
        raise RequestError(f"'{repository}' is restricted by its owner: request access at {page}") from error
    except errors.RepositoryNotFoundError as error:
        raise RequestError(f"no '{repository}' on {constants.ENDPOINT}, or you have no access: {login}") from error
    except errors.RevisionNotFoundError as error:
        raise RequestError(f"'hf://{repository.name}' has no revision '{repository.revision}'") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise RequestError(f"{constants.ENDPOINT} does not let you {wish} '{repository}': {login}") from error
        reason = error.server_message or str(error).splitlines()[0]
        raise RequestError(f"{constants.ENDPOINT} answered {status} for '{repository}': {reason}") from error
    except (unconnected, errors.LocalEntryNotFoundError, ConnectionError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, errors.OfflineModeIsEnabled):
            cause = "HF_HUB_OFFLINE is set"
        elif isinstance(cause, errors.HfHubHTTPError):
            cause = f"it answered {cause.response.status_code}"
        else:
            cause = "is the network there?"
        cached = " and it is not in the cache" if wish == "read" else ""
        raise RequestError(f"cannot reach {constants.ENDPOINT} for '{repository}'{cached}: {cause}") from error
    except (ValueError, RuntimeError, OSError) as error:
        # A card that it refuses, with its reasons in further lines; an answer of another kind; a full disk.
        reason = " ".join(line.removeprefix("- ").strip() for line in str(error).splitlines())
        raise RequestError(f"'{repository}': {reason}") from error
