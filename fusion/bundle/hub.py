"""The Hugging Face Hub: download and upload the files of a model repository.

The client of the hub handles the token (`hf auth login`, or the variable HF_TOKEN). This code never reads it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...shards.errors import RequestError

# `Path` replaces two slashes by one.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repository>[^@]*)(?:@(?P<revision>.*))?")
# Words between blanks, brackets, quotes, commas and equal signs, and what a network's name starts with.
_WORD = re.compile(r"[^\s,;=()\[\]{}'\"`]+")
_NETWORKS = ("timm/", "torchvision/", "stored/")
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Repository:
    """A repository on the hub.

    name: `owner/name`.
    revision: a branch, a tag or a commit; None: the main branch.
    """

    name: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.revision == "":
            raise RequestError(f"'{self}' is not a repository on the hub: give owner/name, or owner/name@revision")

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision is not None else "")


def find_repository(place: Path | str) -> Repository | None:
    """The repository of an address `hf://owner/name[@revision]`; None if `place` is a path.

    Raises `RequestError` for a malformed address.

    >>> find_repository("hf://owner/name@v1")
    Repository(name='owner/name', revision='v1')
    >>> find_repository("runs/encoder")
    """
    found = _ADDRESS.fullmatch(str(place))
    return Repository(found["repository"], found["revision"]) if found else None


def fetch(place: Path | str, names: Sequence[str]) -> Path:
    """A folder with the files `names`: `place` itself if it is a path, else a download in the hub's cache.

    All files come from one commit. Cached files need no network; `HF_HUB_OFFLINE=1` works too. Raises `RequestError`
    if the hub cannot be reached, and if it has no such repository or revision.
    """
    repository = find_repository(place)
    if repository is None:
        return Path(place)
    from huggingface_hub import snapshot_download

    with _request_errors(repository, "read"):
        found = snapshot_download(
            repository.name, revision=repository.revision, allow_patterns=list(names), library_name="modalgate"
        )
    return Path(found)


def without_paths(facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` about a model with only the last name of every local path: directories may name people and places.

    A word of a `command` with a slash is a path, unless it is an address or a network's name (`timm/resnet18`); in
    other texts only a word that starts at `/`, `~` or a dot.

    >>> without_paths({"command": "modalgate pretrain data.shards=/home/ann/shards", "data": "shards: 9 clips"})
    {'command': 'modalgate pretrain data.shards=shards', 'data': 'shards: 9 clips'}
    """
    return {_last_names(name): _shortened(value, name == "command") for name, value in facts.items()}


def _shortened(value: Any, command: bool) -> Any:
    if isinstance(value, dict):
        return {_last_names(str(name)): _shortened(entry, name == "command") for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(entry, command) for entry in value]
    return _last_names(value, command) if isinstance(value, str) else value


def _last_names(text: str, command: bool = False) -> str:
    def last(found: re.Match[str]) -> str:
        word = found[0]
        path = word.startswith(("/", "~", "./", "../")) or (command and not word.startswith(_NETWORKS))
        return Path(word).name if "/" in word and "://" not in word and path else word

    return _WORD.sub(last, text)


def upload(folder: Path, repository: Repository, *, private: bool = True) -> str:
    """Uploads all files of `folder` in one commit; returns the URL of the commit.

    repository: is created if it does not exist. Its revision is a branch, which is created too.
    private: makes a new repository private; False: public. An existing one stays as it is.

    Raises `RequestError` if the hub cannot be reached or rejects the upload.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="modalgate")
    with _request_errors(repository, "write"):
        api.create_repo(repository.name, private=private, exist_ok=True)
        if repository.revision is not None:
            api.create_branch(repository.name, branch=repository.revision, exist_ok=True)
        files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        done = api.create_commit(
            repository.name, files, commit_message="modalgate push", revision=repository.revision
        )
    return done.commit_url


@contextmanager
def _request_errors(repository: Repository, wish: str) -> Iterator[None]:
    """Converts errors of the hub's client to a `RequestError` with one line on what to do."""
    from huggingface_hub import constants, errors

    # Base class of all connection errors, from httpx or httpx2, depending on the version of the client.
    bases = errors.HfHubHTTPError.__mro__
    unconnected: type[Exception] = next(base for base in bases if base.__name__ == "HTTPError")  # pyright: ignore
    login = f"log in with `hf auth login`, or set HF_TOKEN to a token that may {wish} it"
    try:
        yield
    except errors.GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repository.name}"
        raise RequestError(f"'{repository}' is restricted by its owner: request access at {page}") from error
    except errors.RepositoryNotFoundError as error:
        raise RequestError(
            f"'{repository}' does not exist on {constants.ENDPOINT}, or you have no access: {login}"
        ) from error
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
            cause = "check the network connection"
        cached = " and it is not in the cache" if wish == "read" else ""
        raise RequestError(f"cannot reach {constants.ENDPOINT} for '{repository}'{cached}: {cause}") from error
    except (ValueError, RuntimeError, OSError) as error:
        # A rejected card (with the reasons on further lines), an unexpected answer or a full disk.
        reason = " ".join(line.removeprefix("- ").strip() for line in str(error).splitlines())
        raise RequestError(f"'{repository}': {reason}") from error
