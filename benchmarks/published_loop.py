"""SimCSE, MCSE and MCSEO trained as the published training loops work, for comparison of speed; nothing else uses it.

Written from the loops' description, not from their code: texts tokenised up front, each batch padded to its longest
and collated item by item, features read a row at a time; both views in one forward pass through a BERT with its
(unused) pooler; fp32 throughout; the loss copied to the host at every step; AdamW that visits one tensor after the
other, with the older eps; evaluation on all of STS-B (train, dev and test) every 125 steps, repeated sentences encoded
again, in SentEval's batches of 128, with one cosine a pair in Python. MCSEO has no published loop: the phrases take a
forward pass of their own in MCSE's, and the object loss is added.

Two things are kinder to it than the published code: attention is what transformers takes by default today, and a
recipe's losses are the same function whoever computes them, so that the model's own are called.
"""

from collections.abc import Hashable, Iterable, Iterator

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer

from benchmarks.trainer_data import SEED, Setting
from model import sts
from model.data import TrainingData
from model.golden.early_adamw import EarlyEpsAdamW
from model.losses.info_nce import info_nce
from model.losses.object_phrase import object_phrase

TAU, LAMBDA, MU, LR = 0.05, 0.01, 0.01, 3e-5
PROJECTION = 256
SENTEVAL_ROWS = 128


class PublishedModel(nn.Module):
    """BERT with its pooler, the MLP of SimCSE, and the two grounding heads."""

    def __init__(self, setting: Setting, image_dim: int | None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            if setting.model == "minilm":
                self.bert = AutoModel.from_pretrained(setting.folder, local_files_only=True, dtype=torch.float32)
            else:
                self.bert = AutoModel.from_config(AutoConfig.from_pretrained(setting.folder, local_files_only=True))
            hidden = self.bert.config.hidden_size
            self.mlp = nn.Linear(hidden, hidden)
            self.text_head = nn.Linear(hidden, PROJECTION) if image_dim else None
            self.visual_head = nn.Linear(image_dim, PROJECTION) if image_dim else None

    def encode(self, tokens: dict[str, Tensor]) -> Tensor:
        """The first token's last state of both views: [N, 2, H]."""
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        n, views, length = ids.shape
        states = self.bert(input_ids=ids.view(-1, length), attention_mask=mask.view(-1, length)).last_hidden_state
        return states[:, 0].view(n, views, -1)

    def project(self, h: Tensor) -> Tensor:
        return F.normalize(torch.tanh(self.text_head(h)), dim=-1)

    def see(self, features: Tensor) -> Tensor:
        return F.normalize(torch.tanh(self.visual_head(features)), dim=-1)


class PublishedLoop:
    """`step()` does one optimizer step and returns the loss and the number of sentences; `evaluate` is the check on
    STS-B that comes every 125 steps.
    """

    def __init__(self, name: str, setting: Setting, data: TrainingData, steps: int):
        self.name, self.setting, self.data = name, setting, data
        self.device = torch.device(setting.device)
        self.tokenizer = AutoTokenizer.from_pretrained(setting.folder, local_files_only=True)
        self.model = PublishedModel(setting, data.image_dim).to(self.device).train()
        texts = data.sentences or data.captions
        self.tokens = self._tokenised(texts)
        self.phrases = [[self._tokenised([i.phrase])[0] for i in own] for own in data.pairs] if name == "mcseo" else []
        self.optimizer = EarlyEpsAdamW(self.model.parameters(), LR, eps=1e-6)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / (steps + 1))
        self.draw = np.random.default_rng(SEED)
        self.rows = self._batches()

    def step(self) -> tuple[float, int]:
        rows = next(self.rows)
        tokens = self._to_device(self._collate([self.tokens[r] for r in rows]))
        h = self.model.encode(tokens)
        z = torch.tanh(self.model.mlp(h))
        loss = info_nce(z[:, 0], z[:, 1], TAU)
        if self.data.image_features is not None and self.name != "simcse":
            images = torch.stack([torch.tensor(self.data.image_features[self.data.caption_image[r]]) for r in rows])
            seen, text = self.model.see(images.to(self.device)), self.model.project(h)
            loss = loss + LAMBDA * (info_nce(text[:, 0], seen, TAU) + info_nce(text[:, 1], seen, TAU)) / 2
            if self.phrases:
                loss = loss + MU * self._object_loss(rows)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=False)
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), len(rows)

    def evaluate(self, task: sts.Task) -> float:
        """Spearman on the last split; every split is encoded."""
        self.model.eval()
        found = 0.0
        for subset in task.subsets.values():
            order = sorted(
                range(len(subset.gold)), key=lambda i: (len(subset.sentences1[i]), len(subset.sentences2[i]))
            )
            cosines = []
            for start in range(0, len(order), SENTEVAL_ROWS):
                part = order[start : start + SENTEVAL_ROWS]
                one, two = (self._embed([s[i] for i in part]) for s in (subset.sentences1, subset.sentences2))
                cosines += [_cosine(a, b) for a, b in zip(one, two, strict=True)]
            found = float(stats.spearmanr(cosines, subset.gold[order])[0])
        self.model.train()
        return found

    @torch.no_grad()
    def _embed(self, sentences: list[str]) -> np.ndarray:
        tokens = self.tokenizer(sentences, return_tensors="pt", padding=True, truncation=True, max_length=512)
        found = self.model.bert(**self._to_device(dict(tokens)), output_hidden_states=True)
        return found.last_hidden_state[:, 0].cpu().numpy()

    def _object_loss(self, rows: np.ndarray) -> Tensor:
        chosen = [(r, int(self.draw.integers(len(self.phrases[r])))) for r in rows if self.phrases[r]]
        tokens = self._to_device(self._collate([self.phrases[r][i] for r, i in chosen]))
        items = [self.data.pairs[r][i] for r, i in chosen]
        features = torch.stack([torch.tensor(self.data.object_features[i.object_row]) for i in items])
        key, image = (_codes(getattr(i, what) for i in items).to(self.device) for what in ("key", "image_id"))
        box = torch.tensor([i.box for i in items], device=self.device)
        text, seen = self.model.project(self.model.encode(tokens)), self.model.see(features.to(self.device))
        return object_phrase(text.transpose(0, 1), seen, key, image, box, TAU)

    # ------------------------------------------------------------ batches

    def _tokenised(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=self.setting.length)["input_ids"]

    def _batches(self) -> Iterator[np.ndarray]:
        while True:
            order = self.draw.permutation(len(self.tokens))
            for start in range(0, len(order) - self.setting.batch + 1, self.setting.batch):
                yield order[start : start + self.setting.batch]

    def _collate(self, rows: list[list[int]]) -> dict[str, Tensor]:
        padded = self.tokenizer.pad({"input_ids": [row for row in rows for _ in range(2)]}, return_tensors="pt")
        return {name: padded[name].view(len(rows), 2, -1) for name in ("input_ids", "attention_mask")}

    def _to_device(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in tokens.items()}


def _codes(values: Iterable[Hashable]) -> Tensor:
    code: dict[Hashable, int] = {}
    return torch.tensor([code.setdefault(v, len(code)) for v in values])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.nan_to_num(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))))
