"""Agreement without negatives against the papers' equations, written as loops."""

import math
from collections.abc import Callable, Collection, Sequence

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.pretext.negative_free import (
    BarlowTwins,
    Byol,
    CrissCross,
    LeJepa,
    PairAgreement,
    Paired,
    VicReg,
    retrieval,
)
from torch import Tensor, nn

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
Rows = dict[tuple[int, int], Tensor]
NAMES, CLIPS = ("rgb", "flow", "audio"), 8
PAIRS = [["rgb", "audio"], ["flow", "audio"]]
ABSENT: dict[str, Absent] = {"all there": (), "gaps": {("audio", 0), ("rgb", 3, 1), ("flow", 5)}}


def through(head: nn.Module, rows: Rows) -> Rows:
    """Rows under a head whose batch norm takes its statistics of just these."""
    return dict(zip(rows, head(torch.stack(list(rows.values()))), strict=True))


def rows_of(batch: Encoded, name: str) -> Rows:
    """Presence of a modality by clip and segment."""
    feature, present = batch.features[name], batch.present[name]
    return {(b, k): feature[b, k] for b in range(CLIPS) for k in range(2) if bool(present[b, k])}


def shared(first: Rows, second: Rows) -> tuple[Tensor, Tensor]:
    places = [place for place in first if place in second]
    return torch.stack([first[p] for p in places]), torch.stack([second[p] for p in places])


def mean(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).mean()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def assert_retrieval(outputs: dict[str, Tensor], pairs: Sequence[tuple[Rows, Rows]]) -> None:
    """Accuracy and chance of these pairs, row by row: the nearest of all clips' rows of that segment."""
    shares: dict[str, list[float]] = {"accuracy": [], "chance": []}
    for first, second in pairs:
        hits, chances = [], []
        for queries, keys in ((first, second), (second, first)):
            both = [place for place in queries if place in keys]
            for place in both:
                rivals = [other for other in both if other[1] == place[1]]
                hits.append(max(rivals, key=lambda r: float(cosine(queries[place], keys[r]).detach())) == place)
                chances.append(1 / len(rivals))
        shares["accuracy"].append(sum(hits) / len(hits))
        shares["chance"].append(sum(chances) / len(chances))
    for name, values in shares.items():
        assert float(outputs[name]) == pytest.approx(sum(values) / len(values), rel=1e-5)
        assert not outputs[name].requires_grad


@pytest.mark.parametrize("lasting", [True, False])
def test_independent_rows_are_retrieved_at_chance(lasting: bool) -> None:
    """Whether a clip's segments look alike or not."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(400):
        first, second = (torch.randn(16, 1 if lasting else 3, 4, generator=generator) for _ in range(2))
        rows = [part.expand(16, 3, 4).flatten(0, 1) for part in (first, second)]
        found.append(retrieval([Paired(*rows, torch.arange(3).repeat(16))]))
    assert all(float(outputs["chance"]) == pytest.approx(1 / 16) for outputs in found)
    accuracies = torch.stack([outputs["accuracy"] for outputs in found])
    assert abs(float(accuracies.mean()) - 1 / 16) < 3 * float(accuracies.std()) / 20


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    count, width = a.shape
    total = 25 * mean([(x - y).square().mean() for x, y in zip(a, b, strict=True)])
    for rows in (a, b):
        centred = rows - rows.sum(0) / count
        for i in range(width):
            deviation = (centred[:, i].square().sum() / (count - 1) + 1e-4).sqrt()
            total = total + 25 * torch.relu(1 - deviation) / width / 2
            for j in range(width):
                if i != j:
                    total = total + ((centred[:, i] * centred[:, j]).sum() / (count - 1)).square() / width
    return total


def barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    count, width = a.shape
    a, b = ((r - r.sum(0) / count) / ((r - r.sum(0) / count).square().sum(0) / count + 1e-5).sqrt() for r in (a, b))
    total = a.new_zeros(())
    for i in range(width):
        for j in range(width):
            correlation = (a[:, i] * b[:, j]).sum() / count
            total = total + ((1 - correlation).square() if i == j else 0.005 * correlation.square())
    return total / width


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize(("kind", "equation"), [(VicReg, vicreg), (BarlowTwins, barlow_twins)])
def test_covariances_and_their_gradients_equal_the_loop(
    kind: type[VicReg | BarlowTwins],
    equation: Callable[[Tensor, Tensor], Tensor],
    absent: str,
    leaves: Leaves,
    assert_equation: Assert,
) -> None:
    torch.manual_seed(0)
    task, batch = kind(NAMES, 8, PAIRS, hidden=6, dimension=5).double(), leaves(CLIPS, 2, NAMES, ABSENT[absent])
    outputs = task({"plain": batch}, torch.Generator())
    rows = {name: through(task.heads[name], rows_of(batch, name)) for name in NAMES}
    expected = mean([equation(*shared(rows[first], rows[second])) for first, second in PAIRS])
    assert_equation(outputs["loss"], expected, task, {"plain": batch})
    assert_retrieval(outputs, [(rows[first], rows[second]) for first, second in PAIRS])


@pytest.mark.parametrize("absent", ABSENT)
def test_byol_and_its_gradients_equal_the_loop(absent: str, leaves: Leaves, assert_equation: Assert) -> None:
    torch.manual_seed(0)
    task = Byol(NAMES, 8, PAIRS, hidden=6).double()
    views = {"plain": leaves(CLIPS, 2, NAMES, ABSENT[absent]), "teacher": leaves(CLIPS, 2, NAMES, seed=1)}
    outputs = task(views, torch.Generator())
    terms, pairs = [], []
    for first, second in PAIRS:
        for query, key in ((first, second), (second, first)):
            other = rows_of(views["plain"], key)
            both = {place: row for place, row in rows_of(views["plain"], query).items() if place in other}
            guesses = through(task.predictors[query], both)
            targets = {place: views["teacher"].features[key][place].detach() for place in guesses}
            terms.append(mean([2 - 2 * cosine(guess, targets[place]) for place, guess in guesses.items()]))
            pairs.append((guesses, targets))
    assert_equation(outputs["loss"], mean(terms), task, views)
    assert_retrieval(outputs, pairs)


@pytest.mark.parametrize("absent", ABSENT)
def test_crisscross_and_its_gradients_equal_its_six_terms(
    absent: str, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = CrissCross(NAMES, 8, 2, PAIRS, hidden=6, dimension=5).double()
    batch = leaves(CLIPS, 2, NAMES, ABSENT[absent])
    outputs = task({"plain": batch}, torch.Generator())
    rows = {name: through(task.heads[name], rows_of(batch, name)) for name in NAMES}
    losses, pairs = [], []
    for v, a in PAIRS:
        whole = [b for b in range(CLIPS) if all((b, k) in rows[name] for name in (v, a) for k in range(2))]
        terms = []
        for one, other in (
            ((v, 0), (v, 1)),
            ((a, 0), (a, 1)),
            ((v, 0), (a, 0)),
            ((v, 1), (a, 1)),
            ((v, 0), (a, 1)),
            ((v, 1), (a, 0)),
        ):
            sides = []
            for (name, k), (target, j) in ((one, other), (other, one)):
                guesses = task.predictors[name](torch.stack([rows[name][b, k] for b in whole]))
                wanted = [rows[target][b, j].detach() for b in whole]
                sides.append(mean([-cosine(guess, z) for guess, z in zip(guesses, wanted, strict=True)]))
            terms.append(1 + mean(sides))
        losses.append(mean(terms))
        for query, key in ((v, a), (a, v)):
            guesses = [task.predictors[query](torch.stack([rows[query][b, k] for b in whole])) for k in range(2)]
            guessed = {(b, k): guess for k in range(2) for b, guess in zip(whole, guesses[k], strict=True)}
            pairs.append((guessed, {(b, k): rows[key][b, k] for b in whole for k in range(2)}))
    assert_equation(outputs["loss"], mean(losses), task, {"plain": batch})
    assert_retrieval(outputs, pairs)


@pytest.mark.parametrize("absent", ABSENT)
def test_lejepa_and_its_gradients_equal_the_loop(absent: str, leaves: Leaves, assert_equation: Assert) -> None:
    torch.manual_seed(0)
    task = LeJepa(NAMES, 8, PAIRS, sketch=0.2, directions=7, hidden=6, dimension=5).double()
    batch = leaves(CLIPS, 2, NAMES, ABSENT[absent])
    outputs = task({"plain": batch}, torch.Generator().manual_seed(9))
    torch.manual_seed(int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(9))))
    rows = {name: through(task.heads[name], rows_of(batch, name)) for name in NAMES}
    losses = []
    for first, second in PAIRS:
        views = shared(rows[first], rows[second])
        count = len(views[0])
        centre = (views[0] + views[1]) / 2
        near = mean([(view - centre).square().mean() for view in views])
        statistics = []
        for direction in torch.randn(5, 7, dtype=torch.float64).T:
            for view in views:
                line = view @ direction / direction.square().sum().sqrt()
                # Epps & Pulley: |characteristic function - a Gaussian's|^2 under a Gaussian window over (-3, 3).
                values = []
                for step in range(-16, 17):
                    t = step * 3 / 16
                    normal = math.exp(-t * t / 2)
                    error = ((line * t).cos().sum() / count - normal).square()
                    error = error + ((line * t).sin().sum() / count).square()
                    values.append(error * normal * (3 / 16) * (0.5 if abs(step) == 16 else 1.0))
                statistics.append(count * torch.stack(values).sum())
        losses.append(0.2 * mean(statistics) + 0.8 * near)
    # lightly keeps the Gaussian window in single precision.
    assert_equation(outputs["loss"], mean(losses), task, {"plain": batch}, rtol=1e-6)
    assert_retrieval(outputs, [(rows[first], rows[second]) for first, second in PAIRS])


@pytest.mark.parametrize("kind", [VicReg, BarlowTwins, Byol, CrissCross, LeJepa])
def test_batch_without_valid_rows_has_zero_loss_with_gradient(
    kind: type[PairAgreement], leaves: Leaves, assert_waits: Assert
) -> None:
    arguments = {"segments": 2} if kind is CrissCross else {}
    task = kind(NAMES, 8, pairs=PAIRS, hidden=6, **arguments).double()  # pyright: ignore
    # Three rows with sound are too few.
    batch = leaves(CLIPS, 2, NAMES, {("audio", b) for b in range(2, CLIPS)} | {("audio", 1, 1)})
    assert_waits(task({"plain": batch, "teacher": batch}, torch.Generator()), task)


def test_lejepa_uses_the_batch_generator_and_penalises_collapse(leaves: Leaves) -> None:
    torch.manual_seed(0)
    task = LeJepa(NAMES, 8, hidden=6, dimension=5, sketch=1.0).double().eval()
    batch = leaves(32, 2, NAMES)
    losses = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        losses.append(float(task({"plain": batch}, torch.Generator().manual_seed(7))["loss"].detach()))
        assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    task.heads = torch.nn.ModuleDict({name: torch.nn.Identity() for name in NAMES})
    healthy = float(task({"plain": batch}, torch.Generator())["loss"].detach())
    batch.features = {name: torch.zeros_like(feature) for name, feature in batch.features.items()}
    assert float(task({"plain": batch}, torch.Generator())["loss"]) > 5 * healthy
