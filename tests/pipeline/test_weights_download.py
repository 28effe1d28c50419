"""A download that breaks off goes on, whatever the server does; two versions of a file are never mixed."""

import hashlib
import random

import pytest
from web import PAGE, Site, answer, unsized, whole

from pipeline.weights import download

DATA = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SIZE = len(DATA)


@pytest.fixture
def fetch(tmp_path):
    """Fetches an address to tmp_path/part; gives (bytes, whether it was pieced together)."""

    def run(url: str, size: int | None = SIZE, hashed: bool = False) -> tuple[bytes, bool]:
        seen: list[int] = []
        pieced = download.fetch(url, tmp_path / "part", size, hashed, lambda done, total: seen.append(done))
        got = (tmp_path / "part").read_bytes()
        assert not seen or seen[-1] == len(got)
        return got, pieced

    return run


def ranges(site: Site) -> list[str | None]:
    return [wanted for _, wanted, _ in site.asked]


def test_a_sound_server_is_asked_once(site, fetch):
    assert fetch(site.put("/f", DATA)) == (DATA, False)
    assert site.asked == [("/f", None, None)] and site.sent == SIZE


@pytest.mark.parametrize("size", [SIZE, None])
def test_what_breaks_off_goes_on_and_no_byte_is_fetched_twice(site, fetch, size):
    url = site.put("/f", DATA, whole(cut=100_000), whole(cut=70_000), whole(cut=1))
    assert fetch(url, size) == (DATA, True)
    assert ranges(site) == [None, "bytes=100000-", "bytes=170000-", "bytes=170001-"]
    assert {version for _, wanted, version in site.asked if wanted} == {'"1"'}
    assert site.sent == SIZE


def test_the_next_command_goes_on_where_the_last_gave_up(site, fetch):
    url = site.put("/f", DATA, whole(cut=100_000), *[whole(cut=0)] * download._TRIES)
    with pytest.raises(download.Failed):
        fetch(url)
    site.asked.clear()
    assert fetch(url) == (DATA, True)
    assert ranges(site) == ["bytes=100000-"]


def test_a_whole_part_is_not_fetched_again(site, fetch):
    url = site.put("/f", DATA)
    fetch(url)
    site.asked.clear()
    assert fetch(url) == (DATA, True) and not site.asked
    assert fetch(url, size=None) == (DATA, False), "where the length is not known the server is asked"


def test_a_server_without_ranges_starts_anew(site, fetch):
    url = site.put("/f", DATA, whole(cut=100_000), whole(ranges=False))
    assert fetch(url) == (DATA, False)


def test_a_file_that_changed_between_two_tries_is_fetched_whole(site, fetch):
    def change(handler, served):
        whole(cut=100_000)(handler, served)
        served.data, served.tag = OTHER, '"2"'

    assert fetch(site.put("/f", DATA, change)) == (OTHER, False)
    assert site.asked[1] == ("/f", "bytes=100000-", '"1"')


def test_without_a_version_a_part_is_gone_on_with_only_if_the_hash_is_known(site, fetch, tmp_path):
    url = site.put("/f", DATA, whole(cut=100_000), tag=None)
    assert fetch(url) == (DATA, False)
    assert ranges(site) == [None, None]
    download.forget(tmp_path / "part")
    site.asked.clear()
    site.files["/f"].script.append(whole(cut=100_000))
    assert fetch(url, hashed=True) == (DATA, True)
    assert ranges(site) == [None, "bytes=100000-"]


def test_a_part_of_another_address_is_not_gone_on_with(site, fetch):
    first = site.put("/a", OTHER, *[whole(cut=1000)] + [whole(cut=0)] * download._TRIES)
    with pytest.raises(download.Failed):
        fetch(first, hashed=True)
    site.asked.clear()
    assert fetch(site.put("/b", DATA), hashed=True) == (DATA, False)
    assert site.asked == [("/b", None, None)]


def test_a_part_that_is_longer_than_the_file_is_dropped(site, fetch, tmp_path):
    url = site.put("/f", DATA + OTHER)
    fetch(url, size=None)
    site.put("/f", DATA, tag='"1"')
    assert fetch(url) == (DATA, False)
    (tmp_path / "part").write_bytes(DATA + OTHER)
    assert fetch(url, size=None) == (DATA, False), "416: it starts anew"


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_asked_again(site, fetch, status):
    assert fetch(site.put("/f", DATA, answer(status, b""), answer(status, b""))) == (DATA, False)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (answer(404, PAGE, "text/html"), "HTTP 404 Not Found"),
        (answer(403, b""), "HTTP 403 Forbidden"),
        (answer(200, PAGE, "text/html; charset=utf-8"), "web page"),
        (answer(200, DATA[:-1]), "offers 299,999 bytes, but the file has 300,000"),
        (unsized(DATA + b"x"), "sends more than the 300,000 bytes"),
    ],
)
def test_what_cannot_be_the_file_is_refused_at_once(site, fetch, script, says):
    url = site.put("/f", DATA, script)
    with pytest.raises(download.Failed, match=says):
        fetch(url)
    assert len(site.asked) == 1


def test_a_body_without_a_length_is_measured_against_the_manifest(site, fetch):
    url = site.put("/f", DATA, unsized(DATA[:1000]), tag=None)
    assert fetch(url) == (DATA, False)
    assert len(site.asked) == 2


def test_a_server_that_falls_silent_is_left_and_gone_on_with(site, fetch, monkeypatch):
    monkeypatch.setattr(download, "_READ_S", 0.3)
    url = site.put("/f", DATA, whole(cut=50_000, stall=True))
    assert fetch(url) == (DATA, True)
    assert ranges(site) == [None, "bytes=50000-"]


def test_a_slow_server_is_waited_for(site, fetch, monkeypatch):
    monkeypatch.setattr(download, "_READ_S", 0.5)
    url = site.put("/f", DATA, whole(pause=0.1, piece=30_000))
    assert fetch(url) == (DATA, False)
    assert len(site.asked) == 1


def test_a_server_that_always_breaks_off_is_given_up(site, fetch):
    url = site.put("/f", DATA)
    site.files["/f"].script = [whole(cut=10, ranges=False) for _ in range(100)]
    with pytest.raises(download.Failed):
        fetch(url)
    assert len(site.asked) == download._TRIES + 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/f", "http://", "no address at all", "http://127.0.0.1:1/f"])
def test_an_address_that_leads_nowhere_is_said(fetch, site, url):
    with pytest.raises(download.Failed):
        fetch(url)


def test_a_mirror_stands_for_every_public_place(monkeypatch):
    urls = ("https://one.example/f", "https://two.example/f")
    assert download.locations("name", "f", urls) == urls
    monkeypatch.setenv(download.MIRROR, "https://mirror.example/weights/")
    assert download.locations("name", "f", urls) == ("https://mirror.example/weights/name/f",)


def test_the_bytes_are_those_of_the_file_after_any_breaks(site, fetch, tmp_path):
    draw = random.Random(2)
    for round_ in range(8):
        script = [whole(cut=draw.randrange(80_000), ranges=draw.random() < 0.7) for _ in range(draw.randrange(5))]
        url = site.put(f"/{round_}", DATA, *script)
        got, _ = fetch(url)
        assert hashlib.sha256(got).digest() == hashlib.sha256(DATA).digest()
        download.forget(tmp_path / "part")
