"""What a model card says, against the run's own files; and what it can never carry."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard
from run_folders import read_rows

from fewlabels.errors import HubError
from fewlabels.hub.card_text import escape_markdown, fence_code
from fewlabels.models.load import load_model
from fewlabels.runs.card import Picture, make_card
from fewlabels.runs.finished_run import check_same, read_run, summarize_labels

ROOT = Path(__file__).parents[2]


def card(folders, **more):
    runs = [read_run(folder) for folder in folders]
    return make_card(runs, load_model(folders[0] / "model"), "lab/model", **more)


def rows(folder, kind):
    return read_rows(folder, kind)


def test_scores_are_means_and_spreads_over_the_seeds(embedders):
    text = card(embedders)
    last = [[r for r in rows(f, "evaluation") if r["model"] == "trained"][-1] for f in embedders]
    for measure in ("recall@1", "recall@2", "nmi"):
        values = 100 * np.array([row[measure] for row in last])
        assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" in text
    results = {r.metric_type: r for r in ModelCard(text).data.eval_results}
    mean = 100 * np.mean([row["recall@1"] for row in last])
    assert results["recall@1"].metric_value == pytest.approx(mean, abs=0.006)
    assert results["recall@1"].dataset_name == "digits"
    assert "mean of 2 seeds" in results["recall@1"].metric_name


def test_metadata_is_read_back_by_the_hubs_client(embedders, classifier):
    data = ModelCard(card(embedders[:1], license="apache-2.0")).data
    assert data.pipeline_tag == "image-feature-extraction"
    assert data.library_name == "fewlabels"
    assert data.license == "apache-2.0"
    data = ModelCard(card([classifier])).data
    assert data.pipeline_tag == "image-classification"
    accuracy = 100 - 100 * rows(classifier, "end")[0]["score"]
    assert [r.metric_type for r in data.eval_results] == ["accuracy"]
    assert data.eval_results[0].metric_value == pytest.approx(accuracy, abs=0.006)


def test_labels_are_those_of_the_ledger(embedders, classifier):
    books = [pq.read_table(p).to_pylist() for p in sorted((classifier / "ledger").iterdir())]
    last = {line["row"]: line for book in books for line in book}
    wrong = sum(line["label"] != line["truth"] for line in last.values())
    found = summarize_labels(read_run(classifier))
    assert (found.given, found.discovered, found.wrong) == (6, len(last), wrong)
    assert len(last) > 0
    text = card([classifier])
    assert "Given by people: 6\n" in text
    assert f"Discovered, at the end: {len(last)}; {wrong} of {len(last)} with a known" in text
    text = card(embedders)
    assert "Given by people: 0\n" in text
    assert "1200 images; they name no class" in text


def test_a_card_tells_data_protocol_cost_and_versions(embedders):
    text = card(
        embedders[:1], pictures=[Picture("pictures/a b.png", "neighbours", "How *it* came about")]
    )
    start = rows(embedders[0], "run")[0]
    assert "&#123;" not in text
    for words in (
        'Embedder.from_pretrained("lab/model")',
        "CC BY 4.0",
        "Split: official",
        "Search: all against all, by cosine; 597 queries, 0 more have nothing to find; K: 1, 2\n",
        "that of the last round",
        f"torch {start['torch']}",
        "One run was made",
        "![neighbours](pictures/a%20b.png)\n\nHow *it* came about\n",
        "the licence of these holds for the pictures too",
    ):
        assert words in text
    assert "Licence of the images: mine alone" in card(embedders, data_license="mine alone")
    recipe = re.search(r"```yaml\n(.*?)\n```", text, re.DOTALL)[1]
    assert recipe.strip() == (embedders[0] / "recipe.yaml").read_text().strip()


def test_a_licence_that_nobody_stated_is_not_made_up(classifier):
    assert "Licence of the images: not stated by who pushed this model" in card([classifier])


def test_the_same_runs_give_the_same_card(embedders):
    assert card(embedders) == card(embedders)


def test_no_name_of_a_class_or_file_becomes_html_a_link_or_a_heading(classifier):
    pictures = [Picture("pictures/<i>one.png", "<i>one ![x](http://x)")]
    text = card([classifier], pictures=pictures, data_license="<script>alert(1)</script>")
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert "<" not in head
    assert set(yaml.safe_load(head)) <= {"library_name", "pipeline_tag", "tags", "model-index"}
    outside = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "onerror" in outside  # the names are there
    assert "<" not in outside
    assert re.findall(r"\]\((.*?)\)", outside) == ["pictures/%3Ci%3Eone.png"]
    headings = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    assert headings == [
        "model",
        "Use",
        "Pictures",
        "Data",
        "Protocol",
        "Scores",
        "Labels",
        "Cost",
    ] + [
        "Limits",
        "Recipe",
        "Versions",
    ]


def test_nothing_ends_a_block_of_code_before_its_end():
    assert fence_code("a\n````\n<script>", "yaml") == "`````yaml\na\n````\n<script>\n`````"
    assert escape_markdown("a\n\n# b\u202e <x>") == "a &#35; b &#60;x&#62;"
    assert len(escape_markdown("x" * 999)) < 210
    links = [
        escape_markdown(text)
        for text in ("WWW.evil.example", "http://evil.example", "me@evil.example")
    ]
    assert links == [
        "WWW&#46;evil.example",
        "http&#58;//evil.example",
        "me&#64;<!-- -->evil.example",
    ]


def test_runs_of_other_recipes_are_not_averaged(embedders, classifier):
    one, other = read_run(embedders[0]), read_run(classifier)
    with pytest.raises(HubError, match="is of another recipe than"):
        check_same([one, other])
    with pytest.raises(HubError, match="seed 0 is given twice"):
        check_same([one, one])
    older = {key: value for key, value in one.start.items() if key != "plugins"}
    second = replace(one, recipe=replace(one.recipe, seed=1))
    check_same([one, replace(second, rows=[older, *one.rows[1:]])])
    upgraded = {**one.start, "plugins": {"strategy metric": "lab 0.2"}}
    with pytest.raises(HubError, match="was made with other plugins than"):
        check_same([one, replace(one, rows=[upgraded, *one.rows[1:]])])


def test_the_top_folder_holds_the_template_that_is_installed():
    link, real = (
        ROOT / "model_cards" / "template.md",
        ROOT / "fewlabels" / "runs" / "card_template.md",
    )
    assert link.read_text() == real.read_text()
    assert link.resolve() == real.resolve()
