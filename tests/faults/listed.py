"""The faults the project answers for: what is done to it, and what it must do. Tests name them by `fault` marks."""

FAULTS: dict[str, tuple[str, str]] = {
    # Processes
    "F1": (
        "a stage is killed (SIGKILL) in the middle of a shard",
        "at most that shard is computed again; all bytes end equal",
    ),
    "F2": (
        "a stage is killed between a shard's file and its record or sidecar",
        "the shard does not count and is made again",
    ),
    "F3": (
        "a writer of shards is killed 1,000 times, at every call and at random moments",
        "no reader ever takes a bad shard; the next writer ends with equal bytes",
    ),
    "F4": ("a stage gets SIGTERM or SIGINT", "exit 143 or 130, one line; finished shards stay, no draft is left"),
    "F5": (
        "two processes run one stage at a time",
        "the second ends with exit 5 and names the PID of the first; nothing is mixed",
    ),
    "F6": (
        "a worker process dies in the middle of a shard",
        "its shards are tried once more; dying again ends the stage with exit 5",
    ),
    "F7": (
        "the machine restarts and leaves DVC's and the stages' lock files behind",
        "the next run clears them itself",
    ),
    "F8": (
        "clocks and file times run backwards",
        "nothing is computed again, and nothing that changed is taken for fresh",
    ),
    # Disk
    "F9": (
        "the disk is full at any one write, flush, rename or open",
        "exit 5 and one line; no record of the shard; earlier shards are kept and used",
    ),
    "F10": ("the output folder or the scratch store is read-only", "exit 5 and one line that names the place"),
    "F11": ("a Parquet shard is cut off anywhere", "refused with one line that says which file and what to do"),
    "F12": (
        "any byte of a shard, sidecar, record or stored object is flipped",
        "never read as good; what the store lost is computed again",
    ),
    "F13": ("a shard is deleted and its sidecar left", "refused with one line; running its stage brings it back"),
    "F14": ("a sidecar is edited", "refused with one line; running its stage writes it anew"),
    "F15": (
        "an object of DVC's cache is damaged",
        "what it restores is refused by the next stage; running the writer's stage mends it",
    ),
    # Images
    "F16": ("an image file of no bytes", "rejected: empty_file"),
    "F17": ("an HTML page named .jpg", "rejected: unreadable"),
    "F18": ("a JPEG cut in half", "rejected: truncated"),
    "F19": (
        "a JPEG with a flipped byte that still decodes",
        "rejected where the collection states a sha256; its own sha256 is on record in any case",
    ),
    "F20": ("a PNG of 200 million pixels in a few kilobytes", "rejected before it is decoded: too_many_pixels"),
    "F21": ("an image of 100 million pixels, where Pillow only warns", "rejected: too_many_pixels"),
    "F22": ("images of 1x1 and of 1x20000 pixels", "rejected for their shape"),
    "F23": ("a CMYK JPEG", "stored as plain RGB of the same colours"),
    "F24": ("a 16-bit PNG", "scaled to 8 bits, not clipped to white"),
    "F25": ("an RGBA image with colours hidden under alpha 0", "laid on white; hidden colours stay hidden"),
    "F26": (
        "animated GIF and PNG, a TIFF of several pages, a palette image",
        "the first frame as plain RGB; that it was rewritten is on record",
    ),
    "F27": (
        "a photo turned by its EXIF orientation",
        "stored upright; boxes, masks and pairs refer to the upright frame",
    ),
    "F28": ("greyscale, grey with alpha, and 1-bit images", "every one is stored so that it decodes to plain RGB"),
    "F29": ("a listed image file that is not there", "rejected: missing_file; its captions are counted"),
    "F30": ("one image under two ids", "one image stays and keeps all captions; the other is dropped: duplicate"),
    "F31": ("a link that leaves the collection's folder", "never opened; rejected: outside_root"),
    "F32": ("an image file that may not be read", "rejected: unreadable"),
    # Text
    "F33": ("an empty caption, and one of spaces", "rejected: empty"),
    "F34": ("a caption of 10,000 words", "dropped with its length: too_long; nothing is cut silently"),
    "F35": (
        "bytes that are not UTF-8 in a captions file",
        "the line is rejected by its number; the other lines are read",
    ),
    "F36": ("'.', '?', '[SEP]' and '##' inside phrases", "phrases are kept as they are and slice back"),
    "F37": ("emoji, combining marks, right-to-left text", "every span slices back to its phrase, in pairs too"),
    "F38": (
        "a caption without any noun phrase",
        "dropped by parse: no_phrase; it stays an image-caption pair of training",
    ),
    "F39": ("the same phrase twice in a caption", "two spans, each with its own boxes and pair"),
    "F40": ("CRLF, a byte order mark, NUL and quotes in captions files", "read as the captions they hold"),
    "F41": ("HTML and script in captions and names", "shown as text; nothing runs"),
    # Records
    "F42": ("two captions with one id", "the second is rejected, and both are named"),
    "F43": ("a caption of an image the collection does not list", "rejected: unknown_image, with both ids"),
    "F44": ("five captions of an image, one of them bad", "four are kept, one row says why the fifth is not"),
    "F45": ("an empty collection", "exit 3 and one line; no empty model"),
    "F46": ("every record is rejected", "exit 4 (or 3) with the commonest reasons; no empty success"),
    # Models
    "F47": (
        "a device runs out of memory at any batch",
        "the batch is halved and the results are the same; a single item that does not fit ends in exit 5",
    ),
    "F48": (
        "a model gives NaN or infinity",
        "the shard fails with one line that names the image; nothing of it is written",
    ),
    "F49": (
        "the loss or the gradient is NaN at step k of training",
        "no step is taken; one line names the step and the rows it read, exit 2; the checkpoint before it is whole",
    ),
    "F50": (
        "a file of weights with another sha256, cut short, of another architecture, or whose pickle would run code",
        "refused with one line, exit 3; no code of it runs and nothing of it is put in place",
    ),
    "F51": (
        "there is no GPU, or not the one that is named",
        "`auto` takes the CPU; a device that is named and not there is refused with one line before a model is loaded",
    ),
    "F52": (
        "batches of 1, 4 and 16, rows in any order",
        "the same ids, and scores within 1e-5 in fp32",
    ),
    "F53": ("a stage runs on two devices instead of one", "every shard has the same bytes"),
    "F54": (
        "training is killed (SIGKILL) at five random steps and resumed",
        "losses and final weights are those of the undisturbed run, bit for bit (CPU, same thread count)",
    ),
    "F55": (
        "training is killed (SIGKILL) while a checkpoint is saved",
        "the previous checkpoint loads, and going on from it ends as the undisturbed run; a damaged one is refused",
    ),
    # Orchestration
    "F56": ("wrong parameters", "all are listed, exit 2, before any model is loaded"),
    "F57": ("a parameter named `size` or `nfiles`, which DVC's run cache ignores", "a test forbids it"),
    "F58": ("a parameter is changed", "exactly the stages that depend on it run"),
    "F59": ("a parameter is set back", "nothing is computed"),
    "F60": ("the Prefect worker is killed in the middle of a flow", "nothing runs on; the next flow finishes"),
    "F61": ("Prefect's server cannot be reached", "`dvc repro` and `python -m pipeline run` work all the same"),
    "F62": ("two runs of a deployment at once", "the second waits for the first"),
}
