"""Source flickr: token files, results.csv, and parallel lines."""

import gzip
import shutil

import pytest
from ingested import ingest, picture, refused, rows, texts


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "collection/images").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        (tmp_path / "collection/images" / name).write_bytes(picture(number))
    return tmp_path


def test_a_token_file_numbers_its_captions(photos):
    lines = b'\xef\xbb\xbfa.jpg#0\tone of a\r\na.jpg#1\t two, "of" a\r\nb.jpg#0\tof\tb\r\n\r\nb.jpg#1\tcaf\xe9\r\n'
    lines += b"no tab\r\na.jpg\tno number\r\nb.jpg#2\t<b>\x00</b>\r\nx.jpg#0\tnot there\r\na.jpg#1\tagain\r\n"
    (photos / "collection/Flickr8k.token.txt").write_bytes(lines)
    ledger, drops = ingest(photos, "flickr", "*.token.txt")
    assert ledger["image"] == {"in": 3, "out": 2, "dropped": {}, "rejected": {"missing_file": 1}}
    assert ledger["caption"]["rejected"] == {"bad_encoding": 1, "bad_record": 2, "duplicate_id": 1}
    assert ledger["caption"]["dropped"] == {"image_rejected": 1}
    assert texts(photos) == {"a.jpg": ["one of a", 'two, "of" a'], "b.jpg": ["of\tb".replace("\t", " "), "<b> </b>"]}
    assert {row["id"] for row in rows(photos, "captions")} == {"a.jpg#0", "a.jpg#1", "b.jpg#0", "b.jpg#2"}
    assert {row["uri"] for row in rows(photos, "images")} == {"images/a.jpg", "images/b.jpg"}
    places = {drop["id"] for drop in drops if drop["reason"] in ("bad_record", "bad_encoding")}
    assert places == {f"Flickr8k.token.txt:{line}" for line in (5, 6, 7)}
    again = next(drop for drop in drops if drop["reason"] == "duplicate_id")
    assert again["detail"] == "'again' of a.jpg has the id of ' two, \"of\" a' of a.jpg"


def test_the_odd_name_of_flickr8k_is_its_images_first_caption(photos):
    (photos / "collection/t.txt").write_text("a.jpg.1#0\tfirst\na.jpg#1\tsecond\n")
    ledger, _ = ingest(photos, "flickr", "t.txt")
    assert ledger["image"]["in"] == 1 and texts(photos) == {"a.jpg": ["first", "second"]}


def test_results_csv_has_bars(photos):
    lines = 'image_name| comment_number| comment\na.jpg| 0| Two | bars .\nb.jpg| 4   A dog .\nb.jpg| 1| A "cat" .\n'
    (photos / "collection/results.csv").write_text(lines)
    ledger, drops = ingest(photos, "flickr", "results.csv")
    assert texts(photos) == {"a.jpg": ["Two | bars ."], "b.jpg": ['A "cat" .']}
    assert ledger["caption"] == {"in": 3, "out": 2, "dropped": {}, "rejected": {"bad_record": 1}}
    assert drops[0]["id"] == "results.csv:3" and "b.jpg| 4   A dog ." in drops[0]["detail"]


def test_parallel_lines_belong_to_the_list_that_begins_alike(photos):
    collection = photos / "collection"
    (collection / "train_images.txt").write_text("a.jpg\nb.jpg\n")
    (collection / "test_2016_images.txt").write_text("c.jpg\n")
    for number in (1, 2):
        with gzip.open(collection / f"train.{number}.en.gz", "wt") as handle:
            handle.write(f"a {number}\nb {number}\n")
    with gzip.open(collection / "test_2016.1.en.gz", "wb") as handle:
        handle.write(b"c\xff\n")
    ledger, _ = ingest(photos, "flickr", "*.en.gz", lists="*_images.txt")
    assert texts(photos) == {"a.jpg": ["a 1", "a 2"], "b.jpg": ["b 1", "b 2"]}
    assert {row["id"] for row in rows(photos, "captions")} == {"a.jpg#0", "a.jpg#1", "b.jpg#0", "b.jpg#1"}
    assert ledger["caption"]["rejected"] == {"bad_encoding": 1}


def test_files_that_do_not_fit_are_refused_in_one_line(photos):
    collection = photos / "collection"
    (collection / "captions.txt").write_text("image,caption\na.jpg,one\n")
    assert "line 1: neither `name#number<TAB>caption`" in refused(photos, "flickr", "captions.txt")
    (collection / "names.txt").write_text("a.jpg\nb.jpg\n")
    (collection / "names.en").write_text("one\n")
    said = refused(photos, "flickr", "names.en", lists="names.txt")
    assert "names.txt: line 2 has no counterpart in" in said and "names.en" in said
    assert "no list of image names belongs to it" in refused(photos, "flickr", "captions.txt", lists="names.txt")
    assert "no lists file matches 'x*'" in refused(photos, "flickr", "names.en", lists="x*")
    (collection / "cut.en.gz").write_bytes(gzip.compress(b"one\n" * 5000)[:-20])
    (collection / "cut.txt").write_text("a.jpg\n" * 5000)
    assert "cut.en.gz: cannot be read" in refused(photos, "flickr", "cut.en.gz", lists="cut.txt")


def test_flickr8k_as_it_is(shared, tmp_path):
    """80 photos lie in the reference data; the captions of the others are told as missing, none is lost."""
    source = shared / "data/flickr8k"
    shutil.copytree(source / "images", tmp_path / "collection/images")
    shutil.copyfile(source / "Flickr8k.token.txt", tmp_path / "collection/Flickr8k.token.txt")
    ledger, _ = ingest(tmp_path, "flickr", "Flickr8k.token.txt")
    assert ledger["image"] == {"in": 8092, "out": 80, "dropped": {}, "rejected": {"missing_file": 8012}}
    assert ledger["caption"]["in"] == 40460 and ledger["caption"]["out"] == 400
    assert all(len(found) == 5 for found in texts(tmp_path).values())


def test_multi30k_as_it_is(shared, tmp_path):
    """Its photos are not in the reference data: every image is told as missing, and the whole as what it is."""
    (tmp_path / "collection").mkdir()
    shutil.copytree(shared / "data/multi30k/task2", tmp_path / "collection/task2")
    settings = {"captions": "task2/raw/*.en.gz", "lists": "task2/image_splits/*_images.txt"}
    said = refused(tmp_path, "flickr", max_reject_rate=1.0, **settings)
    assert "none of 31014 images came through: missing_file 31014" in said
