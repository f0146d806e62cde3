"""Size of the model of a config, for `modalgate config show`."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from ...shards.errors import RequestError
from ...shards.index.table import Statistics, load_index
from ...shards.media.pack_settings import PackSettings
from ...shards.modality import modality
from ..config.load import partial_config
from .building import FRAMES, SECONDS, clip_request


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
