"""The command line.

About recipes: run, study, check, list, show, schema. With a run: push. With a saved model: show,
evaluate, export, embed, index, search, demo, predict, assembly. For a plugin of one's own: new.
Code that registers components and is no plugin is named by --import.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fewlabels import embed
from fewlabels.commands import components, images, models, recipes
from fewlabels.commands.new import new_plugin
from fewlabels.errors import FewLabelsError, for_terminal
from fewlabels.imports import add_import, import_modules


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``fewlabels``; 0, or 2 on a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="fewlabels", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run a recipe: RECIPE [key=value ...], or --resume FOLDER")
    compare = commands.add_parser("study", help="run recipes over seeds, and compare them")
    compare.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    compare.add_argument("--seeds", default="0-2", help="as in 0-9 or 100-104,7")
    compare.add_argument("--runs", default="runs/studies", help="where the run folders stand")
    compare.add_argument("--out", type=Path, help="write OUT.md and OUT.csv")
    compare.add_argument(
        "--validation", action="store_true", help="the error on data.validation, not on the test"
    )
    share = commands.add_parser("push", help="send a run's model and its card to the Hub")
    share.add_argument("run", help="a run folder that has come to its end")
    share.add_argument("--repo", required=True, help="org/name; made where it is not there")
    share.add_argument(
        "--seeds", nargs="+", default=[], metavar="RUN", help="more seeds, for the card's spread"
    )
    share.add_argument("--private", action="store_true", help="a private repository")
    share.add_argument("--dry-run", action="store_true", help="say what would be sent")
    share.add_argument("--license", help="of the weights, as in apache-2.0")
    share.add_argument("--data-license", help="of the images, in words")
    share.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="leave out the run's pictures"
    )
    share.add_argument("--card", metavar="FILE", help="write the card there too, to be read")
    check = commands.add_parser("check", help="check recipes without running them")
    check.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    listing = commands.add_parser("list", help="names that a recipe may use, and who offers them")
    listing.add_argument("kind", nargs="?", help="as in losses; all kinds if left out")
    show = commands.add_parser("show", help="what a component or a saved model is")
    show.add_argument("what", help="a kind of component, as loss; or a model's folder or Hub name")
    show.add_argument("name", nargs="?", help="the component's, as multi_similarity")
    evaluate = commands.add_parser("evaluate", help="score a saved model on labelled images")
    evaluate.add_argument("model", help="a model's folder, as in runs/NAME/model, or org/name")
    evaluate.add_argument(
        "overrides", nargs="*", help="key=value of a recipe, as in data.split=all"
    )
    evaluate.add_argument(
        "--data", help="a source's name, a folder of images, or a recipe; the run's own if left out"
    )
    evaluate.add_argument("-o", "--out", help="a JSON file to write")
    export = commands.add_parser("export", help="write a saved model as an ONNX file")
    export.add_argument("model", help="a model's folder, as in runs/NAME/model, or org/name")
    export.add_argument("--onnx", required=True, metavar="OUT", help="as in model.onnx")
    assembly = commands.add_parser("assembly", help="picture where SAN moves an image's features")
    assembly.add_argument("model", help="a model folder, as in runs/NAME/model")
    assembly.add_argument("image", help="a picture")
    assembly.add_argument(
        "--at", nargs="+", metavar="ROW,COLUMN", help="destinations; the four that move most"
    )
    assembly.add_argument("-o", "--out", default="assembly.png", help="assembly.png if left out")
    new = commands.add_parser("new", help="write a plugin package that works, to be changed")
    new.add_argument("kind", help="discovery")
    new.add_argument("name", help="as in my-idea")
    new.add_argument("-o", "--out", help="a folder to make; fewlabels-NAME if left out")
    embed.add_arguments(commands.add_parser("embed", help="write a folder's embeddings"))
    index = commands.add_parser("index", help="make a folder of images ready to be searched")
    index.add_argument("model", help="the folder of an embedder, as in runs/NAME/model")
    index.add_argument("folder", nargs="?", help="a folder of images")
    index.add_argument("-o", "--out", required=True, help="a folder to write, as photos.index")
    index.add_argument("--from", dest="embeddings", help="embeddings that `embed` wrote")
    index.add_argument("--kind", default="auto", help="auto, flat or ivf_pq; auto if left out")
    search = commands.add_parser("search", help="find the images that are nearest to an image")
    search.add_argument("model", help="the embedder that the index was made with")
    search.add_argument("index", help="a folder that `index` wrote")
    search.add_argument("image", help="a picture")
    search.add_argument("-k", type=int, default=10, help="how many to find (10)")
    search.add_argument("--expand", type=int, default=0, metavar="N", help="search again near N")
    search.add_argument("--rerank", action="store_true", help="order by shared neighbours")
    demo = commands.add_parser("demo", help="a page on which a dropped image finds those near it")
    demo.add_argument("model", help="the embedder that the index was made with")
    demo.add_argument("index", help="a folder that `index` wrote")
    demo.add_argument("--images", metavar="FOLDER", help="the folder that was indexed, to show")
    demo.add_argument("--port", type=int, help="the first that is free from 7860 on if left out")
    predict = commands.add_parser("predict", help="write a classifier's labels of a folder")
    predict.add_argument("model", help="the folder of a classifier, as in runs/NAME/model")
    predict.add_argument("folder", help="a folder of images")
    predict.add_argument("-o", "--out", required=True, help="a CSV file to write, as labels.csv")
    embed.add_skip(predict)
    seen = (show, evaluate, export, assembly, index, search, demo, predict)
    for own in (compare, share, check, listing, *seen):
        add_import(own)
    schema = commands.add_parser("schema", help="print the JSON schema of recipes")
    schema.add_argument("--write", action="store_true", help="renew the committed schema.json")
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["run"]:  # its own parser lets options and overrides stand in any order
        from fewlabels import run

        return run.main(words[1:])
    given, more = parser.parse_known_args(words)
    several = getattr(given, "recipes", getattr(given, "overrides", None))
    if any(word.startswith("-") for word in more) or (more and several is None):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if several is not None:
        several += more  # those that stand behind an option
    try:
        return dispatch(given)
    except FewLabelsError as error:
        print(for_terminal(error), file=sys.stderr)
        return 2


def dispatch(given: argparse.Namespace) -> int:
    """Run one command; 0, or 2 where it has told its mistakes itself."""
    if "recipes" not in given and "imports" in given:  # a recipe imports what stands beside it
        model = getattr(given, "model", getattr(given, "what", None))
        run = Path(getattr(given, "run", ".")) if model is None else Path(model).parent
        import_modules(given.imports, run)  # a run folder keeps a copy of its code
    match given.command:
        case "check":
            return recipes.check_recipes(given.recipes, given.imports)
        case "study":
            recipes.run_study(
                given.recipes, given.seeds, given.runs, given.out, given.validation, given.imports
            )
        case "push":
            from fewlabels.hub.push import push

            options = ("seeds", "private", "dry_run", "license", "data_license", "pictures", "card")
            push(given.run, given.repo, **{name: getattr(given, name) for name in options})
        case "list":
            components.list_components(given.kind)
        case "show":
            if given.name is None:
                models.show_model(given.what)
            else:
                components.show_component(given.what, given.name)
        case "evaluate":
            models.evaluate_model(given.model, given.data, given.overrides, given.out)
        case "export":
            models.export_model(given.model, given.onnx)
        case "schema":
            components.show_schema(given.write)
        case "new":
            new_plugin(given.kind, given.name, given.out)
        case "assembly":
            images.draw_assembly(given.model, given.image, given.at, given.out)
        case "embed":
            embed.command(given)
        case "index":
            images.build_index(given.model, given.folder, given.out, given.embeddings, given.kind)
        case "search":
            images.search_index(
                given.model, given.index, given.image, given.k, given.expand, given.rerank
            )
        case "demo":
            from fewlabels.demo.page import serve

            serve(given.model, given.index, given.images, given.port)
        case "predict":
            images.predict_labels(given.model, given.folder, given.out, given.skip_unreadable)
    return 0


if __name__ == "__main__":
    sys.exit(main())
