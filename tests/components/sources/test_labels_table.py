"""Tables of labels as spreadsheets, scripts and people write them."""

import unicodedata

import pytest

from fewlabels.components.sources.labels_table import read_labels_csv, read_tables
from fewlabels.errors import DataError

NAMES = ["cat/0.png", "cat/1.png", "dog/0.png"]


def read(folder, text, names=NAMES):
    table = folder / "labels.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels_csv(table, folder, names)


@pytest.mark.parametrize(
    "text",
    [
        "file,label\ncat/0.png,cat\ndog/0.png,dog\n",
        "file, label\ncat/0.png, cat\n dog/0.png ,dog \n",
        "\ufefffile,label\r\ncat/0.png,cat\r\ndog/0.png,dog\r\n,\r\n,\r\n\r\n",  # a spreadsheet
        "File,LABEL\ncat/0.png,cat\ndog/0.png,dog",
        "file;label\ncat/0.png;cat\ndog/0.png;dog\n",  # where a comma is the decimal point
        "file\tlabel\ncat/0.png\tcat\ndog/0.png\tdog\n",
        "label,file,probability\ncat,cat/0.png,0.9\ndog,dog/0.png,0.8\n",
        'file,label\n"cat/0.png","cat"\n"dog/0.png", "dog"\n',
        "file,label\ncat\\0.png,cat\ndog\\0.png,dog\n",  # Windows
        "file,label\n./cat/0.png,cat\ncat/../dog//0.png,dog\n",
        "file,label\nCAT/0.PNG,cat\nDog/0.png,dog\n",
        "file,label\ncat/0.png,cat,\ndog/0.png,dog,\n",
        "file,label\ncat/0.png,cat\ncat/1.png\ndog/0.png,dog\n",  # one without a label
        "file,label\ncat/0.png,cat\ncat/1.png,\u00a0\ndog/0.png,dog\n",
        "\n;;\nfile;label\ncat/0.png;cat\ndog/0.png;dog\n",
        "sep=;\nfile;label\ncat/0.png;cat\ndog/0.png;dog\n",  # Excel
    ],
)
def test_a_table_is_read_as_it_is_meant(text, tmp_path):
    assert read(tmp_path, text) == ["cat", None, "dog"]


def test_whole_paths_are_taken_apart(tmp_path):
    text = f"file,label\n{tmp_path}/cat/0.png,cat\n{tmp_path}/dog/0.png,dog\n"
    assert read(tmp_path, text) == ["cat", None, "dog"]


def test_accents_mean_the_same_in_either_form_of_unicode(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    text = f"file,label\n{composed}.png,{apart}\n1.png,{composed}\n"
    assert read(tmp_path, text, [f"{apart}.png", "1.png"]) == [composed, composed]


def test_a_name_means_the_file_that_has_it_exactly(tmp_path):
    names = ["a\\b.png", "a/b.png", "A/b.png"]
    text = "file,label\na\\b.png,one\nA/b.png,two\na/b.png,three\n"
    assert read(tmp_path, text, names) == ["one", "three", "two"]
    with pytest.raises(DataError, match=r"line 2: a/B\.png"):  # which of two?
        read(tmp_path, "file,label\na/B.png,one\n", names[1:])


def test_names_with_a_line_break_or_blanks_at_their_ends_are_read_as_they_are_written(tmp_path):
    names = [" 1.png", "new\nline.png", "2.png ", "3.png"]
    text = 'file,label\n 1.png,one\n"new\nline.png",two\n2.png ,three\n3.png,four\n'
    assert read(tmp_path, text, names) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cat/0.png,cat\n", "must name the columns file and label, and is cat/0.png,cat"),
        ("", "must name the columns file and label, and is empty"),
        ("file,label,Label\n", "names the column label twice; keep one"),
        ("file,label\ncat/0.png,\n9.png,x\n", r"1 file is not among .* \(line 3: 9\.png\)"),
        (
            "file,label\n" + "".join(f"{n}.png,x\n" for n in range(5)),
            r"5 files are not .* \(line 2: 0\.png, line 3: 1\.png, line 4: 2\.png and 2 more\)",
        ),
        (
            "file,label\ncat/0.png,a\n\ndog/0.png,a\ncat\\0.png,b\n",
            r"1 file is listed twice \(lines 2 and 5: cat/0\.png\); keep one row",
        ),
        ("file,label\n,cat\n", r"labels\.csv:2: names no file"),
        ("\nsep=,\nfile,label\n,cat\n", r"labels\.csv:4: names no file"),
        (
            "file,label\ncat/0.png," + "x" * 200_000,
            r"labels\.csv:2: a cell of over 131,072 letters",
        ),
        ("file,label\na, b.png,cat\n", r"labels\.csv:2: 3 cells, where the first line has 2"),
        ("file,label\ncat/0.png,c\0at\n", r"labels\.csv:2: holds a NUL"),
        ('file,label\ncat/0.png,cat\ncat/1.png,"cat\ndog/0.png,dog\n', r"labels\.csv:3: a quote"),
        ('file,label\ncat/1.png,"cat\ndog/0.png,"dog"\n', r"labels\.csv:2: a quote that opens"),
        ('file,label\n"cat/1.png,cat\ndog/0.png",dog\n', r"labels\.csv:2: a quote that opens"),
        ('file,label\n"cat"s.png,cat\n', r"labels\.csv:2: a quote that opens"),
        (
            'file,label\ncat/0.png,"cat\n' + "dog/0.png,dog\n" * 12_000,
            r"labels\.csv:2: a quote that opens",
        ),
        ("file,label\ncat/0.png,café\n".encode("latin-1"), "is not UTF-8"),
        ("file,label\ncat/0.png,cat\n".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_mistake_is_told_by_its_line(text, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence) as caught:
        read(tmp_path, text)
    assert len(str(caught.value)) < 500


def test_several_tables_count_together(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("file,label\ncat/0.png,cat\ncat/1.png,\n")
    two.write_text("file,label,guess\ncat/1.png,cat,dog\ncat/0.png,cat,\ndog/0.png,,dog\n")
    assert read_tables([one, two], tmp_path, NAMES) == ["cat", "cat", None]
    two.write_text("file,label\ncat/0.png,dog\n")
    with pytest.raises(DataError, match=r"cat/0.png is 'cat' in .*one.csv and 'dog' in .*two.csv"):
        read_tables([one, two], tmp_path, NAMES)
