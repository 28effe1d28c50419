"""What the reason codes of the ledger mean, in words for the page.

`stage.code` goes before `code`; an unknown code is shown bare.
"""

MEANING = {
    "ingest.duplicate": "the same image or sentence again; of images the smallest id stays and keeps all captions",
    "near_duplicate": "it looks like an image with a smaller id, by their perceptual hashes (ingest.near_duplicates)",
    "no_caption": "an image that no caption belongs to",
    "outside_root": "its path leaves the collection's folder",
    "missing_file": "the file is not there",
    "unreadable": "the file cannot be read or decoded",
    "empty_file": "the file holds no bytes",
    "truncated": "the image file ends too early",
    "too_many_pixels": "more pixels than ingest.max_pixels",
    "sha256_differs": "the file is not the one whose sha256 the collection states",
    "aspect": "longer than ingest.max_aspect times its width",
    "unsupported_mode": "a pixel format that has no plain RGB form",
    "ingest.too_small": "its short side is below ingest.min_side",
    "ingest.too_long": "more words than ingest.max_caption_words",
    "duplicate_id": "another record has the same id",
    "bad_record": "the record cannot be read as an image and its caption",
    "bad_encoding": "the line, the text or the name is not UTF-8",
    "unknown_image": "names an image that the collection does not list",
    "image_dropped": "its image was dropped",
    "image_rejected": "its image was rejected",
    "empty": "there is no text",
    "no_phrase": "no phrase of the caption was kept",
    "pronoun": "the head is a pronoun",
    "abstract_head": "the head is on the list of words without pixels (parse.drop_heads)",
    "no_letters": "there is no word in it",
    "not_visual": "marked as not visual",
    "parse.too_long": "more words than parse.max_words",
    "no_category": "no annotated category goes by this word",
    "no_match": "no object of that category is annotated in this image",
    "no_annotation": "nothing is annotated here",
    "no_box": "no box scores detect.box_threshold for this phrase",
    "phrase_empty": "nothing of it is left that a detector can be asked for",
    "phrase_too_long": "longer than the text that the detector takes at once",
    "bad_box": "the box has no area inside its image",
    "no_mask": "no pixels were found for the box",
    "segment.bad_mask": "the annotated mask cannot be read",
    "embed.bad_mask": "the mask cannot be read, is empty, or has another size than its image",
    "low_score": "box score below align.min_score",
    "low_predicted_iou": "the mask's predicted IoU is below align.min_predicted_iou",
    "align.too_small": "the mask covers less of the image than align.min_area",
    "align.too_large": "the mask covers more of the image than align.max_area",
    "mask_off_box": "the mask's own box and the detected box disagree",
    "low_similarity": "crop and phrase are less alike than align.min_similarity",
    "part_of_union": "one of several objects of a counted phrase; their union is the pair",
    "count_mismatch": "the phrase counts another number of objects than were found",
    "uncounted_plural": "a plural that does not say how many, so nothing says which objects are meant",
    "not_best": "another candidate of the phrase scores higher",
    "ambiguous": "several candidates are equally good, so nothing says which one is meant",
    "caption_cap": "the caption has align.max_per_caption better pairs",
}


def meaning(stage: str, reason: str) -> str:
    """A short explanation of a reason code, or ''."""
    return MEANING.get(f"{stage}.{reason}") or MEANING.get(reason, "")
