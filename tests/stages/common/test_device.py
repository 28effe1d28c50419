"""Which devices `runtime.devices` means on this machine, and what is said where one is not there."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import InputError
from stages.common.device import devices_of, dtype_of, pick_device


@pytest.fixture
def machine(monkeypatch):
    """Makes torch see so many CUDA devices, and MPS or not."""

    def seen(cuda: int, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return seen


def devices(*names: str) -> list[str]:
    return devices_of(SimpleNamespace(devices=list(names)))


@pytest.mark.fault("F51")
def test_auto_is_every_accelerator_else_the_cpu(machine):
    machine(cuda=0)
    assert devices("auto") == ["cpu"] and pick_device("auto") == torch.device("cpu")
    machine(cuda=0, mps=True)
    assert devices("auto") == ["mps"]
    machine(cuda=3)
    assert devices("auto") == ["cuda:0", "cuda:1", "cuda:2"] and str(pick_device("auto")) == "cuda:0"


def test_named_devices_keep_their_order(machine):
    machine(cuda=2)
    assert devices("cuda:1", "cuda:0") == ["cuda:1", "cuda:0"]
    assert devices("cuda") == ["cuda"] and devices("cpu", "cpu") == ["cpu", "cpu"]


@pytest.mark.fault("F51")
@pytest.mark.parametrize(
    ("cuda", "name", "says"),
    [
        (0, "cuda", "cuda is not available on this machine (it has no CUDA device); use auto or cpu"),
        (0, "cuda:1", "cuda:1 is not available on this machine (it has no CUDA device); use auto or cpu"),
        (1, "cuda:1", "cuda:1 is not available on this machine (it has 1 CUDA device); use auto or cuda:0"),
        (2, "cuda:2", "cuda:2 is not available on this machine (it has 2 CUDA devices); use auto or cuda:0 to cuda:1"),
        (2, "mps", "mps is not available on this machine; use auto or cpu"),
    ],
)
def test_a_device_that_is_not_there_is_named(machine, cuda, name, says):
    machine(cuda=cuda)
    with pytest.raises(InputError) as caught:
        devices("cpu", name)
    assert str(caught.value) == f"runtime.devices: {says}"


def test_number_formats():
    assert [dtype_of(name) for name in ("fp32", "bf16", "fp16")] == [torch.float32, torch.bfloat16, torch.float16]
