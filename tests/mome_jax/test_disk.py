from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from mome_jax.container import encode, row_checksums
from mome_jax.disk import DiskBank
from mome_jax.experts import Bank, Values, read
from mome_jax.index import NULL, Selection
from mome_jax.saving import load, peek, save

EXPERTS, WIDTH = 3000, 8


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(EXPERTS, WIDTH)).astype(np.float32)


@pytest.fixture
def bank(tmp_path: Path, values: np.ndarray):
    with DiskBank.store(tmp_path / "bank", values, {"model": "small"}) as bank:
        yield bank


def test_a_new_bank_is_zeros_and_sparse(tmp_path):
    with DiskBank.create(tmp_path / "bank", 2**24, 64) as bank:
        assert (bank.experts, bank.width, bank.dtype) == (2**24, 64, np.float32)
        assert not bank.read_rows(np.array([0, 2**24 - 1])).any()
        assert bank.path.stat().st_size > 2**32 > 2**12 * bank.path.stat().st_blocks


def test_rows_beyond_four_gibibytes(tmp_path):
    ids = np.array([2**24 - 1, 2**23 + 1, 5, 2**23])  # offsets beyond 2^31 and, the first, almost 2^32
    rows = np.arange(256, dtype=np.float32).reshape(4, 64)
    with DiskBank.create(tmp_path / "bank", 2**24, 64) as bank:
        bank.write_rows(ids, rows)
    with DiskBank.open(tmp_path / "bank") as bank:
        np.testing.assert_array_equal(bank.read_rows(ids), rows)
        assert not bank.read_rows(ids - 2).any()
    assert peek(tmp_path / "bank")


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_reading_is_bit_for_bit_that_in_memory(tmp_path, values, dtype):
    in_memory = Values(jnp.asarray(values.astype(dtype)))
    random = np.random.default_rng(1)
    experts = random.integers(0, EXPERTS, (64, 5)).astype(np.int32)
    experts[::3, 1], experts[7, 0], experts[8, 3], experts[9] = NULL, EXPERTS, -2, 17
    weights = random.random((64, 5)).astype(np.float32)
    selections = Selection(jnp.asarray(experts), jnp.asarray(weights))
    one = Selection(selections.experts[9], selections.weights[9])
    expected = np.asarray(jax.jit(jax.vmap(read, in_axes=(None, 0)))(in_memory, selections))
    with DiskBank.store(tmp_path / "bank", values.astype(dtype)) as bank:
        assert isinstance(bank, Bank)
        answers = jax.jit(jax.vmap(Values.answer))(bank.gather(selections.experts), selections.weights)
        assert np.asarray(answers).tobytes() == expected.tobytes()
        traced = jax.jit(jax.vmap(partial(read, bank)))(selections)
        assert np.asarray(traced).tobytes() == expected.tobytes()
        assert np.asarray(read(bank, one)).tobytes() == np.asarray(read(in_memory, one)).tobytes()
        gathered = np.asarray(bank.gather(selections.experts).values)
        assert gathered.tobytes() == np.asarray(in_memory.gather(selections.experts).values).tobytes()
    assert np.isnan(expected[7:9]).all()
    assert np.isfinite(np.delete(expected, [7, 8], axis=0)).all()


def test_the_whole_bank_answers(bank, values):
    weights = jnp.asarray(np.random.default_rng(2).random(EXPERTS).astype(np.float32))
    np.testing.assert_array_equal(bank.answer(weights), Values(jnp.asarray(values)).answer(weights))


@given(st.lists(st.lists(st.integers(0, 19), unique=True, max_size=20), max_size=6), st.integers(0, 2**32 - 1))
def test_any_writes_leave_what_they_would_in_memory(tmp_path_factory, batches, seed):
    path = tmp_path_factory.mktemp("bank") / "bank"
    random, expected = np.random.default_rng(seed), np.zeros((20, 3), np.uint8)
    DiskBank.create(path, 20, 3, np.uint8).close()
    for batch in batches:
        rows = random.integers(0, 256, (len(batch), 3)).astype(np.uint8)
        with DiskBank.open(path, writable=True) as bank:
            bank.write_rows(
                np.array([*batch, NULL]),
                np.concatenate([rows, rows[:1] if batch else [[1, 2, 3]]], dtype=np.uint8, casting="unsafe"),
            )
            expected[batch] = rows
            np.testing.assert_array_equal(bank.read_rows(np.arange(20)), expected)
    for mapped in (True, False):
        with DiskBank.open(path, mapped=mapped) as bank:
            bank.verify()
            np.testing.assert_array_equal(bank.read_rows(np.array([[3, 19], [0, 3]])), expected[[[3, 19], [0, 3]]])
    np.testing.assert_array_equal(load(path)[0]["values"], expected)


def test_it_is_a_file_of_arrays(bank, values, tmp_path):
    bank.write_rows(np.array([3]), np.ones((1, WIDTH), np.float32))
    expected = values.copy()
    expected[3] = 1
    bank.flush()
    arrays, header = load(bank.path)
    assert arrays.keys() == {"values"}
    assert bank.header == {"model": "small"}
    assert header.items() >= bank.header.items()
    np.testing.assert_array_equal(arrays["values"], expected)
    np.testing.assert_array_equal(safetensors.numpy.load_file(bank.path)["values"], expected)
    with DiskBank.store(tmp_path / "copy", jnp.asarray(arrays["values"])) as copy:
        np.testing.assert_array_equal(copy.read_rows(np.arange(EXPERTS)), expected)


def test_shapes_of_ids(bank, values):
    assert bank.read_rows(np.zeros((0,), np.int32)).shape == (0, WIDTH)
    assert bank.read_rows(np.zeros((2, 0, 3), np.int32)).shape == (2, 0, 3, WIDTH)
    np.testing.assert_array_equal(bank.read_rows(np.array(5)), values[5])
    np.testing.assert_array_equal(bank.read_rows(jnp.array([[5, 5], [6, 5]])), values[[[5, 5], [6, 5]]])
    assert np.isnan(bank.read_rows(np.array([2**40, -(2**40)]))).all()
    assert np.isnan(bank.read_rows(np.array([2**64 - 1], np.uint64))).all()
    with pytest.raises(ValueError, match="experts are integers, not float64"):
        bank.read_rows(np.array([1.0]))


@pytest.mark.parametrize(
    ("experts", "rows", "message"),
    [
        ([1, 2, 1], np.ones((3, WIDTH), np.float32), "expert 1 is given 2 times; combine its rows first"),
        ([EXPERTS], np.ones((1, WIDTH), np.float32), "expert 3000 is not one of the 3000"),
        ([-2], np.ones((1, WIDTH), np.float32), "expert -2 is not one"),
        ([2**40], np.ones((1, WIDTH), np.float32), "is not one"),
        ([1], np.ones((2, WIDTH), np.float32), "do not fit"),
        ([1], np.ones((1, WIDTH + 1), np.float32), "do not fit"),
        ([[1]], np.ones((1, WIDTH), np.float32), "do not fit"),
        ([1], np.ones((1, WIDTH)), "the bank holds float32, the rows are float64; convert them"),
    ],
)
def test_a_refused_write_changes_nothing(bank, values, experts, rows, message):
    with pytest.raises(ValueError, match=message):
        bank.write_rows(np.array(experts), rows)
    np.testing.assert_array_equal(bank.read_rows(np.arange(EXPERTS)), values)


def test_writing_nothing(bank, values):
    bank.write_rows(np.zeros(0, np.int32), np.zeros((0, WIDTH), np.float32))
    bank.write_rows(np.array([NULL, NULL]), np.ones((2, WIDTH), np.float32))
    np.testing.assert_array_equal(bank.read_rows(np.arange(EXPERTS)), values)


def test_integers_have_no_nan(tmp_path):
    with DiskBank.create(tmp_path / "bank", 4, 2, np.int8) as bank, pytest.raises(ValueError, match="int8 has no NaN"):
        bank.read_rows(np.array([4]))


def test_a_damaged_row_is_named_and_can_be_written_again(bank, values):
    bank.close()
    content = bytearray(bank.path.read_bytes())
    place = content.index(values[1234].tobytes())
    content[place + 5] ^= 0x80
    bank.path.write_bytes(content)
    for mapped in (True, False):
        with DiskBank.open(bank.path, mapped=mapped) as damaged:
            for reading in (lambda: damaged.read_rows(np.array([1, 1234])), damaged.verify):
                with pytest.raises(ValueError, match="1 rows do not have their checksums, first that of expert 1234"):
                    reading()
            np.testing.assert_array_equal(damaged.read_rows(np.array([1, 1233, 1235])), values[[1, 1233, 1235]])
    with pytest.raises(ValueError, match="1 rows of values do not have their checksums, first row 1234"):
        load(bank.path)
    with DiskBank.open(bank.path, writable=True) as damaged:
        damaged.write_rows(np.array([1234]), values[1234:1235])
        damaged.verify()


def test_one_writes_or_several_read(bank):
    for writable in (True, False):
        with pytest.raises(ValueError, match="elsewhere; close it there first"):
            DiskBank.open(bank.path, writable=writable)
    bank.close()
    with DiskBank.open(bank.path) as first, DiskBank.open(bank.path) as second:
        np.testing.assert_array_equal(first.read_rows(np.arange(9)), second.read_rows(np.arange(9)))
        with pytest.raises(ValueError, match="is open elsewhere"):
            DiskBank.open(bank.path, writable=True)
        with pytest.raises(ValueError, match="is open for reading"):
            first.write_rows(np.array([1]), np.ones((1, WIDTH), np.float32))


def test_a_closed_bank_says_so(bank):
    bank.close()
    bank.close()
    for use in (lambda: bank.read_rows(np.array([1])), bank.verify, bank.flush):
        with pytest.raises(ValueError, match="is closed; open it again"):
            use()


def test_what_is_no_bank_is_refused(tmp_path, bank):
    save(tmp_path / "arrays", {"values": np.ones((2, 2))}, {})
    with pytest.raises(ValueError, match="holds arrays, but is no bank on disk"):
        DiskBank.open(tmp_path / "arrays")
    with pytest.raises(ValueError, match="cannot be opened"):
        DiskBank.open(tmp_path / "absent")
    with pytest.raises(ValueError, match="exists and was left"):
        DiskBank.create(bank.path, 2, 2)
    for experts, width in ((0, 1), (1, 0), (2**31, 1)):
        with pytest.raises(ValueError, match="are no bank"):
            DiskBank.create(tmp_path / "new", experts, width)
    with pytest.raises(ValueError, match=r"shape \[M v\], these have \[3\]"):
        DiskBank.store(tmp_path / "new", np.ones(3))
    with pytest.raises(ValueError, match="a name of the bank's own"):
        DiskBank.create(tmp_path / "new", 2, 2, header={"disk_bank": "x"})
    bank.close()
    DiskBank.open(bank.path, writable=True).close()  # what was refused holds no lock
    assert not (tmp_path / "new").exists()


@given(st.binary(min_size=12, max_size=12), st.lists(st.tuples(st.integers(0, 11), st.integers(1, 255)), min_size=1))
def test_a_changed_row_has_another_checksum(row, changes):
    before = np.frombuffer(row, np.uint8)
    after = before.copy()
    for place, bits in changes:
        after[place] ^= bits
    rows = np.stack([before, after])
    first, second = row_checksums(rows)
    assert (first == second) == bool((before == after).all())
    # The type does not matter, only the bytes do; rows that are no whole number of words are filled up with zeros.
    np.testing.assert_array_equal(row_checksums(rows.view(np.float16)), [first, second])
    np.testing.assert_array_equal(row_checksums(rows[:, :11]), row_checksums(np.pad(rows[:, :11], ((0, 0), (0, 1)))))


def test_the_checksum_of_a_bank_is_that_of_its_rows(bank, values, tmp_path):
    """Kept in the file and moved by each write, against the sum over all rows as they are."""

    def of(rows):
        return sum(int(checksum) * (2 * i + 1) for i, checksum in enumerate(row_checksums(rows))) % 2**64

    assert bank.checksum == of(values)
    random, rows = np.random.default_rng(3), values.copy()
    for count in (1, 17, 900):
        experts = random.permutation(EXPERTS)[:count]
        rows[experts] = random.normal(size=(count, WIDTH))
        foretold = bank.checksum_with(experts, rows[experts])
        assert foretold != bank.checksum
        bank.write_rows(experts, rows[experts])
        assert bank.checksum == foretold == of(rows)
    places = np.array([5, 1030])
    assert bank.checksum_with(places, rows[places[::-1]]) != bank.checksum  # they change places
    bank.write_rows(np.arange(EXPERTS), values)
    assert bank.checksum == of(values)
    bank.verify()
    bank.close()
    content = bytearray(bank.path.read_bytes())
    content[-values.nbytes - 1] ^= 1
    bank.path.write_bytes(content)
    with DiskBank.open(bank.path) as damaged, pytest.raises(ValueError, match="do not have the sum"):
        damaged.verify()
    with DiskBank.create(tmp_path / "empty", 1024, 4) as empty:
        assert empty.checksum == 0


@pytest.mark.parametrize("experts", [1024, 1000])  # their checksums fill a page, or leave room
def test_a_bank_made_before_its_checksum_was_kept(tmp_path, experts):
    values = np.random.default_rng(4).normal(size=(experts, WIDTH)).astype(np.float32)
    bank = DiskBank.store(tmp_path / "new", values)
    expected, header = bank.checksum, bank.header
    bank.close()
    pages = (np.dtype("<u4"), (1024,)), (np.dtype("<f4"), (experts, WIDTH))
    start, _ = encode(
        dict(zip(("checksums", "values"), pages, strict=True)),
        {**header, "disk_bank": "0" * 32},
        {"values": "checksums"},
        4096,
    )
    checksums = np.zeros(1024, "<u4")
    checksums[:experts] = row_checksums(values)
    (tmp_path / "old").write_bytes(start + checksums.tobytes() + values.tobytes())
    with DiskBank.open(tmp_path / "old", writable=True) as old:
        assert old.checksum == expected
        foretold = old.checksum_with(np.array([3]), values[:1])
        old.write_rows(np.array([3]), values[:1])
        assert old.checksum == foretold != expected
        old.verify()
