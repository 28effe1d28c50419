"""mcseo: the object-phrase loss in every combination of its options."""

from itertools import product

import torch

from model.golden.measure import Computed
from model.golden.vectors import Given
from model.losses.object_phrase import DIRECTION, PHRASE_DUP, SAME_IMAGE, object_phrase


def mcseo(given: Given) -> Computed:
    views = torch.stack([given.leaf("phrase_view1"), given.leaf("phrase_view2")])
    objects, key, image = given.leaf("object"), given.fixed("phrase_key"), given.fixed("image_id")
    box, tau, threshold = given.fixed("boxes_xyxy"), given.setting("tau_o"), given.setting("iou_threshold")
    values, groups = {}, {}
    for options in product(PHRASE_DUP, SAME_IMAGE, DIRECTION):
        name = "|".join(options)
        values[name] = object_phrase(views, objects, key, image, box, tau, *options, iou_threshold=threshold)
        groups |= {f"{kind}_{'_'.join(options)}": name for kind in ("numgrad", "grad")}
    return Computed(values, gradients=groups)
