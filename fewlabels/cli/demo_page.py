"""The demo page, made with gradio; it is served to this machine only, and contacts no other."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fewlabels.cli.demo_answers import Answers
from fewlabels.cli.demo_guards import HOST, LARGEST_UPLOAD, build_middleware
from fewlabels.errors import ComponentError, DataError, FewLabelsError
from fewlabels.hub.card_text import escape_markdown
from fewlabels.models.embedder import Embedder
from fewlabels.search.index import Index

FONT = ["system-ui", "sans-serif"]
CSS = """
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto; }
#told p { font-size: 1.05em; }
#found .grid-wrap { max-height: none; overflow: visible; }
#found .thumbnail-item { aspect-ratio: auto; display: flex; flex-direction: column; }
#found .thumbnail-item img { aspect-ratio: 1; height: auto; object-fit: contain; }
#found .caption-label {
  position: static; max-width: none; border: 0; padding: 6px 8px; text-align: left;
  white-space: pre-line; overflow-wrap: anywhere;
}
"""
"""Captions are shown in full below their pictures; the page scrolls instead of the gallery."""


def import_gradio() -> Any:
    """Import gradio with its telemetry turned off.

    Raises:
        ComponentError: gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at its import
    try:
        import gradio
    except ImportError as error:
        raise ComponentError(
            "fewlabels demo needs gradio; pip install 'fewlabels[demo]'"
        ) from error
    return gradio


def make_page(answers: Answers, model: str, name: str) -> Any:
    """Build the page as gradio Blocks.

    Args:
        model, name: what the model and the index are called on the page.
    """
    gr = import_gradio()
    index, embedder = answers.index, answers.index.embedder
    assert isinstance(embedder, Embedder)

    def answer(image: str | None, k: int, expand: int, rerank: bool) -> tuple[str, list[Any]]:
        sentence, pictures = answers(image, int(k), int(expand), rerank)
        return escape_markdown(sentence), pictures

    with gr.Blocks(title="Search by image", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(
            f"# Search by image\n\n**{len(index):,} images** in {escape_markdown(name)} · embedder "
            f"{escape_markdown(model)}: {escape_markdown(embedder.name)}, "
            f"{embedder.embedding_size} dimensions, sees {embedder.image_size} pixels a side"
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                image = gr.Image(label="Query", sources=["upload", "clipboard"], height=280)
                # By itself it would decode the file, with a traceback where that is no image.
                image.preprocess = lambda dropped: dropped and dropped.path
                image.async_move_resource_to_block_cache = _nothing_fetched
                most = min(50, len(index))
                k = gr.Slider(1, max(2, most), min(12, most), step=1, label="Images to find")
                expand = gr.Slider(
                    0, 20, 0, step=1, label="Expand", info="search again near so many nearest ones"
                )
                rerank = gr.Checkbox(
                    label="Re-rank", info="order by the neighbours that are shared with the query"
                )
            with gr.Column(scale=3):
                told = gr.Markdown(answers(None, 1, 0, False).sentence, elem_id="told")
                gallery = gr.Gallery(
                    show_label=False, columns=4, interactive=False, buttons=[], elem_id="found"
                )
        options = [image, k, expand, rerank]
        changes = [image.change, k.release, expand.release, rerank.change]
        gr.on(changes, answer, options, [told, gallery], api_visibility="private")
    return page


async def _nothing_fetched(path: str) -> str:
    """Return the path of an uploaded file; gradio's own function would download a posted URL."""
    return path


def serve_page(model: str, index: str, images: str | None, port: int | None) -> None:
    """Serve the page until it is interrupted.

    Args:
        model, index: their folders.
        images: the folder that was indexed; None: no pictures are shown.
        port: None: the first free one from 7860 on.

    Raises:
        FewLabelsError: gradio is not installed, a folder does not exist, the embedder did not make
            the index, or the port is taken or not allowed.
    """
    from fewlabels.models.load import load_embedder
    from fewlabels.training.processes import join_processes

    if port is not None and not 0 < port < 65536:
        raise FewLabelsError(f"--port {port}: give a number from 1 to 65535")
    if images is not None and not Path(images).is_dir():
        raise DataError(f"--images {images}: no such folder; name the one that was indexed")
    with TemporaryDirectory() as kept:  # what is dropped on the page goes when the page does
        os.environ["GRADIO_TEMP_DIR"] = kept
        for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own page before it is shown
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST, "localhost"]))
        gr = import_gradio()
        loaded = Index.load(index, load_embedder(model).to(join_processes().device))
        page = make_page(Answers(loaded, Path(images) if images else None), model, index)
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                max_file_size=LARGEST_UPLOAD,
                ssr_mode=False,
                enable_monitoring=False,
                footer_links=[],
                theme=gr.themes.Default(primary_hue="emerald", font=FONT, font_mono="monospace"),
                css=CSS,
                app_kwargs={"middleware": build_middleware(), "docs_url": None, "redoc_url": None},
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            said = f"--port {port} is" if port else "the ports from 7860 on are"
            raise FewLabelsError(f"{said} taken, or not yours; give another with --port") from error
        print(f"{address}  (Ctrl+C ends it)", flush=True)
        try:
            threading.Event().wait()  # page.block_thread() would end as if nothing had stopped it
        finally:
            page.close(verbose=False)
