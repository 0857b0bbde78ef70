"""Makes all images of the documentation with the embedded model: `python docs/images/make.py`.

Runs the commands of docs/tour.md and docs/why.md and keeps what they draw, or a screenshot of the
page they write. `made_from.json` names the weights that answered; a test compares it with the
shipped file.

Needs `pip install '.[demo,report]' playwright`, and Chromium as the command `chromium`.
Takes twenty minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.cli.quickstart.answer_images import draw_before_after
from lavis_dynrefer.cli.quickstart.answers_before_after import read_answers, read_region_sets
from lavis_dynrefer.lab.caption_grading import grade_caption
from lavis_dynrefer.lab.occlusion.occluded_examples import draw_occluded
from lavis_dynrefer.lab.policies.policy_images import draw_differing
from lavis_dynrefer.models.choosing.scale_choice import usable_policies
from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.report import read_calibration, reliability_plot
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.synthetic.raw_formats import truth_rows
from lavis_dynrefer.synthetic.scene_dataset import described_objects, write_dataset
from lavis_dynrefer.synthetic.scene_world import SPLIT_START

IMAGES = Path(__file__).parent
DOCS = IMAGES.parent
MODEL = "assets/tiny/model.safetensors"  # in the package
WIDTH = 1100  # pixels of a page
TEST_IMAGES = 150  # that the best and worst answers are taken from
SYNTHETIC = DOCS.parent / "projects/dynrefer/synthetic.yaml"
REPORT_RUN = (  # what the runs of the report have in common
    *("model.load_finetuned=false", "datasets.synthetic_region.build_info.scenes=100"),
    *("run.max_epoch=4", "run.batch_size_train=32", "run.log_freq=5", "run.valid_splits=[val]"),
)
DRAWN_BOX = ((0.2, 0.1), (0.45, 0.6))  # corners, in fractions of the demo's canvas


def main() -> None:
    """Make every image, then note the weights."""
    with tempfile.TemporaryDirectory() as name, browser_tab() as tab:
        folder = Path(name)
        make_tour(folder, tab)
        make_why(folder, tab)
        make_quickstart(folder)
        make_report(folder, tab)
        make_demo(tab)
        make_masks(folder)
        make_scales(folder)
    make_reliability()
    make_best_and_worst()
    make_policies()
    digest = hashlib.sha256(resource_path(MODEL, key="model").read_bytes()).hexdigest()
    (IMAGES / "made_from.json").write_text(
        json.dumps({MODEL: digest}, indent=2) + "\n", encoding="utf-8"
    )


def make_tour(folder: Path, tab: Page) -> None:
    """Images of docs/tour.md."""
    perform("tour.md", "render(", folder)
    perform("tour.md", "--explain", folder)
    perform("tour.md", "dynrefer inspect", folder)
    save(Image.open(folder / "answers/annotated/scene.jpg.jpg"), "tour_drawn.jpg")
    screenshot(tab, folder / "answers/explain/scene.jpg.html", "tour_explain.jpg", 1130)
    page = folder / "look/inspect.html"
    page.write_text(page.read_text("utf-8").replace(f"{folder}/", ""), "utf-8")  # shorter paths
    screenshot(tab, page, "tour_inspect.jpg", 930)


def make_why(folder: Path, tab: Page) -> None:
    """The page that docs/why.md explains, at its second region."""
    render(make_scene(0, 2_000_001)).save(folder / "photo.jpg")
    shutil.rmtree(folder / "answers")
    perform("why.md", "--explain", folder)
    page = folder / "answers/explain/photo.jpg.html"
    screenshot(tab, page, "why.jpg", 1130, target="#region-2")


def make_quickstart(folder: Path) -> None:
    """Two of the test images that the quickstart draws, before and after."""
    output = folder / "quickstart"
    run_module("cli", "quickstart", "--output", output)
    before, after = (max((output / name).glob("*/")) for name in ("before", "after"))
    options = [f"datasets.custom_region.build_info.root={output / 'data'}"]
    regions = read_region_sets("dynrefer/quickstart.yaml", options)
    answers = {split.name: split for split in read_answers(regions, before, after)}
    sheet = draw_before_after(answers["new_captions"], images=2)
    save(sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4)), "quickstart.jpg")


def make_report(folder: Path, tab: Page) -> None:
    """The page of two runs of other learning rates; both begin without the shipped captioner."""
    runs = []
    for name, rate in (("base", "3e-4"), ("low_rate", "1e-4")):
        options = [f"run.output_dir={folder / 'runs' / name}", f"run.init_lr={rate}", *REPORT_RUN]
        run_module("train", "--cfg-path", SYNTHETIC, "--options", *options)
        runs += [str(log.parent) for log in (folder / "runs" / name).rglob("log.txt")]
    page = folder / "report.html"
    run_module("cli", "report", *runs, "--names", "base", "low_rate", "--output", page)
    page.write_text(page.read_text("utf-8").replace(f"{folder}/", ""), "utf-8")  # shorter paths
    screenshot(tab, page, "report.jpg", 1250)


def make_demo(tab: Page) -> None:
    """The page of `dynrefer demo`, with the boxes of an example and one more."""
    command = [sys.executable, "-m", "lavis_dynrefer.cli", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
        try:
            lines = iter(server.stdout or ())
            address = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
            tab.set_viewport_size({"width": 1280, "height": 903})
            tab.goto(address)
            tab.wait_for_selector("#board canvas")
            tab.click("[data-example='1']")
            tab.wait_for_function("document.querySelectorAll('.dr-card').length === 2")
            board = tab.locator("#board canvas").bounding_box()
            assert board is not None
            for (x, y), press in zip(DRAWN_BOX, (tab.mouse.down, tab.mouse.up)):
                tab.mouse.move(board["x"] + x * board["width"], board["y"] + y * board["height"])
                press()
            tab.click("#describe")
            tab.wait_for_function("document.querySelectorAll('.dr-card').length === 3")
            tab.wait_for_timeout(1000)  # for the images of the views
            shoot(tab, "demo.jpg")
        finally:
            server.terminate()


def make_reliability() -> None:
    """Reliability diagrams of the shipped model, as `dynrefer calibrate` has measured them."""
    found = read_calibration(resource_path(MODEL, key="model").parent)
    assert found is not None
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "reliability.png"
        reliability_plot(found).save(path)
        save(Image.open(path).convert("RGB"), "reliability.jpg")


def make_masks(folder: Path) -> None:
    """Occluded objects, described by their boxes and by their masks."""
    scenes = folder / "crowded"
    write_dataset(scenes, scenes=200, seed=1, world="crowded")
    sheet = draw_occluded(RegionPredictor("tiny"), described_objects(scenes, "test"))
    save(sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3)), "occluded.jpg")


def make_best_and_worst() -> None:
    """Regions of which every answer is right, and those with most mistakes, one per image."""
    predictor = RegionPredictor("tiny")
    scenes = [make_scene(1, SPLIT_START["test"] + number) for number in range(TEST_IMAGES)]
    images = [render(scene) for scene in scenes]
    rows = [[row for row in truth_rows(scene) if row["form"] == "full"] for scene in scenes]
    pairs = [(image, [row["box"] for row in some]) for image, some in zip(images, rows)]
    found = []  # mistakes, image, row, answer
    for image, some, answers in zip(images, rows, predictor.predict_iter(pairs)):
        for row, answer in zip(some, answers):
            found.append((mistakes(row["facts"], answer), image, row, answer))
    order = np.random.default_rng(0).permutation(len(found))
    for name, sign in (("tiny_best.jpg", 1), ("tiny_worst.jpg", -1)):
        chosen: dict[int, Image.Image] = {}
        for index in sorted(order, key=lambda index: sign * found[index][0]):
            _, image, row, answer = found[index]
            related = row["facts"]["relation"] is not None
            if related and row["image_id"] not in chosen and len(chosen) < 8:
                chosen[row["image_id"]] = drawn(image, row, answer)
        save(contact_sheet(list(chosen.values()), columns=4), name)


def make_policies() -> None:
    """Regions for which the released hash and the model choose other views."""
    predictor = RegionPredictor("tiny")
    own = "learned" if "learned" in usable_policies(predictor.model) else "confidence"
    scenes = [make_scene(1, SPLIT_START["test"] + number) for number in range(6)]
    pairs = [(render(scene), [list(item.box) for item in scene.objects[1:]]) for scene in scenes]
    save(draw_differing(predictor, pairs, ("image", own)), "policies.jpg")


def make_scales(folder: Path) -> None:
    """How often policies choose which scale, on 60 test images of each of two worlds."""
    output = folder / "policies"
    sizes = ("--scenes", "1200", "--images", "60", "--world", "landmark", "neighbour", "--train")
    views = ("--views", "image:official", "confidence", "oracle")
    run_module("cli", "benchmark", "policies", "--output", output, *sizes, *views)
    save(Image.open(output / "policy_scales.png").convert("RGB"), "policy_scales.jpg")


def mistakes(facts: dict[str, Any], answer: RegionPrediction) -> int:
    """Number of wrong answers about a region: its own words, relation, reference, category."""
    grade = grade_caption(facts, answer.caption)
    wrong = [grade.own, grade.relation, grade.reference, grade.full].count(False)
    return wrong + (answer.categories[0][0] != facts["category"])


def drawn(image: Image.Image, row: dict[str, Any], answer: RegionPrediction) -> Image.Image:
    """An image at two thirds of its size, with one region and what was said about it."""
    box = tuple(value * 2 / 3 for value in row["box"])
    text = f"{answer.caption}\ntruth: {row['phrase']}\ncategory: {answer.categories[0][0]}"
    return draw_regions(image.resize((image.width * 2 // 3, image.height * 2 // 3)), [box], [text])


def perform(page: str, words: str, folder: Path) -> None:
    """Run the block of a page that has these words, as its reader would in a folder."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", text, re.DOTALL | re.M)
    language, block = next((language, block) for language, block in blocks if words in block)
    if language == "python":
        commands = [[sys.executable, "-c", block]]
    else:
        lines = block.replace("\\\n", " ").splitlines()
        ours = [sys.executable, "-m", "lavis_dynrefer.cli"]
        commands = [ours + shlex.split(line)[1:] for line in lines]
    for command in commands:
        subprocess.run(command, cwd=folder, check=True)


def run_module(module: str, *words: str | Path) -> None:
    """Run a module of the package as a command."""
    subprocess.run([sys.executable, "-m", f"lavis_dynrefer.{module}", *map(str, words)], check=True)


@contextmanager
def browser_tab() -> Iterator[Page]:
    """A tab of Chromium."""
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        sys.exit("expected the command chromium; the variable CHROMIUM may name another")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(60_000)
        yield tab
        browser.close()


def screenshot(tab: Page, page: Path, name: str, height: int, *, target: str = "") -> None:
    """What a browser shows of a page, from its top or from an element."""
    tab.set_viewport_size({"width": WIDTH, "height": height})
    tab.goto(f"file://{page}{target}")
    tab.wait_for_timeout(1000)
    shoot(tab, name)


def shoot(tab: Page, name: str) -> None:
    """Keep what the tab shows."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        tab.screenshot(path=file.name)
        with Image.open(file.name) as image:
            save(image, name)


def save(image: Image.Image, name: str) -> None:
    """Write an image, no wider than a page."""
    image = image.convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
    image.save(IMAGES / name, quality=80, optimize=True)
    print(f"{name}: {image.width} x {image.height}, {(IMAGES / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
