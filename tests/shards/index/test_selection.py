"""Selecting clips of an index."""

from dataclasses import replace

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.index.selection import fraction_of, with_columns, with_labels, with_modalities
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings


def made(clips: int = 200) -> Index:
    """Every third clip has sound. The labels repeat calm, fight, run."""
    samples = tuple(
        Sample(
            f"clip{n:04}",
            "shard-000000.tar",
            2.0,
            {"label": ("calm", "fight", "run")[n % 3]},
            {"rgb.mp4": (0, 1)} | ({"audio.wav": (1, 1)} if n % 3 == 0 else {}),
        )
        for n in range(clips)
    )
    return Index(PackSettings(modalities=("rgb", "audio")), {}, (), samples)


def keys(index: Index) -> list[str]:
    return [sample.key for sample in index.samples]


def test_clips_with_sound_only() -> None:
    assert keys(with_modalities(made(9), ["audio"])) == ["clip0000", "clip0003", "clip0006"]
    assert keys(with_modalities(made(9), ["rgb"])) == keys(made(9))
    with pytest.raises(RequestError, match=r"no clip in .* has rgb and depth"):
        with_modalities(made(9), ["rgb", "depth"])
    with pytest.raises(RequestError, match="did you mean 'audio'"):
        with_modalities(made(9), ["audi"])


def test_label_values() -> None:
    assert keys(with_labels(made(6), "label", ["run", "calm"])) == ["clip0000", "clip0002", "clip0003", "clip0005"]
    with pytest.raises(RequestError, match="unknown value of column 'label' 'figt': did you mean 'fight'"):
        with_labels(made(6), "label", ["figt"])
    with pytest.raises(RequestError, match="unknown label column 'kind'"):
        with_labels(made(6), "kind", ["a"])


def test_smaller_shares_are_subsets_of_larger_ones_in_order() -> None:
    whole = made()
    shares = {part: keys(fraction_of(whole, part)) for part in (0.01, 0.1, 0.5, 1.0)}
    assert {part: len(kept) for part, kept in shares.items()} == {0.01: 2, 0.1: 20, 0.5: 100, 1.0: 200}
    assert set(shares[0.01]) < set(shares[0.1]) < set(shares[0.5]) < set(shares[1.0])
    assert all(kept == sorted(kept) for kept in shares.values())
    assert keys(fraction_of(whole, 0.1, seed=1)) != shares[0.1]
    assert len(keys(fraction_of(whole, 0.0001))) == 1


def test_a_clip_keeps_its_rank_when_others_are_removed() -> None:
    whole = made()
    fewer = whole.keep(keys(whole)[:150])
    assert set(keys(fraction_of(fewer, 0.2))) & set(keys(whole)[:150]) >= set(keys(fraction_of(whole, 0.1))) & set(
        keys(fewer)
    )


def test_the_draw_is_even_over_labels() -> None:
    counts = np.zeros(3)
    for seed in range(60):
        for sample in fraction_of(made(), 0.25, seed).samples:
            counts[("calm", "fight", "run").index(sample.labels["label"])] += 1
    shares = counts / counts.sum()
    assert np.all(np.abs(shares - 1 / 3) < 3 * np.sqrt(2 / 9 / counts.sum()) + 0.002)


def test_an_invalid_share_is_refused() -> None:
    for part in (0.0, -0.1, 1.5):
        with pytest.raises(RequestError, match="more than 0 and at most 1"):
            fraction_of(made(), part)


def cameras() -> Index:
    """Six clips of three cameras, two sites and a label that some lack."""
    index = made(6)
    texts = [("cam0", "a", "run"), ("cam1", "a", ""), ("cam2", "a", "fall")]
    texts += [("cam0", "b", "fall"), ("cam1", "b", "run"), ("01", "b", "")]
    samples = [
        replace(sample, labels={"camera": camera, "site": site, "label": label})
        for sample, (camera, site, label) in zip(index.samples, texts, strict=True)
    ]
    return replace(index, samples=tuple(samples))


def test_clips_by_columns() -> None:
    index = cameras()
    assert keys(with_columns(index, {"camera": ["cam0"]})) == ["clip0000", "clip0003"]
    assert keys(with_columns(index, {"camera": ["cam0", "01"]})) == ["clip0000", "clip0003", "clip0005"]
    assert keys(with_columns(index, {"camera": ["cam0", "cam1"], "site": ["b"]})) == ["clip0003", "clip0004"]
    assert keys(with_columns(index, {"label": [""]})) == ["clip0001", "clip0005"]
    assert keys(with_columns(index, {})) == keys(index)


def test_unknown_columns_and_values_are_named() -> None:
    with pytest.raises(RequestError, match="column 'camra': did you mean 'camera'"):
        with_columns(cameras(), {"camra": ["cam0"]})
    # Also where the first column has left no clip of that camera.
    with pytest.raises(RequestError, match="value of column 'camera' 'cam9': did you mean 'cam"):
        with_columns(cameras(), {"site": ["b"], "camera": ["cam9"]})
    with pytest.raises(RequestError, match="has site b and camera cam2"):
        with_columns(cameras(), {"site": ["b"], "camera": ["cam2"]})
    with pytest.raises(RequestError, match=r"known: fall, run\)"):
        with_columns(cameras(), {"label": ["rum bling"]})
