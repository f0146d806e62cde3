"""Types of the server's answers; the description at /openapi.json is made from them."""

from typing import Literal

from pydantic import BaseModel, Field


class Role(BaseModel):
    """A file of a recording: its form field and its content."""

    name: str
    kind: str


class Colours(BaseModel):
    """Colours of charts: a fixed one for each modality, and the remaining `palette` for classes."""

    palette: list[str]
    modalities: dict[str, str]


class ModelFacts(BaseModel):
    """The model and its purpose, from its bundle and its model card.

    A recording of at most `whole_seconds` is one clip: its score is the mean of `views` windows of `window_seconds`
    spread over it. A longer one is scored the same way in pieces of `piece_seconds`, one every `hop_seconds`.
    """

    name: str
    task: str | None
    classes: list[str]
    positive: str | None
    modalities: list[str]
    roles: list[Role]
    fusion: str
    window_seconds: float
    views: int
    piece_seconds: float
    hop_seconds: float
    whole_seconds: float
    threshold: float | None
    max_mb: int
    max_seconds: float
    metrics: dict[str, float]
    licence: str | None
    intended_use: str
    limits: str
    colours: Colours


class Health(BaseModel):
    """Whether a prediction runs, how many wait, and how many more recordings are accepted."""

    status: Literal["ok"]
    predicting: bool
    waiting: int
    free: int


class Frame(BaseModel):
    """A window of high score; `image`: its middle picture, a data URL of a JPEG."""

    start: float
    end: float
    time: float
    class_name: str = Field(alias="class")
    score: float
    image: str | None


class Window(BaseModel):
    """A piece of the recording; `whole`: it is the whole recording; `calibrated`: the model has a temperature."""

    start: float
    end: float
    probabilities: dict[str, float]
    calibrated: dict[str, float] | None = None
    gates: dict[str, float]
    present: list[str]
    whole: bool


class Clip(BaseModel):
    """The recording in total: means and highest scores over its pieces; the class only for one piece."""

    start: float
    end: float
    whole: bool
    pieces: int
    class_name: str | None = Field(default=None, alias="class")
    probabilities: dict[str, float]
    calibrated: dict[str, float] | None = None
    peaks: dict[str, float]
    gates: dict[str, float]


class Scored(BaseModel):
    """A whole recording; `clip`: None if it cannot be read to its end; `note`: why. In a stream, each line names
    its `kind` instead.
    """

    file: str
    duration: float
    classes: list[str]
    modalities: list[str]
    windows: list[Window]
    clip: Clip | None
    frames: list[Frame]
    note: str | None


class Refused(BaseModel):
    """The reason, in one line."""

    error: str
