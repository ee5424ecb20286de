"""Describe the keypoints of images, and match those of two images by one affine map.

Coordinates are x, y in [-1, 1] on the central square of an image, from which views are cut. OpenCV
comes with the extra ``matching`` and is imported only when it is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fewlabels.errors import ComponentError

SCALE = 512  # factor from a RootSIFT value to the byte that is stored


class Keypoints(NamedTuple):
    """The keypoints of an image."""

    points: np.ndarray  # (n, 2) float32
    descriptors: np.ndarray  # (n, 128) uint8: RootSIFT times SCALE


class Match(NamedTuple):
    """The points that two images have in common under one affine map."""

    affine: np.ndarray  # (2, 3) float32, left -> right
    points: np.ndarray  # (n, 4) float32: x, y in left, x, y in right


def import_opencv() -> Any:
    """Import the module cv2 and limit it to one thread, since several processes use it at once.

    Raises:
        ComponentError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ComponentError(
            "discovery 'matching' needs OpenCV; pip install 'fewlabels[matching]'"
        ) from error
    cv2.setNumThreads(1)
    return cv2


def describe_keypoints(image: Image.Image, size: int, features: int, tilt: int) -> Keypoints:
    """Describe an image by SIFT keypoints with RootSIFT descriptors.

    Source: Arandjelovic and Zisserman, "Three things everyone should know to improve object
    retrieval", CVPR 2012 (RootSIFT); Morel and Yu, "ASIFT", SIAM Journal on Imaging Sciences, 2009.

    Args:
        size: side in pixels to which the central square is resized.
        features: largest number of keypoints in each view.
        tilt: 0: SIFT; otherwise affine-SIFT, with views up to this tilt.
    """
    cv2 = import_opencv()
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("L").crop((left, top, left + side, top + side))
    grey = square.resize((size, size), Image.Resampling.BICUBIC)
    detector = cv2.SIFT_create(nfeatures=features)
    if tilt:
        detector = cv2.AffineFeature_create(detector, tilt, 0)
    found, raw = detector.detectAndCompute(np.asarray(grey), None)
    if raw is None or len(found) == 0:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    points = np.array([keypoint.pt for keypoint in found], np.float32)
    roots = np.sqrt(raw / np.maximum(raw.sum(1, keepdims=True), 1e-12))
    # OpenCV counts coordinates from the centre of the first pixel, half a pixel from the edge.
    return Keypoints(
        (2 * points + 1) / size - 1, np.minimum(SCALE * roots + 0.5, 255).astype(np.uint8)
    )


def match_keypoints(
    left: Keypoints,
    right: Keypoints,
    size: int,
    ratio: float = 0.95,
    pixels: float = 4.0,
) -> Match | None:
    """Match keypoints: mutual nearest neighbours, Lowe's ratio test, an affine map by MAGSAC.

    Args:
        size: the ``size`` of :func:`describe_keypoints`, in pixels.
        ratio: largest ratio of the distances to the nearest and to the second nearest descriptor.
        pixels: largest distance between a common point and its image under the map.

    Returns:
        None for fewer than three common points, and for a degenerate map: one that mirrors, that
        changes areas more than tenfold, or that stretches one direction over four times as much as
        another.
    """
    if min(len(left.points), len(right.points)) < 3:
        return None
    a, b = (k.descriptors.astype(np.float32) / SCALE for k in (left, right))
    nearness = a @ b.T
    forth, back = nearness.argmax(1), nearness.argmax(0)
    rows = np.arange(len(a))
    mutual = back[forth] == rows
    best = nearness[rows, forth]
    second = np.partition(nearness, -2, axis=1)[:, -2]
    squares = [np.maximum(2 - 2 * n, 0) for n in (best, second)]
    kept = mutual & (squares[0] <= ratio**2 * squares[1])
    pairs = np.concatenate([left.points[kept], right.points[forth[kept]]], 1)
    # Affine-SIFT finds the same place in many views; each pair of places counts once.
    pairs = pairs[np.unique(np.round(pairs * size / 2), axis=0, return_index=True)[1]]
    if len(pairs) < 3:
        return None
    cv2 = import_opencv()
    half = size / 2  # pixels from the centre, as MAGSAC's tolerance is in pixels
    affine, inside = cv2.estimateAffine2D(
        np.ascontiguousarray(half * pairs[:, :2]),
        np.ascontiguousarray(half * pairs[:, 2:]),
        method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=pixels,
        maxIters=2000,
        confidence=0.999,
    )
    if affine is None or not np.isfinite(affine).all():
        return None
    affine[:, 2] /= half
    area = np.linalg.det(affine[:, :2])
    long, short = np.linalg.svd(affine[:, :2], compute_uv=False)
    if not 0.1 <= area <= 10 or long > 4 * short:
        return None
    common = pairs[inside.ravel().astype(bool)]
    return Match(affine.astype(np.float32), common) if len(common) >= 3 else None
