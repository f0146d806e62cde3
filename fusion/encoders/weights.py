"""Initial weights of encoders, published or from a local file, adapted to the number of channels."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import timm
import torch
import torchvision
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ...shards.errors import RequestError
from ..spec import PUBLISHED, ResolvedEncoder

State = Mapping[str, Tensor]


def load_known_weights(network: nn.Module, spec: ResolvedEncoder, channels: int) -> None:
    """Loads the file or the published weights of `spec` into `network`.

    network: to load into, without its classifier.
    spec: without weights, nothing is loaded.
    channels: input channels of `network`. Weights for another number are adapted (see `adapt_channels`).

    Classifier weights are ignored. Raises `RequestError` if the weights cannot be fetched or read, or do not fit the
    network.
    """
    if spec.weights is not None:
        path = Path(spec.weights)
        source, state = f"weights '{path}'", read_weights(path, spec.model)
        if _misfit(network, fitted(network, state, channels)):
            state = _through_timm(network, spec, state) or state
        of = _named_inside(path)
    elif spec.pretrained:
        source, state, of = "the published weights", _published(spec), ""
    else:
        return
    adapted = fitted(network, state, channels)
    if reason := _misfit(network, adapted):
        raise _refusal(source, spec, reason, of)
    needed = network.state_dict()
    network.load_state_dict({key: adapted.get(key, value) for key, value in needed.items()})


def read_weights(path: Path, model: str) -> dict[str, Tensor]:
    """The tensors by name in a .safetensors, .pth or .pt file. No pickled code is run.

    model: the encoder, for error messages.

    Raises `RequestError` if the file is missing or holds anything but tensors.
    """
    if not path.is_file():
        raise RequestError(f"weights file '{path}' for encoder '{model}' does not exist")
    if path.suffix in (".pth", ".pt"):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            raise RequestError(
                f"'{path}' for encoder '{model}' is not a complete PyTorch file of tensors: give a state dict saved "
                "by torch.save or as .safetensors"
            ) from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise RequestError(f"'{path}' for encoder '{model}' does not hold tensors by name: give a state dict")
        return state
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RequestError(f"'{path}' for encoder '{model}' is not a complete safetensors file: {error}") from error


def adapt_channels(weight: Tensor, channels: int, width: int) -> Tensor:
    """The filters of a network's first layer, adapted to another number of input channels.

    weight: (O, C, ...), the filters for C channels.
    channels: the new number of channels.
    width: size of the new channel axis. A multiple of `channels` if the layer first moves pixels into channels.

    Returns (O, width, ...). Each new channel gets the mean filter of the old ones, scaled by old / new channels, so
    that the response to equal channels does not change.

    >>> adapt_channels(torch.ones(1, 3, 1, 1), channels=2, width=2).flatten()
    tensor([1.5000, 1.5000])
    """
    places = width // channels
    grouped = weight.double().unflatten(1, (places, -1))
    total = grouped.sum(dim=2, keepdim=True) / channels
    return total.expand(-1, -1, channels, *weight.shape[2:]).flatten(1, 2).to(weight.dtype)


def fitted(network: nn.Module, state: State, channels: int) -> dict[str, Tensor]:
    """`state` with the filters of the first layer adapted to the `channels` of `network`."""
    adapted, needed = dict(state), network.state_dict()
    for key in stem_weights(network):
        have, want = adapted.get(key), needed.get(key)
        if have is None or want is None or have.shape == want.shape or want.dim() < 4:
            continue
        alone = (have.shape[0], *have.shape[2:]) == (want.shape[0], *want.shape[2:])
        if alone and want.shape[1] % channels == 0 and have.shape[1] % (want.shape[1] // channels) == 0:
            adapted[key] = adapt_channels(have, channels, want.shape[1])
    return adapted


def stem_weights(network: nn.Module) -> list[str]:
    """Names of the weights that read the input: those that timm lists, and the first convolution's."""
    named: Any = getattr(network, "pretrained_cfg", {}).get("first_conv") or ()
    convolutions = (
        name for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Conv3d) and name
    )
    places = ((named,) if isinstance(named, str) else tuple(named)) + tuple([*convolutions][:1])
    return [f"{place}.weight" for place in dict.fromkeys(places)]


def first_difference(needed: State, given: State, spare: Iterable[str] = ()) -> str:
    """Describes the first tensor that is missing, extra or of another shape in `given`; empty if all fit.

    needed: tensors of the network, by name.
    given: tensors to load, by name.
    spare: prefixes of extra tensors that are ignored.

    >>> first_difference({"weight": torch.zeros(2, 3)}, {"weight": torch.zeros(2, 4)})
    "tensor 'weight' is 2 x 4 there and 2 x 3 in the network"
    """
    for key, want in needed.items():
        if key not in given:
            if key.endswith("num_batches_tracked"):
                continue  # a counter that older files lack and evaluation does not use
            return f"tensor '{key}' ({_shape(want)}) is missing"
        if given[key].shape != want.shape:
            return f"tensor '{key}' is {_shape(given[key])} there and {_shape(want)} in the network"
    strange = [key for key in given if key not in needed and not key.startswith(tuple(spare))]
    return f"tensor '{strange[0]}' ({_shape(given[strange[0]])}) is not in the network" if strange else ""


def _misfit(network: nn.Module, state: State) -> str:
    named: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    spare = {"head", "fc", "classifier", *((named,) if isinstance(named, str) else named)}
    return first_difference(network.state_dict(), state, spare)


def _refusal(source: str, spec: ResolvedEncoder, reason: str, of: str = "") -> RequestError:
    built = f"'{spec.model}'" + (f" with the arguments {spec.arguments}" if spec.arguments else "")
    if of and of != spec.model:
        right = f"they are weights of '{of}': set 'model' to it, or give other weights"
    else:
        right = "give weights of that network, or set 'model' and 'arguments' to those of the weights"
    return RequestError(f"{source} do not fit encoder {built}: {reason}; {right}")


def _named_inside(path: Path) -> str:
    """The network recorded in a file from `modalgate export --modality`; empty if none is recorded."""
    if path.suffix in (".pth", ".pt"):
        return ""
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("model", "")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _published(spec: ResolvedEncoder) -> State:
    family, _, name = spec.model.partition("/")
    if family == "timm":
        return _published_by_timm(name, spec)
    published = torchvision.models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return published.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise _unfetched(spec.model, _host(published.url), error) from error


def _published_by_timm(name: str, spec: ResolvedEncoder) -> State:
    own: dict[str, Any] = {key: value for key, value in spec.arguments.items() if key in PUBLISHED}
    configured: Any = timm.get_pretrained_cfg(name)
    place = "the given address"
    if not own:
        if configured is None or not configured.has_weights:
            raise RequestError(
                f"timm publishes no weights of '{spec.model}': give weights: FILE, or choose a model of "
                "timm.list_models(pretrained=True)"
            )
        place = constants.ENDPOINT if configured.hf_hub_id else _host(configured.url)
        if cached := _cached(configured):
            own = {"pretrained_cfg_overlay": {"file": cached}}
        else:
            _check_reachable(spec.model, place)
    try:
        # Built with the original channels and classifier, because timm then requires every tensor.
        return timm.create_model(name, pretrained=True, **(spec.arguments | own)).state_dict()
    except Exception as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise _unfetched(spec.model, place, error) from error
    # The network as published: the caller then reports which tensor differs.
    return timm.create_model(name, pretrained=True, **own).state_dict()


def _cached(configured: Any) -> str | None:
    """The file of an earlier download from the hub, if it is in the cache."""
    if not configured.hf_hub_id or configured.hf_hub_filename or configured.custom_load:
        return None
    repository, _, revision = configured.hf_hub_id.partition("@")
    found = try_to_load_from_cache(repository, "model.safetensors", revision=revision or None)
    return found if isinstance(found, str) else None


def _check_reachable(model: str, place: str) -> None:
    """Raises `RequestError` if `place` cannot be reached. The hub's client would first retry for most of a minute."""
    if constants.HF_HUB_OFFLINE:
        raise _unfetched(model, place, ConnectionError("HF_HUB_OFFLINE is set"))
    try:
        urlopen(Request(place, method="HEAD"), timeout=10)
    except HTTPError as error:
        if error.code >= 500:
            raise _unfetched(model, place, error) from error
    except OSError as error:
        if not isinstance(getattr(error, "reason", None), SSLError):  # the client may have other certificates
            raise _unfetched(model, place, error) from error


def _host(url: str) -> str:
    return f"https://{urlsplit(url).netloc}"


def _unfetched(model: str, place: str, error: Exception) -> RequestError:
    reason = " ".join(str(error).split())[:160].strip("<> .:") or type(error).__name__
    return RequestError(
        f"cannot fetch the published weights of '{model}' from {place} ({reason}): connect to the network, or give "
        "a local copy as weights: FILE"
    )


def _through_timm(network: nn.Module, spec: ResolvedEncoder, state: State) -> State | None:
    """The weights converted by timm's loader, which handles older names and other image sizes; None if it fails."""
    family, _, name = spec.model.partition("/")
    if family != "timm":
        return None
    named: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    head = next((k for k in ((named,) if isinstance(named, str) else named) if f"{k}.weight" in state), None)
    classes = 0 if head is None else len(state[f"{head}.weight"])
    # With the number of classes of the file, timm requires every tensor.
    overlay = {"state_dict": dict(state), "num_classes": classes, "label_offset": 0, "custom_load": False}
    try:
        read = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **spec.arguments)
    except Exception:
        return None
    return read.state_dict()
