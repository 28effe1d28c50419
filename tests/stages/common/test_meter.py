"""The arithmetic of the meter, with a clock that the test turns."""

import pytest
import torch

from pipeline.progress import speed_told
from stages.common import meter as module
from stages.common.meter import Meter, matmul_rate, peak_bytes

CPU = torch.device("cpu")


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(module, "matmul_rate", lambda device, dtype: 50.0)
    monkeypatch.setattr(module, "peak_bytes", lambda device: 3 << 30)
    return made


def test_what_is_counted_adds_up(clock):
    meter = Meter(CPU)
    clock.now += 7  # nothing has begun
    with meter.warm_up():
        clock.now += 5
    meter.begin()
    clock.now += 1
    with meter.busy(4, 40.0):
        clock.now += 2
    clock.now += 1
    with meter.busy(2, 20.0):
        clock.now += 3
    with meter.warm_up():
        clock.now += 10
    clock.now += 1
    assert meter.speed() == {
        "what": "images",
        "images": 6,
        "busy_s": 5.0,
        "wall_s": 8.0,
        "warm_up_s": 15.0,
        "flop": 60.0,
        "able_flop": 400.0,
        "peak_bytes": 3 << 30,
    }


def test_every_shard_gets_its_share(clock):
    meter = Meter(CPU, what="pictures")
    with meter.busy(1):
        clock.now += 1
    first = meter.speed()
    assert (first["what"], first["images"], first["busy_s"], first["wall_s"]) == ("pictures", 1, 1.0, 1.0)
    assert first["able_flop"] == 0.0, "where no FLOP are counted no rate is measured"
    clock.now += 2  # the shard is written, the next one is read
    with meter.busy(3):
        clock.now += 1
    second = meter.speed()
    assert (second["images"], second["busy_s"], second["wall_s"]) == (3, 1.0, 3.0)
    assert meter.speed()["images"] == 0


def test_a_meter_that_saw_nothing_says_so(clock):
    clock.now += 5
    assert Meter(CPU).speed()["wall_s"] == 0.0


def test_the_shards_of_several_workers_as_one_line():
    share = {"what": "images", "flop": 30.0, "able_flop": 100.0, "warm_up_s": 2.0}
    speeds = [
        {**share, "worker": 1, "images": 40, "busy_s": 9.0, "wall_s": 10.0, "peak_bytes": 1 << 30},
        {**share, "worker": 1, "images": 40, "busy_s": 9.0, "wall_s": 10.0, "peak_bytes": 3 << 30},
        {**share, "worker": 2, "images": 100, "busy_s": 18.0, "wall_s": 20.0, "peak_bytes": 2 << 30},
    ]
    assert speed_told(speeds[:2]) == ("4.0 images/s, device busy 90 %, MFU 30 %, peak memory 3.0 GiB, warm-up 4.0 s")
    assert speed_told(speeds) == (
        "9.0 images/s, device busy 90 %, MFU 30 %, peak memory 3.0 GiB on each of 2 devices, warm-up 4.0 s"
    )
    nothing = {**share, "worker": 1, "images": 0, "busy_s": 0.0, "wall_s": 0.0, "able_flop": 0.0, "peak_bytes": 0}
    assert speed_told([nothing]).startswith("0.0 images/s, device busy 0 %, peak memory 0.0 GiB")


def test_the_rate_of_this_machine_is_measured_once():
    rate = matmul_rate(CPU, torch.float32)
    assert 1e8 < rate < 1e15 and matmul_rate(CPU, torch.float32) == rate
    assert all(matmul_rate(CPU, dtype) > 1e6 for dtype in (torch.bfloat16, torch.float16))
    before = peak_bytes(CPU)
    held = torch.ones(1 << 26)
    assert held.sum() == 1 << 26 and before > 1 << 20 and peak_bytes(CPU) >= before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_own_clock_is_read():
    device = torch.device("cuda", 0)
    meter = Meter(device, torch.bfloat16)
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    with meter.warm_up():
        a @ a
    for _ in range(5):
        with meter.busy(1, 2 * 8192.0**3):
            a @ a
    counted = meter.speed()
    assert counted["images"] == 5 and 0 < counted["busy_s"] <= counted["wall_s"] * 1.05
    assert 0 < counted["flop"] <= 1.2 * counted["able_flop"]
    assert counted["peak_bytes"] >= a.nbytes
