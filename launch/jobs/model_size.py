"""The model of a config before it trains: its size (`config show`), and whether it can be built (`config check`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from ...shards.errors import RequestError
from ...shards.index.table import Statistics, load_index
from ...shards.media.pack_settings import PackSettings
from ...shards.modality import modality
from ..config.config_names import unpublished
from ..config.load import partial_config
from ..schema import FinetuneConfig, PretrainConfig, StudyConfig
from .building import FRAMES, SECONDS, clip_request


def check_run(name_or_path: str, overrides: Sequence[str] = ()) -> str:
    """Builds what the first training of a run builds: clips, splits, model, tasks and stream. Nothing is written.

    Returns why nothing was built: without the shards there is nothing to build from; else an empty text. Published
    weights are not read. Raises what the run would raise before its first step.
    """
    node: Any = partial_config(name_or_path, overrides)
    if OmegaConf.missing_keys(node):
        return "data.shards is missing"
    try:
        load_index(node.data.shards)
    except RequestError as error:
        return str(error)
    config: Any = OmegaConf.to_object(node)
    if config.model is not None:
        encoders = {name: unpublished(spec) for name, spec in config.model.encoders.items()}
        config = replace(config, model=replace(config.model, encoders=encoders))
    if isinstance(config, PretrainConfig):
        from .pretraining import check_pretraining

        check_pretraining(config)
    elif isinstance(config, FinetuneConfig):
        from ..finetune.finetuning import check_finetuning

        check_finetuning(config)
    else:
        assert isinstance(config, StudyConfig)
        from .study_job import check_study

        check_study(config)
    return ""


def describe_model(name_or_path: str, overrides: Sequence[str] = ()) -> list[str]:
    """Lines of parameters and multiply-adds per segment: by modality, of the fusion, and in total.

    Uses the modalities and settings of the shards if they exist, else `data.modalities` with the defaults of `pack`.
    """
    node: Any = partial_config(name_or_path, overrides)
    if node.model is None and node.get("encoder") is None:
        return ["model: none; give encoder=BUNDLE, or model.preset=tiny for random weights"]
    if node.get("encoder") is not None:
        return ["model: as in the bundle it starts from"]
    from ...fusion.backbone import Backbone
    from ...fusion.blank_segment import check_windows
    from ...fusion.cost import in_words, measure_cost
    from ...shards.clip_spec import ClipSpec

    data = node.data
    model: Any = OmegaConf.to_object(node.model)
    if not OmegaConf.is_missing(data, "shards"):
        try:
            index = load_index(data.shards)
            settings: Any = OmegaConf.to_object(data)
            settings.modalities = [name for name in settings.modalities if name in index.modalities]
            request = clip_request(settings, index)
            names, spec = request.modalities, ClipSpec.of(index, request)
        except RequestError as error:
            return [f"model: size unknown ({error})"]
    elif data.modalities:
        names, packed = tuple(data.modalities), PackSettings()
        neutral = {n: Statistics((0.0,) * modality(n).channels, (1.0,) * modality(n).channels) for n in names}
        size = data.size or packed.size
        rates = packed.fps, packed.sample_rate, packed.flow_bound
        spec = ClipSpec(data.seconds or SECONDS, data.frames or FRAMES, size, packed.size, *rates, neutral)
    else:
        return ["model: size depends on the modalities; give data.shards or data.modalities"]
    backbone = Backbone(names, model)
    check_windows(backbone, spec)
    costs = measure_cost(backbone, spec)
    width = max(len(cost.part) for cost in costs)
    lines = [
        f"  {cost.part:<{width}}  {in_words(cost.parameters):>7}  {in_words(cost.multiply_adds):>7}" for cost in costs
    ]
    return [f"model: parameters, multiply-adds for one segment of {spec.seconds:g} s", *lines]
