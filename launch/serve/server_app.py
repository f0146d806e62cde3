"""The server of one model: its page, and the same as JSON over HTTP."""

import errno
import math
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from ...fusion.bundle.bundle_files import CARD
from ...fusion.bundle.model_card import card_sections
from ...fusion.classifier import Classifier
from ...shards.errors import DataError, RequestError, choice_error
from ...shards.modality import modality, sources_of
from ...tasks.report.style import PALETTE, colours_of
from ..predict.predicting import deployed_bundle
from ..runs.bundles import find_bundle
from .answer import NDJSON, STOPPED, Deferred, Service, answer
from .http_guard import Guard, refusal
from .score_stream import Limits, Wish
from .serve_schema import Colours, Health, ModelFacts, Refused, Role, Scored
from .uploads import Crowded, Stalled, TooLarge
from .waiting_queue import Full, Stopping, Turns

RETRY_SECONDS = 10
_REFUSED: dict[str, Any] = {"model": Refused}


def open_service(
    model: Path,
    folder: Path,
    *,
    max_mb: int,
    queue: int,
    log: Callable[[str], None],
    limits: Limits | None = None,
) -> Service:
    """Loads the model. Raises `RequestError` for an encoder without classes, for weights that are not finite, and
    what `load_bundle` raises.
    """
    limits = limits or Limits()
    path = find_bundle(model)
    bundle = deployed_bundle(model)
    if not isinstance(bundle.model, Classifier):
        raise RequestError(f"'{model}' is an encoder without classes: give a bundle from `modalgate finetune`")
    if not all(bool(value.isfinite().all()) for value in bundle.model.parameters()):
        raise RequestError(f"'{model}' has NaN or infinite weights and cannot score")
    card = card_sections((path / CARD).read_text(encoding="utf-8"))
    names, classes = list(bundle.backbone.modalities), list(bundle.model.classes)
    # Every modality but colour pictures may also come in a separate file.
    sources = sources_of(names)
    roles = [Role(name="video", kind="video")] if {"rgb", "audio"} & set(sources) else []
    roles += [Role(name=name, kind=modality(name).kind) for name in sources if name != "rgb"]
    given = dict(zip(names, colours_of(names), strict=True))
    application = bundle.application
    facts = ModelFacts(
        name=model.resolve().name,
        task=bundle.task,
        classes=classes,
        positive=bundle.positive,
        modalities=names,
        roles=roles,
        fusion=bundle.backbone.spec.fusion,
        window_seconds=bundle.spec.seconds,
        views=application.views,
        piece_seconds=application.piece,
        hop_seconds=application.hop,
        whole_seconds=application.whole,
        threshold=application.threshold,
        max_mb=max_mb,
        max_seconds=limits.max_seconds,
        metrics={name: value for name, value in bundle.metrics.items() if math.isfinite(value)},
        licence=bundle.licence,
        intended_use=card.get("Intended use", ""),
        limits=card.get("Limits", ""),
        colours=Colours(
            palette=[colour for colour in PALETTE if colour not in given.values()],
            modalities=given,
        ),
    )
    return Service(bundle, facts, Turns(queue), folder, log, limits)


def create_app(service: Service, host: str = "127.0.0.1") -> FastAPI:
    """The application; `host`: the address it listens on, also a valid name."""
    page = Path(__file__).with_name("serve.html").read_text(encoding="utf-8")
    # The usual documentation page loads scripts from other servers; its content is at /openapi.json.
    app = FastAPI(
        title="modalgate serve", description=f"Scores of {service.facts.name}", docs_url=None, redoc_url=None
    )
    app.add_middleware(Guard, host=host, policy=content_policy(page))
    _handle_errors(app, service)

    @app.get("/", response_class=HTMLResponse)
    async def show_page() -> str:
        """The page."""
        return page

    @app.get("/health")
    async def health() -> Health:
        """Whether the server runs and how busy it is."""
        turns = service.turns
        waiting = turns.admitted - int(turns.busy)
        return Health(status="ok", predicting=turns.busy, waiting=waiting, free=turns.places - turns.admitted)

    @app.get("/model")
    async def model() -> ModelFacts:
        """The model and its purpose."""
        return service.facts

    forms = {role.name: {"type": "string", "format": "binary"} for role in service.facts.roles}
    body = {
        "multipart/form-data": {"schema": {"type": "object", "properties": forms}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }

    @app.post(
        "/predict",
        response_model=None,
        responses={
            200: {"model": Scored, "content": {NDJSON: {}}},
            **dict.fromkeys((400, 408, 413, 422, 503, 507), _REFUSED),
        },
        openapi_extra={"requestBody": {"content": body, "required": True}},
    )
    async def predict(
        request: Request,
        hop: Annotated[
            float | None,
            Query(
                ge=0.01,
                allow_inf_nan=False,
                description="Seconds between pieces. Default: as evaluated.",
            ),
        ] = None,
        frames: Annotated[int, Query(ge=0, le=24, description="Number of pictures of the highest scores.")] = 6,
        class_name: Annotated[
            str | None,
            Query(alias="class", description="Class of these scores. Default: the positive class, or any."),
        ] = None,
        name: Annotated[str | None, Query(description="Name of a file sent as a plain body.")] = None,
    ) -> Response:
        """Scores a recording: a form with its files, or one file as the body. With `Accept: application/x-ndjson`
        lines are sent as they are computed.
        """
        if class_name is not None and class_name not in service.facts.classes:
            raise choice_error("class of this model", class_name, service.facts.classes)
        wish = Wish(hop, frames, class_name or service.facts.positive)
        return Deferred(lambda request, send: answer(service, request, send, wish, name))

    return app


def content_policy(page: str) -> str:
    """The Content-Security-Policy of a page that may use only its own style and script."""
    allowed = {
        f"{tag}-src": " ".join(
            f"'sha256-{_digest(text)}'" for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        )
        for tag in ("script", "style")
    }
    rules = ["default-src 'none'", *(f"{name} {hashes}" for name, hashes in allowed.items())]
    rules += ["connect-src 'self'", "img-src data:", "media-src blob:"]
    rules += ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    return "; ".join(rules)


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _handle_errors(app: FastAPI, service: Service) -> None:
    """Makes every failure one line: `{"error": line}`."""

    def answer_with(status: int, line: str | None = None, headers: dict[str, str] | None = None) -> Any:
        return lambda request, error: refusal(status, line or str(error), headers)

    limit = f"the recording has more than {service.facts.max_mb} MB: send a shorter one, or serve with --max-mb"
    full = f"{service.turns.places - 1} recordings wait already, the most allowed: try again later"
    app.add_exception_handler(RequestError, answer_with(400))
    app.add_exception_handler(DataError, answer_with(422))
    app.add_exception_handler(TooLarge, answer_with(413, limit))
    app.add_exception_handler(Stalled, answer_with(408))
    app.add_exception_handler(Crowded, answer_with(503, None, {"retry-after": str(RETRY_SECONDS)}))
    app.add_exception_handler(Full, answer_with(503, full, {"retry-after": str(RETRY_SECONDS)}))
    app.add_exception_handler(Stopping, answer_with(503, STOPPED))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refusal(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return refusal(
            error.status_code, f"{request.method} {request.url.path}: {error.detail}", dict(error.headers or {})
        )

    @app.exception_handler(OSError)
    async def no_room(request: Request, error: OSError) -> Response:
        service.log(f"error: a recording could not be stored: {error.strerror}")
        return refusal(
            507 if error.errno == errno.ENOSPC else 500, f"the recording could not be stored: {error.strerror}"
        )

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        reason = (str(error).strip() or "no message").splitlines()[0]
        service.log(f"internal error: {type(error).__name__}: {reason}")
        return refusal(500, f"internal error: {type(error).__name__}")
