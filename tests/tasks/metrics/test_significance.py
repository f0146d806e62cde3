"""Paired tests against explicit sums, and their error rates on planted truth."""

from itertools import product
from math import comb

import numpy as np
import pytest
from modalgate.tasks.metrics.significance import (
    few_groups_note,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_test,
    sign_flip,
    sign_test,
    which_test,
)


def answers(both: int, first: int, second: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    left = [1] * both + [1] * first + [0] * second + [0] * neither
    right = [1] * both + [0] * first + [1] * second + [0] * neither
    return np.array(left, bool), np.array(right, bool)


def test_mcnemar_sums_the_binomial_tail() -> None:
    for first, second in ((0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (0, 12)):
        n = first + second
        naive = min(1.0, 2 * sum(comb(n, i) for i in range(min(first, second) + 1)) / 2**n) if n else 1.0
        assert mcnemar(*answers(20, first, second, 7)) == pytest.approx(naive)


def test_mcnemar_ignores_clips_that_both_models_get_right_or_wrong() -> None:
    assert mcnemar(*answers(0, 2, 8)) == mcnemar(*answers(500, 2, 8, 300))


def test_mcnemar_of_different_clips_raises() -> None:
    with pytest.raises(ValueError, match="same clips"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_six_seeds_can_be_significant_and_five_cannot() -> None:
    assert sign_test([0.1] * 5) == pytest.approx(0.0625)
    assert sign_test([0.1] * 6) == pytest.approx(0.03125)
    assert sign_test([0.1, -0.1, 0.0]) == 1.0
    assert sign_test([0.0, 0.0]) == 1.0


def test_sign_test_of_a_missing_seed_raises() -> None:
    with pytest.raises(ValueError, match="not finite"):
        sign_test([0.1, float("nan")])


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, 1.2])


def test_holm_controls_the_family_wise_error() -> None:
    generator = np.random.default_rng(0)
    claims = np.mean([(holm(generator.random(8)) < 0.05).any() for _ in range(4000)])
    assert abs(claims - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_pairing_cancels_shared_variation() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 5).astype(str)
    hard = np.repeat(generator.random(60) < 0.5, 5)
    first = ~hard
    second = first & (generator.random(300) > 0.04)
    found = paired_bootstrap(lambda rows, _: float(first[rows].mean() - second[rows].mean()), groups, draws=2000)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert 0 < found.low < found.value < found.high
    # Half of the groups are hard, so each accuracy alone is uncertain by six points.
    assert found.high - found.low < 0.05
    assert found.p < 0.01


def test_the_interval_has_its_nominal_coverage() -> None:
    generator, held = np.random.default_rng(2), []
    groups = np.arange(80).astype(str)
    for number in range(150):
        wins = generator.normal(0.3, 1.0, 80)
        found = paired_bootstrap(lambda rows, _, w=wins: float(w[rows].mean()), groups, draws=300, seed=number)
        held.append(found.low <= 0.3 <= found.high)
    assert abs(np.mean(held) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 150)


def test_seeds_are_resampled() -> None:
    lucky = [0.3, -0.3, 0.3, -0.3]
    groups = np.arange(50).astype(str)
    found = paired_bootstrap(lambda _, seed: lucky[seed], groups, seeds=4, draws=1000)
    assert found.value == pytest.approx(0)
    assert found.low < -0.1 < 0.1 < found.high


def test_no_clips_raise() -> None:
    with pytest.raises(ValueError, match="no clips"):
        paired_bootstrap(lambda rows, _: 0.0, [])


def test_flips_of_few_groups_equal_the_enumeration() -> None:
    generator = np.random.default_rng(4)
    groups = np.repeat(list("abcde"), [3, 1, 4, 2, 5])
    gain = generator.normal(0.4, 1.0, len(groups))
    sums = [gain[groups == name].sum() for name in "abcde"]
    naive = np.mean([abs(np.dot(signs, sums)) >= abs(sum(sums)) - 1e-12 for signs in product((1, -1), repeat=5)])
    found = sign_flip(lambda exchanged: float(np.where(exchanged, -gain, gain).mean()), groups)
    assert found == pytest.approx(naive)
    assert sign_flip(lambda exchanged: float("nan"), groups) != found


@pytest.mark.parametrize("sizes", [[3, 1, 4, 2, 5, 2], [2] * 14])
def test_the_test_of_answers_equals_the_flips(sizes: list[int]) -> None:
    generator = np.random.default_rng(7)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    first, second = generator.random(len(groups)) < 0.4, generator.random(len(groups)) < 0.8
    gain = second.astype(int) - first.astype(int)
    exact = paired_test(first, second, groups)
    drawn = sign_flip(lambda exchanged: float(np.where(exchanged, -gain, gain).mean()), groups)
    assert exact == pytest.approx(drawn, abs=1e-9 if len(sizes) <= 12 else 0.02)


def test_clips_without_groups_are_tested_by_mcnemar() -> None:
    for first, second in ((0, 0), (3, 9), (5, 5), (0, 12)):
        one, other = answers(20, first, second, 7)
        keys = [f"clip-{number}" for number in range(len(one))]
        assert paired_test(one, other, keys) == mcnemar(one, other)
        # A further clip that no model gets right makes one group of two: the flips give the same p.
        grouped = paired_test(np.append(one, False), np.append(other, False), [*keys, keys[-1]])
        assert grouped == pytest.approx(mcnemar(one, other))


def test_groups_have_the_promised_false_positives_and_mcnemar_has_more() -> None:
    """The models differ by subject, without a preference: each subject favours one of them."""
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(8), 30)
    flips, plain = [], []
    for _ in range(300):
        lean = np.repeat(generator.normal(0, 0.15, 8), 30)
        first, second = generator.random(240) < 0.6 - lean, generator.random(240) < 0.6 + lean
        flips.append(paired_test(first, second, groups) < 0.05)
        plain.append(mcnemar(first, second) < 0.05)
    assert np.mean(flips) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert np.mean(plain) > 0.2


def test_a_test_without_a_result_is_not_counted() -> None:
    np.testing.assert_allclose(holm([0.01, float("nan"), 0.04]), [0.02, float("nan"), 0.04])


def test_few_groups_are_named() -> None:
    assert few_groups_note([str(number) for number in range(10)]) == ""
    assert "Only 1 group:" in few_groups_note(["a", "a"])
    assert " p " not in few_groups_note(["a", "a"], tested=False)
    assert which_test(["a", "b"]) == "McNemar, exact"
    assert which_test(["a", "a"]) == "sign flips over the 1 groups, exact"
