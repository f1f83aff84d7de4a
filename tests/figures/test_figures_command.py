"""The command `figures` and the tables that users bring."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from figures.cli import main
from figures.figures_cli import figures
from figures.registry import all_figures
from figures.tables import TABLES, read_table
from sims.store import Result, Store
from theory.console import REFUSED, Refusal


def write_csv(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(values.tolist() for values in table.values()), strict=True))
    return path


def run(*arguments):
    """Through the root's refusal handling, wherever the root has registered the command."""
    main.add_command(figures)
    return CliRunner().invoke(main, ["figures", *map(str, arguments)])


def test_figures_come_in_one_order_whichever_module_is_imported_first():
    script = "import figures.curves, figures.bits, figures.registry; print(*figures.registry.all_figures())"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert found == list(all_figures()) == ["loss-threshold", "feasible-region", "bits", "next-token", "training-curve"]


def test_a_users_csv_is_drawn(tmp_path, make_runs):
    path = write_csv(tmp_path / "mine.csv", make_runs())
    result = run("--table", f"runs={path}", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    for line, name in zip(lines, ("loss-threshold", "feasible-region", "bits"), strict=False):
        assert line.startswith(f"{tmp_path / 'figures' / name}.png ")
    assert lines[3].startswith("next-token not drawn: no rows in table next_token")
    assert lines[4].startswith("training-curve not drawn: no rows in table curves")
    assert len(lines) == 5


def test_a_users_parquet_is_read_as_the_csv_is(tmp_path, make_runs):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    runs = make_runs()
    path = tmp_path / "mine.parquet"
    parquet.write_table(pyarrow.table({name: pyarrow.array(values.tolist()) for name, values in runs.items()}), path)
    one, other = read_table(path, "runs"), read_table(write_csv(tmp_path / "mine.csv", runs), "runs")
    assert list(one) == list(other) == list(runs)
    for name, values in runs.items():
        np.testing.assert_array_equal(one[name], values)
        np.testing.assert_array_equal(other[name], values)


def test_a_store_is_drawn(tmp_path, make_runs):
    runs = make_runs()
    spec_columns = ("width", "seed", "size", "answers", "exposures")
    defaults = {"network": "mlp", "learning_rate": 0.1, "facts": "synthetic facts, uniform", "labels_random": "uniform"}
    probabilities = np.full((2, 4), 0.25)
    with Store(tmp_path / "runs.sqlite") as store:
        for row in range(len(runs["size"])):
            spec = defaults | {name: int(runs[name][row]) for name in spec_columns}
            metrics = {
                name: float(runs[name][row]) for name in runs if name not in (*spec_columns, "fingerprint", "status")
            }
            arrays = {
                "curve_exposures": np.array([1.0, 10.0]),
                "curve_loss_nats": np.array([3.0, 2.0]),
                "shown_probabilities": probabilities,
                "shown_labels": np.array([1, 2]),
            }
            store.put(Result("fact-run", spec, "finished", metrics, arrays))
        spec = defaults | {"width": 16, "seed": 0, "size": 4096, "answers": 32, "exposures": 250}
        store.put(Result("fact-run", spec, "diverged", {"parameters": 1000}, {
            "curve_exposures": np.array([1.0]), "curve_loss_nats": np.array([np.nan])}))  # fmt: skip
    result = run("--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["not_drawn"] == {}
    assert len(document["written"]) == 15
    assert all((tmp_path / "figures" / path.rsplit("/", 1)[-1]).is_file() for path in document["written"])


def test_the_list_documents_every_table_and_column(tmp_path):
    text = run("--list").output
    assert all(f"  {column} " in text for columns in TABLES.values() for column in columns)
    document = json.loads(run("--list", "--json").output)
    assert set(document["tables"]) == set(TABLES)
    assert document["figures"]["loss-threshold"]["claims"] == ["T1", "T3", "T7", "T8"]


def test_help_has_an_example():
    assert "loss-threshold figures --table runs=my_runs.csv" in run("--help").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["histogram"], "no figure is called 'histogram'; the figures are loss-threshold"),
        ([], "there is no such store; run `loss-threshold sweep`"),
        (["--table", "runs"], "say which table the file is"),
        (["--table", "run=FILE"], "no table is called run; the tables are runs"),
        (["--table", "runs=ABSENT"], "there is no such file"),
        (["next-token", "--table", "runs=FILE"], "no rows in table next_token"),
        (["--table", "runs=FILE", "--table", "runs=FILE"], "given twice"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(arguments, words, tmp_path, make_runs):
    path = write_csv(tmp_path / "mine.csv", make_runs())
    filled = [one.replace("FILE", str(path)).replace("ABSENT", str(tmp_path / "absent.csv")) for one in arguments]
    result = run(*filled, "--out", tmp_path / "out")
    assert result.exit_code == REFUSED
    assert words in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"size,loss_nats\n", "the file has no rows"),
        (b"length,loss\n1,2\n", "it has no column of table runs"),
        (b"size,size\n1,2\n", "line 1: column 'size' appears twice; rename one"),
        (b"size,loss_nats\n128\n", "line 2: 1 cells where the header has 2; repair the line"),
        (b"size,loss_nats\n\n128,0.1\n256,x\n", "line 4: loss_nats is 'x'; it must be a number"),
        (b"size,loss_nats\n128,1_0\n", "line 2: loss_nats is '1_0'; it must be a number"),
        (b"size,loss_nats\n128,-1\n", "line 2: loss_nats is '-1'; it must be a number, at least 0"),
        (b"size,hallucination_greedy\n128,97\n", "it must be a number, at least 0 and at most 1"),
        (b"size,loss_nats\n128.5,0.1\n", "line 2: size is '128.5'; it must be a whole number"),
        (b"size,until_stored\n128,maybe\n", "it must be true or false, 1 or 0"),
        (b"size,loss_nats\n128,\xff\n", "not UTF-8; save the file as UTF-8"),
        (b'size,loss_nats\n128,"1\n', "repair the quoting"),
    ],
)
def test_a_file_that_cannot_be_read_names_the_line_and_the_remedy(content, words, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        read_table(path, "runs")
    assert str(path) in str(refusal.value)
    assert words in str(refusal.value)


def test_a_file_of_no_known_format_is_refused(tmp_path):
    path = tmp_path / "mine.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(Refusal, match=r"save it as \.csv or \.parquet"):
        read_table(path, "runs")
    path = tmp_path / "mine.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(Refusal, match="not a readable Parquet file"):
        read_table(path, "runs")


def test_cells_are_read_as_what_their_column_holds(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "\ufeffsize,loss_nats,network,until_stored,note\n128, 0.5 ,mlp,True,a\n256,,,0,b\n", encoding="utf-8"
    )
    table = read_table(path, "runs")
    assert list(table) == ["size", "loss_nats", "network", "until_stored"]
    np.testing.assert_array_equal(table["size"], [128, 256])
    np.testing.assert_array_equal(table["loss_nats"], [0.5, np.nan])
    assert table["network"].tolist() == ["mlp", ""]
    assert table["until_stored"].tolist() == [True, False]
