"""What the server says, as types: its description at /openapi.json is made from them."""

from typing import Literal

from pydantic import BaseModel, Field


class Role(BaseModel):
    """A file that belongs to a recording: the form field it comes in, and what it holds."""

    name: str
    kind: str


class Colours(BaseModel):
    """Of charts: a fixed one for each modality, and those that are left, the `palette` for classes as they come."""

    palette: list[str]
    modalities: dict[str, str]


class ModelFacts(BaseModel):
    """What the model is, and for what, from its bundle and its model card.

    A recording of at most `whole_seconds` is one clip, scored by the mean of `views` windows of `window_seconds` over
    all of it; a longer one is scored so in pieces of `piece_seconds`, one every `hop_seconds`.
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
    metrics: dict[str, float]
    licence: str | None
    intended_use: str
    limits: str
    colours: Colours


class Health(BaseModel):
    """Whether a prediction runs, how many wait for it, and how many more recordings would be taken."""

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
    """A piece of the recording; `whole`: it is all of it, one clip; `calibrated`: of a model with a temperature."""

    start: float
    end: float
    probabilities: dict[str, float]
    calibrated: dict[str, float] | None = None
    gates: dict[str, float]
    present: list[str]
    whole: bool


class Clip(BaseModel):
    """The recording as one: means and highest scores over its pieces; the class only where it is one piece."""

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
    """All of a recording; `clip`: none where it cannot be read to its end; `note`: why. Streamed, each line tells its
    `kind` instead."""

    file: str
    duration: float
    classes: list[str]
    modalities: list[str]
    windows: list[Window]
    clip: Clip | None
    frames: list[Frame]
    note: str | None


class Refused(BaseModel):
    """Why not, in one line."""

    error: str
