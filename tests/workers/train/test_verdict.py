import numpy as np
import pytest

from workers.train.grading import CORRECTED, PRIMARY, SIMILARITY, corrected_f1, grades_of
from workers.train.verdict import Graded, bootstrap, decide

MARGIN = 0.01


def model(role: str, scores: list[float], *, errors: int = 0, **grades: float) -> Graded:
    """A model whose deciding grades are these, and whose other grades are the same unless given."""
    rows = [
        {CORRECTED: score, "token_f1": score, "exact_match": float(score > 0.9), SIMILARITY: score, **grades}
        for score in scores
    ]
    return Graded(f"{role}-model", role, rows, errors)


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("Four metres.", "four metres", 1.0, 1.0),
        ("four", "four metres", 0.0, 2 / 3),
        ("", "four", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("cat", "dog", 0.0, 0.0),
        ("a a b", "a b b", 0.0, 2 / 3),
        ("four metres", "metres four", 0.0, 1.0),
    ],
)
def test_grades_of_texts(answer: str, reference: str, exact: float, f1: float) -> None:
    """Case and punctuation do not count, order counts for exactness only, words are counted."""
    grades = grades_of(answer, reference)
    assert exact == grades["exact_match"]
    assert f1 == pytest.approx(grades["token_f1"])


def test_wrong_answers_are_worth_less_than_none() -> None:
    """Other examples' answers share common words with the right ones: corrected for chance they fall below silence."""
    references = ["The lock opens at seven.", "The gate is by the weir.", "The basin is four metres deep."]
    right = corrected_f1([(text, text) for text in references])
    turned = references[1:] + references[:1]
    wrong = corrected_f1(list(zip(turned, references, strict=True)))
    silent = corrected_f1([("I do not know", text) for text in references])
    assert min(right) > 0.5
    assert np.mean(wrong) < np.mean(silent)
    assert [0.0] * 3 == corrected_f1([(None, text) for text in references])


def test_one_reference_for_all_leaves_nothing_to_correct_by() -> None:
    """Where every example wants the same answer, plain F1 decides."""
    assert [1.0, 0.0] == corrected_f1([("yes", "yes"), ("no", "yes")])


def test_the_bootstrap_is_repeatable_and_brackets_the_mean() -> None:
    """The same differences and seed give the same interval, near the normal one for a large sample."""
    values = np.random.default_rng(7).normal(0.2, 0.3, 400).tolist()
    one, two = bootstrap(values, 1), bootstrap(values, 1)
    assert one == two
    error = 1.96 * np.std(values) / 20
    assert one.low == pytest.approx(np.mean(values) - error, abs=0.01)
    assert one.high == pytest.approx(np.mean(values) + error, abs=0.01)


@pytest.mark.parametrize("count", [1, 25, 2500])
def test_a_bootstrap_of_any_size_fits_into_memory(count: int) -> None:
    """A large holdout is resampled in parts."""
    assert bootstrap([0.5] * count, 1).low == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("tuned", "base", "promote", "says"),
    [
        (model("tuned", [0.9] * 30), model("base", [0.1] * 30), True, "clears the margin"),
        (model("tuned", [0.1] * 30), model("base", [0.9] * 30), False, "does not clear the margin"),
        (model("tuned", [0.5] * 30), model("base", [0.5] * 30), False, "does not clear the margin"),
        (model("tuned", [0.505] * 30), model("base", [0.5] * 30), False, "does not clear the margin"),
        (
            model("tuned", [0.9] * 30, similarity=0.2),
            model("base", [0.1] * 30, similarity=0.6),
            False,
            "similarity falls by 0.400",
        ),
        (model("tuned", [0.9] * 30, errors=3), model("base", [0.1] * 30), False, "3 answers failed"),
        (model("tuned", [0.9] * 30), model("base", [0.1] * 30, errors=20), False, "no model to compare with"),
    ],
)
def test_only_a_better_model_is_promoted(tuned: Graded, base: Graded, promote: bool, says: str) -> None:
    """Beyond doubt, by more than the margin, and in nothing worse; the reason says which of these failed."""
    verdict = decide(tuned, [base], MARGIN, 1)
    assert promote is verdict.promote
    assert says in verdict.reason
    assert ["base", "tuned"] == [row["role"] for row in verdict.table]


def test_the_serving_model_has_to_be_beaten_too() -> None:
    """A model that beats its base and not the one in service stays outside; one that cannot answer is left out."""
    tuned, base = model("tuned", [0.6] * 30), model("base", [0.1] * 30)
    refused = decide(tuned, [base, model("serving", [0.8] * 30)], MARGIN, 1)
    assert not refused.promote
    assert "against the serving model" in refused.reason
    assert decide(tuned, [base, model("serving", [0.0] * 30, errors=30)], MARGIN, 1).promote


@pytest.mark.parametrize(("mean", "low", "high"), [(0.0, 0.0, 0.04), (0.1, 0.8, 1.0)])
def test_chance_is_not_promoted_and_a_real_gain_is(mean: float, low: float, high: float) -> None:
    """Of models that are no better at most 4 % get through; of those 0.1 better at n = 100 at least 80 %."""
    random = np.random.default_rng(42)
    sizes = [100] * 400 if mean else [25, 50, 75, 100, 125, 150, 175, 200] * 50
    promoted = 0
    for seed, size in enumerate(sizes):
        promoted += bootstrap(random.normal(mean, 0.3, size).tolist(), seed).low > MARGIN
    assert low <= promoted / len(sizes) <= high
    assert PRIMARY == CORRECTED
