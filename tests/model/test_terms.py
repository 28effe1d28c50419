"""Every recipe on a tiny random BERT: what learns, what is reached by gradient, what the statistics say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batches import Batches
from model.encoder import load_encoder
from model.network import Network, losses
from model.recipes import NAMES, resolve
from model.teachers import prepare
from model.trainer import build_optimizer, step
from tests.model.companions import companions, complete, teachers_folder

SETTINGS = {"batch_size": 8, "captions_per_image": "all", "projection": 16, "pair_every": 2, "objects_per_caption": 2}
SETTINGS |= {"lambda": 0.5, "mu": 0.5, "learning_rate": 2e-3, "rtd_weight": 0.5, "cma_space": "proj"}
TRAINED = [name for name in NAMES if name != "untrained"]
# what each term's gradient reaches beside the encoder, by recipe and term
REACHED = {
    "text": {"simcse"},
    "image": {"grounding", "visual"},
    "caption": {"grounding", "caption"},
    "triplet": {"simcse"},
    "consistency": {"simcse", "consistency_text", "consistency_image"},
    "cross_kl": {"grounding", "visual"},
    "rank": {"simcse"},
    "intra_kl": {"simcse"},
    "g2l": {"simcse"},
    "object": {"grounding", "visual"},
    "soft": {"grounding", "visual"},
    "span": {"span", "visual"},
    "bag": {"grounding", "visual"},
    "replaced": {"projector", "discriminator"},
}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return teachers_folder(tiny, tmp_path_factory.mktemp("companions") / "teachers")


def build(tiny, data, folder, name, pooling="cls", **overrides):
    """(network, recipe, batches)."""
    recipe = resolve(name, SETTINGS | overrides)
    encoder = load_encoder(tiny, pooling=pooling)
    teachers = companions(tiny, folder, recipe)
    data = prepare(encoder, complete(data), recipe, teachers, "cpu")
    network = Network(encoder, recipe, data, 0, teachers)
    return network.train(), recipe, Batches(data, recipe, encoder, 0)


def terms_of(network, recipe, batch):
    return losses(network, network.encode(batch, recipe), batch, recipe)


def still(network):
    """Without dropout, so that a naive computation sees the same vectors."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network.encoder.model.config.attention_probs_dropout_prob = 0.0
    return network


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls_and_companions_stay(tiny, data, folder, name):
    network, recipe, batches = build(tiny, data, folder, name)
    frozen = []
    if network.teachers is not None:
        frozen = [t.encoder for t in network.teachers.text.values()]
        frozen += [network.teachers.generator.model] if network.teachers.generator is not None else []
    before = [{n: w.clone() for n, w in module.state_dict().items()} for module in frozen]
    assert bool(frozen) == ("teachers" in recipe.needs or "generator" in recipe.needs)
    assert not {id(p) for m in frozen for p in m.parameters()} & {id(p) for p in network.parameters()}
    optimizer = build_optimizer(network, recipe)
    torch.manual_seed(0)
    rows = [step(network, batches.next(number), recipe, optimizer, 2e-3) for number in range(30)]
    # two of DALR's are small beside the others, and are free to rise in so few steps
    learned = [t.name for t in recipe.terms if t.name not in ("consistency", "intra_kl")]
    for term in learned:
        values = [row[term] for row in rows if term in row]
        third = len(values) // 3
        assert len(values) >= 15 and np.mean(values[-third:]) < np.mean(values[:third]), term
    for module, weights in zip(frozen, before, strict=True):
        assert not module.training and all(p.grad is None for p in module.parameters())
        assert all(torch.equal(w, weights[n]) for n, w in module.state_dict().items())
    for term in recipe.terms:
        total = [row for row in rows if row.get(term.name) is not None]
        assert total, f"{term.name} is never there"
    weight = {t.name: t.weight for t in recipe.terms}
    for row in rows:
        assert row["loss"] == pytest.approx(sum(w * row[t] for t, w in weight.items() if t in row), rel=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_exactly_what_they_should(tiny, data, folder, name):
    network, recipe, batches = build(tiny, data, folder, name)
    batch = batches.next(0)
    found = terms_of(network, recipe, batch)
    assert set(found) == {t.name for t in recipe.terms}
    trained = set()
    for term, (value, _) in found.items():
        network.zero_grad(set_to_none=True)
        value.backward(retain_graph=True)
        names = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        reached = {n.split(".")[1] for n in names if n.startswith("heads.")}
        wanted = REACHED[term]
        if name.startswith("diffcse") and term == "text":
            wanted = {"projector"}
        assert reached == wanted and any(n.startswith("encoder.") for n in names), term
        trained |= reached
    assert trained == set(network.heads) == set(recipe.heads)


def test_of_the_encoder_the_discriminator_reaches_only_what_makes_the_sentence_vector(tiny, data, folder):
    """Its gradient comes through z alone: with z cut off, the encoder gets none."""
    network, recipe, batches = build(tiny, data, folder, "diffcse")
    batch = batches.next(0)
    encoded = network.encode(batch, recipe)
    value, _ = losses(network, replace(encoded, h=encoded.h.detach()), batch, recipe)["replaced"]
    value.backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert network.heads["discriminator"].model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_the_discriminator_is_a_second_encoder_that_starts_from_the_same_weights(tiny, data, folder):
    network, *_ = build(tiny, data, folder, "diffcse")
    own, other = network.encoder.model.state_dict(), network.heads["discriminator"].model.state_dict()
    assert own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own)
    assert not {p.data_ptr() for p in network.encoder.parameters()} & {p.data_ptr() for p in network.heads.parameters()}


def test_the_sentence_vector_takes_the_place_of_position_zero(tiny, data, folder):
    network, _, batches = build(tiny, data, folder, "diffcse")
    head = still(network).heads["discriminator"].eval()
    tokens = batches.next(0).tokens
    ids, mask = tokens.input_ids.flatten(0, 1), tokens.attention_mask.flatten(0, 1)
    with torch.no_grad():
        embedded = head.model.embeddings(input_ids=ids)
        z = torch.randn(len(ids), 32)
        embedded = torch.cat([z[:, None], embedded[:, 1:]], 1)
        extended = (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min
        states = embedded
        for layer in head.model.encoder.layer:
            found = layer(states, extended)
            states = found[0] if isinstance(found, tuple) else found
        torch.testing.assert_close(head(ids, mask, z), head.classes(states), rtol=1e-4, atol=1e-5)
        assert (head(ids, mask, z) - head(ids, mask, -z)).abs().max() > 1e-3
    assert not head.model.embeddings._forward_hooks, "the hook is gone"


# ------------------------------------------------------------ statistics and options against loops


def cosine(a, b):
    return float(torch.dot(a, b) / (a.norm() * b.norm()))


@torch.no_grad()
@pytest.mark.parametrize("name", ["mcse", "mcseo", "mcseo-span", "mcseo-mil"])
def test_cosine_statistics(tiny, data, folder, name):
    network, recipe, batches = build(tiny, data, folder, name)
    batch = batches.next(0)
    encoded = still(network).encode(batch, recipe)
    found = losses(network, encoded, batch, recipe)
    z = network.simcse(encoded.h)
    n = len(z)
    own = np.mean([cosine(z[i, 0], z[i, 1]) for i in range(n)])
    other = np.mean([cosine(z[i, 0], z[j, 1]) for i in range(n) for j in range(n) if i != j])
    assert found["text"][1]["pos_cos"].item() == pytest.approx(own, abs=1e-5)
    assert found["text"][1]["neg_cos"].item() == pytest.approx(other, abs=1e-5)
    if name == "mcseo-mil":
        text, seen = network.heads["grounding"](encoded.h[:, 0]), network.object(batch.objects.feature)
        owner = batch.objects.row.tolist()
        pairs = [(cosine(text[i], seen[m]), owner[m] == i) for i in range(n) for m in range(len(seen))]
        assert found["bag"][1]["pos_cos"].item() == pytest.approx(np.mean([c for c, o in pairs if o]), abs=1e-5)
        assert found["bag"][1]["neg_cos"].item() == pytest.approx(np.mean([c for c, o in pairs if not o]), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "row", "column", "same_image"),
    [("kdmcse", "C", "C", True), ("kdmcse-code", "C", "I", False), ("kdmcse-paper", "C", "I", False)],
)
def test_masked_share(tiny, data, folder, name, row, column, same_image):
    # a repeated image, and a threshold within what random vectors reach
    network, recipe, batches = build(tiny, data, folder, name, threshold=0.1, batch_size=32)
    batch = batches.next(0)
    (_, image), (_, caption) = (terms_of(network, recipe, batch)[n] for n in ("image", "caption"))
    of = {"C": batch.caption_text, "I": batch.image}

    def share(a, b):
        n = len(a)
        gone = 0
        for i in range(n):
            for j in range(n):
                same = same_image and batch.image_id[i] == batch.image_id[j]
                gone += i != j and (cosine(a[i], b[j]) > 0.1 or bool(same))
        return gone / (n * (n - 1))

    assert image["masked"].item() == pytest.approx(share(of[row], of[column]), abs=1e-6) and image["masked"] > 0.2
    rows = {"kdmcse": ("C", "C"), "kdmcse-code": ("I", "C"), "kdmcse-paper": ("C", "C")}[name]
    assert caption["masked"].item() == pytest.approx(share(*(of[k] for k in rows)), abs=1e-6)


def test_masking_options_of_kdmcse(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "kdmcse-code")
    assert "masked" not in terms_of(network, recipe, batches.next(0))["image"][1], "off, as in the published commands"
    network, recipe, batches = build(tiny, data, folder, "kdmcse", threshold=1)
    assert terms_of(network, recipe, batches.next(0))["image"][1]["masked"] >= 0


@torch.no_grad()
def test_consistency_counts_no_pair_of_the_same_image_as_mismatched(tiny, data, folder):
    for name, counted in (("dalr", False), ("dalr-code", True)):
        network, recipe, batches = build(tiny, data, folder, name, batch_size=32, g2l_weight=0)
        batch = batches.next(0)
        text, other = batch.mismatched
        same = (batch.image_id[text] == batch.image_id[other]).sum().item()
        assert (text != other).all()
        assert other.tolist() == [(i - 5) % 32 for i in text.tolist()]
        assert (len(text) == 32) == counted or not same, "nothing to leave out in this batch"
        assert counted or same == 0
        value, statistics = terms_of(still(network), recipe, batch)["consistency"]
        z = network.simcse(network.encode(batch, recipe).h)[:, 0]
        a, b = network.heads["consistency_text"](z), network.heads["consistency_image"](batch.image)
        each = [1 - cosine(a[i], b[i]) for i in range(32)]
        each += [max(0.0, cosine(a[i], b[j]) - 0.2) for i, j in zip(text.tolist(), other.tolist(), strict=True)]
        assert value.item() == pytest.approx(np.mean(each), abs=1e-5)
        assert statistics["pos_cos"].item() == pytest.approx(1 - np.mean(each[:32]), abs=1e-5)


def test_mismatched_images_are_another_rows(tiny, data, folder):
    for name in ("dalr", "dalr-code", "dalr-paper"):
        for size in (2, 3, 5, 10, 16):
            *_, batches = build(tiny, data, folder, name, batch_size=size, g2l_weight=0)
            for _ in range(4):
                batch = batches._pairs()
                text, other = batch.mismatched.tolist()
                assert all(i != j for i, j in zip(text, other, strict=True)) and max([0, *other]) < len(batch)
                if name == "dalr-paper":
                    assert sorted(other) == list(range(len(batch)))


def test_a_batch_of_one_has_no_consistency_term(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "dalr", batch_size=1)
    found = terms_of(network, recipe, batches.next(0))
    assert "consistency" not in found and all(torch.isfinite(value) for value, _ in found.values())


def test_phrases_as_sentences_are_no_negatives_of_their_like(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "simcse-phrases")
    assert recipe.needs == ("phrases",) and recipe.heads == ("simcse",)
    batch = batches.next(0)
    assert batch.objects.feature is None and batch.image is None
    encoded = still(network).encode(batch, recipe)
    value, _ = losses(network, encoded, batch, recipe)["text"]
    z = network.simcse(torch.cat([encoded.h, encoded.phrases])).detach()
    n, key = len(batch), batch.objects.key.tolist()
    rows = []
    for i in range(len(z)):
        total = 0.0
        for j in range(len(z)):
            alike = i != j and i >= n and j >= n and key[i - n] == key[j - n]
            total += 0.0 if alike else np.exp(cosine(z[i, 0], z[j, 1]) / 0.05)
        rows.append(np.log(total) - cosine(z[i, 0], z[i, 1]) / 0.05)
    assert value.item() == pytest.approx(np.mean(rows), rel=1e-3)


def test_the_controls_differ_from_mcseo_by_the_objects_alone(tiny, data, folder):
    seen = {}
    for name in ("mcseo", "mcseo-shuffled", "mcseo-whole"):
        network, recipe, batches = build(tiny, data, folder, name)
        batch = batches.next(0)
        seen[name] = batch
        assert torch.equal(batch.tokens.input_ids, seen["mcseo"].tokens.input_ids)
        assert torch.equal(batch.objects.tokens.input_ids, seen["mcseo"].objects.tokens.input_ids)
        assert torch.equal(batch.objects.key, seen["mcseo"].objects.key)
    shuffled, whole = seen["mcseo-shuffled"].objects, seen["mcseo-whole"]
    moved = (shuffled.feature != seen["mcseo"].objects.feature).any(1).float().mean()
    assert moved > 0.5
    assert torch.equal(whole.objects.feature, whole.image[whole.objects.row])
    *_, again = build(tiny, data, folder, "mcseo-shuffled")
    assert torch.equal(again.next(0).objects.feature, shuffled.feature), "once, by the seed"


def test_spans_are_the_phrases_tokens(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "mcseo-span")
    batch, whole = batches.next(0), complete(data)
    objects = batch.objects
    assert objects.tokens is None and network.encode(batch, recipe).states.shape[:2] == (8, 2)
    items = [i for c in batch.rows for i in whole.pairs[c]]
    assert len(items) == len(objects.row) > 3
    for item, row, first, end in zip(items, objects.row, objects.first, objects.end, strict=True):
        assert network.encoder.tokenizer.decode(batch.tokens.input_ids[row, 0, first:end]) == item.phrase


def test_a_span_cut_off_is_dropped_and_counted(tiny, data, folder):
    *_, batches = build(tiny, data, folder, "mcseo-span", max_length=6)
    whole = complete(data)
    late = sum(len(own) == 2 for own in whole.pairs)  # "a red dog sees the blue cat": the second is cut off
    assert late > 3
    assert batches.notes[-1].startswith(f"{late} of {sum(map(len, whole.pairs))} object-phrase pairs are left out")
    for number in range(0, 8, 2):
        batch = batches.next(number)
        assert batch.objects is None or (batch.objects.end <= batch.tokens.input_ids.shape[2] - 1).all()


def test_soft_targets_compare_phrase_text_with_object_images(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "mcseo-soft")
    batch = batches.next(0)
    _, statistics = terms_of(network, recipe, batch)["soft"]
    pairs = zip(batch.objects.phrase_text, batch.objects.feature, strict=True)
    assert statistics["teacher_cos"].item() == pytest.approx(np.mean([cosine(a, b) for a, b in pairs]), abs=1e-5)


def test_masked_tokens_and_generated_ones(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "diffcse", batch_size=16)
    tokenizer, masked, usual, mask_tokens = network.encoder.tokenizer, 0, 0, 0
    for number in range(24):
        batch = batches.next(number)
        ids, mask = batch.tokens.input_ids, batch.tokens.attention_mask
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        changed = batch.masked != ids
        assert not (changed & (special | (mask == 0))).any()
        usual, masked = usual + (~special & (mask == 1)).sum().item(), masked + changed.sum().item()
        mask_tokens += (batch.masked == tokenizer.mask_token_id).sum().item()
        assert (changed[:, 0] != changed[:, 1]).any(), "each view its own"
    assert masked / usual == pytest.approx(0.3 * 0.9, abs=0.04) and mask_tokens / usual == pytest.approx(0.24, abs=0.04)
    _, statistics = terms_of(network, recipe, batch)["replaced"]
    ids, mask = ids.flatten(0, 1), mask.flatten(0, 1)
    generated = network.teachers.generator.fill(batch.masked.flatten(0, 1), mask)
    rows, length = ids.shape
    different = sum(int(generated[r, t] != ids[r, t]) for r in range(rows) for t in range(1, length) if mask[r, t] == 1)
    assert statistics["replaced"].item() == pytest.approx(different / mask.sum().item(), abs=1e-6)


def test_padding_counts_in_the_released_form_alone(tiny, data, folder):
    longer = replace(data, captions=[f"{c} near a tree" if i % 2 else c for i, c in enumerate(data.captions)])
    values = {}
    for name in ("diffcse", "diffcse-code"):
        network, recipe, batches = build(tiny, longer, folder, name)
        values[name] = terms_of(still(network), recipe, batches.next(0))["replaced"][0].item()
    assert values["diffcse"] != pytest.approx(values["diffcse-code"], rel=1e-3)


def test_the_form_of_the_code_takes_raw_images_and_token_states(tiny, data, folder):
    wide = replace(data, image_features=np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32))
    network, recipe, batches = build(tiny, wide, folder, "dalr-code", cma_space="raw")
    assert recipe.teacher_states and "grounding" in recipe.heads
    found = terms_of(network, recipe, batches.next(0))
    network.zero_grad(set_to_none=True)
    found["cross_kl"][0].backward(retain_graph=True)
    names = {n.split(".")[1] for n, p in network.named_parameters() if p.grad is not None and n.startswith("heads")}
    assert names == {"simcse"}
    assert torch.isfinite(found["g2l"][0]) and found["g2l"][0] > 0


def test_triplets_are_encoded_once_each(tiny, data, folder):
    network, recipe, batches = build(tiny, data, folder, "simcse-sup", pooling="cls_mlp")
    batch = batches.next(0)
    assert batch.kind == "triplet" and batch.tokens.input_ids.shape[:2] == (8, 3)
    whole = complete(data)
    for row, ids in zip(batch.rows, batch.tokens.input_ids, strict=True):
        texts = [network.encoder.tokenizer.decode(i, skip_special_tokens=True) for i in ids]
        assert texts == list(whole.triplets[row])
    encoded = network.encode(batch, recipe)
    value, statistics = losses(network, encoded, batch, recipe)["triplet"]
    value.backward()
    z = network.simcse(encoded.h).detach()
    assert statistics["hard_cos"].item() == pytest.approx(np.mean([cosine(a, c) for a, _, c in z]), abs=1e-5)
    others = [cosine(z[i, 0], z[j, 1]) for i in range(8) for j in range(8) if i != j]
    assert statistics["neg_cos"].item() == pytest.approx(np.mean(others), abs=1e-5)
    assert network.encoder.mlp.dense.weight.grad.abs().sum() > 0
    assert len(network.heads) == 0


@pytest.mark.parametrize("name", ["diffcse", "dalr-code", "mcseo-span"])
def test_a_half_precision_encoder_gives_losses_close_to_the_full_ones(tiny, data, folder, name):
    values = {}
    for precision in ("fp32", "bf16"):
        network, recipe, batches = build(tiny, data, folder, name, precision=precision)
        found = terms_of(still(network), recipe, batches.next(0))
        assert all(value.dtype == torch.float32 for value, _ in found.values())
        sum(value for value, _ in found.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
        values[precision] = {term: value.item() for term, (value, _) in found.items()}
    for term, value in values["fp32"].items():
        assert values["bf16"][term] == pytest.approx(value, rel=0.2, abs=0.1), term
