"""Collections of images and captions, each read as a stream of records (stages/ingest/records.py)."""

from stages.ingest.sources import coco, flickr, folder, parquet, webdataset

READERS = {
    "folder": folder.read,
    "coco": coco.read,
    "flickr": flickr.read,
    "parquet": parquet.read,
    "webdataset": webdataset.read,
    "sentences": lambda section: iter(()),
}
