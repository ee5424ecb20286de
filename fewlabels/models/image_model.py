"""Base class of embedders and classifiers: a timm backbone with its preprocessing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from typing_extensions import Self

from fewlabels.contracts.outputs import LARGEST_IMAGE, SMALLEST_CROP
from fewlabels.data import decode as pixels
from fewlabels.data.pixels import crop_centre
from fewlabels.errors import FewLabelsError, ModelError
from fewlabels.hub.card_text import short_card
from fewlabels.hub.download import CARD, download_model
from fewlabels.hub.model_files import CONFIG, WEIGHTS
from fewlabels.hub.upload import check_name, upload_files
from fewlabels.models import saved_folder as folders
from fewlabels.models.backbone import insert_block, load_exactly, load_weights, make_backbone
from fewlabels.models.finite import refuse_endless_rows, refuse_not_finite
from fewlabels.models.head import HeadedBackbone, Kind
from fewlabels.models.modes import evaluating
from fewlabels.models.pooling import measure_width, pool_features
from fewlabels.models.required_plugins import check_plugins, plugins_of
from fewlabels.models.shapes import computing_nothing
from fewlabels.models.size_limits import check_options, check_size


class ImageModel(nn.Module):
    """A timm backbone without its classifier, and the preprocessing that it needs.

    Args:
        backbone: a name of timm, or of a plugin.
        pretrained: download timm's weights.
        weights: a local file of the backbone's weights, instead of ``pretrained``.
        pooling: timm's ``global_pool``; None is the backbone's own.
        image_size, crop_pct, interpolation, mean, std: None: as the backbone was trained.
        backbone_options: passed on to the backbone's constructor.
        blocks: blocks to insert into the backbone, in order: each a mapping of ``name`` (a
            registered block), ``after`` (a module's path), and the block's options.
        head: what stands between the pooled features and the last layer: ``linear``, nothing;
            ``cosine``, they are scaled to length 1; ``root``, their square roots are; ``mlp``, two
            hidden layers. None: as the backbone has it.
        hidden: width of the hidden layers of ``mlp``.
        mirror: with a head: in evaluation mode, features are the mean of those of an image and of
            its mirror image.

    Raises:
        ModelError: an unknown backbone or block, options that it refuses, or weights that do not
            fit.
    """

    config: ClassVar[type[folders.ImageConfig]]
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        *,
        pretrained: bool = False,
        weights: str | None = None,
        pooling: str | None = None,
        image_size: int | None = None,
        crop_pct: float | None = None,
        interpolation: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: dict[str, Any] | None = None,
        blocks: Sequence[Mapping[str, Any]] = (),
        head: Kind | None = None,
        hidden: int = 512,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        if image_size is not None and not 1 <= image_size <= LARGEST_IMAGE:
            raise ModelError(f"image_size {image_size}: expected 1 to {LARGEST_IMAGE} pixels")
        check_options(backbone_options or {}, blocks)
        self.name, self.pooling = backbone, pooling
        self.backbone_options = dict(backbone_options or {})
        self.backbone: Any = make_backbone(
            backbone,
            pretrained=pretrained,
            pooling=pooling,
            image_size=image_size,
            options=self.backbone_options,
        )
        if weights is not None:
            load_weights(self.backbone, weights)
        elif pretrained:
            refuse_not_finite(self.backbone, f"the pretrained {backbone}", "use another")
        if any(values is not None and len(values) != 3 for values in (mean, std)):
            raise ModelError(f"mean {mean}, std {std}: expected three numbers each, for R, G and B")
        given = {"crop_pct": crop_pct, "interpolation": interpolation, "mean": mean, "std": std}
        known = resolve_model_data_config(self.backbone, args=given)
        folders.check_interpolation(known["interpolation"])
        self.image_size: int = image_size or known["input_size"][-1]
        self.blocks = [dict(block) for block in blocks]
        for block in self.blocks:
            insert_block(self.backbone, block, self.image_size)
        self.crop_pct, self.interpolation = float(known["crop_pct"]), str(known["interpolation"])
        if not SMALLEST_CROP <= self.crop_pct <= 1:
            raise ModelError(
                f"crop_pct {self.crop_pct}: expected a share of the image, {SMALLEST_CROP} to 1"
            )
        self.statistics = {n: tuple(float(v) for v in known[n]) for n in ("mean", "std")}
        for name, values in self.statistics.items():
            buffer = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        self.feature_size = measure_width(self.backbone, backbone, pooling, self.image_size)
        self.input_shape: tuple[int, int, int] = (3, self.image_size, self.image_size)
        self.head_kind, self.hidden, self.mirror = head, hidden, mirror
        if head is not None:
            width = self.feature_size
            self.backbone = HeadedBackbone(self.backbone, width, head, hidden, mirror)
            self.feature_size = self.backbone.num_features

    def _extract_features(self, images: Tensor) -> Tensor:
        return pool_features(self.backbone, (images - self.mean) / self.std)

    # ------------------------------------------------------------------------ images

    @property
    def resize_size(self) -> int:
        """Pixels of an image's shorter side after resizing, before the centre crop."""
        return math.floor(self.image_size / self.crop_pct)

    def resize_to_square(self, image: Image.Image) -> Tensor:
        """The middle square of an image at ``resize_size``: (3, R, R) uint8, to cut views from."""
        return pixels.resize_to_square(image, self.resize_size, self.image_size, self.interpolation)

    def preprocess_image(self, image: Image.Image) -> Tensor:
        """timm's evaluation transform before normalisation: (3, S, S) uint8.

        An image is rotated as its EXIF tag says. The crop is timm's "center" for every backbone, so
        that training, evaluation and encoding use the same pixels.
        """
        return crop_centre(self.resize_to_square(image), self.image_size)

    def prepare_image(self, image: Image.Image | Tensor) -> Tensor:
        """Preprocess an image to (3, S, S) floats in [0, 1]; a tensor of size S is not resized."""
        if isinstance(image, Tensor) and image.shape[1:] != (self.image_size,) * 2:
            if image.is_floating_point():
                square = pixels.resize_to_square(
                    image, self.resize_size, self.image_size, self.interpolation
                )
                return crop_centre(square, self.image_size).clamp(0, 1).cpu()
            image = to_pil_image(image.cpu())
        ready = image.cpu() if isinstance(image, Tensor) else self.preprocess_image(image)
        return ready if ready.is_floating_point() else ready.float() / 255

    def _map_batches(
        self,
        images: pixels.Images,
        function: Callable[[Tensor], Tensor],
        width: int,
        batch_size: int,
        device: str | torch.device | None,
    ) -> np.ndarray:
        """``function`` of the prepared images, in batches and in evaluation mode: (N, width).

        Raises:
            ModelError: an image cannot be read, or the model gives it no finite numbers.
        """
        if batch_size < 1:
            raise ModelError(f"batch_size={batch_size}: give at least 1")
        if device is not None:
            self.to(device)
        rows = [np.empty((0, width), np.float32)]
        with evaluating(self):
            prepared = pixels.decode_images(images, self.prepare_image)
            while batch := list(itertools.islice(prepared, batch_size)):
                # Not inference_mode: what a backbone caches in it could never be trained with.
                with torch.no_grad():
                    found = function(torch.stack(batch).to(self.mean.device)).cpu().numpy()
                refuse_endless_rows(found, images, sum(map(len, rows)))
                rows.append(found)
        return np.concatenate(rows)

    # ------------------------------------------------------------------------ saving

    def _own_config(self) -> dict[str, Any]:
        """Config entries of the kind of model, beside those of backbone and preprocessing."""
        return {}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder.

        Raises:
            ModelError: weights that are not finite.
            FewLabelsError: the folder cannot be written.
        """
        refuse_not_finite(self, str(folder), "so it is not saved")
        # The architecture where the name is a place: what is loaded must not be fetched.
        placed = ":" in self.name
        config = self.config(
            backbone=self.backbone.pretrained_cfg["architecture"] if placed else self.name,
            pooling=self.pooling,
            image_size=self.image_size,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,  # type: ignore[arg-type]
            **self.statistics,  # type: ignore[arg-type]
            backbone_options=self.backbone_options,
            blocks=self.blocks,  # type: ignore[arg-type]
            head=self.head_kind,
            hidden=self.hidden,
            mirror=self.mirror,
            plugins=plugins_of(self.name, self.blocks),
            **self._own_config(),
        )
        folders.write_model(Path(folder), config, self.state_dict())

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Commit weights, config and a short card to ``org/name``; give the commit's address.

        ``fewlabels push`` sends a run with its full card instead.

        Args:
            private: make the repository private; an existing public one is refused.

        Raises:
            HubError: an invalid name, or a request that the Hub refuses.
        """
        check_name(repo)
        with TemporaryDirectory() as made:
            self.save_pretrained(made)
            files: dict[str, Path | bytes] = {name: Path(made) / name for name in (CONFIG, WEIGHTS)}
            files[CARD] = short_card(repo, self.config.model_fields["kind"].default).encode()
            return upload_files(files, repo, private, "Model saved by fewlabels")

    @classmethod
    def from_pretrained(cls, place: str | Path, *, revision: str | None = None) -> Self:
        """The model in a folder or in a repository of the Hub, in evaluation mode.

        Nothing but config.json and model.safetensors is downloaded; nothing is unpickled, and no
        code of a repository is run.

        Args:
            place: a folder, or ``org/name`` if there is no folder of that name.
            revision: a branch, tag or commit of a repository.

        Raises:
            ModelError: no such folder, or one without a model of this kind.
            HubError: a repository that the Hub does not give out, or that cannot be reached.
        """
        return cls.from_folder(*download_model(place, revision))

    @classmethod
    def from_folder(cls, folder: Path, what: str) -> Self:
        """The model in a folder, in evaluation mode; ``what`` is the folder's name in errors.

        Raises:
            ModelError: a folder that does not hold a model of this kind, or one whose training
                diverged.
        """
        model = cls.from_saved(*folders.read_model(folder, cls.config, what), what)
        otherwise = "use the model of an earlier run, or train with a lower optimizer.lr"
        refuse_not_finite(model, f"{what}/{WEIGHTS}", otherwise)
        return model

    @classmethod
    def from_saved(
        cls, config: folders.ImageConfig, state: Mapping[str, Tensor], what: str
    ) -> Self:
        """The model of what stands in a folder, in evaluation mode; also one that diverged.

        Raises:
            ModelError: config and weights are of no model, or not of the same one.
        """
        check_plugins(config.plugins, what)
        try:
            check_size(config, state)
            with computing_nothing():
                model = cls(**config.model_dump(exclude={"format", "kind", "plugins"}))
        except FewLabelsError as error:
            raise ModelError(f"{what}/{CONFIG}: {error}") from error
        except Exception as error:  # options from elsewhere can make a constructor fail in any way
            raise ModelError(
                f"{what}/{CONFIG}: no model can be made of it: {type(error).__name__}: {error}"
            ) from error
        load_exactly(model, state, f"{what}/{WEIGHTS}")
        return model.eval()
