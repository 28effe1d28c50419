"""A Segment Anything checkpoint at work: images to embeddings, prompts to masks at image resolution."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ParamsError
from stages.common.checkpoints import WEIGHTS, load_strict, read_config, read_state
from stages.common.feeder import resize
from stages.segment.architecture import MEAN, STD, build, encoder_flop, of_config
from stages.segment.decoder import Decoder, Kept
from stages.segment.encoder import Encoder

Size = tuple[int, int]  # height, width in pixels


class Network:
    """The encoder in the stage's number format, the decoder in fp32.

    Args:
        folder: a weights folder, as convert.py makes it.
        device, dtype: of the encoder.
        batch: images the encoder is compiled for, 0 if it is not compiled; it then sees so many at any time.

    Raises:
        InputError: the folder is missing or of another model, or its weights do not fit its config.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, batch: int = 0):
        config = read_config(folder, "segment.path (a Segment Anything model)")
        self.shape = of_config(config, folder)
        self.name = str(config.get("architecture", ""))
        file = folder / WEIGHTS
        sam = build(self.shape)
        load_strict(sam, read_state(file), file)
        sam.requires_grad_(False)
        self.device, self.dtype, self.batch = device, dtype, batch
        self.flop = encoder_flop(self.shape)
        self.side = self.shape.image_side
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
        exact = dtype == torch.float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exact
        with torch.no_grad():
            self.encoder = Encoder(sam.image_encoder.float(), device, batch > 0).cast(dtype).to(device).eval()
            sam.prompt_encoder.float().to(device)
            sam.mask_decoder.float().to(device)
            self.decoder = Decoder(sam).eval()
        if batch:
            for block in self.encoder.blocks:  # one by one: compiled once for windows and once for global attention
                block.compile(dynamic=False)

    @torch.inference_mode()
    def warm_up(self, images: int) -> None:
        """One pass of the encoder: compilation, and what a device sets up when it is first used.

        Raises:
            ParamsError: the encoder cannot be compiled on this machine.
        """
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        try:
            self.encoder(torch.zeros(images, 3, self.side, self.side, dtype=self.dtype, device=self.device))
        except (TorchDynamoException, InductorError) as error:
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ParamsError(
                f"runtime.compile: the network cannot be compiled here ({said}); set it to false"
            ) from None

    def resized(self, size: Size) -> Size:
        """An image's size in the encoder's frame: its longer side fills it."""
        scale = self.side / max(size)
        height, width = (int(side * scale + 0.5) for side in size)
        return height, width

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor], fill: int = 0) -> Tensor:
        """Embeddings of images, fp32 [N, C, grid, grid].

        Args:
            images: RGB of any sizes, uint8 [3, H, W].
            fill: fewer images are filled up to so many, as a compiled network wants them.
        """
        count = max(len(images), fill)
        pixels = torch.zeros(count, 3, self.side, self.side, dtype=self.dtype, device=self.device)
        for into, image in zip(pixels, images, strict=False):
            height, width = self.resized(tuple(image.shape[1:]))
            small = resize(image, height, width, "bilinear")
            into[:, :height, :width] = (small.float() - self._mean) / self._std
        pixels[len(images) :] = pixels[len(images) - 1]
        return self.encoder(pixels)[: len(images)]

    @torch.inference_mode()
    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """See `Decoder.embed_boxes`."""
        return self.decoder.embed_boxes(boxes)

    @torch.inference_mode()
    def embed_points(self, points: Tensor) -> Tensor:
        """See `Decoder.embed_points`."""
        return self.decoder.embed_points(points)

    @torch.inference_mode()
    def decode(self, embeddings: Tensor, owner: Tensor, prompts: Tensor, kept: Kept) -> tuple[Tensor, Tensor]:
        """See `Decoder.forward`."""
        return self.decoder(embeddings, owner, prompts, kept)

    @torch.inference_mode()
    def enlarge(self, low: Tensor, size: Size) -> Tensor:
        """Logits as the decoder gives them [n, h, w] -> at the resolution of their image [n, height, width].

        Bilinear, to the encoder's frame, cut to the image's part of it, and to the image's size, as
        `Sam.postprocess_masks` does it.
        """
        height, width = self.resized(size)
        frame = F.interpolate(low[:, None], (self.side, self.side), mode="bilinear", align_corners=False)
        return F.interpolate(frame[..., :height, :width], size, mode="bilinear", align_corners=False)[:, 0]
