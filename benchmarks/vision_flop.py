"""Floating-point operations of the full-size networks for one image, counted by torch (a multiply-add is two).

    python -m benchmarks.vision_flop

Matrix products, convolutions and attention count; what else a network does (normalisation, sampling, upscaling of
masks) does not. The SAM encoders are counted as published, on no memory; GroundingDINO runs once on random weights.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.made_weights import SAM, grounding_dino

HEIGHT, WIDTH, WORDS = 800, 1066, 60


def counted(run: Callable[[], object]) -> float:
    """FLOP of a call."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops())


def sam_encoder(name: str) -> float:
    """A SAM's image encoder on its square of 1024 pixels."""
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        encoder = sam_model_registry[SAM[name]]().image_encoder
        return counted(lambda: encoder(torch.zeros(1, 3, encoder.img_size, encoder.img_size)))


def detector(name: str) -> dict[str, float]:
    """A GroundingDINO on a resized photo of 640 x 480 with a prompt of about WORDS tokens: the whole, and its parts."""
    model = grounding_dino(name)
    prompt = " . ".join(["thing"] * (WORDS // 2)) + " ."
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, HEIGHT, WIDTH), captions=[prompt])
    counts = {key: float(sum(value.values())) for key, value in counter.get_flop_counts().items()}
    parts = {"whole": "GroundingDINO", "backbone": "GroundingDINO.backbone", "text": "GroundingDINO.bert"}
    parts |= {"encoder": "GroundingDINO.transformer.encoder", "decoder": "GroundingDINO.transformer.decoder"}
    return {part: counts.get(key, 0.0) for part, key in parts.items()}


def main() -> None:
    for name in SAM:
        print(f"{name}: image encoder {sam_encoder(name) / 1e12:.3f} TFLOP")
    for part, flop in detector("grounding-dino-tiny").items():
        print(f"grounding-dino-tiny at {HEIGHT} x {WIDTH}, {WORDS} tokens: {part} {flop / 1e12:.4f} TFLOP")


if __name__ == "__main__":
    main()
