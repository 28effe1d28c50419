"""Every command in a bash block of the README or of docs/ is run, in a small checkout, and ends well.

The checkout has the project's own code and graph over a small collection, so what a page names of the demo or of the
reader's disk is replaced by what is there (`Checkout.fitted`). A command that stands on several pages is run once.
"""

import json
import re
from pathlib import Path

import pytest
from checkout import dvc, make_checkout, run
from PIL import Image, ImageDraw
from small import ROOT

from pipeline.files import sha256_file, write_json
from pipeline.shards import read_all

pytestmark = pytest.mark.graph

PAGES = (
    "docs/quickstart.md",
    "docs/commands.md",
    "docs/evaluation.md",
    "docs/resume.md",
    "docs/your-own-data.md",
    "docs/weights.md",
    "docs/ablation.md",
    "docs/world.md",
    "README.md",
)
# On these pages a block goes on where the one before it ended; elsewhere each begins with the parameters as they were.
GOES_ON = ("docs/your-own-data.md",)
# What cannot be run here, and what stands for it.
NOT_RUN = {
    "git clone <this repository> && cd <it>": "the checkout is there already",
    "make demo": "installs an environment, then runs `python -m pipeline run`, which is run here",
    "make test": "runs these tests",
    "source .venv/bin/activate": "the tests' own environment is active",
    "python -m pipeline weights get grounding-dino-tiny sam-vit-base": "needs a network; "
    "tests/pipeline/test_weights.py gets weights from a server of its own",
    "python -m pipeline weights convert /data/tuned.pth --as sam-vit-base --to weights/sam-tuned": "needs a checkpoint "
    "of full size; tests/pipeline/test_weights_convert.py converts small ones",
    "dvc repro ablation/dvc.yaml": "two hours of training; tests/ablation runs its cells over small worlds",
    "dvc status ablation/dvc.yaml": "as above",
    "dvc repro ablation/dvc.yaml:table": "as above",
    "make checkpoints EWT=PATH": "hours of training; tests/demo/recipes trains each recipe a few steps",
    "python -m demo.recipes.check": "minutes; tests/demo/recipes/test_check.py runs it over few scenes",
    "dvc exp run -S align.min_score=0.6": "tests/graph/test_dvc.py runs experiments",
    "prefect server start &": "tests/pipeline/test_flow_server.py runs this block against a real server",
    "prefect work-pool create local --type process": "as above",
    "prefect --no-prompt deploy --all": "as above",
    "prefect worker start --pool local &": "as above",
    "prefect deployment run mcseo/demo --watch": "as above",
    "prefect deployment run mcseo/demo --watch -p overrides='{\"align.min_score\": 0.5}'": "as above",
}


def blocks(page: str) -> list[list[str]]:
    """The commands of each bash block of a page, comments taken off."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        commands = [re.split(r"\s+# ", line)[0].strip() for line in lines]
        found.append([command for command in commands if command and not command.startswith("#")])
    return found


def listed() -> list[tuple[str, int, str]]:
    """(page, block, command) of every command that is to be run, each once."""
    rows, seen = [], set(NOT_RUN)
    for page in PAGES:
        for number, block in enumerate(blocks(page)):
            for command in block:
                if command not in seen:
                    seen.add(command)
                    rows.append((page, number, command))
    return rows


def test_every_page_with_commands_is_looked_at():
    pages = {"README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))}
    assert {page for page in pages if blocks(page)} <= set(PAGES)
    shown = {command for page in PAGES for block in blocks(page) for command in block}
    assert set(NOT_RUN) <= shown, "what is no longer shown need not be excused"
    assert len(NOT_RUN) < len(shown) / 3


def make_photos(folder: Path) -> None:
    """A reader's own folder as docs/your-own-data.md describes it: images/, captions.csv, instances.json."""
    (folder / "images/trip").mkdir(parents=True)
    lines, images, objects = ["image,caption"], [], []
    words = {"dog.jpg": "dog", "cat.jpg": "cat", "trip/boat.jpg": "boat", "trip/kite.jpg": "kite"}
    for number, (name, word) in enumerate(words.items(), 1):
        photo = Image.new("RGB", (120, 90), (200, 220, 240))
        box = (20 + number, 30, 70 + number, 80)
        ImageDraw.Draw(photo).ellipse(box, fill=(30 * number, 60, 40))
        photo.save(folder / "images" / name)
        lines += [f'{name},"A brown {word} is there, as large as life."', f"{name},The {word} alone."]
        images.append({"id": f"images/{name}", "file_name": f"images/{name}", "width": 120, "height": 90})
        size = [box[2] - box[0], box[3] - box[1]]
        outline = [box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]
        objects.append(
            {
                "id": number,
                "image_id": f"images/{name}",
                "category_id": number,
                "iscrowd": 0,
                "bbox": [box[0], box[1], *size],
                "area": size[0] * size[1],
                "segmentation": [outline],
            }
        )
    categories = [{"id": number, "name": word} for number, word in enumerate(words.values(), 1)]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    (folder / "instances.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": categories})
    )


class Checkout:
    def __init__(self, folder: Path):
        self.folder = make_checkout(folder / "checkout", images=10, grid__recipes=["untrained"])
        # What presets name of the project, and what the pages name of the reader's disk.
        (self.folder / "demo/world").symlink_to(ROOT / "demo/world")
        (self.folder / "demo/checkpoints/stanza_en").symlink_to(ROOT / "demo/checkpoints/stanza_en")
        self.photos, self.coco = folder / "photos", folder / "coco"
        make_photos(self.photos)
        self.coco.mkdir()
        self.params = (self.folder / "params.yaml").read_text()
        self.place = ("", 0)

    def at(self, page: str, block: int) -> None:
        """A new page or block: the parameters are as at first, and count as unedited."""
        if self.place[0] != page or (self.place[1] != block and page not in GOES_ON):
            file = self.folder / "params.yaml"
            file.write_text(self.params)
            write_json(self.folder / ".run/preset.json", {"preset": "demo", "sha256": sha256_file(file)})
        self.place = (page, block)

    def fitted(self, command: str) -> str:
        """The command over what is here."""
        command = command.replace("python -m demo.build", f"PYTHONPATH={ROOT} python -m demo.build")
        command = command.replace("/data/photos", str(self.photos)).replace("/data/coco", str(self.coco))
        if "show" in command or "export" in command:
            if not (self.folder / "data/small/align").is_dir():  # a command that is run alone has something to show
                dvc(self.folder, "repro", "align", "-q")
            pair = read_all(self.folder / "data/small/align/pairs").to_pylist()[0]
            command = command.replace("10#28@51-65", pair["id"])
            command = re.sub(r"show 10\b", f"show {pair['image_id']}", command)
        return command


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("docs"))


COMMANDS = [pytest.param(*row, id=f"{row[0]}: {row[2]}") for row in listed()]


@pytest.mark.parametrize(("page", "block", "command"), COMMANDS)
def test_the_command_ends_well(checkout, page, block, command):
    checkout.at(page, block)
    done = run(checkout.folder, "bash", "-c", checkout.fitted(command), check=False)
    assert done.returncode == 0, f"{page}: {command}\n{done.stdout[-3000:]}"
    assert "Traceback" not in done.stdout
