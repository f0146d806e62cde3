"""The model card of a bundle: input, training data, metrics, intended use and limits."""

from collections.abc import Mapping
from typing import Any

from ...shards.media.region import region_text

_INTENDED = """\
Research and prototypes of action recognition and violence detection, on video with consent or another legal basis:
as frozen features for a small classifier, or as a score that points a person to the seconds to look at."""

_LIMITS = """\
- Scores are evidence for a person to review, not grounds for acting against anyone. The model must not decide alone.
- Surveillance: do not use it to identify, track, rank or profile people, to predict what they will do, or to infer
  emotions or protected traits. Do not run it in secret. A person must check before any intervention (a lock, a
  dispatch, a penalty).
- Assisted living: it is not a medical device, and not a reliable alarm for falls or emergencies. No alarm does not
  mean that all is well. Do not replace a carer's round by it, do not use it in rooms where people undress, and do not
  run it without the consent of the residents.
- It makes more errors on scenes, cameras, light, sound and people that differ from its training data. Error rates may
  differ between groups of people; they were not measured unless a metric above says so. Measure the model on your own
  recordings first.
- Gate weights show what the model used, not what caused an event."""


def model_card(facts: dict[str, Any], loading: str, further: Mapping[str, str] | None = None) -> str:
    """The model card in Markdown, with the header that model hubs read.

    facts: content of `encoder.json`.
    loading: code that loads the bundle.
    further: additional sections by title, placed after the metrics.
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
        lines.append(f"- Region of every picture: {part} (left, top, width, height, as shares of the picture)")
    if clip.get("stretch"):
        lines.append(f"- A window covers {clip['stretch']:.0%} of a clip, played in {clip['seconds']} s")
    lines.append(f"- Applied {_applied(facts['application'])}")
    if facts["classes"]:
        lines.append(f"- Classes ({facts['task']}): {', '.join(facts['classes'])}")
    lines += ["", "## Data and training", ""]
    lines += [f"- {key}: {value}" for key, value in provenance.items()] or ["Not recorded."]
    lines += ["", "## Metrics", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in metrics.items()] or [
        "This run measured none: treat the model as untested."
    ]
    for title, text in (further or {}).items():
        lines += ["", f"## {title}", "", text]
    lines += ["", "## Intended use", "", _INTENDED, "", "## Limits", "", _LIMITS, "", "## Licence", ""]
    lines += [licence or "Not stated: contact the author before you use or share the model.", "", "## Loading", ""]
    lines += [loading, ""]
    return "\n".join(lines)


def _applied(application: Mapping[str, Any]) -> str:
    """How a recording is cut into pieces, in words."""
    views = application["views"]
    averaged = f"{views} views averaged" if views > 1 else "one view"
    pieces = f"pieces of {application['piece']:.3g} s, one every {application['hop']:.3g} s, {averaged}"
    if not application["whole"]:
        return f"to {pieces}"
    known = ""
    if application["longest"]:
        known = f"; its clips lasted {application['piece']:.3g} s (median), {application['longest']:.3g} s at most"
    return f"to recordings of up to {application['whole']:.3g} s as one clip, to longer ones in {pieces}{known}"


def card_sections(text: str) -> dict[str, str]:
    """The sections of a model card by title, in Markdown.

    >>> card_sections("# Title\\n\\n## Metrics\\n\\n- auc: 0.9\\n\\n## Limits\\n\\nNone.")
    {'Metrics': '- auc: 0.9', 'Limits': 'None.'}
    """
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {title.strip(): body.strip() for title, _, body in parts}
