"""The multimodal backbone: one encoder per modality, then gated fusion."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..shards.batch import Batch
from ..shards.clip_spec import ClipSpec
from ..shards.errors import RequestError, choice_error
from ..shards.modality import modality
from ..shards.transforms import Preparation
from .encoders.encoders import build_encoder, check_encoder
from .encoders.weights import first_difference
from .mechanisms.gates import AuxiliarySums, Fusion
from .mechanisms.quality import measure_quality
from .mechanisms_by_name import FUSIONS, build_fusion, fusions_at
from .own_classes import class_path
from .spec import PRESETS, BackboneSpec, EncoderSpec, encoder_of


@dataclass(frozen=True)
class Part:
    """One encoded modality. Rows are zero where it is absent.

    features: (B, K, D).
    tokens: (B, K, L, D) if the fusion joins tokens.
    """

    features: Tensor
    tokens: Tensor | None = None


@dataclass
class Encoded:
    """An encoded batch of B clips with K segments each.

    modalities: M names, in the order of `weights`.
    features: (B, K, D) by modality, zero where it is absent.
    present: (B, K) bool by modality.
    embedding: (B, K, D), the fused feature.
    weights: (B, K, M), gate weights.
    aux_loss: (), auxiliary loss of the fusion.
    auxiliary: the sums over rows that give `aux_loss`; None if the fusion has none.
    start: (B, K), start of each segment in seconds.
    facts: (B, ...) by name, what a view records about its input.
    quality: (B, K, M, Q), measures of stream quality; None if they were neither given nor needed.
    """

    modalities: tuple[str, ...]
    features: dict[str, Tensor]
    present: dict[str, Tensor]
    embedding: Tensor
    weights: Tensor
    aux_loss: Tensor
    start: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)
    quality: Tensor | None = None
    auxiliary: AuxiliarySums | None = None


class Backbone(nn.Module):
    """One encoder per modality, a projection of each to a common width, and a fusion mechanism.

    modalities: names, in the order of the gate weights.
    spec: encoders, width and fusion; default: the preset `tiny`.
    fusion: overrides the spec's fusion: a name, a class path, or a module built for these modalities and this width.
    encoders: override the spec's encoders, by modality: a network's name, an `EncoderSpec`, or a module with an
        attribute `features` that maps prepared rows (N, ...) to (N, features).
    clip: how `forward` prepares a `Batch`; needed only to call it with one.

    A bundle stores a module given here by its class path and its attribute `arguments` (default: none). Loading the
    bundle builds the class from them.

    `forward(streams, present, start, quality)` returns `Encoded`. It takes prepared streams (B, K, ...) by modality,
    presence (B, K) by modality, and starts (B, K) in seconds. A modality missing from `present` is absent in all
    rows. Only present rows are encoded, so absent rows cost nothing and do not affect batch statistics. `quality`
    (B, K, M, Q) holds measures of stream quality for the gate; by default they are measured here. In training,
    `modality_dropout` hides random subsets of the modalities from the fusion (Neverova et al. 2016), but never all of
    a row.

    `forward(batch)` takes a `Batch` of the clip stream, moves it to the backbone's device and prepares it without
    augmentation.

    Raises `RequestError` for an unknown modality, network or fusion, for a fusion of class scores, for an encoder
    without tokens under a fusion of tokens, and for a fusion built for other modalities or another width.
    """

    clip: ClipSpec | None
    preparation: Preparation | None

    def __init__(
        self,
        modalities: Sequence[str],
        spec: BackboneSpec | None = None,
        *,
        fusion: str | Fusion | None = None,
        encoders: Mapping[str, str | EncoderSpec | nn.Module] | None = None,
        clip: ClipSpec | None = None,
    ) -> None:
        super().__init__()
        modalities, given = tuple(modalities), dict(encoders or {})
        for name in given:
            if name not in modalities:
                raise choice_error("modality of an encoder", name, modalities)
        spec = _spec_with(spec or BackboneSpec(), fusion, given)
        resolved = {name: encoder_spec(spec, name) for name in modalities}
        self.modalities, self.spec, self.width = modalities, spec, spec.width or PRESETS[spec.preset].width
        self.encoders = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for name in modalities:
            own = given.get(name)
            encoder = own if isinstance(own, nn.Module) else build_encoder(modality(name), resolved[name])
            self.encoders[name] = encoder
            # Features of equal length make gate weights comparable between modalities.
            width = check_encoder(encoder, name)
            self.projections[name] = nn.Sequential(nn.Linear(width, self.width), nn.LayerNorm(self.width))
        if isinstance(fusion, Fusion):
            _check_gate(fusion, modalities, self.width)
            self.fusion = fusion
        else:
            self.fusion = build_fusion(spec.fusion, modalities, self.width, spec.fusion_arguments)
        if self.fusion.level == "decision":
            choices = ", ".join(fusions_at("feature", "token"))
            raise RequestError(
                f"fusion '{spec.fusion}' joins class scores, but a backbone joins features: choose one of {choices}, "
                f"or give the classifier decision='{spec.fusion}'"
            )
        self.quality_measures = self.fusion.quality
        # Columns of a feature map and features of frames differ in scale from the pooled feature.
        self.token_projections = nn.ModuleDict()
        if self.fusion.level == "token":
            for name in modalities:
                if not hasattr(self.encoders[name], "with_tokens"):
                    raise RequestError(
                        f"fusion '{spec.fusion}' joins tokens, but encoder {type(self.encoders[name]).__name__} of "
                        f"'{name}' returns none: give it a method with_tokens(rows) -> (features, sequence)"
                    )
                width = check_encoder(self.encoders[name], name)
                self.token_projections[name] = nn.Sequential(nn.Linear(width, self.width), nn.LayerNorm(self.width))
        self.prepare_as(clip)

    def prepare_as(self, clip: ClipSpec | None) -> None:
        """Sets how `forward` prepares a `Batch`. With None, `forward` takes prepared streams only."""
        # Not a submodule, so that its computed filters are not saved with the weights.
        self.__dict__["clip"] = clip
        self.__dict__["preparation"] = None if clip is None else Preparation(clip)

    def forward(
        self,
        streams: dict[str, Tensor] | Batch,
        present: dict[str, Tensor] | None = None,
        start: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Encoded:
        if isinstance(streams, Batch):
            streams, present, start = self._prepared(streams)
        if present is None or start is None:
            raise TypeError("forward needs present and start with prepared streams: give both, or give a Batch")
        never = torch.zeros_like(start, dtype=torch.bool)
        present = {name: present.get(name, never) for name in self.modalities}
        parts = {name: self.encode(name, streams.get(name), present[name]) for name in self.modalities}
        if quality is None:
            quality = self.quality_of(streams, present)
        return self.fuse(parts, present, start, quality)

    def _prepared(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        if self.preparation is None:
            raise RequestError(
                "the backbone needs a clip spec to prepare a Batch: give Backbone clip=ClipSpec.of(index, request)"
            )
        device = next(self.parameters()).device
        batch = batch.to(device)
        return self.preparation.to(device)(batch), batch.present, batch.start

    def quality_of(self, streams: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor | None:
        """Quality measures (B, K, M, Q) of prepared streams; None if no gate uses them."""
        return measure_quality(self.modalities, streams, present) if self.quality_measures else None

    def fuse(
        self,
        parts: Mapping[str, Part],
        present: dict[str, Tensor],
        start: Tensor,
        quality: Tensor | None = None,
        hidden: Collection[str] = (),
    ) -> Encoded:
        """Fuses encoded modalities.

        parts: by modality.
        present: (B, K) bool by modality.
        start: (B, K), in seconds.
        quality: (B, K, M, Q), for a gate that uses it.
        hidden: modalities to hide from the fusion.
        """
        features = {name: part.features for name, part in parts.items()}
        joined = {name: part.features if part.tokens is None else part.tokens for name, part in parts.items()}
        seen = present | {name: torch.zeros_like(present[name]) for name in hidden}
        if self.training and self.spec.modality_dropout:
            seen = self._drop(seen)
        columns = self.fusion.quality
        extra = (None if quality is None else quality[..., :columns],) if columns else ()
        fused = self.fusion(joined, seen, *extra)
        return Encoded(
            *(self.modalities, features, present, fused.embedding, fused.weights, fused.aux_loss, start),
            auxiliary=fused.auxiliary,
            quality=quality,
        )

    def encode(self, name: str, stream: Tensor | None, mask: Tensor) -> Part:
        """Encodes modality `name`: the segments of `stream` (B, K, ...) where `mask` (B, K) is true."""
        parts = nn.ModuleList([self.encoders[name], self.projections[name]])
        if self.token_projections:
            parts.append(self.token_projections[name])
        parameters = list(parts.parameters())
        out = torch.zeros(*mask.shape, self.width, device=parameters[0].device)
        if stream is None or not bool(mask.any()):
            # Every rank must use every parameter, or gradient averaging hangs.
            out = out + sum(parameter.sum() * 0 for parameter in parameters) if self.training else out
            return Part(out, out.unsqueeze(-2) if self.token_projections else None)
        if not self.token_projections:
            pooled = self.projections[name](self.encoders[name](stream[mask]))
            return Part(out.to(pooled.dtype).index_put((mask,), pooled))
        encoder: Any = self.encoders[name]
        pooled, tokens = encoder.with_tokens(stream[mask])
        pooled = self.projections[name](pooled)
        # The pooled feature comes first, like a class token.
        tokens = torch.cat([pooled.unsqueeze(1), self.token_projections[name](tokens)], dim=1)
        places = out.new_zeros(*mask.shape, *tokens.shape[1:], dtype=tokens.dtype)
        return Part(out.to(pooled.dtype).index_put((mask,), pooled), places.index_put((mask,), tokens))

    def _drop(self, present: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = torch.stack([present[name] for name in self.modalities], dim=-1)
        chosen = torch.rand(mask.shape[0], 1, 1, device=mask.device) < self.spec.modality_dropout
        kept = mask & (torch.rand(mask.shape[0], 1, mask.shape[2], device=mask.device) < 0.5)
        # Rows keep all modalities if the draw would hide all of them.
        kept = torch.where(chosen & kept.any(dim=-1, keepdim=True), kept, mask)
        return dict(zip(self.modalities, kept.unbind(-1), strict=True))


def _spec_with(
    spec: BackboneSpec, fusion: str | Fusion | None, encoders: Mapping[str, str | EncoderSpec | nn.Module]
) -> BackboneSpec:
    """The spec with `fusion` and `encoders` replaced. Modules are recorded as class path and arguments."""
    if isinstance(fusion, str) and fusion != spec.fusion:
        spec = replace(spec, fusion=fusion, fusion_arguments={})
    elif isinstance(fusion, Fusion):
        name = next((key for key, kind in FUSIONS.items() if kind is type(fusion)), class_path(type(fusion)))
        arguments = dict(getattr(fusion, "arguments", {}))
        if name in FUSIONS:
            _check_arguments(fusion, name, arguments)
        spec = replace(spec, fusion=name, fusion_arguments=arguments)
    found = dict(spec.encoders)
    for name, given in encoders.items():
        if isinstance(given, EncoderSpec):
            found[name] = given
        elif isinstance(given, str):
            found[name] = EncoderSpec(given)
        else:
            found[name] = EncoderSpec(class_path(type(given)), dict(getattr(given, "arguments", {})))
    return replace(spec, encoders=found)


def _check_arguments(fusion: Fusion, name: str, arguments: dict[str, Any]) -> None:
    """`RequestError` where a registered mechanism was built with other arguments: a bundle would hold another one."""
    with torch.random.fork_rng(devices=[]):
        again = build_fusion(name, tuple(fusion.modalities), len(fusion.nothing), arguments)

    def settings(one: Fusion) -> dict[str, Any]:
        plain = {key: value for key, value in vars(one).items() if isinstance(value, int | float | str)}
        return plain | {"training": None, "modules": str(one)}

    if settings(again) != settings(fusion) or first_difference(again.state_dict(), fusion.state_dict()):
        raise RequestError(
            f"fusion {type(fusion).__name__} was built with arguments that a bundle would not hold: give it an "
            f"attribute `arguments`, a dict of them, or give fusion='{name}' and fusion_arguments in the spec"
        )


def _check_gate(fusion: Fusion, modalities: tuple[str, ...], width: int) -> None:
    """Raises `RequestError` if `fusion` was built for other modalities or another width."""
    if tuple(fusion.modalities) != modalities:
        raise RequestError(
            f"fusion {type(fusion).__name__} was built for the modalities {', '.join(fusion.modalities)}, but the "
            f"backbone has {', '.join(modalities)}: build it for those, in that order"
        )
    if fusion.nothing.shape != (width,):
        raise RequestError(
            f"fusion {type(fusion).__name__} was built for width {len(fusion.nothing)}, but the backbone's width is "
            f"{width}: build it with width={width}"
        )


def encoder_spec(spec: BackboneSpec, name: str) -> EncoderSpec:
    """The encoder spec of modality `name`; see `encoder_of`."""
    return encoder_of(spec, modality(name).name)


def select_modalities(available: tuple[str, ...], wanted: list[str]) -> tuple[str, ...]:
    """The modalities to use: `wanted` in its order, or all of `available` if `wanted` is empty.

    Raises `RequestError` for an unknown modality, and for one that is not available.

    >>> select_modalities(("rgb", "flow", "audio"), ["audio", "rgb"])
    ('audio', 'rgb')
    >>> select_modalities(("rgb", "audio"), [])
    ('rgb', 'audio')
    """
    for name in wanted:
        modality(name)
        if name not in available:
            raise choice_error("modality in these shards", name, available)
    return tuple(wanted) or available


def take_over(backbone: Backbone, name: str, other: Backbone) -> None:
    """Copies the weights of one modality's encoder and projection from `other` to `backbone`.

    Raises `RequestError` if `other` lacks the modality or encodes it with a different network.
    """
    if name not in other.modalities:
        raise choice_error("modality of the pretrained encoder", name, other.modalities)
    for mine, theirs in ((backbone.encoders, other.encoders), (backbone.projections, other.projections)):
        given = theirs[name].state_dict()
        if reason := first_difference(mine[name].state_dict(), given):
            theirs_is, mine_is = (encoder_spec(each.spec, name).model for each in (other, backbone))
            raise RequestError(
                f"the pretrained encoder of '{name}' is '{theirs_is}' of width {other.width}, but the config has "
                f"'{mine_is}' of width {backbone.width}: {reason}; set model.width and model.encoders.{name} as in "
                "the pretrained encoder"
            )
        mine[name].load_state_dict(given)


def alone(backbone: Backbone, name: str) -> Backbone:
    """A backbone of the single modality `name`, with copies of its encoder and projection."""
    spec = replace(
        backbone.spec,
        fusion="static",
        fusion_arguments={},
        modality_dropout=0.0,
        encoders={name: encoder_spec(backbone.spec, name).untrained()},
    )
    single = Backbone((name,), spec)
    take_over(single, name, backbone)
    return single


def fresh_copy(backbone: Backbone) -> Backbone:
    """The same architecture with new random weights: the untrained control of every table."""
    encoders = {name: encoder_spec(backbone.spec, name).untrained() for name in backbone.modalities}
    return Backbone(backbone.modalities, replace(backbone.spec, encoders=encoders))
