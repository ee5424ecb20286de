"""Matching: pairs of images of one object, found by keypoints that one affine map explains."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Interval
from PIL.Image import Image

from fewlabels.components.discovery.candidates import find_candidates
from fewlabels.components.discovery.keypoint_store import KeypointStore
from fewlabels.components.discovery.keypoints import (
    Match,
    describe_keypoints,
    import_opencv,
    match_keypoints,
)
from fewlabels.components.discovery.worker_processes import map_in_processes
from fewlabels.contracts import Discovered, Needs, Pairs, Pool
from fewlabels.errors import DataError
from fewlabels.registry import discovery

TILTS = {"sift": (0,), "asift": (5,), "cascade": (0, 3, 5)}


@discovery.register("matching")
class Matching:
    """Finds pairs of matched sub-images (TAC-CCL, Section 4.3.4); no labels.

    Candidates of an image are its nearest by embedding, within its cluster or, with ``across``,
    among all images. A discovery that labels samples comes before this one. The keypoints of two
    candidates are matched, and count as common where one affine map explains them. Each image is
    paired with the candidates that it has most keypoints in common with; of both images the
    sub-image around these keypoints is kept.

    The keypoints of an image are computed once and kept on disk by the image's content. A pair is
    matched once in a run.

    Args:
        detector: ``sift``; ``asift`` (affine-SIFT); or ``cascade``: SIFT, then affine-SIFT of tilt
            3 and 5 for images that have no partner yet.
        size: side in pixels to which an image is resized for keypoints.
        features: largest number of keypoints of an image; for affine-SIFT a fifth of it in each
            view.
        neighbours: number of candidates of an image; ``all``: its whole cluster.
        across: candidates are the nearest whatever their cluster. Only such a pair can tell that
            two clusters show one object. Needs ``pair_labels: union`` of ``tac_ccl``.
        matches: largest number of partners of an image.
        min_inliers: smallest number of common keypoints; null: 12 for SIFT, 20 for affine-SIFT,
            whose many views agree by chance more often.
        margin: margin on each side of a sub-image, as a share of the extent of its keypoints.
        smallest: smallest side of a sub-image, as a share of the image's side.
        workers: worker processes; 0: none, null: as many as there are processors.
        cache: folder of the keypoints; null: ``$FEWLABELS_CACHE`` or ``~/.cache/fewlabels``.

    Source: Li (2021), chapter 4, Section 4.3.4.
    Recipe: `discovery: [{name: kmeans, clusters: 100}, {name: matching, detector: cascade}]`
    """

    classes: int | None = None

    def __init__(
        self,
        *,
        detector: Literal["sift", "asift", "cascade"] = "sift",
        size: Annotated[int, Ge(32)] = 256,
        features: Annotated[int, Ge(10)] = 500,
        neighbours: Annotated[int, Ge(1)] | Literal["all"] = 10,
        across: bool = False,
        matches: Annotated[int, Ge(1)] = 2,
        min_inliers: Annotated[int, Ge(3)] | None = None,
        margin: Annotated[float, Ge(0)] = 0.1,
        smallest: Annotated[float, Interval(gt=0, le=1)] = 0.3,
        workers: Annotated[int, Ge(0)] | None = None,
        cache: str | None = None,
    ) -> None:
        if across and neighbours == "all":
            raise DataError(
                "discovery 'matching': all neighbours across clusters are all pairs of the images, "
                "which takes weeks; set neighbours to a number"
            )
        self.tilts, self.size = TILTS[detector], size
        self.neighbours, self.across, self.matches = neighbours, across, matches
        self.features = {tilt: features // 5 if tilt else features for tilt in self.tilts}
        self.least = {tilt: min_inliers or (20 if tilt else 12) for tilt in self.tilts}
        self.margin, self.smallest = margin, smallest
        self.workers = os.cpu_count() or 1 if workers is None else workers
        given = cache or os.environ.get("FEWLABELS_CACHE") or "~/.cache/fewlabels"
        self.cache = Path(given).expanduser() / "keypoints"
        # For each tilt: keys of images by row of the data set; matches by a pair of rows, the
        # smaller row first.
        self.keys: dict[int, dict[int, str]] = {tilt: {} for tilt in self.tilts}
        self.known: dict[int, dict[tuple[int, int], Match | None]] = {t: {} for t in self.tilts}

    def needs(self) -> Needs:
        """The embeddings of the student, and the images."""
        return Needs("student", images=True)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """Pairs of images, of one label unless ``across``.

        Raises:
            ComponentError: OpenCV is not installed.
            DataError: features that are not finite.
        """
        import_opencv()  # report a missing OpenCV before any work is done
        if not np.isfinite(pool.features).all():
            raise DataError("discovery 'matching' got features that are not finite")
        assert pool.images is not None
        wanted = find_candidates(pool.features, pool.labels, self.neighbours, self.across)
        partners: dict[int, list[tuple[int, int]]] = {}
        for tilt in self.tilts:
            alone = np.array([i not in partners for i in range(len(pool.rows))])
            own = wanted[alone[wanted].any(1)]
            self._match_new_pairs(tilt, pool, own)
            for i, j in own.tolist():
                found = self._get_match(tilt, pool.rows[i], pool.rows[j])
                if found is not None and len(found.points) >= self.least[tilt]:
                    partners.setdefault(i, []).append((j, tilt))
                    partners.setdefault(j, []).append((i, tilt))
        nothing = np.empty(0, np.int64)
        pairs = self._select_pairs(partners, pool.rows)
        return Discovered(nothing, nothing, np.empty(0, np.float32), pairs=pairs)

    def _get_match(self, tilt: int, left: int, right: int) -> Match | None:
        """The match of two rows, with the map from left to right; None where they do not match."""
        first, second = sorted((int(left), int(right)))
        found = self.known[tilt].get((first, second))
        return found if found is None or first == left else reverse_match(found)

    def _match_new_pairs(self, tilt: int, pool: Pool, wanted: np.ndarray) -> None:
        """Describe images and match pairs that were not matched before."""
        rows, known, keys = pool.rows, self.known[tilt], self.keys[tilt]
        assert pool.images is not None
        fresh = [
            (i, j) if rows[i] < rows[j] else (j, i)
            for i, j in wanted.tolist()
            if (min(rows[i], rows[j]), max(rows[i], rows[j])) not in known
        ]
        if not fresh:
            return
        settings = (self.size, self.features[tilt], tilt)
        store = KeypointStore(self.cache / "-".join(map(str, settings)))
        new = sorted({i for pair in fresh for i in pair if int(rows[i]) not in keys})
        describing, described = DescribeTask(pool.images, settings, set(store.places)), {}
        for i, key, keypoints in map_in_processes(
            describing, new, self.workers, f"keypoints, tilt {tilt}"
        ):
            keys[int(rows[i])] = key
            if keypoints is not None:
                described[key] = keypoints
        store.add(described)
        named = [(keys[int(rows[i])], keys[int(rows[j])]) for i, j in fresh]
        found = map_in_processes(
            MatchTask(store, self.size), named, self.workers, f"matching, tilt {tilt}"
        )
        for (i, j), one in zip(fresh, found, strict=True):
            known[int(rows[i]), int(rows[j])] = one

    def _select_pairs(self, partners: dict[int, list[tuple[int, int]]], rows: np.ndarray) -> Pairs:
        """The best partners of each image, with the sub-images around the common keypoints."""
        chosen = []
        for i in sorted(partners):
            own = [(self._get_match(tilt, rows[i], rows[j]), j) for j, tilt in partners[i]]
            ranked = sorted(own, key=lambda one: (-len(one[0].points), one[1]))  # type: ignore[union-attr]
            chosen += [(i, j, found) for found, j in ranked[: self.matches] if found is not None]
        points = tuple(found.points for _, _, found in chosen)
        empty = np.empty((0, 4), np.float32)
        boxes = [
            np.array([self._compute_box(p[:, side]) for p in points], np.float32)
            if points
            else empty
            for side in (slice(0, 2), slice(2, 4))
        ]
        return Pairs(
            np.array([i for i, _, _ in chosen], np.int64),
            np.array([j for _, j, _ in chosen], np.int64),
            boxes[0],
            boxes[1],
            np.array([found.affine for _, _, found in chosen], np.float32).reshape(-1, 2, 3),
            points,
            np.array([len(p) for p in points], np.float32),
        )

    def _compute_box(self, points: np.ndarray) -> np.ndarray:
        """The square around points in [-1, 1], moved into the image: x1, y1, x2, y2 in [0, 1]."""
        low, high = (points.min(0) + 1) / 2, (points.max(0) + 1) / 2
        side = float((high - low).max()) * (1 + 2 * self.margin)
        side = min(1.0, max(side, self.smallest))
        start = np.clip((low + high) / 2 - side / 2, 0, 1 - side)
        return np.concatenate([start, start + side])

    def state_dict(self) -> dict[str, np.ndarray]:
        """All matches, so that a resumed run does not compute them again."""
        state: dict[str, np.ndarray] = {}
        for tilt, known in self.known.items():
            found = [m for m in known.values() if m is not None]
            state |= {
                f"{tilt}.rows": np.array(list(known), np.int64).reshape(-1, 2),
                f"{tilt}.counts": np.array(
                    [0 if m is None else len(m.points) for m in known.values()], np.int64
                ),
                f"{tilt}.affine": np.array([m.affine for m in found], np.float32),
                f"{tilt}.points": np.concatenate(
                    [np.empty((0, 4), np.float32), *(m.points for m in found)]
                ),
            }
        return state

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Restore the matches of a stopped run."""
        for tilt, known in self.known.items():
            counts, affines = state[f"{tilt}.counts"], iter(state[f"{tilt}.affine"])
            points = np.split(state[f"{tilt}.points"], counts.cumsum()[:-1]) if len(counts) else []
            for (i, j), own in zip(state[f"{tilt}.rows"].tolist(), points, strict=True):
                known[i, j] = Match(next(affines), own) if len(own) else None


def reverse_match(found: Match) -> Match:
    """The same match from right to left."""
    linear = np.linalg.inv(found.affine[:, :2].astype(np.float64))
    affine = np.concatenate([linear, -linear @ found.affine[:, 2:]], 1).astype(np.float32)
    return Match(affine, found.points[:, [2, 3, 0, 1]])


class DescribeTask:
    """Computes keys and keypoints of images, by position.

    Args:
        settings: size, features and tilt of :func:`describe_keypoints`.
        stored: keys whose keypoints are on disk already; for these, keypoints are None.
    """

    def __init__(
        self, images: Sequence[Image], settings: tuple[int, int, int], stored: set[str]
    ) -> None:
        self.images, self.settings, self.stored = images, settings, stored

    def __call__(self, positions: Sequence[int]) -> list[Any]:
        done = []
        for i in positions:
            image = self.images[i]
            content = hashlib.sha256(str(image.size).encode() + image.convert("L").tobytes())
            key = content.hexdigest()
            done.append(
                (i, key, None if key in self.stored else describe_keypoints(image, *self.settings))
            )
        return done


class MatchTask:
    """Matches pairs of stored images, by key."""

    def __init__(self, store: KeypointStore, size: int) -> None:
        self.store, self.size = store, size

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Match | None]:
        return [match_keypoints(self.store[i], self.store[j], self.size) for i, j in pairs]
