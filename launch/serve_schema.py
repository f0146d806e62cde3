"""What the server says, as types: its description at /openapi.json is made from them."""

from typing import Literal

from pydantic import BaseModel, Field

from ..tasks.predict import Prediction


class Role(BaseModel):
    """A file that belongs to a recording: the form field it comes in, and what it holds."""

    name: str
    kind: str


class Colours(BaseModel):
    """Of charts: a fixed one for each modality, and those that are left, the `palette` for classes as they come."""

    palette: list[str]
    modalities: dict[str, str]


class ModelFacts(BaseModel):
    """What the model is, and for what, from its bundle and its model card."""

    name: str
    task: str | None
    classes: list[str]
    positive: str | None
    modalities: list[str]
    roles: list[Role]
    fusion: str
    window_seconds: float
    hop_seconds: float
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


class Scored(BaseModel):
    """All of a recording; `note`: why it ends early, where it does. Streamed, each line tells its `kind` instead."""

    file: str
    duration: float
    classes: list[str]
    modalities: list[str]
    windows: list[Prediction]
    frames: list[Frame]
    note: str | None


class Refused(BaseModel):
    """Why not, in one line."""

    error: str
