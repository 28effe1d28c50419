"""The mask decoder over prompts of many images: what the published one gives image by image."""

import pytest
import torch
from vision import SAM

from stages.segment.decoder import Decoder

GRID, SIDE = SAM["image_side"] // SAM["patch"], SAM["image_side"]


@pytest.fixture(scope="module")
def embeddings():
    return torch.randn(3, SAM["prompt_dim"], GRID, GRID, generator=torch.Generator().manual_seed(0))


def published(sam, embedding, sparse, multimask):
    return sam.mask_decoder(
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
            len(sparse), -1, GRID, GRID
        ),
        multimask_output=multimask,
    )


@pytest.mark.parametrize("kind", ["boxes", "points"])
@torch.inference_mode()
def test_prompts_of_many_images_are_decoded_as_one_by_one(official, embeddings, kind):
    decoder = Decoder(official)
    owner = torch.tensor([2, 0, 0, 1, 2, 0])
    if kind == "boxes":
        prompts = decoder.embed_boxes(torch.rand(6, 4) * SIDE)
    else:
        prompts = decoder.embed_points(torch.rand(6, 2) * SIDE)
    masks, iou = decoder(embeddings, owner, prompts, "all")
    single, single_iou = decoder(embeddings, owner, prompts, "single")
    best, best_iou = decoder(embeddings, owner, prompts, "best")
    assert masks.shape == (6, 3, 4 * GRID, 4 * GRID) and single.shape[1] == best.shape[1] == 1
    for prompt, image in enumerate(owner):
        low, predicted = published(official, embeddings[image], prompts[prompt][None], True)
        assert low.std() > 1
        torch.testing.assert_close(masks[prompt], low[0], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(iou[prompt], predicted[0], atol=1e-5, rtol=1e-5)
        chosen = int(predicted[0].argmax())
        torch.testing.assert_close(best[prompt, 0], low[0, chosen], atol=1e-3, rtol=1e-4)
        assert best_iou[prompt, 0] == pytest.approx(float(predicted[0, chosen]), abs=1e-5)
        low, predicted = published(official, embeddings[image], prompts[prompt][None], False)
        torch.testing.assert_close(single[prompt], low[0], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(single_iou[prompt], predicted[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_points_are_embedded_as_the_predictor_embeds_them(official):
    points = torch.rand(4, 2) * SIDE
    labels = torch.ones(4, 1, dtype=torch.int)
    expected, _ = official.prompt_encoder((points[:, None], labels), None, None)
    assert torch.equal(Decoder(official).embed_points(points), expected)
