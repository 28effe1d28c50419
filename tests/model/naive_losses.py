"""The losses written a second time, from their formulas: loops over items, arccos, plain exp and log, float64.

Slow and unstable on purpose: nothing here shares a line, an identity or a reduction with model/losses. Scalars are
torch scalars, so that derivatives of the formulas come from autograd.
"""

from math import inf

import torch


def cos(a, b):
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def cosines(rows, columns):
    return [[cos(a, b) for b in columns] for a in rows]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def contrast(logits, gone=()):
    """Mean over rows of -log( exp(own) / sum of exp ), entries (i, j) of `gone` left out of the sum."""
    rows = []
    for i, row in enumerate(logits):
        below = sum(torch.exp(s) for j, s in enumerate(row) if (i, j) not in gone)
        rows.append(-torch.log(torch.exp(row[i]) / below))
    return mean(rows)


def over(matrix, temperature):
    return [[s / temperature for s in row] for row in matrix]


def turned(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def margined(matrix, margin, difference=None):
    """arccos, take the margin off, cos again; where the angle is over the margin, off the diagonal."""
    result = []
    for i, row in enumerate(matrix):
        new = []
        for j, s in enumerate(row):
            angle = torch.acos(s)
            assert i == j or abs(angle.item() - margin) > 1e-3, "too near the margin for a float32 check"
            moved = margin if difference is None else margin * difference[i][j]
            new.append(s if i == j or angle.item() <= margin else torch.cos(angle - moved))
        result.append(new)
    return result


def apart(vectors):
    return [[1 - s for s in row] for row in cosines(vectors, vectors)]


def head(weight, bias, x):
    return torch.stack([torch.tanh(weight @ row + bias) for row in x])


def softmax(row):
    total = sum(torch.exp(s) for s in row)
    return [torch.exp(s) / total for s in row]


def kl_rows(teacher, student):
    """One divergence a row, of rows of probabilities."""
    return [
        sum(q * torch.log(q / p) for q, p in zip(qs, ps, strict=True)) for qs, ps in zip(teacher, student, strict=True)
    ]


def kl(teacher_scores, student_scores):
    return kl_rows([softmax(row) for row in teacher_scores], [softmax(row) for row in student_scores])


def list_mle_rows(scores, teacher, include_self=True, eps=None):
    """One value a row: positions in the teacher's falling order."""
    values = []
    for i, row in enumerate(scores):
        order = sorted((j for j in range(len(row)) if include_self or j != i), key=lambda j: -float(teacher[i][j]))
        picked = [row[j] for j in order]
        if eps is not None:
            highest = max(picked, key=lambda s: s.item())
            picked = [s - highest for s in picked]
        tails = [sum(torch.exp(s) for s in picked[k:]) + (eps or 0.0) for k in range(len(picked))]
        values.append(sum(torch.log(tail) - s for tail, s in zip(tails, picked, strict=True)))
    return values


def consistency_each(text, image, matched, margin):
    values = []
    for t, v, together in zip(text, image, matched, strict=True):
        c = cos(t, v)
        values.append(1 - c if together else (c - margin if c.item() > margin else 0 * c))
    return values


def global_to_local(sentence, tokens, mask, temperature):
    n, length, width = tokens.shape
    norms = [[(tokens[j, :, d] ** 2).sum().sqrt() for d in range(width)] for j in range(n)]
    local = [[tokens[j, t] / torch.stack(norms[j]) for t in range(length)] for j in range(n)]
    rows = []
    for i in range(n):
        score = [[(sentence[i] * local[j][t]).sum() / temperature for t in range(length)] for j in range(n)]
        others = sum(torch.exp(score[j][t]) for j in range(n) for t in range(length) if j != i and mask[j][t])
        own = [torch.exp(score[i][t]) for t in range(length) if mask[i][t]]
        rows.append(mean(-torch.log(e / (e + others)) for e in own))
    return mean(rows)


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def object_phrase(views, objects, key, image, box, temperature, threshold, dup, same, direction):
    m = len(key)

    def positives(n):
        return {j for j in range(m) if key[j] == key[n]} if dup == "multi_positive" else {n}

    def ignored(n):
        gone = {j for j in range(m) if key[j] == key[n]} if dup == "mask" else set()
        if same != "negative":
            alike = {j for j in range(m) if image[j] == image[n]}
            gone |= {j for j in alike if same == "ignore" or overlap(box[n], box[j]) >= threshold}
        return gone - positives(n)

    def one_way(rows, columns):
        each = []
        for n in range(m):
            e = [torch.exp((rows[n] * columns[j]).sum() / temperature) for j in range(m)]
            rest = sum(e[j] for j in range(m) if j not in positives(n) | ignored(n))
            each.append(mean(-torch.log(e[p] / (e[p] + rest)) for p in positives(n)))
        return mean(each)

    there = mean(one_way(view, objects) for view in views)
    return there if direction == "t2v" else (there + mean(one_way(objects, view) for view in views)) / 2


def replaced(logits, labels, mask, count_padding):
    values = []
    for row, says, real in zip(logits, labels, mask, strict=True):
        for position, label, here in zip(row, says, real, strict=True):
            if here or count_padding:
                values.append(-torch.log(softmax(list(position))[int(label)]))
    return mean(values)


def ranks(values):
    """Average ranks, from 1."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return top / (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)) ** 0.5


def spearman(x, y):
    return pearson(ranks(x), ranks(y))


def distance2(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def schedule(text, pairs, size, steps):
    """'text' or 'pair' of each step, by running the published loop's counting."""
    w, p = -(-text // size), -(-pairs // size)
    every = max(1, w // p)
    kinds, in_epoch = [], 0
    while len(kinds) < steps:
        kinds.append("pair" if in_epoch % every == 0 else "text")
        in_epoch = 0 if in_epoch + 1 == w + p else in_epoch + 1
    return kinds, w, p, every


def falls(row):
    """Columns by falling value; no ties."""
    left, order = dict(enumerate(row)), []
    while left:
        best, top = None, -inf
        for j, value in left.items():
            if float(value) > top:
                best, top = j, float(value)
        order.append(best)
        del left[best]
    return order
