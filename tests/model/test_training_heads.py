import pytest
import torch

from model.data import TrainingData
from model.encoder import load_encoder
from model.errors import ModelError
from model.heads import ConsistencyHead, Discriminator, Head, Projector, build_heads, heads_for
from model.recipes import NAMES, resolve
from tests.model.companions import complete

ALL = ("simcse", "grounding", "visual", "object", "caption", "span", "projector", "consistency_text")
WIDTHS = {"hidden": 6, "image_dim": 5, "object_dim": 4, "caption_dim": 3, "projection": 8}


def built(names, seed=0, share=False, **overrides):
    return build_heads(names, **(WIDTHS | overrides), share_object_head=share, seed=seed)


def test_widths():
    heads = built((*ALL, "consistency_image"))
    x = torch.randn(7, 6)
    assert heads["simcse"](x).shape == (7, 6) and heads["projector"](x).shape == (7, 6)
    for name, width in (("grounding", 6), ("span", 6), ("visual", 5), ("object", 4), ("caption", 3)):
        made = heads[name](torch.randn(2, 7, width))
        assert made.shape == (2, 7, 8)
        torch.testing.assert_close(made.norm(dim=-1), torch.ones(2, 7))
    assert heads["consistency_text"](x).shape == heads["consistency_image"](torch.randn(7, 5)).shape == (7, 8)


def test_weights_follow_from_seed_and_name_alone():
    torch.manual_seed(1)
    one = built(ALL)
    torch.manual_seed(2)
    two, other = built(ALL[::-1]), built(ALL, seed=1)
    state = torch.get_rng_state()
    built(ALL)
    assert torch.equal(state, torch.get_rng_state())
    for name in ALL:
        mine, same, different = (list(h[name].parameters())[0] for h in (one, two, other))
        assert torch.equal(mine, same) and not torch.equal(mine, different)


def test_head_is_tanh_of_a_linear_layer():
    head = Head(3, 2, unit=True)
    x = torch.randn(4, 3)
    y = torch.tanh(x @ head.dense.weight.T + head.dense.bias)
    torch.testing.assert_close(head(x), y / y.norm(dim=1, keepdim=True))


def normed(x):
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()


def test_projector_by_hand():
    head, x = Projector(4), torch.randn(3, 2, 4)
    first, second = (layer.weight for layer in (head.layers[0], head.layers[3]))
    y = normed(normed(x.reshape(6, 4) @ first.T).relu() @ second.T)
    torch.testing.assert_close(head(x), y.view(3, 2, 4), rtol=1e-4, atol=1e-5)
    assert {n for n, _ in head.named_parameters()} == {
        f"layers.{n}" for n in ("0.weight", "1.weight", "1.bias", "3.weight")
    }


def test_consistency_head_by_hand():
    head, x = ConsistencyHead(4, 5, 3), torch.randn(6, 4)
    one, two = head.layers[0], head.layers[3]
    y = normed(normed(x @ one.weight.T + one.bias).relu() @ two.weight.T + two.bias).relu()
    torch.testing.assert_close(head(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_gets_the_heads_it_names(tiny, data, name):
    recipe = resolve(name, {"projection": 16})
    heads = heads_for(recipe, load_encoder(tiny, pooling="cls"), complete(data), 0)
    assert set(heads) == set(recipe.heads)
    if name == "mcseo":
        apart = resolve(name, {"share_object_head": False})
        assert set(heads_for(apart, load_encoder(tiny, pooling="cls"), data, 0)) == set(apart.heads)


def test_the_mlp_of_the_encoder_takes_the_heads_place_and_leaves_no_room_for_a_projector(tiny, data):
    encoder = load_encoder(tiny, pooling="cls_mlp")
    assert set(heads_for(resolve("mcse"), encoder, data, 0)) == {"grounding", "visual"}
    with pytest.raises(ModelError, match="choose pooling cls or mean") as raised:
        heads_for(resolve("diffcse"), encoder, data, 0)
    assert raised.value.code == 2


def test_objects_are_as_wide_as_what_stands_for_them(tiny, data):
    encoder = load_encoder(tiny, pooling="cls")
    wide = TrainingData(image_features=data.image_features, object_features=data.object_features[:, :5])
    widths = [
        heads_for(resolve(name, {"share_object_head": False}), encoder, wide, 0)["object"].dense.in_features
        for name in ("mcseo", "mcseo-whole")
    ]
    assert widths == [5, 12]


def test_a_discriminator_needs_an_embedding_layer(tiny):
    with pytest.raises(ModelError, match="Linear has none") as raised:
        bare = torch.nn.Linear(2, 2)
        bare.config = type("Config", (), {})()
        Discriminator(bare, 2)
    assert raised.value.code == 2


def test_drawing_heads_leaves_the_generators_of_accelerators_alone(monkeypatch):
    def seeded(*_):
        raise AssertionError("torch.manual_seed seeds every accelerator too")

    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", seeded)
    built(ALL)
    assert torch.equal(torch.get_rng_state(), before)
