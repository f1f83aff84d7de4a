"""The judge, and the reading of tables of losses, the awkward ones included."""

import math

import numpy as np
import pytest

from theory import capacity, memorizers
from theory.console import Refusal
from theory.judge import judge
from theory.loss_tables import read_losses


def verdicts(judgment):
    return {finding.claim: finding.verdict for finding in judgment.findings}


def random_network(facts=200, answers=8, seed=0):
    """Logits of a network that stored some facts well, some badly, some not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(answers, size=facts)
    logits = rng.normal(size=(facts, answers))
    logits[np.arange(facts), labels] += rng.choice([0.0, 2.0, 9.0], size=facts)
    return memorizers.cross_entropies(logits, labels), ~memorizers.greedy_wrong(logits, labels)


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_network_violates_nothing(seed):
    losses, right = random_network(seed=seed)
    judgment = judge(losses.astype(np.float32), right, answers=8, entropy_nats=np.zeros(len(losses)))
    assert judgment.violated == ()
    assert {name for name, verdict in verdicts(judgment).items() if verdict == "holds"} == {"T1", "T2", "T3", "F5"}
    assert judgment.mean_loss_nats == pytest.approx(losses.mean(), rel=1e-6)
    assert judgment.hallucination_greedy == pytest.approx((1 - right.mean(),) * 2)
    assert judgment.hallucination_sampled == pytest.approx(-np.expm1(-losses).mean(), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_without_greedy_the_rate_is_an_interval_around_it(seed):
    losses, right = random_network(seed=seed)
    judgment = judge(losses, answers=8)
    low, high = judgment.hallucination_greedy
    assert low <= 1 - right.mean() <= high
    assert low < high
    assert verdicts(judgment)["T1"] == "does not apply"
    assert judge(losses).hallucination_greedy == (0.0, high)  # with V unknown nothing is surely wrong


def test_a_wrong_verdict_is_found_by_number():
    losses = [0.1, 0.2, 5.0, 0.3]
    judgment = judge(losses, [True, False, True, True], answers=32)
    finding = next(finding for finding in judgment.findings if finding.claim == "T1")
    assert finding.verdict == "violated"
    assert "2 facts" in finding.detail
    assert "number 2" in finding.detail


def test_float32_noise_at_a_threshold_is_not_a_violation():
    just_below = float(np.float32(math.log(2.0))) - 2e-7
    assert judge([just_below], [False], answers=2).violated == ()
    assert judge([just_below], [False], answers=2, resolution_nats=1e-9).violated == ("T1", "T2")


def test_too_many_errors_for_the_mean_loss_break_t2():
    assert "T2" in judge([0.1, 0.1, 0.1], [True, False, True], answers=4).violated


def test_a_loss_below_the_entropy_of_the_answers_is_a_bug():
    assert judge([0.5, 0.5], entropy_nats=[math.log(2), math.log(2)]).violated == ("F5",)
    assert judge([math.log(2), math.log(2)], entropy_nats=[math.log(2), math.log(2)]).violated == ()


def test_answers_of_several_tokens_are_judged_by_t4():
    tokens = [3, 3]
    fine = judge([0.4, 2.5], [True, False], answers=4, tokens=tokens)
    assert fine.violated == ()
    assert verdicts(fine)["T4"] == "holds"
    assert verdicts(fine)["T2"] == "does not apply"
    # three tokens of loss .5 each are all decoded right, although the sum is above ln 4
    assert judge([1.5, 1.5], [True, True], answers=4, tokens=tokens).violated == ()
    assert set(judge([0.4, 0.2], [True, False], answers=4, tokens=tokens).violated) == {"T1", "T4"}


def test_capacity_claims_need_bits_and_random_labels():
    losses, right = np.zeros(1000), np.ones(1000, dtype=bool)
    silent = verdicts(judge(losses, right, answers=32, described_bits=100.0))
    assert silent["T11"] == "does not apply"
    assert verdicts(judge(losses, right, answers=32, random_labels=True))["T7"] == "does not apply"
    partial = judge(losses, right, answers=32, described_bits=100.0, random_labels=True, all_facts=False)
    assert verdicts(partial)["T7"] == "does not apply"
    impossible = judge(losses, right, answers=32, described_bits=100.0, random_labels=True)
    assert set(impossible.violated) == {"T7", "T8", "F1", "T11"}
    honest = judge(losses, right, answers=32, described_bits=5000.0, random_labels=True)
    assert honest.violated == ()


def test_capacity_claims_hold_on_the_table_that_stores_what_fits():
    for stored in (0, 50, 150, 200):
        losses = np.full(200, math.log(16))
        losses[:stored] = 0.0
        right = losses == 0.0  # the others are uniform rows, ties, so wrong
        judgment = judge(losses, right, answers=16, described_bits=4.0 * stored, random_labels=True)
        assert judgment.violated == ()
        less = judge(losses, right, answers=16, described_bits=max(0.0, 4.0 * stored - 60), random_labels=True)
        assert ("T11" in less.violated) == (stored > 10)


def test_permuted_labels_are_certified_by_their_own_entropy():
    counts = [1] * 50
    losses = np.zeros(50)
    bits = capacity.permuted_label_entropy_bits(counts)
    fine = judge(losses, described_bits=bits - 39, random_labels=True, answer_counts=counts)
    assert fine.violated == ()
    assert verdicts(fine)["T7"] == "does not apply"
    assert judge(losses, described_bits=bits - 41, random_labels=True, answer_counts=counts).violated == ("T11",)


def test_an_infinite_loss_is_legal():
    judgment = judge([0.0, math.inf], [True, False], answers=4, described_bits=10.0, random_labels=True)
    assert judgment.violated == ()
    assert judgment.mean_loss_nats == math.inf
    assert judgment.hallucination_sampled == 0.5


@pytest.mark.parametrize(
    ("losses", "options"),
    [
        ([], {}),
        ([math.nan], {}),
        ([-0.1], {}),
        ([[0.1, 0.2]], {}),
        ([0.1, 0.2], {"greedy_correct": [True]}),
        ([0.1], {"greedy_correct": [2]}),
        ([0.1], {"answers": 1}),
        ([0.1], {"tokens": [0]}),
        ([0.1], {"tokens": [1.5]}),
        ([0.1], {"entropy_nats": [math.nan]}),
        ([0.1], {"described_bits": -1.0}),
        ([0.1], {"audits": 0}),
    ],
)
def test_bad_measurements_are_refused(losses, options):
    with pytest.raises(ValueError, match="must"):
        judge(losses, **options)


# ---- reading


def write(tmp_path, text, name="losses.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_runs_columns_and_order_are_kept(tmp_path):
    path = write(
        tmp_path,
        "\ufeffrun,loss_nats,greedy_correct,tokens,entropy_nats,size,question\r\n"
        'b,0.5,True,2,0,2,"who, then?"\r\n'
        "a,INF,0,1,0.1,1,\r\n"
        "\r\n"
        "b,1e-3,false,3,.7,2,x\r\n",
    )
    file = read_losses(path)
    assert [table.run for table in file.runs] == ["b", "a"]
    first = file.runs[0]
    assert first.losses_nats.tolist() == [0.5, 0.001]
    assert first.greedy_correct.tolist() == [True, False]
    assert first.tokens.tolist() == [2, 3]
    assert first.entropy_nats.tolist() == [0.0, 0.7]
    assert first.size == 2
    assert file.runs[1].losses_nats.tolist() == [math.inf]
    assert file.unused_columns == ("question",)


def test_without_a_run_column_the_file_is_one_run(tmp_path):
    file = read_losses(write(tmp_path, "loss_nats\n0.5\n0.25\n", "mine.csv"))
    assert [table.run for table in file.runs] == ["mine"]
    assert file.runs[0].greedy_correct is None


AWKWARD = {
    "nan": ("loss_nats\n0.1\nnan\n", "line 3"),
    "negative": ("loss_nats\n-0.1\n", "line 2"),
    "text": ("loss_nats\n0.1\nlow\n", "line 3"),
    "underscore that float() takes": ("loss_nats\n1_0\n", "line 2"),
    "digits of another script": ("loss_nats\n٣\n", "line 2"),
    "decimal comma": ('loss_nats\n"0,5"\n', "line 2"),
    "hexadecimal": ("loss_nats\n0x1p3\n", "line 2"),
    "empty cell": ("run,loss_nats\na,\n", "line 2"),
    "empty optional cell": ("loss_nats,greedy_correct\n0.1,1\n0.2,\n", "line 3"),
    "empty run": ("run,loss_nats\na,0.1\n ,0.2\n", "line 3"),
    "no losses column": ("run,loss\na,0.1\n", "no column loss_nats"),
    "semicolons": ("run;loss_nats\na;0.1\n", "separated by commas"),
    "doubled column": ("loss_nats,loss_nats\n0.1,0.1\n", "twice"),
    "too many cells": ("loss_nats\n0.1\n0.1,0.2\n", "line 3"),
    "too few cells": ("run,loss_nats\na\n", "line 2"),
    "empty file": ("", "empty"),
    "header only": ("loss_nats\n", "no rows"),
    "not a truth": ("loss_nats,greedy_correct\n0.1,maybe\n", "line 2"),
    "half a token": ("loss_nats,tokens\n0.1,1.5\n", "line 2"),
    "no token": ("loss_nats,tokens\n0.1,0\n", "line 2"),
    "endless tokens": ("loss_nats,tokens\n0.1,inf\n", "line 2"),
    "endless entropy": ("loss_nats,entropy_nats\n0.1,inf\n", "line 2"),
    "mixed runs": ("loss_nats,size\n0.1,2\n0.1,4\n", "column run"),
    "more rows than the size": ("loss_nats,size\n0.1,1\n0.1,1\n", "runs mixed"),
    "not UTF-8": (b"run,loss_nats\n\xff\xfe,0.1\n", "UTF-8"),
    "open quote": ('run,loss_nats\n"a,0.1\n', "quoting"),
}


@pytest.mark.parametrize("fault", AWKWARD)
def test_awkward_files_are_refused_in_one_line(fault, tmp_path):
    text, said = AWKWARD[fault]
    path = write(tmp_path, text)
    with pytest.raises(Refusal) as refusal:
        read_losses(path)
    message = str(refusal.value)
    assert str(path) in message
    assert said in message
    assert "\n" not in message


def test_files_that_are_not_there_or_not_tables(tmp_path):
    for path in (tmp_path / "missing.csv", tmp_path, write(tmp_path, "x", "losses.xlsx")):
        with pytest.raises(Refusal):
            read_losses(path)


def test_parquet_reads_as_csv_does(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"run": ["a", "a"], "loss_nats": [0.5, math.inf], "greedy_correct": [True, False], "tokens": [1, 2]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "losses.parquet")
    from_csv = read_losses(write(tmp_path, "run,loss_nats,greedy_correct,tokens\na,0.5,1,1\na,inf,0,2\n"))
    from_parquet = read_losses(tmp_path / "losses.parquet")
    for name in ("losses_nats", "greedy_correct", "tokens"):
        assert getattr(from_csv.runs[0], name).tolist() == getattr(from_parquet.runs[0], name).tolist()


@pytest.mark.parametrize("losses", [[0.1, None], [0.1, math.nan], [0.1, -1.0], ["0.1", "x"], [True, False]])
def test_awkward_parquet_is_refused_with_its_row(losses, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "losses.parquet"
    parquet.write_table(pyarrow.table({"loss_nats": losses}), path)
    with pytest.raises(Refusal, match=r"row \d"):
        read_losses(path)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(Refusal, match="not a readable Parquet file"):
        read_losses(path)
