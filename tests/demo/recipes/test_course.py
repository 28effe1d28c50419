"""A training that stops and goes on gives what one without a stop gives, and never loses its last good state."""

import math

import pytest
import torch
from torch import nn

from demo.recipes.course import Course, Schedule
from pipeline.errors import InputError, ParamsError, ResourceError

SCHEDULE = Schedule(steps=12, rate=0.01, warmup=3, average=0.9)
CPU = torch.device("cpu")


def network():
    """Dropout, so that a step draws random numbers of its own; a norm with buffers that are no parameters."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))


def draw(step):
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(step))


def loss(net, batch):
    return {"fit": (net(batch) - batch.sum(1, keepdim=True)).square().mean(), "small": 0.1 * net(batch).abs().mean()}


def course(path, schedule=SCHEDULE):
    return Course(network(), schedule, path / "state.pt", CPU)


def assert_same(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(v, b.state_dict()[name]) for name, v in a.state_dict().items())


def test_stopped_and_resumed_gives_the_same_weights_bit_for_bit(tmp_path):
    whole = course(tmp_path / "whole")
    expected = whole.run(draw, loss)
    for until in (1, 5, 5, 12):  # a start anew at each; the second 5 has nothing to do
        torch.rand(7)  # whatever else the process draws does not count
        part = course(tmp_path / "parts")
        found = part.run(draw, loss, until=until)
        assert part.step == until
    assert_same(found, expected)
    assert_same(part.network, whole.network)
    assert not list((tmp_path / "parts").glob("*.draft"))


def test_a_watched_run_is_the_same_and_tells_its_figures(tmp_path, capsys):
    seen = []

    def watch(net):
        assert not net.training
        seen.append(torch.rand(3))
        return {"seen": len(seen)}

    expected = course(tmp_path / "plain").run(draw, loss)
    assert_same(course(tmp_path / "watched").run(draw, loss, watch=watch, watch_every=4), expected)
    assert len(seen) == 3 and "step 8: seen 2.000" in capsys.readouterr().out


def test_the_averaged_weights_are_returned(tmp_path):
    net = nn.Linear(1, 1)
    schedule = Schedule(steps=30, rate=0.05, warmup=1, average=0.6)
    trained, path = Course(net, schedule, tmp_path / "s.pt", CPU), []

    def fit(n, batch):
        path.append(n.weight.item())  # weights before step i: those after step i - 1
        return {"fit": (n(batch) - 3).square().mean()}

    returned = trained.run(lambda step: torch.ones(2, 1), fit)
    after = [*path[1:], net.weight.item()]
    mean = after[0]
    for step, weight in enumerate(after[1:], 1):
        kept = min(0.6, (1 + step) / (10 + step))
        mean = kept * mean + (1 - kept) * weight
    assert returned.weight.item() == pytest.approx(mean, abs=1e-6)
    assert abs(mean - after[-1]) > 1e-5  # and not the last weights themselves


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_with_the_last_good_state_on_disk(tmp_path, where):
    good = course(tmp_path / "good")
    good.run(draw, loss, until=7)

    def breaks(net, batch):
        found = loss(net, batch)
        if torch.equal(batch, draw(9)):
            worst = net[0].weight.sum() * 0.0
            found["bad"] = worst / 0.0 if where == "loss" else (worst + 0.0).sqrt()  # sqrt: 0, with gradient inf x 0
        return found

    course(tmp_path / "bad").run(draw, breaks, until=7)
    broken = course(tmp_path / "bad")
    with pytest.raises(FloatingPointError, match=r"step 9: .*state\.pt"):
        broken.run(draw, breaks)
    assert all(torch.isfinite(p).all() for p in broken.network.parameters())
    again = course(tmp_path / "bad")
    assert again.step == 7
    assert_same(again.network, good.network)
    assert_same(again.run(draw, loss), course(tmp_path / "whole").run(draw, loss))


def test_the_rate_rises_and_falls():
    schedule = Schedule(steps=1000, rate=1.0, warmup=100)
    factors = [schedule.factor(step) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01) and factors[49] == pytest.approx(0.5, abs=0.01)
    assert max(factors) == pytest.approx(0.976, abs=0.001) and factors.index(max(factors)) in (98, 99)
    assert factors[500] == pytest.approx(0.5) and factors[-1] < 1e-5
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert schedule.factor(1000) == schedule.factor(2000) == 0
    assert Schedule(steps=10, rate=1.0, warmup=0).factor(0) == 1
    assert math.isclose(schedule.kept(0), 0.1) and schedule.kept(10**6) == 0.998


def test_the_schedule_reaches_the_optimizer(tmp_path):
    trained = course(tmp_path)
    trained.run(draw, loss, until=5)
    assert {g["lr"] for g in trained.optimizer.param_groups} == {SCHEDULE.rate * SCHEDULE.factor(4)}
    assert [g["weight_decay"] for g in trained.optimizer.param_groups] == [SCHEDULE.decay, 0.0]
    assert {p.ndim for p in trained.optimizer.param_groups[1]["params"]} == {1}


def test_a_finished_state_goes_on_with_no_other_schedule(tmp_path):
    course(tmp_path, Schedule(steps=3, rate=0.01)).run(draw, loss)
    with pytest.raises(ParamsError, match="finished with another schedule.*steps 12, there 3.*delete it"):
        course(tmp_path, Schedule(steps=12, rate=0.01))
    assert course(tmp_path, Schedule(steps=3, rate=0.01)).step == 3


def test_an_unfinished_state_takes_another_length_and_nothing_else(tmp_path):
    course(tmp_path).run(draw, loss, until=4)
    with pytest.raises(ParamsError, match=r"begun with another schedule \(rate 0.02, there 0.01\)"):
        course(tmp_path, Schedule(steps=12, rate=0.02, warmup=3, average=0.9))
    shorter = course(tmp_path, Schedule(steps=6, rate=0.01, warmup=3, average=0.9))
    shorter.run(draw, loss)
    assert shorter.step == 6


def test_a_state_of_another_network_or_a_damaged_one_is_named(tmp_path):
    course(tmp_path).run(draw, loss, until=1)
    with pytest.raises(InputError, match=r"state\.pt: no state of this training .*delete it"):
        Course(nn.Linear(2, 2), SCHEDULE, tmp_path / "state.pt", CPU)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:100])
    with pytest.raises(InputError, match=r"state\.pt: no state of this training"):
        course(tmp_path)


def test_two_trainings_do_not_share_a_state(tmp_path):
    def nested(net, batch):
        with pytest.raises(ResourceError, match="the training of state is already running"):
            course(tmp_path).run(draw, loss)
        return loss(net, batch)

    course(tmp_path).run(draw, nested, until=1)
