"""Images arrive in the order of the plan, whole or as what is wrong with them, and never too many at a time."""

import gc
import io
import threading
import time
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.errors import ResourceError
from stages.common import feeder as module
from stages.common.feeder import Feeder, Meter, plan_by_shape

CPU = torch.device("cpu")


def table(sides: list[tuple[int, int]], spoil: dict[int, bytes] | None = None) -> pa.Table:
    """Images of (height, width), each drawn from its number, under ids in an order of their own."""
    data = []
    for number, (height, width) in enumerate(sides):
        drawn = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(drawn).save(buffer, "PNG" if number % 2 else "JPEG")
        data.append((spoil or {}).get(number, buffer.getvalue()))
    ids = [f"{number:03d}" for number in reversed(range(len(sides)))]
    heights, widths = zip(*sides, strict=True)
    return pa.table({"id": ids, "height": heights, "width": widths, "bytes": data})


def pixels_of(images: pa.Table, row: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(images.column("bytes")[row].as_py())).convert("RGB")).transpose(2, 0, 1)


def test_a_plan_puts_images_of_one_kind_together_whatever_the_order_of_the_rows():
    images = table([(48, 64), (64, 48), (48, 64), (48, 64), (64, 48), (48, 63), (48, 64)])
    plan = plan_by_shape(images, range(7), 2, lambda height, width: (height, width))
    assert sorted(row for batch in plan for row in batch) == list(range(7))
    assert [len(batch) for batch in plan] == [1, 2, 2, 2]
    order = np.random.default_rng(1).permutation(7)
    ids = images.column("id").to_pylist()
    shuffled = images.take(pa.array(order))
    again = plan_by_shape(shuffled, [6, 0, 3, 2, 5, 1, 4], 2, lambda height, width: (height, width))
    names = shuffled.column("id").to_pylist()
    assert [[names[row] for row in batch] for batch in again] == [[ids[row] for row in batch] for batch in plan]
    assert plan_by_shape(images, [2, 4], 8, lambda height, width: 0) == [[4, 2]]
    assert plan_by_shape(images, [], 8, lambda height, width: 0) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_the_order_of_the_plan_with_the_pixels_of_their_rows(threads, monkeypatch):
    load = Feeder._load

    def unevenly(self, row, columns):
        time.sleep(0.004 * (row % 3))
        return load(self, row, columns)

    monkeypatch.setattr(Feeder, "_load", unevenly)
    images = table([(20 + number % 4, 30) for number in range(17)])
    plan = [[5, 1, 9], [0], [], [16, 2, 3, 4, 6], [8, 7]]
    feeder = Feeder(CPU, threads, Meter(CPU))
    ids = images.column("id").to_pylist()
    for _ in range(2):  # one feeder feeds shard after shard
        fed = list(feeder.batches(images, plan))
        assert [[picture.row for picture in pictures] for pictures, _ in fed] == plan
        for pictures, bad in fed:
            assert bad == []
            for picture in pictures:
                assert picture.id == ids[picture.row] and picture.pixels.dtype == torch.uint8
                assert tuple(picture.pixels.shape) == (3, picture.height, picture.width)
                assert np.array_equal(picture.pixels.numpy(), pixels_of(images, picture.row))
    assert list(feeder.batches(images, [])) == []


def test_bad_images_are_values_beside_the_good_ones():
    images = table([(20, 30)] * 6, spoil={1: b"", 4: b"\xff\xd8\xff no photo"})
    wrong = images.set_column(1, "height", pa.array([20, 20, 20, 19, 20, 20]))
    fed = list(Feeder(CPU, 2, Meter(CPU)).batches(wrong, [[0, 1], [2, 3, 4], [4], [5]]))
    assert [[picture.row for picture in pictures] for pictures, _ in fed] == [[0], [2], [], [5]]
    assert [[(row, error.reason) for row, error in bad] for _, bad in fed] == [
        [(1, "unreadable")],
        [(3, "unreadable"), (4, "unreadable")],
        [(4, "unreadable")],
        [],
    ]
    assert "decodes to 30x20 pixels, recorded as 30x19" in fed[1][1][0][1].detail


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 4), (4, 1), (3, 5)])
def test_no_more_pictures_are_alive_than_agreed(threads, batch, monkeypatch):
    alive, guard = set(), threading.Lock()
    decode = module.decode_planes

    def counted(data):
        planes = decode(data)
        token = object()
        with guard:
            alive.add(token)
        weakref.finalize(planes, alive.discard, token)
        return planes

    monkeypatch.setattr(module, "decode_planes", counted)
    images = table([(16, 16)] * 31)
    plan = [list(range(start, min(start + batch, 31))) for start in range(0, 31, batch)]
    seen = 0
    for pictures, _ in Feeder(CPU, threads, Meter(CPU)).batches(images, plan):
        seen += len(pictures)
        ahead = min(2 * batch + threads, batch + 31 - seen)
        for _ in range(200):  # what may be decoded ahead is decoded
            if len(alive) >= ahead:
                break
            time.sleep(0.005)
        assert len(alive) <= 2 * batch + threads
        if seen <= 31 - batch - threads:
            assert len(alive) == 2 * batch + threads, "the next batch is there while this one is computed"
    assert seen == 31
    del pictures
    gc.collect()
    assert not alive


def test_a_caller_that_stops_leaves_no_work_behind():
    feeder = Feeder(CPU, 1, Meter(CPU))
    images = table([(16, 16)] * 40)
    batches = feeder.batches(images, [[row] for row in range(40)])
    next(batches)
    batches.close()
    assert [p.row for pictures, _ in feeder.batches(images, [[39], [0]]) for p in pictures] == [39, 0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_no_room_for_an_image_is_a_shortage_and_not_a_bad_image(error, monkeypatch):
    def full(data):
        raise error

    monkeypatch.setattr(module, "decode_planes", full)
    with pytest.raises(ResourceError, match=r"image 000: no memory left for its 30x20 pixels on cpu"):
        list(Feeder(CPU, 1, Meter(CPU)).batches(table([(20, 30)]), [[0]]))


def test_errors_in_a_thread_reach_the_caller(monkeypatch):
    def broken(data):
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "decode_planes", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(Feeder(CPU, 2, Meter(CPU)).batches(table([(20, 30)]), [[0]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gets_the_same_pictures():
    images = table([(200 + number % 3, 300) for number in range(40)], spoil={3: b"x"})
    plan = plan_by_shape(images, range(40), 4, lambda height, width: (height, width))
    device = torch.device("cuda", 0)
    here = Feeder(CPU, 4, Meter(CPU)).batches(images, plan)
    for (pictures, bad), (right, _) in zip(Feeder(device, 4, Meter(device)).batches(images, plan), here, strict=True):
        busy = torch.randn(2048, 2048, device=device)
        for _ in range(4):  # the copies of the next batch run beside this
            busy = busy @ busy
        assert [p.row for p in pictures] == [p.row for p in right] and all(row == 3 for row, _ in bad)
        for picture, same in zip(pictures, right, strict=True):
            assert picture.pixels.is_cuda and torch.equal(picture.pixels.cpu(), same.pixels)
