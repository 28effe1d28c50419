"""Source webdataset: tars are read in place, to their proper end or not at all."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from ingested import ingest, picture, refused, rows, texts


def tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
        for name, target in (links or {}).items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.SYMTYPE, target
            archive.addfile(header)


def sample(number: int, *lines: str) -> dict[str, bytes]:
    return {f"{number:06d}.png": picture(number), f"{number:06d}.txt": "\n".join(lines).encode()}


def test_two_tars_with_equal_keys_are_two_collections_of_names(tmp_path):
    tar(tmp_path / "collection/shard-0.tar", {**sample(1, "one", "more"), **sample(2, "two")})
    tar(tmp_path / "collection/b/shard-1.tar", {"000001.json": b'{"caption": "three"}', "000001.png": picture(3)})
    ledger, _ = ingest(tmp_path, "webdataset", "**/*.tar")
    assert ledger["image"]["out"] == 3 and ledger["caption"]["out"] == 4
    assert texts(tmp_path) == {
        "shard-0.tar/000001": ["one", "more"],
        "shard-0.tar/000002": ["two"],
        "b/shard-1.tar/000001": ["three"],
    }
    images = {row["uri"]: row["bytes"] for row in rows(tmp_path, "images")}
    assert images["shard-0.tar/000002.png"] == picture(2) and images["b/shard-1.tar/000001.png"] == picture(3)


def test_every_bad_member_is_a_counted_row(tmp_path):
    members = {
        **sample(1, "good"),
        "../../evil.png": picture(2),
        "../../evil.txt": b"its name is only a name",
        "a/b.c/d.seg.png": picture(3),
        "a/b.c/d.txt": b"\xef\xbb\xbfkey a/b.c/d\r\n\r\nbad \xff\r\n",
        "lonely.txt": b"no image",
        "000001.jpg": picture(4),
        "5.json": b"{",
        "6.json": b'{"captions": ["listed", 7, "twice"], "caption": "not read"}',
        "6.txt": b"twice\n",
        "6.png": b"not a picture",
        "7.json": b"[1]",
        "._8.png": b"of another system",
        "README": b"aside",
        "9.cls": b"1",
    }
    tar(tmp_path / "collection/a.tar", members, {"link.png": "/etc/hostname"})
    ledger, drops = ingest(tmp_path, "webdataset", "*.tar")
    assert texts(tmp_path) == {
        "a.tar/000001": ["good"],
        "a.tar/../../evil": ["its name is only a name"],
        "a.tar/a/b.c/d": ["key a/b.c/d"],
    }
    assert not (tmp_path / "evil.png").exists()
    assert ledger["image"] == {
        "in": 6,
        "out": 3,
        "dropped": {},
        "rejected": {"bad_record": 1, "duplicate_id": 1, "unreadable": 1},
    }
    assert ledger["caption"]["rejected"] == {"bad_encoding": 1, "bad_record": 3, "unknown_image": 1}
    assert ledger["caption"]["dropped"] == {"image_rejected": 2}, "of image 6: `listed` and `twice`, once"
    details = {drop["detail"] for drop in drops}
    assert "a.tar/link.png: a link or a sparse file inside the tar" in details
    assert "a.tar/000001.jpg and a.tar/000001.png" in details


def test_a_tar_that_is_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "collection/a.tar"
    tar(path, {**sample(1, "one"), **sample(2, "two")})
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = max(archive.getmembers(), key=lambda member: member.offset)
    end = last.offset_data + 512
    for length in (0, 100, 512, last.offset, last.offset + 30, last.offset_data + 1, end - 1, end):
        path.write_bytes(whole[:length])
        said = refused(tmp_path, "webdataset", "*.tar")
        assert "a.tar: damaged or no tar" in said, (length, said)
    for length in (end + 512, end + 1024, len(whole)):
        path.write_bytes(whole[:length])
        assert ingest(tmp_path, "webdataset", "*.tar")[0]["image"]["out"] == 2


def test_damage_that_python_takes_for_the_end_is_refused(tmp_path):
    path = tmp_path / "collection/a.tar"
    tar(path, {**sample(1, "one"), **sample(2, "two")})
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        second = sorted(member.offset for member in archive.getmembers())[1]
    path.write_bytes(whole[: second + 20] + b"\xff" + whole[second + 21 :])
    assert "its header is damaged" in refused(tmp_path, "webdataset", "*.tar")
    path.write_bytes(whole + whole)
    assert "two tars joined?" in refused(tmp_path, "webdataset", "*.tar")
    path.write_bytes(b"<html>no tar</html>" * 100)
    assert "damaged or no tar" in refused(tmp_path, "webdataset", "*.tar")
    path.write_bytes(gzip.compress(whole))
    assert "`gunzip` it first" in refused(tmp_path, "webdataset", "*.tar")
    assert "no captions file matches '*.tgz'" in refused(tmp_path, "webdataset", "*.tgz")


def test_names_that_are_not_utf8_are_counted(tmp_path):
    path = tmp_path / "collection/a.tar"
    tar(path, {"cafe.png": picture(1), "cafe.txt": b"a", **sample(2, "two")})
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        for member in archive.getmembers()[:2]:
            header = bytearray(whole[member.offset : member.offset + 512])
            header[3] = 0xE9
            header[148:156] = b"%06o\0 " % (sum(header[:148]) + 32 * 8 + sum(header[156:]))
            whole = whole[: member.offset] + bytes(header) + whole[member.offset + 512 :]
    path.write_bytes(whole)
    ledger, drops = ingest(tmp_path, "webdataset", "*.tar")
    assert ledger["image"]["rejected"] == {"bad_encoding": 1} and ledger["caption"]["rejected"] == {"bad_encoding": 1}
    assert ledger["image"]["out"] == 1 and any("caf\\udce9" in drop["id"] for drop in drops)


@pytest.mark.parametrize("lines", [["a", "a"], ["a", "", " "]])
def test_lines_of_a_text_are_captions(tmp_path, lines):
    json_too = {"000001.json": json.dumps({"caption": "a "}).encode()}
    tar(tmp_path / "collection/a.tar", {**sample(1, *lines), **json_too})
    ingest(tmp_path, "webdataset", "*.tar")
    assert texts(tmp_path) == {"a.tar/000001": [line for line in lines if line.strip()]}
