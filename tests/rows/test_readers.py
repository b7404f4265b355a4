"""Calibration tables read with the standard library: CSV, TSV, JSON Lines, JSON; and columns."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgessl.calibrate import data
from edgessl.errors import RecipeError
from edgessl.rows import readers, tables
from edgessl.rows.encoding import clean_text

TEXTS = [f"text number {number}" for number in range(30)]
AWKWARD = ['say "no"', "a, b; c", "two\nlines", "Zürich 🙂", "tab\there", "'", '"']


def drawn(path: Path, column: str | None = None, samples: int = 1000) -> list[str]:
    return sorted(data.load(path, "text", samples, seed=0, column=column).items)


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_as_the_standard_library_writes_it(tmp_path: Path, delimiter: str) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["id", "text", "stars"])
        writer.writerows([number, text, 3.5] for number, text in enumerate(TEXTS + AWKWARD))
    found = data.load(tmp_path / "t.csv", "text", 1000, seed=0)
    assert sorted(found.items) == sorted(TEXTS + AWKWARD)
    assert found.column == "text" and found.to_json()["column"] == "text"
    assert found.skipped == () and found.available == len(TEXTS + AWKWARD)


def test_tsv_with_quotes_as_glue_has_them(tmp_path: Path) -> None:
    rows = ['he said "no', '"quoted ""twice"""', '"open', "plain"]
    write(tmp_path / "t.tsv", "sentence\tlabel\n" + "".join(f"{row}\t1\n" for row in rows))
    assert drawn(tmp_path / "t.tsv") == sorted(['he said "no', 'quoted "twice"', '"open', "plain"])


def test_a_first_line_with_a_number_is_no_header(tmp_path: Path) -> None:
    found = data.load(
        write(tmp_path / "t.csv", "I liked it,5\n" + "So so,3\n" * 3), "text", 9, seed=0
    )
    assert sorted(found.items) == ["I liked it", "So so"] and found.column == "1"
    assert found.notes[0] == "t.csv has no header line; its columns are called 1, 2"


def test_a_header_of_numbers_in_order_is_one(tmp_path: Path) -> None:
    assert drawn(write(tmp_path / "t.csv", "0,1\n7,good\n8,bad\n")) == ["bad", "good"]


def test_malformed_csv_lines_are_named_counted_and_left_out(tmp_path: Path) -> None:
    lines = [f"{number},text {number}" for number in range(100)]
    lines[10] += ",more"
    lines[20] = '20,"quoted"badly'
    found = data.load(write(tmp_path / "t.csv", "\n".join(["id,text", *lines])), "text", 500, 0)
    assert len(found.items) == 98
    assert found.skipped[0] == "line 12 (3 fields, the header has 2)"
    assert found.skipped[1].startswith("line 22 (")
    assert "left out 2 of 100 rows tried" in found.notes[0]


def test_lines_that_an_open_quote_takes_with_it_count(tmp_path: Path) -> None:
    lines = [f"{number},text {number}" for number in range(100)]
    lines[50] = '50,"text 50'
    with pytest.raises(
        RecipeError, match=r"50 of 100 rows tried \(50%\).*line 52 \(unexpected end"
    ):
        data.load(write(tmp_path / "t.csv", "\n".join(["id,text", *lines])), "text", 500, 0)


def test_json_lines_and_lists(tmp_path: Path) -> None:
    records = [{"text": text, "label": 1, "meta": {"a": [1]}} for text in TEXTS + AWKWARD]
    lines = "\n\n".join(json.dumps(record) for record in records)
    for name, content in (
        ("a.jsonl", lines),
        ("b.ndjson", json.dumps(records[0]) + "\r\n" + lines),
        ("c.json", json.dumps(records, indent=2)),
        ("d.json", lines),  # as many a .json on the hub is
        ("e.json", json.dumps(TEXTS + AWKWARD)),
        ("f.jsonl", "\n".join(json.dumps(text) for text in TEXTS + AWKWARD)),
    ):
        assert drawn(write(tmp_path / name, content)) == sorted(TEXTS + AWKWARD), name


@given(
    values=st.lists(
        st.one_of(st.text(max_size=9), st.integers(), st.lists(st.integers(), max_size=3))
    ),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 20),
)
@settings(deadline=None, max_examples=60)
def test_json_lists_in_chunks(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, chunk: int
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "list.json", json.dumps(values, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CHUNK", chunk)
        assert [value for _, value in readers._list_records(path)] == values


def test_a_json_list_is_not_read_into_memory(tmp_path: Path) -> None:
    text = "word " * 500
    write(tmp_path / "t.json", json.dumps([f"{number} {text}" for number in range(6000)]))
    tracemalloc.start()
    assert len(drawn(tmp_path / "t.json", samples=5)) == 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "t.json").stat().st_size > 1.5e7 and peak < 1e7


def test_malformed_json_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in TEXTS * 2]
    lines[3], lines[5], lines[8] = '{"text": ', '{"label": 3}', '{"text": ["a"]}'
    lines[9], lines[10] = '{"text": null}', '{"text": "half \\ud800"}'
    found = data.load(write(tmp_path / "t.jsonl", "\n".join(lines)), "text", 500, seed=0)
    assert sorted(found.items) == sorted(TEXTS)
    assert found.skipped == (
        "line 4 (not JSON)",
        "line 6 (has no 'text')",
        "row 9 (list, not a text)",
        "row 11 (half a surrogate pair)",
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", "", "t.json' is empty"),
        ("t.csv", "", "t.csv' is empty"),
        ("t.csv", "text,label\n", "holds no texts"),
        ("t.csv", "text,label\n  ,1\n,2\n", r"no column of texts. It has: text \(nothing\), label \(nu"),
        ("t.json", "[]", "has no column of texts"),
        ("t.json", '["a", "b"', "is not a whole JSON list: item 2 is damaged, or the end is m"),
        ("t.json", '["a", b, "c"]', "is not a whole JSON list: item 2 is damaged"),
        ("t.json", '{\n"texts": ["a"]\n}', r"neither a JSON list .* nor JSON Lines.*line 1"),
        ("t.jsonl", "1\n2\n", "neither a JSON list .*: it holds numbers"),
        ("t.jsonl", '{"a": 1, "b": [2]}', r"has no column of texts. It has: a \(numbers\), b \(li"),
        ("t.csv", "a,b\n1,2.5\n", r"no column of texts. It has: a \(numbers\), b \(numbers\)"),
        ("t.csv", "premise,hypothesis\na,b\n", "several columns of texts .premise, hypothesis.*"
         "--calibration-column premise,hypothesis"),
        ("t.jsonl", "nothing\n" * 9, "neither a JSON list .* line 1"),
    ],
)  # fmt: skip
def test_bad_tables(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        data.load(write(tmp_path / name, content), "text", 5, seed=0)


def test_not_utf8_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text,label\nZürich,1\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"not UTF-8 text \(byte 12\)"):
        data.load(tmp_path / "t.csv", "text", 5, seed=0)


def test_a_column_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "premise,hypothesis,label\na,b,1\nc,a,2\n")
    assert drawn(path, "hypothesis") == ["a", "b"]
    assert drawn(path, "premise, hypothesis") == ["a", "b", "c"]
    with pytest.raises(
        RecipeError, match="has no column 'premis'. Did you mean 'premise'. It has: "
    ):
        drawn(path, "premis")
    with pytest.raises(
        RecipeError, match="column 'label' holds numbers, not texts. Columns that do"
    ):
        drawn(path, "premise,label")


def test_a_column_with_a_comma_in_its_name(tmp_path: Path) -> None:
    assert drawn(write(tmp_path / "t.csv", '"a,b",c\nx,y\n'), "a,b") == ["x"]


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ("review", ["review"]),
        ("title text url", ["text"]),
        ("Sentence id", ["Sentence"]),
        ("sentence1 sentence2 genre", ["sentence1", "sentence2"]),
        ("question_1 question_2", ["question_1", "question_2"]),
        ("content text", ["text"]),
        ("premise hypothesis", None),
        ("a1 a2 b1 b2", None),
        ("query passage", None),
    ],
)
def test_which_column_is_taken(columns: str, chosen: list[str] | None) -> None:
    kinds = dict.fromkeys(columns.split(), "text") | {"label": "numbers"}
    if chosen:
        assert tables.choose(kinds, "text", None, Path("t")) == chosen
        return
    with pytest.raises(RecipeError, match="say which: --column "):
        tables.choose(kinds, "text", None, Path("t"))


def test_a_choice_among_columns_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "title,text\na,b\nc,d\n")
    assert data.load(path, "text", 2, seed=0).notes == (
        "took the column text; there are also title",
    )
    assert data.load(path, "text", 2, seed=0, column="text").notes == ()


def test_images_by_their_paths_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    lines = [f"pictures/{number}.png,a" for number in range(19)] + ["pictures/gone.png,b"]
    path = write(tmp_path / "list.csv", "\n".join(["file_name,class", *lines]))
    found = data.load(path, "image", 50, seed=0)
    assert {item.name for item in found.items} == {f"{number}.png" for number in range(19)}
    assert len(found.skipped) == 1 and "gone.png (no such file)" in found.skipped[0]


def test_a_folder_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "README.md", "---\n---\n")
    write(tmp_path / "dataset_infos.json", "{}")
    for split, numbers in (
        ("train-00000", range(9)),
        ("train-00001", range(9, 20)),
        ("test", [99]),
    ):
        rows = "\n".join(json.dumps({"text": f"text {number}"}) for number in numbers)
        write(tmp_path / "data" / f"{split}.jsonl", rows)
    found = data.load(tmp_path, "text", 50, seed=0)
    assert sorted(found.items) == sorted(f"text {number}" for number in range(20))
    assert found.split == "train"
    assert found.notes[0] == (
        f"took data/train-00000.jsonl, data/train-00001.jsonl of {tmp_path.name} and left out "
        "data/test.jsonl"
    )
    some = data.load(tmp_path, "text", 7, seed=3)  # from both files
    assert len(some.items) == 7 and {*some.items} <= {*found.items}


def test_a_bad_row_of_several_files_is_named_with_its_file(tmp_path: Path) -> None:
    for name, start in (("a", 0), ("b", 100)):
        rows = [json.dumps({"text": f"text {start + number}"}) for number in range(20)]
        write(tmp_path / f"{name}.jsonl", "\n".join([*rows, "{"] if name == "b" else rows))
    write(tmp_path / "c.jsonl", "")
    found = data.load(tmp_path, "text", 100, seed=0)
    assert len(found.items) == 40 and found.skipped == ("b.jsonl, line 21 (not JSON)",)


def test_a_folder_of_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(RecipeError, match=r"but compressed files \(train.jsonl.gz\); unpack"):
        data.load(tmp_path, "text", 5, seed=0)


def test_files_of_a_folder_with_different_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,stars\na,1\n")
    write(tmp_path / "b.csv", "text,price\nb,1\n")
    assert drawn(tmp_path) == ["a", "b"]
    write(tmp_path / "c.csv", "body,price\nb,1\n")
    with pytest.raises(RecipeError, match="has no column of texts"):
        drawn(tmp_path)


@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    start=st.integers(0, 25),
)
@settings(deadline=None, max_examples=40)
def test_rows_from_a_number_on(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], start: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    expected = []
    for number, size in enumerate(sizes):
        texts = [f"{number}-{row}" for row in range(size)]
        write(folder / f"{number}.jsonl", "".join(f"{json.dumps(text)}\n" for text in texts))
        expected += texts
    if not expected:
        return
    table = tables.find(folder, every=True)
    assert table is not None
    found = list(table.rows.take(["text"], start=start))
    assert found == [(row, [text]) for row, text in enumerate(expected)][start:]


def test_every_split_where_every_row_counts(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", '"a"\n')
    write(tmp_path / "test.jsonl", '"b"\n')
    table = tables.find(tmp_path, every=True)
    assert table is not None and table.notes == ()
    assert [values for _, values in table.rows.take(["text"])] == [["b"], ["a"]]


def test_lenient_reading_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,n\ncaf\xe9,1\nfine,2\n")
    table = tables.find(tmp_path / "t.csv", every=True)
    assert table is not None
    values = [row[0] for _, row in table.rows.take(["text"]) if isinstance(row, list)]
    assert [str(clean_text(value)) for value in values] == [" (not UTF-8)", "fine"]
