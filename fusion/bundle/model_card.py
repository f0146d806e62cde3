"""The model card of a bundle: what it is, what it saw, how well it did, and what it must not be used for."""

from collections.abc import Mapping
from typing import Any

from ...shards.media.region import region_text

_INTENDED = """\
Research and prototypes of action recognition and violence detection on video with consent or a lawful ground: as
frozen features for a small classifier, or as a score that points a person to the seconds worth looking at."""

_LIMITS = """\
- Scores are evidence for a person to look at, not grounds for acting against anyone. It must not decide alone.
- Surveillance: it must not identify, follow, rank or profile people, predict what they will do, infer emotion or any
  protected trait, run in secret, or trigger an intervention (a lock, a dispatch, a penalty) without a person's check.
- Assisted living: it is no medical device and no fall or emergency alarm to rely on; silence is not a sign that all
  is well. It must not replace a carer's round, watch rooms where people undress, or run without the consent of those
  who live there.
- It errs more on scenes, cameras, light, sound and people unlike its training data; errors need not be equal between
  groups of people, and none were measured unless a figure above says so. Measure it on your own recordings first.
- Gate weights tell what the model used, not what caused an event."""


def model_card(facts: dict[str, Any], loading: str, further: Mapping[str, str] | None = None) -> str:
    """Markdown with the header that model hubs read.

    `facts` are those of `encoder.json`; `loading`: the lines that load it; `further`: sections by title, after its
    metrics.
    """
    clip, provenance, metrics = facts["clip"], dict(facts["provenance"]), facts["metrics"]
    licence = facts["licence"]
    kind = "classifier" if facts["classes"] else "encoder"
    header = ["---", "library_name: modalgate", "tags: [video, multimodal, gated-fusion]"]
    if licence:
        header.append(f"license: {licence.lower()}")
    lines = [
        *header,
        "---",
        "",
        f"# modalgate {kind}",
        "",
        f"- Modalities: {', '.join(facts['modalities'])}; fusion: {facts['backbone']['fusion']}",
        f"- Input: {facts['segments']} windows of {clip['seconds']} s, {clip['frames']} frames of {clip['size']} px "
        f"from video at {clip['fps']:g} frames per second, sound at {clip['sample_rate']} Hz",
    ]
    if clip.get("region"):
        part = region_text(clip["region"])
        lines.append(f"- Of every picture only the region {part}: its left, top, width and height as shares of it")
    if clip.get("stretch"):
        lines.append(f"- A window is {clip['stretch']:.0%} of a clip, played in {clip['seconds']} s")
    lines.append(f"- Applied {_applied(facts['application'])}")
    if facts["classes"]:
        lines.append(f"- Classes ({facts['task']}): {', '.join(facts['classes'])}")
    lines += ["", "## Data and training", ""]
    lines += [f"- {key}: {value}" for key, value in provenance.items()] or ["Not recorded."]
    lines += ["", "## Metrics", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in metrics.items()] or [
        "None were measured by this run: treat it as untested."
    ]
    for title, text in (further or {}).items():
        lines += ["", f"## {title}", "", text]
    lines += ["", "## Intended use", "", _INTENDED, "", "## Limits", "", _LIMITS, "", "## Licence", ""]
    lines += [licence or "Not stated: ask whoever made it before you use or share it.", "", "## Loading", ""]
    lines += [loading, ""]
    return "\n".join(lines)


def _applied(application: Mapping[str, Any]) -> str:
    """In words, what is done with a recording."""
    views = application["views"]
    averaged = f"{views} views averaged" if views > 1 else "one view"
    pieces = f"pieces of {application['piece']:.3g} s, one every {application['hop']:.3g} s, {averaged}"
    if not application["whole"]:
        return f"to {pieces}"
    known = ""
    if application["longest"]:
        known = f"; its clips lasted {application['piece']:.3g} s (median), {application['longest']:.3g} s at most"
    return f"to a recording of at most {application['whole']:.3g} s as one clip, to a longer one in {pieces}{known}"


def card_sections(text: str) -> dict[str, str]:
    """The sections of a model card by their titles, in Markdown."""
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {title.strip(): body.strip() for title, _, body in parts}
